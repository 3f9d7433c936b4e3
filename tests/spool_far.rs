//! The spool of a node on the disk of another machine: an outage goes there over a wire that is cut, and comes back from there,
//! in order, each entry once, and without a copy of everything.

use crate::spool::{comes_back, parts, parts_below, plan};
use crate::support::{Load, Node, Pair, Shape, Told, loopback_addresses, tier, wait_until};
use crate::tape_socket::{Fate, Listener, SMALL, Wire, listener, refused, said};
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A pair with a small journal, whose standby's machine keeps the spool of the primary. The standby is away.
struct Stage {
    pair: Pair,
    temp: tempfile::TempDir,
    listens: SocketAddr,
}

/// Four writers of so many updates each. A part of the spool holds 45 of them.
fn load(node: &Node, most: usize) -> Load {
    Load::start(&node.door, Shape { first: 10, value: 1000, most, ..Shape::default() })
}

impl Stage {
    /// `place` names the spool, of the address of the listener.
    fn new(lines: &[&str], place: impl FnOnce(SocketAddr) -> SocketAddr) -> (Self, Listener) {
        let (mut pair, temp) = (Pair::set_up(&plan()), tempfile::tempdir().unwrap());
        fs::create_dir(temp.path().join("far")).unwrap();
        let [listens] = loopback_addresses();
        let there = listen(&pair.b, &temp, listens);
        pair.a.configure(&[format!("spool = \"tcp:{}\"", place(listens))]);
        pair.a.configure(lines);
        pair.serve();
        pair.b.kill();
        (Self { pair, temp, listens }, there)
    }

    fn parts(&self) -> Vec<PathBuf> {
        parts_below(&self.temp.path().join("far"))
    }

    /// The standby comes back, gets all of it from there, and there it is let go.
    fn comes_back(&mut self, told: &[Told]) {
        let files = || parts_below(&self.temp.path().join("far"));
        comes_back(&mut self.pair, files, told);
        for node in [&self.pair.a, &self.pair.b] {
            assert!(node.incidents().into_iter().all(|(kind, _)| kind != "spool-damaged"));
        }
    }
}

fn listen(node: &Node, temp: &tempfile::TempDir, address: SocketAddr) -> Listener {
    let place = format!("dir:{}", temp.path().join("far").display());
    listener(temp.path(), address, &place, &["--dir", node.dir.to_str().unwrap()])
}

#[test]
fn an_outage_goes_to_another_machine_over_a_wire_that_is_cut_and_comes_back_from_there() {
    let mut wire = None;
    // The list, then part after part; each is cut somewhere else, and goes on over the next connection.
    let fates = [1 << 30, 30_000, 1 << 30, 1500, 60_000, 0, 1 << 30].map(Fate::Cut);
    let fates = [&fates[..], &[Fate::CutBack(1000), Fate::CutBack(3000)]].concat();
    let (mut stage, _there) = Stage::new(&[], |to| wire.insert(Wire::start(to, &fates)).address);
    let load = load(&stage.pair.a, 600);
    let wire = wire.unwrap();
    wait_until("the wire to have been cut at each place", || (wire.left() == 0).then_some(()));
    stage.pair.a.status("to fill its spool", |status| parts(status) >= 12);
    let told = load.run_to_the_end();
    let status = stage.pair.a.status("to rest", |status| status["spool"]["state"] == "holding");
    assert!(status["spool"]["place"].as_str().unwrap().starts_with("tcp:"), "{status}");
    // The same is there and here, and all of it is what was written.
    wait_until("the parts that are listed to be those that are there", || {
        let listed = stage.pair.a.json(&["spool", "list"]);
        let names: Vec<&str> =
            listed.as_array().unwrap().iter().map(|part| part["name"].as_str().unwrap()).collect();
        let parts = stage.parts();
        let there: Vec<&str> = parts.iter().map(|part| part.file_name().unwrap().to_str().unwrap()).collect();
        (names == there).then_some(())
    });
    let verified = stage.pair.a.verb(&["spool", "verify", "--at", &format!("tcp:{}", stage.listens)]);
    assert_eq!(verified.status.code(), Some(0), "{}", said(&verified));
    // Damage is named with the entries that cannot be read.
    let spoilt = stage.parts().pop().unwrap();
    let good = fs::read(&spoilt).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    fs::write(&spoilt, &bad).unwrap();
    let verified = stage.pair.a.verb(&["spool", "verify"]);
    let out = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(verified.status.code() == Some(1) && out.contains("cannot be read"), "{out}");
    fs::write(&spoilt, &good).unwrap();
    stage.comes_back(&told);
}

#[test]
fn tier_a_listener_that_is_killed_is_told_of_and_what_it_had_counts_when_it_is_back() {
    tier!();
    let (mut stage, mut there) = Stage::new(&["spool_full = \"alarm\""], |to| to);
    let load = load(&stage.pair.a, 1000);
    stage.pair.a.status("to spool", |status| parts(status) >= 4);
    there.kill();
    let text = stage.pair.a.incident("spool-failed");
    assert!(text.contains("tcp:") && text.contains("stay in the journal"), "{text}");
    let before = parts(&stage.pair.a.json(&["status"]));
    assert!(before >= 4, "what counts stays counted");
    let there = listen(&stage.pair.b, &stage.temp, stage.listens);
    stage.pair.a.incident("spool-back");
    stage.pair.a.status("to spool more", |status| parts(status) >= before + 4);
    // A primary that was killed knows what is there when it starts.
    stage.pair.a.kill();
    let told = load.finish();
    stage.pair.a.start();
    let knows = |status: &Value| status["spool"]["parts"].as_u64() >= Some(before + 4);
    stage.pair.a.status("to know its spool", knows);
    stage.comes_back(&told);
    drop(there);
}

#[test]
fn a_machine_that_takes_no_spool_is_refused_by_name_and_nothing_is_changed() {
    let (stage, there) = Stage::new(&[], |to| to);
    let start = |to: &str| stage.pair.a.verb(&["spool", "start", "--to", to]);
    for bad in ["tcp:host", "tcp::7", "tcp:host:0"] {
        let output = start(bad);
        assert!(
            !output.status.success() && said(&output).contains("is no place for a spool"),
            "{}",
            said(&output)
        );
    }
    let [nobody] = loopback_addresses();
    refused(&start(&format!("tcp:{nobody}")), &["starting a spool", "connecting to", "tape-socket listen"]);
    let reels = format!("tape:{}", stage.temp.path().join("reel-%03d.tap").display());
    let dir = stage.pair.b.dir.to_str().unwrap();
    let drive = listener(stage.temp.path(), nobody, &reels, &[&SMALL[..], &["--dir", dir]].concat());
    refused(&start(&format!("tcp:{nobody}")), &["keeps no spool that a node reads back", "--to dir:PATH"]);
    assert_eq!(
        stage.pair.a.json(&["status"])["spool"]["place"],
        format!("tcp:{}", stage.listens),
        "it is what it was"
    );
    drop((drive, there));
}
