#!/usr/bin/env python3
"""What watching costs a pair at rest: rest.py [--seconds 120] [PROGRAM]

Two pairs side by side, for the same time: one with canary, watches, metrics and page as they come, of which /metrics is
fetched every 15 seconds and /events followed all the time; one without any of them. Told are the processor time of each
node, counted by the scheduler in nanoseconds, as a share of one core, and its memory that is resident; and the difference.
"""
import argparse, os, socket, threading, time, urllib.request
import systems as s

WATCHES = ["canary_seconds", "apply_stall_ms", "link_quiet_ms", "lag_warn_seconds", "clock_distance_ms",
           "journal_warn_percent", "disk_warn_percent"]


def spent(pid):
    """Seconds on the processors of all threads."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat") as times:
            total += int(times.read().split()[0])
    return total / 1e9


def resident(pid):
    """MiB."""
    with open(f"/proc/{pid}/status") as status:
        line = [line for line in status if line.startswith("VmRSS:")][0]
    return int(line.split()[1]) / 1024


class Pair(s.HotBackup):
    """The lines are those of both configs, beside what `init` writes."""
    def __init__(self, base, lines):
        self.lines = lines
        super().__init__(base)

    def start(self, n):
        path = os.path.join(self.dirs[n], "config.toml")
        with open(path) as config:
            text = config.read()
        kept = [line for line in text.splitlines() if line.split("=")[0].strip() not in self.keys(n)]
        at = kept.index("# end") if "# end" in kept else len(kept)
        with open(path, "w") as config:
            config.write("\n".join(kept[:at] + self.lines(n) + kept[at:]) + "\n")
        super().start(n)

    def keys(self, n):
        return [line.split("=")[0].strip() for line in self.lines(n)]


def follow(port, ended):
    """Reads the events, as an open page does; the server ends each connection after a time."""
    while not ended.is_set():
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                connection.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
                while not ended.is_set() and connection.recv(1 << 16):
                    pass
        except OSError:
            time.sleep(0.2)


def scrape(port, ended):
    while not ended.wait(15):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read()


def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--seconds", type=int, default=120)
    ask.add_argument("program", nargs="?", default=s.PROGRAM)
    ask = ask.parse_args()
    s.PROGRAM = os.path.abspath(ask.program)
    ports = s.free_ports(2)
    off = [f"{key} = 0" for key in WATCHES]
    running, ended = [], threading.Event()
    with s.Base(None) as base:
        try:
            watched = Pair(base.room("watched"), lambda n: [f'http_listen = "127.0.0.1:{ports[n]}"'])
            running.append(watched)
            bare = Pair(base.room("bare"), lambda _: off)
            running.append(bare)
            for port in ports:
                for work in (follow, scrape):
                    threading.Thread(target=work, args=(port, ended), daemon=True).start()
            time.sleep(10)
            pids = [pid for pair in running for pid in (child.pid for child in pair.children)]
            before, begun = [spent(pid) for pid in pids], time.monotonic()
            time.sleep(ask.seconds)
            took = time.monotonic() - begun
            cpu = [(spent(pid) - then) / took * 100 for pid, then in zip(pids, before)]
            memory = [resident(pid) for pid in pids]
        finally:
            ended.set()
            for pair in running:
                pair.stop()
    print(f"{took:.0f} seconds at rest, load {os.getloadavg()[0]:.1f}")
    print("node       with: % of a core, MiB    without: % of a core, MiB    difference")
    for n, name in enumerate(["primary", "standby"]):
        print(f"{name:10} {cpu[n]:19.2f} {memory[n]:6.1f} {cpu[n + 2]:22.2f} {memory[n + 2]:6.1f} "
              f"{cpu[n] - cpu[n + 2]:12.2f} {memory[n] - memory[n + 2]:5.1f}")


if __name__ == "__main__":
    main()
