//! Whose files are changed, and whose are believed: real nodes in directories with files of others in them.

use crate::support::{Node, Plan, here, missing, shell};
use serde_json::Value;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A user that owns nothing here.
const OTHER: u32 = 65_534;
/// And one more.
const THIRD: u32 = 54_321;

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// Gives a tree to a user.
fn give(path: &Path, user: u32) {
    shell(&["chown", "-R", &format!("{user}:{user}"), path.to_str().unwrap()]);
}

/// The program, where every user can run it.
fn program_for_all(root: &Path) -> PathBuf {
    chmod(root, 0o755);
    let program = root.join("hot-backup");
    fs::copy(env!("CARGO_BIN_EXE_hot-backup"), &program).unwrap();
    chmod(&program, 0o755);
    program
}

/// Runs the program as another user.
fn run_as(user: u32, program: &Path, args: &[&str], dir: &Path) -> Output {
    let id = user.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(program).args(args);
    command.arg("--dir").arg(dir).env_remove("HOT_BACKUP_DIR").output().expect("setpriv runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_start_removes_what_the_node_itself_left_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let mut node = Node::alone(root.path().join("A"), &Plan::quick());
    let segments = node.dir.join("journal/replicated");
    let own = [
        node.dir.join(".control.hot-backup-tmp"),
        segments.join("00000000000000aa.old"),
        segments.join("00000000000000bb.seg.tmp"),
        node.dir.join("journal/local/00000000000000aa.old"),
    ];
    let foreign = [
        node.dir.join("config.toml.old"),
        node.dir.join("config.toml.tmp"),
        node.dir.join("incidents.jsonl.old"),
        node.dir.join("peers.new"),
        node.dir.join("notes.tmp"),
        segments.join("notes.old"),
        segments.join("aa.old"),
        segments.join("00000000000000aa.tmp"),
        node.dir.join("store/notes.old"),
        node.dir.join("diverged/notes.tmp"),
    ];
    own.iter().chain(&foreign).for_each(|path| fs::write(path, "mine").unwrap());
    node.start_alone();
    node.make_orders();
    node.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(node.ended().success());
    node.start_alone();
    for path in &own {
        assert!(!path.exists(), "{} is left", path.display());
    }
    for path in &foreign {
        assert_eq!(fs::read(path).ok().as_deref(), Some(&b"mine"[..]), "{}", path.display());
    }
}

#[test]
fn a_link_in_the_place_of_a_file_of_the_node_keeps_it_from_starting_and_is_not_followed() {
    let root = tempfile::tempdir().unwrap();
    let node = Node::alone(root.path().join("A"), &Plan::quick());
    let victim = root.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    for name in ["lock", "control", "config.toml", "peers", "identity.key"] {
        let (path, kept) = (node.dir.join(name), root.path().join("kept"));
        let was_there = fs::rename(&path, &kept).is_ok();
        symlink(&victim, &path).unwrap();
        let refused = node.verb(&["serve"]);
        assert_eq!(refused.status.code(), Some(2), "{name}: {}", said(&refused));
        assert!(said(&refused).contains(name), "{name}: {}", said(&refused));
        assert_eq!(fs::read(&victim).unwrap(), b"precious", "{name}");
        fs::remove_file(&path).unwrap();
        if was_there {
            fs::rename(&kept, &path).unwrap();
        }
    }
}

#[test]
fn an_export_goes_through_devices_pipes_and_links() {
    let root = tempfile::tempdir().unwrap();
    let mut node = Node::alone(root.path().join("A"), &Plan::quick());
    node.start_alone();
    node.make_orders();
    node.done(&["item", "put", "app,orders", "1", "one"]);
    let rows = "id,value\n1,one\n";
    assert_eq!(
        node.done(&["item", "export", "app,orders", "--csv", "/dev/stdout"]),
        rows,
        "and nothing else"
    );
    // As a shell redirects it.
    let out = root.path().join("out");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hot-backup"));
    command.args(["item", "export", "app,orders", "--csv", "/dev/stdout", "--dir"]).arg(&node.dir);
    assert!(command.stdout(File::create(&out).unwrap()).status().unwrap().success());
    assert_eq!(fs::read_to_string(&out).unwrap(), rows);
    node.done(&["item", "export", "app,orders", "--jsonl", "/dev/null"]);
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    let (link, target) = (root.path().join("link"), root.path().join("target"));
    symlink(&target, &link).unwrap();
    node.done(&["item", "export", "app,orders", "--csv", link.to_str().unwrap()]);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&target).unwrap(), rows);
    let pipe = root.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || {
            let mut text = String::new();
            File::open(pipe).unwrap().read_to_string(&mut text).map(|_| text).unwrap()
        }
    });
    node.done(&["item", "export", "app,orders", "--csv", pipe.to_str().unwrap()]);
    assert_eq!(reader.join().unwrap(), rows);
    assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
}

#[test]
fn a_directory_or_file_of_another_user_is_refused_by_every_command() {
    if missing(here!(), &["root", "setpriv"]) {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let program = program_for_all(root.path());
    let node = Node::alone(root.path().join("A"), &Plan::quick());
    let peer = Node::alone(root.path().join("P"), &Plan::quick());
    let identity = peer.done(&["identity"]);
    give(&node.dir, OTHER);
    for words in [&["serve"][..], &["trust", identity.trim()]] {
        let refused = node.verb(words);
        assert_eq!(refused.status.code(), Some(2), "{words:?}: {}", said(&refused));
        assert!(said(&refused).contains("belongs to user"), "{words:?}: {}", said(&refused));
        assert!(!node.dir.join("lock").exists(), "{words:?} left a file of root");
    }
    node.done(&["identity"]);
    let as_owner = |words: &[&str]| run_as(OTHER, &program, words, &node.dir);
    assert!(as_owner(&["identity"]).status.success(), "{}", said(&as_owner(&["identity"])));
    chmod(&node.dir, 0o755);
    let refused = run_as(THIRD, &program, &["identity"], &node.dir);
    assert!(said(&refused).contains("belongs to user 65534"), "{}", said(&refused));
    for name in ["config.toml", "identity.key", "identity.crt"] {
        let path = node.dir.join(name);
        chown(&path, Some(THIRD), Some(THIRD)).unwrap();
        for output in [as_owner(&["identity"]), node.verb(&["identity"])] {
            assert_eq!(output.status.code(), Some(2), "{name}");
            let told =
                ["belongs to user 54321", "ermission denied"].iter().any(|why| said(&output).contains(why));
            assert!(told, "{name}: {}", said(&output));
        }
        chown(&path, Some(OTHER), Some(OTHER)).unwrap();
    }
    let taken = root.path().join("taken");
    fs::create_dir(&taken).unwrap();
    give(&taken, OTHER);
    let args =
        ["init", "--name", "x", "--role", "primary", "--link-listen", "127.0.0.1:1", "--peer", "127.0.0.1:2"];
    let mut command = Command::new(&program);
    let refused = command.args(args).arg("--dir").arg(&taken).output().unwrap();
    assert!(said(&refused).contains("belongs to user"), "{}", said(&refused));
    assert_eq!(fs::read_dir(&taken).unwrap().count(), 0);
}

#[test]
fn the_admin_socket_asked_by_another_user_refuses_tells_and_counts() {
    if missing(here!(), &["root", "setpriv"]) {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let program = program_for_all(root.path());
    let mut node = Node::alone(root.path().join("A"), &Plan::quick());
    node.start_alone();
    let before = node.json(&["status"])["refused"].as_u64().unwrap();
    let ask = || run_as(OTHER, &program, &["status", "--json"], &node.dir);
    let kept_out = ask();
    assert_eq!(kept_out.status.code(), Some(2), "the directory is private: {}", said(&kept_out));
    assert_eq!(node.json(&["status"])["refused"], before, "who does not get in costs nothing");
    // An operator's mistake opens the way to it.
    chmod(&node.dir, 0o755);
    chmod(&node.dir.join("admin.sock"), 0o666);
    for _ in 0..3 {
        let refused = ask();
        assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
        let reply: Value = serde_json::from_slice(&refused.stdout).expect("one line of JSON");
        let message = reply["message"].as_str().unwrap();
        assert!(message.contains("user 65534 is not permitted"), "{message}");
    }
    node.status("to count them", |status| status["refused"].as_u64() == Some(before + 3));
    assert!(node.incident("admin-refused").contains("user 65534"), "{:?}", node.incidents());
}
