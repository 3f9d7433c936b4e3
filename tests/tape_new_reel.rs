//! A writer that is killed while it makes the image of a reel: at each of its calls, and its successor goes on.

use crate::crash::injecting;
use crate::support::{Node, Plan, noise, program, tier};
use redis::Commands;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// By way of another program, if one is named.
fn save(node: &Node, tape: &str, through: &[String], more: &[&str]) -> Output {
    let mut words: Vec<std::ffi::OsString> = through.iter().map(Into::into).collect();
    words.push(program().into());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(["save", "--to", tape, "--no-wait", "--reel-size", "1M"]).args(more);
    command.arg("--dir").arg(&node.dir).env_remove("HOT_BACKUP_DIR").stdin(Stdio::null()).output().unwrap()
}

fn reels(dir: &Path) -> Vec<Vec<u8>> {
    let path = |at: u32| dir.join(format!("reel-{at:03}.tap"));
    (1..).map(path).take_while(|path| path.exists()).map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn tier_no_kill_leaves_a_reel_without_its_label_and_the_next_save_goes_on() {
    tier!("strace");
    let temp = tempfile::tempdir().unwrap();
    let mut node = Node::alone(temp.path().join("A"), &Plan::quick());
    node.start_alone();
    node.make_orders();
    let mut client = node.redis();
    for at in 0..6 {
        let () = client.set(format!("app,orders,{at}"), noise(256 << 10, at)).unwrap();
    }
    let mut between = 0;
    for call in ["pwrite64", "fdatasync", "renameat2", "fsync"] {
        for nth in 1..8 {
            let dir = temp.path().join(format!("{call}-{nth}"));
            fs::create_dir(&dir).unwrap();
            let tape = format!("tape:{}", dir.join("reel-%03d.tap").display());
            let output = save(&node, &tape, &injecting(call, "signal=KILL", nth), &[]);
            let left = reels(&dir);
            // Each of them begins with a whole record: its label.
            let label = |reel: &Vec<u8>| {
                let len = u32::from_le_bytes(reel.first_chunk().copied()?) as usize;
                (reel.get(4 + len..8 + len)? == &reel[..4]).then_some(())
            };
            assert!(left.iter().all(|reel| label(reel).is_some()), "{call} {nth}: a reel without its label");
            if output.status.success() {
                break;
            }
            let unnamed = fs::read_dir(&dir).unwrap().filter(|entry| {
                entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".tap.hot-backup-tmp")
            });
            between += unnamed.count();
            // Its successor appends where a reel counts already, and begins where none does.
            let catalogue = dir.join("reel-catalogue.json");
            let known = fs::read(&catalogue).map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap());
            let any = known.is_ok_and(|known| known["sets"].as_array().is_some_and(|sets| !sets.is_empty()));
            let append = if any { &["--append"][..] } else { &[] };
            let again = save(&node, &tape, &[], append);
            assert!(again.status.success(), "{call} {nth}: {}", String::from_utf8_lossy(&again.stderr));
            let verified = Command::new(program()).args(["verify", &tape, "--no-wait"]).output().unwrap();
            assert!(verified.status.success(), "{call} {nth}: {}", String::from_utf8_lossy(&verified.stderr));
        }
    }
    assert!(between >= 3, "only {between} kills came between an image and its label");
}
