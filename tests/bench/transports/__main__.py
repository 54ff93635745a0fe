# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m bench.transports``: the same VM over every transport, and QEMU directly to QEMU.

Writes build/bench-transports.json: the figures with a goal, then those without, then the machine. The transports take
turns in an order that changes; a ratio is of two runs of one repetition, and the figure is the median of the
repetitions. What is judged is RAM: the disk, which goes first, costs the target's NBD server more than any transport.
The first run of all is for nothing: it warms up.

``--docs`` measures nothing: it writes the page and the chart of docs/transports from that file.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, List, Sequence

from bench.figure import Figure, median

from . import facts, measured
from .machine import fill
from .move import TRANSPORTS, Bench, Cost, Round
from .network import Link, Loopback

RESULT = Path(__file__).resolve().parents[3] / "build" / "bench-transports.json"
LINKED = ("direct", "tcp", "tls", "qemu-tls")
BOUND = ("tcp", "tls", "qemu-tls")


def rounds(bench: Bench, names: Sequence[str], repetitions: int) -> List[Round]:
    """So many repetitions."""
    bench.run("direct")
    result = []
    for _round in range(repetitions):
        runs = {name: bench.run(name) for name in random.sample(names, len(names))}
        result.append(runs)
        for name in names:
            print(f"  {line(name, [runs])}", flush=True)
    return result


def line(name: str, table: Sequence[Round]) -> str:
    """One row; medians."""
    runs = [each[name] for each in table]
    costs = ", ".join(f"{process} {median([run.ram.cpu[process] for run in runs]):.2f}" for process in runs[0].ram.cpu)
    wall, pause = median([run.ram.wall for run in runs]), median([run.pause_ms for run in runs])
    slowest, total = median([run.ram.slowest for run in runs]), median([run.ram.total for run in runs])
    return f"{name:17} {wall:6.2f} s {pause:5.0f} ms  slowest {slowest:.2f} total {total:.2f} CPU-s/GiB: {costs}"


def judged(table: Sequence[Round]) -> List[Figure]:
    """The goals about CPU."""

    def ratio(name: str, other: str, what: Callable[[Cost], float]) -> float:
        return median([what(each[name].ram) / what(each[other].ram) for each in table])

    def slowest(cost: Cost) -> float:
        return cost.slowest

    def total(cost: Cost) -> float:
        return cost.total

    return [
        Figure("tcp_slowest_vs_direct", ratio("tcp", "direct", slowest), "x", 1.1),
        Figure("tcp_total_vs_direct", ratio("tcp", "direct", total), "x", 1.8),
        Figure("tls_slowest_vs_qemu_tls", ratio("tls", "direct-tls", slowest), "x", 0.7),
        Figure("tls_total_vs_qemu_tls", ratio("tls", "direct-tls", total), "x", 1.0),
    ]


def link_bound(table: Sequence[Round]) -> Figure:
    """The least over the transports of what a link gives them, beside QEMU directly to QEMU."""
    ratios = [median([each["direct"].ram.wall / each[name].ram.wall for each in table]) for name in BOUND]
    return Figure("link_bound_wall", min(ratios), "x", 0.95, at_least=True)


def told(table: Sequence[Round], prefix: str = "") -> List[Figure]:
    """The medians that the ratios come from, and the rest."""
    figures = []
    for name in table[0]:
        runs = [each[name] for each in table]
        label = f"{prefix}{name.replace('-', '_')}"
        figures += [
            Figure(f"{label}_pause", median([run.pause_ms for run in runs]), "ms"),
            Figure(f"{label}_downtime", median([run.downtime_ms for run in runs]), "ms"),
            Figure(f"{label}_gap", median([run.gap_ms for run in runs]), "ms"),
            *costs(label, [run.ram for run in runs]),
            *costs(f"{label}_disk", [run.disk for run in runs]),
        ]
    return sorted(figures, key=lambda figure: figure.name)


def costs(label: str, several: Sequence[Cost]) -> List[Figure]:
    """The medians of one part of a move."""
    per_process = [
        Figure(f"{label}_{process.lower().replace(' ', '_')}", median([cost.cpu[process] for cost in several]), _UNIT)
        for process in several[0].cpu
    ]
    return [
        Figure(f"{label}_wall", median([cost.wall for cost in several]), "s"),
        Figure(f"{label}_slowest", median([cost.slowest for cost in several]), _UNIT),
        Figure(f"{label}_total", median([cost.total for cost in several]), _UNIT),
        *per_process,
    ]


_UNIT = "CPU-s/GiB"


def write(figures: Sequence[Figure]) -> None:
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps([figure.to_dict() for figure in figures], indent=2) + "\n")


def measure(options: argparse.Namespace) -> int:
    machine = facts.figures(options)
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as name:
        ram, disk = Path(name, "ram"), Path(name, "disk")
        fill(ram, options.size)
        fill(disk, options.disk)

        def table_of(network: Any, place: str, names: Sequence[str]) -> List[Round]:
            Path(name, place).mkdir()
            with Bench(Path(name, place), ram, disk, network) as bench:
                print(f"{place}:")
                return rounds(bench, names, options.repetitions)

        tables = {"loopback": table_of(Loopback(), "loopback", tuple(TRANSPORTS))}
        figures, others = judged(tables["loopback"]), told(tables["loopback"])
        write(figures + others + machine)  # should the link fail, that much is there
        if not options.no_link:
            with Link() as link:
                tables["2 Gbit/s"] = table_of(link, "link", LINKED)
            figures.append(link_bound(tables["2 Gbit/s"]))
            others += told(tables["2 Gbit/s"], "link_")

    write(figures + others + machine)
    for title, table in tables.items():
        print(f"\n{title}, medians of {options.repetitions}, RAM {options.size} MiB:")
        print("\n".join(line(transport, table) for transport in sorted(table[0], key=list(TRANSPORTS).index)))
    print()
    for figure in figures:
        print(figure.to_line())
    return 1 if any(figure.holds is False for figure in figures) else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.transports", description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--size", type=int, default=1024, metavar="MiB", help="RAM of the VM")
    parser.add_argument("--disk", type=int, default=256, metavar="MiB", help="its disk")
    parser.add_argument("--no-link", action="store_true", help="leave out the runs over a link of 2 Gbit/s")
    parser.add_argument("--docs", action="store_true", help="write docs/transports/measured.* from the last figures")
    options = parser.parse_args()
    if options.docs:
        measured.write(json.loads(RESULT.read_text()))
        return 0
    signal.signal(signal.SIGTERM, lambda *_signal: sys.exit(128 + signal.SIGTERM))  # leave everything as it was
    return measure(options)


if __name__ == "__main__":
    sys.exit(main())
