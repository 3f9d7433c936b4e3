//! One seed, expanded into what a run is made of: which faults exist in it at all, and how often they come.

use super::spool::{SpoolOptions, SpoolTape};
use crate::base::{AckLevel, Prng};
use crate::engine::{FullSync, OnDiverged, PeerLoss, SpoolConfig, SpoolFull, SpoolKeep, SpoolMode};

/// Something bad (or just unusual) that is done to the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// `kill -9` of a node.
    Kill,
    /// Power loss of a node.
    Power,
    /// Power loss of both.
    PowerBoth,
    /// A clean stop and a start.
    Stop,
    /// All connections reset.
    Reset,
    /// No bytes pass for a while, silently.
    Silence,
    /// No bytes pass one way.
    HalfOpen,
    /// Connecting fails for a while.
    Refusing,
    /// One or two journal writes of a node fail.
    WriteError,
    /// A node's control file cannot be replaced for a while.
    ControlError,
    /// Reads of segments fail for a while.
    ReadError,
    /// No room for segments on a node for a while.
    Full,
    /// A node's disk is slow for a while.
    SlowDisk,
    /// A node's store fails once.
    StoreError,
    /// A node's process is suspended for a while.
    Suspend,
    /// A node's wall clock jumps.
    WallJump,
    /// The primary dies and the standby takes over; the old one returns later.
    Takeover,
    /// The standby takes over while the old primary is cut off but alive.
    SplitBrain,
    /// The primary dies and is told to start although its peer cannot be asked.
    StartAlone,
    /// A file with content becomes replicated.
    SetDptr,
    /// Logging is paused and later resumed.
    Pause,
    /// Files are created, cleared and deleted.
    Churn,
    /// The two nodes change roles, often with more trouble a moment later.
    Switchover,
    /// Bits of a volume turn while its node lives.
    Rot,
    /// A block of a table of items rots while its node lives.
    RotItems,
    /// No room on a node's spool for a while.
    SpoolFull,
    /// A node's spool is not mounted for a while.
    SpoolAway,
    /// A node dies and durable bytes of it go bad (only where its peer still has them or a later write tells).
    Decay,
}

/// Every kind, so that each seed can switch each on or off.
const ALL: [Trouble; 23] = [
    Trouble::Kill,
    Trouble::Power,
    Trouble::PowerBoth,
    Trouble::Stop,
    Trouble::Reset,
    Trouble::Silence,
    Trouble::HalfOpen,
    Trouble::Refusing,
    Trouble::WriteError,
    Trouble::ControlError,
    Trouble::ReadError,
    Trouble::Full,
    Trouble::SlowDisk,
    Trouble::StoreError,
    Trouble::Suspend,
    Trouble::WallJump,
    Trouble::Takeover,
    Trouble::SplitBrain,
    Trouble::StartAlone,
    Trouble::SetDptr,
    Trouble::Pause,
    Trouble::Churn,
    Trouble::Decay,
];

/// What makes a standby the primary, or may: not beside what makes it lose its claim on the journal, as nothing brings a
/// pair together again after both.
const REPLACES: [Trouble; 3] = [Trouble::Takeover, Trouble::SplitBrain, Trouble::StartAlone];

/// A rule that the simulator breaks on purpose, to prove that its checkers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// The client hears "ok" when its command arrives.
    OkBeforeDurable,
    /// A batch reaches the store when it is handed to the disk.
    ApplyBeforeDurable,
    /// A batch is not applied.
    SkipApply,
    /// A batch is applied twice.
    DoubleApply,
    /// Two batches are applied in the wrong order.
    SwapApply,
    /// The store holds another value than the journal says.
    CorruptApply,
    /// A store loses a chunk of a copy and says that it took it.
    LoseChunk,
    /// A chunk of a copy lacks an item.
    ShortChunk,
    /// A standby looks at a range one batch too late.
    LookLate,
    /// An item is changed in the store of a standby behind its back.
    PlantItem,
    /// A rotten table goes before what it held came again.
    DropRotten,
    /// A save lacks what a range held.
    LoseSaved,
    /// A save says of a range that it is as an earlier one left it, whatever it holds.
    TakeForSame,
    /// What a volume loses is not kept for a view.
    LoseKept,
    /// A view shows the newest state in the place of its moment.
    StirView,
    /// A range that a diverged node touched is not made what the primary has.
    ForgetRange,
    /// A range of an old copy is called equal that is not.
    CallEqual,
    /// A write is reported durable, and is not.
    LieWritten,
    /// A control file is reported durable, and is not.
    LieControl,
    /// What waits for the store behind a batch that failed is applied all the same.
    KeepRound,
    /// The oldest segment is removed although it is needed.
    RemoveEarly,
    /// The file of a segment that held more than the history is used again.
    ReuseCut,
    /// A standby says that it has on disk what it has not.
    LieAck,
    /// A primary announces as durable what is not.
    LieDurable,
    /// A takeover's account names a later last entry kept than is true.
    UnderstateLoss,
    /// Diverged entries are reported saved, and are not.
    ForgetDiverged,
    /// A read tells an old value.
    StaleRead,
    /// A batch is written under an epoch that the node does not hold.
    ForeignEpoch,
    /// Each batch is sent many times over.
    Storm,
    /// A primary sends more than its standby has granted.
    Overdraw,
    /// After the last fault a node never connects again.
    NeverConnect,
    /// The node hears of a client's end long after it came.
    CarryOn,
    /// A standby gives up the stream that it follows for the call of a copy, although it lives.
    GiveWay,
    /// A primary gives its role away before its standby has everything.
    GiveEarly,
    /// A primary that gave its role away goes on serving.
    ServeOn,
    /// A copy on the spool is reported durable, and is not.
    SpoolLie,
    /// A node is granted more time than its lease lasts.
    OutliveLease,
    /// A part is reported to be on a reel before the flush, and is lost with it.
    FlushLie,
    /// What was read from a reel before comes once more in the place of what is wanted.
    ReplayReel,
    /// The oldest save that is there is not told of.
    ForgetSave,
}

/// Every mutation.
pub const MUTATIONS: [Mutation; 40] = [
    Mutation::OkBeforeDurable,
    Mutation::ApplyBeforeDurable,
    Mutation::SkipApply,
    Mutation::DoubleApply,
    Mutation::SwapApply,
    Mutation::CorruptApply,
    Mutation::LoseChunk,
    Mutation::ShortChunk,
    Mutation::LookLate,
    Mutation::PlantItem,
    Mutation::DropRotten,
    Mutation::LoseSaved,
    Mutation::TakeForSame,
    Mutation::LoseKept,
    Mutation::StirView,
    Mutation::ForgetRange,
    Mutation::CallEqual,
    Mutation::LieWritten,
    Mutation::LieControl,
    Mutation::KeepRound,
    Mutation::RemoveEarly,
    Mutation::ReuseCut,
    Mutation::LieAck,
    Mutation::LieDurable,
    Mutation::UnderstateLoss,
    Mutation::ForgetDiverged,
    Mutation::StaleRead,
    Mutation::ForeignEpoch,
    Mutation::Storm,
    Mutation::Overdraw,
    Mutation::NeverConnect,
    Mutation::CarryOn,
    Mutation::GiveWay,
    Mutation::GiveEarly,
    Mutation::ServeOn,
    Mutation::SpoolLie,
    Mutation::OutliveLease,
    Mutation::FlushLie,
    Mutation::ReplayReel,
    Mutation::ForgetSave,
];

/// What a run is made of. Printed with every failure.
#[derive(Clone, Debug)]
pub struct Options {
    /// The seed that all this comes from.
    pub seed: u64,
    /// The kinds of trouble in this run; empty in a fault-free one.
    pub troubles: Vec<Trouble>,
    /// About how often trouble comes (microseconds).
    pub trouble_every_us: u64,
    /// Clients.
    pub clients: usize,
    /// Commands of all clients together.
    pub ops: usize,
    /// The clients' pause between commands, at most (microseconds).
    pub think_us: u64,
    /// The database's ack level.
    pub ack_level: AckLevel,
    /// What happens to it when the peer is away.
    pub on_peer_loss: PeerLoss,
    /// Heartbeat interval (milliseconds).
    pub heartbeat_ms: u64,
    /// A silent link is closed after this (milliseconds).
    pub peer_timeout_ms: u64,
    /// Checkpoint interval (milliseconds).
    pub checkpoint_ms: u64,
    /// Checkpoint after so many bytes applied.
    pub checkpoint_bytes: u64,
    /// Whether a restarted primary serves although its peer is silent.
    pub serve_alone: bool,
    /// Median latency of a disk operation (microseconds).
    pub disk_us: u64,
    /// The node hears of what its store did up to so much later (microseconds): longer than it takes to try again.
    pub store_lag_us: u64,
    /// The quota of the replicated journal, in segments.
    pub quota_segments: Option<u64>,
    /// Where segments go that an absent peer lacks, if there is such a place.
    pub spool: Option<SpoolOptions>,
    /// Of 100 disk operations, so many take up to 100 times as long.
    pub disk_tail_percent: u64,
    /// Median delay of the wire (microseconds).
    pub net_us: u64,
    /// Bits are flipped in one of so many pieces on the wire; never if 0.
    pub corrupt_one_in: u64,
    /// Largest value (bytes).
    pub value_max: u64,
    /// The rule to break, if any.
    pub mutation: Option<Mutation>,
    /// Node 1 does not exist.
    pub solo: bool,
    /// What becomes of a peer that the journal does not reach any more.
    pub full_sync: FullSync,
    /// What becomes of a node that holds entries which the pair never kept.
    pub on_diverged: OnDiverged,
    /// There is a volume, and clients of it.
    pub volumes: bool,
    /// What both nodes hold is compared now and then.
    pub compares: bool,
    /// A primary sends test updates.
    pub canary: bool,
    /// A copy of the primary's directory is served elsewhere, and calls whenever trouble comes.
    pub copies: bool,
    /// A lease decides who is primary.
    pub leased: bool,
}

/// One of these.
fn pick(prng: &mut Prng, of: &[u64]) -> u64 {
    of[usize::try_from(prng.below(of.len() as u64)).unwrap_or(0)]
}

impl Options {
    /// Expands a seed. Every 16th has no faults.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let mut prng = Prng::new(seed ^ 0x0091_1075);
        let fault_free = seed.is_multiple_of(16);
        let share = [10, 25, 50, 80][usize::try_from(prng.below(4)).unwrap_or(0)];
        let mut troubles: Vec<Trouble> = ALL.into_iter().filter(|_| prng.percent(share)).collect();
        if troubles.is_empty() {
            troubles.push(ALL[usize::try_from(prng.below(ALL.len() as u64)).unwrap_or(0)]);
        }
        if prng.percent(85) {
            troubles.retain(|t| *t != Trouble::Decay);
        }
        if fault_free {
            troubles.clear();
        }
        let ack_level =
            [AckLevel::Local, AckLevel::Local, AckLevel::Received, AckLevel::Durable, AckLevel::Applied]
                [usize::try_from(prng.below(5)).unwrap_or(0)];
        let heartbeat_ms = pick(&mut prng, &[100, 200, 400]);
        let grace = pick(&mut prng, &[50, 300, 1000]);
        let on_peer_loss =
            if prng.percent(70) { PeerLoss::Degrade { after_ms: grace } } else { PeerLoss::Block };
        let mut options = Self {
            seed,
            troubles,
            trouble_every_us: pick(&mut prng, &[40_000, 150_000, 600_000]),
            clients: usize::try_from(1 + prng.below(5)).unwrap_or(1),
            ops: usize::try_from(40 + prng.below(60)).unwrap_or(60),
            think_us: pick(&mut prng, &[1_000, 20_000, 100_000]),
            ack_level,
            on_peer_loss,
            heartbeat_ms,
            peer_timeout_ms: heartbeat_ms * pick(&mut prng, &[3, 5, 8]),
            checkpoint_ms: pick(&mut prng, &[50, 500, 5_000]),
            checkpoint_bytes: pick(&mut prng, &[8 << 10, 64 << 10, 16 << 20]),
            serve_alone: prng.percent(15),
            disk_us: pick(&mut prng, &[50, 500, 3_000]),
            disk_tail_percent: if fault_free { 0 } else { pick(&mut prng, &[0, 1, 5]) },
            net_us: pick(&mut prng, &[50, 500, 10_000]),
            corrupt_one_in: if fault_free { 0 } else { pick(&mut prng, &[0, 0, 0, 200]) },
            value_max: pick(&mut prng, &[40, 40, 2_000, 9_000]),
            mutation: None,
            full_sync: FullSync::Auto,
            on_diverged: if seed % 11 == 5 { OnDiverged::Wait } else { OnDiverged::Rewind },
            leased: false,
            solo: false,
            volumes: seed.is_multiple_of(3),
            copies: seed.is_multiple_of(5),
            compares: seed % 4 == 1,
            canary: seed % 7 == 3,
            store_lag_us: pick(&mut prng, &[0, 0, 0, 20_000, 400_000, 1_500_000]),
            quota_segments: None,
            spool: None,
        };
        options.vary_checkpoints();
        if !fault_free {
            options.vary_rot();
        }
        if !fault_free && prng.percent(12) {
            options.small_quota(3 + prng.below(3));
        } else if prng.percent(50) {
            options.troubles.retain(|trouble| !REPLACES.contains(trouble));
        } else if REPLACES.iter().any(|trouble| options.has(*trouble)) {
            options.troubles.retain(|trouble| *trouble != Trouble::Full);
        }
        options.vary_switchovers(fault_free);
        options.vary_spool(fault_free);
        if options.troubles.is_empty() && !fault_free {
            options.troubles.push(Trouble::Kill);
        }
        options
    }

    /// Drawn apart from all else, so the others are the runs that they were.
    fn vary_rot(&mut self) {
        if self.volumes && Prng::new(self.seed ^ 0x0000_0b07).percent(30) {
            self.troubles.extend([Trouble::Rot, Trouble::Rot]);
        }
        if Prng::new(self.seed ^ 0x0000_0b1f).percent(15) {
            self.troubles.extend([Trouble::RotItems, Trouble::RotItems]);
        }
    }

    /// A life in which a lease decides who is primary, with what may befall such a pair.
    #[must_use]
    pub fn leased(seed: u64) -> Self {
        let may = [
            Trouble::Kill,
            Trouble::Power,
            Trouble::Stop,
            Trouble::Reset,
            Trouble::Silence,
            Trouble::HalfOpen,
            Trouble::Suspend,
            Trouble::SlowDisk,
            Trouble::Switchover,
        ];
        let mut options = Self::from_seed(seed);
        options.troubles.retain(|trouble| may.contains(trouble));
        if !seed.is_multiple_of(16) {
            options.troubles.extend([Trouble::Kill, Trouble::Suspend]);
        }
        let (quota_segments, spool, on_diverged) = (None, None, OnDiverged::Rewind);
        let (serve_alone, volumes, compares, copies) = (false, false, false, false);
        Self {
            leased: true,
            quota_segments,
            spool,
            on_diverged,
            serve_alone,
            volumes,
            compares,
            copies,
            corrupt_one_in: 0,
            ..options
        }
    }

    /// Gives three of seven seeds a rhythm of checkpoints of their own. It is drawn apart from all else, so the others are
    /// the runs that they were.
    fn vary_checkpoints(&mut self) {
        if [0, 2, 6].contains(&(self.seed % 7)) {
            let mut prng = Prng::new(self.seed ^ 0x00C4_EC99);
            self.checkpoint_ms = 20 + prng.below(3_000);
            self.checkpoint_bytes = (4 << 10) << prng.below(10);
        }
    }

    /// Lets three of ten seeds change roles, if they have trouble. It is drawn apart from all else. A lost claim on the
    /// journal and another primary do not go together, see above.
    fn vary_switchovers(&mut self, fault_free: bool) {
        let may = self.quota_segments.is_none() && !self.has(Trouble::Full);
        if may && !fault_free && Prng::new(self.seed ^ 0x0005_1717).percent(30) {
            self.troubles.extend([Trouble::Switchover; 3]);
        }
    }

    /// Gives a spool to half of the seeds with a small quota, and to some others a small quota and a spool that takes
    /// everything, so that their claim is never lost. It is drawn apart from all else, so the others are the runs that they
    /// were.
    fn vary_spool(&mut self, fault_free: bool) {
        let mut prng = Prng::new(self.seed ^ 0x0005_900f);
        let few = self.quota_segments.is_some();
        let may =
            few || !(self.has(Trouble::Full) || self.has(Trouble::Decay) || self.has(Trouble::Switchover));
        if fault_free || !may || !prng.percent(if few { 50 } else { 8 }) {
            return;
        }
        let mode = if prng.percent(30) { SpoolMode::Always } else { SpoolMode::Auto };
        let full = [SpoolFull::DropPeer, SpoolFull::DropPeer, SpoolFull::Alarm];
        let full = full[usize::try_from(prng.below(3)).unwrap_or(0)];
        // Drawn apart, so that those without reels are the runs that they were.
        let tape = [SpoolTape::None, SpoolTape::None, SpoolTape::Behind, SpoolTape::Only];
        let tape = tape[usize::try_from(Prng::new(self.seed ^ 0x0007_a9e5).below(4)).unwrap_or(0)];
        let saves = mode == SpoolMode::Always && Prng::new(self.seed ^ 0x0005_a4e5).percent(50);
        let keep = if saves { SpoolKeep::OldestSave } else { SpoolKeep::Limits };
        self.spool = Some(SpoolOptions { mode, full, faults: few, tape, keep });
        if few {
            self.troubles.extend([Trouble::SpoolFull, Trouble::SpoolAway]);
        } else {
            self.quota_segments = Some(3 + prng.below(3));
            self.troubles.extend([Trouble::Silence, Trouble::Silence]);
            (self.ops, self.think_us, self.value_max) = (160, 1_000, 30_000);
        }
    }

    /// The spool as the engine is told of it.
    pub(super) fn spool_config(&self) -> SpoolConfig {
        let none = SpoolConfig::default();
        let limit_bytes = match self.spool {
            Some(SpoolOptions { tape: SpoolTape::Behind, .. }) => {
                (2 + self.seed % 5) * super::world::SEGMENT_BYTES
            }
            _ => 0,
        };
        self.spool.map_or(none.clone(), |SpoolOptions { mode, full, tape, keep, .. }| SpoolConfig {
            place: if tape == SpoolTape::Only { "tape:/reels" } else { "file:/spool" }.to_owned(),
            tape: if tape == SpoolTape::Behind { "tape:/reels" } else { "" }.to_owned(),
            limit_bytes,
            mode,
            full,
            keep,
            high_percent: 40 + self.seed % 50,
            low_percent: 20 + self.seed % 40,
            ..none
        })
    }

    /// So many of 100 reads of the store are not answered out of memory. (Not drawn with the rest, so that a seed stays
    /// what it was.)
    pub(super) fn cold_percent(&self) -> u64 {
        [0, 2, 20, 60][usize::try_from(self.seed % 4).unwrap_or(0)]
    }

    /// Makes it a run in which the standby is away for so long that it loses its claim on the journal. Nothing is left
    /// then that would bring it back, so it never becomes primary.
    fn small_quota(&mut self, segments: u64) {
        self.quota_segments = Some(segments);
        self.troubles.retain(|trouble| !REPLACES.contains(trouble) && *trouble != Trouble::Decay);
        self.troubles.extend([Trouble::Silence, Trouble::Silence, Trouble::Silence]);
        if let PeerLoss::Block = self.on_peer_loss {
            self.on_peer_loss = PeerLoss::Degrade { after_ms: 50 };
        }
        (self.ops, self.think_us, self.value_max) = (160, 1_000, 30_000);
    }

    /// Whether this run has that kind of trouble.
    #[must_use]
    pub fn has(&self, trouble: Trouble) -> bool {
        self.troubles.contains(&trouble)
    }
}

/// Independent streams of randomness, so that one more draw in one place does not change all the others.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    /// Wire.
    pub(super) net: Prng,
    /// Disks and stores.
    pub(super) disk: Prng,
    /// Clients.
    pub(super) client: Prng,
    /// Operator and troubles.
    pub(super) operator: Prng,
    /// The nodes' scheduling.
    pub(super) node: Prng,
    /// Compares.
    pub(super) compare: Prng,
    /// Spools.
    pub(super) spool: Prng,
    /// Watches.
    pub(super) lease: Prng,
}

impl Streams {
    /// The streams of a seed.
    pub(super) fn new(seed: u64) -> Self {
        let stream = |n: u64| Prng::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ n << 56);
        Self {
            net: stream(1),
            disk: stream(2),
            client: stream(3),
            operator: stream(4),
            node: stream(5),
            compare: stream(6),
            spool: stream(7),
            lease: stream(8),
        }
    }
}
