//! What is told over HTTP, as the admin socket answers it, taken at one moment and kept for a moment.

use crate::base::limits::{HTTP_FRESH_MS, HTTP_POINTS};
use crate::engine::admin::{
    AdminAnswer, AdminReply, AdminRequest, IncidentView, QueueView, StatsView, Status,
};
use crate::node::admin_router::AdminRouter;
use crate::node::tape::Request;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What a node told.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    /// Why it told nothing; empty if it did.
    pub(super) silent: String,
    pub(super) status: Status,
    /// While the node starts there are none of these.
    pub(super) stats: Option<StatsView>,
    pub(super) queue: Option<QueueView>,
    pub(super) incidents: Vec<IncidentView>,
    /// Reels that people are waited for to bring.
    pub(super) requests: Vec<Request>,
    /// When (milliseconds since 1970).
    pub(super) wall_ms: u64,
}

impl Snapshot {
    /// Why the node is not well, if it is not: it does not answer, or something critical has begun and not ended.
    pub(super) fn ill(&self) -> Option<String> {
        if !self.silent.is_empty() {
            return Some(self.silent.clone());
        }
        let critical = self.status.troubles.iter().find(|trouble| trouble.severity == "critical");
        critical.map(|trouble| format!("{}: {}", trouble.kind, one_line(&trouble.text)))
    }

    /// Why the node may not serve, if it may not.
    pub(super) fn unready(&self) -> Option<String> {
        if !self.silent.is_empty() {
            return Some(self.silent.clone());
        }
        let status = &self.status;
        let state = || format!("it is {}, {}", status.role, status.state);
        (!status.serves()).then(|| match status.reason.is_empty() {
            true => state(),
            false => format!("{}: {}", state(), one_line(&status.reason)),
        })
    }

    /// The status as JSON, as on the admin socket.
    pub(super) fn json(&self) -> String {
        // Names and texts are written so that no line ends within it.
        serde_json::to_string(&self.status).unwrap_or_default()
    }
}

/// Without what could be taken for another line.
fn one_line(text: &str) -> String {
    text.escape_debug().to_string()
}

/// A moment of the charts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Point {
    /// Entries that the peer lacks.
    pub(super) lag_entries: f64,
    /// Age of the oldest of them (seconds).
    pub(super) lag_seconds: f64,
    /// Entries made or received in a second.
    pub(super) rate: f64,
}

/// Asks the node, for all connections together.
#[derive(Clone)]
pub(super) struct Desk(Arc<Asking>);

struct Asking {
    router: AdminRouter,
    kept: tokio::sync::Mutex<Option<(Instant, Arc<Snapshot>)>>,
    points: Mutex<VecDeque<Point>>,
}

impl Desk {
    pub(super) fn new(router: AdminRouter) -> Self {
        let (kept, points) = (tokio::sync::Mutex::new(None), Mutex::new(VecDeque::new()));
        Self(Arc::new(Asking { router, kept, points }))
    }

    /// What the node says now, or said just now.
    pub(super) async fn snapshot(&self) -> Arc<Snapshot> {
        let mut kept = self.0.kept.lock().await;
        if let Some((at, snapshot)) = &*kept
            && at.elapsed() < Duration::from_millis(HTTP_FRESH_MS)
        {
            return Arc::clone(snapshot);
        }
        let router = self.0.router.clone();
        let asked = tokio::task::spawn_blocking(move || Arc::new(ask(&router))).await;
        let snapshot = asked.unwrap_or_else(|_| {
            let silent = "the node stops".to_owned();
            Arc::new(Snapshot { silent, ..Snapshot::default() })
        });
        *kept = Some((Instant::now(), Arc::clone(&snapshot)));
        snapshot
    }

    /// The same, and one more point of the charts.
    pub(super) async fn point(&self) -> Arc<Snapshot> {
        let snapshot = self.snapshot().await;
        let queue = snapshot.queue.clone().unwrap_or_default();
        let mut points = self.0.points.lock().unwrap_or_else(PoisonError::into_inner);
        if points.len() >= HTTP_POINTS {
            points.pop_front();
        }
        let whole = |n: u64| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
        points.push_back(Point {
            lag_entries: whole(queue.entries),
            lag_seconds: queue.oldest_seconds,
            rate: whole(queue.rates.entries_per_second),
        });
        snapshot
    }

    /// The points of the charts, oldest first.
    pub(super) fn points(&self) -> Vec<Point> {
        let points = self.0.points.lock().unwrap_or_else(PoisonError::into_inner);
        points.iter().copied().collect()
    }
}

fn ask(router: &AdminRouter) -> Snapshot {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let mut snapshot = Snapshot { wall_ms, requests: router.tape_requests(), ..Snapshot::default() };
    match router.answer(AdminRequest::Status) {
        AdminReply::Ok { value: AdminAnswer::Status(status) } => snapshot.status = *status,
        AdminReply::No { message, .. } | AdminReply::Error { message, .. } => {
            return Snapshot { silent: message, ..snapshot };
        }
        AdminReply::Ok { .. } => {}
    }
    if let AdminReply::Ok { value: AdminAnswer::Stats(stats) } = router.answer(AdminRequest::Stats) {
        snapshot.stats = Some(*stats);
    }
    if let AdminReply::Ok { value: AdminAnswer::Queue(queue) } = router.answer(AdminRequest::Queue) {
        snapshot.queue = Some(queue);
    }
    if let AdminReply::Ok { value: AdminAnswer::Incidents(incidents) } =
        router.answer(AdminRequest::Incidents)
    {
        snapshot.incidents = incidents;
    }
    snapshot
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::admin::TroubleView;

    #[test]
    fn a_node_is_ready_only_if_it_may_serve_and_well_unless_something_critical_lasts() {
        let at = |role: &str, state: &str| Snapshot {
            status: Status { role: role.into(), state: state.into(), ..Status::default() },
            ..Snapshot::default()
        };
        for (role, state, ready) in [
            ("primary", "serving", true),
            ("primary", "peer-away", true),
            ("primary", "asking-peer", false),
            ("primary", "starting", false),
            ("primary", "handing-over", false),
            ("standby", "standby", false),
            ("diverged", "diverged", false),
        ] {
            assert_eq!(at(role, state).unready().is_none(), ready, "{role} {state}");
            assert_eq!(at(role, state).ill(), None);
        }
        let mut hurt = at("primary", "serving");
        let text = "the disk\nis \u{1b}[31mgone".to_owned();
        hurt.status.troubles.push(TroubleView {
            kind: "store-failed".into(),
            severity: "critical".into(),
            text,
            ..TroubleView::default()
        });
        assert_eq!(hurt.ill().unwrap(), "store-failed: the disk\\nis \\u{1b}[31mgone");
        let silent = Snapshot { silent: "it stops".into(), ..at("primary", "serving") };
        assert!(silent.ill().is_some() && silent.unready().is_some());
    }
}
