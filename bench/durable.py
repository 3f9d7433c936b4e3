"""Level `durable` (both disks) by 64 clients: a pair of nodes, PostgreSQL with a synchronous standby, and Redis with
`appendfsync always` on both and WAIT 1 behind each SET. A separate short run counts what each system really syncs:
system calls by strace, and durable writes that the nodes hand to their rings (IORING_OP_WRITE; they submit no other, and
each carries RWF_DSYNC) by the kernel's tracepoint."""
import os, re, signal, statistics, subprocess, time
import systems as s

RING_WRITE = 23  # IORING_OP_WRITE
SYNCS = "fsync,fdatasync,pwritev2,sync_file_range,msync"


def update(system, clients, seconds):
    if system.name == "PostgreSQL":
        return system.pgbench(clients, seconds)
    return s.load(system.port, clients, seconds, *(["--wait"] if system.name == "Redis" else []))


def count_syncs(system, base, clients, seconds):
    """Durable syscalls of each side while `updates` were answered; and the device's flushes."""
    traces, files, rings = [], {}, {}
    for role, pids in system.processes().items():
        files[role] = os.path.join(base, f"{system.name}-{role}.strace")
        # PostgreSQL forks a process for each client, which -f follows from the postmaster.
        args = [part for pid in pids for part in ("-p", str(pid))]
        traces.append(subprocess.Popen(["strace", "-f", "-qq", "-e", f"trace={SYNCS}", "-o", files[role], *args],
                                       stderr=subprocess.DEVNULL))
        if system.name == "hot-backup":
            rings[role] = files[role] + ".ring"
            traces.append(subprocess.Popen(["perf", "stat", "-x", ",", "-e", "io_uring:io_uring_submit_req", "--filter",
                                            f"opcode == {RING_WRITE}", "-o", rings[role], "-p", str(pids[0])]))
    time.sleep(1)
    before = s.flushes()
    done = update(system, clients, seconds)
    flushed = s.flushes() - before
    for trace in traces:
        trace.send_signal(signal.SIGINT)
        trace.wait()
    syncs = {role: sum(1 for line in open(path) if is_sync(line)) for role, path in files.items()}
    for role, path in rings.items():
        syncs[role] += sum(int(line.split(",")[0]) for line in open(path) if "io_uring_submit_req" in line)
    return {"updates": done["updates"], "syncs": syncs, "device_flushes": flushed,
            "updates_per_sync": {role: round(done["updates"] / max(n, 1), 1) for role, n in syncs.items()}}


def is_sync(line):
    """Whether a durable call begins in this line of strace; the arguments stand where it begins."""
    return re.search(r"\b(fsync|fdatasync|msync|sync_file_range)\(", line) or ("pwritev2(" in line and "RWF_DSYNC" in line)


def measure(where, rounds=5, seconds=4, clients=64):
    running, runs = [], {}
    with s.Base(where) as base:
        try:
            running.append(s.HotBackup(base.room("hot-backup"), ack="durable"))
            running.append(s.Redis(base.room("redis")))
            running.append(s.Postgres(base.room("postgres")))
            for system in running:
                update(system, clients, 3)
            for _ in range(rounds):
                for system in running:
                    runs.setdefault(system.name, []).append(update(system, clients, seconds))
            memory = {role: s.resident(pids[0])["VmHWM"] for role, pids in running[0].processes().items()}
            syncs = {system.name: count_syncs(system, base.path, clients, 2) for system in running}
        finally:
            for system in running:
                system.stop()
    medians = {name: {key: statistics.median(run[key] for run in values) for key in ("per_second", "p50_ms", "p99_ms")}
               for name, values in runs.items()}
    return {"medians": medians, "runs": runs, "syncs": syncs, "memory_mib": memory, "clients": clients}


if __name__ == "__main__":
    import json, sys
    print(json.dumps(measure(None, int(sys.argv[1]) if len(sys.argv) > 1 else 3), indent=1))
