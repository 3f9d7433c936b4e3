//! What the packages install, and that one can be installed, used, upgraded and removed.

use crate::layering::root;
use crate::support::{program, shell, tier};
use std::path::Path;
use std::process::Command;

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The list of `packaging/files`: from, to, mode.
pub(crate) fn files() -> Vec<[String; 3]> {
    let text = read("packaging/files");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap()).collect()
}

#[test]
fn every_way_to_a_package_installs_the_same_files_and_all_of_them_are_there() {
    let cargo: toml::Table = read("Cargo.toml").parse().unwrap();
    let metadata = &cargo["package"]["metadata"];
    let deb = metadata["deb"]["assets"].as_array().unwrap().iter().map(|asset| {
        let part = |at: usize| asset[at].as_str().unwrap().to_owned();
        [part(0), part(1), part(2)]
    });
    let rpm = metadata["generate-rpm"]["assets"].as_array().unwrap().iter().map(|asset| {
        let part = |name: &str| asset[name].as_str().unwrap().to_owned();
        [part("source"), part("dest").trim_start_matches('/').to_owned(), part("mode")]
    });
    let expected = files();
    assert!(expected.len() > 10);
    assert_eq!(deb.collect::<Vec<_>>(), expected);
    assert_eq!(rpm.collect::<Vec<_>>(), expected);
    for [from, ..] in expected.iter().filter(|[from, ..]| !from.starts_with("target/")) {
        assert!(root().join(from).is_file(), "{from}");
    }
}

#[test]
fn the_units_of_one_node_and_of_several_differ_by_their_places_alone() {
    let body = |text: &str| text.split_once('\n').unwrap().1.to_owned();
    for (unit, places) in [
        (
            "hot-backup",
            &[
                ("/var/lib/hot-backup", "/var/lib/hot-backup-%i"),
                ("StateDirectory=hot-backup\n", "StateDirectory=hot-backup-%i\n"),
                ("Description=hot-backup node\n", "Description=hot-backup node %i\n"),
            ][..],
        ),
        (
            "hot-backup-watch",
            &[
                ("/var/lib/hot-backup", "/var/lib/hot-backup-%i"),
                ("/etc/hot-backup/watch", "/etc/hot-backup/watch-%i"),
                ("target hot-backup.service\n", "target hot-backup@%i.service\n"),
                ("Description=hot-backup watch\n", "Description=hot-backup watch %i\n"),
            ],
        ),
    ] {
        let (one, several) =
            (read(&format!("packaging/{unit}.service")), read(&format!("packaging/{unit}@.service")));
        let mut named = body(&one);
        for (place, of_several) in places {
            assert!(named.contains(place), "{unit}: {place}");
            named = named.replace(place, of_several);
        }
        assert_eq!(named, body(&several));
    }
    let node = read("packaging/hot-backup.service");
    for words in ["Type=notify\n", "WatchdogSec=", "DeviceAllow=char-st rw\n", "User=hot-backup\n"] {
        assert!(node.contains(words), "{words}");
    }
    assert!(!node.contains("PrivateDevices="), "tape drives would not be seen");
    // A primary accepts updates only while its watch runs.
    let watch = read("packaging/hot-backup-watch.service");
    for words in
        ["Restart=always\n", "StartLimitIntervalSec=0\n", "User=hot-backup\n", "PrivateDevices=yes\n"]
    {
        assert!(watch.contains(words), "{words}");
    }
}

const UNITS: [&str; 4] =
    ["hot-backup.service", "hot-backup@.service", "hot-backup-watch.service", "hot-backup-watch@.service"];

#[test]
fn tier_the_units_are_hardened_and_well_formed() {
    tier!("systemd-analyze");
    let dir = tempfile::tempdir().unwrap();
    for unit in UNITS {
        let path = root().join("packaging").join(unit);
        // 20 is an exposure of 2.0; above it the command fails.
        shell(&["systemd-analyze", "security", "--offline=true", "--threshold=20", path.to_str().unwrap()]);
        let text = read(&format!("packaging/{unit}")).replace("/usr/bin/hot-backup", program());
        let text =
            text.lines().filter(|line| !line.starts_with("Documentation=")).collect::<Vec<_>>().join("\n");
        let there = dir.path().join(unit.replace('@', "@x"));
        std::fs::write(&there, text).unwrap();
        shell(&["systemd-analyze", "verify", there.to_str().unwrap()]);
    }
}

/// A Debian in a directory of its own. All that was started in it ends with the command that started it.
struct Debian<'a>(&'a Path);

impl Debian<'_> {
    #[track_caller]
    fn run(&self, script: &str) -> String {
        let root = self.0.to_str().unwrap();
        let inside = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc"];
        let begin = format!(
            "mount -t proc proc '{root}/proc' && mount --bind /dev '{root}/dev' && ip link set lo up && \
             exec chroot '{root}' /bin/sh -euc \"$1\" sh"
        );
        let words =
            [&["timeout", "--kill-after=5", "170"], &inside[..], &["sh", "-euc", &begin, "sh", script]]
                .concat();
        shell(&words)
    }
}

/// The pair that is set up by a code, as the user of the package, without systemd.
const PAIR: &str = r#"
as() { runuser -u hot-backup -- "$@"; }
A=/var/lib/hot-backup B=/var/lib/hot-backup-b
rm -f /tmp/code
install -d -o hot-backup -g hot-backup -m 700 $B
as hot-backup setup --dir $A --role primary --name a --listen 127.0.0.1:2001 --peer 127.0.0.1:2002 --offer >/tmp/code &
first=$!
until grep -q code /tmp/code; do kill -0 $first; sleep 0.1; done
sed 's/code: //' /tmp/code | as hot-backup setup --dir $B --role standby --name b --listen 127.0.0.1:2002 --peer 127.0.0.1:2001 --join
wait
"#;

/// Both nodes serve, a value goes in at one and comes out at the other.
const WORK: &str = r#"
as() { runuser -u hot-backup -- "$@"; }
A=/var/lib/hot-backup B=/var/lib/hot-backup-b
as hot-backup serve --dir $B 2>/tmp/b.log & b=$!
as hot-backup serve --dir $A 2>/tmp/a.log & a=$!
as hot-backup setup --check --patience 60 --dir $A
if ! as hot-backup file list --dir $A | grep -q app,orders; then
    as hot-backup account create app --dir $A
    as hot-backup file create app,orders --records --flags L --ack applied --dir $A
fi
as hot-backup item put app,orders "$VERSION" "value $VERSION" --dir $A
as hot-backup item get app,orders "$VERSION" --dir $B
as hot-backup status --check --dir $A
kill $a $b; wait $a $b || true
"#;

#[test]
fn tier_packages_install_into_a_clean_system_start_a_pair_upgrade_and_are_removed() {
    tier!("root", "debootstrap", "dpkg-deb", "rpm", "rpmbuild", "unshare", "chroot", "strip", "ip");
    let dir = tempfile::tempdir().unwrap();
    let system = dir.path().join("debian");
    let made = dir.path().join("made");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["run", "--quiet", "--profile", "test", "--example", "package-files", "--"])
        .arg(&made)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let versions = ["0.0.1", env!("CARGO_PKG_VERSION")];
    let package = |kind: &str, version: &str| {
        let build = root().join(format!("tools/build_{kind}.sh"));
        let out = dir.path().join(format!("hot-backup_{version}.{kind}"));
        let words =
            [build.to_str().unwrap(), program(), made.to_str().unwrap(), version, out.to_str().unwrap()];
        shell(&words);
        out
    };
    let [old, new] = versions.map(|version| package("deb", version));
    let listed = shell(&["dpkg-deb", "--contents", new.to_str().unwrap()]);
    for name in ["usr/share/man/man1/hot-backup-takeover.1.gz", "usr/share/man/man1/hot-backup.1.gz"] {
        assert!(listed.contains(name), "{listed}");
    }
    shell(&["debootstrap", "--variant=minbase", "bookworm", system.to_str().unwrap()]);
    for package in [&old, &new] {
        std::fs::copy(package, system.join("root").join(package.file_name().unwrap())).unwrap();
    }
    let debian = Debian(&system);
    debian.run("dpkg --install /root/hot-backup_0.0.1.deb && id hot-backup && hot-backup doctor --dir /tmp >/dev/null");
    let mode = debian.run("stat -c '%a %U' /var/lib/hot-backup");
    assert_eq!(mode.trim(), "700 hot-backup");
    debian.run(PAIR);
    let work = |version: &str| debian.run(&format!("VERSION={version}\n{WORK}"));
    assert!(work("1").contains("value 1"));
    let version = env!("CARGO_PKG_VERSION");
    debian.run(&format!("dpkg --install /root/hot-backup_{version}.deb"));
    let after = work("2");
    assert!(after.contains("value 2"), "{after}");
    debian.run("dpkg --purge hot-backup; ! command -v hot-backup; ! ls /usr/lib/systemd/system/hot-backup*");
    // What it held is nobody's to remove.
    debian.run("test -f /var/lib/hot-backup/control && test -f /var/lib/hot-backup-b/control");
    debian.run(&format!("dpkg --install /root/hot-backup_{version}.deb"));
    assert!(work("3").contains("value 3"));

    // The same of the other kind of package, on a system that never had one.
    debian
        .run("dpkg --purge hot-backup; userdel hot-backup; rm -r /var/lib/hot-backup /var/lib/hot-backup-b");
    let [old, new] = versions.map(|version| package("rpm", version));
    let rpm = |words: &[&str]| {
        let own = ["rpm", "--root", system.to_str().unwrap(), "--force-debian", "--nodeps"];
        shell(&[&own[..], words].concat())
    };
    rpm(&["--install", old.to_str().unwrap()]);
    let mode =
        debian.run("stat -c '%a %U' /var/lib/hot-backup /usr/lib/ocf/resource.d/hot-backup/hot-backup");
    assert_eq!(mode, "700 hot-backup\n755 root\n");
    debian.run(PAIR);
    assert!(work("1").contains("value 1"));
    rpm(&["--upgrade", new.to_str().unwrap()]);
    assert!(work("2").contains("value 2"));
    rpm(&["--verify", "hot-backup"]);
    rpm(&["--erase", "hot-backup"]);
    debian.run("! command -v hot-backup; ! ls /usr/lib/systemd/system/hot-backup*; test -f /var/lib/hot-backup/control");
}
