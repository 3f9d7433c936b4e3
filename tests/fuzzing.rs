//! The fixed corpus of the fuzz targets, and that no decoder is left out of them.

use crate::layering::{Source, root};
use hot_backup::fuzzing::{TARGETS, run};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// All that is kept in the repository (bytes).
const CORPUS_MAX: u64 = 200 << 10;

fn corpus(target: &str) -> Vec<PathBuf> {
    let dir = root().join("tests/corpus").join(target);
    let files = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    files.map(|file| file.unwrap().path()).collect()
}

#[test]
fn every_input_of_the_corpus_is_decoded_or_refused() {
    let mut bytes = 0;
    for (target, _) in TARGETS {
        let files = corpus(target);
        assert!(files.len() >= 3, "{target} has hardly a corpus");
        for path in files {
            bytes += fs::metadata(&path).unwrap().len();
            let input = fs::read(&path).unwrap();
            run(target, &input);
            // And cut off anywhere near its start, and near its end.
            let ends = (0..input.len().min(128)).chain(input.len().saturating_sub(64)..input.len());
            ends.for_each(|end| run(target, &input[..end]));
        }
    }
    assert!(bytes <= CORPUS_MAX, "{bytes} bytes of corpus");
}

#[test]
fn every_target_has_its_program_and_its_corpus_and_every_fuzz_function_its_target() {
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
    let mut named = BTreeSet::new();
    for (target, _) in TARGETS {
        assert!(
            manifest.contains(&format!("name = \"{target}\"\npath = \"targets/{target}.rs\"")),
            "{target}"
        );
        let program = fs::read_to_string(root().join(format!("fuzz/targets/{target}.rs"))).unwrap();
        assert!(program.contains(&format!("run(\"{target}\", bytes)")), "{target}: {program}");
        named.insert((*target).to_owned());
    }
    let found: BTreeSet<String> = fs::read_dir(root().join("tests/corpus"))
        .unwrap()
        .map(|dir| dir.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, named, "the corpus has a directory for each target");
    let list = fs::read_to_string(root().join("src/fuzzing.rs")).unwrap();
    for source in Source::all("src").iter().filter(|source| source.name != "src/fuzzing.rs") {
        for line in source.text.lines().filter_map(|line| line.strip_prefix("pub fn fuzz_")) {
            let name = format!("fuzz_{}", line.split('(').next().unwrap());
            assert!(list.contains(&name), "{}: {name} is in no target", source.name);
        }
    }
}
