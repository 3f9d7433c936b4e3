//! The test update on real disks that hang: the one of the node that is to blame is named, and that it is well again.

use crate::support::{Disk, Node, Pair, Plan, tier, wait_until};
use serde_json::Value;

/// Waits until the late test update that waited in this part is told to be over.
#[track_caller]
fn is_over(node: &Node, part: &str) {
    wait_until(&format!("the end of what waited in {part}"), || {
        let records = node.json(&["incidents", "list", "--limit", "1000"]);
        let over = |record: &Value| {
            record["code"] == "canary-late"
                && record["ended_ms"].is_u64()
                && record["what"].as_str().is_some_and(|what| what.contains(part))
        };
        records.as_array()?.iter().any(over).then_some(())
    });
}

#[test]
fn tier_a_disk_that_hangs_on_either_node_is_named_by_the_test_update() {
    tier!("root", "losetup", "mkfs.ext4", "fsfreeze");
    let disks = [Disk::new(256), Disk::new(256)];
    let plan = Plan::quick().config("canary_seconds = 1").config("canary_late_ms = 1000");
    let dirs = [disks[0].path().join("A"), disks[1].path().join("B")];
    let root = tempfile::tempdir().unwrap();
    let mut pair = Pair::set_up_in(root, dirs, &plan.config("peer_timeout_ms = 60000"));
    pair.serve();
    pair.a.status("to have had a test update back", |status| {
        status["health"]["canary"]["arrived"].as_u64() > Some(0)
    });
    for (disk, part) in [(&disks[1], "(peer-disk)"), (&disks[0], "(disk)")] {
        let frozen = disk.freeze();
        // What a node tells of is on its disk too, so the status is asked.
        let status = pair.a.status("to name the part", |status| {
            status["health"]["canary"]["late"] == true
                && format!("({})", status["health"]["canary"]["at"].as_str().unwrap_or_default()) == part
        });
        let told = status["troubles"].as_array().unwrap().iter().find(|one| one["kind"] == "canary-late");
        assert!(told.unwrap()["text"].as_str().unwrap().contains(part), "{status}");
        drop(frozen);
        is_over(&pair.a, part);
    }
    pair.converges();
}
