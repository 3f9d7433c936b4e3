//! Where operators' requests arrive: answered from the directory, from the progress of the start, or by the core.

use super::admin::Answer;
use super::config::Config;
use super::inbox::{Inbox, Message};
use super::kept_stats::KeptStats;
use super::layout::Layout;
use super::log;
use super::notify::Desk;
use super::save::{SaveOrder, SaveSource};
use super::starting::Starting;
use super::tape;
use super::views::ViewDesk;
use crate::base::limits::ADMIN_WAIT_MS;
use crate::engine::admin::{AdminAnswer, AdminReply, AdminRequest, DoneView, Status};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// What is there once the node is up.
type Later<T> = Arc<OnceLock<T>>;

/// Answers operators: from the directory what only the disk knows, how far it is while the node starts, everything else
/// by asking the core.
#[derive(Clone)]
pub(crate) struct AdminRouter {
    layout: Layout,
    /// What is told while there is no core.
    early: Status,
    starting: Arc<Starting>,
    core: Arc<OnceLock<Inbox>>,
    saves: Arc<OnceLock<SaveSource>>,
    views: Arc<OnceLock<ViewDesk>>,
    kept: Arc<KeptStats>,
    /// Answers what concerns records of incidents and the notify list.
    desk: Desk,
}

impl AdminRouter {
    pub(crate) fn new(
        layout: &Layout,
        config: &Config,
        starting: &Arc<Starting>,
        (core, saves, views): (&Later<Inbox>, &Later<SaveSource>, &Later<ViewDesk>),
        desk: &Desk,
    ) -> Self {
        let early = Status {
            name: config.engine.name.clone(),
            state: "starting".to_owned(),
            next: "wait: it goes on by itself; `hot-backup status --watch` shows how far it is".to_owned(),
            ack_level: config.engine.ack_level.name().to_owned(),
            ..Status::default()
        };
        let (core, saves, kept) = (Arc::clone(core), Arc::clone(saves), Arc::new(KeptStats::found(layout)));
        let views = Arc::clone(views);
        let (layout, desk) = (layout.clone(), desk.clone());
        Self { layout, early, starting: Arc::clone(starting), core, saves, views, kept, desk }
    }

    /// What earlier processes counted.
    pub(crate) fn kept(&self) -> Arc<KeptStats> {
        Arc::clone(&self.kept)
    }

    /// Reels that people are waited for to bring, by what works with drives in this node's name.
    pub(crate) fn tape_requests(&self) -> Vec<tape::Request> {
        tape::requests_in(self.layout.dir())
    }

    /// Answers a request, and sends a save behind the answer; may wait for the core.
    pub(crate) fn answer_or_send(&self, request: AdminRequest) -> Answer {
        let AdminRequest::Save { account, rate, since, alone } = request else {
            return self.answer(request).into();
        };
        let Some(source) = self.saves.get().cloned() else {
            let request = AdminRequest::Save { account, rate, since, alone };
            return self.early_answer(&request).into();
        };
        let (account, rate) = (account.unwrap_or_default(), rate.unwrap_or_default());
        let order = SaveOrder { account, rate, since, alone };
        let reply = AdminReply::Ok { value: DoneView { done: true }.into() };
        Answer { reply, then: Some(Box::new(move |stream| source.run(&order, stream))) }
    }

    /// Answers a request; may wait for the core.
    pub(crate) fn answer(&self, request: AdminRequest) -> AdminReply {
        if request == AdminRequest::DivergedList {
            return diverged_files(&self.layout);
        }
        if let Some(reply) = self.desk.answer(&request) {
            return reply;
        }
        if let Some(reply) = self.views.get().and_then(|views| self.about_views(views, &request)) {
            return reply;
        }
        let mut reply = match self.core.get() {
            Some(core) => match ask_core(core, request) {
                AdminReply::Ok { value: AdminAnswer::Stats(now) } => {
                    AdminReply::Ok { value: self.kept.with_before(*now).into() }
                }
                other => other,
            },
            None => self.early_answer(&request),
        };
        if let AdminReply::Ok { value: AdminAnswer::Status(status) } = &mut reply {
            self.desk.complete(status);
            if let Some(views) = self.views.get() {
                views.complete(status);
            }
        }
        reply
    }

    /// The answer to what concerns views alone.
    fn about_views(&self, views: &ViewDesk, request: &AdminRequest) -> Option<AdminReply> {
        Some(match request {
            AdminRequest::ViewList => AdminReply::Ok { value: views.list().into() },
            AdminRequest::ViewClose { name } => views.close(name),
            AdminRequest::ViewOpen(_) => {
                let core = self.core.get()?;
                views.open(request.clone(), |request| ask_core(core, request))
            }
            _ => return None,
        })
    }

    fn early_answer(&self, request: &AdminRequest) -> AdminReply {
        let replay = self.starting.view();
        let reason = format!("it is starting: {}", replay.text());
        if *request != AdminRequest::Status {
            let message = format!("asking the node: {reason}");
            return AdminReply::No { message, next: self.early.next.clone() };
        }
        let status = Status {
            role: self.starting.role().to_owned(),
            reason,
            replay: Some(replay),
            log_lines_lost: log::lost(),
            uptime_seconds: self.starting.seconds(),
            ..self.early.clone()
        };
        AdminReply::Ok { value: status.into() }
    }
}

fn ask_core(inbox: &Inbox, request: AdminRequest) -> AdminReply {
    let (reply, answer) = sync_channel(1);
    let stopping = || AdminReply::Error {
        message: "asking the node: it is stopping".to_owned(),
        next: "start it again with `hot-backup serve`".to_owned(),
    };
    if inbox.send(Message::Admin { request, reply }).is_err() {
        return stopping();
    }
    match answer.recv_timeout(Duration::from_millis(ADMIN_WAIT_MS)) {
        Ok(reply) => reply,
        Err(RecvTimeoutError::Disconnected) => stopping(),
        Err(RecvTimeoutError::Timeout) => AdminReply::Error {
            message: format!("asking the node: no answer within {} s", ADMIN_WAIT_MS / 1000),
            next: "it may still be carried out; look at `hot-backup status`".to_owned(),
        },
    }
}

/// The files in `diverged/`, also those of earlier runs.
fn diverged_files(layout: &Layout) -> AdminReply {
    let dir = layout.diverged();
    match super::diverged::list(layout) {
        Ok(sets) => {
            let names: Vec<String> = sets.into_iter().map(|set| set.name).collect();
            AdminReply::Ok { value: names.into() }
        }
        Err(error) => AdminReply::Error {
            message: format!("listing {}: {error}", dir.display()),
            next: "check the directory and its permissions".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::starting::Stage;
    use super::*;

    fn desk() -> (AdminRouter, Arc<Starting>) {
        let starting = Arc::new(Starting::new());
        let (name, state, next) = ("a".to_owned(), "starting".to_owned(), "wait".to_owned());
        let early = Status { name, state, next, ..Status::default() };
        let layout = Layout::new(std::path::Path::new("/nowhere/at/all"));
        let desk = Desk::open(&layout, "a", Vec::new());
        let (core, saves, kept) = (Arc::default(), Arc::default(), Arc::new(KeptStats::found(&layout)));
        let views = Arc::default();
        (
            AdminRouter { layout, early, starting: Arc::clone(&starting), core, saves, views, kept, desk },
            starting,
        )
    }

    #[test]
    fn while_a_node_starts_its_status_says_how_far_it_is() {
        let (desk, starting) = desk();
        starting.set_role("primary");
        starting.enter(Stage::Walk, 4000);
        starting.add(1000);
        let AdminReply::Ok { value: AdminAnswer::Status(status) } = desk.answer(AdminRequest::Status) else {
            panic!("an answer")
        };
        assert_eq!((status.state.as_str(), status.role.as_str()), ("starting", "primary"));
        assert!(
            status.reason.starts_with("it is starting: reading the journal: 1,000 of 4,000 bytes (25 %)")
        );
        let replay = status.replay.unwrap();
        assert_eq!((replay.done, replay.total, replay.percent), (1000, 4000, 25.0));
        assert!(replay.seconds_left.is_some());
    }

    #[test]
    fn while_a_node_starts_other_requests_are_refused_and_say_how_far_it_is() {
        let (desk, starting) = desk();
        starting.enter(Stage::Store, 0);
        for request in [AdminRequest::StartAlone, AdminRequest::AccountList, AdminRequest::Incidents] {
            let AdminReply::No { message, next } = desk.answer(request) else { panic!("a refusal") };
            assert_eq!(message, "asking the node: it is starting: opening the store");
            assert_eq!(next, "wait");
        }
    }
}
