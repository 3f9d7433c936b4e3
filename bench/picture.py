"""Bars as SVG: one panel for each measure, drawn from results/results.json."""
import html, json, os, sys

COLOURS = {"hot-backup": "#2563eb", "Redis": "#dc2626", "PostgreSQL": "#0891b2", "ceiling": "#9ca3af", "raw disk": "#9ca3af",
           "limit": "#9ca3af", "local": "#2563eb", "durable": "#60a5fa", "link plain": "#2563eb", "link TLS": "#60a5fa",
           "nbdkit file": "#dc2626", "nbdkit memory": "#dc2626", "raw, 64 KiB one by one": "#9ca3af",
           "the copies alone": "#9ca3af"}
WIDTH, BAR, GAP, LEFT = 890, 16, 5, 280


def panel(title, groups, unit, out, y):
    """`groups`: list of (label, [(system, value, note)])."""
    out.append(f'<text x="16" y="{y}" class="t">{html.escape(title)}</text>')
    y += 12
    most = max(value for _, bars in groups for _, value, _ in bars) or 1
    for label, bars in groups:
        middle = y + (BAR + 2) * len(bars) / 2 + 4
        out.append(f'<text x="{LEFT - 100}" y="{middle:.0f}" text-anchor="end">{html.escape(label)}</text>')
        for system, value, note in bars:
            width = max(1, value / most * (WIDTH - LEFT - 220))
            out.append(f'<text x="{LEFT - 6}" y="{y + 12}" text-anchor="end" class="s">{html.escape(system)}</text>')
            out.append(f'<rect x="{LEFT}" y="{y}" width="{width:.0f}" height="{BAR}" fill="{COLOURS[system]}"/>')
            text = f"{value:,.3g}" if value < 100 else f"{value:,.0f}"
            out.append(f'<text x="{LEFT + width + 6:.0f}" y="{y + 12}" class="s">{text} {unit} {html.escape(note)}</text>')
            y += BAR + 2
        y += GAP
    return y + 26


def volumes(medians, out, y):
    note = lambda f: f"p99 {f['p99_ms']:.1f} ms" if "p99_ms" in f else ""
    small = [(load, [(name, f["per_second"], note(f)) for name, f in systems.items()])
             for load, systems in medians.items() if "random" in load]
    y = panel("Volumes: 4 KiB, 32 in flight (local, durable: levels of hot-backup)", small, "/s", out, y)
    big = []
    for load, systems in medians.items():
        if "sequential" in load:
            big.append((load, [(name, f["mb_per_second"], f"({f['device_per_byte']:.1f} bytes to disk for each)"
                                if "device_per_byte" in f and "tmpfs" not in load else "") for name, f in systems.items()]))
    return panel("Volumes: 1 MiB, 8 in flight, and a flush", big, "MB/s", out, y)


def draw(found):
    out, y = [], 56
    journal = [(f"{row['entries']} entries, {row['bytes'] // 1024} KiB",
                [("hot-backup", row["journal"], f"({row['ratio']:.2f} of raw)"), ("raw disk", row["raw"], "")])
               for row in found["journal"]]
    y = panel("Journal alone: durable writes", journal, "/s", out, y)
    local = []
    for shape, systems in found["local"]["medians"].items():
        peer = systems["Redis"]["per_second"]
        local.append((shape, [(name, figures["per_second"], f"p99 {figures['p99_ms']:.1f} ms"
                               + (f" ({figures['per_second'] / peer:.2f} of Redis)" if name == "hot-backup" else ""))
                              for name, figures in systems.items()]))
    y = panel("SET of 128 bytes, level local (Redis: appendfsync always, one replica; ceiling: Redis that keeps nothing)",
              local, "/s", out, y)
    durable = found["durable"]["medians"]
    own = durable["hot-backup"]["per_second"]
    bars = [(name, figures["per_second"], f"p99 {figures['p99_ms']:.1f} ms"
             + ("" if name == "hot-backup" else f" (hot-backup: {own / figures['per_second']:.1f} times)"))
            for name, figures in durable.items()]
    y = panel("Level durable, both disks, 64 clients", [("upserts", bars)], "/s", out, y)
    outage = found["outage"]
    memory = [("under load", [("hot-backup", max(found["local"]["memory_mib"]["hot-backup"].values()), "")]),
              ("peer away", [("hot-backup", outage["memory_away_mib"], "")]),
              ("catch-up", [("hot-backup", max(outage["memory_catch_up_mib"].values()), "")]),
              ("asked", [("limit", 256, "")])]
    y = panel("Resident memory of a node, at most", memory, "MiB", out, y)
    restart = [("1 GiB of journal", [("hot-backup", outage["restart_median_s"], "")]), ("asked", [("limit", 3, "")])]
    y = panel("Restart after kill -9", restart, "s", out, y)
    if "volumes" in found:
        y = volumes(found["volumes"]["medians"], out, y)
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}">'
            '<style>text{font:12px sans-serif;fill:#111}.t{font-weight:bold;font-size:13px}.s{font-size:11px;fill:#333}'
            '.h{font-size:11px;fill:#555}</style><rect width="100%" height="100%" fill="#fff"/>'
            f'<text x="16" y="22" class="h">{html.escape(found["machine"])}</text>')
    return head + "\n".join(out) + "</svg>\n"


if __name__ == "__main__":
    results = os.path.join(os.path.dirname(os.path.abspath(__file__)), "results")
    with open(os.path.join(results, "results.json")) as source, open(os.path.join(results, "results.svg"), "w") as out:
        out.write(draw(json.load(source)))
