//! Proves that the rooms of the crate stand as `src/ARCHITECTURE.md` says: which room names which, that decisions name
//! no I/O, that unsafe code and outside crates stay in their rooms, and that no file grows out of hand. It reads the
//! source as text.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A room, and the rooms that it may name besides itself. Each stands after all that it names.
pub(crate) const ROOMS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("format", &["base"]),
    ("journal", &["base", "format"]),
    ("store", &["base", "format"]),
    ("pair", &["base", "format"]),
    ("tape", &["base", "format"]),
    ("doors", &["base", "format"]),
    ("engine", &["base", "format", "journal", "store", "pair", "doors"]),
    ("client", &["base", "format"]),
    ("sys", &["base"]),
    ("io", &["base", "sys"]),
    ("node", &["base", "format", "journal", "store", "tape", "engine", "io"]),
    ("measure", &["base", "format", "journal", "sys", "io", "node"]),
    ("cli", &["base", "format", "client", "engine", "io", "node", "measure"]),
    ("sim", &["base", "format", "journal", "store", "pair", "doors", "engine"]),
];

/// Rooms that decide: nothing in them may reach for the world.
const PURE: &[&str] = &["base", "format", "journal", "pair", "tape", "doors", "engine"];
/// What reaching for the world looks like.
const WORLD: &[&str] = &[
    "std::env::",
    "std::fs",
    "std::net::Tcp",
    "std::os::fd",
    "std::os::unix",
    "std::process",
    "std::thread",
    "std::time",
    "Instant::now",
    "std::hash::RandomState",
    "SystemTime",
    "tracing::",
];

/// Crates that belong to certain rooms only. Those of every room (bytes, serde, thiserror ..) are not listed.
const CRATES: &[(&str, &[&str])] = &[
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("crc32c", &["base"]),
    ("csv", &["cli"]),
    ("fjall", &["store"]),
    ("hyper", &["node"]),
    ("hyper_util", &["node"]),
    ("indicatif", &["cli"]),
    ("io_uring", &["sys"]),
    ("lettre", &["node"]),
    ("libc", &["sys", "io", "node", "cli"]),
    ("lsm_tree", &["store"]),
    ("lz4_flex", &["node"]),
    ("memmap2", &["sys", "io"]),
    ("nix", &["sys", "io", "store", "node", "measure", "cli"]),
    ("prometheus_client", &["node"]),
    ("ratatui", &["cli"]),
    ("rcgen", &["node"]),
    // `sys` has a module of that name.
    ("ring", &["sys", "tape", "node"]),
    ("rustls", &["node"]),
    ("serde_json", &["pair", "io", "node", "measure", "cli"]),
    ("tokio", &["node"]),
    ("spake2", &["node"]),
    ("toml", &["node"]),
    ("tracing_subscriber", &["node"]),
    ("ureq", &["node"]),
    ("xxhash_rust", &["store"]),
];

/// No file is longer (lines).
const FILE_MAX: usize = 800;
/// The program itself only hands over to the library (lines).
const MAIN_MAX: usize = 40;

/// The crate's own directory.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file under `dir`, in order.
pub(crate) fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.expect("a readable directory").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// A source file: where it is, as people name it, and its text.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn all(dir: &str) -> Vec<Self> {
        let read = |path: PathBuf| {
            let name = path.strip_prefix(root()).expect("under the root").display().to_string();
            Self { name, text: fs::read_to_string(&path).expect("readable text") }
        };
        rust_files(&root().join(dir)).into_iter().map(read).collect()
    }

    /// Lines that are not comments, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        lines.map(|(at, line)| (at + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

/// The path segments that follow each `prefix` in a line.
fn after<'a>(line: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(prefix).filter_map(move |(at, _)| {
        let before = line.get(..at)?.chars().next_back();
        let whole_word = before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '$');
        let rest = line.get(at + prefix.len()..)?;
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        whole_word.then(|| rest.get(..end)).flatten()
    })
}

fn allowed(room: &str) -> &'static [&'static str] {
    ROOMS.iter().find(|(name, _)| *name == room).map_or(&[], |(_, may)| may)
}

fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\nmove the code, not the table", wrong.join("\n"));
}

#[test]
fn the_table_has_every_room_and_only_rooms_and_no_circle() {
    let entries = fs::read_dir(root().join("src")).expect("src is there");
    let found: BTreeSet<String> = entries
        .map(|entry| entry.expect("a readable directory"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let told: BTreeSet<String> = ROOMS.iter().map(|(room, _)| (*room).to_owned()).collect();
    assert_eq!(found, told, "on disk and in the table");
    let mut before = BTreeSet::new();
    for (room, may) in ROOMS {
        let later: Vec<_> = may.iter().filter(|other| !before.contains(*other)).collect();
        assert!(later.is_empty(), "{room} names {later:?}, which are built after it: a circle could close");
        before.insert(room);
    }
}

#[test]
fn rooms_name_only_the_rooms_that_the_table_allows() {
    let mut wrong = Vec::new();
    for (room, may) in ROOMS {
        for source in Source::all(&format!("src/{room}")) {
            for (at, line) in source.code() {
                let names: Vec<_> = after(line, "crate::").collect();
                for other in names {
                    if other.is_empty() {
                        wrong.push(format!("{}:{at}: name one room in each `use crate::`", source.name));
                    } else if other != *room && !may.contains(&other) {
                        wrong.push(format!("{}:{at}: {room} may not name {other}", source.name));
                    }
                }
            }
        }
    }
    none(&wrong);
}

#[test]
fn no_room_is_entered_through_its_parent() {
    let mut wrong = Vec::new();
    for (room, _) in ROOMS {
        for source in Source::all(&format!("src/{room}")) {
            let inner = source.name.trim_start_matches("src/").trim_end_matches("/mod.rs");
            // Tests in a file of their own hang one module below their name.
            let apart = ["_tests.rs", "_testing.rs"].iter().any(|end| inner.ends_with(end));
            let depth = inner.matches('/').count() + usize::from(apart);
            for (at, line) in source.code() {
                // Inside an inline module, which is indented, one more leads to the file's own room.
                let depth = depth + usize::from(line.starts_with(' '));
                if line.contains(&"super::".repeat(depth + 1)) {
                    wrong.push(format!("{}:{at}: `super` leads out of {room}", source.name));
                }
            }
        }
    }
    none(&wrong);
}

#[test]
fn decisions_name_neither_files_nor_clocks_nor_threads() {
    let mut wrong = Vec::new();
    for room in PURE {
        for source in Source::all(&format!("src/{room}")) {
            // Built for tests only: it measures what decides.
            if source.name.ends_with("/bench.rs") {
                continue;
            }
            for (at, line) in source.code() {
                for word in WORLD.iter().filter(|word| line.contains(**word)) {
                    wrong.push(format!("{}:{at}: {room} decides and may not use {word}", source.name));
                }
            }
        }
    }
    none(&wrong);
}

#[test]
fn the_command_line_knows_the_engine_by_its_admin_face_only() {
    let mut wrong = Vec::new();
    for source in Source::all("src/cli") {
        for (at, line) in source.code() {
            for part in after(line, "crate::engine::").filter(|part| *part != "admin") {
                wrong.push(format!("{}:{at}: cli names engine::{part}", source.name));
            }
        }
    }
    none(&wrong);
}

#[test]
fn outside_crates_stay_in_their_rooms() {
    let mut wrong = Vec::new();
    for (room, _) in ROOMS {
        for source in Source::all(&format!("src/{room}")) {
            for (at, line) in source.code() {
                for (name, rooms) in CRATES.iter().filter(|(_, rooms)| !rooms.contains(room)) {
                    if line.trim_start().starts_with(&format!("use {name}::"))
                        || after(line, &format!("{name}::")).next().is_some()
                            && !line.contains(&format!("::{name}::"))
                    {
                        wrong.push(format!("{}:{at}: {name} is for {rooms:?}", source.name));
                    }
                }
            }
        }
    }
    none(&wrong);
}

/// A second way to lock would be one that the first does not see.
#[test]
fn files_are_locked_in_one_place() {
    let all = Source::all("src");
    let locks = all.iter().filter(|source| source.code().any(|(_, line)| line.contains("Flock")));
    let names: Vec<_> = locks.map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["src/io/file/lock.rs"], "lock by `lock_dir` or `lock_file`");
}

/// Whoever watches items hears of what is appended there; a change past it would go untold.
#[test]
fn the_engine_appends_entries_of_items_in_one_place() {
    let mut wrong = Vec::new();
    let (mut ways, mut place) = (0, 0);
    for source in Source::all("src/engine").iter().filter(|source| !source.name.ends_with("_tests.rs")) {
        for (at, line) in source.code() {
            let appends = line.contains(".append(") && !line.contains(".append(&mut ")
                || line.contains(".append_whole(");
            let by_the_way = line.contains("self.appending(");
            ways += usize::from(by_the_way);
            if appends && source.name == "src/engine/changes.rs" {
                place += 1;
            } else if appends && !by_the_way {
                wrong.push(format!("{}:{at}: {}", source.name, line.trim()));
            }
        }
    }
    none(&wrong);
    assert!(ways > 4 && place == 2, "the lines are found that this is about");
}

#[test]
fn unsafe_code_is_in_sys_only() {
    let signs =
        ["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait", "unsafe extern", "unsafe(", "allow(unsafe"];
    let mut wrong = Vec::new();
    for source in Source::all("src").into_iter().chain(Source::all("tests")).chain(Source::all("tools")) {
        if source.name.starts_with("src/sys/") || source.name == "tests/layering.rs" {
            continue;
        }
        for (at, line) in source.code() {
            if signs.iter().any(|sign| line.contains(sign)) {
                wrong.push(format!("{}:{at}: {}", source.name, line.trim()));
            }
        }
    }
    none(&wrong);
}

#[test]
fn no_file_is_too_long_and_the_program_only_hands_over() {
    let mut wrong = Vec::new();
    for dir in ["src", "tests", "tools", "bench"] {
        for source in Source::all(dir) {
            let (lines, most) = match source.name.as_str() {
                "src/main.rs" => (source.text.lines().count(), MAIN_MAX),
                _ => (source.text.lines().count(), FILE_MAX),
            };
            if lines > most {
                wrong.push(format!("{}: {lines} lines, at most {most} are allowed", source.name));
            }
        }
    }
    none(&wrong);
}

#[test]
fn what_a_line_names_is_found_and_what_only_looks_like_it_is_not() {
    let names = |line| after(line, "crate::").collect::<Vec<_>>();
    assert_eq!(names("use crate::base::Seq; let x = crate::engine::Effect;"), ["base", "engine"]);
    assert_eq!(names("use crate::{base, io};"), [""]);
    assert_eq!(names("use mycrate::base;"), [""; 0]);
    assert_eq!(allowed("io"), ["base", "sys"]);
}
