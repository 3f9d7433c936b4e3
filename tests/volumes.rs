//! Real NBD clients, as their makers ship them, at the volumes of a pair of real nodes.

use crate::support::{EXPORT, Plan, Volumes, scratch, shell, tier, tool, wait_until};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

const MIB: u64 = 1 << 20;

/// Runs a client to its end; whether it was content, and both its streams.
#[track_caller]
fn run(words: &[&str]) -> (bool, String) {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", "90"]).arg(tool(words[0]).expect("it was looked for")).args(&words[1..]);
    // nbdsh takes the first Python that it finds, and works with that of its own package only.
    command.env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
    let output = command.stdin(Stdio::null()).output().expect("timeout is everywhere");
    let streams = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    (output.status.success(), streams.concat())
}

/// Runs a client that must be content; both its streams.
#[track_caller]
fn done(words: &[&str]) -> String {
    let (content, text) = run(words);
    assert!(content, "{words:?}: {text}");
    text
}

/// Runs a client that must not be content; both its streams.
#[track_caller]
fn refused(words: &[&str]) -> String {
    let (content, text) = run(words);
    assert!(!content, "{words:?}: {text}");
    text
}

/// What `nbdinfo` says as JSON.
#[track_caller]
fn info(args: &[&str]) -> Value {
    let text = done(&[&["nbdinfo", "--json"], args].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
}

/// Files are equal, told without their content.
#[track_caller]
fn same(one: &Path, other: &Path) {
    done(&["cmp", one.to_str().unwrap(), other.to_str().unwrap()]);
}

#[test]
fn tier_volume_is_what_nbdinfo_shows_on_both_nodes() {
    tier!("nbdinfo");
    let volumes = Volumes::start(&Plan::quick(), "64M");
    volumes.pair.a.done(&["file", "create", "app,disk2", "--blocks", "--size", "20480", "--flags", "L"]);
    volumes.pair.converges();
    for (uri, read_only) in [(volumes.a(), false), (volumes.b(), true)] {
        let all = info(&[&uri]);
        assert_eq!((&all["protocol"], &all["structured"]), (&"newstyle-fixed".into(), &true.into()), "{all}");
        let export = &all["exports"][0];
        assert_eq!(export["export-name"], EXPORT, "{all}");
        assert_eq!(export["export-size"], 64 * MIB, "{all}");
        assert_eq!(export["is_read_only"], read_only, "{all}");
        for can in ["cache", "df", "fast_zero", "flush", "fua", "multi_conn", "trim", "zero"] {
            assert_eq!(export[format!("can_{can}")], true, "{can}: {all}");
        }
        assert_eq!(export["contexts"], serde_json::json!(["base:allocation"]), "{all}");
        let sizes =
            ["minimum", "preferred", "maximum"].map(|kind| export[format!("block_size_{kind}")].as_u64());
        assert_eq!(sizes, [1, 4096, 32 * MIB].map(Some), "{all}");

        let base = uri.strip_suffix(EXPORT).unwrap();
        let list = info(&["--list", base]);
        let named = |export: &Value| (export["export-name"].clone(), export["export-size"].clone());
        let mut named: Vec<_> = list["exports"].as_array().unwrap().iter().map(named).collect();
        named.sort_by_key(|(name, _)| name.to_string());
        assert_eq!(
            named,
            [(EXPORT.into(), (64 * MIB).into()), ("app/disk2".into(), 20_480.into())],
            "{list}"
        );
        for unknown in ["app/disk3", "app/disk1/", "disk1", ""] {
            let text = refused(&["nbdinfo", &format!("{base}{unknown}")]);
            assert!(text.contains("No such file"), "{unknown}: {text}");
        }
    }
    // The way of the node's own user.
    let socket = format!("nbd+unix:///{EXPORT}?socket={}/nbd.sock", volumes.pair.a.dir.display());
    assert_eq!(info(&[&socket])["exports"][0]["export-size"], 64 * MIB);
}

/// Length and type of all extents of an export.
#[track_caller]
fn map(uri: &str) -> Vec<(u64, u64)> {
    let extents = info(&["--map", uri]);
    let extent = |extent: &Value| (extent["length"].as_u64().unwrap(), extent["type"].as_u64().unwrap());
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (len, kind) in extents.as_array().unwrap().iter().map(extent) {
        match merged.last_mut() {
            Some(last) if last.1 == kind => last.0 += len,
            _ => merged.push((len, kind)),
        }
    }
    merged
}

#[test]
fn tier_volume_that_grew_is_seen_so_by_new_clients_and_what_was_there_stays() {
    tier!("nbdinfo", "qemu-io");
    let volumes = Volumes::start(&Plan::quick(), "64M");
    let Volumes { pair, .. } = &volumes;
    let (a, b) = (volumes.a(), volumes.b());
    qemu_io(&a, &["write -P 7 63M 1M", "flush"]);
    assert_eq!(map(&a), [(63 * MIB, 3), (MIB, 0)]);
    qemu_io_refuses(&a, "write 64M 4k");
    let shrunk = pair.a.verb(&["file", "grow", "app,disk1", "--size", "32M"]);
    assert!(!shrunk.status.success(), "it shrank");
    pair.a.done(&["file", "grow", "app,disk1", "--size", "2G"]);
    qemu_io(&a, &["read -P 7 63M 1M", "read -P 0 64M 1M", "write -P 8 2047M 1M", "flush"]);
    pair.converges();
    for uri in [&a, &b] {
        assert_eq!(info(&[uri])["exports"][0]["export-size"], 2048 * MIB);
        wait_until("the map of both", || {
            (map(uri) == [(63 * MIB, 3), (MIB, 0), (1983 * MIB, 3), (MIB, 0)]).then_some(())
        });
    }
    qemu_io(&b, &["read -P 7 63M 1M", "read -P 0 64M 1M", "read -P 8 2047M 1M"]);
}

#[test]
fn tier_volume_gives_back_a_disk_image_that_nbdcopy_brought() {
    tier!("nbdcopy", "mkfs.ext4", "e2fsck", "cmp");
    let volumes = Volumes::start(&Plan::quick(), "64M");
    let dir = scratch();
    let [image, copy, standby] = ["image", "copy", "standby"].map(|name| dir.path().join(name));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    shell(&["mkfs.ext4", "-q", "-d", source, image.to_str().unwrap(), "64M"]);
    done(&["nbdcopy", "--flush", image.to_str().unwrap(), &volumes.a()]);
    done(&["nbdcopy", &volumes.a(), copy.to_str().unwrap()]);
    same(&image, &copy);
    volumes.pair.converges();
    done(&["nbdcopy", &volumes.b(), standby.to_str().unwrap()]);
    same(&image, &standby);
    done(&["e2fsck", "-f", "-n", standby.to_str().unwrap()]);
    let text = refused(&["nbdcopy", copy.to_str().unwrap(), &volumes.b()]);
    assert!(text.contains("read-only") || text.contains("writing"), "{text}");

    // From volume to volume, over an older content, with one connection and one request at a time.
    volumes.pair.a.done(&["file", "create", "app,disk2", "--blocks", "--size", "64M", "--flags", "L"]);
    let second = volumes.a().replace("disk1", "disk2");
    qemu_io(&second, &["write -P 255 0 32M"]);
    let slow = ["--connections=1", "--requests=1", "--request-size=65536"];
    done(&[&["nbdcopy", "--flush"], &slow[..], &[&volumes.a(), &second]].concat());
    volumes.pair.converges();
    std::fs::remove_file(&standby).unwrap();
    let second = volumes.b().replace("disk1", "disk2");
    done(&["nbdcopy", &second, standby.to_str().unwrap()]);
    same(&image, &standby);
}

/// Runs commands of `qemu-io` on a raw volume, each of which must succeed.
#[track_caller]
fn qemu_io(uri: &str, commands: &[&str]) {
    let (content, text) = qemu_io_says(uri, commands);
    assert!(content && !text.contains("failed"), "{commands:?}: {text}");
}

/// What `qemu-io` says to commands, and whether it was content. Only for those that change anything must it be allowed
/// to write.
#[track_caller]
fn qemu_io_says(uri: &str, commands: &[&str]) -> (bool, String) {
    let read_only = commands.iter().all(|command| command.starts_with("read"));
    let words = ["qemu-io", "-f", "raw", "-d", "unmap"].into_iter().chain(read_only.then_some("-r"));
    let words: Vec<&str> = words.chain(commands.iter().flat_map(|command| ["-c", command])).collect();
    run(&[&words[..], &[uri]].concat())
}

/// Runs one command of `qemu-io`, which must not be carried out; what it says.
#[track_caller]
fn qemu_io_refuses(uri: &str, command: &str) -> String {
    let (content, text) = qemu_io_says(uri, &[command]);
    assert!(!content, "{command}: {text}");
    text
}

#[test]
fn tier_volume_takes_the_scripts_of_qemu_io() {
    tier!("qemu-io");
    let volumes = Volumes::start(&Plan::quick(), "64M");
    let (a, b) = (volumes.a(), volumes.b());
    let changes = [
        "write -P 0x11 0 1M",
        "write -z 64k 64k",
        "write -z -u 256k 64k",
        "discard 512k 64k",
        // Within a block, over its end, whole ones between two parts.
        "write -P 0x22 700 100",
        "write -P 0x33 4000 200",
        "write -P 0x44 9000 20001",
        // As small as it gets, and zeros and holes that do not keep to blocks.
        "write -P 0x55 1048576 1",
        "write -z 34000 1000",
        "write -z 40000 9000",
        "discard 61000 300",
        "write -f -P 0x66 2M 8k",
        "aio_write -P 0x77 3M 2M",
        "aio_write -P 0x78 5M 2M",
        "aio_flush",
        "writev -P 0x79 8M 512 4k 1k",
        "flush",
    ];
    let reads = [
        "read -P 0x11 0 700",
        "read -P 0x22 700 100",
        "read -P 0x11 800 3200",
        "read -P 0x33 4000 200",
        "read -P 0x11 4200 4800",
        "read -P 0x44 9000 20001",
        "read -P 0x11 29001 4999",
        "read -P 0 34000 1000",
        "read -P 0x11 35000 5000",
        "read -P 0 40000 9000",
        "read -P 0x11 49000 12000",
        "read -P 0 64k 64k",
        "read -P 0x11 128k 128k",
        "read -P 0 256k 64k",
        "read -P 0 512k 64k",
        "read -P 0x11 576k 448k",
        "read -P 0x55 1048576 1",
        "read -P 0 1048577 4095",
        "read -P 0x66 2M 8k",
        "read -P 0x77 3M 2M",
        "read -P 0x78 5M 2M",
        "read -P 0x79 8M 5632",
    ];
    qemu_io(&a, &[&changes[..], &reads].concat());
    qemu_io(&a, &reads);
    // That a wrong byte would be seen.
    let text = qemu_io_refuses(&a, "read -P 0x11 800 3201");
    assert!(text.contains("Pattern verification failed"), "{text}");
    volumes.pair.converges();
    qemu_io(&b, &reads);
    let text = qemu_io_refuses(&b, "write -P 1 0 4k");
    assert!(text.contains("Permission denied"), "{text}");
}

#[test]
fn tier_volume_holds_what_qemu_img_converts_into_it() {
    tier!("qemu-img", "qemu-io", "mkfs.ext4");
    let volumes = Volumes::start(&Plan::quick(), "64M");
    let (a, b) = (volumes.a(), volumes.b());
    let dir = scratch();
    let image = dir.path().join("image");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    shell(&["mkfs.ext4", "-q", "-d", source, image.to_str().unwrap(), "48M"]);
    let image = image.to_str().unwrap();
    done(&["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, &a]);
    let equal = |format: &str, uri: &str| {
        let text = done(&["qemu-img", "compare", "-f", "raw", "-F", format, image, uri]);
        assert!(text.contains("Images are identical"), "{text}");
    };
    equal("raw", &a);
    volumes.pair.converges();
    equal("raw", &b);

    // An image format on the volume, over what was there.
    done(&["qemu-img", "convert", "-f", "raw", "-O", "qcow2", image, &a]);
    equal("qcow2", &a);
    done(&["qemu-img", "snapshot", "-c", "before", &a]);
    let change = ["qemu-io", "-f", "qcow2", "-c", "write -P 9 1M 3M", "-c", "flush"];
    done(&[&change[..], &[&a]].concat());
    for uri in [&a, &b] {
        let text = done(&["qemu-img", "check", "-f", "qcow2", uri]);
        assert!(text.contains("No errors were found"), "{text}");
        let (equal, text) = run(&["qemu-img", "compare", "-f", "raw", "-F", "qcow2", image, uri]);
        assert!(!equal && text.contains("Content mismatch"), "{text}");
        volumes.pair.converges();
    }
    done(&["qemu-img", "snapshot", "-a", "before", &a]);
    volumes.pair.converges();
    equal("qcow2", &a);
    equal("qcow2", &b);
    done(&["qemu-img", "check", "-f", "qcow2", &b]);
}

/// Runs a job of fio on an export: what `how` says; whether it was content.
#[track_caller]
fn fio(dir: &Path, uri: &str, how: &str) -> (bool, String) {
    let job = dir.join("job");
    let text = format!(
        "[global]\nioengine=nbd\nuri={uri}\n{how}\nbsrange=512-64k\nbs_unaligned=1\niodepth=16\nsize=8m\n\
         verify=crc32c\nverify_state_save=0\nfsync=50\nrandseed=7\n[one]\noffset=0\n[two]\noffset=20m\n[three]\noffset=40000001\n"
    );
    std::fs::write(&job, text).unwrap();
    run(&["fio", job.to_str().unwrap()])
}

#[test]
fn tier_volume_passes_the_verification_of_fio_through_restart_and_takeover() {
    tier!("fio", "qemu-io");
    let plan = Plan::quick().init(&["--ack-level", "durable"]).config("degrade_after_ms = 2000");
    let mut volumes = Volumes::start(&plan, "64M");
    let dir = scratch();
    let passes = |uri: &str, how: &str| {
        let (content, text) = fio(dir.path(), uri, how);
        assert!(content && text.matches("err= 0").count() == 3, "{text}");
    };
    passes(&volumes.a(), "rw=randwrite\ndo_verify=1");
    passes(&volumes.a(), "rw=randwrite\nverify_only=1");
    volumes.pair.converges();
    // The standby can be read only, which is what fio calls a read of what was verified.
    passes(&volumes.b(), "rw=randread");

    // The same primary, killed.
    volumes.pair.a.kill();
    volumes.pair.a.start();
    volumes.pair.a.serves();
    volumes.pair.connected();
    passes(&volumes.a(), "rw=randwrite\nverify_only=1");
    volumes.take_over();
    passes(&volumes.b(), "rw=randwrite\nverify_only=1");
    passes(&volumes.b(), "rw=randrw\nrandseed=8");
    // That a wrong byte would be seen.
    passes(&volumes.b(), "rw=randwrite");
    qemu_io(&volumes.b(), &["write -P 9 21M 1"]);
    let (content, text) = fio(dir.path(), &volumes.b(), "rw=randwrite\nverify_only=1");
    assert!(!content, "{text}");
}

/// Runs a script of `nbdsh` that may use `A` and `B`, the volume at the two nodes, and `refused(ERRNO, FUNCTION, ..)`.
#[track_caller]
fn nbdsh(volumes: &Volumes, script: &str) {
    const BEFORE: &str = r#"
import errno, nbd

def refused(number, function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except nbd.Error as error:
        assert error.errnum == number, (errno.errorcode[error.errnum], error.string)
    else:
        raise SystemExit(f"{function} {args} was not refused")

def handle(uri, structured=True, base=True):
    h = nbd.NBD()
    h.set_request_structured_replies(structured)
    if base and structured:
        h.add_meta_context("base:allocation")
    # What libnbd would refuse by itself is to be refused by the node.
    h.set_strict_mode(0)
    h.connect_uri(uri)
    return h

def extents(h, count, offset=0, flags=0):
    found = []
    def extent(context, at, entries, error):
        assert context == "base:allocation", context
        found.extend(zip(entries[::2], entries[1::2]))
        return 0
    h.block_status(count, offset, extent, flags)
    return found

K, M = 1 << 10, 1 << 20
"#;
    let places = format!("A, B = \"{}\", \"{}\"\n", volumes.a(), volumes.b());
    let (_, text) = run(&["nbdsh", "-c", &[BEFORE, &places, script, "\nprint('all well')\n"].concat()]);
    assert!(text.trim().ends_with("all well"), "{text}\nin the script:\n{script}");
}

#[test]
fn tier_volume_answers_many_requests_of_libnbd_at_once() {
    tier!("nbdsh");
    let volumes = Volumes::start(&Plan::quick().init(&["--ack-level", "durable"]), "64M");
    let script = r#"
import random
handles = [handle(A) for _ in range(3)]
assert all(h.can_multi_conn() for h in handles)
random.seed(7)
content = bytearray(24 * M)
# Each has a range of its own: what is in flight at once may be carried out in any order.
pieces = []
for n in range(600):
    start, size = n * 40 * K, random.choice([1, 511, 512, 4096, 5000, 32 * K, 40 * K])
    data = random.randbytes(size)
    content[start:start + size] = data
    pieces.append((start, data))
def run(begin):
    errors = []
    def ended(error):
        errors.append(error.value)
        return 1
    for n, piece in enumerate(pieces):
        begin(handles[n % 3], piece, ended)
    while any(h.aio_in_flight() for h in handles):
        for h in handles:
            if h.aio_in_flight():
                h.poll(1)
    assert errors == [0] * len(pieces), errors
def write(h, piece, ended):
    start, data = piece
    flags = nbd.CMD_FLAG_FUA if start % 3 == 0 else 0
    h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), start, ended, flags)
run(write)
handles[0].flush()
buffers = []
def read(h, piece, ended):
    start, data = piece
    buffer = nbd.Buffer(len(data))
    buffers.append((buffer, data))
    h.aio_pread(buffer, start, ended)
run(read)
assert all(buffer.to_bytearray() == data for buffer, data in buffers)
# What one wrote and was answered, another reads, before any flush.
for n in range(200):
    handles[0].pwrite(b"%8d" % n, 30 * M)
    assert handles[1].pread(8, 30 * M) == b"%8d" % n
assert handles[2].pread(12 * M, 0) == content[:12 * M]
assert handles[2].pread(12 * M, 12 * M) == content[12 * M:]
handles[0].flush()
open(OUT, "wb").write(content)
"#;
    let dir = scratch();
    let out = dir.path().join("content");
    nbdsh(&volumes, &format!("OUT = \"{}\"\n{script}", out.display()));
    volumes.pair.converges();
    let script = r#"
content, b = open(OUT, "rb").read(), handle(B)
assert b.pread(12 * M, 0) == content[:12 * M]
assert b.pread(12 * M, 12 * M) == content[12 * M:]
assert b.pread(8, 30 * M) == b"     199"
"#;
    nbdsh(&volumes, &format!("OUT = \"{}\"\n{script}", out.display()));
}

#[test]
fn tier_volume_tells_libnbd_where_its_holes_are() {
    tier!("nbdsh");
    let volumes = Volumes::start(&Plan::quick(), "64M");
    let script = r#"
a = handle(A)
assert extents(a, 64 * M) == [(64 * M, 3)]
a.pwrite(b"x" * M, M)
assert extents(a, 64 * M) == [(M, 3), (M, 0), (62 * M, 3)]
assert extents(a, M // 2, M + K) == [(M // 2, 0)], "no more than was asked for"
assert extents(a, 64 * M, 0, nbd.CMD_FLAG_REQ_ONE) == [(M, 3)]
# Zeros take no space unless they must.
a.zero(64 * K, M)
a.zero(64 * K, M + 128 * K, nbd.CMD_FLAG_NO_HOLE)
a.zero(64 * K, M + 256 * K, nbd.CMD_FLAG_FAST_ZERO)
a.trim(64 * K, M + 384 * K)
a.zero(64 * K, M + 512 * K, nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE)
a.trim(0, 0)
# Not a whole block: the rest of it stays.
a.trim(100, M + 700 * K)
a.zero(100, M + 800 * K)
a.cache(M, M)
a.flush(nbd.CMD_FLAG_FUA)
def check(h):
    for start in range(0, 5 * 128, 128):
        assert h.pread(64 * K, M + start * K) == bytes(64 * K), start
        assert h.pread(64 * K, M + (start + 64) * K) == (b"x" * 64 * K if start < 640 else b""), start
    assert h.pread(102, M + 700 * K - 1) in (b"x" + bytes(100) + b"x", b"x" * 102)
    assert h.pread(102, M + 800 * K - 1) == b"x" + bytes(100) + b"x"
    found = [extents(h, 64 * K, M + n * 128 * K)[0][1] for n in range(5)]
    assert all(found[n] & 1 for n in (0, 2, 3)), found
    # Space that stays taken is no hole while the node holds it. Once it is in place the file system is asked, and some
    # tell what they keep for zeros as a hole.
    assert all(found[n] in (0, 2, 3) for n in (1, 4)), found
check(a)
# A reply may come in chunks, but for one that must be in one piece.
def chunks(h, count, offset, flags=0):
    found = []
    def chunk(data, at, status, error):
        found.append((at - offset, len(data), status))
        return 0
    h.pread_structured(count, offset, chunk, flags)
    return sorted(found)
for n in range(50):
    # The newest zeros are not in place yet.
    a.zero(64 * K, 2 * M + n * 128 * K)
    found = chunks(a, 2 * M, 2 * M + n * 128 * K - M)
    ends = [0] + [at + size for at, size, _ in found]
    assert ends == [at for at, *_ in found] + [2 * M], found
    assert {status for *_, status in found} <= {nbd.READ_DATA, nbd.READ_HOLE}, found
    a.zero(64 * K, 2 * M + n * 128 * K)
    found = chunks(a, 2 * M, 2 * M + n * 128 * K - M, nbd.CMD_FLAG_DF)
    assert found == [(0, 2 * M, nbd.READ_DATA)], found
"#;
    nbdsh(&volumes, script);
}

#[test]
fn tier_volume_refuses_what_it_must_with_the_right_errno_and_goes_on() {
    tier!("nbdsh");
    let volumes = Volumes::start(&Plan::quick(), "64M");
    let script = r#"
for structured in (True, False):
    a = handle(A, structured)
    a.pwrite(b"there", 100)
    size = a.get_size()
    assert size == 64 * M
    refused(errno.EINVAL, a.pread, 2, size - 1)
    refused(errno.EINVAL, a.pread, 1, 1 << 62)
    refused(errno.EINVAL, a.trim, 4096, size)
    refused(errno.ENOSPC, a.pwrite, b"xy", size - 1)
    refused(errno.ENOSPC, a.pwrite, b"x", (1 << 63) - 1)
    refused(errno.ENOSPC, a.zero, 4097, size - 4096)
    # Flags that the command does not have, and one that nobody has.
    refused(errno.EINVAL, a.trim, 1, 0, nbd.CMD_FLAG_NO_HOLE)
    refused(errno.EINVAL, a.pwrite, b"x", 0, nbd.CMD_FLAG_DF)
    refused(errno.EINVAL, a.cache, 1, 0, 1 << 9)
    # More than the largest request, payload and all.
    refused(errno.EOVERFLOW if structured else errno.EINVAL, a.pread, 33 * M, 0)
    refused(errno.EINVAL, a.pwrite, bytes(33 * M), 0)
    if structured:
        refused(errno.EINVAL, extents, a, 4096, size)
        assert a.pread(0, 0) == b""
    a.zero(0, 0)
    # FUA means nothing to these, and does no harm.
    a.flush(nbd.CMD_FLAG_FUA)
    a.cache(4096, 0, nbd.CMD_FLAG_FUA)
    assert a.pread(1, size - 1) == b"\0"
    assert a.pread(5, 100) == b"there"
    a.shutdown()

    b = handle(B, structured)
    assert b.is_read_only()
    refused(errno.EPERM, b.pwrite, b"x", 0)
    refused(errno.EPERM, b.pwrite, b"x" * M, 0, nbd.CMD_FLAG_FUA)
    refused(errno.EPERM, b.zero, 4096, 0)
    refused(errno.EPERM, b.trim, 4096, 0)
    refused(errno.EINVAL, b.pread, 2, size - 1)
    assert b.pread(1, size - 1) == b"\0"
    b.flush()
    b.cache(4096, 0)
    b.shutdown()

# No metadata was negotiated.
bare = handle(A, base=False)
refused(errno.EINVAL, bare.block_status, 4096, 0, lambda *args: 0)
# An unknown context is no error, only not there.
other = nbd.NBD()
other.add_meta_context("qemu:dirty-bitmap:x")
other.connect_uri(A)
assert not other.can_meta_context("qemu:dirty-bitmap:x")
assert other.pread(5, 100) == b"there"
# The choice of an export may fail and be made again.
h = nbd.NBD()
h.set_opt_mode(True)
h.connect_tcp(*A.split("/")[2].split(":"))
names = []
h.opt_list(lambda name, text: names.append(name) or 0)
assert names == ["app/disk1"], names
h.set_export_name("app/nothing")
refused(errno.ENOENT, h.opt_info)
refused(errno.ENOENT, h.opt_go)
h.set_export_name("app/disk1")
h.opt_info()
h.opt_go()
assert h.pread(5, 100) == b"there"
"#;
    nbdsh(&volumes, script);
}
