//! What both nodes hold is compared while users write, and repaired; what is rotten on one node comes again from the other.

use crate::support::{EXPORT, Load, Nbd, Node, Plan, Shape, Volumes, serves_volumes_at, tier, wait_until};
use hot_backup::base::{FileId, Ordinal};
use hot_backup::format::chunk::{Chunk, Content};
use hot_backup::store::tree_store::{StoreWriter, TreeStore};
use hot_backup::store::{CompareTarget as _, StoreWrite as _};
use serde_json::Value;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Instant;

const BLOCKS: u64 = 64;

fn block(n: u64) -> Vec<u8> {
    vec![u8::try_from(n % 251).unwrap() + 1; 4096]
}

/// A pair with items and a volume, on which nothing is under way.
fn filled(plan: &Plan) -> Volumes {
    let volumes = Volumes::start(plan, "16M");
    Load::start(&volumes.pair.a.door, Shape { most: 200, ..Shape::default() }).run_to_the_end();
    let mut client = Nbd::open(volumes.at[0], EXPORT).unwrap();
    for n in 0..BLOCKS {
        client.write(n * 4096, &block(n)).unwrap();
    }
    client.flush().unwrap();
    volumes.pair.converges();
    // What a test then changes in a file is not written over.
    volumes.pair.a.has_applied_all();
    volumes.pair.b.has_applied_all();
    volumes
}

/// Says `compare` on a node; gives the exit code and what is told.
fn compare(node: &Node, args: &[&str]) -> (Option<i32>, Value) {
    let args = [&["compare", "--rate", "unlimited", "--json"], args].concat();
    let output = node.verb(&args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), serde_json::from_str(&text).unwrap_or_else(|_| panic!("{output:?}")))
}

/// Changes the store of a node that does not run, by the store's own means: no checksum tells of it.
fn behind_its_back(node: &Node, change: impl FnOnce(&mut StoreWriter, &dyn Fn(&str) -> FileId)) {
    behind_the_back_of((node, Ordinal(1)), change);
}

/// The same of a node with this ordinal.
pub(crate) fn behind_the_back_of(
    (node, ordinal): (&Node, Ordinal),
    change: impl FnOnce(&mut StoreWriter, &dyn Fn(&str) -> FileId),
) {
    let (store, volumes) = (node.dir.join("store"), node.dir.join("volumes"));
    let mut opened = TreeStore::open(&store, &volumes, ordinal).unwrap();
    let namespace = opened.namespace.clone();
    let file = |name: &str| namespace.files().find(|(_, info)| info.key == name).unwrap().0;
    change(&mut opened.writer, &file);
    opened.writer.checkpoint().unwrap();
}

/// Puts an item into the store of a node that does not run.
pub(crate) fn plant(node: &Node, name: &str, id: &'static str, value: &'static str) {
    behind_its_back(node, |writer, file| {
        let items = vec![(id.into(), value.into())];
        put(
            writer,
            file(name),
            Content::Items { after: id[..id.len() - 1].into(), through: id.into(), items },
        );
    });
}

pub(crate) fn put(writer: &mut StoreWriter, file: FileId, content: Content) {
    let at = writer.shown();
    writer.repair(&Chunk { id: 0, file, at, until: at, content, ends: false }).unwrap();
}

#[test]
fn a_pair_under_load_is_equal_whichever_node_is_asked_and_the_certificate_outlives_both() {
    let mut volumes = filled(&Plan::quick());
    let load = Load::start(&volumes.pair.a.door, Shape { first: 10, ..Shape::default() });
    for round in 0..3 {
        for on_a in [true, false] {
            let node = if on_a { &volumes.pair.a } else { &volumes.pair.b };
            let (code, end) = compare(node, &[]);
            assert_eq!(code, Some(0), "round {round}, on the primary: {on_a}: {end}");
            assert!(end["items"].as_u64() > Some(64) && end["from"].as_u64() > Some(0), "{end}");
            assert_eq!(
                (&end["differing"], &end["passed"], &end["unread"]),
                (&0.into(), &0.into(), &0.into())
            );
        }
        load.goes_on(1);
    }
    load.finish();
    volumes.pair.converges();
    let (_, first) = compare(&volumes.pair.a, &[]);
    let (_, second) = compare(&volumes.pair.b, &["app"]);
    assert_eq!(second["what"], "app");
    let text = volumes.pair.b.done(&["status"]);
    assert!(text.contains("compare") && text.contains("equal on both nodes"), "{text}");
    volumes.pair.b.kill();
    volumes.pair.b.start();
    let kept =
        volumes.pair.b.status("to know of it", |status| status["compare"]["began_ms"].as_u64() > Some(0));
    assert_eq!(kept["compare"]["digest"], second["digest"]);
    assert_eq!(volumes.pair.a.json(&["status"])["compare"]["digest"], second["digest"]);
    assert_ne!(first["digest"], second["digest"], "the definitions were not compared");
}

#[test]
fn a_listing_leaves_the_certificate_and_the_status_of_the_last_compare_on_both_nodes_and_over_a_restart() {
    let mut volumes = filled(&Plan::quick());
    let (code, end) = compare(&volumes.pair.a, &[]);
    assert_eq!(code, Some(0), "{end}");
    let told = |node: &Node| {
        let view = &node.json(&["status"])["compare"];
        ["what", "digest", "ended_ms", "items", "running"].map(|key| view[key].clone())
    };
    for node in [&volumes.pair.a, &volumes.pair.b] {
        node.status("to have kept it", |status| status["compare"]["running"] == false);
    }
    let before = told(&volumes.pair.b);
    assert_eq!((&before[0], &before[1], &before[4]), (&"everything".into(), &end["digest"], &false.into()));
    for node in [&volumes.pair.a, &volumes.pair.b] {
        let output = node.verb(&["compare", "--query", "KEYS app,orders,*", "--json"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(listed["what"], "the listing KEYS app,orders,*");
        assert_eq!((told(&volumes.pair.a), told(&volumes.pair.b)), (before.clone(), before.clone()));
    }
    volumes.pair.b.kill();
    volumes.pair.b.start();
    volumes.pair.b.status("to know of it", |status| status["compare"]["began_ms"].as_u64() > Some(0));
    assert_eq!(told(&volumes.pair.b), before);
}

#[test]
fn what_was_changed_behind_a_standbys_back_is_named_to_the_item_and_the_block_and_repaired() {
    let mut volumes = filled(&Plan::quick());
    volumes.pair.b.signal(nix::sys::signal::Signal::SIGTERM);
    volumes.pair.b.ended();
    let ids: Vec<Vec<u8>> = crate::support::items(&volumes.pair.a.door, "app,orders,").into_keys().collect();
    let id = |n: usize| String::from_utf8(ids[n].clone()).unwrap().split(',').next_back().unwrap().to_owned();
    let (changed, missing) = (id(3), id(9));
    behind_its_back(&volumes.pair.b, |writer, file| {
        let items = |after: String, id: &String, value: Option<&str>| Content::Items {
            after: after.into(),
            through: id.clone().into(),
            items: value.map(|value| (id.clone().into(), value.to_owned().into())).into_iter().collect(),
        };
        put(writer, file("app,orders"), items(id(2), &changed, Some("other")));
        put(writer, file("app,orders"), items(id(8), &missing, None));
        put(writer, file("app,orders"), items("zzz".to_owned(), &"zzzz".to_owned(), Some("more")));
        let runs = vec![(5 * 4096, vec![0xEE; 4096].into())];
        put(writer, file("app,disk1"), Content::Blocks { offset: 5 * 4096, len: 4096, runs });
    });
    volumes.pair.b.start();
    volumes.pair.connected();
    let load = Load::start(&volumes.pair.a.door, Shape { first: 10, ..Shape::default() });
    let wanted = [
        ("app,disk1", "bytes 20480 to 24575", "changed"),
        ("app,orders", changed.as_str(), "changed"),
        ("app,orders", missing.as_str(), "primary-only"),
        ("app,orders", "zzzz", "standby-only"),
    ];
    for args in [&[][..], &["--repair", "--dry-run"], &["--repair"]] {
        let node = if args.len() == 1 { &volumes.pair.a } else { &volumes.pair.b };
        let (code, end) = compare(node, args);
        assert_eq!(code, Some(1), "{args:?}: {end}");
        let mut named: Vec<_> = end["differences"].as_array().unwrap().iter().collect();
        named.sort_by_key(|found| (found["file"].as_str(), found["part"].as_str()));
        let named: Vec<_> = named
            .iter()
            .map(|found| ["file", "part", "how"].map(|key| found[key].as_str().unwrap()))
            .map(|[file, part, how]| (file, part, how))
            .collect();
        assert_eq!(named, wanted, "{args:?}: {end}");
        assert_eq!(end["repaired"], if args.len() == 1 { 4 } else { 0 }, "{end}");
    }
    assert!(volumes.pair.b.incident("nodes-differ").contains("app,"));
    volumes.pair.b.incident("repaired");
    load.finish();
    let (code, end) = compare(&volumes.pair.b, &[]);
    assert_eq!(code, Some(0), "{end}");
    volumes.pair.converges();
    let mut there = Nbd::open(volumes.at[1], EXPORT).unwrap();
    assert_eq!(there.read(5 * 4096, 4096).unwrap(), block(5));
    // What was repaired is on the disk.
    volumes.pair.b.kill();
    volumes.pair.b.start();
    volumes.pair.b.status("to follow", |status| status["peer"]["connected"] == true);
    volumes.pair.connected();
    let (code, end) = compare(&volumes.pair.b, &[]);
    assert_eq!(code, Some(0), "{end}");
}

/// The data of a node's volume.
fn data(node: &Node) -> PathBuf {
    let files = std::fs::read_dir(node.dir.join("volumes")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|path| path.extension().is_some()).collect();
    files.sort();
    files.remove(0)
}

fn rot(node: &Node, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(data(node)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 8], at).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn rot_that_a_scrub_or_a_read_finds_comes_again_from_the_other_node() {
    for on_a in [false, true] {
        let volumes = filled(&Plan::quick());
        let (node, at) =
            if on_a { (&volumes.pair.a, volumes.at[0]) } else { (&volumes.pair.b, volumes.at[1]) };
        // Two found by a scrub, one by a read.
        for n in [3, 4, 40] {
            rot(node, n * 4096 + 100);
        }
        let mut client = Nbd::open(at, EXPORT).unwrap();
        let first = client.read(40 * 4096, 4096);
        assert!(first.is_err(), "it is served rotten, or was healed before anybody looked");
        node.incident("healed");
        node.verb(&["scrub", "--rate", "unlimited"]);
        wait_until("all to be healed", || {
            let healed = node.incidents().into_iter().filter(|(kind, _)| kind == "healed").count();
            (healed >= 2).then_some(())
        });
        node.incident("volume-whole");
        let mut client = Nbd::open(at, EXPORT).unwrap();
        for n in 0..BLOCKS {
            assert_eq!(client.read(n * 4096, 4096).unwrap(), block(n), "block {n}, on the primary: {on_a}");
        }
        let scrub = node.verb(&["scrub", "--rate", "unlimited"]);
        assert_eq!(scrub.status.code(), Some(0), "{scrub:?}");
        assert_eq!(compare(&volumes.pair.a, &[]).0, Some(0));
    }
}

#[test]
fn what_is_rotten_on_both_nodes_is_said_so_and_stays_refused() {
    let volumes = filled(&Plan::quick());
    for node in [&volumes.pair.a, &volumes.pair.b] {
        rot(node, 7 * 4096 + 9);
    }
    let mut client = Nbd::open(volumes.at[1], EXPORT).unwrap();
    assert!(client.read(7 * 4096, 4096).is_err());
    let told = volumes.pair.b.incident("both-damaged");
    assert!(told.contains("bytes 28672 to 32767"), "{told}");
    let mut client = Nbd::open(volumes.at[0], EXPORT).unwrap();
    assert!(client.read(7 * 4096, 4096).is_err());
    // Written anew, it is whole on both.
    client = Nbd::open(volumes.at[0], EXPORT).unwrap();
    client.write(7 * 4096, &block(9)).unwrap();
    client.flush().unwrap();
    volumes.pair.converges();
    let mut there = Nbd::open(volumes.at[1], EXPORT).unwrap();
    assert_eq!(there.read(7 * 4096, 4096).unwrap(), block(9));
}

#[test]
fn a_new_standby_is_given_a_copy_although_a_block_is_rotten_and_neither_node_gives_that_out() {
    let plan = crate::full_sync::plan();
    let mut volumes = filled(&plan);
    crate::full_sync::is_left_behind(&mut volumes.pair);
    for n in [7, 8, 40] {
        rot(&volumes.pair.a, n * 4096 + 9);
    }
    let new = crate::full_sync::in_place_of(&volumes.pair.b, &volumes.pair.a, &plan);
    let lost = std::mem::replace(&mut volumes.pair.b, new);
    serves_volumes_at(&volumes.pair.b, volumes.at[1]);
    volumes.pair.b.start();
    volumes.pair.b.incident("whole");
    volumes.pair.b.status("to stand by", |status| status["state"] == "standby");
    for node in [&volumes.pair.a, &volumes.pair.b] {
        node.incident("volume-damaged");
        node.incident("both-damaged");
    }
    for at in volumes.at {
        let mut client = Nbd::open(at, EXPORT).unwrap();
        for n in 0..BLOCKS {
            match client.read(n * 4096, 4096) {
                Ok(found) => assert!(found == block(n) && ![7, 8, 40].contains(&n), "block {n}"),
                Err(error) => {
                    assert!([7, 8, 40].contains(&n), "block {n}: {error}");
                    client = Nbd::open(at, EXPORT).unwrap();
                }
            }
        }
    }
    // Written anew, they are whole on both.
    let mut client = Nbd::open(volumes.at[0], EXPORT).unwrap();
    for n in [7, 8, 40] {
        client.write(n * 4096, &block(n)).unwrap();
    }
    client.flush().unwrap();
    volumes.pair.converges();
    for at in volumes.at {
        assert_eq!(Nbd::open(at, EXPORT).unwrap().read(40 * 4096, 4096).unwrap(), block(40));
    }
    assert_eq!(compare(&volumes.pair.a, &[]).0, Some(0));
    drop(lost);
}

#[test]
fn a_compare_that_cannot_be_made_is_refused_with_what_to_do() {
    let mut volumes = filled(&Plan::quick());
    let said = |node: &Node, args: &[&str]| {
        let output = node.verb(&[&["compare"], args].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = said(&volumes.pair.b, &["app,nothing"]);
    assert!(code == Some(1) && text.contains("no account or file app,nothing"), "{text}");
    let (code, text) = said(&volumes.pair.a, &["app,nothing"]);
    assert!(code == Some(1) && text.contains("no account or file app,nothing"), "{text}");
    let (code, text) = said(&volumes.pair.a, &["--stop"]);
    assert!(code == Some(1) && text.contains("none is under way"), "{text}");
    // One that is cut off says so.
    volumes.pair.a.done(&["compare", "--rate", "4096", "--background"]);
    volumes.pair.b.kill();
    volumes.pair.a.status("to have noticed", |status| {
        status["compare"]["why"].as_str().is_some_and(|why| why.contains("cut off"))
    });
    let (code, text) = said(&volumes.pair.a, &[]);
    assert!(code == Some(1) && text.contains("does not follow"), "{text}");
}

/// How fast a compare is beside a plain read of the same bytes, what it sends, and what it takes of memory.
#[test]
fn tier_a_compare_is_measured_beside_a_read_of_the_same_bytes() {
    tier!();
    let volumes = Volumes::start(&Plan::quick().segments("16M"), "256M");
    let mut client = Nbd::open(volumes.at[0], EXPORT).unwrap();
    for n in 0..256_u64 {
        let bytes: Vec<u8> =
            (0..1 << 20).map(|k: u64| u8::try_from((k * 31 + n * 7 + (k >> 9)) % 251).unwrap()).collect();
        client.write(n << 20, &bytes).unwrap();
    }
    client.flush().unwrap();
    Load::start(&volumes.pair.a.door, Shape { most: 60_000, value: 1000, ..Shape::default() })
        .run_to_the_end();
    volumes.pair.converges();
    volumes.pair.b.has_applied_all();
    for round in 0..2 {
        let began = Instant::now();
        let (code, end) = compare(&volumes.pair.b, &[]);
        let took = began.elapsed().as_secs_f64();
        assert_eq!(code, Some(0), "{end}");
        let bytes = end["bytes"].as_u64().unwrap();
        let began = Instant::now();
        let mut read = 0;
        for node in [&volumes.pair.a, &volumes.pair.b] {
            read += std::fs::read(data(node)).unwrap().len();
        }
        let plain = began.elapsed().as_secs_f64();
        let rate = |bytes: f64, seconds: f64| bytes / seconds / f64::from(1 << 20);
        #[allow(clippy::cast_precision_loss, reason = "for people to read")]
        let (compared, plain) = (rate(2.0 * bytes as f64, took), rate(read as f64, plain));
        let memory = [&volumes.pair.a, &volumes.pair.b].map(|node| node.memory() >> 20);
        println!(
            "round {round}: compared {compared:.0} MiB/s of both nodes, read {plain:.0} MiB/s; memory {memory:?} MiB; {end}"
        );
        assert!(memory.iter().all(|memory| *memory < 256), "{memory:?}");
    }
}
