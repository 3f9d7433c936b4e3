//! That a pair can be watched: what it counts, what waits, what became of an update, and the figures over HTTP.

use crate::support::{Node, Pair, Plan, loopback_addresses, tier, wait_until};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// The element of a list whose field `key` is `name`.
#[track_caller]
fn of<'v>(list: &'v Value, key: &str, name: &str) -> &'v Value {
    let found = list.as_array().and_then(|list| list.iter().find(|one| one[key] == name));
    found.unwrap_or_else(|| panic!("no {name} in {list}"))
}

fn set(node: &Node, from: u32, to: u32) {
    let mut client = node.redis();
    for n in from..to {
        redis::cmd("SET").arg(format!("app,orders,{n}")).arg("some value").exec(&mut client).unwrap();
    }
}

/// Stops a node in order.
fn stop(node: &mut Node) {
    node.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(node.ended().success());
}

#[test]
fn what_a_pair_has_done_is_counted_on_both_nodes_and_survives_a_restart() {
    let mut pair = Pair::start(&Plan::quick());
    set(&pair.a, 0, 200);
    pair.converges();
    for node in [&pair.a, &pair.b] {
        let stats = wait_until("all to be timed", || {
            let stats = node.json(&["stats"]);
            (number(&of(&stats["stages"], "name", "apply")["count"]) >= 200).then_some(stats)
        });
        let orders = of(&stats["files"], "name", "app,orders");
        assert_eq!((number(&orders["puts"]), number(&orders["deletes"])), (200, 0), "{stats}");
        // The node's own test updates are puts too.
        assert!(number(&of(&stats["kinds"], "kind", "put")["entries"]) >= 200, "{stats}");
        let disk = of(&stats["stages"], "name", "disk");
        assert!(number(&disk["count"]) >= 200 && number(&disk["p50_us"]) > 0, "{stats}");
        assert!(number(&disk["p50_us"]) <= number(&disk["p999_us"]), "{stats}");
        assert!(node.done(&["stats"]).contains("app,orders"));
    }
    let peer = |node: &Node| number(&of(&node.json(&["stats"])["stages"], "name", "peer")["count"]);
    wait_until("the peer's acks to be timed", || (peer(&pair.a) >= 200).then_some(()));
    assert_eq!(peer(&pair.b), 0, "a standby waits for no peer");

    stop(&mut pair.a);
    pair.a.start();
    pair.a.serves();
    pair.connected();
    let stats = pair.a.json(&["stats"]);
    assert_eq!(number(&of(&stats["files"], "name", "app,orders")["puts"]), 200, "{stats}");
    assert_eq!(number(&stats["starts"]), 2, "{stats}");
    assert!(number(&stats["connects"]) >= 2, "{stats}");
    set(&pair.a, 0, 5);
    let stats = pair.a.json(&["stats"]);
    assert_eq!(number(&of(&stats["files"], "name", "app,orders")["puts"]), 205, "{stats}");
}

#[test]
fn the_queue_is_told_listed_from_any_entry_and_checked_with_and_without_a_node() {
    let mut pair = Pair::start(&Plan::quick());
    set(&pair.a, 0, 10);
    pair.converges();
    let queue = wait_until("the queue to be empty", || {
        let queue = pair.a.json(&["queue"]);
        (queue["entries"] == 0).then_some(queue)
    });
    assert_eq!(queue["seconds_left"], 0.0, "{queue}");
    assert!(pair.b.done(&["queue"]).contains("a standby queues nothing"));
    let confirmed = number(&queue["last"]);

    pair.b.kill();
    set(&pair.a, 10, 60);
    // What was confirmed a moment ago is no longer among the rates of the last seconds.
    let queue = wait_until("the peer to confirm nothing", || {
        let queue = pair.a.json(&["queue"]);
        queue["seconds_left"].is_null().then_some(queue)
    });
    assert_eq!(number(&queue["entries"]), 50, "{queue}");
    assert_eq!(number(&queue["first"]), confirmed + 1, "{queue}");
    assert!(number(&queue["bytes"]) > 50 * 10 && queue["oldest_seconds"].as_f64().unwrap() > 0.0, "{queue}");

    let list = pair.a.json(&["queue", "show", "--limit", "7"]);
    let seqs: Vec<u64> = list.as_array().unwrap().iter().map(|entry| number(&entry["seq"])).collect();
    assert!(seqs.iter().copied().eq(confirmed + 1..confirmed + 8), "{list}");
    assert_eq!((&list[0]["file"], &list[0]["item"]), (&"app,orders".into(), &"10".into()), "{list}");
    assert_eq!((&list[0]["kind"], number(&list[0]["bytes"])), (&"put".into(), 10), "{list}");
    let oldest = pair.a.json(&["queue", "show", "--from", "1", "--limit", "2"]);
    assert_eq!(number(&oldest[0]["seq"]), 1, "{oldest}");

    let checked = pair.a.json(&["queue", "check"]);
    assert_eq!((number(&checked["first"]), number(&checked["last"])), (1, confirmed + 50), "{checked}");
    stop(&mut pair.a);
    let again = pair.a.json(&["queue", "check"]);
    assert!(number(&again["last"]) >= confirmed + 50, "{again}");
    let listed = pair.a.json(&["queue", "show", "--from", &(confirmed + 1).to_string(), "--limit", "1"]);
    assert_eq!(listed[0]["item"], "10", "without a node too: {listed}");

    // One bit of an entry in the middle turns.
    let dir = pair.a.dir.join("journal");
    let mut segments: Vec<_> =
        walk(&dir).into_iter().filter(|path| path.extension().is_some_and(|e| e == "seg")).collect();
    segments.sort();
    let value = b"some value";
    let (path, mut bytes, at) = segments
        .into_iter()
        .find_map(|path| {
            let bytes = std::fs::read(&path).unwrap();
            let at = bytes.windows(value.len()).position(|window| window == value)?;
            Some((path, bytes, at))
        })
        .expect("a segment with an entry");
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
    let output = pair.a.verb(&["queue", "check"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("damaged at byte"), "{told}");
}

/// All files below a directory.
fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// Epoch and number of the last update of a client.
fn receipt(client: &mut redis::Connection) -> (u64, u64) {
    redis::cmd("CLIENT").arg("RECEIPT").query(client).unwrap()
}

/// What a node says of an update.
#[track_caller]
fn ask(node: &Node, (epoch, seq): (u64, u64)) -> Value {
    let output = node.verb(&["receipt", &seq.to_string(), "--epoch", &epoch.to_string(), "--json"]);
    let told = serde_json::from_slice::<Value>(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let kept = told["state"] == "kept";
    assert_eq!(output.status.code(), Some(i32::from(!kept)), "{told}");
    told
}

#[test]
fn a_receipt_tells_kept_and_lost_updates_apart_also_after_a_takeover_on_both_nodes() {
    let mut pair = Pair::start(&Plan::quick());
    let mut client = pair.a.redis();
    let put = |client: &mut redis::Connection| {
        redis::cmd("SET").arg("app,orders,1").arg("x").exec(client).unwrap();
        receipt(client)
    };
    let none: Option<(u64, u64)> = redis::cmd("CLIENT").arg("RECEIPT").query(&mut client).unwrap();
    assert_eq!(none, None);
    let kept = put(&mut client);
    pair.converges();
    wait_until("it to be on both", || (ask(&pair.a, kept)["applied_both"] == true).then_some(()));
    wait_until("the standby to know it", || (ask(&pair.b, kept)["durable_both"] == true).then_some(()));
    pair.b.kill();
    let lost = put(&mut client);
    let told = ask(&pair.a, lost);
    assert_eq!((&told["state"], &told["durable_here"]), (&"kept".into(), &true.into()), "{told}");
    assert_eq!(told["durable_both"], false, "{told}");
    pair.a.kill();

    pair.b.start();
    pair.b.status("to stand by", |status| status["state"] == "standby");
    pair.b.done(&["takeover", "--peer-is-down"]);
    pair.b.serves();
    let mut client = pair.b.redis();
    let newer = put(&mut client);
    assert!(newer.0 > lost.0 && newer.1 >= lost.1, "{newer:?} {lost:?}");
    assert_eq!(ask(&pair.b, lost)["state"], "lost");
    assert_eq!(ask(&pair.b, kept)["state"], "kept");
    assert_eq!(ask(&pair.b, (newer.0, newer.1 + 1000))["state"], "waiting");
    pair.a.start();
    pair.a.status("to be rewound", |status| status["role"] == "standby" && status["state"] == "standby");
    wait_until("the old primary to have the new history", || {
        (ask(&pair.a, newer)["state"] == "kept").then_some(())
    });
    assert_eq!(ask(&pair.a, lost)["state"], "lost");
    assert_eq!(ask(&pair.a, kept)["state"], "kept");
}

#[test]
fn who_changed_what_is_written_down_with_user_and_process_and_a_pause_is_an_incident() {
    let pair = Pair::start(&Plan::quick());
    pair.a.done(&["log", "pause"]);
    assert!(pair.a.incident("logging").contains("paused"));
    pair.a.done(&["log", "resume"]);
    pair.a.done(&["stats"]);
    let refused = pair.a.verb(&["file", "create", "app,orders", "--records"]);
    assert!(!refused.status.success());
    let lines = pair.a.json(&["audit"]);
    let verbs: Vec<&str> =
        lines.as_array().unwrap().iter().map(|line| line["request"]["verb"].as_str().unwrap()).collect();
    assert_eq!(verbs, ["account-create", "file-create", "logging", "logging-resume", "file-create"]);
    let own = nix::unistd::geteuid().as_raw();
    for line in lines.as_array().unwrap() {
        assert_eq!(number(&line["uid"]), u64::from(own), "{line}");
        assert_eq!(line["program"], "hot-backup", "{line}");
        assert_ne!(line["pid"], std::process::id(), "{line}");
    }
    assert_eq!((&lines[2]["request"]["mode"], &lines[2]["answer"]), (&"paused".into(), &"ok".into()));
    assert_eq!(lines[4]["answer"], "no", "{lines}");
    assert!(pair.a.done(&["audit", "--limit", "1"]).contains("file-create"));
}

/// A pair whose nodes serve figures, and where.
fn watched() -> (Pair, [SocketAddr; 2]) {
    let mut pair = Pair::set_up(&Plan::quick());
    let http = loopback_addresses::<2>();
    for (node, address) in [&pair.a, &pair.b].into_iter().zip(http) {
        node.configure(&[format!("http_listen = \"{address}\"")]);
    }
    pair.serve();
    set(&pair.a, 0, 50);
    pair.converges();
    (pair, http)
}

/// Sends `request` and reads all that comes until the other side closes.
fn talk(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // What was answered before a reset counts.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(address: SocketAddr, path: &str) -> (u16, String, String) {
    let answer =
        talk(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{path}: {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

#[test]
fn figures_are_served_over_http_and_only_the_node_that_may_serve_is_ready() {
    let (mut pair, [a, b]) = watched();
    // What was told just now is told again for a moment.
    wait_until("the primary alone to be ready", || {
        ((get(a, "/ready").0, get(b, "/ready").0) == (200, 503)).then_some(())
    });
    assert_eq!((get(a, "/health").0, get(b, "/health").0), (200, 200));
    for address in [a, b] {
        // What was told just now is told again for a moment. The file's definition is one entry more.
        let (head, text) = wait_until("the counts to be served", || {
            let (status, head, text) = get(address, "/metrics");
            assert_eq!(status, 200);
            let counted = text.contains("hot_backup_file_entries_total{file=\"app,orders\"} 51\n");
            counted.then_some((head, text))
        });
        assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
    let (_, head, page) = get(a, "/");
    assert!(
        page.contains("this node") && page.contains(">primary<") && page.contains("id=\"incidents\""),
        "{page}"
    );
    let nonce = page.split("<script nonce=\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(head.contains(&format!("script-src 'nonce-{nonce}'")), "{head}");
    for header in ["x-content-type-options: nosniff", "cache-control: no-store", "default-src 'none'"] {
        assert!(head.contains(header), "{head}");
    }
    let (_, head, json) = get(b, "/status.json");
    assert!(head.contains("content-type: application/json"), "{head}");
    let status: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&status["name"], &status["role"]), (&"b".into(), &"standby".into()));
    assert_eq!(get(a, "/nothing").0, 404);

    // The standby takes over: who may serve changes with it.
    pair.a.kill();
    pair.b.done(&["takeover", "--peer-is-down"]);
    pair.b.serves();
    wait_until("the new primary to be ready", || (get(b, "/ready").0 == 200).then_some(()));
}

#[test]
fn whoever_follows_events_hears_of_news_and_strangers_are_bounded() {
    let (pair, [a, _]) = watched();
    let mut stream = TcpStream::connect(a).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let mut next = |event: &str| {
        lines.find(|line| line == &format!("event: {event}")).expect("the stream goes on");
        let data = lines.next().unwrap();
        serde_json::from_str::<Value>(data.strip_prefix("data: ").unwrap()).unwrap()
    };
    assert_eq!(next("status")["name"], "a");
    // The first one may have been made before the node served.
    wait_until("its page", || next("page")["node"].as_str().unwrap().contains("primary").then_some(()));
    set(&pair.a, 50, 80);
    let end = number(&pair.a.json(&["status"])["positions"]["appended"]);
    wait_until("news", || (number(&next("status")["positions"]["appended"]) >= end).then_some(()));

    // A page of another name, other methods, and heads without end.
    let code = |answer: &str| answer.split(' ').nth(1).unwrap_or_default().to_owned();
    let rebound = talk(a, "GET /status.json HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    assert_eq!(code(&rebound), "421", "{rebound}");
    assert!(!rebound.contains("\"role\""), "{rebound}");
    let posted =
        talk(a, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert_eq!(code(&posted), "405", "{posted}");
    let endless = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    assert!(["431", "400", ""].contains(&code(&talk(a, &endless)).as_str()));
    let many: String = (0..500).map(|n| format!("X-{n}: 1\r\n")).collect();
    let many = talk(a, &format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"));
    assert!(["431", "400", ""].contains(&code(&many).as_str()), "{many}");

    // Whoever connects and says nothing takes places for a bounded time only.
    let idle: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(a).unwrap()).collect();
    wait_until("the idle to be sent away", || {
        let answer = talk(a, "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        (code(&answer) == "200").then_some(())
    });
    drop(idle);
    assert!(pair.a.descriptors() < 200, "{}", pair.a.descriptors());
}

#[test]
fn figures_are_for_this_machine_alone() {
    let pair = Pair::set_up(&Plan::quick());
    pair.a.configure(&["http_listen = \"0.0.0.0:0\""]);
    let output = pair.a.verb(&["serve"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("only loopback is allowed"), "{told}");
}

/// Another program, killed when this is dropped.
struct Beside(std::process::Child);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn tier_a_real_prometheus_scrapes_both_nodes_and_takes_the_alert_rules() {
    tier!("prometheus", "promtool");
    let rules = crate::layering::root().join("tools/prometheus-rules.yml");
    crate::support::shell(&["promtool", "check", "rules", rules.to_str().unwrap()]);
    let (pair, [a, b]) = watched();
    let dir = tempfile::tempdir().unwrap();
    let [own] = loopback_addresses::<1>();
    let config = dir.path().join("prometheus.yml");
    let text = format!(
        "global:\n  scrape_interval: 1s\nrule_files: [\"{}\"]\nscrape_configs:\n  - job_name: hot-backup\n    \
         static_configs:\n      - targets: [\"{a}\", \"{b}\"]\n",
        rules.display()
    );
    std::fs::write(&config, text).unwrap();
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let mut command = std::process::Command::new(crate::support::tool("prometheus").unwrap());
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()));
    command.arg(format!("--web.listen-address={own}"));
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(log);
    let _prometheus = Beside(command.spawn().unwrap());
    // Prometheus as its users ask it.
    let query = |what: &str| {
        let stream = TcpStream::connect(own).ok()?;
        drop(stream);
        let (status, _, body) = get(own, &format!("/api/v1/query?query={what}"));
        let body = &body[body.find('{')?..=body.rfind('}')?];
        (status == 200).then(|| serde_json::from_str::<Value>(body).ok()).flatten()
    };
    let value = |what: &str| {
        let told = query(what)?;
        let list = told["data"]["result"].as_array()?.clone();
        let values = list.iter().map(|one| one["value"][1].as_str().unwrap_or_default().to_owned());
        Some(values.collect::<Vec<String>>())
    };
    let is = |what: &str, expected: &[&str]| {
        let mut last = None;
        let waited = format!("{what} to be {expected:?}");
        wait_until(&waited, || {
            last = value(what);
            last.as_ref().is_some_and(|found| found.iter().eq(expected)).then_some(())
        });
    };
    is("sum(hot_backup_up)", &["2"]);
    is("sum(hot_backup_ready)", &["1"]);
    is("sum(hot_backup_file_entries_total{file=%22app,orders%22})", &["102"]);
    is("count(hot_backup_stage_seconds_bucket{stage=%22disk%22,le=%22%2BInf%22})", &["2"]);
    // Each panel of the dashboard has something to show.
    for question in crate::dashboard::questions() {
        let encoded: String = question.bytes().map(|byte| format!("%{byte:02X}")).collect();
        wait_until(&format!("an answer to {question}"), || value(&encoded).filter(|found| !found.is_empty()));
    }
    drop(pair);
    is("sum(up)", &["0"]);
}

/// A browser without a window, told what to do over two pipes.
struct Browser {
    to: std::fs::File,
    from: BufReader<std::fs::File>,
    last: u64,
    session: Option<String>,
    /// What pages made it ask for.
    asked: Vec<String>,
    _process: Beside,
    _home: tempfile::TempDir,
}

impl Browser {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let [to, from] = ["to", "from"].map(|name| home.path().join(name));
        for pipe in [&to, &from] {
            nix::unistd::mkfifo(pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        }
        let (profile, errors) = (home.path().join("profile"), home.path().join("errors"));
        let program = crate::support::tool("chromium").unwrap();
        let line = format!(
            "exec {} --headless --no-sandbox --disable-gpu --no-first-run --disable-sync --disable-dev-shm-usage \
             --disable-background-networking --disable-component-update --user-data-dir={} --remote-debugging-pipe \
             3<{} 4>{} 2>{}",
            program.display(),
            profile.display(),
            to.display(),
            from.display(),
            errors.display()
        );
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &line]).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        let process = Beside(command.spawn().unwrap());
        let to = std::fs::File::options().write(true).open(to).unwrap();
        let from = BufReader::new(std::fs::File::open(from).unwrap());
        Self { to, from, last: 0, session: None, asked: Vec::new(), _process: process, _home: home }
    }

    /// Has one thing done, and gives what came of it.
    fn does(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut order = serde_json::json!({"id": self.last, "method": method, "params": params});
        if let Some(session) = &self.session {
            order["sessionId"] = session.clone().into();
        }
        self.to.write_all(format!("{order}\0").as_bytes()).unwrap();
        loop {
            let mut bytes = Vec::new();
            self.from.read_until(0, &mut bytes).unwrap();
            assert_eq!(bytes.pop(), Some(0), "the browser is gone");
            let told: Value = serde_json::from_slice(&bytes).unwrap();
            if told["method"] == "Network.requestWillBeSent" {
                self.asked.push(told["params"]["request"]["url"].as_str().unwrap().to_owned());
            }
            if told["id"] == self.last {
                return told["result"].clone();
            }
        }
    }

    /// The document as it is; nothing while it gives way to another.
    fn document(&mut self) -> String {
        let root = self.does("DOM.getDocument", serde_json::json!({}));
        let node = serde_json::json!({"nodeId": root["root"]["nodeId"]});
        self.does("DOM.getOuterHTML", node)["outerHTML"].as_str().unwrap_or_default().to_owned()
    }

    /// What a page makes of an expression.
    fn evaluate(&mut self, expression: &str) -> Value {
        let params = serde_json::json!({"expression": expression, "returnByValue": true});
        self.does("Runtime.evaluate", params)["result"]["value"].clone()
    }

    /// Presses a key.
    fn presses(&mut self, key: &str, number: u32) {
        for way in ["rawKeyDown", "keyUp"] {
            let stroke =
                serde_json::json!({"type": way, "key": key, "code": key, "windowsVirtualKeyCode": number});
            self.does("Input.dispatchKeyEvent", stroke);
        }
    }

    /// Shows an address in a page of its own, with scripts or without, until that has all of `texts`.
    fn shows(&mut self, address: SocketAddr, scripts: bool, texts: &[&str]) -> String {
        self.session = None;
        let target = self.does("Target.createTarget", serde_json::json!({"url": "about:blank"}));
        let attach = serde_json::json!({"targetId": target["targetId"], "flatten": true});
        let session = self.does("Target.attachToTarget", attach);
        self.session = session["sessionId"].as_str().map(str::to_owned);
        self.does("Network.enable", serde_json::json!({}));
        self.does("Emulation.setScriptExecutionDisabled", serde_json::json!({"value": !scripts}));
        self.does("Page.navigate", serde_json::json!({"url": format!("http://{address}/")}));
        let mut html = String::new();
        wait_until(&format!("the page to show {texts:?}, with scripts: {scripts}"), || {
            html = self.document();
            texts.iter().all(|text| html.contains(text)).then_some(())
        });
        html
    }
}

#[test]
fn tier_the_page_shows_its_figures_with_and_without_a_script_and_asks_nobody_else() {
    tier!("chromium");
    let (pair, [a, _]) = watched();
    let mut browser = Browser::start();
    let sections = ["this node", "its peer", "standby", "Lost if this node died now", "Incidents"];
    browser.shows(a, true, &[&sections[..], &["live, as of"]].concat());
    // What happens is there without loading anew.
    pair.a.done(&["log", "pause"]);
    wait_until("the page to tell of it", || browser.document().contains("logging is paused").then_some(()));
    assert!(browser.asked.iter().any(|url| url.ends_with("/events")), "{:?}", browser.asked);
    let without = browser.shows(a, false, &sections);
    assert!(without.contains("logging is paused") && !without.contains("live, as of"), "{without}");
    let own = format!("http://{a}/");
    let foreign = browser.asked.iter().filter(|url| !url.starts_with(&own) && !url.starts_with("data:"));
    assert_eq!(foreign.count(), 0, "{:?}", browser.asked);
}

/// The page of a node with a spool, and with a reel that is waited for, at the widths of a phone, a tablet and a screen.
#[test]
fn tier_the_page_fits_each_width_in_light_and_dark_and_shows_the_spool_and_reels_that_are_waited_for() {
    tier!("chromium");
    let (pair, [a, _]) = watched();
    let spool = tempfile::tempdir().unwrap();
    let to = format!("file:{}", spool.path().display());
    pair.a.done(&["spool", "start", "--to", &to, "--always"]);
    let request = serde_json::json!({
        "number": 1, "place": "/dev/nst0", "wanted": "reel 2 of night", "purpose": "write", "why": "reel 1 is full",
        "refused": null, "since_ms": 1_767_225_599_000_u64, "pid": std::process::id(),
    });
    std::fs::write(pair.a.dir.join("tape-nst0-request.json"), request.to_string()).unwrap();
    let mut browser = Browser::start();
    let texts = ["Spool and tape", &to, "bring reel 2 of night", "No full copy", "No compare was made yet"];
    browser.shows(a, true, &texts);
    let mut grounds = std::collections::BTreeSet::new();
    for width in [360, 820, 1400] {
        for scheme in ["light", "dark"] {
            let size =
                serde_json::json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
            browser.does("Emulation.setDeviceMetricsOverride", size);
            let media = serde_json::json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
            browser.does("Emulation.setEmulatedMedia", media);
            let beyond = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
            assert_eq!(browser.evaluate(beyond), 0, "it has to be scrolled sideways at {width}");
            assert_eq!(browser.evaluate("innerWidth"), width);
            let ground = "getComputedStyle(document.body).backgroundColor";
            grounds.insert((scheme, browser.evaluate(ground).to_string()));
            is_used_by_keyboard(&mut browser);
            // For people: as text, which `base64 -d` makes a picture of.
            if let Ok(dir) = std::env::var("HB_SCREENSHOTS") {
                let whole = serde_json::json!({"captureBeyondViewport": true});
                let shot = browser.does("Page.captureScreenshot", whole);
                let path = format!("{dir}/page-{width}-{scheme}.base64");
                std::fs::write(path, shot["data"].as_str().unwrap()).unwrap();
            }
        }
    }
    let colours: std::collections::BTreeSet<_> = grounds.iter().map(|(_, colour)| colour).collect();
    assert_eq!((grounds.len(), colours.len()), (2, 2), "{grounds:?}");

    // The table that is read by keyboard is not taken away by the next figures.
    let wide = "document.querySelector('.wide')";
    browser.evaluate(&format!("{wide}.focus(); {wide}.id = 'before'"));
    set(&pair.a, 50, 60);
    wait_until("other figures", || (browser.evaluate(&format!("{wide}.id")) == "").then_some(()));
    assert_eq!(browser.evaluate(&format!("document.activeElement === {wide}")), true);
    // Nothing is read out again and again; that the node is gone is.
    assert_eq!(browser.evaluate("document.querySelectorAll('[role=status], [aria-live]').length"), 0);
    drop(pair);
    let alert = "(document.querySelector('[role=alert]') || document.head).textContent";
    wait_until("the page to say so", || {
        browser.evaluate(alert).as_str().is_some_and(|text| text.contains("does not answer")).then_some(())
    });
}

/// Leads the focus through the whole page by the tab key: each stop is seen, the first one leads to the incidents.
fn is_used_by_keyboard(browser: &mut Browser) {
    browser.does("Emulation.setFocusEmulationEnabled", serde_json::json!({"enabled": true}));
    browser.evaluate(
        "history.replaceState(null, '', '/'); getSelection().empty(); document.activeElement.blur()",
    );
    browser.evaluate(
        "document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex')",
    );
    let held = "(() => { const held = document.activeElement, box = held.getBoundingClientRect(); \
                return [held.className || held.getAttribute('href'), getComputedStyle(held).outlineStyle, \
                box.left >= 0 && box.top >= 0 && box.right <= innerWidth && box.bottom <= innerHeight + 1 && box.width > 0]; })()";
    let mut stops = Vec::new();
    for _ in 0..6 {
        browser.presses("Tab", 9);
        // The page follows the focus.
        let stop = wait_until("what has the focus to be seen", || {
            let stop = browser.evaluate(held);
            (stop[1] == "solid" && stop[2] == true).then_some(stop)
        });
        stops.push(stop[0].as_str().unwrap_or_default().to_owned());
        if stops == ["skip"] {
            browser.does(
                "Input.dispatchKeyEvent",
                serde_json::json!({"type": "keyDown", "key": "Enter", "text": "\r"}),
            );
            wait_until("the incidents", || (browser.evaluate("location.hash") == "#incidents").then_some(()));
            browser.evaluate("document.querySelector('.skip').focus()");
        }
    }
    assert_eq!(stops, ["skip", "wide", "/metrics", "/status.json", "/health", "/ready"]);
}
