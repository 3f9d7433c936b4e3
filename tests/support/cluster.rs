//! A real cluster of corosync and Pacemaker: two machines that may have the resource, and a third that votes, as one of the
//! cluster's or as its quorum device. Each is a set of namespaces: network, mounts, processes, host name. Fencing one ends all its processes, as a power switch would.

use super::etcd::{Running, run};
use super::{shell, tool, wait_until};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Becomes the first process of a machine: NAME SHARED THIRD, the latter how the third machine votes.
const MACHINE: &str = r#"#!/bin/sh
name=$1 shared=$2 third=$3
mount --make-rprivate /
hostname "$name"
for dir in /dev/shm /var/lib/pacemaker /var/lib/corosync /etc/corosync /var/log; do
    mount -t tmpfs none "$dir"
done
mkdir -p /var/log/pacemaker /var/log/corosync /var/log/cluster
for dir in cib pengine cores blackbox; do mkdir -p "/var/lib/pacemaker/$dir"; done
chown -R hacluster:haclient /var/lib/pacemaker /var/log/pacemaker
own=$shared/own-$name
mkdir -p "$own"
cp -a /usr/lib/ocf/resource.d "$own/"
mkdir -p "$own/resource.d/hot-backup" "$own/upper" "$own/work"
cp "$shared/agent" "$own/resource.d/hot-backup/hot-backup"
mount --bind "$own/resource.d" /usr/lib/ocf/resource.d
# Pacemaker looks for fencing agents in one place only.
mkdir -p "$own/sbin"
for file in /usr/sbin/*; do ln -s "$shared/sbin/${file##*/}" "$own/sbin/" 2>/dev/null; done
mkdir -p "$shared/sbin"
cp "$shared/fence" "$own/sbin/fence_test"
mount --bind /usr/sbin "$shared/sbin"
mount --bind "$own/sbin" /usr/sbin
mount -t tmpfs none /run
mkdir -p /run/lock /run/resource-agents /run/crm
chown hacluster:haclient /run/crm
if [ "$name" = hb-c ] && [ "$third" = device ]; then
    mkdir -p /run/corosync-qnetd
    exec corosync-qnetd -f -s off >"$shared/qnetd.log" 2>&1
fi
cp "$shared/corosync.conf" /etc/corosync/
corosync -f >"$shared/corosync-$name.log" 2>&1 &
# Without quorum it ends with 2.
until corosync-quorumtool >/dev/null 2>&1 || [ $? -eq 2 ]; do sleep 0.1; done
if [ "$third" = device ]; then
    mkdir -p /run/corosync-qdevice
    corosync-qdevice -f >"$shared/qdevice-$name.log" 2>&1 &
fi
pacemakerd >"$shared/pacemaker-$name.log" 2>&1 &
wait
"#;

/// A fencing agent: asks the test to switch a machine off, and waits until it has.
const FENCE: &str = r#"#!/bin/sh
shared=SHARED
while read -r line; do
    case $line in
    action=*) action=${line#action=} ;;
    port=* | plug=* | nodename=*) plug=${line#*=} ;;
    esac
done
for word in "$@"; do case $word in metadata) action=metadata ;; esac; done
case $action in
metadata)
    cat <<XML
<?xml version="1.0" ?>
<resource-agent name="fence_test" shortdesc="test">
<longdesc>test</longdesc>
<parameters>
<parameter name="action" required="1"><content type="string" default="reboot"/></parameter>
<parameter name="port" required="1"><content type="string"/></parameter>
</parameters>
<actions>
<action name="off"/><action name="reboot"/><action name="on"/><action name="monitor"/><action name="list"/>
<action name="metadata"/><action name="status"/>
</actions>
</resource-agent>
XML
    ;;
off | reboot)
    : >"$shared/fence-$plug"
    until [ -e "$shared/fenced-$plug" ]; do sleep 0.05; done
    ;;
esac
exit 0
"#;

/// How the third machine votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Third {
    /// As a machine of the cluster.
    Machine,
    /// As a quorum device, which the two others ask.
    Device,
}

/// The names of the machines; only the first two may have the resource.
pub(crate) const NAMES: [&str; 3] = ["hb-a", "hb-b", "hb-c"];

fn address(n: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 214, 0, u8::try_from(n + 1).unwrap()))
}

/// The cluster.
pub(crate) struct Cluster {
    shared: PathBuf,
    spaces: Vec<String>,
    machines: Arc<Mutex<Vec<Option<Running>>>>,
    power: Option<JoinHandle<()>>,
    third: Third,
}

fn enter(space: &str) -> Vec<String> {
    vec!["nsenter".to_owned(), format!("--net=/run/netns/{space}")]
}

impl Cluster {
    /// The networks; no machine is on.
    pub(crate) fn new(shared: &Path, third: Third) -> Self {
        let process = std::process::id();
        let spaces: Vec<String> = ["s", "a", "b", "c"].map(|end| format!("hc{process}{end}")).to_vec();
        let cluster =
            Self { shared: shared.to_owned(), spaces, machines: Arc::default(), power: None, third };
        for space in &cluster.spaces {
            shell(&["ip", "netns", "add", space]);
        }
        cluster.at(0, &["ip", "link", "add", "br0", "type", "bridge"]);
        cluster.at(0, &["ip", "link", "set", "br0", "up"]);
        for (n, space) in cluster.spaces.iter().enumerate().skip(1) {
            let port = format!("port{n}");
            cluster
                .at(0, &["ip", "link", "add", &port, "type", "veth", "peer", "name", "wire", "netns", space]);
            cluster.at(0, &["ip", "link", "set", &port, "master", "br0", "up"]);
            cluster.at(n, &["ip", "link", "set", "lo", "up"]);
            cluster.at(n, &["ip", "address", "add", &format!("{}/24", address(n - 1)), "dev", "wire"]);
            cluster.at(n, &["ip", "link", "set", "wire", "up"]);
        }
        cluster
    }

    fn at(&self, space: usize, words: &[&str]) {
        let enter = enter(&self.spaces[space]);
        shell(&[&enter.iter().map(String::as_str).collect::<Vec<_>>()[..], words].concat());
    }

    /// Where the nodes receive from each other.
    pub(crate) fn links(&self) -> [SocketAddr; 2] {
        [0, 1].map(|n| SocketAddr::new(address(n), 2000))
    }

    /// The machines that corosync and Pacemaker know.
    fn members(&self) -> &'static [&'static str] {
        match self.third {
            Third::Machine => &NAMES,
            Third::Device => &NAMES[..2],
        }
    }

    fn config(&self) -> String {
        let node = |(n, name): (usize, &&str)| {
            let address = address(n);
            format!(
                "    node {{\n        ring0_addr: {address}\n        name: {name}\n        nodeid: {}\n    }}\n",
                n + 1
            )
        };
        let nodes: String = self.members().iter().enumerate().map(node).collect();
        let device = match self.third {
            Third::Machine => String::new(),
            Third::Device => format!(
                "    device {{\n        model: net\n        votes: 1\n        net {{\n            host: {}\n            tls: off\n            \
                 algorithm: ffsplit\n        }}\n    }}\n",
                address(2)
            ),
        };
        format!(
            "totem {{\n    version: 2\n    cluster_name: hb\n    transport: udpu\n    token: 1000\n}}\nnodelist {{\n{nodes}}}\n\
             quorum {{\n    provider: corosync_votequorum\n{device}}}\nlogging {{\n    to_stderr: yes\n    to_syslog: no\n}}\n"
        )
    }

    /// Switches all machines on.
    pub(crate) fn on(&mut self, agent: &Path) {
        let put = |name: &str, text: &str| {
            let path = self.shared.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        put("corosync.conf", &self.config());
        put("machine", MACHINE);
        put("fence", &FENCE.replace("SHARED", self.shared.to_str().unwrap()));
        std::fs::copy(agent, self.shared.join("agent")).unwrap();
        for (n, name) in NAMES.into_iter().enumerate() {
            let log = self.shared.join(format!("machine-{name}.log"));
            let machine = self.shared.join("machine");
            let words =
                ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--mount-proc", "--kill-child"];
            let third = if self.third == Third::Device { "device" } else { "machine" };
            let own = ["sh", machine.to_str().unwrap(), name, self.shared.to_str().unwrap(), third];
            let running = run(&enter(&self.spaces[n + 1]), &[&words[..], &own].concat(), (&log, &log));
            self.machines.lock().unwrap().push(Some(running));
        }
        self.power = Some(self.switches());
        wait_until("the cluster to be there", || {
            let said = self.says(0, &["crm_mon", "-1"])?;
            let online = format!("Online: [ {} ]", self.members().join(" "));
            (said.contains("partition with quorum") && said.contains(&online)).then_some(())
        });
    }

    /// Switches machines off when a fencing agent asks for it.
    fn switches(&self) -> JoinHandle<()> {
        let (shared, machines) = (self.shared.clone(), Arc::clone(&self.machines));
        thread::spawn(move || {
            while !machines.lock().unwrap().is_empty() {
                for (n, name) in NAMES.into_iter().enumerate() {
                    if shared.join(format!("fence-{name}")).exists() {
                        if let Some(machine) = machines.lock().unwrap().get_mut(n) {
                            *machine = None;
                        }
                        let _ = std::fs::write(shared.join(format!("fenced-{name}")), "");
                    }
                }
                thread::sleep(Duration::from_millis(50));
            }
        })
    }

    /// Whether a machine was switched off.
    pub(crate) fn is_off(&self, n: usize) -> bool {
        self.machines.lock().unwrap()[n].is_none()
    }

    /// What a command on a machine prints, if it succeeds.
    pub(crate) fn says(&self, n: usize, words: &[&str]) -> Option<String> {
        let first = {
            let machines = self.machines.lock().unwrap();
            let running = machines.get(n)?.as_ref()?.id();
            // nsenter, which became unshare, and what that started.
            let children =
                std::fs::read_to_string(format!("/proc/{running}/task/{running}/children")).ok()?;
            children.split_whitespace().next()?.to_owned()
        };
        let output = Command::new(tool("nsenter")?)
            .args(["-t", &first, "-a"])
            .args(words)
            .stdin(Stdio::null())
            .output()
            .ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The same of one that must succeed.
    #[track_caller]
    pub(crate) fn done(&self, n: usize, words: &[&str]) {
        wait_until(&format!("{words:?} on machine {n}"), || self.says(n, words));
    }

    /// Nothing comes to or from a machine any more.
    pub(crate) fn cut(&self, n: usize) {
        self.at(0, &["ip", "link", "set", &format!("port{}", n + 1), "down"]);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.says(1, &["crm_mon", "-1", "-A", "-f"]).unwrap_or_default());
            for name in NAMES {
                for what in ["machine", "pacemaker"] {
                    let path = self.shared.join(format!("{what}-{name}.log"));
                    let text = std::fs::read_to_string(&path).unwrap_or_default();
                    let lines: Vec<&str> = text.lines().collect();
                    eprintln!("{}:\n{}", path.display(), lines[lines.len().saturating_sub(15)..].join("\n"));
                }
            }
        }
        self.machines.lock().unwrap().clear();
        if let Some(power) = self.power.take() {
            let _ = power.join();
        }
        for space in &self.spaces {
            let _ = Command::new("ip").args(["netns", "delete", space]).stderr(Stdio::null()).status();
        }
    }
}
