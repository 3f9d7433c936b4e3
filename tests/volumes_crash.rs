//! Volumes whose node is killed under load: everything flushed is there, and what is there is the first part of what
//! was written.

use crate::support::{
    Detour, EXPORT, Kernel, Lan, Node, Plan, Safe, Stamper, Volumes, audit_stamps, here, lacking,
    loopback_addresses, make_volume, scratch, serves_volumes_at, shell, some, tier, tool, wait_until,
};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Flushed is what both nodes have, until one is left alone.
fn durable(driver: &'static str) -> Plan {
    // Longer than a primary here goes on unheard, or a disk is slow: what is lowered to level local may be lost.
    Plan::quick().init(&["--ack-level", "durable"]).config("degrade_after_ms = 4000").io(driver)
}

fn taken_over(driver: &'static str) {
    for round in 0..3 {
        let mut volumes = Volumes::start(&durable(driver), "64M");
        let stamper = Stamper::start(volumes.at[0], EXPORT, 0, Safe::Flushed);
        stamper.goes_on(some(100) << (round * 2));
        match round {
            0 => volumes.dies_unheard(Duration::from_secs(1)),
            _ => volumes.pair.a.kill(),
        }
        let told = stamper.run_to_the_end();
        volumes.take_over();
        let there = audit_stamps(volumes.at[1], EXPORT, told);
        println!("{driver}: {told:?}, {there} are there");
        // The survivor goes on from there, alone.
        let stamper = Stamper::start(volumes.at[1], EXPORT, there, Safe::Fua);
        stamper.goes_on(some(50));
        let told = stamper.finish();
        assert_eq!(audit_stamps(volumes.at[1], EXPORT, told), told.sent);
    }
}

fn restarted(driver: &'static str) {
    let root = scratch();
    let [at] = loopback_addresses();
    let plan = Plan::quick().segments("256K").config("checkpoint_ms = 200").io(driver);
    let mut node = Node::alone(root.path().join("node"), &plan);
    serves_volumes_at(&node, at);
    node.start_alone();
    make_volume(&node, "64M");
    let mut there = 0;
    for _ in 0..8 {
        let stamper = Stamper::start(at, EXPORT, there, Safe::Flushed);
        stamper.goes_on(some(300));
        node.kill();
        let told = stamper.run_to_the_end();
        node.start_alone();
        there = audit_stamps(at, EXPORT, told);
        println!("{driver}: {told:?}, {there} are there");
    }
}

fn has_uring() -> bool {
    let root = scratch();
    Node::alone(root.path().join("probe"), &Plan::quick()).has_uring()
}

#[test]
fn tier_volume_of_a_killed_primary_is_on_the_standby_as_far_as_it_was_flushed_epoll() {
    tier!();
    taken_over("epoll");
}

#[test]
fn tier_volume_of_a_killed_primary_is_on_the_standby_as_far_as_it_was_flushed_uring() {
    tier!();
    if !has_uring() {
        return lacking(here!(), "io_uring");
    }
    taken_over("uring");
}

#[test]
fn tier_volume_of_a_node_killed_and_started_again_has_all_that_was_flushed_epoll() {
    tier!();
    restarted("epoll");
}

#[test]
fn tier_volume_of_a_node_killed_and_started_again_has_all_that_was_flushed_uring() {
    tier!();
    if !has_uring() {
        return lacking(here!(), "io_uring");
    }
    restarted("uring");
}

/// A process that does not outlive the test.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn tier_volume_behind_the_retry_filter_of_nbdkit_goes_through_a_takeover_unseen() {
    tier!("nbdkit");
    let mut volumes = Volumes::start(&durable("epoll"), "64M");
    let detour = Detour::start(volumes.at[0]);
    let [at] = loopback_addresses();
    let mut nbdkit = Command::new(tool("nbdkit").unwrap());
    nbdkit.args(["--foreground", "--exit-with-parent", "--newstyle", "--filter=retry"]);
    nbdkit.arg(format!("--ipaddr={}", at.ip())).arg(format!("--port={}", at.port()));
    nbdkit.arg("nbd").arg(format!("uri=nbd://{}/{EXPORT}", detour.address));
    nbdkit.args(["retries=60", "retry-delay=1", "retry-exponential=no"]);
    let _proxy = Proxy(nbdkit.stdin(Stdio::null()).spawn().unwrap());
    wait_until("nbdkit to listen", || TcpStream::connect(at).ok());
    // Writes that were answered and not made safe are not sent again by the filter: each is to be safe by itself.
    let stamper = Stamper::start(at, EXPORT, 0, Safe::Fua);
    stamper.goes_on(some(1000));
    volumes.dies_unheard(Duration::from_millis(1500));
    // At first it is read-only there.
    detour.lead_to(volumes.at[1]);
    let before = stamper.safe();
    volumes.take_over();
    // Not so many that they cover up what came before.
    stamper.goes_on(some(50));
    let told = stamper.finish();
    assert!(before < told.safe);
    assert_eq!(audit_stamps(volumes.at[1], EXPORT, told), told.sent);
}

/// Makes file systems and goes on filling them with trees; says of each when it is synced.
const FILL: &str = r#"
attach app/disk1 10809 /dev/nbd0
attach app/disk2 10809 /dev/nbd1
mkfs.ext4 -q /dev/nbd0
mkfs.xfs -q -f /dev/nbd1
mount -t ext4 /dev/nbd0 /run/ext4
mount -t xfs /dev/nbd1 /run/xfs
for ((n = 1; ; n++)); do
    for disk in ext4 xfs; do
        mkdir /run/$disk/$n
        tar -C /run/$disk/$n -xf /run/shared/tree.tar
        rm -rf /run/$disk/$((n - 3))
        sync -f /run/$disk
    done
    touch /run/shared/synced-$n
done
"#;

/// Finds the file systems whole, and the last trees that were synced and not removed since.
const CHECK: &str = r#"
attach app/disk1 10810 /dev/nbd0
attach app/disk2 10810 /dev/nbd1
mkdir -p /run/tree
mount -t tmpfs tree /run/tree
tar -C /run/tree -xf /run/shared/tree.tar
mount -t ext4 /dev/nbd0 /run/ext4
mount -t xfs /dev/nbd1 /run/xfs
last=$(ls /run/shared | sed -n s/synced-//p | sort -n | tail -1)
for disk in ext4 xfs; do
    diff -r /run/tree /run/$disk/$last
    diff -r /run/tree /run/$disk/$((last - 1))
    umount /run/$disk
done
e2fsck -f -n /dev/nbd0
xfs_repair -n /dev/nbd1
"#;

#[test]
fn tier_volume_with_a_file_system_of_a_real_kernel_is_whole_after_a_takeover() {
    tier!(
        "root",
        "ip",
        "nsenter",
        "python3",
        "linux.uml",
        "nbd-client",
        "mkfs.ext4",
        "mkfs.xfs",
        "xfs_repair"
    );
    if !Path::new("/dev/net/tun").exists() {
        return lacking(here!(), "/dev/net/tun");
    }
    let mut volumes = Volumes::start(&durable("epoll").segments("16M"), "256M");
    volumes.pair.a.done(&["file", "create", "app,disk2", "--blocks", "--size", "512M", "--flags", "L"]);
    volumes.pair.converges();
    let dir = scratch();
    let tree = dir.path().join("tree.tar");
    let source = env!("CARGO_MANIFEST_DIR");
    shell(&["tar", "-C", source, "-cf", tree.to_str().unwrap(), "src", "tests", "Cargo.toml"]);
    let lan = Lan::new(&[&volumes.pair.a, &volumes.pair.b].map(|node| node.dir.join("nbd.sock")));
    let mut kernel = Kernel::boot(&lan, dir.path(), FILL);
    kernel.makes("synced-4");
    std::thread::sleep(Duration::from_millis(some(100)));
    volumes.dies_unheard(Duration::from_secs(3));
    volumes.take_over();
    kernel.kill();
    Kernel::boot(&lan, dir.path(), CHECK).ends();
}
