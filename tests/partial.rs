//! The primary is lost while its standby is incomplete: a takeover with a part of a copy needs more than a word, and what is
//! whole is not made that unasked.

use crate::support::{Load, Pair, Plan, Shape, audit};

/// Of what the primary writes while its standby is away, that one is given a part, and the primary dies.
fn a_part_comes(pair: &mut Pair) {
    for n in 0..80 {
        pair.a.done(&["item", "put", "app,orders", &format!("large-{n:02}"), &"v".repeat(32 << 10)]);
    }
    let reaches = |status: &serde_json::Value| status["journal"]["oldest_seq"].as_u64() > Some(20);
    pair.a.status("to have let go what the standby lacks", reaches);
    pair.b.start();
    pair.b.status("to have a part", |status| status["copy"]["bytes"].as_u64() > Some(0));
    pair.a.kill();
}

#[test]
fn a_takeover_with_a_part_of_a_copy_asks_for_the_epoch_and_the_old_primary_keeps_what_it_has() {
    let plan = Plan::quick()
        .segments("64K")
        .config("checkpoint_ms = 100")
        .config("journal_quota_bytes = \"256K\"")
        .config("copy_rate = \"64K\"");
    let mut pair = Pair::start(&plan);
    // All of it comes while the standby is away: nothing of it is equal there.
    pair.b.kill();
    let told = Load::start(&pair.a.door, Shape { most: 400, ..Shape::default() }).run_to_the_end();
    a_part_comes(&mut pair);
    // What is missing, and what can be done.
    let said = |output: std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let refused = said(pair.b.verb(&["takeover", "--peer-is-down", "--now"]));
    for part in ["files are not whole", "wait until the copy is whole", "restore a save", "--incomplete"] {
        assert!(refused.contains(part), "{part:?} is not in {refused}");
    }
    let asks = said(pair.b.verb(&["takeover", "--peer-is-down", "--now", "--incomplete"]));
    assert!(asks.contains("--epoch N"), "{asks}");
    let dry = pair.b.json(&["takeover", "--incomplete", "--dry-run"]);
    assert!(dry["partial"] == true && !dry["incomplete_files"].as_array().unwrap().is_empty(), "{dry}");
    let epoch = dry["epoch"].as_u64().unwrap();
    let takes = |epoch: u64| {
        ["takeover", "--peer-is-down", "--now", "--incomplete", "--epoch", &epoch.to_string()]
            .map(str::to_owned)
    };
    let verb = |epoch: u64| takes(epoch);
    let wrong = verb(epoch + 2);
    let wrong: Vec<&str> = wrong.iter().map(String::as_str).collect();
    assert!(said(pair.b.verb(&wrong)).contains("not what was typed"));
    let right = verb(epoch);
    let right: Vec<&str> = right.iter().map(String::as_str).collect();
    assert_eq!(pair.b.json(&right)["epoch"], epoch);
    // The old primary is back: it serves no more, and has everything.
    pair.a.start();
    pair.a.status("to keep what it has", |status| status["state"] == "diverged");
    let text = pair.a.incident("diverged");
    assert!(text.contains("resync --accept-incomplete"), "{text}");
    pair.a.done(&["resync"]);
    pair.a.status("to keep it on an ordinary word", |status| status["state"] == "diverged");
    // Back to it: the part is stopped, and made whole when it is back.
    pair.b.kill();
    let back = pair.a.json(&["takeover", "--peer-is-down", "--now"]);
    assert!(back["epoch"].as_u64() > Some(epoch), "{back}");
    audit(&pair.a.door, &told).is_complete();
    pair.a.done(&["resync", "--rate", "auto"]);
    pair.b.start();
    pair.b
        .status("to be whole", |status| status["state"] == "standby" && status["peer"]["connected"] == true);
    pair.converges();
    assert_eq!(pair.a.json(&["compare"])["differing"], 0);
}

#[test]
fn a_node_that_dies_right_after_it_took_over_with_a_part_of_a_copy_has_that_part() {
    let plan =
        Plan::quick().segments("64K").config("journal_quota_bytes = \"256K\"").config("copy_rate = \"64K\"");
    let mut pair = Pair::set_up(&plan);
    pair.a.configure(&["checkpoint_ms = 100"]);
    pair.serve();
    pair.b.kill();
    a_part_comes(&mut pair);
    let epoch = pair.b.json(&["takeover", "--incomplete", "--dry-run"])["epoch"].as_u64().unwrap();
    let epoch = epoch.to_string();
    pair.b.done(&["takeover", "--peer-is-down", "--now", "--incomplete", "--epoch", &epoch]);
    pair.b.kill();
    pair.b.start_alone();
    let listed = pair.b.json(&["item", "list", "app,orders"]);
    assert!(listed.to_string().contains("large-00"), "{listed}");
}
