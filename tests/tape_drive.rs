//! Saves and spools through the real driver `st`, in a kernel of its own, on a drive with an autoloader that does what this test
//! tells it (`tests/support/library.rs`): several reels, the end of one with and without a warning, an error that is told late, a
//! writer that is killed. Other programs read what is on the reels.

use crate::support::library::{Cartridge, Library, State, Trouble};

use crate::support::{Kernel, Lan, Pair, Plan, here, lacking, program, scratch, shell, tier};
use hot_backup::format::reel::{ReelBlock, ReelKind};
use serde_json::Value;
use std::path::Path;

/// Modules, the drive, a changer's command, and the two nodes of a pair.
const BEFORE: &str = r#"
mkdir -p /run/m/lib /run/t
ln -s /usr/lib/uml/modules /run/m/lib/modules
for module in st sg ch iscsi_tcp; do modprobe -d /run/m $module; done
iscsistart -i iqn.x:i -t iqn.x:t -g 1 -a 10.214.0.1 -p 10809
for i in $(seq 200); do [ -e /dev/nst0 ] && [ -e /dev/sg1 ] && break; sleep 0.05; done
cat >/run/t/changer <<'C'
#!/bin/bash
# What to do, slot, device of the drive.
status() { mtx -f /dev/sg1 status; }
case $1 in
list) status | sed -n 's/^ *Storage Element \([0-9]*\):Full *:VolumeTag=\([^ ]*\).*/\1:\2/p' ;;
loaded) status | sed -n 's/^Data Transfer Element 0:Full (Storage Element \([0-9]*\) Loaded).*/\1/p' | grep . || echo 0 ;;
load)
    mtx -f /dev/sg1 load "$2" 0 >/dev/null
    for i in $(seq 100); do mt -f "$3" status 2>/dev/null | grep -q ONLINE && exit 0; sleep 0.05; done
    exit 1 ;;
unload) mtx -f /dev/sg1 unload "$2" 0 >/dev/null ;;
*) exit 1 ;;
esac
C
chmod 755 /run/t/changer
CHANGER="/run/t/changer %o %S %a"
cp -a /run/shared/A /run/shared/B /run/t/
export HOT_BACKUP_DIR=/run/t/A
step() { touch /run/shared/ask-$1; until [ -e /run/shared/go-$1 ]; do sleep 0.05; done; }
begin() {
    $HB serve >>/run/shared/node 2>&1 &
    node=$!
    until $HB status >/dev/null 2>&1 && [ "$($HB status --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["state"])')" = serving ]; do
        kill -0 $node
        $HB start --alone >/dev/null 2>&1 || true
        sleep 0.2
    done
}
orders() {
    $HB account create app
    $HB file create app,orders --records --flags L
}
puts() {
    python3 - "$@" <<'P'
import os, socket, sys
first, count, size = map(int, sys.argv[1:])
door = socket.socket(socket.AF_UNIX)
door.connect(os.environ['HOT_BACKUP_DIR'] + '/resp.sock')
for at in range(first, first + count):
    key, value = b'app,orders,%d' % at, os.urandom(size)
    door.sendall(b'*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n' % (len(key), key, len(value), value))
    assert door.recv(100) == b'+OK\r\n'
P
}
"#;

const SAVES: &str = r#"
begin
orders
puts 0 20 1000000
TAPE="tape:/dev/nst0"
CATALOGUE=/run/t/A/tape-nst0-catalogue.json
save() { $HB save --to $TAPE --changer "$CHANGER" --label-blank --no-wait --stage 8M "$@"; }
whole() { $HB verify $TAPE --changer "$CHANGER" --no-wait --json >/run/shared/verified-$1; }
step three-reels
save 2>/run/shared/said || { cat /run/shared/said >&2; exit 1; }
whole three-reels
$HB tape status /dev/nst0 --json >/run/shared/drive || true
mtx -f /dev/sg1 status | grep -q 'Data Transfer Element 0:Full' && /run/t/changer unload $(/run/t/changer loaded) /dev/nst0
/run/t/changer load 1 /dev/nst0
mt -f /dev/nst0 rewind
dd if=/dev/nst0 bs=32k count=1 of=/run/t/label
mt -f /dev/nst0 fsf 1
mt -f /dev/nst0 tell >/run/shared/told
dd if=/dev/nst0 bs=256k count=1 of=/run/t/data
head -c 4 /run/t/label >/run/shared/label
head -c 4 /run/t/data >/run/shared/data
$HB restore --from $TAPE --changer "$CHANGER" --no-wait --catalogue $CATALOGUE --dir /run/t/B
for name in hard-end late-error; do
    step $name
    rm -f $CATALOGUE
    save
    whole $name
done
step end
kill $node
wait $node || true
"#;

/// Waits for something that the kernel does, for longer than it lives.
fn comes(kernel: &Kernel, what: &str, done: impl Fn() -> bool) {
    let begin = std::time::Instant::now();
    while !done() {
        let late = begin.elapsed() > std::time::Duration::from_secs(320);
        assert!(!late && !kernel.log().contains("\nended with 1"), "{what}: {}", kernel.log());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Waits for a step of the script, does something, and lets it go on.
fn step(kernel: &mut Kernel, dir: &Path, name: &str, act: impl FnOnce()) {
    comes(kernel, &format!("to ask for {name}"), || dir.join(format!("ask-{name}")).exists());
    act();
    std::fs::write(dir.join(format!("go-{name}")), "").unwrap();
}

/// New blank cartridges, and what comes.
fn refill(state: &mut State, trouble: Option<(u32, Trouble)>) {
    state.lay_in(None);
    for (slot, reel) in &mut state.slots {
        *reel = Some(Cartridge { barcode: format!("TAP{slot:03}L6"), ..Cartridge::default() });
    }
    state.trouble = trouble;
}

fn kinds(reel: &Cartridge) -> Vec<ReelKind> {
    let block = |record: &Vec<u8>| ReelBlock::decode(record).unwrap().0.kind;
    reel.records.iter().flatten().map(block).collect()
}

fn reels(state: &State) -> Vec<&Cartridge> {
    let all = state.slots.values().flatten().chain(&state.drive);
    all.filter(|reel| !reel.records.is_empty()).collect()
}

/// The kernel with a library, and the nodes of a pair to copy.
fn boot(dir: &Path, slots: usize, lines: &[&str], script: &str) -> (Library, Lan, Kernel) {
    let plan = Plan::quick().segments("64K").config("checkpoint_ms = 100");
    let pair = Pair::set_up(&plan);
    pair.a.configure(lines);
    for (node, name) in [(&pair.a, "A"), (&pair.b, "B")] {
        shell(&["cp", "-a", node.dir.to_str().unwrap(), dir.join(name).to_str().unwrap()]);
    }
    let socket = dir.join("target.sock");
    let library = Library::new(&socket, slots, (7 << 20, 8 << 20));
    let lan = Lan::new(&[socket]);
    let script = format!("HB={}\n{BEFORE}\n{script}", program());
    let kernel = Kernel::boot(&lan, dir, &script);
    (library, lan, kernel)
}

/// Whether the machine lets a kernel in user mode keep all registers; where it does not, programs with wide ones go wrong.
fn keeps_registers() -> bool {
    !std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains(" amx_tile "))
}

#[test]
fn tier_a_real_driver_saves_over_three_reels_and_goes_on_behind_a_hard_end_and_a_late_error() {
    tier!("root", "ip", "nsenter", "python3", "linux.uml", "iscsistart", "mt", "mtx", "modprobe");
    if !Path::new("/dev/net/tun").exists() || !keeps_registers() {
        return lacking(here!(), "/dev/net/tun, or a machine without AMX");
    }
    let dir = scratch();
    let (library, _lan, mut kernel) = boot(dir.path(), 8, &[], SAVES);
    let verified = |name: &str| {
        let text = std::fs::read_to_string(dir.path().join(format!("verified-{name}"))).unwrap();
        let verified: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(verified["whole"], true, "{name}: {verified}");
    };
    step(&mut kernel, dir.path(), "three-reels", || library.state().alerts = vec![20]);
    step(&mut kernel, dir.path(), "hard-end", || {
        let mut state = library.state();
        let written = reels(&state);
        assert!(written.len() >= 3, "{} reels", written.len());
        // The warning left room for a trailer, and the driver added no mark of its own.
        let full = written.iter().filter(|reel| kinds(reel).last() == Some(&ReelKind::ReelEnd)).count();
        assert_eq!(full, written.len() - 1);
        assert!(written.iter().all(|reel| reel.records.get(1) == Some(&None)), "a mark behind the label");
        refill(&mut state, None);
        state.warn = usize::MAX;
    });
    step(&mut kernel, dir.path(), "late-error", || {
        let mut state = library.state();
        assert!(reels(&state).len() >= 3);
        state.warn = 7 << 20;
        refill(&mut state, Some((25, Trouble::Deferred)));
    });
    step(&mut kernel, dir.path(), "end", || {
        let state = library.state();
        assert!(state.trouble.is_none() && reels(&state).len() >= 3, "the error came, and cost a reel");
    });
    comes(&kernel, "to end", || kernel.log().contains("\nended with "));
    kernel.ends();
    for name in ["three-reels", "hard-end", "late-error"] {
        verified(name);
    }
    let read =
        |name: &str| String::from_utf8_lossy(&std::fs::read(dir.path().join(name)).unwrap()).into_owned();
    assert_eq!((read("label").as_str(), read("data").as_str()), ("HBtb", "HBtb"), "as a plain tape is read");
    assert!(read("told").contains("At block 2"), "{}", read("told"));
    assert!(read("said").contains("TapeAlert 20 (Cleaning required): clean the drive"), "{}", read("said"));
    let drive: Value = serde_json::from_str(&read("drive")).unwrap();
    assert_eq!((&drive[0]["compression"], &drive[0]["encryption"]), (&"on".into(), &"on".into()), "{drive}");
}

const SPOOLS: &str = r#"
parts() { $HB spool status --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["reel_parts"])'; }
at=0
for round in 1 2; do
    begin
    [ $round != 1 ] || orders
    before=$(parts)
    until [ "$(parts)" -ge $((before + 4)) ]; do puts $at 200 1000; at=$((at + 200)); done
    puts $at 400 1000 &
    writer=$!
    sleep 0.$((round * 2))
    kill -9 $node
    wait $node $writer || true
    at=$((at + 400))
done
begin
puts $at 100 1000
kill $node
wait $node || true
$HB spool list --json >/run/shared/list
$HB spool verify >/run/shared/verify
"#;

#[test]
fn tier_a_real_driver_spools_over_reels_while_the_writer_is_killed() {
    tier!("root", "ip", "nsenter", "python3", "linux.uml", "iscsistart", "mt", "mtx", "modprobe");
    if !Path::new("/dev/net/tun").exists() || !keeps_registers() {
        return lacking(here!(), "/dev/net/tun, or a machine without AMX");
    }
    let dir = scratch();
    let lines = [
        "journal_quota_bytes = \"512K\"",
        "spool = \"tape:/dev/nst0\"",
        "tape_label_blank = \"yes\"",
        "tape_changer = \"/run/t/changer %o %S %a\"",
        "spool_full = \"alarm\"",
    ];
    let (library, _lan, mut kernel) = boot(dir.path(), 8, &lines, SPOOLS);
    library.state().end = 1 << 20;
    library.state().warn = 512 << 10;
    comes(&kernel, "to end", || kernel.log().contains("\nended with "));
    kernel.ends();
    let list = std::fs::read_to_string(dir.path().join("list")).unwrap();
    let list: Value = serde_json::from_str(&list).unwrap();
    let views = list.as_array().unwrap();
    let joins = |pair: &[Value]| pair[0]["to"].as_u64().map(|to| to + 1) == pair[1]["from"].as_u64();
    assert!(views.len() >= 8 && views.windows(2).all(joins), "{views:?}");
    let last = views.iter().filter_map(|view| view["reel"].as_u64()).max();
    assert!(last >= Some(2), "{last:?} reels");
}
