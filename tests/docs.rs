//! Proves that the documents speak of what is there: rooms, files, functions, dependencies, commands, flags, config
//! keys and Redis commands that they name exist, and what must be named is named. It reads the source as text and
//! asks the program for its help.

use crate::layering::{ROOMS, root, rust_files};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

const ARCHITECTURE: &str = "src/ARCHITECTURE.md";
/// Documents whose paths and names are checked, beside the pages in `docs`.
const DOCUMENTS: [&str; 5] = [ARCHITECTURE, "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"];
/// The sections of the architecture document, in order.
const SECTIONS: [&str; 13] = [
    "Problem and promise",
    "Bird's eye",
    "Map",
    "Who may name whom",
    "Lives",
    "Formats",
    "Assumptions",
    "Why it is correct",
    "Threads, locks, limits",
    "When things fail",
    "How it is tested",
    "Decisions",
    "Glossary",
];

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("reading {path}: {error}"))
}

/// The pages in `docs`, as people name them, in order.
pub(crate) fn pages() -> Vec<String> {
    let mut pages = Vec::new();
    for dir in ["docs", "docs/runbooks"] {
        let entries = fs::read_dir(root().join(dir)).expect("the pages");
        let names = entries.map(|entry| entry.expect("a readable directory").file_name());
        let names = names.map(|name| name.into_string().expect("a name in text"));
        pages.extend(names.filter(|name| name.ends_with(".md")).map(|name| format!("{dir}/{name}")));
    }
    pages.sort();
    pages
}

/// What to do in a situation, step by step.
pub(crate) fn runbooks() -> Vec<String> {
    let entries = fs::read_dir(root().join("docs/runbooks")).expect("the runbooks");
    let names = entries.map(|entry| entry.expect("a readable directory").file_name());
    let mut all: Vec<_> =
        names.map(|name| format!("docs/runbooks/{}", name.into_string().expect("a name in text"))).collect();
    all.sort();
    all
}

/// All documents that are checked.
pub(crate) fn documents() -> Vec<String> {
    DOCUMENTS.into_iter().map(str::to_owned).chain(pages()).chain(runbooks()).collect()
}

/// What stands between single backticks, outside of code blocks.
pub(crate) fn quoted(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

/// The lines of code blocks.
pub(crate) fn blocks(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            found.push(line);
        }
    }
    found
}

pub(crate) fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// All source, file by file.
fn sources() -> Vec<String> {
    let dirs = ["src", "tests", "tools"];
    let files = dirs.into_iter().flat_map(|dir| rust_files(&root().join(dir)));
    files.map(|path| fs::read_to_string(path).expect("readable text")).collect()
}

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn has_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].chars().next_back().is_some_and(part)
            && !text[at + word.len()..].chars().next().is_some_and(part)
    })
}

/// Whether a source file defines a function, type, constant, module or enum variant of that name.
fn defines(source: &str, name: &str) -> bool {
    let keywords = ["fn", "struct", "enum", "trait", "const", "static", "type", "mod"];
    keywords.iter().any(|keyword| has_word(source, &format!("{keyword} {name}")))
        || source.lines().any(|line| {
            let rest = line.trim_start().strip_prefix(name);
            rest.is_some_and(|rest| {
                rest.starts_with([',', '{', '(']) || rest.starts_with(" {") || rest.starts_with(" =")
            })
        })
}

#[test]
fn the_architecture_has_its_sections_in_order_and_a_bearable_length() {
    let text = read(ARCHITECTURE);
    let heads: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let expected: Vec<_> =
        SECTIONS.iter().enumerate().map(|(n, name)| format!("{}. {name}", n + 1)).collect();
    for (head, expected) in heads.iter().zip(&expected) {
        assert!(head.starts_with(expected.as_str()), "{head} stands where {expected} is due");
    }
    assert_eq!(heads.len(), expected.len(), "{heads:?}");
    let lines = text.lines().count();
    assert!((300..=900).contains(&lines), "{lines} lines");
}

#[test]
fn every_room_is_in_the_map_and_the_table_of_rooms_is_the_one_that_is_held() {
    let text = read(ARCHITECTURE);
    let start = text.find("## 4. Who may name whom").expect("section 4");
    let end = start + text[start..].find("## 5.").expect("section 5");
    let (map, table) = (&text[..start], &text[start..end]);
    let mut told = BTreeMap::new();
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let may: Vec<_> =
            cells[1].split(' ').map(|name| name.trim_matches('`')).filter(|n| is_name(n)).collect();
        told.insert(cells[0].trim_matches('`').to_owned(), may.into_iter().map(str::to_owned).collect());
    }
    let held: BTreeMap<String, Vec<String>> = ROOMS
        .iter()
        .map(|(room, may)| ((*room).to_owned(), may.iter().map(|name| (*name).to_owned()).collect()))
        .collect();
    assert_eq!(told, held, "section 4 and tests/layering.rs differ");
    for (room, _) in ROOMS {
        assert!(map.contains(&format!("### `{room}`")), "{room} is not in section 3");
    }
}

#[test]
fn paths_that_documents_name_exist() {
    let mut wrong = Vec::new();
    for document in documents() {
        for word in quoted(&read(&document)) {
            let roots = ["src/", "tests/", "tools/", "bench/", "docs/", ".ci/"];
            if roots.iter().any(|start| word.starts_with(start)) && !root().join(&word).exists() {
                wrong.push(format!("{document}: {word} is not there"));
            }
        }
    }
    none(&wrong);
}

/// Whether the source has what a document calls `function()`, `Type::function`, or `Type`.
fn is_known(sources: &[String], word: &str) -> bool {
    let word = word.strip_suffix("()").unwrap_or(word);
    let parts: Vec<_> = word.split("::").collect();
    match parts.as_slice() {
        [name] => sources.iter().any(|source| defines(source, name)),
        [.., owner, name] => sources.iter().any(|source| defines(source, name) && has_word(source, owner)),
        [] => true,
    }
}

#[test]
fn functions_and_types_that_documents_name_exist() {
    let sources = sources();
    let mut wrong = Vec::new();
    for document in documents() {
        for word in quoted(&read(&document)) {
            let bare = word.strip_suffix("()").unwrap_or(&word);
            let is_path = bare.contains("::") && bare.split("::").all(is_name);
            let is_call = word.ends_with("()") && is_name(bare);
            let mut letters = bare.chars();
            let is_type = is_name(bare)
                && letters.next().is_some_and(|c| c.is_ascii_uppercase())
                && letters.next().is_some_and(|c| c.is_ascii_lowercase());
            let foreign = bare.starts_with("std::");
            if (is_path || is_call || is_type) && !foreign && !is_known(&sources, &word) {
                wrong.push(format!("{document}: {word} is nowhere in the source"));
            }
        }
    }
    none(&wrong);
    assert!(!is_known(&sources, &["Journal", "no_such_thing"].join("::")), "the search finds anything");
}

#[test]
fn every_dependency_has_its_line_in_the_architecture() {
    let manifest = read("Cargo.toml");
    let text = read(ARCHITECTURE);
    let decisions = &text[text.find("## 12. Decisions").expect("section 12")..];
    let mut section = "";
    let mut wrong = Vec::new();
    for line in manifest.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if section.ends_with("dependencies")
            && let Some((name, _)) = line.split_once(" = ")
            && !decisions.contains(&format!("`{name}`"))
        {
            wrong.push(format!("{name}: what for, and what would it cost to do without?"));
        }
    }
    none(&wrong);
}

/// Else the next build of the fuzz targets changes it, and with it the checkout.
#[test]
fn the_lock_file_of_the_fuzz_targets_knows_every_dependency() {
    let (manifest, lock) = (read("Cargo.toml"), read("fuzz/Cargo.lock"));
    let (_, package) = lock.split_once("name = \"hot-backup\"\n").expect("the package");
    let (package, _) = package.split_once("]").expect("its dependencies");
    let (_, normal) = manifest.split_once("\n[dependencies]\n").expect("dependencies");
    let (normal, _) = normal.split_once("\n[").expect("a section behind them");
    let names: Vec<&str> = normal.lines().filter_map(|line| Some(line.split_once(" = ")?.0)).collect();
    assert!(names.len() > 10, "{names:?}");
    let unknown = names.into_iter().filter(|name| !package.contains(&format!("\"{name}")));
    none(&unknown.map(|name| format!("{name}: run `cargo update --workspace` in fuzz/")).collect::<Vec<_>>());
}

/// What `hot-backup WORDS --help` prints.
pub(crate) fn help(words: &[String]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_hot-backup"))
        .args(words)
        .arg("--help")
        .env_remove("HOT_BACKUP_DIR")
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "hot-backup {} --help: {}", words.join(" "), output.status);
    String::from_utf8(output.stdout).expect("help is text")
}

/// The names under `Commands:` in a help text.
pub(crate) fn commands(help: &str) -> Vec<String> {
    let list = help.split("\nCommands:\n").nth(1).unwrap_or_default();
    let rows = list.lines().take_while(|line| line.starts_with("  "));
    rows.filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// Each use of the program in a document: the words after its name.
fn uses(text: &str) -> BTreeSet<String> {
    let in_code = blocks(text).into_iter().map(str::to_owned).chain(quoted(text));
    let mut found = BTreeSet::new();
    for line in in_code {
        let line = line.replace("cargo run --release -- ", "hot-backup ");
        for (at, name) in line.match_indices("hot-backup ") {
            if line[..at].ends_with('/') {
                continue;
            }
            let part = &line[at + name.len()..];
            let end = part.find(['|', ';', '&', ')', '"', '#', '>', '\'', '`']).unwrap_or(part.len());
            found.insert(part[..end].trim().to_owned());
        }
    }
    found
}

#[test]
fn commands_and_flags_in_documents_are_in_the_help() {
    let top = commands(&help(&[]));
    let mut wrong = Vec::new();
    for document in documents() {
        for line in uses(&read(&document)) {
            let mut words: Vec<String> = Vec::new();
            let mut known = top.clone();
            for word in line.split_whitespace().filter(|word| !word.starts_with('-')) {
                if !known.iter().any(|name| name == word) {
                    break;
                }
                words.push(word.to_owned());
                known = commands(&help(&words));
            }
            if words.is_empty() && !line.starts_with('-') {
                wrong.push(format!("{document}: hot-backup {line}: no such command"));
                continue;
            }
            let text = help(&words);
            for flag in line.split_whitespace().filter(|word| word.starts_with("--")) {
                let flag = flag.split('=').next().unwrap_or(flag);
                if !has_flag(&text, flag) {
                    wrong.push(format!("{document}: hot-backup {line}: {flag} is not in its help"));
                }
            }
        }
    }
    none(&wrong);
}

fn has_flag(help: &str, flag: &str) -> bool {
    help.match_indices(flag).any(|(at, _)| {
        let next = help[at + flag.len()..].chars().next();
        next.is_none_or(|c| !c.is_alphanumeric() && c != '-')
    })
}

/// What stands between quotes at the head of `text`, behind a severity and white space.
fn literals(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for part in text.split(',') {
        let part = part.trim();
        match part.strip_prefix('"').and_then(|part| part.split_once('"')) {
            Some((literal, "" | ")")) => found.push(literal),
            None if part.contains("Severity::") => {}
            _ => break,
        }
    }
    found
}

#[test]
fn each_word_of_an_incident_is_in_the_table_of_matters_and_the_table_is_on_its_page() {
    use hot_backup::engine::incidents::{Matter, reference};
    let table = reference();
    assert!(read("docs/incidents.md").contains(&table), "put this into docs/incidents.md:\n{table}");
    let known: BTreeSet<&str> = Matter::ALL
        .iter()
        .flat_map(|m| [m.row().code].into_iter().chain(m.row().ends.iter().copied()))
        .collect();
    let calls = [".incident(", ".incident_once(", ".incident_over(", ".all_well(", "RateLimited::new("];
    let source =
        rust_files(&root().join("src")).into_iter().map(|path| fs::read_to_string(path).expect("text"));
    let (mut looked, mut wrong) = (0, Vec::new());
    for source in source {
        for call in calls {
            for (at, _) in source.match_indices(call) {
                let words = literals(&source[at + call.len()..]);
                looked += words.len();
                let unknown = words.iter().filter(|word| !known.contains(*word));
                wrong.extend(unknown.map(|word| format!("{word} has no row in `Matter`")));
            }
        }
    }
    none(&wrong);
    assert!(looked > 20, "the search finds {looked} only");
}

#[test]
fn the_changelog_has_the_version_of_the_manifest_and_its_formats() {
    let log = read("CHANGELOG.md");
    assert!(log.contains(&format!("\n## {}", env!("CARGO_PKG_VERSION"))), "no entry for this version");
    assert!(log.contains("\n### Formats and wire\n"), "format changes have a heading of their own");
}

#[test]
fn what_documents_quote_is_found() {
    let text = "see `a b` and `src/x.rs`\n```sh\n`not this` hot-backup init --dir A; hot-backup trust \"$(hot-backup \
                identity --dir B)\"\n```\n`hot-backup start --alone`";
    assert_eq!(quoted(text), ["a b", "src/x.rs", "hot-backup start --alone"]);
    let expected = ["identity --dir B", "init --dir A", "start --alone", "trust"].map(str::to_owned);
    assert!(uses(text).iter().eq(expected.iter().filter(|line| !line.is_empty())), "{:?}", uses(text));
    assert!(has_flag("  --peer <A>", "--peer") && !has_flag("  --peer-is-down", "--peer"));
    assert!(defines("    Open,\n", "Open") && defines("pub fn x(", "x") && !defines("fn xy(", "x"));
}
