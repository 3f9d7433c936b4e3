//! The thread that owns the store's writer: batches in order, as many at once as wait.
//!
//! A commit of many updates costs the processor less than many commits of few, and what the store takes of it is missing
//! elsewhere. So while batches keep coming, this thread lets them collect for a moment ([`Linger`]).

use super::compares::{CompareJob, Reading, unread};
use super::inbox::{CoreEnded, Inbox};
use super::volumes::parts;
use crate::base::limits::{
    APPLY_LINGER_BYTES, APPLY_LINGER_MS, APPLY_LOOK_MS, APPLY_MERGE_MAX, APPLY_PROMPT_MAX,
};
use crate::base::{Fault, FileId, JournalKind, Round, Seq};
use crate::engine::{CompareEvent, Rounds, StoreEvent, VolumeEffect, VolumeEvent};
use crate::format::batch::Batch;
use crate::format::chunk::{Chunk, CopyBegin, Progress};
use crate::format::compare::{Span, What};
use crate::format::dptr::DptrKind;
use crate::format::rewind::{Prepared, Ranges};
use crate::store::namespace::has_content;
use crate::store::tree_store::{Moment, MomentSource};
use crate::store::volumes::{Check, Kept};
use crate::store::{CompareTarget, CopyTarget, Look, SlowSync, StoreError, StoreWrite};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

/// Work for the store.
#[derive(Debug)]
pub(crate) enum Apply {
    /// Apply a batch of a journal, unless its round has failed.
    Batch(JournalKind, Round, Batch),
    /// Make what is applied durable. The slow part of that is told through the sender.
    Checkpoint(Sender<Apply>),
    /// The slow part of a checkpoint is done.
    Synced(io::Result<()>),
    /// Read of volumes between two batches.
    Volume(VolumeEffect),
    /// Leave everything that is replicated for a copy.
    BeginCopy(Box<CopyBegin>, Option<Box<Ranges>>),
    /// Keep what a rewind will begin with.
    PrepareRewind(Box<Prepared>),
    /// Make a range what a chunk says, unless its round has failed.
    Chunk(Round, Box<(Chunk, Progress)>),
    /// Look at a range for a compare, unless its round has failed.
    Look(Box<LookJob>),
    /// Make a range what a chunk says, beside both journals, unless its round has failed.
    Repair(u64, Round, Box<Chunk>),
    /// Everything that may be on disk from before the start was applied again.
    Replayed,
    /// Items could not be read: tell which.
    FindRot,
    /// Hold the moment between two batches, for a view.
    View(Box<ViewJob>),
    /// Check of volumes between two batches, for a scrub.
    Scrub(Looked, SyncSender<Result<(), Fault>>),
}

/// A look that is wanted between two batches, and who reads what it shows.
#[derive(Debug)]
pub(crate) struct LookJob {
    /// Its number.
    pub(crate) look: u64,
    /// The round of the batches before it.
    pub(crate) round: Round,
    /// The file.
    pub(crate) file: FileId,
    /// Where.
    pub(crate) span: Span,
    /// What is wanted of it.
    pub(crate) what: What,
    /// How much is looked at, at most (bytes).
    pub(crate) most: u32,
    /// Who reads it.
    pub(crate) to: Sender<CompareJob>,
}

/// A moment that is wanted.
#[derive(Debug)]
pub(crate) struct ViewJob {
    /// Takes what volumes lose from then on.
    pub(crate) kept: Arc<Kept>,
    /// Only volumes that this node has alone are of use.
    pub(crate) alone: bool,
    /// What it has to show of each journal.
    pub(crate) at_least: [Seq; 2],
    /// Told none if the store does not show that yet.
    pub(crate) to: SyncSender<Result<Option<Moment>, StoreError>>,
}

/// What a scrub wants looked at by the one who writes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Looked {
    /// A range of a volume that may be wrong, or has no checksums yet.
    Range(FileId, u64, u64, Check),
    /// A volume was read to its end.
    Whole(FileId),
    /// A table of items, of which was noted that it is wrong.
    Items,
}

/// After a failure, what else was handed over in that round is dropped, and room is made on a full disk.
fn heed(
    event: &StoreEvent,
    rounds: &mut Rounds,
    (journal, round): (JournalKind, Round),
    make_room: impl Fn(),
) {
    if let StoreEvent::ApplyFailed { fault, .. } = *event {
        rounds.failed(journal, round);
        if fault == Fault::NoSpace {
            make_room();
        }
    }
}

/// Applies until the core is gone or `stop` is set. When nothing waits, `tidy` is called until it says that nothing
/// is left to tidy. When the disk is full, `make_room` is called before that is told.
pub(crate) fn run<W: StoreWrite + CopyTarget + CompareTarget + MomentSource>(
    store: &mut W,
    tidy: impl Fn(&mut W) -> Result<bool, StoreError>,
    make_room: impl Fn(),
    work: &Receiver<Apply>,
    syncs: &Sender<SyncJob>,
    inbox: &Inbox,
    stop: &AtomicBool,
) {
    let mut next = None;
    let mut tidied = false;
    let mut linger = Linger::default();
    let mut rounds = Rounds::default();
    while !stop.load(Ordering::Relaxed) {
        let job = match next.take().map_or_else(|| work.try_recv(), Ok) {
            Ok(job) => job,
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) if !tidied => {
                tidied = is_tidy(tidy(store));
                continue;
            }
            Err(TryRecvError::Empty) => {
                let idle = Instant::now();
                let Ok(job) = work.recv() else { return };
                if idle.elapsed() >= Duration::from_millis(APPLY_LINGER_MS) {
                    linger.rested();
                }
                job
            }
        };
        tidied = false;
        let done = match job {
            Apply::Batch(journal, round, _) if !rounds.takes(journal, round) => continue,
            Apply::Batch(journal, round, batch) => {
                let mut gathered = Gathered::new(journal, round, batch);
                if gathered.look(work) != Came::Enough {
                    linger.collect(|| gathered.look(work));
                }
                next = gathered.after.take();
                let event = apply(store, (journal, round), &gathered.batches);
                heed(&event, &mut rounds, (journal, round), &make_room);
                inbox.event(event)
            }
            Apply::Checkpoint(back) => match store.begin_checkpoint() {
                None => inbox.event(checkpoint(store)),
                // Fails when that thread is gone, and then the process is ending.
                Some(sync) => syncs.send((sync, back)).map_err(|_| CoreEnded),
            },
            Apply::Synced(Ok(())) => inbox.event(checkpoint(store)),
            Apply::Synced(Err(error)) => inbox.event(not_synced(store, &error)),
            Apply::Volume(effect) => read(store, effect, inbox),
            Apply::Replayed => {
                store.replayed();
                Ok(())
            }
            Apply::FindRot => {
                store.tell_rotten_again();
                Ok(())
            }
            Apply::View(job) => hold(store, *job),
            Apply::Scrub(what, back) => scrub(store, what, &back, inbox),
            Apply::Look(job) if !rounds.takes(JournalKind::Replicated, job.round) => continue,
            Apply::Look(job) => look_at(store, *job, inbox),
            Apply::Repair(_, round, _) if !rounds.takes(JournalKind::Replicated, round) => continue,
            Apply::Repair(look, _, chunk) => inbox.event(repair(store, look, &chunk)),
            Apply::BeginCopy(begin, ranges) => inbox.event(begin_copy(store, &begin, ranges.as_deref())),
            Apply::PrepareRewind(prepared) => inbox.event(prepare_rewind(store, &prepared)),
            Apply::Chunk(round, _) if !rounds.takes(JournalKind::Replicated, round) => continue,
            Apply::Chunk(round, chunk) => {
                let event = take_chunk(store, round, &chunk.0, &chunk.1);
                heed(&event, &mut rounds, (JournalKind::Replicated, round), &make_room);
                inbox.event(event)
            }
        };
        if done.and_then(|()| tell_wrong(store, inbox)) == Err(CoreEnded) {
            return;
        }
    }
}

/// Holds the moment, if it is late enough.
fn hold(store: &mut impl MomentSource, job: ViewJob) -> Result<(), CoreEnded> {
    let ViewJob { kept, alone, at_least, to } = job;
    let is_there = store.shows().iter().zip(&at_least).all(|(shown, wanted)| shown >= wanted);
    let held = if is_there { store.moment(&kept).map(Some) } else { Ok(None) };
    if let (true, Ok(Some(moment))) = (alone, &held) {
        let own = moment.namespace.files().filter(|(_, info)| has_content(info));
        kept.only(own.filter(|(_, info)| info.dptr.kind == DptrKind::Blocks).map(|(id, _)| id).collect());
    }
    // Fails when nobody waits for it any more.
    let _ = to.send(held);
    Ok(())
}

/// Reads of volumes between two batches.
fn read(store: &mut impl StoreWrite, effect: VolumeEffect, inbox: &Inbox) -> Result<(), CoreEnded> {
    match effect {
        VolumeEffect::Read { read, file, offset, len, .. } => {
            let result = store.read_volume(file, offset, len).map_err(|error| told(&error));
            // First what is wrong, as the answer says less.
            tell_wrong(store, inbox)?;
            inbox.event(VolumeEvent::Read { read, result })
        }
        VolumeEffect::Allocation { read, file, offset, len, .. } => {
            let result = store.allocation(file, offset, len).map_err(|error| told(&error));
            inbox.event(VolumeEvent::Allocation { read, result: result.map(parts) })
        }
        // The store forgets it when it applies that.
        VolumeEffect::Forget { .. } => Ok(()),
    }
}

/// Tells what was found wrong in volumes, and among items.
fn tell_wrong(store: &mut impl StoreWrite, inbox: &Inbox) -> Result<(), CoreEnded> {
    let (places, items) = (store.take_bad_places(), store.take_rotten_items());
    if !items.is_empty() {
        inbox.event(StoreEvent::Rotten { items })?;
    }
    if places.is_empty() { Ok(()) } else { inbox.event(VolumeEvent::Wrong { places }) }
}

fn scrub(
    store: &mut impl StoreWrite,
    what: Looked,
    back: &SyncSender<Result<(), Fault>>,
    inbox: &Inbox,
) -> Result<(), CoreEnded> {
    let result = look(store, what).map_err(|error| told(&error));
    let done = tell_wrong(store, inbox);
    // Fails when the scrub has ended.
    let _ = back.send(result);
    done
}

fn look(store: &mut impl StoreWrite, what: Looked) -> Result<(), StoreError> {
    match what {
        Looked::Range(file, offset, len, check) => store.check_volume(file, offset, len, check),
        Looked::Whole(file) => store.scrubbed_volume(file),
        Looked::Items => Ok(()),
    }
}

/// Whether there is nothing more to do now. After a failure nothing is tried before there was other work.
fn is_tidy(more: Result<bool, StoreError>) -> bool {
    !more.unwrap_or_else(|error| {
        tracing::warn!("tidying the store: {error}");
        false
    })
}

/// Batches of one journal and round that are applied together.
struct Gathered {
    journal: JournalKind,
    round: Round,
    batches: Vec<Batch>,
    bytes: usize,
    /// The job after them, of another kind.
    after: Option<Apply>,
}

/// What a look at the work brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// Nothing came.
    Nothing,
    /// Some came, and there is room for more.
    More,
    /// There is no use in waiting on.
    Enough,
}

impl Gathered {
    fn new(journal: JournalKind, round: Round, first: Batch) -> Self {
        Self { journal, round, bytes: first.disk().len(), batches: vec![first], after: None }
    }

    /// Takes what waits already, up to a limit or the first job of another kind.
    fn look(&mut self, work: &Receiver<Apply>) -> Came {
        let before = self.batches.len();
        while self.bytes < APPLY_MERGE_MAX && self.after.is_none() {
            match work.try_recv() {
                Ok(Apply::Batch(journal, round, batch)) if (journal, round) == (self.journal, self.round) => {
                    self.bytes += batch.disk().len();
                    self.batches.push(batch);
                }
                Ok(job) => self.after = Some(job),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Came::Enough,
            }
        }
        if self.after.is_some() || self.bytes >= APPLY_LINGER_BYTES {
            Came::Enough
        } else if self.batches.len() > before {
            Came::More
        } else {
            Came::Nothing
        }
    }
}

/// When it pays to let batches collect. Whoever waits for them to be applied sends nothing meanwhile: then they stop
/// coming, and this thread stops lingering, for longer each time that happens.
#[derive(Debug, Default)]
struct Linger {
    /// Applies to come that do not linger.
    prompt: u32,
    /// How many they were the last time.
    backoff: u32,
}

impl Linger {
    /// Nothing came for long: what comes now is alone, as far as one can tell, and is shown at once.
    fn rested(&mut self) {
        self.prompt = self.prompt.max(1);
    }

    /// Waits as long as it pays; `look` takes in what came.
    fn collect(&mut self, mut look: impl FnMut() -> Came) {
        if let Some(left) = self.prompt.checked_sub(1) {
            self.prompt = left;
            return;
        }
        for _ in 0..APPLY_LINGER_MS / APPLY_LOOK_MS {
            std::thread::sleep(Duration::from_millis(APPLY_LOOK_MS));
            match look() {
                Came::More => {}
                Came::Enough => break,
                Came::Nothing => {
                    self.backoff = (self.backoff * 2).clamp(1, APPLY_PROMPT_MAX);
                    self.prompt = self.backoff;
                    return;
                }
            }
        }
        self.backoff = 0;
    }
}

/// The slow part of a checkpoint, and who is to be told of its end.
pub(crate) type SyncJob = (SlowSync, Sender<Apply>);

/// Does the slow parts of checkpoints until nobody asks for any more, while batches are applied on.
pub(crate) fn run_syncs(jobs: &Receiver<SyncJob>) {
    while let Ok((sync, back)) = jobs.recv() {
        // Nobody waits for it any more when the node stops.
        let _ = back.send(Apply::Synced(sync()));
    }
}

fn told(error: &StoreError) -> Fault {
    tracing::warn!("reading a volume: {error}");
    fault(error)
}

fn apply(
    store: &mut impl StoreWrite,
    (journal, round): (JournalKind, Round),
    batches: &[Batch],
) -> StoreEvent {
    match store.apply(journal, batches) {
        Ok(()) => {
            let seq = batches.iter().map(|batch| batch.header().last_seq()).max().unwrap_or(Seq(0));
            StoreEvent::Applied { journal, round, seq }
        }
        Err(error) => {
            tracing::error!("applying to the store: {error}");
            StoreEvent::ApplyFailed { journal, round, fault: fault(&error) }
        }
    }
}

/// Looks at a range as it is now; a thread of its own reads what is there.
fn look_at(
    store: &mut (impl CompareTarget + MomentSource),
    job: LookJob,
    inbox: &Inbox,
) -> Result<(), CoreEnded> {
    let LookJob { look, file, span, what, most, to, .. } = job;
    if let (Span::Query(query), Some(moment)) = (&span, store.items()) {
        let job = CompareJob::List { look, query: query.clone(), moment: Box::new(moment) };
        return to.send(job).map_err(|_| CoreEnded);
    }
    match store.look(file, &span, most) {
        Ok(Look { at, read }) => {
            // Fails when that thread is gone, and then the process is ending.
            let reading = Reading { look, at, span, what, read };
            to.send(CompareJob::Read(reading)).map_err(|_| CoreEnded)
        }
        Err(error) => {
            let found = unread(&error);
            inbox.event(CompareEvent::Looked { look, at: store.shown(), found })
        }
    }
}

fn repair(store: &mut impl CompareTarget, look: u64, chunk: &Chunk) -> CompareEvent {
    let result = store.repair(chunk).map_err(|error| {
        tracing::error!("giving the store what the peer has: {error}");
        fault(&error)
    });
    CompareEvent::Repaired { look, result }
}

fn begin_copy(store: &mut impl CopyTarget, begin: &CopyBegin, ranges: Option<&Ranges>) -> StoreEvent {
    let result = store.begin_copy(begin, ranges).map_err(|error| {
        tracing::error!("beginning a copy in the store: {error}");
        fault(&error)
    });
    StoreEvent::CopyBegun { result }
}

fn prepare_rewind(store: &mut impl CopyTarget, prepared: &Prepared) -> StoreEvent {
    let result = store.prepare_rewind(prepared).map_err(|error| {
        tracing::error!("preparing a rewind in the store: {error}");
        fault(&error)
    });
    StoreEvent::RewindPrepared { result }
}

fn take_chunk(store: &mut impl CopyTarget, round: Round, chunk: &Chunk, progress: &Progress) -> StoreEvent {
    match store.take_chunk(chunk, progress) {
        Ok(()) => StoreEvent::ChunkTaken { round, id: chunk.id },
        Err(error) => {
            tracing::error!("taking a part of a copy into the store: {error}");
            StoreEvent::ApplyFailed { journal: JournalKind::Replicated, round, fault: fault(&error) }
        }
    }
}

fn checkpoint(store: &mut impl StoreWrite) -> StoreEvent {
    match store.checkpoint() {
        Ok(applied) => StoreEvent::Checkpointed { applied },
        Err(error) => {
            tracing::error!("making the store durable: {error}");
            StoreEvent::CheckpointFailed { fault: fault(&error) }
        }
    }
}

fn not_synced(store: &mut impl StoreWrite, error: &io::Error) -> StoreEvent {
    tracing::error!("making the volumes durable: {error}");
    let fault = Fault::from_io(error).at_sync();
    store.checkpoint_failed(fault);
    StoreEvent::CheckpointFailed { fault }
}

/// What the engine needs to know of a failure; the log has its words.
pub(super) fn fault(error: &StoreError) -> Fault {
    match error {
        StoreError::Disk { fault, .. } => *fault,
        // Not a matter of room, so that nothing waits for it to pass.
        StoreError::Damaged { .. } => Fault::UNCLEAN,
        StoreError::OutOfOrder { .. } => Fault::Errno(nix::libc::EINVAL),
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
