#!/usr/bin/env python3
"""An outage that makes many times the journal's quota: to a directory, then to images of reels on tmpfs, and level again.

Usage: bench/spool.py [PROGRAM [GIB [QUOTA]]]       (4 GiB of journal with a quota of 1G by default)

For each place: the rate at which updates of 1 KiB go while nothing is spooled and while the spool fills (asked: 0.9), the
spool's own rate, memory of the primary (asked: below 256 MiB), refusals (asked: none), the time until the standby has
all of it, and whether a compare finds the nodes equal. The load is that of bench/load.rs, 64 clients.
"""
import json, os, subprocess, sys, time
import systems as s

VALUE = ("--value", "1024")


def spool(pair):
    return pair.status()["spool"]


def measure(place, gib=4, quota="1G"):
    with s.Base(None) as base:
        pair = s.HotBackup(base.room("hot-backup"), init=("--journal-quota-bytes", quota))
        try:
            before = s.load(pair.port, 64, 5, *VALUE)
            room = f"/dev/shm/hb-spool-{os.getpid()}" if place == "tape" else base.room("spool")
            os.makedirs(room, exist_ok=True)
            to = f"tape:{room}/reel-%03d.tap" if place == "tape" else f"file:{room}"
            pair.run("spool", "start", "--to", to, "--dir", pair.dirs[0])
            pair.kill(1)
            begun, updates, refused = time.monotonic(), 0, 0
            filled, filling = None, []
            while spool(pair)["bytes"] < gib * (1 << 30):
                now = spool(pair)["bytes"]
                done = s.load(pair.port, 64, 5, *VALUE)
                updates, refused = updates + done["updates"], refused + done.get("refused", 0)
                if now:
                    filled = filled or (time.monotonic(), now)
                    filling.append(done["updates"] / 5)
            outage = time.monotonic() - begun
            held = spool(pair)
            rate = (held["bytes"] - filled[1]) / (time.monotonic() - filled[0]) if filled else 0
            memory = s.resident(pair.processes()["primary"][0])["VmHWM"]
            pair.start(1)
            begun = time.monotonic()
            level = lambda: pair.status()["peer"]["connected"] and pair.status()["peer"].get("lag_entries", 1) == 0
            s.wait_for("the standby to be level", level, 3600, 0.5)
            back = time.monotonic() - begun
            equal = json.loads(pair.run("compare", "--rate", "unlimited", "--json", "--dir", pair.dirs[1]))["differing"] == 0
        finally:
            pair.stop()
            if place == "tape":
                subprocess.run(["rm", "-rf", room])
    quick = before["updates"] / 5
    return {"place": place, "outage_s": round(outage), "updates": updates, "refused": refused,
            "spooled_bytes": held["bytes"], "parts": held["parts"], "spool_mb_s": round(rate / 1e6),
            "per_second_before": round(quick), "per_second_while_filling": [round(n) for n in filling],
            "ratio": round(sorted(filling)[len(filling) // 2] / quick, 2) if filling else None,
            "memory_mib": memory, "level_s": round(back, 1),
            "replay_ratio": round(outage / back, 2), "equal": equal}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        s.PROGRAM = sys.argv[1]
    gib, quota = float(sys.argv[2]) if len(sys.argv) > 2 else 4, sys.argv[3] if len(sys.argv) > 3 else "1G"
    for place in ("file", "tape"):
        print(json.dumps(measure(place, gib, quota), indent=1))
