//! The command as a user meets it: the built program, real nodes, exit codes, what is on stdout and what on stderr.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hot-backup"));
    command.env_remove("HOT_BACKUP_DIR").stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    program().args(args).output().expect("the program runs")
}

fn run_with_stdin(args: &[&str], input: &[u8]) -> Output {
    let mut child = program()
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "stdout: {}\nstderr: {}", stdout(output), stderr(output));
}

/// A node that is killed when the test ends.
struct Node {
    dir: PathBuf,
    process: Option<Child>,
}

impl Node {
    fn serve(dir: &Path) -> Self {
        let log = File::options().create(true).append(true).open(dir.with_extension("log")).unwrap();
        let process = program()
            .args(["serve", "--dir"])
            .arg(dir)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program runs");
        Self { dir: dir.to_owned(), process: Some(process) }
    }

    fn verb(&self, args: &[&str]) -> Output {
        program().args(args).arg("--dir").arg(&self.dir).output().expect("the program runs")
    }

    #[track_caller]
    fn done(&self, args: &[&str]) -> String {
        let output = self.verb(args);
        assert_code(&output, 0);
        stdout(&output)
    }

    #[track_caller]
    fn wait_until_checked(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self.verb(&["status", "--check"]);
            if output.status.success() {
                return;
            }
            let log = std::fs::read_to_string(self.dir.with_extension("log")).unwrap_or_default();
            let (out, err) = (stdout(&output), stderr(&output));
            assert!(Instant::now() < deadline, "not well in time\n{out}\n{err}\nlog:\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The set-up of a pair, exactly as the README gives it.
fn pair(root: &Path) -> (Node, Node) {
    // Held until all are found, so that they differ.
    let held: Vec<_> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let at: Vec<String> = held.iter().map(|l| l.local_addr().unwrap().to_string()).collect();
    drop(held);
    let (a, b) = (root.join("A"), root.join("B"));
    let dirs = [a.to_str().unwrap(), b.to_str().unwrap()];
    let init = |n: usize, name: &str, role: &str| {
        let (link, peer, resp) = (at[n].as_str(), at[1 - n].as_str(), at[n + 2].as_str());
        let args = ["--name", name, "--role", role, "--link-listen", link, "--peer", peer, "--resp", resp];
        assert_code(&run(&[&["init", "--dir", dirs[n]], args.as_slice()].concat()), 0);
    };
    init(0, "a", "master");
    init(1, "b", "standby");
    for n in [0, 1] {
        let identity = stdout(&run(&["identity", "--dir", dirs[1 - n]]));
        assert_code(&run(&["trust", "--dir", dirs[n], identity.trim()]), 0);
    }
    let pair = (Node::serve(&a), Node::serve(&b));
    pair.0.wait_until_checked();
    pair.1.wait_until_checked();
    pair
}

#[test]
fn wrong_usage_exits_with_2_and_says_so_on_stderr_under_our_name() {
    for args in [&["no-such-verb"][..], &["file", "create", "nocomma"], &["takeover", "--force"], &["start"]]
    {
        let output = run(args);
        assert_code(&output, 2);
        assert!(stdout(&output).is_empty(), "{args:?}: {}", stdout(&output));
        assert!(stderr(&output).lines().all(|line| line.starts_with("hot-backup:")), "{}", stderr(&output));
    }
}

#[test]
fn asked_for_nothing_it_shows_its_help_on_stderr_and_exits_with_2() {
    for args in [&[][..], &["account"]] {
        let output = run(args);
        assert_code(&output, 2);
        assert!(stdout(&output).is_empty());
        assert!(stderr(&output).contains("Usage:"), "{}", stderr(&output));
    }
}

#[test]
fn help_is_a_result_and_the_long_one_teaches_by_example() {
    for (args, needle) in [
        (&["--help"][..], "hot-backup takeover --dir B --peer-is-down"),
        (&["takeover", "--help"], "Two primaries at once"),
        (&["set-dptr", "--help"], "+LETTERS"),
        (&["set-dptr", "+L", "--help"], "+LETTERS"),
        (&["completions", "bash"], "complete -F"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
    ] {
        let output = run(args);
        assert_code(&output, 0);
        assert!(stdout(&output).contains(needle), "{args:?}: {}", stdout(&output));
        assert!(output.stderr.is_empty());
    }
    assert!(run(&["takeover", "-h"]).stdout.len() < run(&["takeover", "--help"]).stdout.len());
}

#[test]
fn without_a_node_a_verb_exits_with_2_and_says_what_to_do() {
    let temp = tempfile::tempdir().unwrap();
    let nowhere = temp.path().join("x");
    let nowhere = nowhere.to_str().unwrap();
    let output = run(&["status"]);
    assert_code(&output, 2);
    assert!(stderr(&output).contains("HOT_BACKUP_DIR"), "{}", stderr(&output));
    for args in [&["status"][..], &["item", "get", "app,x", "1"], &["serve"]] {
        let output = run(&[args, &["--dir", nowhere]].concat());
        assert_code(&output, 2);
        assert!(stderr(&output).contains("hot-backup: what to do: "), "{}", stderr(&output));
    }
    let json = run(&["status", "--json", "--dir", nowhere]);
    assert_code(&json, 2);
    let value: serde_json::Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!(value["answer"], "error");
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let mut child = program()
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    // Closed before anything can be written.
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""));
}

#[test]
fn a_pair_is_set_up_used_and_taken_over_by_the_commands_of_the_readme() {
    let temp = tempfile::tempdir().unwrap();
    let (mut a, b) = pair(temp.path());
    a.done(&["account", "create", "app"]);
    a.done(&["file", "create", "app,orders", "--records", "--flags", "L"]);
    a.done(&["item", "put", "app,orders", "1001", "hello"]);
    wait_for_item(&b, "1001", b"hello");

    let status: serde_json::Value = serde_json::from_str(&a.done(&["status", "--json"])).unwrap();
    assert_eq!((&status["name"], &status["role"]), (&"a".into(), &"primary".into()));
    for field in [
        "/ack_level /epoch /state /peer/name /peer/connected /peer/lag_entries /peer/lag_bytes /peer/lag_seconds",
        "/positions/appended /positions/durable /positions/received /positions/acked /positions/committed",
        "/positions/applied /journal/bytes /journal/quota_bytes /journal/oldest_seq",
        "/at_risk/entries /at_risk/bytes /at_risk/seconds",
    ]
    .iter()
    .flat_map(|fields| fields.split(' '))
    {
        assert!(status.pointer(field).is_some(), "{field} is missing: {status}");
    }
    assert!(a.done(&["status"]).starts_with("a: primary, serving"));
    let refused = b.verb(&["item", "put", "app,orders", "1002", "no"]);
    assert_code(&refused, 2);
    assert!(stderr(&refused).contains("write to the primary"), "{}", stderr(&refused));

    let unsaid = b.verb(&["takeover"]);
    assert_ne!(unsaid.status.code(), Some(0));
    assert!(stderr(&unsaid).contains("--peer-is-down"), "{}", stderr(&unsaid));
    a.kill();
    let tried = b.done(&["takeover", "--peer-is-down", "--dry-run"]);
    assert!(tried.starts_with("b would be primary"), "{tried}");
    let account: serde_json::Value =
        serde_json::from_str(&b.done(&["takeover", "--peer-is-down", "--json"])).unwrap();
    assert_eq!(account["name"], "b");
    b.done(&["item", "put", "app,orders", "1003", "on we go"]);
    assert_eq!(b.done(&["item", "get", "app,orders", "1001"]), "hello");
    assert!(b.done(&["incidents"]).contains("severity"));
}

#[track_caller]
fn wait_for_item(node: &Node, id: &str, value: &[u8]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = node.verb(&["item", "get", "app,orders", id]);
        if output.stdout == value {
            return;
        }
        assert!(Instant::now() < deadline, "item {id} did not arrive: {}", stderr(&output));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn definitions_are_listed_changed_and_deleted_with_the_right_exit_codes() {
    let temp = tempfile::tempdir().unwrap();
    let (a, _b) = pair(temp.path());
    a.done(&["account", "create", "app", "--flags", "L"]);
    a.done(&["file", "create", "app,orders"]);
    a.done(&["file", "create", "app,disk", "--blocks", "--size", "1M", "--flags", "T"]);
    let again = a.verb(&["account", "create", "app"]);
    assert_ne!(again.status.code(), Some(0));
    assert!(again.stdout.is_empty() && !again.stderr.is_empty());

    let listed = a.done(&["file", "list", "app"]);
    let line = |text: &str, name: &str| text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
    assert!(
        line(&listed, "app,orders").is_some_and(|l| l.contains("record") && l.contains("yes")),
        "{listed}"
    );
    assert!(line(&listed, "app,disk").is_some_and(|l| l.contains("1.0 MiB")), "{listed}");
    let shown = a.done(&["set-dptr", "-L", "app,orders", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown[0]["name"], &shown[0]["flags"]), (&"app,orders".into(), &"".into()));
    assert!(a.done(&["set-dptr", "-A", "app"]).contains("app"));
    a.done(&["set-dptr", "--ack", "durable", "app,orders"]);
    a.done(&["file", "rename", "app,orders", "sales"]);
    a.done(&["log", "all"]);
    a.done(&["log", "show", "--limit", "3"]);
    let missing = a.verb(&["file", "delete", "app,nothing"]);
    assert_ne!(missing.status.code(), Some(0));
    a.done(&["file", "delete", "app,sales", "--dry-run"]);
    assert!(a.done(&["file", "list"]).contains("app,sales"), "a dry run deletes nothing");
    a.done(&["account", "delete", "app"]);
    let left: serde_json::Value =
        serde_json::from_str(&a.done(&["file", "list", "app", "--json"])).unwrap_or_default();
    assert!(left.as_array().is_none_or(Vec::is_empty), "{left}");
}

/// A tree whose names are hard on a file system and on a key.
fn tree(root: &Path) -> PathBuf {
    let tree = root.join("tree");
    std::fs::create_dir_all(tree.join("deep/er")).unwrap();
    for (path, text) in [("a,b", "1"), ("deep/er/x", ""), ("deep/100%", "two\nlines"), ("größe", "ü")] {
        std::fs::write(tree.join(path), text).unwrap();
    }
    tree
}

#[test]
fn what_is_imported_is_exported_again_in_all_three_forms() {
    let temp = tempfile::tempdir().unwrap();
    let (a, _b) = pair(temp.path());
    a.done(&["account", "create", "app", "--flags", "L"]);
    for file in ["app,one", "app,two", "app,three", "app,four"] {
        a.done(&["file", "create", file]);
    }
    let path = |name: &str| temp.path().join(name).to_str().unwrap().to_owned();
    let tree = tree(temp.path());
    let told = a.done(&["item", "import", "app,one", tree.to_str().unwrap()]);
    assert!(told.starts_with("imported 4 items"), "{told}");
    // Ids that try to leave the directory, and one whose path another one needs as a directory.
    for id in ["../../escape", "/absolute", "deep", "deep/er"] {
        a.done(&["item", "put", "app,one", id, "x"]);
    }
    a.done(&["item", "export", "app,one", &path("out")]);
    a.done(&["item", "import", "app,two", &path("out")]);
    a.done(&["item", "export", "app,one", "--csv", &path("out.csv")]);
    a.done(&["item", "import", "app,three", &path("out.csv")]);
    a.done(&["item", "export", "app,one", "--jsonl", &path("out.jsonl")]);
    a.done(&["item", "import", "app,four", &path("out.jsonl")]);
    assert!(!temp.path().parent().unwrap().join("escape").exists());
    let all = |file: &str| {
        let text = a.done(&["item", "export", file, "--jsonl", "-"]);
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let first = all("app,one");
    assert_eq!(first.len(), 8);
    for file in ["app,two", "app,three", "app,four"] {
        assert_eq!(all(file), first, "{file}");
    }
    assert_eq!(a.done(&["item", "list", "app,one", "--match", "deep/*"]).lines().count(), 3);
    assert_eq!(a.done(&["item", "list", "app,one", "--limit", "2"]).lines().count(), 2);
}

#[test]
fn items_that_do_not_fit_are_left_out_told_and_make_the_exit_code_1() {
    let temp = tempfile::tempdir().unwrap();
    let (a, _b) = pair(temp.path());
    a.done(&["account", "create", "app"]);
    a.done(&["file", "create", "app,x"]);
    let dir = a.dir.to_str().unwrap();
    let input = format!("ok\tvalue\n{}\ttoo long\nno tab\n", "i".repeat(256));
    let output = run_with_stdin(&["item", "import", "app,x", "-", "--tab", "--dir", dir], input.as_bytes());
    assert_code(&output, 1);
    assert!(stdout(&output).starts_with("imported 1 item,"), "{}", stdout(&output));
    assert_eq!(stderr(&output).matches("left out: line").count(), 2, "{}", stderr(&output));

    let rows = b"no,name\n7,seven\n8,eight\n";
    let args = ["item", "import", "app,x", "-", "--from", "csv", "--id-column", "no", "--dir", dir];
    assert_code(&run_with_stdin(&args, rows), 0);
    assert_eq!(a.done(&["item", "get", "app,x", "7"]), r#"{"no":"7","name":"seven"}"#);
    assert_code(&run_with_stdin(&["item", "put", "app,x", "bin", "--dir", dir], b"\x00\xff\r\n"), 0);
    assert_eq!(a.verb(&["item", "get", "app,x", "bin"]).stdout, b"\x00\xff\r\n");

    assert_code(&a.verb(&["item", "get", "app,x", "none"]), 1);
    assert_code(&a.verb(&["item", "delete", "app,x", "7", "none"]), 1);
    assert_code(&a.verb(&["item", "delete", "app,x", "8"]), 0);
    assert_code(&a.verb(&["item", "get", "app,nofile", "1"]), 2);
}

#[test]
fn the_demo_accounts_for_every_update_also_when_some_are_lost() {
    let args = ["demo", "--json", "--level", "local", "--seconds", "4", "--freeze", "3", "--writers", "8"];
    let temp = tempfile::tempdir().unwrap();
    let output = program().args(args).env("TMPDIR", temp.path()).output().unwrap();
    assert_code(&output, 0);
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    let run = &report["runs"][0];
    let number = |name: &str| run["updates"][name].as_u64().unwrap();
    assert!(number("acknowledged") > 0);
    assert_eq!(number("kept") + number("missing"), number("acknowledged"));
    assert_eq!(number("acknowledged") + number("refused") + number("unanswered"), number("sent"));
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0, "the demo leaves nothing behind");
}

#[test]
fn the_demo_loses_nothing_at_level_durable() {
    let temp = tempfile::tempdir().unwrap();
    let args = ["demo", "--json", "--level", "durable", "--seconds", "1"];
    let output = program().args(args).env("TMPDIR", temp.path()).output().unwrap();
    assert_code(&output, 0);
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["runs"][0]["updates"]["missing"], 0);
    assert_eq!(report["ok"], true);
}

#[test]
fn tier_the_demo_shows_both_promises_in_less_than_a_minute() {
    crate::support::tier!();
    let temp = tempfile::tempdir().unwrap();
    let begin = Instant::now();
    let output = program().args(["demo", "--json"]).env("TMPDIR", temp.path()).output().unwrap();
    let took = begin.elapsed();
    assert_code(&output, 0);
    assert!(took < Duration::from_secs(60), "{took:?}");
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    let levels: Vec<_> = report["runs"].as_array().unwrap().iter().map(|run| &run["level"]).collect();
    assert_eq!(levels, ["local", "durable"]);
    assert_eq!(report["runs"][1]["updates"]["missing"], 0);
    assert_eq!(report["ok"], true);
}

#[test]
fn a_demo_that_is_interrupted_leaves_no_process_and_no_directory() {
    let temp = tempfile::tempdir().unwrap();
    let mut demo = program()
        .args(["demo", "--seconds", "60"])
        .env("TMPDIR", temp.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    while children_of(demo.id()).len() < 2 {
        assert!(Instant::now() < deadline, "the nodes of the demo did not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    let nodes = children_of(demo.id());
    let pid = nix::unistd::Pid::from_raw(i32::try_from(demo.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(130));
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
    // One that the demo had only just started ends with it, by the kernel.
    for node in nodes {
        while Path::new(&format!("/proc/{node}")).exists() {
            assert!(Instant::now() < deadline, "node process {node} is still there");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Node processes that a process started.
fn children_of(pid: u32) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let is_node = |child: &&str| {
        let line = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
        line.windows(7).any(|part| part == b"\0serve\0")
    };
    text.split_whitespace().filter(is_node).map(str::to_owned).collect()
}
