#!/usr/bin/env python3
"""All measurements, each beside its peer in the same run; writes results/results.json, .md and .svg.

Usage: bench/run.py [--rounds 5] [--only journal,local,durable,outage,volumes] [--dir DIR] [--program FILE]

Everything is started and stopped here, on loopback and on the disk that --dir is on (/var/tmp). Systems alternate, so
that a machine whose speed drifts treats all alike; figures are medians. What --only leaves out is kept from the last
run. Needs redis-server, redis-benchmark, PostgreSQL 15 with pgbench, strace and perf; for volumes nbdkit and fio. With
--program nothing is built, and that program is measured.
"""
import argparse, json, os, subprocess, sys, time
import durable, local, outage, picture, volumes
import systems as s


def journal(where, rounds):
    with s.Base(where) as base:
        done = subprocess.run([s.JOURNAL, "--dir", base.path, "--slices", str(rounds * 6), "--json"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


MEASURES = {"journal": journal, "local": local.measure, "durable": durable.measure,
            "outage": lambda where, rounds: outage.measure(where, rounds),
            "volumes": volumes.measure}


def build():
    home = os.path.join(s.HERE, "..")
    subprocess.run(["cargo", "build", "--release", "--bins", "--examples"], cwd=home, check=True)


def table(head, rows):
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(row) + " |" for row in rows), ""]


def report(found):
    lines = ["# Results", "", found["machine"], "", found["settings"], "",
              "Load of the machine before each part (2 is all of it; more is the work of others): "
              + ", ".join(f"{name} {load}" for name, load in found["load"].items()) + ".", "", "![the same as a picture](results.svg)", ""]
    lines += ["## Journal alone against the raw disk", ""]
    lines += table(["entries in a batch", "bytes of a write", "journal, writes/s", "raw, writes/s", "ratio (asked: 0.90)"],
                   [[str(r["entries"]), str(r["bytes"]), f"{r['journal']:,.0f}", f"{r['raw']:,.0f}", f"{r['ratio']:.2f}"]
                    for r in found["journal"]])
    lines += ["## Level local: SET of 128 bytes by redis-benchmark", ""]
    rows = []
    for shape, systems in found["local"]["medians"].items():
        own, peer, top = (systems[name] for name in ("hot-backup", "Redis", "ceiling"))
        rows.append([shape, f"{own['per_second']:,.0f}", f"{peer['per_second']:,.0f}",
                     f"{own['per_second'] / peer['per_second']:.2f}", f"{own['p99_ms']:.1f} ms", f"{peer['p99_ms']:.1f} ms",
                     f"{top['per_second']:,.0f}", f"{top['per_second'] / peer['per_second']:.2f}"])
    lines += table(["", "hot-backup /s", "Redis /s", "ratio (asked: 2)", "p99", "Redis p99", "ceiling /s", "ceiling / Redis"], rows)
    lines += ["Processor time for one SET (microseconds; the two processors give 2,000,000 in a second):", ""]
    rows = []
    for shape, systems in found["local"]["medians"].items():
        for name, f in systems.items():
            spent = f["client_us"] + f["primary_us"] + f.get("standby_us", 0)
            rows.append([shape, name, f"{f['client_us']:.1f}", f"{f['primary_us']:.1f}", f"{f.get('standby_us', 0):.1f}",
                         f"{spent:.1f}", f"{2e6 / f['per_second'] - spent:.1f}"])
    lines += table(["", "", "client", "primary", "standby", "sum", "idle and others"], rows)
    lines += ["## Level durable: both disks, 64 clients", ""]
    medians, syncs = found["durable"]["medians"], found["durable"]["syncs"]
    own = medians["hot-backup"]["per_second"]
    asked = {"hot-backup": "", "Redis": " (asked: 2)", "PostgreSQL": " (asked: 5)"}
    lines += table(["", "updates/s", "hot-backup is faster by", "p50", "p99"],
                   [[name, f"{f['per_second']:,.0f}", f"{own / f['per_second']:.2f}{asked[name]}", f"{f['p50_ms']:.1f} ms",
                     f"{f['p99_ms']:.1f} ms"] for name, f in medians.items()])
    lines += ["In a separate short run that strace slows, durable system calls and durable writes by the ring of each side:", ""]
    lines += table(["", "updates", "syncs, primary", "syncs, standby", "updates for each sync (at most 64 clients wait)", "flushes of the device"],
                   [[name, f"{c['updates']:,}", f"{c['syncs']['primary']:,}", f"{c['syncs']['standby']:,}",
                     f"{c['updates_per_sync']['primary']} / {c['updates_per_sync']['standby']}", f"{c['device_flushes']:,}"]
                    for name, c in syncs.items()])
    o = found["outage"]
    memory = found["local"]["memory_mib"]["hot-backup"]
    lines += ["## Memory and restart", ""]
    lines += table(["", "measured", "asked"], [
        ["most resident memory under the load of level local (primary, standby)", f"{memory['primary']}, {memory['standby']} MiB", "256 MiB"],
        ["the same at level durable", "{primary}, {standby} MiB".format(**found["durable"]["memory_mib"]), "256 MiB"],
        [f"peer away while {o['updates']:,} updates of 1 KiB were written ({o['journal_bytes'] / 2**30:.1f} GiB of journal)",
         f"{o['memory_away_mib']} MiB", "256 MiB"],
        ["during the catch-up after it (primary, standby)", "{primary}, {standby} MiB".format(**o["memory_catch_up_mib"]), "256 MiB"],
        ["kill -9 under load until the next update is answered, with that journal to walk",
         f"{o['restart_median_s']:.2f} s (all: {', '.join(f'{t:.2f}' for t in o['restart_s'])})", "3 s"]])
    if "volumes" in found:
        v = found["volumes"]
        lines += ["## Volumes over NBD", "", v["settings"], ""]
        lines += table(["", "hot-backup", "beside it", "ratio", "asked", "met"], volumes.facts(v["medians"]))
        lines += ["Bytes written of a node are what /proc/PID/io says, of the device what all of the machine wrote; in the random "
                  "loads only the device tells, since the kernel counts whole folios of the page cache.", ""]
        lines += table(volumes.COSTS, volumes.costs(v["medians"]))
    return "\n".join(lines)


def settings(rounds):
    redis, postgres = s.tool_version("redis-server", "--version"), s.tool_version(os.path.join(s.POSTGRES, "postgres"), "--version")
    return (f"Clients and all servers share the processors; all on loopback and one disk. Medians of {rounds} rounds, "
            "systems alternating. hot-backup: link without encryption, everything else as it comes. "
            f"{redis.split(' sha')[0]}: appendonly yes, appendfsync always, no snapshots, one replica alike; ceiling: appendonly "
            f"no, no replica. {postgres}: synchronous_commit on, one synchronous standby.")


def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--rounds", type=int, default=5)
    ask.add_argument("--only", default=",".join(MEASURES))
    ask.add_argument("--dir")
    ask.add_argument("--program")
    ask = ask.parse_args()
    if ask.program:
        s.PROGRAM = os.path.abspath(ask.program)
    else:
        build()
    os.makedirs(s.RESULTS, exist_ok=True)
    kept = os.path.join(s.RESULTS, "results.json")
    found = json.load(open(kept)) if os.path.exists(kept) else {}
    for name in ask.only.split(","):
        begun = time.monotonic()
        found.setdefault("load", {})[name] = round(os.getloadavg()[0], 1)
        found[name] = MEASURES[name](ask.dir, ask.rounds)
        print(f"{name}: {time.monotonic() - begun:.0f} s, load of the machine {os.getloadavg()[0]:.1f}", file=sys.stderr)
    found["machine"] = s.machine(ask.dir)
    if ask.only != "volumes":
        found["settings"] = settings(ask.rounds)
    with open(kept, "w") as out:
        json.dump(found, out, indent=1)
    with open(os.path.join(s.RESULTS, "results.md"), "w") as out:
        out.write(report(found))
    with open(os.path.join(s.RESULTS, "results.svg"), "w") as out:
        out.write(picture.draw(found))
    print(report(found))


if __name__ == "__main__":
    main()
