#!/usr/bin/env python3
"""Cost against the number of items, as SVG: draws results/items.svg from results/items.jsonl, which items.py writes."""
import html, json, os
import picture, systems as s

picture.COLOURS.update({"before": "#9ca3af", "node": "#2563eb", "fio": "#9ca3af"})


def main():
    with open(os.path.join(s.RESULTS, "items.jsonl")) as lines:
        rows = [json.loads(line) for line in lines]
    sizes = [row for row in rows if "set_us" in row]

    def groups(value):
        found = {}
        for row in sizes:
            name = "before" if row["program"] == "before" else "node"
            found.setdefault(f"{row['items'] / 1e6:g} million", []).append((name, value(row), ""))
        return list(found.items())

    out, y = [], 56
    for title, unit, value in (
            ("Processor time of the node for a random SET, 16 deep, all threads", "us", lambda row: row["set_us"]),
            ("The same for a GET, 16 deep", "us", lambda row: row["get_pipelined_us"]),
            ("Bytes written for each byte put, journal and store", "", lambda row: row["written_per_byte"]),
            ("Resident memory, at most", "MiB", lambda row: row["memory"]["VmHWM"]),
            ("DBSIZE, the first time", "s", lambda row: row["dbsize"][0]["seconds"]),
            ("Restart after kill -9", "s", lambda row: row["restart_s"])):
        y = picture.panel(title, groups(value), unit, out, y)
    for row in (row["cold"] for row in rows if "cold" in row):
        most = lambda key, field: max(run[field] for run in row[key])
        bars = [("fio", max(row["fio_per_second"]), "4 KiB, 32 in flight")]
        bars += [("node", most(f"cold_get_{n}", "per_second"), f"GET, {n} clients") for n in (8, 32)]
        label = f"{row['items'] / 1e6:g} million, {row['limit_mib']} MiB"
        y = picture.panel("Reads of cold items, memory limited to a tenth", [(label, bars)], "/s", out, y)
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{picture.WIDTH}" height="{y}" '
            f'viewBox="0 0 {picture.WIDTH} {y}"><style>text{{font:12px sans-serif;fill:#111}}'
            '.t{font-weight:bold;font-size:13px}.s{font-size:11px;fill:#333}.h{font-size:11px;fill:#555}</style>'
            '<rect width="100%" height="100%" fill="#fff"/>'
            f'<text x="16" y="22" class="h">{html.escape("Items of 100 bytes on one node that serves alone")}</text>')
    with open(os.path.join(s.RESULTS, "items.svg"), "w") as picture_file:
        picture_file.write(head + "\n".join(out) + "</svg>\n")


if __name__ == "__main__":
    main()
