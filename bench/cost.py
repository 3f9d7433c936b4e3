#!/usr/bin/env python3
"""What one SET costs the processors on both nodes, of several programs in turns: cost.py [--rounds 5] [--requests 20000]
PROGRAM ...

Beside them, in the same run, Redis with `appendfsync always` and a replica, and one Redis that keeps nothing (the ceiling).
The ratio is what durability and replication cost beyond the bare network: (a pair less the ceiling) / (Redis less the
ceiling). Time is counted by the scheduler in nanoseconds, for each thread; rates say nothing on a machine that others use.
"""
import argparse, os, statistics
import local, systems as s


def spent(pid):
    """Microseconds on the processors and sleeps of each thread, by its name."""
    threads = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        at = f"/proc/{pid}/task/{task}"
        with open(at + "/comm") as name, open(at + "/schedstat") as times, open(at + "/status") as status:
            sleeps = status.read().split("\nvoluntary_ctxt_switches:")[1].split()[0]
            found = threads.setdefault(name.read().strip(), [0, 0])
            found[0] += int(times.read().split()[0]) / 1000
            found[1] += int(sleeps)
    return threads


def pair(number, path):
    class Pair(s.HotBackup):
        name = f"{number}: {path}"

        def __init__(self, base):
            s.PROGRAM = os.path.abspath(path)
            super().__init__(base)

    return Pair


def one(system, shape, requests):
    pids = {role: pids[0] for role, pids in system.processes().items()}
    before = {role: spent(pid) for role, pid in pids.items()}
    local.benchmark(system.port, shape, requests)
    after = {role: spent(pid) for role, pid in pids.items()}
    return {role: {name: [(now - then) / requests for now, then in zip(found, before[role].get(name, [0, 0]))]
                   for name, found in after[role].items()} for role in pids}


def total(run):
    return sum(found[0] for threads in run.values() for found in threads.values())


def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--rounds", type=int, default=5)
    ask.add_argument("--requests", type=int, default=20_000)
    ask.add_argument("program", nargs="*", default=[s.PROGRAM])
    ask = ask.parse_args()
    kinds = [pair(number, path) for number, path in enumerate(ask.program)] + [s.Redis, local.Ceiling]
    running, runs = [], {}
    with s.Base(None) as base:
        try:
            running += [kind(base.room(str(number))) for number, kind in enumerate(kinds)]
            for turn in range(ask.rounds):
                for shape, args in local.SHAPES.items():
                    for system in running[::1 if turn % 2 else -1]:
                        count = ask.requests * (4 if "-P" in args else 1)
                        runs.setdefault(shape, {}).setdefault(system.name, []).append(one(system, args, count))
        finally:
            for system in running:
                system.stop()
    for shape, systems in runs.items():
        whole = {name: statistics.median(map(total, found)) for name, found in systems.items()}
        beyond = {name: cost - whole["ceiling"] for name, cost in whole.items()}
        for name, found in systems.items():
            print(f"{shape:24} {name}: {whole[name]:.2f} us, ratio {beyond[name] / beyond['Redis']:.2f}")
            for role in found[0]:
                middle = {thread: [statistics.median(run[role].get(thread, [0, 0])[at] for run in found) for at in (0, 1)]
                          for thread in found[-1][role]}
                print(f"    {role}:", ", ".join(f"{thread} {cost:.2f} us, {sleeps:.3f} sleeps"
                                               for thread, (cost, sleeps) in middle.items() if cost > 0.05))


if __name__ == "__main__":
    main()
