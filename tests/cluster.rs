//! The agent in a real cluster of corosync and Pacemaker, in namespaces: the primary's process is killed, its machine put
//! in standby, the cluster in maintenance, and its machine cut off and fenced. Clients write to whichever node takes it.

use crate::layering::root;
use crate::support::cluster::{Cluster, NAMES};
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

/// Waits until this node follows and may take over.
fn follows(node: &Node, primary: &Node) {
    node.status("to follow", |status| status["state"] == "standby" && status["peer"]["connected"] == true);
    primary.status("to be whole", |status| {
        let lease = &status["lease"];
        lease["holds"] == true
            && lease["whole"] == true
            && lease["alone"] == false
            && lease["lowered"] == false
    });
}

#[test]
fn tier_pacemaker_moves_the_role_and_nothing_acknowledged_is_lost() {
    tier!(
        "root",
        "ip",
        "nsenter",
        "unshare",
        "corosync",
        "pacemakerd",
        "crm_mon",
        "cibadmin",
        "crm_attribute"
    );
    let shared = tempfile::tempdir().unwrap();
    shell(&["chmod", "755", shared.path().to_str().unwrap()]);
    let mut cluster = Cluster::new(shared.path());
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
    cluster.done(0, &["crm_attribute", "--node", NAMES[2], "--name", "standby", "--update", "on"]);
    cluster.done(0, &["cibadmin", "--replace", "--scope", "resources", "--xml-text", &resources(directory)]);
    pair.a.serves();
    pair.a.make_orders();
    follows(&pair.b, &pair.a);
    let doors = [pair.a.door.clone(), pair.b.door.clone()];

    // Its process is killed.
    let history = History::start(4, &doors);
    history.goes_on_at(0, usize::try_from(some(100)).unwrap());
    let process = std::fs::read_to_string(pair.a.dir.join("lock")).unwrap();
    cluster.done(0, &["kill", "-9", process.trim()]);
    history.goes_on_at(1, 100);
    follows(&pair.a, &pair.b);

    // Its machine goes to standby: the role moves, and nothing is even unanswered.
    cluster.done(0, &["crm_attribute", "--node", NAMES[1], "--name", "standby", "--update", "on"]);
    history.goes_on_at(0, 100);
    cluster.done(0, &["crm_attribute", "--node", NAMES[1], "--name", "standby", "--update", "off"]);
    follows(&pair.b, &pair.a);

    // Cut off from the cluster and from its peer, it stops; it is fenced, and the other one begins.
    history.goes_on_at(0, 100);
    cluster.cut(0);
    history.goes_on_at(1, 100);
    wait_until("the machine to be fenced", || cluster.is_off(0).then_some(()));
    let told = history.finish();
    history::check(&told, &pair.b.door);
    eprintln!("{:?} without an answer, at most", history::pause(&told));
}
