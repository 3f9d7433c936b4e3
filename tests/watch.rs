//! Two real nodes, each with a watch, and three members of etcd: the primary is killed, frozen, cut off; watches die and
//! hang. Clients write to whichever node takes it; nothing that was acknowledged is lost, and no two nodes acknowledge.

use crate::support::etcd::{Etcd, Watch, run};
use crate::support::history::{self, History};
use crate::support::{Door, Node, Pair, Plan, Wire, loopback_addresses, shell, some, tier, wait_until};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

/// What the lease lasts in these tests (seconds).
const TTL: &str = "3";

fn plan() -> Plan {
    Plan::quick()
        .init(&["--ack-level", "durable"])
        .config("decider = \"lease\"")
        .config("peer_timeout_ms = 1000")
        .config("degrade_after_ms = 500")
}

/// A pair with all that decides about it.
struct Decided {
    pair: Pair,
    watches: [Watch; 2],
    etcd: Etcd,
    wire: Option<Wire>,
}

fn served(pair: &mut Pair, urls: &str, more: &[&str]) -> [Watch; 2] {
    pair.a.start();
    pair.b.start();
    let words = [&["--ttl", TTL], more].concat();
    let watches = [Watch::start(&pair.a, urls, &words), Watch::start(&pair.b, urls, &words)];
    pair.a.serves();
    pair.a.make_orders();
    pair.connected();
    // Only then the other one may take over.
    may_take_over(&pair.a);
    watches
}

/// Waits until nothing is written down that keeps the other node from taking over.
fn may_take_over(node: &Node) {
    node.status("to be whole", |status| {
        let lease = &status["lease"];
        lease["holds"] == true
            && lease["whole"] == true
            && lease["alone"] == false
            && lease["lowered"] == false
    });
}

impl Decided {
    /// On loopback.
    fn start(more: &[&str]) -> Self {
        let etcd = Etcd::start(&[], loopback_addresses());
        let mut pair = Pair::set_up(&plan());
        let watches = served(&mut pair, &etcd.urls(), more);
        let decided = Self { pair, watches, etcd, wire: None };
        decided.records_say("\"alone\":false");
        decided
    }

    /// The primary at one end of a wire, the standby and etcd at the other.
    fn apart(more: &[&str]) -> Self {
        let wire = Wire::new();
        let [_, there] = wire.links();
        let address = |port| SocketAddr::new(there.ip(), port);
        let etcd = Etcd::start(&wire.through(1), [2379, 2479, 2579, 2380, 2480, 2580].map(address));
        let mut pair = Pair::set_up_at(wire.links(), &plan());
        pair.a.through = wire.through(0);
        pair.b.through = wire.through(1);
        let watches = served(&mut pair, &etcd.urls(), more);
        let decided = Self { pair, watches, etcd, wire: Some(wire) };
        decided.records_say("\"alone\":false");
        decided
    }

    fn through(&self) -> Vec<String> {
        self.wire.as_ref().map_or_else(Vec::new, |wire| wire.through(1))
    }

    /// Waits until what stands in etcd has this in it.
    #[track_caller]
    fn records_say(&self, part: &str) {
        wait_until(&format!("etcd to hold {part}"), || {
            self.etcd.get(&self.through(), "/hot-backup")?.contains(part).then_some(())
        });
    }

    fn history(&self) -> History {
        History::start(4, &[self.pair.a.door.clone(), self.pair.b.door.clone()])
    }
}

#[test]
fn tier_a_primary_that_dies_is_replaced_at_once_and_nothing_acknowledged_is_lost() {
    tier!("etcd", "etcdctl");
    let mut decided = Decided::start(&["--release-after", "0"]);
    let history = decided.history();
    history.goes_on_at(0, usize::try_from(some(200)).unwrap());
    let died = Instant::now();
    decided.pair.a.kill();
    let (_, text) = decided.watches[1].has_told("taken-over", "b is primary");
    let first = history.first_at(1, died);
    history.goes_on_at(1, 200);
    let told = history.finish();
    history::check(&told, &decided.pair.b.door);
    let (taken, _) = decided.watches[1].has_told("holds", "b may accept");
    let (free, _) = decided.watches[0].has_told("released", "process has ended");
    eprintln!(
        "{:?} from death to the first write there (the promise is lowered after 0.5 s); of it {} ms from the free lease \
         to the new primary's; {text}",
        first - died,
        taken.saturating_sub(free)
    );
    // It comes back as the standby, and is given the role by itself when the other goes.
    decided.pair.a.start();
    decided
        .pair
        .a
        .status("to follow", |status| status["state"] == "standby" && status["peer"]["connected"] == true);
    may_take_over(&decided.pair.b);
    decided.records_say("\"alone\":false");
    let history = decided.history();
    history.goes_on_at(1, 100);
    decided.pair.b.kill();
    history.goes_on_at(0, 100);
    let more = history.finish();
    history::check(&[told, more].concat(), &decided.pair.a.door);
}

#[test]
fn tier_a_primary_that_is_cut_off_from_etcd_and_its_peer_stops_before_the_other_begins() {
    tier!("root", "ip", "nsenter", "nft", "etcd", "etcdctl");
    let decided = Decided::apart(&[]);
    let history = decided.history();
    history.goes_on_at(0, usize::try_from(some(200)).unwrap());
    let wire = decided.wire.as_ref().unwrap();
    wire.cut();
    // Its promise is not lowered: nobody wrote down that it may be. It stops, and says so, before the other begins.
    decided.pair.a.status("to have no lease", |status| status["state"] == "no-lease");
    assert_eq!(history.by(1), 0, "the other began first");
    decided.pair.a.incident("lease-over");
    history.goes_on_at(1, 200);
    wire.mend();
    decided
        .pair
        .a
        .status("to follow", |status| status["state"] == "standby" && status["peer"]["connected"] == true);
    history.goes_on_at(1, 100);
    let told = history.finish();
    history::check(&told, &decided.pair.b.door);
    assert!(decided.pair.a.diverged().is_empty(), "something was acknowledged to nobody, and is not there");
}

#[test]
fn tier_a_watch_that_dies_costs_the_primary_its_role_and_not_an_update() {
    tier!("etcd", "etcdctl");
    let mut decided = Decided::start(&[]);
    let history = decided.history();
    history.goes_on_at(0, 100);
    // One that is started again within the lease goes on where it was.
    decided.watches[0].kill();
    decided.watches[0].again();
    history.goes_on_at(0, 300);
    decided.watches[0].kill();
    decided.watches[1].has_told("taken-over", "nothing is lost");
    history.goes_on_at(1, 100);
    decided.pair.a.status("to follow", |status| status["state"] == "standby");
    let told = history.finish();
    history::check(&told, &decided.pair.b.door);
}

#[test]
fn tier_a_primary_that_is_frozen_longer_than_its_lease_acknowledges_nothing_when_it_wakes() {
    tier!("etcd", "etcdctl");
    let decided = Decided::start(&[]);
    let history = decided.history();
    history.goes_on_at(0, usize::try_from(some(200)).unwrap());
    // Its watch goes on: what it grants waits in the socket until the node wakes, and is worth nothing then.
    decided.pair.a.signal(Signal::SIGSTOP);
    history.goes_on_at(1, 100);
    decided.pair.a.signal(Signal::SIGCONT);
    decided
        .pair
        .a
        .status("to follow", |status| status["state"] == "standby" && status["peer"]["connected"] == true);
    history.goes_on_at(1, 100);
    // The watch hangs, and its node with it.
    may_take_over(&decided.pair.b);
    decided.records_say("\"alone\":false");
    decided.watches[1].signal(Signal::SIGSTOP);
    decided.pair.b.signal(Signal::SIGSTOP);
    history.goes_on_at(0, 100);
    decided.watches[1].signal(Signal::SIGCONT);
    decided.pair.b.signal(Signal::SIGCONT);
    decided
        .pair
        .b
        .status("to follow", |status| status["state"] == "standby" && status["peer"]["connected"] == true);
    history.goes_on_at(0, 100);
    let told = history.finish();
    history::check(&told, &decided.pair.a.door);
}

#[test]
fn tier_a_standby_that_lacks_what_was_acknowledged_does_not_take_over_and_says_why() {
    tier!("etcd", "etcdctl");
    let mut decided = Decided::start(&["--release-after", "0"]);
    decided.pair.b.kill();
    let history = decided.history();
    // At level local, once that is written down.
    history.goes_on_at(0, 100);
    decided.records_say("\"alone\":true");
    let told = history.finish();
    decided.pair.a.kill();
    decided.pair.b.start();
    decided.watches[1].has_told("waits", "a recorded that b may lack updates that were acknowledged");
    assert_ne!(decided.pair.b.state(), "serving");
    decided.pair.a.start();
    decided.pair.a.serves();
    history::check(&told, &decided.pair.a.door);
    may_take_over(&decided.pair.a);
}

#[test]
fn tier_a_takeover_waits_for_a_fence_that_succeeds() {
    tier!("etcd", "etcdctl");
    let fence = tempfile::NamedTempFile::new().unwrap();
    let path = fence.path().to_str().unwrap();
    let words =
        ["--release-after", "0", "--fence", "/bin/grep", "--fence-arg", "-q", "--fence-arg", "fenced"];
    let mut decided = Decided::start(&[&words[..], &["--fence-arg", path]].concat());
    decided.pair.a.kill();
    decided.watches[1].has_told("fence-failed", "no takeover: /bin/grep: exit status: 1");
    assert_eq!(decided.pair.b.state(), "standby");
    std::fs::write(path, "fenced\n").unwrap();
    decided.watches[1].has_told("taken-over", "b is primary");
    decided.pair.b.serves();
}

/// The part of HAProxy's config that the page shows, with these addresses, for nodes without a password.
fn asking_role(entry: SocketAddr, doors: [&Door; 2]) -> String {
    let page = crate::docs::read("docs/automatic-takeover.md");
    let part =
        page.split("```text\n").find(|part| part.starts_with("listen hot-backup\n")).expect("the part");
    let mut part = part.split("```").next().unwrap().replace("bind :6379", &format!("bind {entry}"));
    for (shown, door) in ["10.0.0.1:7001", "10.0.0.2:7001"].into_iter().zip(doors) {
        let Door::Tcp(door) = door else { unreachable!("its clients come over TCP") };
        assert!(part.contains(shown), "{part}");
        part = part.replace(shown, &door.to_string());
    }
    let lines = part.lines().filter(|line| !line.contains("AUTH") && !line.contains("+OK"));
    let named = lines.map(|line| line.replace("listen hot-backup", "listen by-role"));
    named.map(|line| line + "\n").collect()
}

#[test]
fn tier_a_real_haproxy_leads_clients_to_the_node_that_took_over() {
    tier!("etcd", "etcdctl", "haproxy");
    let etcd = Etcd::start(&[], loopback_addresses());
    let mut pair = Pair::set_up(&plan());
    let [http_a, http_b, entry, by_role] = loopback_addresses();
    for (node, http) in [(&pair.a, http_a), (&pair.b, http_b)] {
        node.configure(&[format!("http_listen = \"{http}\"")]);
    }
    let _watches = served(&mut pair, &etcd.urls(), &["--release-after", "0"]);
    let server = |name: &str, door: &Door, http: SocketAddr| match door {
        Door::Tcp(door) => format!("server {name} {door} check addr {} port {}", http.ip(), http.port()),
        Door::Unix(_) => unreachable!("its clients come over TCP"),
    };
    let config = format!(
        "defaults\n mode tcp\n timeout connect 1s\n timeout client 1m\n timeout server 1m\n\
         listen hot-backup\n bind {entry}\n option httpchk\n\
         http-check send meth GET uri /ready hdr Host localhost\n http-check expect status 200\n\
         default-server inter 200ms fall 1 rise 1 on-marked-down shutdown-sessions\n {}\n {}\n",
        server("a", &pair.a.door, http_a),
        server("b", &pair.b.door, http_b)
    ) + &asking_role(by_role, [&pair.a.door, &pair.b.door]);
    let file = pair.a.dir.with_extension("haproxy");
    std::fs::write(&file, config).unwrap();
    let log = pair.a.dir.with_extension("haproxy-log");
    let _haproxy = run(&[], &["haproxy", "-db", "-f", file.to_str().unwrap()], (&log, &log));
    // As the page shows it, by what the nodes say of their role.
    let leads_to = |name: &str| {
        wait_until(&format!("the way by roles to lead to {name}"), || {
            let client = redis::Client::open(format!("redis://{by_role}")).ok()?;
            let mut connection = client.get_connection_with_timeout(Duration::from_secs(5)).ok()?;
            let info: String = redis::cmd("INFO").query(&mut connection).ok()?;
            let there = [format!("hot_backup_node:{name}\r\n"), "role:master\r\n".to_owned()];
            there.iter().all(|line| info.contains(line)).then_some(())
        });
    };
    leads_to("a");
    // Clients know one address.
    let history = History::start(4, &[Door::Tcp(entry)]);
    history.goes_on_at(0, 200);
    pair.a.kill();
    pair.b.serves();
    history.goes_on_at(0, 200);
    let told = history.finish();
    leads_to("b");
    history::check(&told, &pair.b.door);
    let epochs: BTreeSet<u64> = told.iter().map(|acked| acked.epoch).collect();
    assert_eq!(epochs.len(), 2, "{epochs:?}");
    eprintln!("{:?} without an answer, through HAProxy", history::pause(&told));
}

#[test]
fn tier_a_watch_proves_itself_to_etcd_by_certificate_and_password() {
    tier!("etcd", "etcdctl");
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
    let [client, peer] = loopback_addresses();
    let names = vec![client.ip().to_string(), "localhost".to_owned()];
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    // Where etcd has users, its gateway takes no certificate with a common name.
    params.distinguished_name = rcgen::DistinguishedName::new();
    let cert = params.self_signed(&key).unwrap();
    let secret = |name: &str, text: &str| {
        std::fs::write(path(name), text).unwrap();
        shell(&["chmod", "600", &path(name)]);
        path(name)
    };
    let (cert, key) = (secret("cert.pem", &cert.pem()), secret("key.pem", &key.serialize_pem()));
    let (right, wrong) = (secret("password", "let me in\n"), secret("wrong", "let me out\n"));
    let (url, log) = (format!("https://{client}"), root.path().join("log"));
    let own = format!("http://{peer}");
    let words = [
        ["etcd", "--data-dir", &path("data"), "--listen-client-urls", &url, "--advertise-client-urls", &url],
        ["--cert-file", &cert, "--key-file", &key, "--client-cert-auth", "--trusted-ca-file", &cert],
        [
            "--listen-peer-urls",
            &own,
            "--initial-advertise-peer-urls",
            &own,
            "--initial-cluster",
            &format!("default={own}"),
            "--name=default",
        ],
    ];
    let _etcd = run(&[], &words.concat(), (&log, &log));
    let ctl = |words: &[&str]| {
        let tls = ["etcdctl", "--endpoints", &url, "--cacert", &cert, "--cert", &cert, "--key", &key];
        let words = [&tls[..], words].concat();
        wait_until(&format!("{words:?}"), || {
            let done = Command::new(words[0]).args(&words[1..]).env("ETCDCTL_API", "3").output().unwrap();
            (done.status.success() || String::from_utf8_lossy(&done.stderr).contains("already")).then_some(())
        });
    };
    ctl(&["user", "add", "root:let me in"]);
    ctl(&["user", "grant-role", "root", "root"]);
    ctl(&["auth", "enable"]);
    let mut pair = Pair::set_up(&plan());
    pair.a.start();
    pair.b.start();
    let tls =
        ["--ttl", TTL, "--ca", &cert, "--cert", &cert, "--key", &key, "--user", "root", "--password-file"];
    let refused = Watch::start(&pair.a, &url, &[&tls[..], &[&wrong]].concat());
    refused.has_told("error", "etcd refuses");
    assert_eq!(pair.a.state(), "no-lease");
    drop(refused);
    let _watch = Watch::start(&pair.a, &url, &[&tls[..], &[&right]].concat());
    pair.a.serves();
}

#[test]
fn tier_one_member_of_etcd_less_changes_nothing_and_two_less_stop_updates() {
    tier!("etcd", "etcdctl");
    let mut decided = Decided::start(&[]);
    let history = decided.history();
    history.goes_on_at(0, 100);
    // The one that both ask first.
    decided.etcd.members.remove(0);
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        history.goes_on_at(0, 10);
    }
    assert_eq!(history.by(1), 0, "a member that was lost moved the role");
    decided.etcd.members.remove(0);
    decided.pair.a.status("to have no lease", |status| status["state"] == "no-lease");
    let told = history.finish();
    assert_eq!(decided.pair.b.state(), "standby");
    history::check(&told, &decided.pair.a.door);
}
