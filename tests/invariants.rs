//! Proves that the table of invariants in the architecture is the one of the source: each number that the source names
//! has its row, each row's checker holds that number, each mutation stands where it must be noticed, each test is one.

use crate::docs::{none, quoted, read};
use crate::layering::Source;
use std::collections::{BTreeMap, BTreeSet};

/// The numbers of invariants in a text.
fn numbers(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("I-") {
        let digits: String = text[at + 2..].chars().take_while(char::is_ascii_digit).collect();
        let starts = !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '-' || c == '_');
        if starts && digits.len() == 2 {
            found.insert(format!("I-{digits}"));
        }
    }
    found
}

/// A row of the table.
struct Row {
    number: String,
    checkers: Vec<String>,
    mutations: Vec<String>,
    test: String,
}

fn table() -> Vec<Row> {
    let text = read("src/ARCHITECTURE.md");
    let lines = text.lines().filter(|line| line.starts_with("| I-"));
    let row = |line: &str| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 5, "{line}");
        assert!(cells[1].ends_with('.'), "{line}: the rule is a sentence");
        let calls =
            quoted(cells[2]).into_iter().filter_map(|word| word.strip_suffix("()").map(str::to_owned));
        Row {
            number: cells[0].to_owned(),
            checkers: calls.collect(),
            mutations: quoted(cells[3]),
            test: quoted(cells[4]).join(" "),
        }
    };
    lines.map(row).collect()
}

/// All source, but not this file, which names numbers as examples.
fn sources() -> Vec<Source> {
    let all = Source::all("src").into_iter().chain(Source::all("tests"));
    all.filter(|source| source.name != "tests/invariants.rs").collect()
}

/// The functions of that name with the comments above them, each up to the brace that closes it.
fn functions<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let head = format!("fn {name}");
    let mut found = Vec::new();
    for (at, _) in text.match_indices(&head) {
        if !text[at + head.len()..].starts_with(['(', '<']) {
            continue;
        }
        let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
        let indent = text[line..].len() - text[line..].trim_start().len();
        let close = format!("\n{}}}", &text[line..line + indent]);
        let end = text[at..].find(&close).map_or(text.len(), |end| at + end);
        let above = text[..line].rfind("\n\n").unwrap_or(0);
        found.push(&text[above..end]);
    }
    found
}

/// The mutations and the invariants as which each may be noticed, as the test of the checkers has them.
fn mutations() -> BTreeMap<String, BTreeSet<String>> {
    let text = read("tests/simulation.rs");
    let body = functions(&text, "every_rule_broken_on_purpose_is_noticed_by_the_checker_of_that_rule");
    let mut found = BTreeMap::new();
    for line in body.concat().lines() {
        let Some((names, rules)) = line.split_once(" => &[") else { continue };
        for name in names.split('|').map(str::trim) {
            found.insert(name.to_owned(), numbers(rules));
        }
    }
    found
}

#[test]
fn each_invariant_that_the_source_names_is_in_the_table_and_no_other() {
    let told: BTreeSet<_> = table().into_iter().map(|row| row.number).collect();
    let named: BTreeSet<_> = sources().iter().flat_map(|source| numbers(&source.text)).collect();
    assert_eq!(told, named, "left: the table in the architecture; right: the source");
    assert!(told.len() > 20, "{told:?}");
}

#[test]
fn the_checkers_and_tests_of_invariants_are_there_and_each_checker_names_its_invariant() {
    let sources = sources();
    let mut wrong = Vec::new();
    for Row { number, checkers, test, .. } in table() {
        if checkers.is_empty() {
            wrong.push(format!("{number} has no checker"));
        }
        for name in checkers {
            let mut bodies = sources.iter().flat_map(|source| functions(&source.text, &name));
            if !bodies.any(|body| body.contains(&number)) {
                wrong.push(format!("{name}() does not say that it checks {number}"));
            }
        }
        let mut heads = sources.iter().flat_map(|source| functions(&source.text, &test));
        if !heads.any(|head| head.contains("#[test]")) {
            wrong.push(format!("{number}: {test} is no test"));
        }
    }
    none(&wrong);
}

#[test]
fn each_mutation_stands_in_the_table_where_its_checker_has_to_notice_it() {
    let expected = mutations();
    assert_eq!(expected.len(), hot_backup::sim::MUTATIONS.len(), "{expected:?}");
    let told: Vec<_> = table()
        .into_iter()
        .flat_map(|row| row.mutations.into_iter().map(move |m| (m, row.number.clone())))
        .collect();
    let mut wrong = Vec::new();
    for (mutation, number) in &told {
        if !expected.get(mutation).is_some_and(|rules| rules.contains(number)) {
            wrong.push(format!("{mutation} is not noticed as {number}"));
        }
    }
    let missing = expected.keys().filter(|name| !told.iter().any(|(mutation, _)| mutation == *name));
    wrong.extend(missing.map(|name| format!("{name} has no row")));
    none(&wrong);
}

#[test]
fn numbers_and_functions_are_found_in_a_text() {
    let text = "/// Why (I-01).\nfn a() {\n    x(\"I-02\");\n}\n\nfn ab() {}\nAPI-03 I-4 I-055\n";
    assert_eq!(numbers(text), ["I-01", "I-02"].map(str::to_owned).into());
    assert_eq!(functions(text, "a").len(), 1);
    assert!(functions(text, "a")[0].contains("I-01") && functions(text, "a")[0].contains("I-02"));
    assert!(functions(text, "b").is_empty());
}
