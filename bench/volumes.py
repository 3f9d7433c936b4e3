"""Volumes over NBD, each load beside `nbdkit file` (or `nbdkit memory`, or the raw disk) in the same run and on the same
file system: random 4 KiB writes with FUA, random 4 KiB reads, sequential writes of 1 MiB and a flush; with the time on the
processors, the bytes written to disk and the most memory of each node. Volumes have 1 TiB; the loads lie in the first GiB,
which has been written before; one more lies all over it."""
import json, os, statistics, subprocess, sys, time
import copies
import systems as s

PYTHON = "/usr/bin/python3"
TICK = os.sysconf("SC_CLK_TCK")
GIB = 1 << 30
LEVELS = {"disk1": "local", "disk2": "durable"}


class Volumes(s.HotBackup):
    """A pair with two volumes, one of each level."""
    name = "hot-backup"

    def __init__(self, base, size="1T", encryption="none", quota="4G"):
        self.socket = os.path.join(base, "nbd")
        # The standby has no door: both nodes have a path of their own, and its volumes are read-only anyway.
        super().__init__(base, init=("--journal-quota-bytes", quota), encryption=encryption)
        for disk, level in LEVELS.items():
            self.run("file", "create", f"app,{disk}", "--blocks", "--size", size, "--flags", "L", "--ack", level,
                     "--dir", self.dirs[0])

    def run(self, *args):
        door = ("--nbd", self.socket) if args[0] == "init" and args[args.index("--role") + 1] == "primary" else ()
        return super().run(*args, *door)

    def settle(self):
        """Until the standby has it all, so that one load does not pay for the one before."""
        s.wait_for("the standby", lambda: self.status()["peer"].get("lag_entries", 1) == 0, 120, 0.2)


class Nbdkit:
    def __init__(self, base, *plugin, name="nbdkit file"):
        self.name, self.socket = name, os.path.join(base, "nbd")
        self.child = subprocess.Popen(["nbdkit", "-f", "-t", "32", "-U", self.socket, *plugin])
        s.wait_for("nbdkit", lambda: os.path.exists(self.socket))

    @classmethod
    def file(cls, base, size=1 << 40):
        path = os.path.join(base, "disk")
        with open(path, "wb") as out:
            out.truncate(size)
        return cls(base, "file", f"file={path}")

    def processes(self):
        return {"primary": [self.child.pid]}

    def settle(self):
        pass

    def stop(self):
        self.child.terminate()
        self.child.wait()


def write(system, disk, *args):
    done = subprocess.run([PYTHON, os.path.join(s.HERE, "nbd_load.py"), system.socket, f"app/{disk}", *args],
                          capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{system.name}: the load client: {done.stderr}")
    return json.loads(done.stdout)


def read(system, disk, seconds):
    done = subprocess.run(
        ["fio", "--name=read", "--ioengine=nbd", f"--uri=nbd+unix:///app/{disk}?socket={system.socket}", "--rw=randread", "--bs=4k",
         "--iodepth=32", "--size=1G", "--norandommap", "--randrepeat=0", "--time_based", f"--runtime={seconds}",
         "--output-format=json"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{system.name}: fio: {done.stdout} {done.stderr}")
    found = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]["read"]
    return {"per_second": found["iops"], "bytes": found["io_bytes"], "p50_ms": found["clat_ns"]["percentile"]["50.000000"] / 1e6,
            "p99_ms": found["clat_ns"]["percentile"]["99.000000"] / 1e6}


def raw_disk(base, total=GIB):
    """MB/s of writes of 1 MiB past the page cache into a file that has its blocks, and a flush."""
    path = os.path.join(base, "raw")
    if not os.path.exists(path):
        with open(path, "wb") as out:
            for _ in range(total >> 20):
                out.write(b"\1" * (1 << 20))
            os.fsync(out.fileno())
    done = subprocess.run(
        ["fio", "--name=raw", f"--filename={path}", "--ioengine=libaio", "--direct=1", "--rw=write", "--bs=1M", "--iodepth=8",
         f"--size={total}", "--overwrite=1", "--end_fsync=1", "--output-format=json"], capture_output=True, text=True, check=True)
    return {"mb_per_second": json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]["write"]["bw_bytes"] / 1e6}


def raw_sync(base, seconds):
    """Writes of 64 KiB past the page cache, each durable before the next: what one journal writes with half of 32 in a
    group, which tells how the device was just then."""
    done = subprocess.run(
        ["fio", "--name=sync", f"--directory={base}", "--ioengine=psync", "--direct=1", "--sync=dsync", "--rw=write", "--bs=64k",
         "--size=64M", "--overwrite=1", "--time_based", f"--runtime={seconds}", "--output-format=json"],
        capture_output=True, text=True, check=True)
    found = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]["write"]
    return {"per_second": found["iops"], "p50_ms": found["clat_ns"]["percentile"]["50.000000"] / 1e6,
            "p99_ms": found["clat_ns"]["percentile"]["99.000000"] / 1e6}


def cpu(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def written(pid):
    with open(f"/proc/{pid}/io") as counts:
        return int(dict(line.split(": ") for line in counts)["write_bytes"])


def device():
    """Bytes written to all block devices, by whomever."""
    total = 0
    for name in os.listdir("/sys/block"):
        with open(f"/sys/block/{name}/stat") as stat:
            total += int(stat.read().split()[6]) * 512
    return total


def watched(system, work):
    """What `work` gives, and what it took of each process; until the standby has everything too."""
    pids = {role: pids[0] for role, pids in system.processes().items()}
    for pid in pids.values():
        with open(f"/proc/{pid}/clear_refs", "w") as reset:
            reset.write("5")  # the most memory is counted from here
    before = {role: (cpu(pid), written(pid)) for role, pid in pids.items()}
    subprocess.run(["sync", "-f", os.path.dirname(system.socket)], check=True)
    disk, begun = device(), time.monotonic()
    run = work()
    system.settle()
    subprocess.run(["sync", "-f", os.path.dirname(system.socket)], check=True)
    run["all_on_disk_mb_per_second"] = run["bytes"] / (time.monotonic() - begun) / 1e6
    for role, pid in pids.items():
        run[role + "_cpu_s_per_gib"] = (cpu(pid) - before[role][0]) / run["bytes"] * GIB
        run[role + "_written_per_byte"] = (written(pid) - before[role][1]) / run["bytes"]
        run[role + "_memory_mib"] = s.resident(pid)["VmHWM"]
    run["device_per_byte"] = (device() - disk) / run["bytes"]
    return run


def summary(runs):
    """Medians; the most of memory, since that has a limit."""
    return {load: {name: {key: round((max if key.endswith("memory_mib") else statistics.median)(run[key] for run in values), 3)
                          for key in values[0]} for name, values in systems.items()} for load, systems in runs.items()}


RAW_SYNC = "raw, 64 KiB one by one"
COPIES = "the copies alone"
SETTINGS = ("Volumes of 1 TiB, loads in their first GiB, which was written before; one connection over a Unix socket. Random: 32 in "
            "flight, {seconds} s; sequential: 1 GiB (tmpfs: 512 MiB), 8 of 1 MiB in flight, and a flush; all over: 32 MiB. Medians of {rounds} rounds, "
            "systems alternating; memory: the most of all rounds. hot-backup: standby connected, link without encryption "
            "unless said, journal quota 4 GiB (tmpfs: 1 GiB), everything else as it comes. {nbdkit} with 32 threads, on the same "
            "file system. Writes by nbd_load.py, reads by {fio}. Raw disk: fio with libaio and O_DIRECT, 1 MiB, 8 in flight, "
            "into a file that has its blocks, and fsync.")
SEQUENTIAL = ("--size", str(1 << 20), "--flight", "8", "--sequential", "--total", str(GIB))
# Not more: a file system that discards what it frees needs long to remove so many extents.
SCATTERED = ("--total", str(32 << 20))
SMALL = ("--size", "4096", "--flight", "32", "--fua")


def on_disk(where, rounds, seconds):
    runs, running = {}, []

    def note(load, name, run):
        runs.setdefault(load, {}).setdefault(name, []).append(run)
        print(f"{load:28} {name:22}", {key: round(value, 3) for key, value in run.items()}, file=sys.stderr)

    with s.Base(where) as base:
        try:
            own = Volumes(base.room("hot-backup"))
            running.append(own)
            peer = Nbdkit.file(base.room("nbdkit"))
            running.append(peer)
            raw = base.room("raw")
            raw_disk(raw)
            raw_sync(raw, 1)
            for system, disk in ((own, "disk1"), (own, "disk2"), (peer, "disk1")):
                write(system, disk, *SEQUENTIAL)
                system.settle()
            for _ in range(rounds):
                for name, system, disk in (("local", own, "disk1"), ("nbdkit file", peer, "disk1"), ("durable", own, "disk2")):
                    note("random writes, FUA", name, watched(system, lambda: write(system, disk, *SMALL, "--seconds", str(seconds))))
                note("random writes, FUA", RAW_SYNC, raw_sync(raw, 2))
                for name, system in (("local", own), ("nbdkit file", peer)):
                    note("random reads", name, watched(system, lambda: read(system, "disk1", seconds)))
                for name, system, disk in (("local", own, "disk1"), ("nbdkit file", peer, "disk1"), ("durable", own, "disk2")):
                    note("sequential writes", name, watched(system, lambda: write(system, disk, *SEQUENTIAL)))
                note("sequential writes", "raw disk", raw_disk(raw))
            for name, system, disk in (("local", own, "disk1"), ("nbdkit file", peer, "disk1")):
                note("random writes all over, FUA", name,
                     watched(system, lambda: write(system, disk, *SMALL, "--span", "0", *SCATTERED)))
        finally:
            for system in running:
                system.stop()
    return runs


def in_memory(rounds):
    """Both nodes' directories on tmpfs beside `nbdkit memory`, and beside the copies that two nodes cannot do without:
    what the code costs where no disk limits it."""
    runs, running = {}, []
    total = 512 << 20
    args = ("--size", str(1 << 20), "--flight", "8", "--sequential", "--total", str(total), "--span", str(total))
    with s.Base("/dev/shm") as base:
        try:
            for name, encryption in (("link plain", "none"), ("link TLS", "tls")):
                pair = Volumes(base.room(name.replace(" ", "-")), encryption=encryption, quota="1G")
                running.append(pair)
                pair.name = name
            running.append(Nbdkit(base.room("memory"), "memory", "1T", name="nbdkit memory"))
            room = base.room("copies")
            for system in running:
                write(system, "disk1", *args)
                system.settle()
            for _ in range(rounds):
                for system in running:
                    run = watched(system, lambda: write(system, "disk1", *args))
                    runs.setdefault("sequential writes, tmpfs", {}).setdefault(system.name, []).append(run)
                    print("tmpfs", system.name, {key: round(value, 3) for key, value in run.items()}, file=sys.stderr)
                runs["sequential writes, tmpfs"].setdefault(COPIES, []).append(copies.measure(room, total))
        finally:
            for system in running:
                system.stop()
    return runs


def measure(where, rounds=5, seconds=3):
    runs = {**on_disk(where, rounds, seconds), **in_memory(rounds)}
    return {"medians": summary(runs), "runs": runs, "settings": SETTINGS.format(
        rounds=rounds, seconds=seconds, nbdkit=s.tool_version("nbdkit", "--version"), fio=s.tool_version("fio", "--version"))}


def facts(medians):
    """What was asked, what was measured, whether that is met: rows of a table."""
    small, reads, big = (medians[load] for load in ("random writes, FUA", "random reads", "sequential writes"))
    tmpfs, all_over = medians["sequential writes, tmpfs"], medians["random writes all over, FUA"]
    rows = []

    def row(what, own, peer, asked, unit, ratio=None):
        ratio = own / peer if ratio is None else ratio
        rows.append([what, f"{own:,.0f} {unit}", f"{peer:,.0f} {unit}", f"{ratio:.2f}", f"{asked:.2f}",
                     "yes" if ratio >= asked else "**no**"])

    peer = small["nbdkit file"]["per_second"]
    row("random 4 KiB writes with FUA, `local`; nbdkit file", small["local"]["per_second"], peer, 1, "/s")
    row("the same, `durable`; nbdkit file", small["durable"]["per_second"], peer, 0.5, "/s")
    row("random 4 KiB reads, warm; nbdkit file", reads["local"]["per_second"], reads["nbdkit file"]["per_second"], 0.9, "/s")
    for level in ("local", "durable"):
        own = big[level]
        each = own["primary_written_per_byte"] + own["standby_written_per_byte"]
        row(f"sequential 1 MiB writes and a flush, `{level}`; raw disk, at {each:.1f} bytes for each",
            own["mb_per_second"], big["raw disk"]["mb_per_second"] / each, 0.8, "MB/s")
    for link in ("link plain", "link TLS"):
        row(f"sequential 1 MiB writes, both nodes on tmpfs, {link}; nbdkit memory", tmpfs[link]["mb_per_second"],
            tmpfs["nbdkit memory"]["mb_per_second"], 0.7, "MB/s")
    own, least = tmpfs["link plain"]["mb_per_second"], tmpfs[COPIES]["mb_per_second"]
    rows.append(["the same, link plain; the copies alone that two nodes cannot do without (`copies.py`)",
                 f"{own:,.0f} MB/s", f"{least:,.0f} MB/s", f"{own / least:.2f}", "", ""])
    most = max(value for systems in medians.values() for name, figures in systems.items() if "nbdkit" not in name and "raw" not in name
               for key, value in figures.items() if key.endswith("memory_mib"))
    rows.append(["most memory of a node under any of these loads, also writes all over 1 TiB "
                 f"({all_over['local']['per_second']:,.0f} /s; nbdkit file {all_over['nbdkit file']['per_second']:,.0f} /s)",
                 f"{most:.0f} MiB", "256 MiB", "", "", "yes" if most < 256 else "**no**"])
    return rows


def costs(medians):
    """Rows of a table: rates, and what each load takes of the machine."""
    rows, text = [], lambda f, key, form: format(f[key], form) if key in f else ""
    for load, systems in medians.items():
        for name, f in systems.items():
            rate = f"{f['per_second']:,.0f} /s" if "random" in load else f"{f['mb_per_second']:,.0f} MB/s"
            rows.append([load, name, rate, text(f, "p50_ms", ".2f"), text(f, "p99_ms", ".1f"),
                         *(text(f, f"{role}_cpu_s_per_gib", ".2f") for role in ("primary", "standby")),
                         *(text(f, f"{role}_written_per_byte", ".1f") if "sequential" in load else "" for role in ("primary", "standby")),
                         text(f, "device_per_byte", ".1f"), text(f, "all_on_disk_mb_per_second", ",.0f"),
                         *(text(f, f"{role}_memory_mib", ".0f") for role in ("primary", "standby"))])
    return rows


COSTS = ["load", "system", "rate", "p50 ms", "p99 ms", "CPU s/GiB, primary", "standby", "written per byte, primary", "standby",
         "device, both", "MB/s until all is on disk", "most MiB, primary", "standby"]


if __name__ == "__main__":
    # volumes.py [program] [rounds] [seconds]
    if len(sys.argv) > 1:
        s.PROGRAM = os.path.abspath(sys.argv[1])
    found = measure(None, int(sys.argv[2]) if len(sys.argv) > 2 else 3, int(sys.argv[3]) if len(sys.argv) > 3 else 3)
    for line in [*facts(found["medians"]), COSTS, *costs(found["medians"])]:
        print(" | ".join(line))
