//! A standby that the journal does not reach any more is given a copy of everything, while users work.

use crate::support::{Load, Pair, Plan, Shape, Told, audit};
use serde_json::Value;

/// Small segments that are let go as soon as nobody needs them, and a journal that reaches back a little.
fn plan() -> Plan {
    Plan::quick().segments("64K").config("checkpoint_ms = 100").config("journal_quota_bytes = \"256K\"")
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

/// A pair whose standby is stopped and has lost its claim on the journal, and what clients were told.
fn left_behind(plan: &Plan) -> (Pair, Vec<Told>) {
    let mut pair = Pair::start(plan);
    Load::start(&pair.a.door, Shape { most: 20, ..Shape::default() }).run_to_the_end();
    pair.converges();
    pair.b.kill();
    let load = Load::start(&pair.a.door, Shape { first: 10, ..Shape::default() });
    pair.a.incident("peer-dropped");
    let told = load.finish();
    (pair, told)
}

/// A node that was given a copy is a standby that has everything, and takes over with it.
fn takes_over_with_all(mut pair: Pair, told: &[Told]) {
    pair.b.status("to be whole", |status| status["state"] == "standby" && status["peer"]["connected"] == true);
    pair.converges();
    pair.a.kill();
    let account = pair.b.json_when_up(&["takeover", "--peer-is-down"]);
    assert_eq!(account["lost_announced"], 0, "{account}");
    audit(&pair.b.door, told).is_complete();
}

#[test]
fn a_standby_that_was_away_for_too_long_is_given_a_copy_while_users_work_and_takes_over_with_all_of_it() {
    let (mut pair, told) = left_behind(&plan());
    let load = Load::start(&pair.a.door, Shape { first: 30, ..Shape::default() });
    pair.b.start();
    pair.b.incident("copying");
    pair.b.incident("whole");
    let more = load.finish();
    audit(&pair.a.door, &more).is_complete();
    takes_over_with_all(pair, &told);
}

#[test]
fn a_copy_that_is_cut_off_goes_on_where_it_was_whoever_dies_and_serves_nobody_before_it_is_whole() {
    let (mut pair, told) = left_behind(&plan());
    pair.b.start();
    for round in 0..6 {
        pair.b.incident("copying");
        let state = pair.b.state();
        if state == "incomplete" {
            let refused = pair.b.verb(&["takeover", "--peer-is-down"]);
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(!refused.status.success() && said.contains("not whole"), "{said}");
        }
        if round % 2 == 0 {
            pair.b.kill();
            pair.b.start();
        } else {
            pair.a.kill();
            pair.a.start_alone();
        }
    }
    takes_over_with_all(pair, &told);
}

#[test]
fn where_an_operator_is_to_be_asked_nothing_is_copied_before_the_word() {
    let (mut pair, told) = left_behind(&plan().config("full_sync = \"ask\""));
    pair.b.start();
    let text = pair.a.incident("needs-full-sync");
    assert!(text.contains("hot-backup resync"), "{text}");
    assert_eq!(pair.b.state(), "standby");
    pair.a.done(&["resync"]);
    pair.b.incident("whole");
    takes_over_with_all(pair, &told);
}

#[test]
fn a_new_machine_with_an_empty_directory_becomes_the_standby_at_any_age_of_the_pair() {
    let (mut pair, told) = left_behind(&plan());
    std::fs::remove_dir_all(pair.b.dir.join("store")).unwrap();
    std::fs::remove_dir_all(pair.b.dir.join("volumes")).ok();
    for journal in ["journal", "local-journal"] {
        std::fs::remove_dir_all(pair.b.dir.join(journal)).ok();
    }
    std::fs::remove_file(pair.b.dir.join("control")).ok();
    pair.b.start();
    pair.b.incident("whole");
    assert!(number(&pair.b.json(&["status"])["positions"]["applied"]) > 0);
    takes_over_with_all(pair, &told);
}
