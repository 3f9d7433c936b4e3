//! The store in a process of its own, which is killed, or whose calls are seen by `strace`: whatever `current` names is
//! durable before it is named, so a power loss at any moment leaves the tables of some flush.

use super::tests::{States, assert_some_state, put, state_of, with_orders};
use super::*;
use crate::base::Prng;
use crate::store::memory::MemoryStore;
use crate::store::testkit::History;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

const A: Ordinal = Ordinal(0);
const CHILD: &str = "HB_STORE_TRACED";

fn work(dir: &Path) {
    let mut opened = TreeStore::open(dir, &dir.join("volumes"), A).unwrap();
    let (mut history, file) = with_orders(&mut opened);
    for n in 0..40_u8 {
        let batch = history.seal(JournalKind::Replicated, &[put(file, &[n], &vec![n; 3000])]);
        opened.writer.apply(JournalKind::Replicated, &[batch]).unwrap();
        opened.writer.checkpoint().unwrap();
        // One thread writes at a time, so that what it has not synced is what it is about to name.
        opened.reader.shared().merged();
    }
}

/// The path behind a descriptor, as `strace -y` shows it.
fn path_of(line: &str) -> Option<&str> {
    line.split_once('<')?.1.split_once('>').map(|(path, _)| path)
}

/// What is not durable yet.
#[derive(Default)]
struct Pending {
    /// Files that were written to and not synced.
    files: BTreeSet<String>,
    /// Directories in which names changed.
    dirs: BTreeSet<String>,
    /// How often `current` was renamed.
    named: usize,
}

impl Pending {
    fn sees(&mut self, line: &str) {
        let call = line.split_once(' ').map_or(line, |(_, call)| call.trim_start());
        let quoted: Vec<&str> = call.split('"').skip(1).step_by(2).collect();
        let parent = |path: &str| path.rsplit_once('/').map_or(String::new(), |(dir, _)| dir.to_owned());
        if call.starts_with("write") || call.starts_with("pwrite") {
            let path = path_of(call).unwrap_or_default();
            if path.contains("/tree") {
                self.files.insert(path.to_owned());
            }
        } else if call.starts_with("fsync") || call.starts_with("fdatasync") {
            let path = path_of(call).unwrap_or_default();
            self.files.remove(path);
            self.dirs.remove(path);
        } else if call.starts_with("openat") && call.contains("O_CREAT") {
            // The name of the new file `current` is not needed before the rename, which is what replaces the old one.
            if parent(quoted[0]).contains("/tree") && !quoted[0].contains("/.tmp") {
                self.dirs.insert(parent(quoted[0]));
            }
        } else if call.starts_with("rename") {
            let (from, to) = (quoted[0], quoted[1]);
            if to.ends_with("/current") {
                self.named += 1;
                assert!(self.files.is_empty(), "{:?} are not synced before {line}", self.files);
                assert!(self.dirs.is_empty(), "{:?} are not synced before {line}", self.dirs);
            }
            assert!(!self.files.contains(from), "{from} is not synced before {line}");
            if parent(to).contains("/tree") {
                self.dirs.insert(parent(to));
            }
        }
    }
}

#[test]
fn whatever_the_list_of_tables_names_is_durable_before_it_is_named() {
    if let Ok(dir) = std::env::var(CHILD) {
        work(Path::new(&dir));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let name = std::thread::current().name().unwrap().to_owned();
    let calls = "trace=openat,write,writev,pwrite64,pwritev,fsync,fdatasync,rename,renameat,renameat2";
    let run = Command::new("strace")
        .args(["-f", "-y", "-s", "0", "-e", calls, "-o"])
        .arg(&trace)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--test-threads=1"])
        .env(CHILD, dir.path().join("store"))
        .output();
    let run = match run {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            assert!(std::env::var_os("HB_REQUIRE").is_none(), "strace is missing");
            println!("skipped: {name} needs strace");
            return;
        }
        run => run.unwrap(),
    };
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
    let text = std::fs::read_to_string(trace).unwrap();
    // Threads do one after another here, so no call is cut in two.
    let mut pending = Pending::default();
    text.lines().filter(|line| !line.contains("resumed")).for_each(|line| pending.sees(line));
    assert!(pending.named > 40, "{} names", pending.named);
    assert!(pending.files.is_empty(), "{:?}", pending.files);
}

/// Steps of a history that ends by a kill.
const STEPS: u32 = 2000;

/// Applies a history, with flushes and checkpoints; says on stdout what each of those covers.
fn work_until_killed(dir: &Path, seed: u64) {
    let mut opened = TreeStore::open(dir, &dir.join("volumes"), A).unwrap();
    let (mut history, mut prng) = (History::new(A, seed), Prng::new(seed));
    for _ in 0..STEPS {
        let (journal, batch) = history.random(10);
        opened.writer.apply(journal, &[batch]).unwrap();
        match prng.below(10) {
            0 | 1 => drop(opened.writer.freeze()),
            2 => {
                let covered = opened.writer.checkpoint().unwrap();
                println!("\ncovered {} {}", covered[0].0, covered[1].0);
            }
            3 => drop(opened.writer.purge_step(5).unwrap()),
            _ => {}
        }
    }
    loop {
        std::thread::park();
    }
}

#[test]
fn a_process_that_is_killed_leaves_an_exact_state_not_older_than_its_last_checkpoint() {
    if let Ok(dir) = std::env::var(CHILD) {
        let (dir, seed) = dir.split_once(' ').unwrap();
        work_until_killed(Path::new(dir), seed.parse().unwrap());
    }
    let name = std::thread::current().name().unwrap().to_owned();
    let mut prng = Prng::new(31);
    for seed in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--nocapture", "--test-threads=1"])
            .env(CHILD, format!("{} {seed}", dir.path().display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let covered = BufReader::new(child.stdout.take().unwrap()).lines().filter_map(|line| {
            let line = line.unwrap();
            let (first, second) = line.strip_prefix("covered ")?.split_once(' ')?;
            Some([Seq(first.parse().unwrap()), Seq(second.parse().unwrap())])
        });
        let last = covered.take(usize::try_from(1 + prng.below(30)).unwrap()).last().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        // The same history in memory, long enough.
        let (mut memory, mut history, mut states) =
            (MemoryStore::new(A), History::new(A, seed), States::new());
        for _ in 0..=STEPS {
            states.insert(memory.applied(), state_of(&memory));
            let (journal, batch) = history.random(10);
            memory.apply(journal, &[batch]).unwrap();
            memory.checkpoint().unwrap();
        }
        assert_some_state(dir.path(), &states, last, &format!("seed {seed}"));
    }
}

#[test]
fn a_list_of_tables_that_is_named_again_is_durable_before_it_is_named_and_a_failed_sync_is_told() {
    use super::super::volumes::calls::testing::{Act, fail, seen, syncs, watch};
    let dir = tempfile::tempdir().unwrap();
    let mut opened = TreeStore::open(dir.path(), &dir.path().join("volumes"), A).unwrap();
    let _ = with_orders(&mut opened);
    opened.writer.checkpoint().unwrap();
    opened.reader.shared().merged();
    let tables = &opened.reader.shared().tables;
    let current = dir.path().join("tree").join("current");
    let named = std::fs::read(&current).unwrap();
    // As if another one had been named.
    let other = [&[7; 8][..], &[0; 17]].concat();
    std::fs::write(&current, &other).unwrap();
    assert!(!tables.is_as_stored().unwrap());
    fail(0);
    assert!(tables.name_again().is_err());
    assert!(std::fs::read(&current).unwrap() == other, "what is not durable is not named");
    fail(1);
    assert!(tables.name_again().is_err(), "the name may not be durable");
    std::fs::write(&current, &other).unwrap();
    let before = syncs();
    watch();
    tables.name_again().unwrap();
    let acts = seen();
    let written = |act: &Act| matches!(act, Act::Wrote(path, 0, bytes) if path.ends_with(".tmp-current") && *bytes == named);
    let synced = |act: &Act| matches!(act, Act::Synced(path) if path.ends_with(".tmp-current"));
    assert!(matches!(&acts[..], [first, second] if written(first) && synced(second)), "{acts:?}");
    assert_eq!(syncs() - before, 2, "the file, and its name");
    assert!(std::fs::read(&current).unwrap() == named && tables.is_as_stored().unwrap());
}
