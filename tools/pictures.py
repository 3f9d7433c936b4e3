#!/usr/bin/env python3
"""Draws the pictures of the README: docs/pictures/pair.svg, and docs/pictures/demo.svg from a real run of the demo.

    tools/pictures.py [PROGRAM]      PROGRAM is target/release/hot-backup if it is not given

Text stays text, so that it can be searched and read aloud; colours follow the reader's light or dark mode."""
import html
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PICTURES = os.path.join(ROOT, "docs", "pictures")
COLUMNS = 117
LINE, LEFT, TOP, WIDTH = 17, 20, 52, 922

# Light and dark: the page, frames, boxes, text, what is beside the point, and three signals.
LIGHT = {"back": "#ffffff", "frame": "#d0d7de", "box": "#f6f8fa", "text": "#1f2328", "dim": "#59636e",
         "blue": "#0969da", "green": "#1a7f37", "red": "#cf222e"}
DARK = {"back": "#0d1117", "frame": "#3d444d", "box": "#151b23", "text": "#e6edf3", "dim": "#9198a1",
        "blue": "#58a6ff", "green": "#3fb950", "red": "#ff7b72"}
FONTS = """
text { font: 13px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
.mono { font: 12.5px ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre; }
.head { font-weight: 600; font-size: 15px; }
.bad { font-weight: 600; }
.line, .change, .ack { fill: none; stroke-width: 2; }
"""


def colours(c):
    """Spelled out: not every renderer knows variables."""
    return (f"text {{ fill: {c['text']}; }} .back {{ fill: {c['back']}; stroke: {c['frame']}; }} "
            f".box {{ fill: {c['box']}; stroke: {c['frame']}; }} .dim {{ fill: {c['dim']}; }} "
            f".command {{ fill: {c['blue']}; }} .good {{ fill: {c['green']}; }} .bad {{ fill: {c['red']}; }}\n"
            f".line {{ stroke: {c['dim']}; }} .change {{ stroke: {c['blue']}; }} .ack {{ stroke: {c['green']}; }} "
            f".line-head {{ fill: {c['dim']}; }} .change-head {{ fill: {c['blue']}; }} "
            f".ack-head {{ fill: {c['green']}; }}\n")


STYLE = FONTS + colours(LIGHT) + "@media (prefers-color-scheme: dark) {\n" + colours(DARK) + "}\n"


def picture(name, width, height, title, parts):
    """Writes an SVG."""
    markers = "".join(
        f'<marker id="{kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path class="{kind}-head" d="M0 0 8 4 0 8z"/></marker>' for kind in ("line", "change", "ack"))
    body = "\n".join(parts)
    with open(os.path.join(PICTURES, name), "w", encoding="utf-8") as out:
        out.write(
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(title)}">\n'
            f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n<defs>{markers}</defs>\n"
            f'<rect class="back" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>\n{body}\n</svg>\n')


# --- the pair


def text(x, y, words, kind="", anchor="middle"):
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{html.escape(words)}</text>'


def box(x, y, width, height, *lines):
    parts = [f'<rect class="box" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>']
    first = y + height / 2 + 5 - 9 * (len(lines) - 1)
    for number, words in enumerate(lines):
        parts.append(text(x + width / 2, first + 18 * number, words, "" if number == 0 else "dim"))
    return parts


def arrow(x1, y1, x2, y2, kind):
    return f'<path class="{kind}" d="M{x1} {y1} L{x2} {y2}" marker-end="url(#{kind})"/>'


def node(x, name, role, order):
    parts = [f'<rect class="back" x="{x}" y="60" width="270" height="250" rx="8"/>',
             text(x + 135, 88, name, "head"), text(x + 135, 107, role, "dim")]
    parts += box(x + 20, 122, 230, 48, order)
    parts += box(x + 20, 226, 105, 64, "journal", "on disk") + box(x + 145, 226, 105, 64, "store", "on disk")
    return parts + [arrow(x + 72, 170, x + 72, 224, "line"), arrow(x + 125, 258, x + 143, 258, "line")]


def pair():
    parts = node(190, "primary", "serves the users", "puts all changes in one order")
    parts += node(560, "standby", "shows a copy to readers", "takes them in that order")
    parts += box(15, 74, 110, 56, "Redis clients", "items") + box(15, 160, 110, 56, "NBD clients", "disks")
    parts += [arrow(125, 102, 208, 138, "line"), arrow(125, 188, 208, 154, "line")]
    parts += [arrow(442, 136, 577, 136, "change"), text(510, 128, "changes"),
              arrow(578, 156, 443, 156, "ack"), text(510, 174, "confirmed")]
    parts += [text(325, 332, "1. write to the journal, send to the standby", "dim"),
              text(325, 350, "2. answer \"ok\" when the level asked for is reached", "dim"),
              text(695, 332, "1. write to the journal, confirm", "dim"),
              text(695, 350, "2. apply in the same order", "dim"),
              text(422, 30, "Two machines, one database", "head"),
              text(422, 48, "When the primary is gone, an operator says so, and the standby takes over.", "dim")]
    picture("pair.svg", 845, 366, "A primary and a standby: clients write to the primary; it writes each change to its "
            "journal and sends it to the standby, which writes it to its own journal, confirms, and applies it.", parts)


# --- the demo


def run(program):
    done = subprocess.run([program, "demo", "--level", "durable"], cwd=ROOT, text=True, timeout=600,
                          stdout=subprocess.PIPE, check=True)
    # Where the checkout is on this machine tells nobody anything.
    return done.stdout.replace(ROOT, "this repository").splitlines()


def in_short(lines):
    """The lines, with the commands that set the pair up counted instead of shown."""
    begin = next(n for n, line in enumerate(lines) if line.startswith("  $ "))
    end = next(n for n, line in enumerate(lines) if "writers write items" in line)
    commands = [line.split() for line in lines[begin:end] if line.startswith("  $ hot-backup")]
    names = list(dict.fromkeys(" ".join(words[2:4] if words[2] in ("account", "file", "item") else words[2:3])
                               for words in commands))
    told = f"  .. {len(commands)} commands make the pair and its files: {', '.join(names)}"
    return lines[:begin] + [told] + lines[end:]


def wrapped(line):
    """A line cut to the width, at spaces, with what follows further in."""
    indent = " " * (len(line) - len(line.lstrip()) + (5 if line.lstrip().startswith("ok ") else 2))
    out = []
    while len(line) > COLUMNS:
        at = line.rfind(" ", len(indent) + 1, COLUMNS)
        at = COLUMNS if at < 0 else at
        out.append(line[:at])
        line = indent + line[at:].lstrip()
    return out + [line.rstrip()]


def kind(line):
    words = line.strip()
    if words.startswith("$ "):
        return "command"
    if words.startswith("kill -9"):
        return "bad"
    if words.startswith("ok "):
        return "good"
    return "dim" if words.startswith("..") else ""


def demo(program):
    parts, y = [text(LEFT, 26, "hot-backup demo --level durable", "head", "start")], TOP
    for line in in_short(run(program)):
        for part in wrapped(line):
            if part.strip():
                parts.append(f'<text x="{LEFT}" y="{y}" class="mono {kind(line)}" xml:space="preserve">'
                             f"{html.escape(part)}</text>")
            y += LINE
    picture("demo.svg", WIDTH, y + 4, "The output of the demo at level durable: load, kill, takeover, account, checks.",
            parts)


if __name__ == "__main__":
    os.makedirs(PICTURES, exist_ok=True)
    pair()
    demo(os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else os.path.join(ROOT, "target/release/hot-backup"))
