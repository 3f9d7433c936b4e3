//! Operators' requests on their way through the engine.

use super::core::RoundContext;
use super::incidents::RateLimited;
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
#[derive(Debug)]
pub(crate) struct Operators {
    serial: u64,
    pending: Vec<Pending>,
    incidents: VecDeque<Incident>,
    /// Since the start.
    incident_count: u64,
    /// Users who may not ask and did.
    strangers: RateLimited,
    /// Such calls that came too fast to be told one by one.
    strangers_more: u64,
}

impl Default for Operators {
    fn default() -> Self {
        Self {
            serial: 0,
            pending: Vec::new(),
            incidents: VecDeque::new(),
            incident_count: 0,
            strangers: RateLimited::new("admin-refused"),
            strangers_more: 0,
        }
    }
}

#[derive(Debug)]
struct Pending {
    token: u64,
    asked: Asked,
    reply: SyncSender<AdminReply>,
}

/// What the link knows and the engine does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkTold {
    /// Connections refused since the start.
    pub(crate) refused: u64,
    /// Why the last connection that came, or any that could come, is not let in; empty after one that is.
    pub(crate) trouble: String,
}

/// A node that is dialled hears of its peer only here, until the peer has proved its key.
fn with_link(mut value: Value, told: &LinkTold) -> Value {
    let is_up = value.pointer("/peer/connected") != Some(&Value::Bool(false));
    if let Some(Value::String(error)) = value.pointer_mut("/link/last_error")
        && error.is_empty()
        && !is_up
    {
        error.clone_from(&told.trouble);
    }
    value
}

/// What of a status the engine does not know.
pub(crate) struct Beside<'a> {
    /// What the link tells.
    pub(crate) link: &'a LinkTold,
    /// Clients refused at the doors (RESP, NBD).
    pub(crate) refused: [u64; 2],
    /// Why nobody can connect now.
    pub(crate) unaccepted: Option<&'a io::Error>,
    /// The longest round of the core.
    pub(crate) longest_round_ms: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Status,
    Incidents,
    Other,
}

impl Operators {
    /// Hands a request to the engine.
    pub(crate) fn ask(
        &mut self,
        turn: &mut RoundContext,
        request: AdminRequest,
        reply: SyncSender<AdminReply>,
    ) {
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

    /// A user who may not asked, and was told so.
    pub(crate) fn refused(&mut self, turn: &mut RoundContext, uid: u32, times: u64) {
        self.strangers_more += times.saturating_sub(1);
        let text = format!("user {uid} asked at the admin socket and is not permitted");
        self.strangers.note(turn, &uid.to_string(), &text);
    }

    /// Hands the engine's answer back; to a status is added what only this room knows.
    pub(crate) fn answer(&mut self, token: u64, reply: AdminReply, beside: &Beside<'_>) {
        let Some(at) = self.pending.iter().position(|pending| pending.token == token) else { return };
        let pending = self.pending.swap_remove(at);
        let reply = match (reply, pending.asked) {
            (AdminReply::Ok { value }, Asked::Status) => {
                let mut value =
                    with_link(self.with_counts(value, beside.link.refused, beside.refused), beside.link);
                if let Some(longest) = value.get_mut("longest_round_ms") {
                    *longest = beside.longest_round_ms.into();
                }
                AdminReply::Ok { value: with_unaccepted(value, beside.unaccepted) }
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

    fn with_counts(&self, mut value: Value, link: u64, [resp, nbd]: [u64; 2]) -> Value {
        let more = [
            ("refused", link + self.strangers.count() + self.strangers_more),
            ("resp_refused", resp),
            ("nbd_refused", nbd),
            ("incidents", self.incident_count),
            ("log_lines_lost", log::lost()),
        ];
        for (field, more) in more {
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
        let engines =
            json!({"refused": 2, "resp_refused": 1, "nbd_refused": 0, "incidents": 1, "role": "primary"});
        let counted = operators.with_counts(engines, 3, [4, 5]);
        let all =
            json!({"refused": 5, "resp_refused": 5, "nbd_refused": 5, "incidents": 2, "role": "primary"});
        assert_eq!(counted, all);
        let away = json!({"peer": {"connected": false}, "link": {"last_error": ""}});
        let up = json!({"peer": {"connected": true}, "link": {"last_error": ""}});
        let told = LinkTold { refused: 0, trouble: "no peer is trusted yet".to_owned() };
        assert_eq!(with_link(away, &told)["link"]["last_error"], "no peer is trusted yet");
        assert_eq!(with_link(up, &told)["link"]["last_error"], "");
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
