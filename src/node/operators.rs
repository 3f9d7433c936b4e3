//! Operators' requests on their way through the engine.

use super::core::Turn;
use super::log;
use crate::base::limits::{ADMIN_PENDING_MAX, INCIDENTS_MAX};
use crate::engine::admin::{AdminReply, AdminRequest};
use crate::engine::incidents::Matter;
use crate::engine::{Event, Incident};
use serde_json::Value;
use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::SyncSender;

/// The requests under way, and what this room adds to the engine's answers: it alone knows of connections that
/// were refused before the engine heard of them.
#[derive(Debug, Default)]
pub(crate) struct Operators {
    serial: u64,
    pending: Vec<Pending>,
    incidents: VecDeque<Incident>,
    /// Since the start.
    incident_count: u64,
}

#[derive(Debug)]
struct Pending {
    token: u64,
    asked: Asked,
    reply: SyncSender<AdminReply>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Status,
    Incidents,
    Other,
}

impl Operators {
    /// Hands a request to the engine.
    pub(crate) fn ask(&mut self, turn: &mut Turn, request: AdminRequest, reply: SyncSender<AdminReply>) {
        if self.pending.len() >= ADMIN_PENDING_MAX {
            // The asker has waited for nothing else, so there is room for its answer.
            let _ = reply.try_send(AdminReply::Error {
                message: format!("asking the node: {ADMIN_PENDING_MAX} requests are under way"),
                next: "try again when they are answered".to_owned(),
            });
            return;
        }
        self.serial += 1;
        let asked = match &request {
            AdminRequest::Status => Asked::Status,
            AdminRequest::Incidents => Asked::Incidents,
            _ => Asked::Other,
        };
        self.pending.push(Pending { token: self.serial, asked, reply });
        turn.events.push(Event::Admin { token: self.serial, request });
    }

    /// Hands the engine's answer back; `refused` connections are added to a status, and that nobody can connect now.
    pub(crate) fn answer(
        &mut self,
        token: u64,
        reply: AdminReply,
        refused: u64,
        unaccepted: Option<&io::Error>,
    ) {
        let Some(at) = self.pending.iter().position(|pending| pending.token == token) else { return };
        let pending = self.pending.swap_remove(at);
        let reply = match (reply, pending.asked) {
            (AdminReply::Ok { value }, Asked::Status) => {
                AdminReply::Ok { value: with_unaccepted(self.with_counts(value, refused), unaccepted) }
            }
            (AdminReply::Ok { value }, Asked::Incidents) => {
                AdminReply::Ok { value: self.with_incidents(value) }
            }
            (reply, _) => reply,
        };
        // An asker that gave up is gone.
        let _ = pending.reply.try_send(reply);
    }

    /// An incident that the engine does not know of.
    pub(crate) fn remember(&mut self, incident: &Incident) {
        self.incident_count += 1;
        if self.incidents.len() == INCIDENTS_MAX {
            self.incidents.pop_front();
        }
        self.incidents.push_back(incident.clone());
    }

    fn with_counts(&self, mut value: Value, refused: u64) -> Value {
        let counts =
            [("refused", refused), ("incidents", self.incident_count), ("log_lines_lost", log::lost())];
        for (field, more) in counts {
            if let Some(count) = value.get_mut(field)
                && let Some(known) = count.as_u64()
            {
                *count = (known + more).into();
            }
        }
        value
    }

    fn with_incidents(&self, value: Value) -> Value {
        let Value::Array(mut all) = value else { return value };
        all.extend(self.incidents.iter().filter_map(|incident| serde_json::to_value(incident).ok()));
        // Stable, so that those of one moment stay in their order.
        all.sort_by_key(|incident| incident.get("wall_ms").and_then(Value::as_u64));
        Value::Array(all)
    }
}

/// A status that says so when nobody can connect although the node would serve.
fn with_unaccepted(mut value: Value, unaccepted: Option<&io::Error>) -> Value {
    let at_work = matches!(value.get("state").and_then(Value::as_str), Some("serving" | "standby"));
    let (Some(error), Some(status), true) = (unaccepted, value.as_object_mut(), at_work) else {
        return value;
    };
    let scarce = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
    status.insert("state".to_owned(), if scarce { "no-descriptors" } else { "accept-failed" }.into());
    let reason = format!("no new connection can be accepted ({error}): only those that are there are served");
    status.insert("reason".to_owned(), reason.into());
    status.insert("next".to_owned(), Matter::AcceptFailed.row().advice.into());
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Severity;
    use serde_json::json;

    #[test]
    fn a_status_counts_what_was_refused_before_the_engine_heard_of_it() {
        let mut operators = Operators::default();
        let incident =
            Incident { severity: Severity::Warning, kind: "link-refused", text: "x".to_owned(), wall_ms: 5 };
        operators.remember(&incident);
        let counted = operators.with_counts(json!({"refused": 2, "incidents": 1, "role": "primary"}), 3);
        assert_eq!(counted, json!({"refused": 5, "incidents": 2, "role": "primary"}));
        let merged = operators.with_incidents(json!([{"wall_ms": 4}, {"wall_ms": 6}]));
        let times: Vec<_> = merged.as_array().unwrap().iter().map(|one| one["wall_ms"].as_u64()).collect();
        assert_eq!(times, [Some(4), Some(5), Some(6)]);
    }

    #[test]
    fn a_node_that_accepts_nobody_does_not_say_that_it_serves() {
        let full = io::Error::from_raw_os_error(libc::EMFILE);
        let told = with_unaccepted(json!({"state": "serving"}), Some(&full));
        assert_eq!(told["state"], "no-descriptors");
        assert!(told["reason"].as_str().unwrap().contains("Too many open files"), "{told}");
        assert!(told["next"].as_str().unwrap().contains("LimitNOFILE"), "{told}");
        // A worse state stands.
        assert_eq!(with_unaccepted(json!({"state": "no-space"}), Some(&full)), json!({"state": "no-space"}));
        assert_eq!(with_unaccepted(json!({"state": "serving"}), None), json!({"state": "serving"}));
    }
}
