//! The units of the packages under a real systemd, with all their hardening: nodes and watches that are killed are started
//! again, and after the power was cut each node comes back in the role that is its own.

use crate::packages::files;
use crate::support::machine::Machine;
use crate::support::{tier, wait_until};
use serde_json::Value;
use std::path::PathBuf;

/// One member is a majority of itself.
const ETCD: &str = "[Service]\nExecStart=/usr/bin/etcd --data-dir /var/lib/etcd-test\n[Install]\nWantedBy=multi-user.target\n";

/// A node keeps its lease while it is started again; who stops for good is replaced once its watch is gone.
const WATCH: &str = "OPTIONS=\"--etcd http://127.0.0.1:2379 --ttl 6 --release-after 60\"\n";

/// As the user of the package.
const NODES: &str = r#"
make() {
    runuser -u hot-backup -- hot-backup init --dir "/var/lib/hot-backup-$1" --name "$1" --role "$2" --link-listen "$3" \
        --peer "$4" --set decider=lease --set heartbeat_ms=100 --set peer_timeout_ms=1000 --set degrade_after_ms=500 --ack-level durable
}
chown hot-backup:hot-backup /var/lib/hot-backup-a /var/lib/hot-backup-b
make a primary 127.0.0.1:2001 127.0.0.1:2002
make b standby 127.0.0.1:2002 127.0.0.1:2001
identity() { runuser -u hot-backup -- hot-backup identity --dir "/var/lib/hot-backup-$1"; }
runuser -u hot-backup -- hot-backup trust --dir /var/lib/hot-backup-a "$(identity b)"
runuser -u hot-backup -- hot-backup trust --dir /var/lib/hot-backup-b "$(identity a)"
# Its password is one that only root reads.
sed -i 's|^# end$|[[notify]]\nname = "mail"\nkind = "mail"\nserver = "127.0.0.1:1"\nfrom = "a@example.org"\nto = ["b@example.org"]\nuser = "a"\npassword_file = "/run/credentials/hot-backup@a.service/mail"\n# end|' \
    /var/lib/hot-backup-a/config.toml
systemctl enable --now etcd-test hot-backup@a hot-backup@b hot-backup-watch@a hot-backup-watch@b
"#;

fn dir(name: &str) -> PathBuf {
    PathBuf::from(format!("/var/lib/hot-backup-{name}"))
}

#[track_caller]
fn waits(machine: &Machine, name: &str, what: &str, good: impl Fn(&Value) -> bool) -> Value {
    wait_until(&format!("{name} {what}"), || machine.json(&dir(name), "status").filter(|status| good(status)))
}

fn serves_with_its_peer(status: &Value) -> bool {
    let lease = &status["lease"];
    status["state"] == "serving"
        && lease["whole"] == true
        && lease["alone"] == false
        && lease["lowered"] == false
}

fn follows(status: &Value) -> bool {
    status["state"] == "standby" && status["peer"]["connected"] == true
}

#[test]
fn tier_under_systemd_what_is_killed_starts_again_and_after_a_power_cut_nobody_has_a_role_that_it_lost() {
    tier!("root", "systemctl", "unshare", "nsenter", "ip", "etcd", "runuser");
    let state = ["hot-backup-a", "hot-backup-b", "etcd-test"];
    let settings =
        [("hot-backup/watch-a", WATCH), ("hot-backup/watch-b", WATCH), ("hot-backup/mail", "hunter2\n")];
    let mut machine = Machine::new(&files(), &state, &settings);
    machine.unit("etcd-test.service", ETCD);
    machine.unit("hot-backup@a.service.d/mail.conf", "[Service]\nLoadCredential=mail:/etc/hot-backup/mail\n");
    machine.on();
    machine.done(NODES);
    waits(&machine, "a", "serves", serves_with_its_peer);
    let targets = machine.json(&dir("a"), "notify list").expect("its notify list");
    assert_eq!(targets[0]["name"], "mail", "{targets}");
    machine.done(
        "hot-backup account create app --dir /var/lib/hot-backup-a
         hot-backup file create app,orders --records --flags L --ack applied --dir /var/lib/hot-backup-a
         hot-backup item put app,orders 1 kept --dir /var/lib/hot-backup-a",
    );
    assert_eq!(machine.done("hot-backup item get app,orders 1 --dir /var/lib/hot-backup-b").trim(), "kept");
    let log = machine.done("journalctl -o cat -u hot-backup@a");
    assert!(!log.contains("epoll"), "the unit lets it use io_uring as it is used without:\n{log}");

    // A watch and a node that die are started again, within the lease.
    for unit in ["hot-backup-watch@a", "hot-backup@a"] {
        machine.done(&format!("systemctl kill -s KILL {unit}"));
        wait_until(&format!("{unit} to be started again"), || {
            let said = machine.says(&format!(
                "echo $(systemctl show -P NRestarts {unit}) $(systemctl show -P ActiveState {unit})"
            ))?;
            (said.trim() == "1 active").then_some(())
        });
        waits(&machine, "a", "serves again", serves_with_its_peer);
    }

    // It dies for good, and its control file says that it is the primary.
    machine.done("systemctl kill -s KILL hot-backup@a; systemctl stop hot-backup@a hot-backup-watch@a");
    let before = waits(&machine, "b", "takes over", |status| status["state"] == "serving");
    machine.done("hot-backup item put app,orders 2 newer --dir /var/lib/hot-backup-b");
    machine.off();
    machine.on();
    waits(&machine, "b", "serves after the power was back", serves_with_its_peer);
    let status = waits(&machine, "a", "follows after the power was back", follows);
    assert!(status["epoch"].as_u64() > before["epoch"].as_u64(), "{status}");
    for name in ["a", "b"] {
        let item = format!("hot-backup item get app,orders 2 --dir {}", dir(name).display());
        assert_eq!(machine.done(&item).trim(), "newer");
    }
    // It never served in between.
    let told = machine.json(&dir("a"), "incidents").expect("what it told since its start");
    let kinds: Vec<&str> = told.as_array().unwrap().iter().filter_map(|one| one["kind"].as_str()).collect();
    assert!(kinds.contains(&"standby") && !kinds.contains(&"epoch") && !kinds.contains(&"serving"), "{told}");
    machine.done("systemctl stop 'hot-backup-watch@*' 'hot-backup@*'");
    let failed = machine.done("systemctl list-units --failed --plain --no-legend 'hot-backup*'");
    assert_eq!(failed.trim(), "");
}
