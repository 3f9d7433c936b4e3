//! How nodes start and die.

use super::cold::ColdStore;
use super::disk::{Death, DiskSource};
use super::net::EndState;
use super::world::{Ev, Given, PAIR, World};
use crate::base::{JournalKind, Ordinal};
use crate::engine::{CompareEvent, Engine, Event, Rounds, ScrubEvent, StartState};
use crate::format::chunk::Content;
use crate::format::control::{Control, Origin, Role};
use crate::format::scrub::ScrubRecord;
use crate::journal::{Recovered, RecoveryError, recover_from};
use crate::store::CopyTarget as _;

impl World {
    /// A node's process starts.
    pub(super) fn boot(&mut self, n: usize) {
        if self.nodes[n].engine.is_some() || self.nodes[n].halted.is_some() {
            return;
        }
        self.trace.event("boot", n as u64, self.nodes[n].life, || format!("node {n}"));
        let control = match Control::decode(&self.nodes[n].disk.control) {
            Ok(control) => control,
            Err(error) => return self.check.fail("I-26", format!("node {n}'s control file: {error}")),
        };
        self.check.restarted(n, &control);
        let Some(journals) = self.recover_both(n, &control) else { return };
        let store = self.nodes[n].store.clone();
        let (applied, replay_from) = (store.applied(), store.replay_from());
        let blank = self.is_blank(n, &control);
        if control.role == Role::Incomplete {
            self.trace.sometimes(if blank {
                "an incomplete node came back before its store had begun the copy"
            } else {
                "an incomplete node came back with a part of its copy"
            });
        }
        for journal in JournalKind::ALL {
            if blank && journal == JournalKind::Replicated {
                continue;
            }
            let Some(tip) = self.tip_at(n, journal, applied[journal.index()]) else {
                let (name, seq) = (journal.name(), applied[journal.index()]);
                let text = format!("node {n}'s store shows entry {seq}, which is not in its {name} history");
                return self.check.fail("I-10", text);
            };
            let seq = replay_from[journal.index()];
            let Some(from) = self.tip_at(n, journal, seq) else {
                let text = format!("node {n}'s volumes are at entry {seq}, which is not in its history");
                return self.check.fail("I-10", text);
            };
            if from.seq < tip.seq {
                self.trace.sometimes("volumes were behind the items at a start");
            }
            let truth = &mut self.check.nodes[n].journals[journal.index()];
            truth.offered = from;
            truth.applied = tip.seq;
            if truth.tip().seq > tip.seq {
                self.trace.sometimes("the store fell back behind its journal at a power loss");
            }
        }
        store.restarted();
        let namespace = (*store.namespace()).clone();
        let (copied, prepared) = (store.copied(), store.prepared());
        let seed = self.options.seed ^ (self.nodes[n].life << 1 | n as u64);
        let store = ColdStore::new(store, self.options.cold_percent(), seed);
        self.nodes[n].cold = Some(store.clone());
        let config = self.config(n);
        self.nodes[n].life += 1;
        self.nodes[n].booted_at = self.trace.now;
        let engine = Engine::new(
            config,
            StartState { control, journals, store, namespace, applied, replay_from, copied, prepared },
        );
        self.nodes[n].engine = Some(engine);
        self.reset_orphans(n);
        self.input(n, ScrubEvent::Found { record: ScrubRecord::default() });
        self.input(n, CompareEvent::Known { kept: Box::default() });
        if self.operator.nested_deaths() && self.streams.operator.percent(25) {
            let us = self.streams.operator.below(self.options.disk_us * 20 + 1);
            self.node_after(us, n, Ev::DieAgain);
        }
        self.input(n, Event::Tick);
    }

    /// Whether a node's store knows nothing of the copy that the node is being given.
    fn is_blank(&self, n: usize, control: &Control) -> bool {
        let copied = self.nodes[n].store.copied();
        control.role == Role::Incomplete && copied.is_none_or(|copied| copied.origin != control.origin.at)
    }

    fn recover_both(&mut self, n: usize, control: &Control) -> Option<[Recovered; 2]> {
        let mut found = Vec::new();
        for journal in JournalKind::ALL {
            let failing = self.nodes[n].ills.read_until > self.trace.now;
            let disk = &self.nodes[n].disk;
            let fails_in = failing.then(|| self.streams.disk.below(4));
            let mut source = DiskSource { disk, journal, fails_in };
            let ordinal = Ordinal(u8::try_from(n).unwrap_or(0));
            let files = disk.segments(journal);
            let origin = match journal {
                JournalKind::Replicated => control.origin,
                JournalKind::Local => Origin::default(),
            };
            match recover_from(&origin, journal, PAIR, ordinal, &files, &mut source) {
                Ok(recovered) => {
                    self.trace.event("recovered", n as u64, recovered.end.seq.0, || {
                        format!("node {n}: {} {recovered:?} of {files:?}", journal.name())
                    });
                    if recovered.torn.is_some() {
                        self.trace.sometimes("a torn write was found at a restart");
                    }
                    if recovered.end.chain.0 != self.check.nodes[n].journals[journal.index()].tip().chain {
                        self.trace.sometimes("a whole in-flight write was found at a restart");
                    }
                    let applied = self.nodes[n].store.applied()[journal.index()];
                    let counts = journal == JournalKind::Local || !self.is_blank(n, control);
                    if counts && let Err(error) = recovered.check_applied(journal, applied) {
                        self.refused_journal(n, &error);
                        return None;
                    }
                    self.check.on_recovered(n, journal, &recovered);
                    found.push(recovered);
                }
                Err(RecoveryError::Read { .. }) => {
                    self.trace.event("boot-failed", n as u64, 0, || format!("node {n}: a read failed"));
                    self.node_after(50_000, n, Ev::Boot);
                    return None;
                }
                Err(error) => {
                    self.refused_journal(n, &error);
                    return None;
                }
            }
        }
        <[Recovered; 2]>::try_from(found).ok()
    }

    /// Recovery refuses a journal: right if it was damaged, wrong otherwise.
    fn refused_journal(&mut self, n: usize, error: &RecoveryError) {
        if self.check.nodes[n].decayed.is_none() {
            return self.check.fail("I-08", format!("node {n} refuses an undamaged journal: {error}"));
        }
        self.trace.event("halted", n as u64, 0, || format!("node {n}: {error}"));
        self.trace.sometimes("a damaged journal was refused");
        self.nodes[n].halted = Some(error.to_string());
    }

    /// A node dies.
    pub(super) fn die(&mut self, n: usize, death: Death) {
        if self.nodes[n].engine.is_none() {
            return;
        }
        self.trace
            .event("death", n as u64, u64::from(death == Death::Power), || format!("node {n}: {death:?}"));
        self.trace.sometimes(match death {
            Death::Kill => "a kill of a node",
            Death::Power => "a power loss of a node",
        });
        self.store_of_the_dead(n, death);
        self.nodes[n].disk.die(death, &mut self.streams.disk);
        self.nodes[n].spool.die(death == Death::Power, &mut self.streams.spool);
        self.buried(n, death);
    }

    /// A node loses its power, and exactly this is left on its disk.
    pub(super) fn die_exactly(&mut self, n: usize, exact: &super::disk::Exact) {
        self.store_of_the_dead(n, Death::Power);
        self.nodes[n].disk.die_exactly(exact);
        self.buried(n, Death::Power);
    }

    /// The process is gone; what was under way on its disk still is.
    pub(super) fn stand_still(&mut self, n: usize) {
        self.nodes[n].engine = None;
        self.nodes[n].life += 1;
        self.after_life(n);
        self.clients_of_the_dead(n);
    }

    fn buried(&mut self, n: usize, death: Death) {
        let node = &mut self.nodes[n];
        node.engine = None;
        node.life += 1;
        self.after_life(n);
        self.check.died(n);
        self.heard_by_the_dead(n);
        self.connections_of_the_dead(n, death == Death::Kill);
        self.clients_of_the_dead(n);
        self.operator_of_the_dead(n);
    }

    /// What a node heard and had no time to write down, it does not know again.
    fn heard_by_the_dead(&mut self, n: usize) {
        let listens =
            self.net.connections.values().any(|c| c.ends[n].follows && c.ends[n].state == EndState::Open);
        let troubled = self.nodes[n].ills.control_until + 1_000_000 > self.trace.now;
        self.check.forget_heard(n, listens, troubled && self.nodes[n].ills.control_until > 0);
    }

    fn after_life(&mut self, n: usize) {
        let now = self.trace.now;
        let node = &mut self.nodes[n];
        node.queue.clear();
        node.rounds = Rounds::default();
        node.to_tell.clear();
        node.store_busy = false;
        node.checkpointing = false;
        node.forget_tick();
        node.stopping = None;
        node.ills.suspended_until = 0;
        node.ills.last = now;
    }

    /// The store may have got a little further than it said; without power it falls back to some batch.
    fn store_of_the_dead(&mut self, n: usize, death: Death) {
        self.mend_rot(n);
        self.drop_old_rounds(n);
        for journal in JournalKind::ALL {
            let more = self.streams.disk.below(4);
            self.apply_some(n, journal, more);
            // Volumes are written before the items of the same batch are committed.
            let next = self.nodes[n].queue.iter().find(|(kind, ..)| *kind == journal).cloned();
            if let Some((.., given)) = next.filter(|_| self.streams.disk.percent(50)) {
                self.volumes_of_the_dead(n, journal, &given);
            }
        }
        if death == Death::Kill {
            return;
        }
        let disk = &mut self.streams.disk;
        self.nodes[n]
            .store
            .power_loss_of_volumes(&mut |versions| usize::try_from(disk.below(versions as u64)).unwrap_or(0));
        let boundaries = self.nodes[n].store.boundaries();
        let keep = usize::try_from(self.streams.disk.below(boundaries.len() as u64)).unwrap_or(0);
        let fallen = self.nodes[n].store.fall_back_by(keep);
        let node = &mut self.nodes[n];
        let lost = match (fallen.before_copy, node.log_before_copy.take()) {
            (Some(before), Some(log)) => {
                node.log = log;
                before
            }
            _ => fallen.batches,
        };
        let left = node.log.len().saturating_sub(lost);
        node.log.truncate(left);
        let applied = self.nodes[n].store.applied();
        for journal in JournalKind::ALL {
            self.check.on_applied(n, journal, applied[journal.index()]);
        }
        // What a power loss left is what the next one leaves.
        self.check.on_checkpointed(n, self.nodes[n].store.replay_from());
    }

    /// Volumes are written before what belongs to them is committed.
    fn volumes_of_the_dead(&mut self, n: usize, journal: JournalKind, given: &Given) {
        let store = &mut self.nodes[n].store;
        let done = match given {
            Given::Batch(batch) => store.apply_volumes_only(journal, batch),
            Given::Chunk(chunk, progress) if matches!(chunk.content, Content::Blocks { .. }) => {
                store.take_chunk(chunk, progress)
            }
            Given::Begin(..) | Given::Prepare(_) | Given::Chunk(..) | Given::Look(_) | Given::Repair(..) => {
                Ok(())
            }
        };
        if let Err(error) = done {
            self.check.fail("driver", format!("node {n}'s model store refuses {given:?}: {error}"));
        }
    }

    /// A node dies again, soon after its start.
    pub(super) fn die_again(&mut self, n: usize) {
        self.trace.sometimes("a second crash during recovery");
        let death = if self.streams.operator.percent(50) { Death::Power } else { Death::Kill };
        self.die(n, death);
        let us = self.streams.operator.below(50_000);
        self.node_after(us, n, Ev::Boot);
    }

    /// A node has finished everything and ends.
    pub(super) fn stopped(&mut self, n: usize) {
        if self.nodes[n].stopping.is_none() {
            self.check.fail("driver", format!("node {n} stops unasked"));
        }
        for journal in JournalKind::ALL {
            if !self.nodes[n].disk.flights(journal).is_empty() {
                self.check.fail("driver", format!("node {n} stops while it writes"));
            }
        }
        self.trace.sometimes("a clean stop and start");
        self.mend_rot(n);
        let node = &mut self.nodes[n];
        // A segment that was being made may be there or not.
        node.disk.die(Death::Kill, &mut self.streams.disk);
        node.spool.die(false, &mut self.streams.spool);
        node.engine = None;
        node.life += 1;
        self.after_life(n);
        self.check.died(n);
        self.heard_by_the_dead(n);
        self.connections_of_the_dead(n, true);
        self.clients_of_the_dead(n);
        self.operator_of_the_dead(n);
        let us = 1_000 + self.streams.operator.below(300_000);
        self.node_after(us, n, Ev::Boot);
    }

    /// Whether a node is primary by its control file.
    pub(super) fn is_primary(&self, n: usize) -> bool {
        self.check.is_primary(n)
    }
}
