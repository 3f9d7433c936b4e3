//! What this node knows of the other one, whatever connection told it: how far it is, when it was last heard, and what of
//! that is kept on disk. Connections come and go ([`super::link::Link`]); this stays.

mod door;
mod gap;
mod lag;
mod progress;
mod record;

use super::core::Core;
use super::effect::Severity;
use super::incidents::Matter;
use crate::base::{Mono, Position, Seq};
use crate::format::batch::BatchHeader;
use crate::format::control::{PeerRecord, Role};
use crate::format::frame::{Ack, Hello};
use crate::store::StoreRead;
pub(super) use door::told as door_told;
use lag::Lag;
pub(super) use progress::PeerState;
use progress::Progress;
use record::Keeping;
use std::net::SocketAddr;

/// The other node.
#[derive(Debug)]
pub(super) struct Peer {
    /// As its last hello told.
    name: String,
    /// Where Redis clients reach it, as its last hello told.
    door: Option<SocketAddr>,
    /// When anything of it was last heard; 0 if nothing was in this life.
    heard: Mono,
    /// When it was last heard as the one that followed this node's stream, once that stream is over.
    stream_heard: Option<Mono>,
    /// It answered, and what it said forbids to serve.
    forbids: bool,
    /// The protocol's version that it speaks, as its last hello told; 0 before that.
    version: u16,
    /// What it can do beside that, as its last hello told.
    features: u32,
    /// It is given a copy: what it acknowledges keeps no promise.
    incomplete: bool,
    /// The last acknowledgement heard. It stays true when the peer is away, but for `received`.
    acked: Ack,
    /// What it is known to have on disk: the journal is kept from here.
    retained: Seq,
    progress: Progress,
    /// What it does not have on disk yet.
    lag: Lag,
    /// What it told of both journals, as the next control file will hold it.
    record: PeerRecord,
    keeping: Keeping,
}

impl Peer {
    fn new(record: PeerRecord, keeping: Keeping) -> Self {
        Self {
            name: String::new(),
            door: None,
            heard: Mono(0),
            stream_heard: None,
            forbids: false,
            version: 0,
            features: 0,
            incomplete: false,
            acked: Ack::default(),
            retained: Seq(0),
            progress: Progress::default(),
            lag: Lag::default(),
            record,
            keeping,
        }
    }

    /// Empty before its first hello.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// It said who it is.
    pub(super) fn introduced(&mut self, hello: &Hello) {
        self.name.clone_from(&hello.name);
        self.door = hello.door;
        self.version = hello.version;
        self.features = hello.features;
        self.incomplete = hello.role == Role::Incomplete;
    }

    /// It is of an older program.
    #[cfg(test)]
    pub(super) fn forget_features(&mut self) {
        self.features = 0;
    }

    /// Feature bits of its last hello.
    pub(super) fn features(&self) -> u32 {
        self.features
    }

    /// The protocol's version and the features of its last hello; 0 before that.
    pub(super) fn speaks_version(&self) -> (u16, u32) {
        (self.version, self.features)
    }

    /// Whether it is given a copy that is not whole yet.
    pub(super) fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// It leaves what it had for a copy that begins at `origin`. Until it has done so it may ask again for what came after
    /// `kept`.
    pub(super) fn copy_begins(&mut self, now: Mono, origin: Position, kept: Seq) {
        self.incomplete = true;
        self.retained = kept;
        self.acked = Ack::default();
        self.stream_begins(now, origin);
    }

    /// The last acknowledgement that promises may be built on.
    pub(super) fn confirmed(&self) -> Ack {
        if self.incomplete { Ack::default() } else { self.acked }
    }

    /// The last entry that it ever said to be on its disk, as far as that is still so.
    pub(super) fn on_disk(&self) -> Seq {
        self.retained.max(self.record.holds.min(self.record.on_disk))
    }

    /// Host and port that Redis clients of this node are shown.
    pub(super) fn door_shown(&self, host: &str) -> Option<(String, u16)> {
        self.door.and_then(|told| door::shown(told, host))
    }

    /// Bytes of it have come.
    pub(super) fn speaks(&mut self, now: Mono) {
        self.heard = now;
    }

    /// Whether it was heard at all, and not longer ago than `ms`.
    pub(super) fn was_heard_within(&self, now: Mono, ms: u64) -> bool {
        self.heard.0 > 0 && now < self.heard.plus_ms(ms)
    }

    /// Since it was last heard (microseconds).
    pub(super) fn silence(&self, now: Mono) -> u64 {
        now.since(self.heard)
    }

    /// Whether what it said forbids this node to serve.
    pub(super) fn forbids(&self) -> bool {
        self.forbids
    }

    pub(super) fn set_forbids(&mut self, forbids: bool) {
        self.forbids = forbids;
    }

    /// A stream to it begins behind `common`. One that was set back needs again what it once had.
    pub(super) fn stream_begins(&mut self, now: Mono, common: Position) {
        self.progress = Progress::begin(now);
        self.retained = self.retained.min(common.seq);
        let acked = &mut self.acked;
        acked.received = acked.received.min(common.seq);
        acked.durable = acked.durable.min(common.seq);
        acked.applied = acked.applied.min(common.seq);
    }

    /// The stream is over; its last word was heard at `heard`.
    pub(super) fn stream_ended(&mut self, heard: Mono) {
        self.stream_heard = Some(heard);
    }

    /// When it was last heard as the one that followed this node's stream, once that stream is over.
    pub(super) fn stream_heard(&self) -> Option<Mono> {
        self.stream_heard
    }

    /// The connection is gone. What was only in its memory may be gone with it: nobody is told "received" any more.
    pub(super) fn lost(&mut self) {
        self.acked.received = self.acked.durable;
    }

    /// It granted credit, or its machine took bytes.
    pub(super) fn moved(&mut self, now: Mono) {
        self.progress.moved(now);
    }

    /// It told how far it is.
    pub(super) fn acknowledged(&mut self, now: Mono, ack: Ack) {
        self.progress.acked(now, self.acked, ack);
        self.acked = ack;
        self.hear_acknowledged(ack.durable);
        if ack.durable > self.retained {
            self.retained = ack.durable;
            self.lag.acked(ack.durable);
        }
    }

    /// The last acknowledgement heard.
    pub(super) fn acked(&self) -> Ack {
        self.acked
    }

    /// What it is known to have on disk.
    pub(super) fn retained(&self) -> Seq {
        self.retained
    }

    /// A batch was sealed that it does not have yet.
    pub(super) fn lacks(&mut self, header: &BatchHeader, now: Mono) {
        self.lag.sealed(header.last_seq(), u64::from(header.len), now);
    }

    /// Bytes of batches that it does not have on disk, as far as this process sealed them.
    pub(super) fn lag_bytes(&self) -> u64 {
        self.lag.bytes()
    }

    /// Age of the oldest of them (microseconds).
    pub(super) fn lag_age(&self, now: Mono) -> u64 {
        self.lag.age(now)
    }

    /// Since when it lacks the oldest of what it lacks; what an earlier process sealed is of no age.
    fn lacking_since(&self) -> Mono {
        self.lag.oldest().unwrap_or(Mono(0))
    }
}

impl<S: StoreRead> Core<S> {
    pub(super) fn peer_state(&self) -> PeerState {
        if !self.link.is_up() {
            return PeerState::Away;
        }
        if !self.is_primary() || !self.link.is_streaming() {
            return PeerState::Connected;
        }
        let (peer, end) = (&self.peer, self.replicated().pace().durable);
        let age = self.now.mono.since(peer.lacking_since());
        peer.progress.state(self.now.mono, peer.acked, end, age)
    }

    /// When a peer that does not move has to be told of.
    pub(super) fn stuck_deadline(&self) -> Option<Mono> {
        if !self.link.is_streaming() || self.peer_state() == PeerState::Stuck {
            return None;
        }
        let (peer, end) = (&self.peer, self.replicated().pace().durable);
        peer.progress.deadline(peer.acked, end, peer.lacking_since())
    }

    /// Tells when a connected peer gets on no more, and when it does again.
    pub(super) fn pump_peer_state(&mut self) {
        match self.peer_state() {
            PeerState::Stuck => {
                let text =
                    "the peer is connected and neither takes nor acknowledges anything any more".to_owned();
                self.incident_once(Severity::Warning, Matter::PeerStuck, text);
            }
            // It is told that it is lost, and it may still be stuck when it is back.
            PeerState::Away => self.settled(&[Matter::PeerStuck]),
            _ => self.incident_over(Matter::PeerStuck, "peer-moves", "the peer gets on again".to_owned()),
        }
    }
}

#[cfg(test)]
impl Peer {
    pub(super) fn record_mut(&mut self) -> &mut PeerRecord {
        &mut self.record
    }

    /// It is known to have so much on disk.
    pub(super) fn retain(&mut self, retained: Seq) {
        self.retained = retained;
    }

    /// The record in the control file on disk.
    pub(super) fn saved_record(&self) -> &PeerRecord {
        self.keeping.saved()
    }
}
