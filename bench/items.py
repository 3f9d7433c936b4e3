#!/usr/bin/env python3
"""What items cost as their number grows, and what reads from the disk cost: items.py [--dir DIR] [--bytes 100]
[--sizes 1,5,20] [--cold] [--only-cold] PROGRAM ...

For each size (millions of items) and each program, on one node that serves alone: processor time of the node for a random
SET and bytes written for each byte put (64 clients, 16 deep), memory, GET of items that are in memory, DBSIZE, restart
after kill -9. With --cold the largest store is read with the memory of the node limited to a tenth of it by a cgroup, beside
what fio reads at random, 4 KiB, 32 in flight, from a file of that size; and SET alone and beside those reads. Programs
take turns. The lines are written to results/items.jsonl; picture.py draws them. Needs redis-benchmark, fio and root."""
import argparse, json, os, signal, socket, statistics, subprocess, sys, time
import systems as s

CGROUP = "/sys/fs/cgroup/memory"


class Alone:
    """One node, whose peer never comes."""

    def __init__(self, base, program):
        self.dir, self.program = os.path.join(base, "N"), program
        link = s.free_ports(2)
        self.port = s.free_ports(1)[0]
        self.run("init", "--dir", self.dir, "--name", "n", "--role", "primary", "--link-listen",
                 f"127.0.0.1:{link[0]}", "--peer", f"127.0.0.1:{link[1]}", "--encryption", "none", "--ack-level",
                 "local", "--resp", f"127.0.0.1:{self.port}", "--resp-default", "app,items")
        self.start(first=True)
        self.run("account", "create", "app", "--dir", self.dir)
        self.run("file", "create", "app,items", "--records", "--flags", "L", "--dir", self.dir)

    def run(self, *args):
        done = subprocess.run([self.program, *args], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{args}: {done.stderr}")
        return done.stdout

    def start(self, first=False, group=None):
        enter = (lambda: open(os.path.join(group, "cgroup.procs"), "w").write("0")) if group else None
        self.child = subprocess.Popen([self.program, "serve", "--dir", self.dir], stdout=subprocess.DEVNULL,
                                      stderr=open(self.dir + ".log", "a"), preexec_fn=enter)
        begin = time.monotonic()
        while True:
            done = subprocess.run([self.program, "start", "--alone", "--dir", self.dir], capture_output=True)
            if s.answers(self.port):
                return time.monotonic() - begin
            if time.monotonic() - begin > 300:
                sys.exit(f"the node did not start: {done.stderr}")
            time.sleep(0.02)

    def spent(self):
        """Microseconds on the processors of each thread, by its name."""
        threads = {}
        for task in os.listdir(f"/proc/{self.child.pid}/task"):
            at = f"/proc/{self.child.pid}/task/{task}"
            try:
                with open(at + "/comm") as name, open(at + "/schedstat") as times:
                    name = name.read().strip()
                    threads[name] = threads.get(name, 0) + int(times.read().split()[0]) / 1000
            except FileNotFoundError:
                pass
        return threads

    def io(self, field="write_bytes"):
        with open(f"/proc/{self.child.pid}/io") as io:
            return int(dict(line.split(":") for line in io)[field])

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            self.child.wait()

    def kill(self):
        self.child.kill()
        self.child.wait()


def key(n):
    return b"key:%012d" % n


def load(port, begin, end, size):
    """Puts the items `begin .. end` by one connection."""
    value = b"v" * size
    head = b"*3\r\n$3\r\nSET\r\n$16\r\n"
    tail = b"\r\n$%d\r\n%s\r\n" % (size, value)
    with socket.create_connection(("127.0.0.1", port)) as c:
        answered = 0
        for at in range(begin, end, 2000):
            upto = min(at + 2000, end)
            c.sendall(b"".join(head + key(n) + tail for n in range(at, upto)))
            answered += upto - at
            left = 5 * (upto - at)
            while left > 0:
                got = len(c.recv(1 << 16))
                if got == 0:
                    sys.exit("the node closed the connection")
                left -= got


def benchmark(port, what, keys, requests, size, *shape):
    line = subprocess.run(
        ["redis-benchmark", "-p", str(port), "-n", str(requests), "-r", str(keys), "-d", str(size), "-t", what, "--csv",
         *shape], capture_output=True, text=True, check=True).stdout.strip().splitlines()[-1]
    fields = [field.strip('"') for field in line.split(",")]
    return {"per_second": float(fields[1]), "p50_ms": float(fields[4]), "p99_ms": float(fields[6])}


def costs(node, what, keys, requests, size, *shape):
    before, written = node.spent(), node.io()
    run = benchmark(node.port, what, keys, requests, size, *shape)
    after = node.spent()
    threads = {name: (after[name] - before.get(name, 0)) / requests for name in after}
    run["us"] = round(sum(threads.values()), 2)
    run["threads_us"] = {name: round(us, 2) for name, us in threads.items() if us > 0.05}
    run["written"] = node.io() - written
    return run


def settled(node):
    """Waits until the store's threads rest."""
    last, quiet = node.spent(), 0
    for _ in range(240):
        time.sleep(0.5)
        now = node.spent()
        busy = sum(now.get(name, 0) - last.get(name, 0) for name in ("apply", "store-flush", "store-merge"))
        quiet = quiet + 1 if busy < 5000 else 0
        if quiet >= 4:
            return
        last = now


def dbsize(node):
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", node.port)) as c:
        c.sendall(b"DBSIZE\r\n")
        c.settimeout(300)
        answer = c.recv(100)
    return {"seconds": round(time.monotonic() - begin, 3), "items": int(answer[1:])}


def one(node, keys, size, requests):
    settled(node)
    row = {"items": keys, "bytes": size}
    puts = [costs(node, "set", keys, requests, size, "-c", "64", "-P", "16") for _ in range(3)]
    row["set_us"] = statistics.median(put["us"] for put in puts)
    row["set_threads"] = puts[-1]["threads_us"]
    row["set_per_second"] = statistics.median(put["per_second"] for put in puts)
    before = node.io()
    costs(node, "set", keys, requests * 3, size, "-c", "64", "-P", "16")
    settled(node)
    row["written_per_byte"] = round((node.io() - before) / (requests * 3 * (size + 16)), 2)
    row["memory"] = s.resident(node.child.pid)
    for name, shape in (("get", ["-c", "64"]), ("get_pipelined", ["-c", "64", "-P", "16"])):
        costs(node, "get", keys, requests, size, *shape)
        gets = [costs(node, "get", keys, requests, size, *shape) for _ in range(3)]
        row[name + "_us"] = statistics.median(get["us"] for get in gets)
        row[name + "_per_second"] = statistics.median(get["per_second"] for get in gets)
    row["dbsize"] = [dbsize(node) for _ in range(2)]
    node.kill()
    row["restart_s"] = round(node.start(), 2)
    return row


def cold(node, keys, size, base, seconds=20):
    """Reads with the memory limited to a tenth of the store, beside fio; SET alone and beside such reads."""
    settled(node)
    node.stop()
    store = int(subprocess.run(["du", "-sb", node.dir + "/store"], capture_output=True, text=True).stdout.split()[0])
    limit = max(store // 10, 160 << 20)
    group = f"{CGROUP}/hot-backup-bench-{os.getpid()}"
    os.makedirs(group)
    row = {"items": keys, "bytes": size, "store_mib": store >> 20, "limit_mib": limit >> 20}
    try:
        with open(group + "/memory.limit_in_bytes", "w") as at:
            at.write(str(limit))
        open("/proc/sys/vm/drop_caches", "w").write("1")
        node.start(group=group)
        for _ in range(2):
            row.setdefault("fio_per_second", []).append(fio(base, store, seconds // 2))
            for clients in (8, 32):
                reads, gets = node.io("read_bytes"), 60_000
                found = costs(node, "get", keys, gets, size, "-c", str(clients))
                found["read_bytes_each"] = (node.io("read_bytes") - reads) // gets
                row.setdefault(f"cold_get_{clients}", []).append(found)
            # A SET at a time, alone and beside the reads.
            row.setdefault("set_alone", []).append(benchmark(node.port, "set", keys, 3000, size, "-c", "4"))
            beside = subprocess.Popen(["redis-benchmark", "-p", str(node.port), "-n", "100000000", "-r", str(keys), "-t",
                                       "get", "-c", "8"], stdout=subprocess.DEVNULL)
            time.sleep(1)
            row.setdefault("set_beside", []).append(benchmark(node.port, "set", keys, 3000, size, "-c", "4"))
            beside.kill()
            beside.wait()
    finally:
        node.stop()
        for _ in range(100):
            try:
                os.rmdir(group)
                break
            except OSError:
                time.sleep(0.1)
    return row


def fio(base, size, seconds):
    path = os.path.join(base, "fio")
    if not os.path.exists(path):
        with open(path, "wb") as out:
            for _ in range(min(size, 4 << 30) >> 20):
                out.write(os.urandom(1 << 20))
        subprocess.run(["sync", path])
    done = subprocess.run(["fio", "--name=r", f"--filename={path}", "--rw=randread", "--bs=4k", "--iodepth=32", "--direct=1",
                           "--ioengine=io_uring", "--time_based", f"--runtime={seconds}", "--output-format=json"],
                          capture_output=True, text=True, check=True)
    return round(json.loads(done.stdout)["jobs"][0]["read"]["iops"])


def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--dir")
    ask.add_argument("--bytes", type=int, default=100)
    ask.add_argument("--sizes", default="1")
    ask.add_argument("--requests", type=int, default=300_000)
    ask.add_argument("--cold", action="store_true")
    ask.add_argument("--only-cold", action="store_true")
    ask.add_argument("program", nargs="*", default=[s.PROGRAM])
    ask = ask.parse_args()
    sizes = [int(float(size) * 1e6) for size in ask.sizes.split(",")]
    with s.Base(ask.dir) as base, open(os.path.join(s.RESULTS, "items.jsonl"), "a") as out:
        nodes = [(path, Alone(base.room(str(at)), os.path.abspath(path))) for at, path in enumerate(ask.program)]
        try:
            held = 0
            for keys in sizes:
                for path, node in nodes:
                    load(node.port, held, keys, ask.bytes)
                held = keys
                for path, node in nodes if not ask.only_cold else []:
                    row = {"program": path, **one(node, keys, ask.bytes, ask.requests)}
                    print(json.dumps(row), flush=True)
                    out.write(json.dumps(row) + "\n")
                    out.flush()
            if ask.cold or ask.only_cold:
                for path, node in nodes:
                    row = {"program": path, "cold": cold(node, held, ask.bytes, base.path)}
                    print(json.dumps(row), flush=True)
                    out.write(json.dumps(row) + "\n")
        finally:
            for _, node in nodes:
                node.stop()


if __name__ == "__main__":
    main()
