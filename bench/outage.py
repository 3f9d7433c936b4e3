"""The standby is away: memory of the primary while it writes far more than every window holds, then a kill -9 and a
restart with that journal to walk, then the memory of both while the standby catches up."""
import statistics, subprocess, time
import systems as s

ENOUGH = 1 << 30


def journal_bytes(pair):
    """Bytes that the journal's entries take: a little more than what is written."""
    return pair.status()["journal"]["bytes"]


def restart(pair):
    """Seconds from a kill -9 in the middle of the load until the next update is answered. The standby is away, so the
    operator's word is given as soon as the node takes it; without it a node waits for its peer, as it should."""
    client = subprocess.Popen([s.LOAD, "--port", str(pair.port), "--clients", "64", "--seconds", "60"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1)
    pair.kill(0)
    client.wait()
    begun = time.monotonic()
    pair.start(0)
    word = [s.PROGRAM, "start", "--alone", "--dir", pair.dirs[0]]
    s.wait_for("the primary", lambda: subprocess.run(word, capture_output=True).returncode == 0, step=0.005)
    s.wait_for("the door", lambda: (s.ask(pair.port, b"SET key:again 1") or b"").startswith(b"+OK"), step=0.005)
    return time.monotonic() - begun


def measure(where, restarts=5, enough=ENOUGH):
    with s.Base(where) as base:
        pair = s.HotBackup(base.room("hot-backup"), init=("--journal-quota-bytes", "16G"))
        try:
            s.load(pair.port, 64, 2)
            pair.kill(1)
            begun, updates = time.monotonic(), 0
            # Values of 1 KiB: the journal grows faster, and no window holds what is written.
            while journal_bytes(pair) < enough + (128 << 20):
                updates += s.load(pair.port, 256, 5, "--value", "1024")["updates"]
            outage = time.monotonic() - begun
            pid = pair.processes()["primary"][0]
            away = s.resident(pid)
            size = journal_bytes(pair)
            times = [restart(pair) for _ in range(restarts)]
            after = s.resident(pair.processes()["primary"][0])
            pair.start(1)
            begun = time.monotonic()
            caught_up = lambda: pair.status()["peer"]["connected"] and pair.status()["peer"].get("lag_entries", 1) == 0
            s.wait_for("the standby's catch-up", caught_up, 300, 0.2)
            catch_up = time.monotonic() - begun
            memory = {role: s.resident(pids[0]) for role, pids in pair.processes().items()}
        finally:
            pair.stop()
    return {"outage_s": round(outage), "updates": updates, "journal_bytes": size, "memory_away_mib": away["VmHWM"],
            "restart_s": [round(t, 3) for t in times], "restart_median_s": round(statistics.median(times), 3),
            "memory_after_restart_mib": after["VmHWM"], "catch_up_s": round(catch_up, 1),
            "memory_catch_up_mib": {role: m["VmHWM"] for role, m in memory.items()}}


if __name__ == "__main__":
    import json
    print(json.dumps(measure(None), indent=1))
