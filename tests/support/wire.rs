//! Two network namespaces of our own with a wire between them that can be cut, slowed and made to lose packets.

use super::shell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

/// Not by `ip netns exec`, which gives the process copies of all mounts: a disk that another test unmounts would stay.
fn enter(name: &str) -> [String; 2] {
    ["nsenter".to_owned(), format!("--net=/run/netns/{name}")]
}

/// There until it is dropped. Needs root, ip, nsenter, and tc or nft.
pub(crate) struct Wire {
    /// The names of the namespaces.
    pub(crate) ends: [String; 2],
}

/// The end's address on the wire.
fn address(end: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 213, 0, end + 1)
}

impl Wire {
    /// A whole one.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let (process, next) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // Held before anything is made: whatever was made is undone when a step fails.
        let wire = Self { ends: ["a", "b"].map(|end| format!("hb{process}-{next}{end}")) };
        for name in &wire.ends {
            shell(&["ip", "netns", "add", name]);
            wire.at(name, &["ip", "link", "set", "lo", "up"]);
        }
        let [a, b] = &wire.ends;
        wire.at(a, &["ip", "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", b]);
        for (end, name) in (0..).zip(&wire.ends) {
            wire.at(name, &["ip", "address", "add", &format!("{}/24", address(end)), "dev", "wire"]);
            wire.at(name, &["ip", "link", "set", "wire", "up"]);
        }
        wire
    }

    /// Where the nodes at the two ends receive from each other.
    pub(crate) fn links(&self) -> [SocketAddr; 2] {
        [0, 1].map(|end| SocketAddr::new(IpAddr::V4(address(end)), 2000))
    }

    /// What a node at an end is started through.
    pub(crate) fn through(&self, end: usize) -> Vec<String> {
        enter(&self.ends[end]).to_vec()
    }

    fn at(&self, name: &str, words: &[&str]) -> String {
        let enter = enter(name);
        shell(&[&enter.each_ref().map(String::as_str)[..], words].concat())
    }

    /// Packets that come in at both ends and match `rule` are dropped, beginning now.
    fn drops(&self, rule: &str) {
        for name in &self.ends {
            let rules = format!(
                "table inet hb {{ chain come {{ type filter hook input priority 0; iifname wire {rule} counter drop; }}; }}"
            );
            self.at(name, &["nft", &rules]);
        }
    }

    /// Nothing comes through any more; nobody is told.
    pub(crate) fn cut(&self) {
        self.drops("");
    }

    /// So many of a hundred packets get lost.
    pub(crate) fn loses(&self, percent: u8) {
        self.drops(&format!("numgen random mod 100 < {percent}"));
    }

    /// No more than this comes through, as `tc` writes it.
    pub(crate) fn slow(&self, rate: &str) {
        for name in &self.ends {
            let slow = ["tc", "qdisc", "add", "dev", "wire", "root", "tbf", "rate", rate];
            self.at(name, &[&slow[..], &["burst", "16kb", "latency", "100ms"]].concat());
        }
    }

    /// As [`Self::slow`] no more.
    pub(crate) fn fast(&self) {
        for name in &self.ends {
            self.at(name, &["tc", "qdisc", "del", "dev", "wire", "root"]);
        }
    }

    /// Packets dropped since [`Self::cut`] or [`Self::loses`].
    pub(crate) fn dropped(&self) -> u64 {
        let dropped = |name: &String| {
            let rules = self.at(name, &["nft", "list", "table", "inet", "hb"]);
            let mut words = rules.split_whitespace().skip_while(|word| *word != "packets").skip(1);
            words.next().and_then(|count| count.parse::<u64>().ok()).expect("a rule that counts")
        };
        self.ends.iter().map(dropped).sum()
    }

    /// Nothing is dropped any more.
    pub(crate) fn mend(&self) {
        for name in &self.ends {
            self.at(name, &["nft", "delete", "table", "inet", "hb"]);
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for name in &self.ends {
            // One that was not made yet is not there to be deleted.
            let _ = Command::new("ip").args(["netns", "delete", name]).stderr(Stdio::null()).status();
        }
    }
}
