//! Tables of items that rot on the disk of a node: nothing wrong is ever served, and what was in them comes again from the
//! other node, wherever a kill comes between.

use crate::crash::injecting;
use crate::support::{Node, Pair, Plan, tier, wait_until};
use redis::Commands;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const ITEMS: usize = 3000;

fn id(n: usize) -> String {
    format!("app,orders,{n:05}")
}

fn value(n: usize) -> String {
    format!("value of {n} ").repeat(8)
}

/// A pair with items, all of them in tables on both nodes.
fn filled() -> Pair {
    let pair = Pair::start(&Plan::quick().config("checkpoint_ms = 100"));
    write_all(&pair);
    pair.converges();
    for node in [&pair.a, &pair.b] {
        node.has_applied_all();
        wait_until("all items to be in tables", || {
            let bytes: u64 =
                tables(node).iter().map(|path| path.metadata().map_or(0, |found| found.len())).sum();
            // One that the list does not name yet is no table: a kill takes it away.
            let written = |path: &Path| path.metadata().and_then(|found| found.modified()).ok();
            let named = written(&node.dir.join("store/tree/current")) >= written(&largest(node));
            (bytes > (ITEMS * value(9).len()) as u64 && named).then_some(())
        });
    }
    pair
}

/// Writes every item, all at once: each checkpoint between them makes a table, of which there may not be many while one
/// is rotten.
fn write_all(pair: &Pair) {
    let mut pipe = redis::pipe();
    (0..ITEMS).for_each(|n| {
        pipe.set(id(n), value(n)).ignore();
    });
    pipe.query::<()>(&mut pair.a.redis()).unwrap();
}

fn tables(node: &Node) -> Vec<PathBuf> {
    let found = std::fs::read_dir(node.dir.join("store/tree/tables")).unwrap();
    found.map(|entry| entry.unwrap().path()).collect()
}

fn largest(node: &Node) -> PathBuf {
    let bytes = |path: &PathBuf| path.metadata().map_or(0, |found| found.len());
    tables(node).into_iter().max_by_key(bytes).expect("there are tables")
}

/// Turns a bit in each of these parts of a thousand of the largest table.
fn rots(node: &Node, places: &[u64]) {
    rots_in(&largest(node), places);
}

fn rots_in(table: &Path, places: &[u64]) {
    let file = OpenOptions::new().read(true).write(true).open(table).unwrap();
    let len = file.metadata().unwrap().len();
    for place in places {
        let (mut byte, at) = ([0], len * place / 1000);
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 8], at).unwrap();
    }
    file.sync_all().unwrap();
}

/// Reads every item; what is answered is right. How many were refused.
fn refused(node: &Node) -> usize {
    let mut client = node.redis();
    (0..ITEMS)
        .filter(|n| match client.get::<_, Option<String>>(id(*n)) {
            Ok(found) => {
                assert_eq!(found.as_deref(), Some(&value(*n)[..]), "item {n}");
                false
            }
            Err(_) => true,
        })
        .count()
}

fn scrub(node: &Node) -> Option<i32> {
    node.verb(&["scrub", "--rate", "unlimited"]).status.code()
}

/// Waits until everything is read, and nothing is wrong on the disk.
fn is_whole(node: &Node) {
    wait_until("all items to be served", || (refused(node) == 0).then_some(()));
    wait_until("the disk to be right", || (scrub(node) == Some(0)).then_some(()));
}

#[test]
fn rot_of_tables_that_a_read_or_a_scrub_finds_comes_again_from_the_other_node() {
    for on_a in [false, true] {
        for by_scrub in [false, true] {
            let mut pair = filled();
            let node = if on_a { &mut pair.a } else { &mut pair.b };
            // What its caches hold is not rotten.
            node.kill();
            rots(node, &[200, 500, 800]);
            if on_a {
                node.start_alone()
            } else {
                node.start()
            }
            pair.connected();
            let node = if on_a { &pair.a } else { &pair.b };
            // A merge at the start may have met it before.
            if by_scrub {
                let _ = scrub(node);
            } else {
                let _ = refused(node);
            }
            node.incident("item-damaged");
            assert!(node.incident("healed").contains("app,orders"));
            is_whole(node);
            pair.converges();
            assert_eq!(pair.a.verb(&["compare", "--rate", "unlimited"]).status.code(), Some(0));
            assert!(!node.incidents().iter().any(|(kind, _)| kind == "both-damaged"));
        }
    }
}

#[test]
fn items_that_are_rotten_on_both_nodes_are_said_so_and_stay_refused() {
    let mut pair = filled();
    for node in [&mut pair.a, &mut pair.b] {
        node.kill();
        // Much of the data of every table, as the nodes may have cut the items into tables in different places.
        let large = |path: &PathBuf| path.metadata().is_ok_and(|found| found.len() > 32 << 10);
        for table in tables(node).into_iter().filter(large) {
            rots_in(&table, &(100..600).step_by(2).collect::<Vec<_>>());
        }
    }
    pair.a.start();
    pair.b.start();
    pair.a.serves();
    pair.connected();
    // What a scrub finds while the nodes are not together yet is asked for when the next one finds it.
    wait_until("both-damaged", || {
        let _ = scrub(&pair.b);
        let told = pair.b.incidents();
        told.iter().any(|(kind, text)| kind == "both-damaged" && text.contains("app,orders")).then_some(())
    });
    for node in [&pair.a, &pair.b] {
        assert!(refused(node) > 0);
    }
}

#[test]
fn tier_a_node_that_is_killed_at_any_step_while_items_are_healed_heals_them_after_it() {
    tier!("strace");
    let mut kills = 0;
    for on_a in [false, true] {
        let mut pair = filled();
        for call in ["fsync", "fdatasync", "renameat", "rename"] {
            for nth in (1..14).step_by(2) {
                let node = if on_a { &mut pair.a } else { &mut pair.b };
                node.kill();
                rots(node, &[150, 450, 700]);
                node.start_through(&injecting(call, "signal=KILL", nth));
                let _ = node.verb(&["scrub", "--rate", "unlimited"]);
                kills += usize::from(!node.runs());
                node.kill();
                if on_a {
                    node.start_alone()
                } else {
                    node.start()
                }
                let _ = refused(node);
                is_whole(node);
            }
        }
        pair.a.status("to serve", |status| status["state"] == "serving");
        pair.converges();
    }
    println!("{kills} kills");
    assert!(kills > 8, "{kills} kills");
}
