//! Operators' requests on their way through the engine.

use super::core::RoundContext;
use super::incidents::RateLimited;
use super::log;
use crate::base::limits::{ADMIN_PENDING_MAX, INCIDENTS_MAX};
use crate::engine::admin::{AdminAnswer, AdminReply, AdminRequest, IncidentView, Status};
use crate::engine::incidents::Matter;
use crate::engine::{Event, Incident};
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
fn add_link(status: &mut Status, told: &LinkTold) {
    if status.link.last_error.is_empty() && !status.peer.connected {
        status.link.last_error.clone_from(&told.trouble);
    }
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
        self.pending.push(Pending { token: self.serial, reply });
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
        let mut reply = reply;
        match &mut reply {
            AdminReply::Ok { value: AdminAnswer::Status(status) } => {
                self.add_counts(status, beside.link.refused, beside.refused);
                add_link(status, beside.link);
                add_unaccepted(status, beside.unaccepted);
                status.longest_round_ms = beside.longest_round_ms;
            }
            AdminReply::Ok { value: AdminAnswer::Incidents(all) } => self.add_incidents(all),
            _ => {}
        }
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

    fn add_counts(&self, status: &mut Status, link: u64, [resp, nbd]: [u64; 2]) {
        status.refused += link + self.strangers.count() + self.strangers_more;
        status.resp_refused += resp;
        status.nbd_refused += nbd;
        status.incidents += self.incident_count;
        status.log_lines_lost += log::lost();
    }

    fn add_incidents(&self, all: &mut Vec<IncidentView>) {
        all.extend(self.incidents.iter().map(IncidentView::from));
        // Stable, so that those of one moment stay in their order.
        all.sort_by_key(|incident| incident.wall_ms);
    }
}

/// A status says so when nobody can connect although the node would serve.
fn add_unaccepted(status: &mut Status, unaccepted: Option<&io::Error>) {
    let at_work = matches!(status.state.as_str(), "serving" | "standby");
    let (Some(error), true) = (unaccepted, at_work) else { return };
    let scarce = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
    status.state = if scarce { "no-descriptors" } else { "accept-failed" }.to_owned();
    status.reason =
        format!("no new connection can be accepted ({error}): only those that are there are served");
    status.next = Matter::AcceptFailed.row().advice.to_owned();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Severity;
    use crate::engine::admin::PeerView;

    #[test]
    fn a_status_counts_what_was_refused_before_the_engine_heard_of_it() {
        let mut operators = Operators::default();
        let incident = Incident {
            severity: Severity::Warning,
            kind: "link-refused",
            text: "x".to_owned(),
            wall_ms: 5,
            lasts: false,
        };
        operators.remember(&incident);
        let mut counted = Status {
            refused: 2,
            resp_refused: 1,
            incidents: 1,
            role: "primary".to_owned(),
            ..Status::default()
        };
        operators.add_counts(&mut counted, 3, [4, 5]);
        let all = (counted.refused, counted.resp_refused, counted.nbd_refused, counted.incidents);
        assert_eq!((all, counted.role.as_str()), ((5, 5, 5, 2), "primary"));
        let told = LinkTold { refused: 0, trouble: "no peer is trusted yet".to_owned() };
        for (connected, expected) in [(false, "no peer is trusted yet"), (true, "")] {
            let peer = PeerView { connected, ..PeerView::default() };
            let mut status = Status { peer, ..Status::default() };
            add_link(&mut status, &told);
            assert_eq!(status.link.last_error, expected);
        }
        let mut merged = [4, 6].map(|wall_ms| IncidentView { wall_ms, ..IncidentView::default() }).to_vec();
        operators.add_incidents(&mut merged);
        assert!(merged.iter().map(|one| one.wall_ms).eq([4, 5, 6]), "{merged:?}");
    }

    #[test]
    fn a_node_that_accepts_nobody_does_not_say_that_it_serves() {
        let full = io::Error::from_raw_os_error(libc::EMFILE);
        let at = |state: &str| Status { state: state.to_owned(), ..Status::default() };
        let mut told = at("serving");
        add_unaccepted(&mut told, Some(&full));
        assert_eq!(told.state, "no-descriptors");
        assert!(told.reason.contains("Too many open files"), "{told:?}");
        assert!(told.next.contains("LimitNOFILE"), "{told:?}");
        // A worse state stands.
        for (state, error) in [("no-space", Some(&full)), ("serving", None)] {
            let mut told = at(state);
            add_unaccepted(&mut told, error);
            assert_eq!(told, at(state));
        }
    }
}
