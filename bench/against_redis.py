#!/usr/bin/env python3
"""SET through a pair of nodes, beside Redis with `appendfsync always` and one replica, in the same run.

Usage: bench/against_redis.py [--rounds 5] [--requests 100000] [--dir target/bench] [--program target/release/hot-backup]

Starts and stops everything itself, on loopback and on the disk that --dir is on. Rounds alternate between the two
systems, so that a machine whose speed drifts treats both alike; the table holds medians. Needs redis-server and
redis-benchmark. Prints a table and writes results/against-redis.json and .md beside this file.
"""
import argparse, json, os, platform, shutil, signal, socket, statistics, subprocess, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
SHAPES = {"64 connections": ["-c", "64"], "256 connections": ["-c", "256"],
          "64 connections, 16 deep": ["-c", "64", "-P", "16"]}


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def wait_for(what, look, seconds=30):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if look():
            return
        time.sleep(0.05)
    sys.exit(f"{what} did not come within {seconds} s")


def answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as s:
            s.sendall(b"PING\r\n")
            return s.recv(64).startswith(b"+PONG")
    except OSError:
        return False


class HotBackup:
    name = "hot-backup"

    def __init__(self, program, base):
        self.program, self.dirs = program, [os.path.join(base, n) for n in "AB"]
        link = free_ports(2)
        self.port = free_ports(1)[0]
        for n, directory in enumerate(self.dirs):
            resp = ["--resp", f"127.0.0.1:{self.port}", "--resp-default", "app,items"] if n == 0 else []
            self.run("init", "--dir", directory, "--name", "ab"[n], "--role", ["primary", "standby"][n],
                     "--link-listen", f"127.0.0.1:{link[n]}", "--peer", f"127.0.0.1:{link[1 - n]}",
                     "--encryption", "none", *resp)
        for n in (0, 1):
            self.run("trust", "--dir", self.dirs[n], self.run("identity", "--dir", self.dirs[1 - n]).strip())
        self.children = [subprocess.Popen([program, "serve", "--dir", d], stdout=subprocess.DEVNULL,
                                          stderr=open(d + ".log", "w")) for d in self.dirs]
        wait_for("the primary", lambda: answers(self.port))
        wait_for("the link", lambda: self.status()["peer"]["connected"])
        self.run("account", "create", "app", "--dir", self.dirs[0])
        self.run("file", "create", "app,items", "--records", "--flags", "L", "--dir", self.dirs[0])

    def run(self, *args):
        done = subprocess.run([self.program, *args], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{args}: {done.stderr}")
        return done.stdout

    def status(self):
        done = subprocess.run([self.program, "status", "--json", "--dir", self.dirs[0]], capture_output=True, text=True)
        return json.loads(done.stdout) if done.returncode == 0 else {"peer": {"connected": False}}


class Redis:
    name = "Redis"

    def __init__(self, _program, base):
        self.port, replica = free_ports(2)
        self.children = []
        for port, more in ((self.port, []), (replica, ["--replicaof", "127.0.0.1", str(self.port)])):
            directory = os.path.join(base, str(port))
            os.makedirs(directory)
            self.children.append(subprocess.Popen(
                ["redis-server", "--port", str(port), "--dir", directory, "--appendonly", "yes", "--appendfsync",
                 "always", "--save", "", *more], stdout=open(directory + ".log", "w")))
            wait_for("Redis", lambda: answers(port))
        link = lambda: "state=online" in subprocess.run(
            ["redis-cli", "-p", str(self.port), "info", "replication"], capture_output=True, text=True).stdout
        wait_for("the replica", link)


def measure(port, shape, requests):
    line = subprocess.run(
        ["redis-benchmark", "-p", str(port), "-n", str(requests), "-r", "100000", "-d", "128", "-t", "set", "--csv", *shape],
        capture_output=True, text=True, check=True).stdout.strip().splitlines()[-1]
    fields = [field.strip('"') for field in line.split(",")]
    return {"per_second": float(fields[1]), "p50_ms": float(fields[4]), "p99_ms": float(fields[6])}


def resident(child):
    with open(f"/proc/{child.pid}/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("--rounds", type=int, default=5)
    ask.add_argument("--requests", type=int, default=100_000)
    ask.add_argument("--dir", default=os.path.join(HERE, "..", "target", "bench"))
    ask.add_argument("--program", default=os.path.join(HERE, "..", "target", "release", "hot-backup"))
    ask = ask.parse_args()
    base = os.path.join(ask.dir, str(os.getpid()))
    os.makedirs(base)
    systems = []
    try:
        for kind in (HotBackup, Redis):
            os.makedirs(os.path.join(base, kind.name))
            systems.append(kind(os.path.abspath(ask.program), os.path.join(base, kind.name)))
        runs = {(s.name, shape): [] for s in systems for shape in SHAPES}
        for _ in range(ask.rounds):
            for shape, args in SHAPES.items():
                for system in systems:
                    runs[system.name, shape].append(measure(system.port, args, ask.requests * (4 if "-P" in args else 1)))
        memory = {s.name: [round(resident(c)) for c in s.children] for s in systems}
    finally:
        for system in systems:
            for child in system.children:
                child.send_signal(signal.SIGTERM)
                child.wait()
        shutil.rmtree(base, ignore_errors=True)
    report(ask, runs, memory)


def report(ask, runs, memory):
    median = lambda name, shape, key: statistics.median(run[key] for run in runs[name, shape])
    lines = [f"{os.cpu_count()} processors, Linux {platform.release()}, medians of {ask.rounds} rounds, SET of 128 bytes, "
             "level local, no encryption; Redis: appendonly yes, appendfsync always, one replica", "",
             "| | hot-backup /s | Redis /s | ratio | hot-backup p99 | Redis p99 |", "|---|---|---|---|---|---|"]
    for shape in SHAPES:
        a, b = (median(name, shape, "per_second") for name in ("hot-backup", "Redis"))
        p, q = (median(name, shape, "p99_ms") for name in ("hot-backup", "Redis"))
        lines.append(f"| {shape} | {a:,.0f} | {b:,.0f} | {a / b:.2f} | {p:.1f} ms | {q:.1f} ms |")
    lines.append("")
    lines.append(f"Most resident memory (MiB; primary, standby): {memory}")
    print("\n".join(lines))
    results = os.path.join(HERE, "results")
    os.makedirs(results, exist_ok=True)
    with open(os.path.join(results, "against-redis.md"), "w") as out:
        out.write("\n".join(lines) + "\n")
    with open(os.path.join(results, "against-redis.json"), "w") as out:
        json.dump({"runs": {f"{name}; {shape}": values for (name, shape), values in runs.items()}, "memory_mib": memory}, out, indent=1)


if __name__ == "__main__":
    main()
