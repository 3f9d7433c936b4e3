//! Measures the store of items alone: random puts, in batches, as the apply thread gives them.
//!
//! `bench-store DIR ITEMS PUTS BYTES` prints one line of JSON: processor time for an update, bytes written for each byte
//! put, memory, and what a point read costs.

use hot_backup::base::{Chain, Epoch, FileId, JournalKind, Ordinal, Prng, Seq};
use hot_backup::format::PairId;
use hot_backup::format::batch::{Batch, BatchBuilder, Seal};
use hot_backup::format::dptr::{DptrKind, Flags};
use hot_backup::format::entry::{Entry, EntryKind};
use hot_backup::store::namespace::{Change, Namespace, NewFile};
use hot_backup::store::tree_store::{Opened, TreeStore};
use hot_backup::store::{StoreRead, StoreSnapshot, StoreWrite};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

/// Entries of a batch.
const BATCH: u64 = 2000;
/// A checkpoint after so many bytes of batches, as a node makes them.
const CHECKPOINT: u64 = 256 << 20;

/// What the process has used so far.
#[derive(Clone, Copy)]
struct Used {
    cpu: Duration,
    written: u64,
}

impl Used {
    fn now() -> Result<Self, Box<dyn Error>> {
        Ok(Self { cpu: cpu_of(UsageWho::RUSAGE_SELF)?, written: field("/proc/self/io", "write_bytes:")? })
    }
}

fn cpu_of(who: UsageWho) -> Result<Duration, Box<dyn Error>> {
    let usage = getrusage(who)?;
    let time =
        |t: TimeVal| Duration::from_micros(u64::try_from(t.tv_sec() * 1_000_000 + t.tv_usec()).unwrap_or(0));
    Ok(time(usage.user_time()) + time(usage.system_time()))
}

fn field(file: &str, name: &str) -> Result<u64, Box<dyn Error>> {
    let text = std::fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or("a field is missing")?;
    Ok(line.split_whitespace().next().ok_or("a field is empty")?.parse()?)
}

/// The end of the journal that the batches are of.
struct Journal {
    next: Seq,
}

impl Journal {
    fn seal<'a>(&mut self, entries: impl IntoIterator<Item = Entry<'a>>) -> Batch {
        let mut builder = BatchBuilder::new(self.next, 1 << 20);
        for entry in entries {
            builder.push(&entry);
        }
        let (epoch, prev_chain, durable) = (Epoch(2), Chain(1), Seq(0));
        let seal = Seal {
            epoch,
            prev_chain,
            durable,
            wall_ms: 0,
            pair: PairId([7; 16]),
            journal: JournalKind::Replicated,
        };
        let batch = builder.seal(&seal);
        self.next = batch.header().last_seq().next();
        batch
    }
}

fn define(opened: &mut Opened, journal: &mut Journal) -> Result<FileId, Box<dyn Error>> {
    let mut namespace = Namespace::new();
    let mut make = |change: Change, namespace: &mut Namespace| -> Result<(), Box<dyn Error>> {
        let entries = change.entries.iter();
        let entries: Vec<Entry<'_>> =
            entries.map(|e| Entry { kind: e.kind, file: e.file, id: &[], value: &e.value }).collect();
        for entry in &entries {
            namespace.apply(Ordinal(0), JournalKind::Replicated, entry)?;
        }
        opened.writer.apply(JournalKind::Replicated, &[journal.seal(entries)])?;
        Ok(())
    };
    make(namespace.create_account("app", Flags::L, Ordinal(0))?, &mut namespace)?;
    let new = NewFile {
        account: "app",
        name: "items",
        kind: DptrKind::Records,
        flags: Some(Flags::L),
        blocks: 0,
        ack: None,
    };
    make(namespace.create_file(&new, Ordinal(0))?, &mut namespace)?;
    namespace.resolve(b"app,items").ok_or_else(|| "no file".into())
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, items, puts, bytes] = args.as_slice() else {
        return Err("usage: bench-store DIR ITEMS PUTS BYTES".into());
    };
    let (dir, items, puts, bytes) =
        (Path::new(dir), items.parse::<u64>()?, puts.parse::<u64>()?, bytes.parse::<usize>()?);
    let mut opened = TreeStore::open(&dir.join("store"), &dir.join("volumes"), Ordinal(0))?;
    let mut journal = Journal { next: Seq(1) };
    let file = define(&mut opened, &mut journal)?;
    let mut prng = Prng::new(1);
    let (begin, clock) = (Used::now()?, Instant::now());
    let (mut since, mut making) = (0, Duration::ZERO);
    let mut value = vec![0_u8; bytes];
    for _ in 0..puts / BATCH {
        let made = cpu_of(UsageWho::RUSAGE_THREAD)?;
        let ids: Vec<[u8; 8]> = (0..BATCH).map(|_| prng.below(items).to_be_bytes()).collect();
        value.iter_mut().for_each(|byte| *byte = u8::try_from(prng.below(256)).unwrap_or(0));
        let batch =
            journal.seal(ids.iter().map(|id| Entry { kind: EntryKind::Put, file, id, value: &value }));
        making += cpu_of(UsageWho::RUSAGE_THREAD)? - made;
        since += u64::from(batch.header().len);
        opened.writer.apply(JournalKind::Replicated, &[batch])?;
        if since >= CHECKPOINT {
            opened.writer.begin_checkpoint().map_or(Ok(()), |sync| sync())?;
            opened.writer.checkpoint()?;
            since = 0;
        }
    }
    opened.writer.checkpoint()?;
    // What waits to be merged is part of the price.
    let mut end = Used::now()?;
    loop {
        std::thread::sleep(Duration::from_secs(2));
        let now = Used::now()?;
        if now.written == end.written {
            break;
        }
        end = now;
    }
    let seconds = clock.elapsed().as_secs_f64();
    let memory = field("/proc/self/status", "VmRSS:")? / 1024;
    let most = field("/proc/self/status", "VmHWM:")? / 1024;
    let (reads, read_begin) = (200_000, Used::now()?);
    for _ in 0..reads {
        opened.reader.snapshot().get(file, 0, &prng.below(items).to_be_bytes())?;
    }
    let read = (Used::now()?.cpu - read_begin.cpu).as_secs_f64() / f64::from(reads);
    let cpu = (end.cpu - begin.cpu - making).as_secs_f64() * 1e6;
    let count = puts as f64;
    println!(
        "{{\"items\":{items},\"puts\":{puts},\"bytes\":{bytes},\"seconds\":{seconds:.1},\"cpu_us\":{:.2},\"written\":{:.2},\"rss_mib\":{memory},\"rss_most_mib\":{most},\"get_us\":{:.2}}}",
        cpu / count,
        (end.written - begin.written) as f64 / (count * (bytes + 8) as f64),
        read * 1e6,
    );
    Ok(())
}
