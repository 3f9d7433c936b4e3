"""Level `local`: SETs of 128 bytes by redis-benchmark into a replicated file of a pair of nodes, beside Redis with
`appendonly yes, appendfsync always` and one replica, beside the ceiling: one Redis that keeps nothing and has no replica,
which is the most that this client gets out of a server here. With the time that each process spends on the processors."""
import os, resource, statistics, subprocess
import systems as s

SHAPES = {"64 connections": ["-c", "64"], "256 connections": ["-c", "256"], "64 connections, 16 deep": ["-c", "64", "-P", "16"]}
TICK = os.sysconf("SC_CLK_TCK")


class Ceiling(s.Redis):
    name = "ceiling"

    def __init__(self, base):
        super().__init__(base, persist=False)


def benchmark(port, shape, requests):
    line = subprocess.run(
        ["redis-benchmark", "-p", str(port), "-n", str(requests), "-r", "100000", "-d", "128", "-t", "set", "--csv", *shape],
        capture_output=True, text=True, check=True).stdout.strip().splitlines()[-1]
    fields = [field.strip('"') for field in line.split(",")]
    return {"per_second": float(fields[1]), "p50_ms": float(fields[4]), "p99_ms": float(fields[6])}


def spent(pid):
    """Seconds on the processors by thread name."""
    threads = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/stat") as stat:
            text = stat.read()
        name, fields = text[text.index("(") + 1:text.rindex(")")], text.rsplit(")", 1)[1].split()
        threads[name] = threads.get(name, 0) + (int(fields[11]) + int(fields[12])) / TICK
    return threads


def used_by_children():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def one(system, shape, requests):
    pids = {role: pids[0] for role, pids in system.processes().items()}
    before, client = {role: spent(pid) for role, pid in pids.items()}, used_by_children()
    run = benchmark(system.port, shape, requests)
    run["client_us"] = (used_by_children() - client) / requests * 1e6
    for role, pid in pids.items():
        after = spent(pid)
        threads = {name: (after[name] - before[role].get(name, 0)) / requests * 1e6 for name in after}
        run[role + "_us"] = sum(threads.values())
        run[role + "_threads_us"] = {name: round(us, 2) for name, us in threads.items() if us > 0.05}
    return run


def measure(where, rounds=5, requests=100_000, kinds=(s.HotBackup, s.Redis, Ceiling), shapes=SHAPES):
    running, runs = [], {}
    with s.Base(where) as base:
        try:
            running += [kind(base.room(kind.name)) for kind in kinds]
            for _ in range(rounds):
                for shape, args in shapes.items():
                    for system in running:
                        count = requests * (4 if "-P" in args else 1)
                        runs.setdefault(shape, {}).setdefault(system.name, []).append(one(system, args, count))
            memory = {system.name: {role: s.resident(pids[0])["VmHWM"] for role, pids in system.processes().items()}
                      for system in running}
        finally:
            for system in running:
                system.stop()
    keys = ("per_second", "p50_ms", "p99_ms", "client_us", "primary_us", "standby_us")
    medians = {shape: {name: {key: round(statistics.median(run[key] for run in values), 3) for key in keys if key in values[0]}
                       for name, values in systems.items()} for shape, systems in runs.items()}
    return {"medians": medians, "runs": runs, "memory_mib": memory}


if __name__ == "__main__":
    # Quick look: local.py [program] [rounds]: medians and where the time goes.
    import sys
    if len(sys.argv) > 1:
        s.PROGRAM = os.path.abspath(sys.argv[1])
    found = measure(None, int(sys.argv[2]) if len(sys.argv) > 2 else 3)
    for shape, systems in found["medians"].items():
        for name, figures in systems.items():
            print(f"{shape:24} {name:11}", figures)
        print("   ", {role: found["runs"][shape]["hot-backup"][-1][role + "_threads_us"] for role in ("primary", "standby")})
    print(found["memory_mib"])
