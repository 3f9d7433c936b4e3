//! The socket of `admin_group`, by real users: members look, and change nothing; others get no answer; who tried is noted.

use crate::support::{Node, Plan, program, shell, tier, wait_until};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// A group that every Debian has; its number is looked up.
const GROUP: &str = "users";
/// Users without a name.
const MEMBER: &str = "64001";
const STRANGER: &str = "64002";

fn as_user(user: &str, groups: &str, args: &[&str], socket: &Path) -> Output {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", user, groups]).arg(program()).args(args);
    command.arg("--dir").arg(socket).env_remove("HOT_BACKUP_DIR").output().expect("setpriv runs")
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn tier_members_of_the_group_look_and_change_nothing_and_strangers_are_turned_away() {
    tier!("root", "setpriv", "getent");
    let entry = shell(&["getent", "group", GROUP]);
    let groups = format!("--groups=4,{}", entry.split(':').nth(2).unwrap());
    // A directory that others can reach; the node's own is not.
    let temp = tempfile::tempdir().unwrap();
    shell(&["chmod", "755", temp.path().to_str().unwrap()]);
    let socket = temp.path().join("look.sock");
    let home = tempfile::tempdir().unwrap();
    let mut node = Node::alone(home.path().join("A"), &Plan::quick());
    let key = format!("admin_group_socket = \"{}\"", socket.display());
    node.configure(&[key, format!("admin_group = \"{GROUP}\"")]);
    node.start_alone();
    wait_until("the socket", || socket.exists().then_some(()));
    let member = |args: &[&str]| as_user(MEMBER, &groups, args, &socket);
    let seen = member(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&seen.stdout).unwrap_or_else(|_| panic!("{}", err(&seen)));
    assert_eq!((&status["name"], &status["state"]), (&"a".into(), &"serving".into()));
    for looks in
        [&["stats"][..], &["queue"], &["account", "list"], &["incidents"], &["switchover", "--dry-run"]]
    {
        assert!(!err(&member(looks)).contains("may only look"), "{looks:?}");
    }
    for (changes, verb) in [
        (&["account", "create", "app"][..], "account-create"),
        (&["log", "pause"], "logging"),
        (&["takeover", "--peer-is-down"], "takeover"),
        (&["save", "--to", "-"], "save"),
    ] {
        let refused = member(changes);
        let told = err(&refused);
        assert!(!refused.status.success(), "{changes:?}: {told}");
        let who = format!("user {MEMBER} may only look");
        assert!(told.contains(&who) && told.contains(&format!("and {verb} changes")), "{changes:?}: {told}");
    }
    assert!(!node.done(&["account", "list"]).contains("app"), "it was refused");
    let stranger = as_user(STRANGER, "--clear-groups", &["status"], &socket);
    assert_eq!(stranger.status.code(), Some(2));
    assert!(err(&stranger).contains("not permitted"), "{}", err(&stranger));
    // By the same socket root may do anything; all who tried are noted.
    let created =
        Command::new(program()).args(["account", "create", "app", "--dir"]).arg(&socket).output().unwrap();
    assert!(created.status.success(), "{}", err(&created));
    let audited = node.json(&["audit"]);
    let lines = audited.as_array().unwrap().iter();
    let of = |uid: u64, answer: &str| {
        let one = |line: &&Value| line["uid"] == uid && line["answer"] == answer;
        lines.clone().filter(one).count()
    };
    // Of root the start of the node, and this account.
    assert_eq!((of(64_001, "error"), of(0, "ok")), (4, 2), "{audited}");
    node.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(node.ended().success());
    assert!(!socket.exists());
}
