# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m bench.transports``: the same VM over every direct transport, and QEMU directly to QEMU.

Writes build/bench-transports.json: the figures with a goal, then those without. The transports take turns in an order
that changes; a ratio is of two runs of one repetition, and the figure is the median of the repetitions. Without a
disk: RAM decides what a transport can carry. ``websocket`` needs a node with its proxy and is not among them.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Callable, Dict, List, Sequence

from bench.figure import Figure, median

from .machine import fill
from .move import TRANSPORTS, Bench, Run
from .network import Link, Loopback

RESULT = Path(__file__).resolve().parents[3] / "build" / "bench-transports.json"
LINKED = ("direct", "tcp", "tls", "qemu-tls")
Round = Dict[str, Run]


def rounds(bench: Bench, names: Sequence[str], repetitions: int) -> List[Round]:
    """So many repetitions; the first run of all is for nothing: it warms up."""
    bench.run("direct")
    result = []
    for _round in range(repetitions):
        runs = {name: bench.run(name) for name in random.sample(names, len(names))}
        result.append(runs)
        for name in names:
            print(f"  {line(name, [runs])}", flush=True)
    return result


def line(name: str, measured: Sequence[Round]) -> str:
    """One row of the table; medians."""
    runs = [each[name] for each in measured]
    costs = ", ".join(f"{process} {median([run.cpu[process] for run in runs]):.2f}" for process in runs[0].cpu)
    wall, pause = median([run.wall for run in runs]), median([run.pause_ms for run in runs])
    slowest, total = median([run.slowest for run in runs]), median([run.total for run in runs])
    return f"{name:11} {wall:6.2f} s {pause:5.0f} ms  slowest {slowest:.2f} total {total:.2f} CPU-s/GiB: {costs}"


def judged(measured: Sequence[Round]) -> List[Figure]:
    """The goals about CPU."""

    def ratio(name: str, other: str, what: Callable[[Run], float]) -> float:
        return median([what(each[name]) / what(each[other]) for each in measured])

    def slowest(run: Run) -> float:
        return run.slowest

    def total(run: Run) -> float:
        return run.total

    return [
        Figure("tcp_slowest_vs_direct", ratio("tcp", "direct", slowest), "x", 1.1),
        Figure("tcp_total_vs_direct", ratio("tcp", "direct", total), "x", 1.8),
        Figure("tls_slowest_vs_qemu_tls", ratio("tls", "direct-tls", slowest), "x", 0.7),
        Figure("tls_total_vs_qemu_tls", ratio("tls", "direct-tls", total), "x", 1.0),
    ]


def link_bound(measured: Sequence[Round]) -> Figure:
    """The least over the transports of what a link gives them, beside QEMU directly to QEMU."""
    ratios = {
        name: median([each["direct"].wall / each[name].wall for each in measured])
        for name in LINKED
        if name != "direct"
    }
    return Figure("link_bound_wall", min(ratios.values()), "x", 0.95, at_least=True)


def told(measured: Sequence[Round], prefix: str = "") -> List[Figure]:
    """The medians that the ratios come from, and the rest."""
    figures = []
    for name in measured[0]:
        runs = [each[name] for each in measured]
        label = f"{prefix}{name.replace('-', '_')}"
        figures += [
            Figure(f"{label}_wall", median([run.wall for run in runs]), "s"),
            Figure(f"{label}_pause", median([run.pause_ms for run in runs]), "ms"),
            Figure(f"{label}_slowest", median([run.slowest for run in runs]), "CPU-s/GiB"),
            Figure(f"{label}_total", median([run.total for run in runs]), "CPU-s/GiB"),
        ]
        for process in runs[0].cpu:
            cost = median([run.cpu[process] for run in runs])
            figures.append(Figure(f"{label}_{process.lower().replace(' ', '_')}", cost, "CPU-s/GiB"))
    return sorted(figures, key=lambda figure: figure.name)


def write(figures: Sequence[Figure]) -> None:
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps([figure.to_dict() for figure in figures], indent=2) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.transports", description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--size", type=int, default=1024, metavar="MiB", help="RAM of the VM")
    parser.add_argument("--no-link", action="store_true", help="leave out the runs over a link of 2 Gbit/s")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as name:
        place, ram = Path(name), Path(name, "ram")
        fill(ram, options.size)
        (place / "loopback").mkdir()
        with Bench(place / "loopback", ram, Loopback()) as bench:
            print("loopback:")
            measured = rounds(bench, tuple(TRANSPORTS), options.repetitions)
        figures, others = judged(measured), told(measured)
        tables = {"loopback": measured}
        write(figures + others)  # should the link fail, that much is there
        if not options.no_link:
            (place / "link").mkdir()
            with Link() as link, Bench(place / "link", ram, link) as bench:
                print("2 Gbit/s:")
                tables["2 Gbit/s"] = rounds(bench, LINKED, options.repetitions)
            figures.append(link_bound(tables["2 Gbit/s"]))
            others += told(tables["2 Gbit/s"], "link_")

    write(figures + others)
    for title, table in tables.items():
        print(f"\n{title}, medians of {options.repetitions}, RAM {options.size} MiB:")
        print("\n".join(line(transport, table) for transport in sorted(table[0], key=list(TRANSPORTS).index)))
    print()
    for figure in figures:
        print(figure.to_line())
    return 1 if any(figure.holds is False for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
