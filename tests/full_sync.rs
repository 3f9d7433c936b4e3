//! A standby that the journal does not reach any more is given a copy of everything, while users work.

use crate::support::{
    EXPORT, Load, Nbd, Node, Pair, Plan, Shape, Told, audit, loopback_addresses, make_volume,
    serves_volumes_at, wait_until,
};
use serde_json::Value;

/// Small segments that are let go as soon as nobody needs them, and a journal that reaches back a little.
pub(crate) fn plan() -> Plan {
    Plan::quick().segments("64K").config("checkpoint_ms = 100").config("journal_quota_bytes = \"256K\"")
}

/// A pair whose standby is stopped and has lost its claim on the journal, and what clients were told.
fn left_behind(plan: &Plan) -> (Pair, Vec<Told>) {
    let mut pair = Pair::start(plan);
    Load::start(&pair.a.door, Shape { most: 20, ..Shape::default() }).run_to_the_end();
    pair.converges();
    let told = is_left_behind(&mut pair);
    (pair, told)
}

/// The standby, which has everything, is stopped until the primary's journal does not reach back to it any more.
pub(crate) fn is_left_behind(pair: &mut Pair) -> Vec<Told> {
    let end = pair.a.json(&["status"])["positions"]["appended"].as_u64().unwrap();
    pair.b.kill();
    let load = Load::start(&pair.a.door, Shape { first: 10, ..Shape::default() });
    let gone = |status: &serde_json::Value| status["journal"]["oldest_seq"].as_u64() > Some(end + 1);
    pair.a.status("to have let go what the standby lacks", gone);
    load.finish()
}

/// A node that was given a copy is a standby that has everything, and takes over with it.
fn takes_over_with_all(pair: &mut Pair, told: &[Told]) {
    pair.b
        .status("to be whole", |status| status["state"] == "standby" && status["peer"]["connected"] == true);
    pair.converges();
    pair.a.kill();
    let account = pair.b.json_when_up(&["takeover", "--peer-is-down"]);
    assert_eq!(account["lost_announced"], 0, "{account}");
    audit(&pair.b.door, told).is_complete();
}

#[test]
fn a_standby_that_was_away_for_too_long_is_given_a_copy_while_users_work_and_takes_over_with_all_of_it() {
    let (mut pair, told) = left_behind(&plan());
    let way = |node: &Node| node.json(&["resync", "--dry-run"])["way"].clone();
    assert_eq!(way(&pair.a), "digests");
    assert_eq!(pair.a.json(&["resync", "--dry-run", "--full"])["way"], "full-copy");
    let load = Load::start(&pair.a.door, Shape { first: 30, ..Shape::default() });
    pair.b.start();
    let text = pair.b.incident("copying");
    assert!(text.contains("by digests"), "{text}");
    pair.b.incident("whole");
    let more = load.finish();
    // The link comes up anew when the copy is whole, and as often as the load was too much for so small a journal.
    for node in [&pair.a, &pair.b] {
        wait_until("the pair to be level or to catch up", || {
            ["nothing", "catch-up"].map(Value::from).contains(&way(node)).then_some(())
        });
    }
    audit(&pair.a.door, &more).is_complete();
    takes_over_with_all(&mut pair, &told);
}

#[test]
fn a_copy_that_is_cut_off_goes_on_where_it_was_whoever_dies_and_serves_nobody_before_it_is_whole() {
    let (mut pair, told) = left_behind(&plan());
    pair.b.start();
    for round in 0..6 {
        pair.b.incident("copying");
        let dry = pair.b.verb(&["takeover", "--dry-run"]);
        let said = String::from_utf8_lossy(&dry.stderr).into_owned();
        assert!(said.contains("not whole") || pair.b.state() == "standby", "{said}\n{}", pair.b.log());
        if round % 2 == 0 {
            pair.b.kill();
            pair.b.start();
        } else {
            pair.a.kill();
            pair.a.start_alone();
        }
    }
    takes_over_with_all(&mut pair, &told);
}

#[test]
fn where_an_operator_is_to_be_asked_nothing_is_copied_before_the_word() {
    let (mut pair, told) = left_behind(&plan().config("full_sync = \"ask\""));
    pair.b.start();
    let text = pair.a.incident("needs-full-sync");
    assert!(text.contains("hot-backup resync"), "{text}");
    let plan = pair.a.json(&["resync", "--dry-run"]);
    assert!(plan["way"] == "digests" && plan["bytes"].as_u64() > Some(0), "{plan}");
    assert_eq!(pair.b.state(), "standby");
    pair.a.done(&["resync"]);
    pair.b.incident("whole");
    takes_over_with_all(&mut pair, &told);
}

/// A new machine in the place of `lost`, at the same addresses, with keys of its own; `stays` is the other one.
pub(crate) fn in_place_of(lost: &Node, stays: &Node, plan: &Plan) -> Node {
    let config = std::fs::read_to_string(lost.dir.join("config.toml")).unwrap();
    let address = |key: &str| {
        let line = config.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap();
        line.split('"').nth(1).unwrap().parse().unwrap()
    };
    let addresses = (address("link_listen"), address("peer"), Some(address("resp")));
    let new = Node::init(lost.dir.with_extension("new"), ("c", "standby"), addresses, plan);
    new.done(&["trust", "--replace", stays.done(&["identity"]).trim()]);
    stays.done(&["trust", "--replace", new.done(&["identity"]).trim()]);
    new
}

#[test]
fn a_new_machine_takes_the_lost_standbys_place_at_any_age_of_the_pair() {
    let (mut pair, told) = left_behind(&plan());
    pair.b = in_place_of(&pair.b, &pair.a, &plan());
    pair.b.start();
    pair.b.incident("whole");
    takes_over_with_all(&mut pair, &told);
}

#[test]
fn a_new_machine_takes_the_lost_primarys_place_and_takes_over_and_the_lost_one_is_known_to_nobody() {
    // The journal reaches back to the first entry: what the new machine is given is a copy all the same.
    let plan = Plan::quick().config("checkpoint_ms = 100");
    let mut pair = Pair::start(&plan);
    let told = Load::start(&pair.a.door, Shape { most: 100, ..Shape::default() }).run_to_the_end();
    pair.converges();
    pair.a.kill();
    pair.b.json_when_up(&["takeover", "--peer-is-down"]);
    audit(&pair.b.door, &told).is_complete();
    let more = Load::start(&pair.b.door, Shape { first: 10, most: 100, ..Shape::default() }).run_to_the_end();
    let new = in_place_of(&pair.a, &pair.b, &plan);
    let mut lost = std::mem::replace(&mut pair.a, pair.b);
    pair.b = new;
    pair.b.start();
    pair.b.incident("whole");
    takes_over_with_all(&mut pair, &told);
    audit(&pair.b.door, &more).is_complete();
    // The machine that was lost is found again, and started: neither node listens to it.
    pair.a.start();
    pair.a.status("to be the standby", |status| status["state"] == "standby");
    let [own_link] = loopback_addresses();
    let config = std::fs::read_to_string(lost.dir.join("config.toml")).unwrap();
    let was = config.lines().find(|line| line.starts_with("link_listen = ")).unwrap();
    let doors = config.lines().find(|line| line.starts_with("resp = ")).unwrap();
    let moved = config.replace(was, &format!("link_listen = \"{own_link}\"")).replace(doors, "");
    std::fs::write(lost.dir.join("config.toml"), moved).unwrap();
    lost.start();
    pair.a.incident("link-refused");
    assert_eq!(lost.state(), "asking-peer");
    std::mem::swap(&mut pair.a, &mut pair.b);
    pair.converges();
}

#[test]
fn a_volume_is_copied_whole_also_when_the_copy_is_cut_off_in_the_middle_of_it() {
    // Slow enough to be cut off several times.
    let mut pair = Pair::set_up(&plan().config("copy_rate = \"8M\""));
    let [at_a, at_b] = loopback_addresses();
    serves_volumes_at(&pair.a, at_a);
    serves_volumes_at(&pair.b, at_b);
    pair.serve();
    make_volume(&pair.a, "24M");
    // Blocks of the whole volume, each unlike the others; what is between them was never written.
    let block = |n: u64| vec![u8::try_from(n % 251).unwrap() + 1; 4096];
    let mut client = Nbd::open(at_a, EXPORT).unwrap();
    for n in (0..6 * 1024).filter(|n| n % 3 != 1) {
        client.write(n * 4096, &block(n)).unwrap();
    }
    client.flush().unwrap();
    pair.converges();
    let told = is_left_behind(&mut pair);
    pair.b.start();
    for _ in 0..4 {
        pair.b.incident("copying");
        pair.b.kill();
        pair.b.start();
    }
    // What is written while the copy goes on is in it, wherever it is.
    for n in (0..6 * 1024).step_by(64) {
        client.write(n * 4096, &block(n + 7)).unwrap();
    }
    client.flush().unwrap();
    let far =
        pair.b.status("to tell how far it is", |status| status["copy"]["equal"].as_u64() > Some(1 << 20));
    let (size, bytes) = (far["copy"]["size"].as_u64().unwrap(), far["copy"]["bytes"].as_u64().unwrap());
    assert!((16 << 20..40 << 20).contains(&size) && (1..size).contains(&bytes), "{far}");
    // Of the volume it has all already.
    assert_eq!(far["copy"]["way"], "digests");
    // Meanwhile the peer has nothing that counts.
    let status = pair.a.json(&["status"]);
    assert_eq!(status["at_risk"]["everything"], true, "{status}");
    assert_eq!(status["at_risk"]["entries"], status["positions"]["appended"], "{status}");
    // An operator lets it go faster.
    pair.a.done(&["resync", "--rate", "auto", "--watch"]);
    assert_eq!(pair.b.state(), "standby");
    pair.b.incident("whole");
    pair.a.status("to have a peer that counts", |status| status["at_risk"]["everything"] == false);
    takes_over_with_all(&mut pair, &told);
    let mut there = Nbd::open(at_b, EXPORT).unwrap();
    for n in 0..6 * 1024 {
        let wanted = match n {
            n if n % 64 == 0 => block(n + 7),
            n if n % 3 != 1 => block(n),
            _ => vec![0; 4096],
        };
        assert!(there.read(n * 4096, 4096).unwrap() == wanted, "block {n} differs");
    }
}

#[test]
fn a_volume_that_is_nearly_empty_is_copied_at_once_however_large_it_is() {
    let mut pair = Pair::set_up(&plan());
    let [at_a, at_b] = loopback_addresses();
    serves_volumes_at(&pair.a, at_a);
    serves_volumes_at(&pair.b, at_b);
    pair.serve();
    make_volume(&pair.a, "8T");
    let places = [0, 5 << 30, (1 << 40) - 4096, 3 << 40, (8 << 40) - 4096];
    let mut client = Nbd::open(at_a, EXPORT).unwrap();
    for place in places {
        client.write(place, &[7; 4096]).unwrap();
    }
    client.flush().unwrap();
    pair.converges();
    let told = is_left_behind(&mut pair);
    pair.b.start();
    pair.b.incident("whole");
    takes_over_with_all(&mut pair, &told);
    let mut there = Nbd::open(at_b, EXPORT).unwrap();
    for place in places {
        assert_eq!(there.read(place, 4096).unwrap(), [7; 4096], "at {place}");
        if place > 0 {
            assert_eq!(there.read(place - 4096, 4096).unwrap(), [0; 4096], "before {place}");
        }
    }
}
