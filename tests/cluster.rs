//! The agent in a real cluster of corosync and Pacemaker, in namespaces: the primary's process is killed, its machine put
//! in standby, the cluster in maintenance, and its machine cut off and fenced. Clients write to whichever node takes it.
//! The third vote is that of a machine or of a quorum device, by the toss of a coin.

use crate::layering::root;
use crate::support::cluster::{Cluster, NAMES, Third};
use crate::support::history::{self, History};
use crate::support::{Node, Pair, Plan, program, shell, some, tier, wait_until};

/// The resource, and the fencing device, as the cluster's configuration has them.
fn resources(directory: [&str; 2]) -> String {
    let [a, b] = directory;
    let pair = |id: &str, name: &str, value: &str| {
        format!("<nvpair id=\"{id}-{name}\" name=\"{name}\" value=\"{value}\"/>")
    };
    let rule = |name: &str, dir: &str| {
        format!(
            "<instance_attributes id=\"at-{name}\"><rule id=\"rule-{name}\" score=\"INFINITY\"><expression id=\"is-{name}\" \
             attribute=\"#uname\" operation=\"eq\" value=\"{name}\"/></rule>{}</instance_attributes>",
            pair(&format!("at-{name}"), "directory", dir)
        )
    };
    let common = [("binary", program()), ("user", "root"), ("lease", "8")];
    let common: String = common.iter().map(|(name, value)| pair("db", name, value)).collect();
    format!(
        "<resources><primitive id=\"fence\" class=\"stonith\" type=\"fence_test\"><instance_attributes id=\"fence-at\">{}{}\
         </instance_attributes></primitive><clone id=\"dbs\"><meta_attributes id=\"dbs-meta\">{}{}{}{}</meta_attributes>\
         <primitive id=\"db\" class=\"ocf\" provider=\"hot-backup\" type=\"hot-backup\">{}{}\
         <instance_attributes id=\"db-at\">{common}</instance_attributes><operations>\
         <op id=\"m1\" name=\"monitor\" interval=\"2s\" timeout=\"10s\" role=\"Promoted\"/>\
         <op id=\"m2\" name=\"monitor\" interval=\"3s\" timeout=\"10s\" role=\"Unpromoted\"/></operations>\
         <meta_attributes id=\"db-meta\">{}{}</meta_attributes></primitive></clone></resources>",
        pair("fence", "pcmk_host_list", &NAMES.join(" ")),
        pair("fence", "pcmk_host_check", "static-list"),
        pair("dbs", "promotable", "true"),
        pair("dbs", "promoted-max", "1"),
        pair("dbs", "clone-max", "2"),
        pair("dbs", "interleave", "true"),
        rule(NAMES[0], a),
        rule(NAMES[1], b),
        pair("db", "migration-threshold", "1"),
        pair("db", "failure-timeout", "5s"),
    )
}

/// Waits until this node follows, and nothing in the cluster says that it may lack something.
fn follows(cluster: &Cluster, n: usize, node: &Node, primary: &Node) {
    node.status("to follow", |status| status["state"] == "standby" && status["peer"]["connected"] == true);
    primary.status("to be whole", |status| {
        let lease = &status["lease"];
        lease["holds"] == true
            && lease["whole"] == true
            && lease["alone"] == false
            && lease["lowered"] == false
    });
    let query = ["--lifetime", "forever", "--name", "hot-backup-behind", "--query", "--quiet"];
    let words = [&["crm_attribute", "--node", NAMES[n]], &query[..]].concat();
    wait_until("the node to lack nothing", || {
        (cluster.says(1 - n, &words).is_none_or(|said| said.trim() != "true")).then_some(())
    });
}

/// What a node says of its lease: whether it holds one, its clock, the seconds that are left.
fn lease(node: &Node) -> (bool, u64, f64) {
    let view = node.json(&["lease"]);
    (view["holds"] == true, view["clock"].as_u64().unwrap(), view["seconds_left"].as_f64().unwrap())
}

/// Waits until a lease was renewed once more.
fn is_renewed(node: &Node, history: &History) {
    let (_, mut clock, mut left) = lease(node);
    wait_until("the lease to be renewed", || {
        let (holds, later, more) = lease(node);
        assert!(holds, "it ended");
        // Had nobody renewed it, so much would be left.
        #[allow(clippy::cast_precision_loss, reason = "a test's microseconds")]
        let expected = left - (later - clock) as f64 / 1e6;
        (clock, left) = (later, more);
        (more > expected + 0.5).then_some(())
    });
    history.goes_on_at(0, 50);
}

/// Maintenance mode ends all monitors: the node goes on by what a person granted it, and then by the agent's own grant.
fn maintained(cluster: &Cluster, node: &Node, history: &History) {
    let mode = |to: &str| {
        cluster.done(
            0,
            &["crm_attribute", "--type", "crm_config", "--name", "maintenance-mode", "--update", to],
        );
    };
    mode("true");
    // A monitor that was under way may still grant the agent's 8 s.
    wait_until("the last monitor", || {
        node.done(&["lease", "--grant", "60"]);
        let (_, from, _) = lease(node);
        wait_until("the time between two monitors", || (lease(node).1 > from + 2_500_000).then_some(()));
        (lease(node).2 > 50.0).then_some(())
    });
    // Had anybody looked since, it would have that little again; without the person's word its time would be over.
    let (_, from, _) = lease(node);
    wait_until("the agent's time to be over", || (lease(node).1 > from + 8_000_000).then_some(()));
    let (holds, _, left) = lease(node);
    assert!(holds && left > 30.0, "{left}");
    history.goes_on_at(0, 50);
    mode("false");
    wait_until("the agent's own grant", || (lease(node).2 <= 8.0).then_some(()));
    history.goes_on_at(0, 50);
}

#[test]
fn tier_pacemaker_moves_the_role_and_nothing_acknowledged_is_lost() {
    tier!(
        "root",
        "ip",
        "nsenter",
        "unshare",
        "corosync",
        "corosync-qdevice",
        "corosync-qnetd",
        "pacemakerd",
        "crm_mon",
        "cibadmin",
        "crm_attribute"
    );
    let shared = tempfile::tempdir().unwrap();
    shell(&["chmod", "755", shared.path().to_str().unwrap()]);
    let third = if some(2) == 2 { Third::Machine } else { Third::Device };
    eprintln!("the third vote is that of a {third:?}");
    let mut cluster = Cluster::new(shared.path(), third);
    let plan = Plan::quick()
        .init(&["--ack-level", "durable"])
        .config("decider = \"lease\"")
        .config("peer_timeout_ms = 1000")
        .config("degrade_after_ms = 500");
    let pair = Pair::set_up_at(cluster.links(), &plan);
    let directory = [&pair.a, &pair.b].map(|node| node.dir.to_str().unwrap());
    cluster.on(&root().join("packaging/ocf/hot-backup"));
    for (name, value) in [("no-quorum-policy", "stop"), ("stonith-enabled", "true"), ("dc-deadtime", "5s")] {
        cluster.done(0, &["crm_attribute", "--type", "crm_config", "--name", name, "--update", value]);
    }
    if third == Third::Machine {
        cluster.done(0, &["crm_attribute", "--node", NAMES[2], "--name", "standby", "--update", "on"]);
    }
    cluster.done(0, &["cibadmin", "--replace", "--scope", "resources", "--xml-text", &resources(directory)]);
    pair.a.serves();
    pair.a.make_orders();
    follows(&cluster, 1, &pair.b, &pair.a);
    let doors = [pair.a.door.clone(), pair.b.door.clone()];

    // Its process is killed.
    let history = History::start(4, &doors);
    history.goes_on_at(0, usize::try_from(some(100)).unwrap());
    let process = std::fs::read_to_string(pair.a.dir.join("lock")).unwrap();
    cluster.done(0, &["kill", "-9", process.trim()]);
    history.goes_on_at(1, 100);
    follows(&cluster, 0, &pair.a, &pair.b);

    // Its machine goes to standby: the role moves, and nothing is even unanswered.
    cluster.done(0, &["crm_attribute", "--node", NAMES[1], "--name", "standby", "--update", "on"]);
    history.goes_on_at(0, 100);
    cluster.done(0, &["crm_attribute", "--node", NAMES[1], "--name", "standby", "--update", "off"]);
    follows(&cluster, 1, &pair.b, &pair.a);

    // The resource is left alone: its monitors go on, and renew. Then the whole cluster is: a person renews.
    let role = history.by(1);
    cluster.done(
        0,
        &["crm_resource", "--resource", "dbs", "--meta", "--set-parameter", "is-managed", "-v", "false"],
    );
    is_renewed(&pair.a, &history);
    cluster.done(0, &["crm_resource", "--resource", "dbs", "--meta", "--delete-parameter", "is-managed"]);
    maintained(&cluster, &pair.a, &history);
    assert_eq!(history.by(1), role, "the role moved");

    // Cut off from the cluster and from its peer, it stops; it is fenced, and the other one begins.
    history.goes_on_at(0, 100);
    cluster.cut(0);
    history.goes_on_at(1, 100);
    wait_until("the machine to be fenced", || cluster.is_off(0).then_some(()));
    let told = history.finish();
    history::check(&told, &pair.b.door);
    eprintln!("{:?} without an answer, at most", history::pause(&told));
}
