//! Incidents as records, and each kind of receiver, by real nodes and receivers of the tests' own.

use crate::support::receivers::{Received, Tls, datagrams, http, listener, smtp};
use crate::support::{Node, Pair, Plan, loopback_addresses, tier, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const SECRET: &str = "hunter2-and-a-half";

/// A file that only its owner may read.
fn secret(dir: &Path, name: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, format!("{SECRET}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

/// An entry of the notify list.
fn entry(name: &str, kind: &str, more: &str) -> String {
    format!("[[notify]]\nname = \"{name}\"\nkind = \"{kind}\"\n{more}")
}

fn alone(dir: &Path, entries: &[String]) -> Node {
    let node = Node::alone(dir.join("A"), &Plan::quick().config("canary_seconds = 0"));
    node.configure(entries);
    node
}

/// Starts it and makes it raise the incident `alone`.
fn serves(node: &mut Node) {
    node.start_alone();
    node.serves();
}

fn target(node: &Node, name: &str) -> Value {
    let all = node.json(&["notify", "list"]);
    all.as_array().unwrap().iter().find(|target| target["name"] == name).expect("it is listed").clone()
}

#[track_caller]
fn waits_for(node: &Node, name: &str, what: &str, good: impl Fn(&Value) -> bool) -> Value {
    wait_until(&format!("{name} {what}"), || Some(target(node, name)).filter(|target| good(target)))
}

fn proofs(node: &Node, name: &[&str]) -> (Option<i32>, Vec<Value>) {
    let words: Vec<&str> = ["notify", "test", "--json"].iter().chain(name).copied().collect();
    let output = node.verb(&words);
    let value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    (output.status.code(), value.as_array().unwrap().clone())
}

fn records(node: &Node) -> Vec<Value> {
    node.json(&["incidents", "list", "--limit", "1000"]).as_array().unwrap().clone()
}

/// Waits for the newest record of that code that is as wanted.
#[track_caller]
fn record(node: &Node, code: &str, good: impl Fn(&Value) -> bool) -> Value {
    wait_until(&format!("a record of {code}"), || {
        records(node).into_iter().rev().find(|record| record["code"] == code && good(record))
    })
}

/// What anybody may see of a node holds no secret.
fn keeps_secrets(node: &Node) {
    let words = std::fs::read(format!("/proc/{}/cmdline", node.id())).unwrap();
    let status = node.done(&["status", "--json"]) + &node.done(&["status"]);
    let told = node.done(&["notify", "list"]) + &node.done(&["incidents", "list"]);
    let kept = std::fs::read_to_string(node.dir.join("records")).unwrap();
    for seen in [String::from_utf8_lossy(&words).into_owned(), status, told, kept, node.log()] {
        assert!(!seen.contains(SECRET), "a secret shows in:\n{seen}");
    }
}

/// A receiver of each kind that this machine can have, and the entries that name them.
struct Receivers {
    mails: Received,
    plain: Received,
    hooks: Received,
    alerts: Received,
    syslog: Received,
    journald: Received,
    /// What the program wrote that is told.
    told: std::path::PathBuf,
    hook_port: u16,
    entries: Vec<String>,
}

impl Receivers {
    fn start(dir: &Path) -> Self {
        let tls = Tls::new(dir);
        let (mail_at, mails) = smtp(listener(), Some(&tls));
        let (plain_at, plain) = smtp(listener(), None);
        let (hook_at, hooks) = http(listener(), Some(&tls));
        let (alerts_at, alerts) = http(listener(), None);
        let (log, journal) = (dir.join("log"), dir.join("journal"));
        let (script, told) = (dir.join("tell"), dir.join("told"));
        let lines = format!("#!/bin/sh\ncat >> {}\necho \"$1 $HOME\" >> {0}\n", told.display());
        std::fs::write(&script, lines).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
        let (key, ca) = (secret(dir, "key"), tls.file.display());
        let (hook_port, mail_port) = (hook_at.port(), mail_at.port());
        let mail = format!(
            "server = \"localhost:{mail_port}\"\nfrom = \"hot-backup@example.org\"\n\
             to = [\"Ann <ann@example.org>\", \"bob@example.org\"]\n\
             user = \"node\"\npassword_file = \"{key}\"\nca_file = \"{ca}\""
        );
        let unsecured = format!(
            "server = \"{plain_at}\"\ntls = \"none\"\nfrom = \"a@example.org\"\nto = [\"bob@example.org\"]"
        );
        let hook = format!(
            "url = \"https://localhost:{hook_port}/hook?key=in-the-address\"\ntoken_file = \"{key}\"\nca_file = \"{ca}\""
        );
        let entries = vec![
            entry("mail", "mail", &mail),
            entry("plain", "mail", &unsecured),
            entry("hook", "webhook", &hook),
            entry("alerts", "alertmanager", &format!("url = \"http://{alerts_at}\"")),
            entry("syslog", "syslog", &format!("socket = \"{}\"", log.display())),
            entry("journald", "journald", &format!("socket = \"{}\"", journal.display())),
            entry("script", "command", &format!("command = [\"{}\", \"one $(id)\"]", script.display())),
        ];
        let (syslog, journald) = (datagrams(&log), datagrams(&journal));
        Self { mails, plain, hooks, alerts, syslog, journald, told, hook_port, entries }
    }

    fn took_mail(&self) {
        let mail = self.mails.has("Subject: [hot-backup a] warning alone");
        for part in [
            "STARTTLS",
            "AUTH PLAIN",
            "RCPT TO:<ann@example.org>",
            "RCPT TO:<bob@example.org>",
            "Auto-Submitted: auto-generated",
            "what to do: make sure that the peer does not serve",
        ] {
            assert!(mail.contains(part), "{part:?} is not in\n{mail}");
        }
        self.plain.has("Subject: [hot-backup a] warning alone");
    }

    fn took_requests(&self) {
        let hook = self.hooks.has("\"code\":\"alone\"");
        assert!(hook.starts_with("POST /hook?key=in-the-address HTTP/1.1"), "{hook}");
        assert!(hook.to_ascii_lowercase().contains(&format!("authorization: bearer {SECRET}")), "{hook}");
        let body: Value = serde_json::from_str(hook.split_once("\n\n").unwrap().1).unwrap();
        assert_eq!((&body["version"], &body["node"]), (&1.into(), &"a".into()));
        assert_eq!(body["state"], "happened");
        let alert = self.alerts.has("hot-backup alone");
        assert!(alert.starts_with("POST /api/v2/alerts HTTP/1.1"), "{alert}");
        let body: Value = serde_json::from_str(alert.split_once("\n\n").unwrap().1).unwrap();
        let labels = &body[0]["labels"];
        assert_eq!((&labels["severity"], &labels["node"]), (&"warning".into(), &"a".into()));
        assert!(body[0]["startsAt"].as_str().unwrap().ends_with('Z'), "{body}");
    }
}

#[test]
fn each_kind_of_receiver_takes_a_test_and_what_really_happens() {
    let dir = tempfile::tempdir().unwrap();
    let all = Receivers::start(dir.path());
    let mut node = alone(dir.path(), &all.entries);
    serves(&mut node);
    let (code, proofs) = proofs(&node, &[]);
    assert!(code == Some(0) && proofs.len() == 7, "{proofs:#?}");
    assert!(proofs.iter().all(|proof| proof["ok"] == true), "{proofs:#?}");
    assert!(proofs[0]["text"].as_str().unwrap().contains("queued as 42"), "{proofs:#?}");
    assert!(proofs[2]["text"].as_str().unwrap().contains("200 OK: taken"), "{proofs:#?}");
    all.took_mail();
    all.took_requests();
    assert!(all.syslog.has("warning alone").starts_with("<28>hot-backup["), "{:?}", all.syslog.all());
    let entry = all.journald.has("HOT_BACKUP_CODE=alone");
    assert!(entry.contains("\nPRIORITY=4\n") && entry.ends_with('\n'), "{entry:?}");
    // Neither a shell nor the environment of the node is between.
    wait_until("the program", || {
        let text = std::fs::read_to_string(&all.told).ok()?;
        text.split_once("\"code\":\"alone\"").filter(|(_, rest)| rest.contains("one $(id) \n")).map(drop)
    });
    for name in ["mail", "plain", "hook", "alerts", "syslog", "journald", "script"] {
        let done = |target: &Value| target["queued"] == 0 && target["delivered"].as_u64() > Some(0);
        waits_for(&node, name, "is empty", done);
    }
    assert_eq!(target(&node, "hook")["to"], format!("https://localhost:{}", all.hook_port));
    keeps_secrets(&node);
}

#[test]
fn what_lasts_is_told_when_it_begins_and_when_it_ends_and_is_one_record() {
    let (at, hooks) = http(listener(), None);
    let mut pair = Pair::set_up(&Plan::quick().config("peer_timeout_ms = 1000"));
    pair.a.configure(&[entry("hook", "webhook", &format!("url = \"http://{at}\""))]);
    pair.serve();
    pair.b.kill();
    let begun = record(&pair.a, "peer-lost", |record| record["ended_ms"].is_null());
    hooks.has(&format!("\"id\":{}", begun["id"]));
    // Who watches sees what lasts, and then each change.
    let mut watch = Command::new(&pair.a.program);
    watch.args(["incidents", "watch", "--json", "--dir"]).arg(&pair.a.dir);
    let mut watch = Ended(watch.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let lines = Received::lines(watch.0.stdout.take().unwrap());
    lines.has(&format!("\"id\":{}", begun["id"]));
    pair.a.done(&["incidents", "ack", &begun["id"].to_string(), "--by", "ann"]);
    let line: Value = serde_json::from_str(&lines.has("\"acked_by\":\"ann\"")).unwrap();
    assert_eq!(line["id"], begun["id"]);
    drop(watch.0.stdin.take());
    assert!(watch.0.wait().unwrap().success());
    pair.b.start();
    let ended = record(&pair.a, "peer-lost", |record| record["ended_ms"].is_u64());
    assert_eq!((&ended["id"], &ended["acked_by"]), (&begun["id"], &"ann".into()));
    let told = wait_until("its end", || {
        hooks.with("\"state\":\"ended\"").into_iter().find(|text| text.contains("\"code\":\"peer-lost\""))
    });
    assert!(told.contains("\"acked_by\":\"ann\""), "{told}");
    let shown = pair.a.done(&["incidents", "show", &begun["id"].to_string()]);
    assert!(shown.contains("noted by  ann") && shown.contains("ended"), "{shown}");
    // They are kept, and their numbers go on.
    let before = records(&pair.a);
    pair.a.kill();
    pair.a.start();
    pair.a.serves();
    let again = records(&pair.a);
    let ids = |all: &[Value]| all.iter().map(|record| record["id"].as_u64().unwrap()).collect::<Vec<_>>();
    assert!(ids(&again).starts_with(&ids(&before)), "{again:#?}");
    assert!(ids(&again).is_sorted());
    let refused = pair.a.verb(&["incidents", "ack", "99999"]);
    assert_eq!(refused.status.code(), Some(1));
}

#[test]
fn an_entry_hears_nothing_below_its_floor_and_in_quiet_hours_only_what_is_critical() {
    let dir = tempfile::tempdir().unwrap();
    let (all_at, all) = http(listener(), None);
    let (floor_at, floor) = http(listener(), None);
    let (quiet_at, quiet) = http(listener(), None);
    // Hours around now that end long after this test.
    let hour = |offset: &str| {
        let output = Command::new("date").args(["-d", offset, "+%H:%M"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let hours = format!("{}-{}", hour("-1 hour"), hour("+5 hours"));
    let mut node = alone(
        dir.path(),
        &[
            entry("all", "webhook", &format!("url = \"http://{all_at}\"\nseverity = \"notice\"")),
            entry("floor", "webhook", &format!("url = \"http://{floor_at}\"\nseverity = \"critical\"")),
            entry("quiet", "webhook", &format!("url = \"http://{quiet_at}\"\nquiet = \"{hours}\"")),
        ],
    );
    serves(&mut node);
    all.has("\"code\":\"alone\"");
    all.has("\"severity\":\"notice\"");
    waits_for(&node, "quiet", "holds it back", |target| target["queued"].as_u64() > Some(0));
    assert_eq!((target(&node, "floor")["queued"].clone(), floor.all().len()), (0.into(), 0));
    assert!(quiet.all().is_empty(), "{:?}", quiet.all());
    // A test is asked for, so it goes.
    assert_eq!(proofs(&node, &["quiet"]).0, Some(0));
    assert_eq!((quiet.all().len(), quiet.with("\"state\":\"test\"").len()), (1, 1));
}

#[test]
fn what_a_receiver_could_not_take_outlives_a_kill_and_arrives_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let place = listener();
    let at = place.local_addr().unwrap();
    drop(place);
    let mut node = alone(dir.path(), &[entry("hook", "webhook", &format!("url = \"http://{at}/\""))]);
    serves(&mut node);
    let failing = waits_for(&node, "hook", "fails", |target| {
        target["queued"].as_u64() > Some(0) && target["failing_since_ms"].is_u64()
    });
    assert!(failing["last_error"].as_str().unwrap().contains("refused"), "{failing}");
    let status = node.done(&["status"]);
    assert!(status.contains("notify") && status.contains("takes nothing since"), "{status}");
    let (code, proofs) = proofs(&node, &["hook"]);
    assert_eq!((code, &proofs[0]["ok"]), (Some(1), &false.into()));
    wait_until("it to be on disk", || {
        let kept = std::fs::read_to_string(node.dir.join("records")).unwrap_or_default();
        let waiting = kept.split_once("\"waiting\":").map(|(_, rest)| rest.to_owned()).unwrap_or_default();
        waiting.contains("\"code\":\"alone\"").then_some(())
    });
    node.kill();
    node.start();
    let Some(place) = wait_until("the port", || Some(std::net::TcpListener::bind(at).ok())) else {
        return eprintln!("skipped: somebody else took the port");
    };
    let (_, received) = http(place, None);
    received.has("\"code\":\"alone\"");
    waits_for(&node, "hook", "works", |target| target["queued"] == 0 && target["failing_since_ms"].is_null());
}

#[test]
fn tier_a_real_alertmanager_shows_what_lasts_until_it_ends() {
    tier!("prometheus-alertmanager");
    let dir = tempfile::tempdir().unwrap();
    let [at, unused] = loopback_addresses::<2>();
    let config = dir.path().join("alertmanager.yml");
    std::fs::write(&config, format!("route: {{receiver: x}}\nreceivers: [{{name: x, webhook_configs: [{{url: \"http://{unused}\"}}]}}]\n"))
        .unwrap();
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let mut command = Command::new(crate::support::tool("prometheus-alertmanager").unwrap());
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.path={}", dir.path().join("data").display()));
    command.args([format!("--web.listen-address={at}"), "--cluster.listen-address=".to_owned()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let _alertmanager = Ended(command.spawn().unwrap());
    let shown = || {
        let mut answer =
            ureq::get(format!("http://{at}/api/v2/alerts?filter=code%3D%22peer-lost%22")).call().ok()?;
        let text = answer.body_mut().read_to_string().ok()?;
        serde_json::from_str::<Value>(&text).ok()?.as_array().cloned()
    };
    wait_until("the Alertmanager", shown);
    let mut pair = Pair::set_up(&Plan::quick().config("peer_timeout_ms = 1000"));
    pair.a.configure(&[entry("alerts", "alertmanager", &format!("url = \"http://{at}\""))]);
    pair.serve();
    assert_eq!(proofs(&pair.a, &[]).0, Some(0));
    pair.b.kill();
    let alert = wait_until("the alert", || shown()?.first().cloned());
    let labels = &alert["labels"];
    assert_eq!(
        (&labels["alertname"], &labels["node"]),
        (&"hot-backup peer-lost".into(), &"a".into()),
        "{alert}"
    );
    assert_eq!(alert["status"]["state"], "active", "{alert}");
    pair.b.start();
    wait_until("its end", || shown()?.is_empty().then_some(()));
}

#[test]
fn a_command_that_hangs_is_ended_with_all_that_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let (script, pids) = (dir.path().join("hang"), dir.path().join("pids"));
    std::fs::write(&script, format!("#!/bin/sh\nsleep 1000 &\necho $! $$ >> {}\nwait\n", pids.display()))
        .unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    let hang = entry("hang", "command", &format!("command = [\"{}\"]\nseconds = 2", script.display()));
    let fail = entry("fail", "command", "command = [\"/bin/false\"]");
    let mut node = alone(dir.path(), &[hang, fail]);
    serves(&mut node);
    let (code, proofs) = proofs(&node, &[]);
    assert_eq!(code, Some(1));
    let text = |at: usize| proofs[at]["text"].as_str().unwrap();
    assert!(text(0).contains("did not end within 2 s, and was ended"), "{proofs:#?}");
    assert!(text(1).contains("exit code 1"), "{proofs:#?}");
    let lives = |pid: &str| {
        // One that nobody has waited for yet is gone too.
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
    };
    // Of this run all have ended; the next may be under way by now, so only those are looked at whose time is over.
    let first = wait_until("the script to have run", || {
        std::fs::read_to_string(&pids).ok()?.lines().next().map(str::to_owned)
    });
    wait_until("it to be gone", || first.split(' ').all(|pid| !lives(pid)).then_some(()));
    // Clients are served meanwhile.
    redis::cmd("PING").query::<String>(&mut node.redis()).unwrap();
}

#[test]
fn a_sign_of_life_is_sent_as_long_as_all_is_well() {
    let (at, pings) = http(listener(), None);
    let mut pair =
        Pair::set_up(&Plan::quick().config("peer_timeout_ms = 1000").config("disk_warn_percent = 0"));
    pair.a.configure(&[entry("alive", "ping", &format!("url = \"http://{at}/alive\"\nseconds = 1"))]);
    pair.serve();
    let number = pings.all().len();
    wait_until("two more signs", || (pings.all().len() >= number + 2).then_some(()));
    assert!(pings.all()[0].starts_with("GET /alive HTTP/1.1"));
    pair.b.kill();
    record(&pair.a, "peer-lost", |record| record["ended_ms"].is_null());
    // One may have been on its way.
    std::thread::sleep(Duration::from_secs(2));
    let number = pings.all().len();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(pings.all().len(), number, "something lasts, and it is sent all the same");
    pair.b.start();
    wait_until("signs again", || (pings.all().len() > number).then_some(()));
}

#[test]
fn a_message_is_shown_on_the_terminal_of_who_is_logged_in() {
    let dir = tempfile::tempdir().unwrap();
    let shown = dir.path().join("shown");
    let mut terminal = Command::new("script")
        .args(["-qfc", "tty; exec sleep 300"])
        .arg(&shown)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("script is there, as on every Debian");
    let line = wait_until("a terminal", || {
        let text = std::fs::read_to_string(&shown).ok()?;
        text.split_whitespace().find(|word| word.starts_with("/dev/pts/")).map(str::to_owned)
    });
    let utmp = dir.path().join("utmp");
    std::fs::write(&utmp, login(line.trim_start_matches("/dev/"), "ann")).unwrap();
    let more = format!("utmp = \"{}\"\nusers = [\"ann\"]", utmp.display());
    let mut node = alone(dir.path(), &[entry("ann", "terminals", &more)]);
    serves(&mut node);
    let (code, proofs) = proofs(&node, &[]);
    assert!(code == Some(0) && proofs[0]["text"].as_str().unwrap().contains(&line), "{proofs:#?}");
    wait_until("the message", || {
        let text = std::fs::read(&shown).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).ok()?;
        text.contains("[hot-backup a] warning alone: ").then_some(())
    });
    let _ = terminal.kill();
    let _ = terminal.wait();
}

/// An entry of utmp(5), whose fields stand where libc says.
fn login(line: &str, user: &str) -> Vec<u8> {
    let mut bytes = vec![0; size_of::<libc::utmpx>()];
    bytes[std::mem::offset_of!(libc::utmpx, ut_type)] = u8::try_from(libc::USER_PROCESS).unwrap();
    bytes[std::mem::offset_of!(libc::utmpx, ut_line)..][..line.len()].copy_from_slice(line.as_bytes());
    bytes[std::mem::offset_of!(libc::utmpx, ut_user)..][..user.len()].copy_from_slice(user.as_bytes());
    if cfg!(target_endian = "big") {
        bytes.swap(0, 1);
    }
    bytes
}

#[test]
fn the_incidents_of_an_earlier_version_are_records_too_and_its_command_goes_on_working() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = alone(dir.path(), &[]);
    let old = "{\"severity\":\"critical\",\"kind\":\"journal-no-space\",\"text\":\"no room: the disk is full\",\"wall_ms\":1700000000000}\n";
    std::fs::write(node.dir.join("incidents.jsonl"), old).unwrap();
    serves(&mut node);
    let kept = record(&node, "journal-no-space", |_| true);
    assert_eq!((&kept["id"], &kept["why"]), (&1.into(), &"the disk is full".into()));
    record(&node, "alone", |record| record["id"].as_u64() > Some(1));
    // Each telling since the start, as before.
    let told = node.json(&["incidents"]);
    assert!(told.as_array().unwrap().iter().any(|one| one["kind"] == "alone"), "{told}");
    let text = std::fs::read_to_string(node.dir.join("incidents.jsonl")).unwrap();
    assert!(text.starts_with(old) && text.contains("\"kind\":\"alone\""), "{text}");
    // A file of records that was damaged is begun anew, and the node starts.
    node.kill();
    std::fs::write(node.dir.join("records"), "hot-backup records 1 00000000\n{}").unwrap();
    node.start();
    node.status("to start", |status| status["state"] != "starting");
    wait_until("a word of that", || node.log().contains("its checksum is wrong").then_some(()));
}

#[test]
fn what_is_wrong_with_the_list_is_told_at_once_with_its_lines() {
    let dir = tempfile::tempdir().unwrap();
    let open = dir.path().join("open");
    std::fs::write(&open, "x\n").unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut node = alone(
        dir.path(),
        &[
            entry(
                "a",
                "webhook",
                &format!("url = \"https://localhost:1\"\ntoken_file = \"{}\"", open.display()),
            ),
            entry("b", "webhok", ""),
            entry("c", "mail", "server = \"nowhere\"\ncolour = \"red\""),
            entry("d", "webhook", "url = \"http://example.org\"\ntoken_file = \"x\""),
            entry("e", "webhook", "url = \"https://me:secret@example.org\""),
            entry(
                "f",
                "mail",
                "server = \"example.org:25\"\ntls = \"none\"\nfrom = \"a@b\"\nto = [\"c@d\"]\nuser = \"x\"\npassword_file = \"y\"",
            ),
            entry("g", "command", "command = [\"sh\"]"),
            entry("h", "ping", "url = \"https://localhost\"\nquiet = \"25:00-1:00\""),
        ],
    );
    node.start();
    assert_eq!(node.ended().code(), Some(2));
    let log = node.log();
    for part in [
        "others may read it (mode 0644)",
        "`kind` of a `notify` entry: allowed are \"mail\"",
        "unknown key `colour` of a `notify` entry",
        "`server` of a `notify` entry: allowed are \"host:port\"",
        "`from` of a `notify` entry is missing",
        "a token without TLS would be shown to the network",
        "`url` of a `notify` entry: allowed are",
        "a login without TLS would show the password",
        "the program of `command` needs its whole path",
        "`quiet` of a `notify` entry: allowed are \"HH:MM-HH:MM\"",
    ] {
        assert!(log.contains(part), "{part:?} is not in\n{log}");
    }
    assert!(log.contains("config.toml:") && !log.contains("me:secret"), "{log}");
}

#[test]
fn a_standby_that_stands_still_is_named_by_the_test_update_and_told_to_be_back() {
    let plan = Plan::quick()
        .config("canary_seconds = 1")
        .config("canary_late_ms = 1000")
        .config("peer_timeout_ms = 60000");
    let pair = Pair::start(&plan);
    let canary = |status: &Value| status["health"]["canary"].clone();
    pair.a.status("to have had a test update back", |status| canary(status)["arrived"].as_u64() > Some(0));
    let size = redis::cmd("DBSIZE").query::<u64>(&mut pair.a.redis()).unwrap();
    assert_eq!(size, 0, "it shows nowhere");
    pair.b.signal(Signal::SIGSTOP);
    let late = record(&pair.a, "canary-late", |record| record["ended_ms"].is_null());
    assert!(late["what"].as_str().unwrap().contains("(link)"), "{late}");
    pair.a.status("to show where it waits", |status| {
        canary(status)["late"] == true && canary(status)["at"] == "link"
    });
    pair.b.signal(Signal::SIGCONT);
    let back = record(&pair.a, "canary-late", |record| record["ended_ms"].is_u64());
    assert_eq!(back["id"], late["id"]);
    pair.b.status("to be at rest", |status| status["health"]["work"] == "idle");
    pair.converges();
}

/// A process that ends with the test.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_page_of_the_notify_list_has_the_keys_as_the_program_knows_them_and_examples_that_it_reads() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/notify.md")).unwrap();
    let reference = hot_backup::node::config_file::notify_reference();
    assert!(page.contains(&reference), "put this into docs/notify.md:\n{reference}");
    let base = "name = \"a\"\nordinal = 0\ninitial_role = \"primary\"\npair_id = \"000102030405060708090a0b0c0d0e0f\"\n\
                link_listen = \"127.0.0.1:2001\"\npeer = \"127.0.0.1:2000\"\n";
    let examples: Vec<&str> =
        page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let text = format!("{base}{}", examples.concat());
    let config = hot_backup::node::config::Config::parse(Path::new("config.toml"), &text).unwrap();
    let shown: Vec<&str> = config.notify.iter().map(|target| target.kind()).collect();
    for kind in hot_backup::node::config_file::KINDS {
        assert!(shown.contains(kind), "there is no example of {kind}");
    }
}
