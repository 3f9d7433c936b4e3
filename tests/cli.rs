//! The command as a user meets it: the built program, real nodes, exit codes, what is on stdout and what on stderr.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
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

/// The same for what should end by itself, and does not if it is at fault.
#[track_caller]
fn run_to_its_end(args: &[&str]) -> Output {
    let mut child =
        program().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() >= deadline {
            let _ = child.kill();
            panic!("{args:?} does not end: {}", stderr(&child.wait_with_output().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
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
fn the_demo_of_reels_brings_back_each_update_from_them() {
    let temp = tempfile::tempdir().unwrap();
    let args = ["demo", "--tape", "--json", "--seconds", "2"];
    let output = program().args(args).env("TMPDIR", temp.path()).output().unwrap();
    assert_code(&output, 0);
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    let tape = &report["tape"];
    assert!(tape["reels"].as_u64() > Some(1) && tape["acknowledged"].as_u64() > Some(0), "{tape}");
    assert_eq!((&tape["missing"], &report["ok"]), (&0.into(), &true.into()), "{tape}");
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0, "the demo leaves nothing behind");
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

/// Two nodes that trust each other, and are not started.
fn set_up(root: &Path) -> [PathBuf; 2] {
    let [link_a, link_b, resp_a, resp_b] = crate::support::loopback_addresses();
    let dirs = [root.join("A"), root.join("B")];
    for (dir, (name, role), [link, peer, resp]) in [
        (&dirs[0], ("a", "primary"), [link_a, link_b, resp_a]),
        (&dirs[1], ("b", "standby"), [link_b, link_a, resp_b]),
    ] {
        let [link, peer, resp] = [link, peer, resp].map(|address| address.to_string());
        let args = ["--name", name, "--role", role, "--link-listen", &link, "--peer", &peer, "--resp", &resp];
        assert_code(&run(&[&["init", "--dir", dir.to_str().unwrap()], args.as_slice()].concat()), 0);
    }
    dirs
}

fn identity(dir: &Path) -> String {
    stdout(&run(&["identity", "--dir", dir.to_str().unwrap()])).trim().to_owned()
}

fn trust(dir: &Path, other: &Path) {
    assert_code(&run(&["trust", "--dir", dir.to_str().unwrap(), &identity(other)]), 0);
}

#[test]
fn commands_that_change_something_wait_for_nodes_that_are_still_to_start() {
    let temp = tempfile::tempdir().unwrap();
    let [a, b] = set_up(temp.path());
    trust(&a, &b);
    trust(&b, &a);
    let dir = a.to_str().unwrap();
    // Nobody is there: with 0 they are told so, and a report never waits.
    let begin = Instant::now();
    for args in
        [&["account", "create", "app", "--wait", "0"][..], &["item", "get", "app,x", "1", "--wait", "0"]]
    {
        let refused = run(&[args, &["--dir", dir]].concat());
        assert_code(&refused, 2);
        assert!(stderr(&refused).contains("no node is running there"), "{}", stderr(&refused));
    }
    assert_code(&run(&["status", "--dir", dir]), 2);
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    // More patient than the ten seconds by default: other tests may keep the machine busy.
    let mut early = program()
        .args(["account", "create", "app", "--wait", "60", "--dir", dir])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(early.stderr.take().unwrap());
    let mut said = String::new();
    told.read_line(&mut said).unwrap();
    assert!(said.starts_with("hot-backup: waiting for the node in "), "it says that it waits: {said}");
    let a = Node::serve(&a);
    // It asks its peer, which is not there either.
    let asking = || stdout(&a.verb(&["status", "--json"])).contains("asking-peer").then_some(());
    crate::support::wait_until("to ask its peer", asking);
    let refused = a.verb(&["account", "create", "other", "--wait", "0"]);
    assert_code(&refused, 1);
    assert!(stderr(&refused).contains("before it serves: "), "{}", stderr(&refused));
    assert_eq!(early.try_wait().unwrap(), None, "it still waits");
    let _b = Node::serve(&b);
    assert_eq!(early.wait().unwrap().code(), Some(0));
    a.done(&["file", "create", "app,orders", "--flags", "L"]);
    a.done(&["item", "put", "app,orders", "1001", "hello"]);
}

/// What `status` says of the link, once `good` finds it right; the log on the way.
#[track_caller]
fn link_error(node: &Node, good: impl Fn(&str) -> bool) -> String {
    let what = format!("the status of {}", node.dir.display());
    crate::support::wait_until(&what, || {
        let status: serde_json::Value =
            serde_json::from_slice(&node.verb(&["status", "--json"]).stdout).ok()?;
        let error = status["link"]["last_error"].as_str()?.to_owned();
        good(&error).then_some(error)
    })
}

fn log_of(node: &Node) -> String {
    std::fs::read_to_string(node.dir.with_extension("log")).unwrap()
}

#[test]
fn while_two_nodes_do_not_meet_each_says_where_it_dials_what_came_back_and_what_to_do() {
    let temp = tempfile::tempdir().unwrap();
    let [dir_a, dir_b] = set_up(temp.path());
    let config = std::fs::read_to_string(dir_a.join("config.toml")).unwrap();
    let peer =
        config.lines().find_map(|line| line.strip_prefix("peer = ")).unwrap().trim_matches('"').to_owned();
    let a = Node::serve(&dir_a);
    // Nobody is trusted, on either side.
    let error = link_error(&a, |error| !error.is_empty());
    assert!(
        error.contains(&peer) && error.contains("no peer is trusted yet; run `hot-backup trust`"),
        "{error}"
    );
    let screen = a.done(&["status"]);
    let advice = screen.find("no peer is trusted yet").expect(&screen);
    assert!(
        screen.find("start --alone").is_some_and(|alone| alone > advice),
        "never the only hint: {screen}"
    );
    // The peer is trusted here, and does not run.
    trust(&dir_a, &dir_b);
    let error = link_error(&a, |error| error.contains("refused"));
    assert_eq!(error, format!("connecting to {peer}: connection refused"));
    assert!(a.done(&["status"]).contains(&error));
    assert!(log_of(&a).contains(&error), "{}", log_of(&a));
    // It runs, and trusts nobody.
    let b = Node::serve(&dir_b);
    let own = identity(&dir_a);
    link_error(&a, |error| error.contains("run `hot-backup trust` there") && error.contains(&own));
    link_error(&b, |error| error.contains("no peer is trusted yet"));
    assert!(b.done(&["status"]).contains("no peer is trusted yet"), "{}", b.done(&["status"]));
    assert!(log_of(&b).contains("no peer is trusted yet"), "{}", log_of(&b));
    drop(b);
    // It trusts somebody else.
    let other = temp.path().join("C");
    let args = ["--name", "c", "--role", "primary", "--link-listen", "127.0.0.1:1", "--peer", "127.0.0.1:2"];
    assert_code(&run(&[&["init", "--dir", other.to_str().unwrap()], args.as_slice()].concat()), 0);
    trust(&dir_b, &other);
    let b = Node::serve(&dir_b);
    link_error(&a, |error| error.contains("does not trust this node's key") && error.contains(&own));
    link_error(&b, |error| {
        error.contains("is not trusted here") && error.contains("run `hot-backup trust` here")
    });
    drop(b);
    // And at last each other.
    trust(&dir_b, &dir_a);
    let b = Node::serve(&dir_b);
    for node in [&a, &b] {
        node.wait_until_checked();
        assert_eq!(link_error(node, |_| true), "");
    }
}

#[test]
fn every_error_of_a_wrong_command_line_or_a_wrong_directory_ends_with_advice_that_fits_it() {
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name).to_str().unwrap().to_owned();
    let (node, empty, file) = (path("A"), path("empty"), path("file"));
    std::fs::create_dir(&empty).unwrap();
    std::fs::write(&file, "").unwrap();
    let init = ["init", "--dir", &node, "--name", "a", "--role", "primary", "--link-listen", "127.0.0.1:1"];
    let init = |more: &[&'static str]| {
        init.iter()
            .map(|word| (*word).to_owned())
            .chain(more.iter().map(|w| (*w).to_owned()))
            .collect::<Vec<_>>()
    };
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let peer = ["--peer", "127.0.0.1:2"];
    for (args, advice) in [
        (init(&[]), "add what is missing, see: hot-backup init --help"),
        (init(&["--peer", "2000"]), "correct the flag of that name"),
        (
            init(&["--peer", "127.0.0.1:2", "--segment-bytes", "10X"]),
            "give --segment-bytes <SIZE> a value that is allowed",
        ),
        (
            init(&["--peer", "127.0.0.1:2", "--ack-level", "always"]),
            "give --ack-level <LEVEL> a value that is allowed",
        ),
        (
            words("file create app,x --blocks --size 10X"),
            "give --size <SIZE> a value that is allowed, see: hot-backup file create --help",
        ),
        (words("file create app,x --blocks"), "add what is missing"),
        (words("account create app --wait soon"), "give --wait <SECONDS> a value that is allowed"),
        (words("file make app,x"), "the commands are listed by: hot-backup file --help"),
        (words("start"), "to run a node say: hot-backup serve"),
        (words("item put app,x 1 a --value b"), "leave one of them out"),
        (words(&format!("serve --dir {empty}")), "`hot-backup init` makes one"),
        (words(&format!("serve --dir {file}")), "`hot-backup init` makes one"),
        (words(&format!("serve --dir {}", path("none"))), "`hot-backup init` makes one"),
        (words(&format!("identity --dir {empty}")), "`hot-backup init` makes one"),
        (words(&format!("item get app,x 1 --dir {empty}")), "`hot-backup init` makes one"),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = run_to_its_end(&args);
        assert_code(&output, 2);
        let text = stderr(&output);
        let last = text.lines().last().unwrap_or_default();
        assert!(last.starts_with("hot-backup: what to do: ") && last.contains(advice), "{args:?}: {text}");
        assert!(!text.contains("os error") && !text.contains("doctor"), "{args:?}: {text}");
    }
    // A node that is there: its port is taken, its config is wrong, another process has it.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let args = ["init", "--dir", &node, "--name", "a", "--role", "primary", "--link-listen", &address];
    assert_code(&run(&[args.as_slice(), &peer].concat()), 0);
    let serve = || stderr(&run_to_its_end(&["serve", "--dir", &node]));
    let told = serve();
    assert!(told.contains("for link_listen: address already in use"), "{told}");
    assert!(told.lines().last().is_some_and(|last| last.contains("another program has that port")), "{told}");
    drop(taken);
    let running = Node::serve(Path::new(&node));
    crate::support::wait_until("the node", || running.verb(&["status"]).status.success().then_some(()));
    let told = serve();
    assert!(told.contains(&format!("process {} uses it", running.process.as_ref().unwrap().id())), "{told}");
    assert!(told.lines().last().is_some_and(|last| last.contains("stop that process first")), "{told}");
    drop(running);
    let config = Path::new(&node).join("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let (first, rest) = text.split_once("\nname").unwrap();
    std::fs::write(&config, format!("{first}\nhartbeat_ms = 500\nname{rest}")).unwrap();
    let told = serve();
    assert!(told.contains("did you mean `heartbeat_ms`"), "{told}");
    assert!(told.lines().last().is_some_and(|last| last.contains("correct that in ")), "{told}");
}

#[test]
fn root_does_not_touch_the_node_of_another_user_and_is_told_how_to_become_that_user() {
    if crate::support::missing(crate::support::here!(), &["root"]) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let [a, b] = set_up(temp.path());
    let dir = a.to_str().unwrap();
    std::os::unix::fs::chown(&a, Some(65_534), Some(65_534)).unwrap();
    let before = std::fs::read_dir(&a).unwrap().count();
    for args in [&["serve"][..], &["trust", &identity(&b)]] {
        let refused = run_to_its_end(&[args, &["--dir", dir]].concat());
        assert_code(&refused, 2);
        let told = stderr(&refused);
        assert!(told.contains("as root: it belongs to user nobody"), "{told}");
        assert!(told.contains(&format!("runuser -u 'nobody' -- hot-backup {}", args[0])), "{told}");
    }
    assert_eq!(std::fs::read_dir(&a).unwrap().count(), before, "nothing was left there");
}

#[test]
fn a_peer_is_called_by_its_name() {
    let temp = tempfile::tempdir().unwrap();
    let [a, b] = set_up(temp.path());
    trust(&a, &b);
    trust(&b, &a);
    // The only name that is known everywhere; the port is one of 127.0.0.1 then.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let set = |dir: &Path, key: &str, value: String| {
        let path = dir.join("config.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<String> = text
            .lines()
            .map(|line| {
                if line.starts_with(&format!("{key} = ")) {
                    format!("{key} = \"{value}\"")
                } else {
                    line.to_owned()
                }
            })
            .collect();
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    };
    set(&b, "link_listen", format!("127.0.0.1:{port}"));
    set(&a, "peer", format!("localhost:{port}"));
    let (a, _b) = (Node::serve(&a), Node::serve(&b));
    a.wait_until_checked();
    let status: serde_json::Value = serde_json::from_str(&a.done(&["status", "--json"])).unwrap();
    assert_eq!(status["link"]["dialled"], format!("localhost:{port}"));
    let args =
        ["--name", "c", "--role", "primary", "--link-listen", "192.0.2.1:1", "--peer", "nowhere.invalid:2"];
    let dir = temp.path().join("C");
    let made = run(&[&["init", "--dir", dir.to_str().unwrap()], args.as_slice()].concat());
    assert_code(&made, 0);
    for doubt in [
        "the name of --peer nowhere.invalid:2 is not known now",
        "192.0.2.1:1 is no address of this machine now",
    ] {
        assert!(stderr(&made).contains(doubt), "{}", stderr(&made));
    }
}
