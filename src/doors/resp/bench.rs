//! How fast the door itself is: SETs of 128 bytes of 256 clients into a backend that does next to nothing.
//! Run by hand: `cargo test --release --lib resp::bench -- --ignored --nocapture`.

use super::{DoorOutput, RespConfig, RespDoor};
use crate::base::{AckLevel, ConnId, FileId, JournalKind, Now, Seq, Wait};
use crate::doors::{
    Backend, Change, CommitWatermarks, CountOf, Draft, FetchId, IfCold, ItemHash, Refusal, ReplicationView,
    Scanned, Unread, Update,
};
use bytes::Bytes;
use std::collections::HashMap;
use std::time::Instant;

struct Sink {
    files: HashMap<Vec<u8>, FileId>,
    journal: Vec<u8>,
    end: Seq,
    marks: CommitWatermarks,
}

impl Backend for Sink {
    fn resolve(&self, name: &[u8]) -> Result<FileId, Refusal> {
        self.files.get(name).copied().ok_or_else(|| Refusal::NoSuchFile(String::new()))
    }

    fn read(&mut self, _: FileId, _: &[u8], _: IfCold) -> Result<(Option<Bytes>, Option<Wait>), Unread> {
        Ok((None, None))
    }

    fn update(&mut self, updates: &[Update<'_>]) -> Result<Wait, Refusal> {
        for update in updates {
            if let Update::Put { id, value, .. } = update {
                self.journal.extend_from_slice(id);
                self.journal.extend_from_slice(value);
            }
            self.end = self.end.next();
        }
        Ok(Wait { journal: JournalKind::Replicated, seq: self.end, level: AckLevel::Local })
    }

    fn commit(&mut self, draft: Draft) -> Result<Wait, Refusal> {
        self.update(&draft.updates().collect::<Vec<_>>())
    }

    fn items_at_most(&self, _: FileId) -> u64 {
        0
    }

    fn estimate(&mut self, _: FileId, _: CountOf, _: IfCold) -> Result<u64, Unread> {
        Ok(0)
    }

    fn fetch(&mut self, _: FileId, _: &[u8]) -> Option<FetchId> {
        None
    }

    fn scan(&mut self, _: FileId, _: Option<&[u8]>, _: usize, _: IfCold) -> Result<Scanned, Unread> {
        Ok(Scanned::default())
    }

    fn item_hash(&self, _: FileId, _: &[u8]) -> ItemHash {
        ItemHash(0)
    }

    fn want_changes(&mut self, _: bool) {}

    fn next_change(&mut self) -> Option<Change> {
        None
    }

    fn next_record_file(&self, _: FileId) -> Option<(FileId, String)> {
        None
    }

    fn record_files(&self) -> Vec<(FileId, String)> {
        Vec::new()
    }

    fn watermarks(&self) -> CommitWatermarks {
        self.marks
    }

    fn appended(&self) -> Seq {
        self.end
    }

    fn peer_acked(&self) -> [Seq; 3] {
        [Seq(0); 3]
    }

    fn congested(&self) -> bool {
        false
    }

    fn view(&self) -> ReplicationView {
        ReplicationView::default()
    }
}

/// SETs per second with so many commands in each piece of input.
fn rate(pipelined: usize) -> f64 {
    const CLIENTS: u64 = 256;
    const SETS: usize = 4_000_000;
    let files = HashMap::from([(b"app,orders".to_vec(), FileId(4))]);
    let mut sink = Sink { files, journal: Vec::new(), end: Seq(0), marks: CommitWatermarks::default() };
    let mut door = RespDoor::new(RespConfig::default());
    let now = Now::default();
    let mut input = Vec::new();
    for n in 0..pipelined {
        let key = format!("app,orders,{n:012}");
        crate::format::resp::command(&mut input, &[b"SET", key.as_bytes(), &[b'v'; 128]]);
    }
    for client in 0..CLIENTS {
        door.open(now, ConnId(client), true);
    }
    let mut receives: Vec<(ConnId, Vec<u8>)> = Vec::new();
    let mut sends: Vec<ConnId> = Vec::new();
    let (mut done, mut told) = (0, 0);
    let start = Instant::now();
    while done < SETS {
        while let Some(output) = door.output() {
            match output {
                DoorOutput::Receive { conn, buffer } => receives.push((conn, buffer)),
                DoorOutput::Send { conn, bytes } => {
                    told += bytes.len() / 5;
                    sends.push(conn);
                }
                DoorOutput::Proven { .. } => {}
                DoorOutput::Guessed { .. } | DoorOutput::Close { .. } => panic!("no client ends"),
            }
        }
        for conn in sends.drain(..) {
            door.sent(conn);
        }
        for (conn, mut buffer) in receives.drain(..) {
            buffer.extend_from_slice(&input);
            door.input(now, conn, buffer, &mut sink);
            done += pipelined;
        }
        sink.journal.clear();
        sink.marks = CommitWatermarks { durable: [sink.end; 2], replicated: [sink.end; 4] };
        door.begin_round();
        door.tick(now, &mut sink);
        door.release(now, &mut sink);
    }
    assert!(told + pipelined * 256 >= done, "every SET is answered");
    f64::from(u32::try_from(done).unwrap()) / start.elapsed().as_secs_f64()
}

#[test]
#[ignore = "a measurement, not a test"]
fn sets_per_second_through_the_door() {
    for pipelined in [1, 16, 64] {
        let mut rates: Vec<f64> = (0..5).map(|_| rate(pipelined)).collect();
        rates.sort_by(f64::total_cmp);
        println!("{pipelined} commands in a piece: {:.2} million SETs/s (median of 5)", rates[2] / 1e6);
    }
}
