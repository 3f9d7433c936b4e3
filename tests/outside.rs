//! Proves that every call that replaces, renames, removes or empties a file, and every one that reads to an end that
//! others set, is one of a list with what it can hit: no new one comes in unseen. It reads the source as text.

use crate::layering::Source;
use std::collections::BTreeMap;

/// Calls that change or remove what is on the disk under a name.
const CHANGES: &[&str] = &[
    "fs::rename(",
    "renameat2(",
    "fs::remove_file(",
    "fs::remove_dir",
    "fs::write(",
    "fs::copy(",
    "fs::hard_link(",
    "fs::set_permissions(",
    "File::create(",
    "ftruncate(",
    "truncate(true)",
    "truncate(plain)",
    ".set_len(",
    ".create(true)",
    ".create(link",
];

/// Calls that read until the other side ends.
const READS: &[&str] = &[
    "read_to_end(",
    "read_to_string(",
    "fs::read(",
    "read_line(&mut ",
    "read_until(",
    "io::copy(",
    "BufReader::new(file).lines()",
    ".split(b'",
];

/// Where such calls stand, how many, and what they can hit.
const CHANGES_ALLOWED: &[(&str, usize, &str)] = &[
    ("src/cli/bench/mod.rs", 1, "the files that the user named for the figures and the page"),
    ("src/cli/demo/cleanup.rs", 1, "the demo's directory, which it made itself (mkdir) in the temporary one"),
    ("src/cli/demo/input.rs", 1, "below the demo's directory"),
    ("src/cli/demo/pair.rs", 1, "the logs of the demo's nodes, in its directory"),
    ("src/cli/demo/tape.rs", 1, "the config of the demo's node, in its directory"),
    ("src/cli/item/sink.rs", 3, "the export's own part file; the file that the user named; a link's target"),
    ("src/cli/nbd_access.rs", 1, "appends to ca-cert.pem in the folder that the user named, no link"),
    (
        "src/io/file.rs",
        5,
        "a segment, and its name with .tmp, renamed only to free names; an export that is complete",
    ),
    ("src/io/file/lock.rs", 1, "the lock file of this user, opened without following a link"),
    ("src/io/file/own.rs", 4, "a file of the node's own, by its type"),
    ("src/io/probe.rs", 1, "the directory that doctor made itself (mkdir)"),
    ("src/measure/disk.rs", 1, "the directory that a measurement made itself (mkdir)"),
    ("src/measure/journal.rs", 2, "segments and a file that it made itself, in that directory"),
    ("src/node/admin/server.rs", 1, "the mode of a socket that was just bound, where nobody else may write"),
    ("src/node/listen.rs", 3, "a socket of ours (by inode), or one that nobody listens on"),
    ("src/node/restore.rs", 2, "the directory in which it laid a set out, which it made itself (mkdir)"),
    (
        "src/node/set/target.rs",
        2,
        "files and the directory of a set that it made itself (O_EXCL, mkdir) and could not end",
    ),
    ("src/node/tape_socket/sink.rs", 1, "a file of its own that is not whole, behind what counts of it"),
    (
        "src/node/tape/tap.rs",
        3,
        "the image of a reel that is open, behind where it is written to, as a tape is cut off; one that has no name yet",
    ),
    ("src/node/setup.rs", 1, "the mode of the node's directory, which is empty and this user's"),
    ("src/store/torn_tail.rs", 1, "the newest journal of the old engine, behind its last whole batch"),
    (
        "src/store/tree_store/import.rs",
        7,
        "the store's lock, mark and new tree by exact name; what it was converted from",
    ),
    (
        "src/store/tree_store/tables.rs",
        4,
        "a table that this process began and no manifest names; `current`, and one in the making",
    ),
    ("src/store/volumes/calls.rs", 2, "parts of volumes and their checksums, by exact name"),
    (
        "src/store/volumes/files.rs",
        3,
        "parts of volumes, and the mark that they have checksums, by exact name",
    ),
    ("src/store/volumes/round.rs", 1, "the note of what is written to volumes, no link"),
    ("src/store/volumes/sums.rs", 1, "the checksums of a part, by exact name, no link"),
];

/// The same for reads: all others use `read_at_most()`, `text_at_most()` or `next_line()`.
const READS_ALLOWED: &[(&str, usize, &str)] = &[
    ("src/base/bounded.rs", 2, "with a bound that the caller gives"),
    ("src/cli/takeover.rs", 1, "the epoch that a person types: at most 64 bytes"),
    ("src/node/notify/send/http.rs", 1, "what a receiver answers, up to the limit that is set beside it"),
    ("src/store/torn_tail.rs", 1, "an item of the engine's journal: at most what that file holds"),
];

/// Lines of code outside of tests.
fn code(source: &Source) -> impl Iterator<Item = &str> {
    let end = ["\n#[cfg(test)]\nmod tests {", "\n#[cfg(test)]\nmod test {"]
        .iter()
        .filter_map(|start| source.text.find(start))
        .min()
        .unwrap_or(source.text.len());
    source.text[..end].lines().filter(|line| !line.trim_start().starts_with("//"))
}

fn is_of_tests(name: &str) -> bool {
    ["/tests.rs", "_tests.rs", "_testing.rs", "/suite.rs"].iter().any(|end| name.ends_with(end))
        || ["/tests/", "/suite/", "src/sim/", "src/sys/"].iter().any(|part| name.contains(part))
}

#[track_caller]
fn hold(calls: &[&str], allowed: &[(&str, usize, &str)], advice: &str) {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in Source::all("src").iter().filter(|source| !is_of_tests(&source.name)) {
        for line in code(source) {
            let hits: usize = calls.iter().map(|call| line.matches(call).count()).sum();
            let place = found.entry(source.name.clone()).or_default();
            place.extend((0..hits).map(|_| line.trim().to_owned()));
        }
    }
    found.retain(|_, lines| !lines.is_empty());
    let told: BTreeMap<String, usize> =
        allowed.iter().map(|(name, count, _)| ((*name).to_owned(), *count)).collect();
    let counted: BTreeMap<String, usize> =
        found.iter().map(|(name, all)| (name.clone(), all.len())).collect();
    assert_eq!(counted, told, "\n{advice}\n{found:#?}");
}

#[test]
fn every_call_that_changes_or_removes_a_file_is_listed_with_what_it_can_hit() {
    hold(
        CHANGES,
        CHANGES_ALLOWED,
        "a file of the node is changed by `Own`; anything else needs its line in this list",
    );
}

#[test]
fn nothing_is_read_to_an_end_that_others_set() {
    hold(READS, READS_ALLOWED, "read with a bound: `read_at_most`, `text_at_most`, `next_line`");
}

#[test]
fn files_of_the_nodes_own_are_named_in_one_place() {
    let names: Vec<_> = Source::all("src")
        .iter()
        .filter(|source| !is_of_tests(&source.name) && code(source).any(|line| line.contains("Own::new(")))
        .map(|source| source.name.clone())
        .collect();
    // What lies beside reels is in no node's directory, or has the drive's name in its own.
    let listed = [
        "src/node/admin/mod.rs",
        "src/node/layout.rs",
        "src/node/spool/dir.rs",
        "src/node/tape/catalogue.rs",
        "src/node/tape_socket/mod.rs",
    ];
    assert_eq!(names, listed, "the list of names is `OwnName`");
}
