//! The control file: what this node durably is, and the one write of it that may be under way.
//!
//! A fact acts only when the file that holds it is on disk (I-20). So who changes one starts a write, keeps its number, and
//! goes on when [`Core::control_written`] brings that number.

use super::core::Core;
use super::effect::{FileEffect, Severity};
use super::event::FileEvent;
use crate::base::{Epoch, Fault, Mono, Position, Seq};
use crate::format::PairId;
use crate::format::control::{Control, EpochMark, Origin, PeerRecord, Role};
use crate::journal::Recovered;
use crate::store::StoreRead;

/// What this node is, as the next control file will hold it; what it knows of the peer is [`super::peer::Peer`]'s.
#[derive(Debug)]
pub(super) struct ControlFile {
    pair: PairId,
    role: Role,
    epoch: Epoch,
    /// Where each epoch of this node's history begins, oldest first.
    table: Vec<EpochMark>,
    /// Where that history begins.
    origin: Origin,
    /// The number of the write under way.
    write: Option<u64>,
    /// The table in the file on disk, and in the one being written. A segment that an epoch begins in may be released only
    /// once the file on disk knows that epoch.
    saved: Vec<EpochMark>,
    writing: Vec<EpochMark>,
    /// When the last write began, and how long the last one that was done took (microseconds).
    began: Mono,
    took_us: u64,
}

impl ControlFile {
    /// As found on disk. Epochs that only the journal knows are added, those that it does not reach are left out.
    pub(super) fn found(control: Control, journal: &Recovered) -> Self {
        let Control { role, pair, epoch, mut table, origin, .. } = control;
        let saved = table.clone();
        for mark in &journal.epochs {
            if table.last().is_none_or(|last| last.epoch < mark.epoch) {
                table.push(*mark);
            }
        }
        table.retain(|mark| mark.first_seq <= journal.end.seq);
        let epoch = epoch.max(journal.end.epoch);
        Self {
            pair,
            role,
            epoch,
            table,
            origin,
            write: None,
            saved,
            writing: Vec::new(),
            began: Mono(0),
            took_us: 0,
        }
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    /// The highest epoch opened or accepted.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Where this node's history begins.
    pub(super) fn origin(&self) -> Origin {
        self.origin
    }

    pub(super) fn table(&self) -> &[EpochMark] {
        &self.table
    }

    /// How long a write takes, as far as it is known (microseconds).
    pub(super) fn write_took_us(&self) -> u64 {
        self.took_us
    }

    /// Whether the file is being replaced: another write waits until that is done.
    pub(super) fn is_being_written(&self) -> bool {
        self.write.is_some()
    }

    /// Whether the file on disk knows where every epoch of the journal begins.
    pub(super) fn knows_all_epochs(&self) -> bool {
        self.saved == self.table
    }

    /// This node, as primary, opens an epoch behind `end`.
    pub(super) fn open_epoch(&mut self, epoch: Epoch, end: Position) {
        self.forget_epochs_after(end.seq);
        self.begin_epoch(EpochMark { epoch, first_seq: end.seq.next(), prev_chain: end.chain });
        (self.epoch, self.role) = (epoch, Role::Primary);
    }

    /// An epoch begins in the journal.
    pub(super) fn begin_epoch(&mut self, mark: EpochMark) {
        self.table.push(mark);
    }

    /// What comes after this entry is not this node's history any more.
    pub(super) fn forget_epochs_after(&mut self, seq: Seq) {
        self.table.retain(|mark| mark.first_seq <= seq);
    }

    /// A primary's epoch is accepted.
    pub(super) fn accept_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// The peer serves in `epoch`; this node serves no more.
    pub(super) fn step_down(&mut self, epoch: Epoch, role: Role) {
        self.epoch = self.epoch.max(epoch);
        self.role = role;
    }

    /// This node leaves its history for that of a copy, which begins at `origin` in the epochs of `table`.
    pub(super) fn begin_copy(&mut self, epoch: Epoch, origin: Origin, table: Vec<EpochMark>) {
        self.table = table;
        self.forget_epochs_after(origin.at.seq);
        (self.epoch, self.origin, self.role) = (epoch, origin, Role::Incomplete);
    }

    /// The copy is whole.
    pub(super) fn end_copy(&mut self) {
        self.role = Role::Standby;
    }

    /// A write begins; gives what it writes.
    fn begin(&mut self, write: u64, peer: PeerRecord) -> Control {
        self.write = Some(write);
        self.writing.clone_from(&self.table);
        let Self { role, pair, epoch, origin, .. } = *self;
        Control { role, pair, epoch, table: self.table.clone(), peer, origin }
    }

    /// A write ended; false if it is not the one under way.
    fn end(&mut self, write: u64) -> bool {
        let under_way = self.write == Some(write);
        if under_way {
            self.write = None;
        }
        under_way
    }
}

impl<S: StoreRead> Core<S> {
    /// Starts replacing the control file by what this node is now; gives the number of the write.
    pub(super) fn write_control(&mut self) -> u64 {
        let write = self.fresh_id();
        self.control.began = self.now.mono;
        let bytes = self.control.begin(write, self.peer.begin_write()).encode();
        self.effect(FileEffect::WriteControl { write, bytes });
        write
    }

    pub(super) fn file_event(&mut self, event: FileEvent) {
        match event {
            FileEvent::ControlWritten { write } => self.control_written(write),
            FileEvent::ControlFailed { write, fault } => self.control_failed(write, fault),
            FileEvent::DivergedSaved { save } => self.diverged_saved(save),
            FileEvent::DivergedFailed { save, fault } => self.diverged_failed(save, fault),
        }
    }

    fn control_written(&mut self, write: u64) {
        if !self.control.end(write) {
            return;
        }
        self.control.took_us = self.now.mono.since(self.control.began);
        self.incident_over("control-failed", "control-back", "the control file is written again".to_owned());
        self.control.saved = std::mem::take(&mut self.control.writing);
        self.peer.written();
        self.dirty = true;
        if !self.roles_control_written(write) && !self.copy_control_written(write) {
            self.link_control_written(write);
        }
    }

    fn control_failed(&mut self, write: u64, fault: Fault) {
        if !self.control.end(write) {
            return;
        }
        self.peer_not_written();
        self.dirty = true;
        self.room.want_after(fault);
        let text = format!("writing the control file: {fault}; it is tried again");
        self.incident_once(Severity::Critical, "control-failed", text);
        if !self.roles.control_failed(write, self.now.mono) && !self.copy_control_failed(write) {
            self.link_control_failed(write);
        }
    }
}

#[cfg(test)]
impl ControlFile {
    /// The role is another one.
    pub(super) fn play(&mut self, role: Role) {
        self.role = role;
    }

    /// The file on disk knows no epoch.
    pub(super) fn forget_saved_epochs(&mut self) {
        self.saved.clear();
    }

    /// A write is under way that does not end, or none is.
    pub(super) fn hang(&mut self, hangs: bool) {
        self.write = hangs.then_some(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Chain;

    fn mark(epoch: u64, first: u64) -> EpochMark {
        EpochMark { epoch: Epoch(epoch), first_seq: Seq(first), prev_chain: Chain(0) }
    }

    fn at(epoch: u64, seq: u64) -> Position {
        Position { epoch: Epoch(epoch), seq: Seq(seq), chain: Chain(0) }
    }

    /// A primary whose file knows the epoch 2, which begins with entry 1.
    fn found(journal: &Recovered) -> ControlFile {
        let control = Control::new(Role::Primary, PairId([1; 16]));
        ControlFile::found(Control { epoch: Epoch(2), table: vec![mark(2, 1)], ..control }, journal)
    }

    #[test]
    fn a_start_knows_the_epochs_of_the_file_and_of_the_journal_as_far_as_the_journal_reaches() {
        let journal =
            |end: u64, epochs: Vec<EpochMark>| Recovered { end: at(4, end), epochs, ..Recovered::default() };
        let later = found(&journal(9, vec![mark(2, 1), mark(4, 6)]));
        assert_eq!((later.table(), later.epoch()), ([mark(2, 1), mark(4, 6)].as_slice(), Epoch(4)));
        assert!(!later.knows_all_epochs(), "the file lacks the second one");
        let shorter = found(&journal(0, Vec::new()));
        assert_eq!(shorter.table(), []);
    }

    #[test]
    fn an_epoch_is_known_on_disk_only_when_the_write_that_held_it_is_done() {
        let mut file = found(&Recovered { end: at(2, 5), epochs: vec![mark(2, 1)], ..Recovered::default() });
        assert!(file.knows_all_epochs());
        let before = file.begin(1, PeerRecord::default());
        assert_eq!(before.table, [mark(2, 1)]);
        file.open_epoch(Epoch(4), at(2, 5));
        assert!(file.is_being_written() && !file.end(7) && file.is_being_written(), "that is another write");
        assert!(file.end(1) && !file.end(1));
        file.saved = std::mem::take(&mut file.writing);
        assert!(!file.knows_all_epochs(), "what was written is older");
        assert_eq!(file.begin(2, PeerRecord::default()).table, [mark(2, 1), mark(4, 6)]);
    }
}
