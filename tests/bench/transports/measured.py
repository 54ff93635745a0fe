# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures as a page and a chart for docs/transports: tables in Markdown, bars in SVG for light and dark screens."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Tuple

from .move import TRANSPORTS

__all__ = ["chart", "page", "write"]

DOCS = Path(__file__).resolve().parents[3] / "docs" / "transports"
TITLES = {
    "direct": "QEMU to QEMU",
    "direct-tls": "QEMU to QEMU, its own TLS",
    "websocket": "websocket, paced",
    "websocket-unpaced": "websocket, not paced",
}
# In the order of the stream. A process of the target's front end stands where a transport has its worker.
PROCESSES = ("source QEMU", "source worker", "target worker", "proxy", "target QEMU")
GOALS = {
    "tcp_slowest_vs_direct": "`tcp`: CPU of the slowest process, beside QEMU to QEMU",
    "tcp_total_vs_direct": "`tcp`: CPU of all processes, beside QEMU to QEMU",
    "tls_slowest_vs_qemu_tls": "`tls`: CPU of the slowest process, beside QEMU to QEMU with its own TLS",
    "tls_total_vs_qemu_tls": "`tls`: CPU of all processes, beside QEMU to QEMU with its own TLS",
    "link_bound_wall": "share of a 2 Gbit/s link's speed, the least of `tcp`, `tls` and `qemu-tls`",
}
LICENCE = "SPDX-FileCopyrightText: 2026 crosscluster contributors\nSPDX-License-Identifier: GPL-3.0-or-later"
Figures = Dict[str, Dict[str, Any]]


def write(entries: Sequence[Dict[str, Any]]) -> None:
    """Both files, from what is in build/bench-transports.json."""
    figures = {entry["name"]: entry for entry in entries}
    (DOCS / "measured.md").write_text(page(figures))
    (DOCS / "measured.svg").write_text(chart(figures))


def rows(figures: Figures, prefix: str, part: str = "") -> Iterator[Tuple[str, str]]:
    """Title and label of each transport that was measured so."""
    for name in TRANSPORTS:
        label = f"{prefix}{name.replace('-', '_')}{part}"
        if f"{label}_wall" in figures:
            yield TITLES.get(name, name), label


# --- the page -------------------------------------------------------------------------------------------------------


def page(figures: Figures) -> str:
    """The tables."""
    machine = {name[8:]: entry["value"] for name, entry in figures.items() if name.startswith("machine_")}
    return "\n\n".join([
        "# What the transports cost",
        _paragraph(f"""
            The same VM over every transport, and QEMU directly to QEMU: {machine["ram"]} MiB of RAM that cannot be
            compressed, a disk of {machine["disk"]} MiB full of data, a guest that beats 250 times a second. Medians of
            {machine["repetitions"]} repetitions, the transports in turns; the target's RAM was there before.
            `make bench-transports` measures it again.
        """),
        "![CPU seconds per GiB of RAM, by process](measured.svg)",
        _paragraph(f"""
            Measured on {machine["date"]}: {machine["cpus"]} CPUs ({machine["cpu"]}), Linux {machine["kernel"]}, QEMU
            {machine["qemu"]} (software emulation, the guest's own CPU left out), Python {machine["python"]}, OpenSSL
            {machine["openssl"]}, GnuTLS {machine["gnutls"]}; load {machine["load"]} when it began.
        """),
        "## Goals",
        _goals(figures),
        "## RAM, both ends on one machine",
        _paragraph("""
            CPU is in seconds per GiB. The slowest process is the limit on a machine with enough cores; the seconds of
            the whole move are those of processes that share the CPUs. Standstill: from the guest's stop on the source
            to its start on the target. Downtime: as QEMU counts it. Gap: the longest time without a beat of the guest.
        """),
        _table(figures, "", pauses=True),
        "## Disk, both ends on one machine",
        "The mirror until it is ready, before the RAM.",
        _table(figures, "", part="_disk"),
        "## RAM over a link of 2 Gbit/s",
        "Two network namespaces, MTU 1500, a token bucket both ways.",
        _table(figures, "link_", pauses=True),
        "## How to read the websocket",
        _paragraph("""
            Its front end on the target is a stand-in here, so the CPU of the proxy says nothing of a node's. Paced is
            how a migration does it: the RAM at nine tenths of the speed at which the mirror was acknowledged. For the
            front end takes what its QEMU has not read yet, and what waits there at the end the guest waits for. Not
            paced is for comparison only.
        """),
    ]) + "\n"  # fmt: skip


def _paragraph(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 120, break_on_hyphens=False, break_long_words=False)


def _goals(figures: Figures) -> str:
    lines = ["| goal | measured | at | |", "|---|---|---|---|"]
    for name, words in GOALS.items():
        if name in figures:
            entry = figures[name]
            bound = "at least" if name == "link_bound_wall" else "at most"
            verdict = "holds" if entry["holds"] else "**missed**"
            lines.append(f"| {words} (`{name}`) | {entry['value']:.2f} | {bound} {entry['goal']:g} | {verdict} |")
    return "\n".join(lines)


def _table(figures: Figures, prefix: str, part: str = "", *, pauses: bool = False) -> str:
    """CPU seconds per GiB and process, and the rest."""
    found = list(rows(figures, prefix, part))
    processes = [name for name in PROCESSES if any(_key(label, name) in figures for _title, label in found)]
    heads = ["", "s", *processes, "**all**", "**slowest**"]
    heads += ["standstill, ms", "downtime, ms", "gap, ms"] if pauses else []
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for title, label in found:
        cells = [title, f"{figures[f'{label}_wall']['value']:.2f}"]
        cells += [_cell(figures, _key(label, name)) for name in processes]
        cells += [_cell(figures, f"{label}_total"), _cell(figures, f"{label}_slowest")]
        if pauses:
            cells += [f"{figures[f'{label}_{what}']['value']:.0f}" for what in ("pause", "downtime", "gap")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _key(label: str, process: str) -> str:
    return f"{label}_{process.lower().replace(' ', '_')}"


def _cell(figures: Figures, name: str) -> str:
    return f"{figures[name]['value']:.2f}" if name in figures else ""


# --- the chart ------------------------------------------------------------------------------------------------------

WIDTH, LEFT, RIGHT = 820, 212, 60
BAR, STEP, HEAD, FOOT, LEGEND = 20, 30, 38, 34, 36
# By process; told apart by lightness too, and legible on white and on black.
COLOURS = {
    "source QEMU": "#2a6fbb",
    "source worker": "#e08a1e",
    "target worker": "#f3bd6d",
    "proxy": "#9a9a9a",
    "target QEMU": "#7db3e6",
}
STYLE = """
  text { font: 13px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
  .title { font-weight: 600; font-size: 14px }
  .small { font-size: 12px }
  .end { text-anchor: end }
  .middle { text-anchor: middle }
  .back { fill: #ffffff }
  .grid { stroke: #d0d7de; stroke-width: 1 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .back { fill: #0d1117 }
    .grid { stroke: #30363d }
  }
"""


def chart(figures: Figures) -> str:
    """CPU per GiB of RAM: a bar for each transport, a piece for each process."""
    panels = [("Both ends on one machine", ""), ("Over a link of 2 Gbit/s", "link_")]
    shown = [(title, list(rows(figures, prefix))) for title, prefix in panels]
    shown = [(title, found) for title, found in shown if found]
    most = max(figures[f"{label}_total"]["value"] for _title, found in shown for _name, label in found)
    scale = (WIDTH - LEFT - RIGHT) / most
    height = LEGEND + sum(HEAD + STEP * len(found) + FOOT for _title, found in shown)
    parts = [f'<rect class="back" width="{WIDTH}" height="{height}"/>', *_legend(figures, shown)]
    top = LEGEND
    for title, found in shown:
        parts += _panel(figures, title, found, top, scale, most)
        top += HEAD + STEP * len(found) + FOOT
    body = "\n".join(parts)
    return (
        f"<!--\n{LICENCE}\n-->\n"
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
        f' role="img">\n<title>CPU seconds per GiB of RAM, by transport and process</title>\n'
        f"<style>{STYLE}</style>\n{body}\n</svg>\n"
    )


def _legend(figures: Figures, shown: Sequence[Tuple[str, List[Tuple[str, str]]]]) -> List[str]:
    parts, x = [], 16
    labels = [label for _title, found in shown for _name, label in found]
    for process in PROCESSES:
        if any(_key(label, process) in figures for label in labels):
            parts.append(f'<rect x="{x}" y="14" width="14" height="14" fill="{COLOURS[process]}"/>')
            parts.append(f'<text x="{x + 20}" y="26">{process}</text>')
            x += 44 + 8 * len(process)
    return parts


def _panel(
    figures: Figures, title: str, found: Sequence[Tuple[str, str]], top: int, scale: float, most: float
) -> List[str]:
    bottom = top + HEAD + STEP * len(found)
    parts = [f'<text class="title" x="16" y="{top + 24}">{title}: CPU seconds per GiB of RAM</text>']
    for mark in range(int(most) + 1):
        x = LEFT + mark * scale
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{top + HEAD - 4}" x2="{x:.1f}" y2="{bottom}"/>')
        parts.append(f'<text class="small middle" x="{x:.1f}" y="{bottom + 16}">{mark}</text>')
    for number, (name, label) in enumerate(found):
        y = top + HEAD + STEP * number
        parts.append(f'<text class="end" x="{LEFT - 10}" y="{y + 15}">{name}</text>')
        x = float(LEFT)
        for process in PROCESSES:
            if _key(label, process) in figures:
                width = figures[_key(label, process)]["value"] * scale
                fill = COLOURS[process]
                parts.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{fill}"/>')
                x += width
        total = figures[f"{label}_total"]["value"]
        parts.append(f'<text class="small" x="{x + 6:.1f}" y="{y + 15}">{total:.2f}</text>')
    return parts
