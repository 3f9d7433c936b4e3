"""Ways to a level pair, as ratios to the raw disk beside them: a full copy to a new standby, a digest resync of an old copy that
is equal but for little, a compare. Items of 1 KiB and one volume, over loopback. Not part of run.py.

Usage: bench/level.py PROGRAM [MIB [ROUNDS]]      MIB of items, and as many of a volume (1024)"""
import json, os, random, shutil, socket, statistics, subprocess, sys, time
import systems as s, volumes

MIB = 1 << 20


def dropped():
    """Nothing is read from memory: as root, the page cache is emptied."""
    subprocess.run(["sync"], check=True)
    try:
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("1")
    except OSError:
        print("the page cache could not be emptied: figures are of a warm one")


def raw(base, mib):
    """The same bytes read and written at once on that disk, and read alone (MiB in a second)."""
    room = base.room(f"raw-{random.randrange(1 << 30)}")
    one, two = os.path.join(room, "one"), os.path.join(room, "two")

    def dd(*args):
        began = time.monotonic()
        subprocess.run(["dd", "bs=1M", *args], check=True, capture_output=True)
        return mib / (time.monotonic() - began)

    dd("if=/dev/urandom", f"of={one}", f"count={mib}", "oflag=direct", "conv=fsync")
    both = dd(f"if={one}", f"of={two}", "iflag=direct", "oflag=direct", "conv=fsync")
    reads = dd(f"if={one}", "of=/dev/null", "iflag=direct")
    shutil.rmtree(room)
    return both, reads


def put(pair, numbers):
    client = socket.create_connection(("127.0.0.1", pair.port))
    replies, numbers = client.makefile("rb"), list(numbers)
    for first in range(0, len(numbers), 500):
        some = numbers[first:first + 500]
        client.sendall(b"".join(
            b"*3\r\n$3\r\nSET\r\n$12\r\n%012d\r\n$1024\r\n%s\r\n" % (n, random.randbytes(1024)) for n in some))
        for _ in some:
            if replies.readline() != b"+OK\r\n":
                sys.exit("an update was refused")
    client.close()


def fill(pair, mib):
    put(pair, range(mib * 1024))
    volumes.write(pair, "disk1", "--size", str(MIB), "--flight", "4", "--total", str(mib * MIB), "--span", str(mib * MIB),
                  "--sequential")
    pair.settle()


def loopback():
    with open("/sys/class/net/lo/statistics/tx_bytes") as file:
        return int(file.read())


def is_whole(pair):
    status = pair.status(1)
    return status.get("state") == "standby" and status["peer"]["connected"] and pair.status()["peer"]["lag_entries"] == 0


def until_whole(pair):
    """Starts the standby; how long until it is whole, and what went over loopback meanwhile (bytes)."""
    dropped()
    sent, began = loopback(), time.monotonic()
    pair.start(1)
    s.wait_for("a whole standby", lambda: is_whole(pair), 3600, 0.1)
    return time.monotonic() - began, loopback() - sent


def let_go(pair):
    """The primary lets go of what its standby would need; 64 items differ from then on."""
    lacks = pair.status()["positions"]["appended"] + 1
    while pair.status()["journal"]["oldest_seq"] <= lacks:
        put(pair, (n % 64 for n in range(64 * 1024)))


def round_of(base, mib):
    both, reads = raw(base, 2 * mib)
    pair = volumes.Volumes(base.room(f"pair-{random.randrange(1 << 30)}"), size=f"{mib + 64}M", quota="256M")
    try:
        fill(pair, mib)
        began = time.monotonic()
        dropped()
        done = json.loads(pair.run("compare", "--json", "--rate", "unlimited", "--dir", pair.dirs[0]))
        compare = 2 * mib / (time.monotonic() - began)
        assert done["differing"] == 0, done
        pair.kill(1)
        let_go(pair)
        took, wire = until_whole(pair)
        digests, share = 2 * mib / took, wire / (2 * mib * MIB)
        pair.kill(1)
        let_go(pair)
        pair.run("resync", "--full", "--dir", pair.dirs[0])
        took, _ = until_whole(pair)
        # Both nodes read all of it from the one disk, in a comparison.
        return {"full copy to raw read and write": 2 * mib / took / both, "digests to raw read": 2 * digests / reads,
                "compare to raw read": 2 * compare / reads, "wire of digests, of the content (%)": 100 * share,
                "raw read and write (MiB/s)": both, "raw read (MiB/s)": reads}
    finally:
        pair.stop()


def main():
    s.PROGRAM = os.path.abspath(sys.argv[1])
    mib, rounds = (int(arg) for arg in (sys.argv[2:] + ["1024", "3"][len(sys.argv) - 2:]))
    print(s.machine(None), "load", os.getloadavg()[0])
    with s.Base(None) as base:
        runs = [round_of(base, mib) for _ in range(rounds)]
    for what in runs[0]:
        print(f"{what}: {statistics.median(run[what] for run in runs):.3f}")


if __name__ == "__main__":
    main()
