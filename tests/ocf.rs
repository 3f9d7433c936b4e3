//! The Pacemaker agent: `ocf-tester` finds no fault with it, and each action does what it says on a real pair.

use crate::layering::root;
use crate::support::{Node, Pair, Plan, program, shell, tier, wait_until};
use std::process::{Command, Stdio};

const SUCCESS: i32 = 0;
const GENERIC: i32 = 1;
const CONFIGURED: i32 = 6;
const NOT_RUNNING: i32 = 7;
const PROMOTED: i32 = 8;
const FAILED_PROMOTED: i32 = 9;

fn agent() -> String {
    root().join("packaging/ocf/hot-backup").display().to_string()
}

/// A node that the agent starts and stops.
struct Managed<'a> {
    node: &'a Node,
    lease: &'static str,
}

impl Managed<'_> {
    fn parameters(&self) -> Vec<(&'static str, String)> {
        vec![
            ("binary", program().to_owned()),
            ("directory", self.node.dir.display().to_string()),
            ("user", "root".to_owned()),
            ("lease", self.lease.to_owned()),
            ("standalone", "true".to_owned()),
        ]
    }

    /// One action; its exit code.
    fn does(&self, action: &str, more: &[(&str, &str)]) -> i32 {
        let log = self.node.dir.with_extension("agent");
        let log = std::fs::File::options().append(true).create(true).open(log).unwrap();
        let mut command = Command::new(agent());
        command.arg(action).env("OCF_ROOT", "/usr/lib/ocf").env("OCF_RESOURCE_INSTANCE", "db");
        command.env("OCF_RESOURCE_TYPE", "hot-backup").env("OCF_RESKEY_crm_feature_set", "3.16.2");
        for (name, value) in self.parameters() {
            command.env(format!("OCF_RESKEY_{name}"), value);
        }
        command.envs(more.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.status().unwrap().code().expect("it ends by itself")
    }

    fn monitor(&self) -> i32 {
        self.does("monitor", &[])
    }

    /// As Pacemaker does it again and again where the node is promoted.
    fn monitor_promoted(&self) -> i32 {
        let role = [("OCF_RESKEY_CRM_meta_role", "Promoted"), ("OCF_RESKEY_CRM_meta_interval", "5000")];
        self.does("monitor", &role)
    }
}

impl Drop for Managed<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = std::fs::read_to_string(self.node.dir.with_extension("agent")).unwrap_or_default();
            let log = std::fs::read_to_string(self.node.dir.join("serve.log")).unwrap_or_default();
            eprintln!("{}: {said}\n{log}", self.node.dir.display());
        }
        self.does("stop", &[]);
    }
}

fn pair() -> Pair {
    let plan = Plan::quick().init(&["--ack-level", "durable"]).config("decider = \"lease\"");
    Pair::set_up(&plan.config("peer_timeout_ms = 1000").config("degrade_after_ms = 500"))
}

#[test]
fn tier_ocf_tester_finds_no_fault_with_the_agent() {
    tier!("root", "ocf-tester");
    let mut pair = pair();
    pair.b.start();
    let managed = Managed { node: &pair.a, lease: "30" };
    let mut words: Vec<String> = ["ocf-tester", "-v", "-n", "db"].map(str::to_owned).to_vec();
    for (name, value) in managed.parameters() {
        words.extend(["-o".to_owned(), format!("{name}={value}")]);
    }
    words.push(agent());
    let said = shell(&words.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(said.contains("passed all tests"), "{said}");
}

#[test]
fn tier_the_agent_promotes_renews_demotes_and_moves_the_role() {
    tier!("root", "ocf-tester");
    let pair = pair();
    let [a, b] = [&pair.a, &pair.b].map(|node| Managed { node, lease: "3600" });
    assert_eq!((a.monitor(), b.monitor()), (NOT_RUNNING, NOT_RUNNING));
    assert_eq!((a.does("start", &[]), b.does("start", &[])), (SUCCESS, SUCCESS));
    // A primary without a lease is not promoted: nobody said that it may accept updates.
    assert_eq!((a.monitor(), b.monitor()), (SUCCESS, SUCCESS));
    assert_eq!(a.does("promote", &[]), SUCCESS);
    assert_eq!((a.monitor_promoted(), b.monitor()), (PROMOTED, SUCCESS));
    pair.a.serves();
    pair.a.make_orders();
    pair.converges();
    // A demotion gives the role away; the promotion of the other finds it there.
    assert_eq!(a.does("demote", &[]), SUCCESS);
    assert_eq!(a.monitor(), SUCCESS);
    assert_eq!(b.does("promote", &[]), SUCCESS);
    assert_eq!((a.monitor(), b.monitor_promoted()), (SUCCESS, PROMOTED));
    pair.b.serves();
    // The primary dies, and what Pacemaker would have fenced is replaced.
    wait_until("the standby to follow", || (pair.a.state() == "standby").then_some(()));
    let died = std::fs::read_to_string(pair.b.dir.join("lock")).unwrap();
    shell(&["kill", "-9", died.trim()]);
    wait_until("its end", || (b.monitor() == NOT_RUNNING).then_some(()));
    assert_eq!(a.does("promote", &[]), SUCCESS);
    assert_eq!(a.monitor_promoted(), PROMOTED);
    pair.a.serves();
    assert_eq!(b.does("start", &[]), SUCCESS);
    pair.b.status("to follow", |status| status["state"] == "standby");
    assert_eq!((a.does("stop", &[]), a.monitor()), (SUCCESS, NOT_RUNNING));
    assert_eq!(a.does("stop", &[]), SUCCESS);
}

#[test]
fn tier_a_promoted_node_that_is_monitored_no_more_stops_by_itself() {
    tier!("root", "ocf-tester");
    let mut pair = pair();
    pair.b.start();
    let a = Managed { node: &pair.a, lease: "2" };
    assert_eq!(a.does("start", &[]), SUCCESS);
    assert_eq!(a.does("promote", &[]), SUCCESS);
    pair.a.status("to have no lease", |status| status["state"] == "no-lease");
    // To Pacemaker that is a promoted node which has failed.
    assert_eq!(a.monitor_promoted(), FAILED_PROMOTED);
    assert_eq!(a.does("promote", &[]), SUCCESS);
    assert_eq!(a.monitor_promoted(), PROMOTED);
}

#[test]
fn tier_the_agent_refuses_settings_that_cannot_be_right() {
    tier!("root", "ocf-tester");
    let pair = Pair::set_up(&Plan::quick());
    let a = Managed { node: &pair.a, lease: "30" };
    // It does not have decider = "lease".
    assert_eq!(a.does("validate-all", &[]), CONFIGURED);
    assert_eq!(a.does("start", &[]), CONFIGURED);
    pair.a.configure(&["decider = \"lease\""]);
    assert_eq!(a.does("validate-all", &[]), SUCCESS);
    assert_eq!(a.does("validate-all", &[("OCF_RESKEY_lease", "soon")]), CONFIGURED);
    assert_eq!(a.does("validate-all", &[("OCF_RESKEY_directory", "/nowhere")]), CONFIGURED);
    assert_eq!(a.does("promote", &[]), GENERIC);
    assert_eq!(a.does("demote", &[]), NOT_RUNNING);
}
