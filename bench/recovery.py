"""What a pair does that was apart, or that is to be kept: for how long nobody is answered when the roles change under full load,
how long a rewind takes, what a save, its check, a restore and
a scrub cost beside the raw disk. Not part of run.py.

Usage: bench/recovery.py PROGRAM [MIB [SWITCHOVERS]]     MIB of items, and as many of a volume (1024); 20 changes of roles"""
import json, os, statistics, subprocess, sys, time
import level, systems as s, volumes

MIB = 1 << 20
FOLLOW = os.path.join(s.TARGET, "examples", "bench-follow")
CLIENTS = "64"


class Pair(volumes.Volumes):
    """A pair whose nodes both have a door."""

    def __init__(self, base, **more):
        self.doors = s.free_ports(2)
        super().__init__(base, **more)

    def run(self, *args):
        if args[0] == "init" and args[args.index("--role") + 1] == "standby":
            args = (*args, "--resp", f"127.0.0.1:{self.doors[1]}", "--resp-default", "app,items")
        return super().run(*args)

    def is_level(self, primary):
        peer = self.status(primary)["peer"]
        return peer["connected"] and peer.get("lag_entries", 1) == 0


def most_memory(pid):
    with open(f"/proc/{pid}/clear_refs", "w") as reset:
        reset.write("5")
    return lambda: s.resident(pid)["VmHWM"]


def switchovers(pair, count):
    """Each under 64 clients that send as fast as they are answered: the longest gap that one of them sees (ms), what the
    command itself tells (ms), and what was answered and is not there."""
    gaps, told, lost, updates = [], [], 0, 0
    primary = 0
    for _ in range(count):
        s.wait_for("a level pair", lambda: pair.is_level(primary), 120, 0.05)
        ports = [pair.port, pair.doors[1]]
        ports = ports if primary == 0 else ports[::-1]
        client = subprocess.Popen([FOLLOW, "--ports", "%d,%d" % tuple(ports), "--clients", CLIENTS, "--seconds", "3"],
                                  stdout=subprocess.PIPE, text=True)
        time.sleep(1.2)
        view = json.loads(pair.run("switchover", "--json", "--dir", pair.dirs[primary]))
        seen = json.loads(client.communicate(timeout=60)[0])
        gaps.append(seen["longest_gap_ms"])
        told.append(1000 * view["pause_seconds"])
        lost, updates = lost + seen["lost"], updates + seen["updates"]
        primary = 1 - primary
    if primary:
        pair.run("switchover", "--dir", pair.dirs[0])
    return {"switchover, longest gap of a client, median (ms)": statistics.median(gaps), "worst (ms)": max(gaps),
            "told by the command, median (ms)": statistics.median(told), "lost": lost, "updates": updates}


def rewind(pair, count=1000):
    """Updates that only the old primary has, and the time from its start until it is the standby."""
    s.wait_for("a level pair", lambda: pair.is_level(0), 120, 0.05)
    pair.kill(1)
    level.put(pair, (n * 7 for n in range(count)))
    pair.kill(0)
    pair.start(1)
    s.wait_for("the standby", lambda: pair.status(1).get("state") is not None, 60)
    pair.run("takeover", "--peer-is-down", "--now", "--dir", pair.dirs[1])
    s.wait_for("the new primary", lambda: pair.status(1).get("state") == "serving", 60)
    sent, began = level.loopback(), time.monotonic()
    pair.start(0)
    s.wait_for("the old primary", lambda: pair.status(0).get("state") == "standby" and pair.is_level(1), 120, 0.02)
    took, wire = time.monotonic() - began, level.loopback() - sent
    pair.run("switchover", "--dir", pair.dirs[1])
    return {f"rewind of {count} (s)": took, "its wire, of what they touched": wire / (count * 1024)}


def timed(args, what):
    """Runs the command with nothing in memory, and until all that it wrote is on the disk (s); its most memory (MiB)."""
    level.dropped()
    began = time.monotonic()
    child = subprocess.Popen([s.PROGRAM, *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, code, usage = os.wait4(child.pid, 0)
    if code:
        sys.exit(f"{what}: {code}")
    return time.monotonic() - began, round(usage.ru_maxrss / 1024)


def saves(pair, base, mib):
    """A save, its check and a restore into a new node, as parts of the raw disk's reading and writing at once."""
    both, reads = level.raw(base, 2 * mib)
    node = most_memory(pair.processes()["primary"][0])
    set_ = os.path.join(base.room("sets"), "all.hbs")
    save, saving = timed(["save", "--to", f"file:{set_}", "--dir", pair.dirs[0]], "save")
    memory = node()
    verify, _ = timed(["verify", set_], "verify")
    target = os.path.join(base.room("restored"), "C")
    port = s.free_ports(2)
    pair.run("init", "--dir", target, "--name", "c", "--role", "standby", "--link-listen", f"127.0.0.1:{port[0]}", "--peer",
             f"127.0.0.1:{port[1]}")
    pair.run("trust", "--dir", target, pair.run("identity", "--dir", pair.dirs[0]).strip())
    restore, restoring = timed(["restore", "--from", set_, "--dir", target], "restore")
    size = os.path.getsize(set_) / MIB
    return {"save to raw read and write": size / save / both, "verify to raw read": size / verify / reads,
            "restore to raw read and write": size / restore / both, "memory of the node that is saved (MiB)": memory,
            "of save (MiB)": saving, "of restore (MiB)": restoring, "raw read and write (MiB/s)": both, "raw read (MiB/s)": reads, "set (MiB)": size}


def scrubs(pair, base, mib):
    """A scrub as fast as the disk, and what users get beside one at the default rate, of what they get alone."""
    _, reads = level.raw(base, 2 * mib)
    took, _ = timed(["scrub", "--rate", "unlimited", "--dir", pair.dirs[0]], "scrub")
    ratios = []
    for _ in range(3):
        alone = s.load(pair.port, 64, 5)["updates"]
        scrub = subprocess.Popen([s.PROGRAM, "scrub", "--dir", pair.dirs[0]], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        ratios.append(s.load(pair.port, 64, 5)["updates"] / alone)
        scrub.kill()
        scrub.wait()
    return {"scrub to raw read": 2 * mib / took / reads, "users beside a scrub at its default rate": statistics.median(ratios)}


def main():
    s.PROGRAM = os.path.abspath(sys.argv[1])
    mib, count = (int(arg) for arg in (sys.argv[2:] + ["1024", "20"][len(sys.argv) - 2:]))
    print(s.machine(None), "load", os.getloadavg()[0], flush=True)
    with s.Base(None) as base:
        pair = Pair(base.room("pair"), size=f"{mib + 64}M", quota="4G")
        try:
            level.fill(pair, mib)
            for part in (lambda: switchovers(pair, count) if count else {}, lambda: rewind(pair), lambda: saves(pair, base, mib),
                         lambda: scrubs(pair, base, mib)):
                for what, figure in part().items():
                    print(f"{what}: {figure:.3f}", flush=True)
        finally:
            pair.stop()


if __name__ == "__main__":
    main()
