//! A machine that a real systemd boots: namespaces of its own, over this system's files without changing them. The power
//! can be cut; what its units were told, and what nodes and etcd keep, outlives that.

use super::etcd::{Running, run};
use super::{program, shell, tool, wait_until};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

/// In namespaces for mounts, processes, network: makes the root, and becomes systemd. BASE.
const BOOT: &str = r#"
set -eu
base=$1 layer=$1/layer
umask 022
mount -t tmpfs none "$layer"
mkdir "$layer/upper" "$layer/work" "$layer/whole"
cp -a "$base/put/." "$layer/upper/"
whole=$layer/whole
mount -t overlay overlay -o "lowerdir=/,upperdir=$layer/upper,workdir=$layer/work" "$whole"
# Nothing of the services that this system has.
: >"$whole/etc/fstab"
mount -t tmpfs none "$whole/etc/init.d"
mount --bind "$base/units" "$whole/etc/systemd/system"
for dir in "$base"/state/*; do
    mkdir -p "$whole/var/lib/${dir##*/}"
    mount --bind "$dir" "$whole/var/lib/${dir##*/}"
done
mount -t proc proc "$whole/proc"
mount -t sysfs -o ro sysfs "$whole/sys"
mount -t cgroup2 none "$whole/sys/fs/cgroup"
for dir in run tmp dev var/log; do mount -t tmpfs none "$whole/$dir"; done
for device in null zero full random urandom tty; do
    : >"$whole/dev/$device"
    mount --bind "/dev/$device" "$whole/dev/$device"
done
mkdir "$whole/dev/pts" "$whole/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$whole/dev/pts"
ln -s pts/ptmx "$whole/dev/ptmx"
ip link set lo up
cd "$whole"
mkdir -p mnt
pivot_root . mnt
exec chroot . /bin/sh -euc 'umount -l /mnt
# As a container manager does: what systemd mounts for a unit has to be seen by it.
mount --make-rshared /
systemd-sysusers hot-backup.conf
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-target=console --show-status=no'
"#;

/// Becomes [`BOOT`] in a group of processes of its own. BASE NAME BOOT.
const POWER: &str = r#"
set -eu
mount -t cgroup2 none "$1/groups"
mkdir "$1/groups/$2"
echo $$ >"$1/groups/$2/cgroup.procs"
exec unshare --mount --pid --net --uts --ipc --cgroup --fork --kill-child sh -c "$3" boot "$1"
"#;

/// Removes what the kernel keeps of such a group. BASE NAME.
const TIDY: &str = r#"
mount -t cgroup2 none "$1/groups"
find "$1/groups/$2" -depth -type d -exec rmdir {} +
"#;

/// The machine.
pub(crate) struct Machine {
    base: tempfile::TempDir,
    group: String,
    power: Option<Running>,
}

impl Machine {
    /// One with what the packages install. `state` names directories below `/var/lib` that outlive its power; `put` are
    /// files in `/etc`. It is off.
    pub(crate) fn new(packaged: &[[String; 3]], state: &[&str], put: &[(&str, &str)]) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let base = tempfile::tempdir().unwrap();
        // Users of the machine go through it.
        shell(&["chmod", "755", base.path().to_str().unwrap()]);
        let at = |name: &str| base.path().join(name);
        for name in ["layer", "groups", "units", "put", "state"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        for name in state {
            std::fs::create_dir(at("state").join(name)).unwrap();
        }
        let file = |path: PathBuf| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        };
        for [from, to, _] in packaged.iter().filter(|[from, ..]| from.starts_with("packaging/")) {
            std::fs::copy(crate::layering::root().join(from), file(at("put").join(to))).unwrap();
        }
        std::fs::copy(program(), file(at("put/usr/bin/hot-backup"))).unwrap();
        // Without one systemd takes this for its first time, and begins all services that are installed.
        let identity = [("machine-id", "0123456789abcdef0123456789abcdef\n")];
        for (name, text) in identity.iter().chain(put) {
            std::fs::write(file(at("put/etc").join(name)), text).unwrap();
        }
        Self { base, group: format!("hb{}-{next}", std::process::id()), power: None }
    }

    fn log(&self) -> PathBuf {
        self.base.path().join("log")
    }

    /// A unit of its own, or a part of one.
    pub(crate) fn unit(&self, name: &str, text: &str) {
        let path = self.base.path().join("units").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Switches it on, and waits until systemd answers.
    #[track_caller]
    pub(crate) fn on(&mut self) {
        let base = self.base.path().to_str().unwrap();
        let log = self.log();
        let words = ["unshare", "--mount", "sh", "-c", POWER, "power", base, &self.group, BOOT];
        self.power = Some(run(&[], &words, (&log, &log)));
        wait_until("systemd to answer", || {
            let said = self.says("systemctl is-system-running || true")?;
            ["running", "degraded", "starting"].contains(&said.trim()).then_some(())
        });
    }

    /// Cuts its power: every process in it is gone at once.
    pub(crate) fn off(&mut self) {
        self.power = None;
        let base = self.base.path().to_str().unwrap();
        let words = ["--mount", "sh", "-c", TIDY, "tidy", base, &self.group];
        wait_until("the last process to be gone", || {
            let mut tidy = Command::new(tool("unshare")?);
            let done = tidy.args(words).stdout(Stdio::null()).stderr(Stdio::null()).status();
            done.ok()?.success().then_some(())
        });
    }

    /// The first process in it.
    fn first(&self) -> Option<String> {
        let outer = self.power.as_ref()?.id();
        let path = format!("/proc/{outer}/task/{outer}/children");
        std::fs::read_to_string(path).ok()?.split_whitespace().next().map(str::to_owned)
    }

    fn does(&self, script: &str) -> Option<Output> {
        let mut command = Command::new(tool("nsenter")?);
        command.args(["-t", &self.first()?, "-m", "-u", "-i", "-n", "-p", "sh", "-euc", script]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null()).output().ok()
    }

    /// What a script in it prints, if it succeeds.
    pub(crate) fn says(&self, script: &str) -> Option<String> {
        let output = self.does(script)?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The same of one that must succeed.
    #[track_caller]
    pub(crate) fn done(&self, script: &str) -> String {
        let output = self.does(script).expect("the machine is on");
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {}\n{err}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a node in it says.
    pub(crate) fn json(&self, dir: &Path, words: &str) -> Option<serde_json::Value> {
        let output = self.does(&format!("hot-backup {words} --json --dir {}", dir.display()))?;
        serde_json::from_slice(&output.stdout).ok()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let units = "'hot-backup*' etcd-test.service";
            let said =
                self.says(&format!("systemctl --no-pager status {units} || true; journalctl -o cat -n 80"));
            eprintln!("{}", said.unwrap_or_default());
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("{}", lines[lines.len().saturating_sub(30)..].join("\n"));
        }
        self.off();
    }
}
