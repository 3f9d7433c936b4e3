//! What only an operator can decide: a takeover, and serving although the peer could not be asked.

use super::Stage;
use super::opening::Cause;
use crate::base::{Epoch, Mono, Seq};
use crate::engine::admin::{StartView, TakeoverAccount};
use crate::engine::core::Core;
use crate::engine::status::seconds;
use crate::format::control::Role;
use crate::format::dptr::FileState;
use crate::pair::record;
use crate::store::StoreRead;

/// What an operator of a node that is incomplete can do.
const INCOMPLETE_CHOICES: &str = "start the primary and wait until the copy is whole (hot-backup resync --watch); or restore \
    a save (hot-backup restore --from); or, if both are impossible, take over with what is here: hot-backup takeover \
    --peer-is-down --incomplete";
/// A takeover waits this long for the link to a dead peer to be noticed as dead (milliseconds).
const TAKEOVER_GRACE_MS: u64 = 1500;

/// A takeover under way: who asked for it, and what it will answer.
#[derive(Debug)]
pub(in crate::engine) struct PendingTakeover {
    pub(in crate::engine) token: u64,
    pub(in crate::engine) account: TakeoverAccount,
    pub(in crate::engine) started: Mono,
}

/// A takeover that waits for the primary's connection to end.
#[derive(Debug)]
pub(in crate::engine) struct WaitingTakeover {
    token: u64,
    until: Mono,
    accept_loss: bool,
    incomplete: bool,
}

impl WaitingTakeover {
    pub(in crate::engine) fn until(&self) -> Mono {
        self.until
    }
}

/// What an operator says with `takeover`.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::engine) struct Word {
    pub(in crate::engine) peer_is_down: bool,
    pub(in crate::engine) accept_loss: bool,
    pub(in crate::engine) now: bool,
    pub(in crate::engine) dry_run: bool,
    /// Also where this node holds a part of a copy only.
    pub(in crate::engine) incomplete: bool,
    /// The epoch that begins then, as the operator typed it.
    pub(in crate::engine) epoch: Option<u64>,
}

impl<S: StoreRead> Core<S> {
    /// `start --alone`.
    pub(in crate::engine) fn start_alone(&mut self, token: u64, accept_loss: bool) {
        match self.roles.stage() {
            Stage::Asking => self.start_asking_node(token, accept_loss),
            Stage::Serving => self.reply_no(token, "this node serves already", ""),
            _ if !self.is_primary() => self.reply_no(
                token,
                format!("this node is not the primary (its role is {})", self.control.role().name()),
                "to make a standby the primary: hot-backup takeover --peer-is-down",
            ),
            _ => self.reply_no(token, format!("this node is {}", self.roles.word()), "try again in a moment"),
        }
    }

    /// A node that would begin an epoch without what its peer has would make of one history two.
    fn start_asking_node(&mut self, token: u64, accept_loss: bool) {
        if let Some(why) = self.peer_is_ahead() {
            let name = self.peer.name();
            let peer = if name.is_empty() { "the peer" } else { name };
            if self.hears_of_peer() {
                return self.reply_no(
                    token,
                    format!("starting alone: {why}, and the peer answers"),
                    format!(
                        "if {peer} has the newer state: stop this node, and say there: hot-backup takeover --peer-is-down; \
                         if it has not: stop it first, then say here: hot-backup start --alone --accept-loss"
                    ),
                );
            }
            if !accept_loss {
                return self.reply_no(
                    token,
                    format!("starting alone: {why}"),
                    "start the peer, which has the newer state, and say there: hot-backup takeover --peer-is-down; if it \
                     is lost for good: hot-backup start --alone --accept-loss",
                );
            }
        }
        self.roles.accepts_loss |= accept_loss;
        self.roles.serve_alone();
        self.dirty = true;
        self.reply_value(token, StartView { state: "starting-epoch".to_owned() });
    }

    /// Whether the peer answered a short time ago.
    fn hears_of_peer(&self) -> bool {
        self.peer.was_heard_within(self.now.mono, 2 * self.config.peer_timeout_ms)
    }

    /// Whether this node may become the primary at all. One that is diverged must not, not even while it replays its
    /// journal after a start: it holds entries that the pair never kept.
    fn check_takeover(&self, incomplete: bool) -> Result<(), String> {
        match (self.roles.stage(), self.control.role()) {
            (Stage::Standby, _) | (Stage::Replaying, Role::Standby) => Ok(()),
            // The peer holds less than this node does.
            (Stage::Diverged, _) | (Stage::Replaying, Role::Diverged) if self.peer.record().spared => Ok(()),
            (Stage::Incomplete, _) if incomplete => self.check_partial(),
            (Stage::Incomplete, _) | (Stage::Replaying, Role::Incomplete) => Err(format!(
                "it is incomplete: the copy that it is given is not whole, and only the primary has the rest; {}",
                self.lacking_in_words()
            )),
            (Stage::Replaying, role) => Err(format!("its role is {}", role.name())),
            _ => Err(format!("it is {}", self.roles.word())),
        }
    }

    /// `takeover`.
    pub(in crate::engine) fn takeover(&mut self, token: u64, word: Word) {
        let name = self.config.name.clone();
        if self.is_primary() {
            let message = format!("{name} is the primary already (epoch {})", self.control.epoch());
            return self.reply_no(token, message, "nothing to do; see `hot-backup status`");
        }
        if let Err(why) = self.check_takeover(word.incomplete) {
            let message = format!("{name} cannot take over: {why}");
            let next = if self.is_incomplete() { INCOMPLETE_CHOICES } else { "see `hot-backup status`" };
            return self.reply_no(token, message, next);
        }
        if word.dry_run {
            let mut account = self.takeover_account();
            account.dry_run = true;
            return self.reply_value(token, account);
        }
        if !word.peer_is_down {
            return self.reply_no(
                token,
                "a takeover needs your word that the peer does not serve any more",
                "make sure that it is down or fenced, then say: hot-backup takeover --peer-is-down",
            );
        }
        let (accept_loss, incomplete) = (word.accept_loss, word.incomplete && self.is_incomplete());
        if incomplete && word.epoch.map(Epoch) != self.epoch_to_open(true) {
            let epoch = self.epoch_to_open(true).unwrap_or_default();
            return self.reply_no(
                token,
                format!("a takeover with a part of a copy begins epoch {epoch}, and that is not what was typed"),
                "look at what is missing: hot-backup takeover --incomplete --dry-run; then type the epoch that it names",
            );
        }
        if self.link.hears_primary() && !word.now {
            let until = self.now.mono.plus_ms(TAKEOVER_GRACE_MS);
            return self.wait_with_takeover(WaitingTakeover { token, until, accept_loss, incomplete });
        }
        self.begin_takeover(token, accept_loss, incomplete);
    }

    /// The newest word counts. Who said an earlier one is told so.
    pub(super) fn wait_with_takeover(&mut self, waiting: WaitingTakeover) {
        if let Some(earlier) = self.roles.waiting_takeover.replace(waiting) {
            self.reply_no(
                earlier.token,
                "another takeover was asked for while this one waited, and takes its place",
                "see `hot-backup status`",
            );
        }
    }

    /// Goes on with a takeover that waits, once the primary's connection has ended or its time is over.
    pub(in crate::engine) fn retry_takeover(&mut self) {
        let Some(waiting) = &self.roles.waiting_takeover else { return };
        let hears = self.link.hears_primary();
        if hears && self.now.mono < waiting.until {
            return;
        }
        let (token, accept_loss, incomplete) = (waiting.token, waiting.accept_loss, waiting.incomplete);
        self.roles.waiting_takeover = None;
        if !hears {
            return self.begin_takeover(token, accept_loss, incomplete);
        }
        let silence = seconds(self.link.primary_heard().map_or(0, |heard| self.now.mono.since(heard)));
        self.reply_no(
            token,
            format!("the peer may not be down: its connection stands, and it was last heard {silence:.1} s ago"),
            format!(
                "stop the primary first (or cut it off), then take over; a connection that is silent for {:.1} s is given \
                 up; if you know that the primary does not serve any more: hot-backup takeover --peer-is-down --now",
                seconds(self.config.peer_timeout_ms * 1000)
            ),
        );
    }

    fn begin_takeover(&mut self, token: u64, accept_loss: bool, incomplete: bool) {
        if let Err(why) = self.check_takeover(incomplete) {
            let message = format!("{} cannot take over any more: {why}", self.config.name);
            return self.reply_no(token, message, "see `hot-backup status`");
        }
        let (account, started) = (self.takeover_account(), self.now.mono);
        if account.needs_accept_loss && !accept_loss {
            return self.reply_no(
                token,
                format!("a takeover now would lose known entries: {}", account.lost),
                "if the old primary's disk can still be had, start that node instead; if it is lost for good: \
                 hot-backup takeover --peer-is-down --accept-loss",
            );
        }
        self.refuse_pending("a takeover begins");
        // All that is here is applied now, announced or not, and must be found applied again after a crash.
        let end = self.replicated().pace().appended;
        self.replicated_mut().set_announced(end);
        self.open_epoch(Cause::Takeover(PendingTakeover { token, account, started }));
    }

    /// What a takeover now keeps and may lose.
    fn takeover_account(&self) -> TakeoverAccount {
        let end = self.replicated().sealed();
        let peer = self.peer.record();
        let announced = self.announced();
        let shared = record::shared(peer, end);
        let lost_announced = announced.0.saturating_sub(shared.0);
        let durable = record::missing_durable(peer, end);
        TakeoverAccount {
            name: self.config.name.clone(),
            dry_run: false,
            epoch: self.epoch_to_open(true).unwrap_or_default().0,
            old_epoch: end.epoch.0,
            applied: end.seq.0,
            received: end.seq.0,
            announced: announced.0,
            lost_announced,
            durable_level_lost: durable.map_or(0, |range| range.count()),
            needs_accept_loss: peer.restored || record::missing(peer, end).is_some(),
            lost: self.loss_in_words(announced, durable),
            kept_up_to: end.seq.0,
            silence_seconds: seconds(self.peer.silence(self.now.mono)),
            incomplete_files: self.incomplete_files(),
            partial: self.is_incomplete(),
            seconds: 0.0,
        }
    }

    /// The files that are not whole here, by name, for people.
    fn incomplete_files(&self) -> Vec<String> {
        let copied =
            self.namespace.files().filter(|(_, info)| info.replicated && info.dptr.state != FileState::Whole);
        let copied = copied.map(|(_, info)| info.key.clone());
        copied.chain(self.lacking_files()).collect()
    }

    /// The last entry that the old primary is known to have had on its disk.
    pub(in crate::engine) fn announced(&self) -> Seq {
        let peer = self.peer.record();
        peer.on_disk.max(peer.offered).max(peer.known_here)
    }

    fn loss_in_words(&self, announced: Seq, durable: Option<record::Range>) -> String {
        let end = self.replicated().sealed();
        let shared = record::shared(self.peer.record(), end);
        if self.peer.record().restored {
            return format!(
                "this node was restored from a save that ends at entry {} of epoch {}, and has not been joined to the pair \
                 since: all that the pair did after that is lost, at every ack level",
                end.seq, end.epoch
            );
        }
        if announced <= shared {
            return format!(
                "everything the old primary announced as durable (entries up to {announced}) is kept; updates it \
                 acknowledged at level local after entry {} of epoch {}, or in a later epoch of its own, unheard of \
                 here, are lost if there are any; at level received and above none is lost",
                end.seq, end.epoch
            );
        }
        let first = shared.next();
        let durable = match durable {
            Some(range) if record::set_back(self.peer.record(), end).is_none() => format!(
                "; of them, entries {range} may have been acknowledged at level durable or above: the old primary's life \
                 ended badly, and it could not tell whether this node had them"
            ),
            Some(range) => format!(
                "; of them, entries {range} may have been acknowledged at level durable or above, because this node had \
                 acknowledged them and does not have them any more"
            ),
            None => "; at level received and above none is lost".to_owned(),
        };
        format!(
            "entries {first} to {announced}, which the old primary had, are not here, nor is anything after them: updates \
             acknowledged at level local from entry {first} on are lost{durable}"
        )
    }
}
