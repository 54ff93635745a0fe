# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One migration of the VM by one transport, and what it cost."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Optional

from pairs.qemu import Qemu
from unit.fakes.certificates import Authority, lay

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side
from ansible_collections.crosscluster.migration.plugins.module_utils.qemu import tls

from .machine import guestless_cpu, source, target
from .network import ADDRESSES
from .pump import Workers, qemu_socket

__all__ = ["TRANSPORTS", "Bench", "Run"]

# By name: what is between the workers, and whether QEMU does TLS. Without workers: QEMU directly to QEMU.
TRANSPORTS: Dict[str, "tuple[Optional[str], bool]"] = {
    "direct": (None, False),
    "direct-tls": (None, True),
    "tcp": ("tcp", False),
    "tls": ("tls", False),
    "qemu-tls": ("tls", True),  # as the product: inside the workers' TLS
}
_PATIENCE = 300.0  # seconds for one migration; the machine may be busy with something else
_NAMES = {"a": "a1.example.com", "b": "b1.example.com"}


@dataclass(frozen=True)
class Run:
    """Seconds; CPU per process and GiB of RAM; the pause is from STOP here to RESUME there."""

    wall: float
    pause_ms: float
    cpu: Dict[str, float] = field(default_factory=dict)

    @property
    def slowest(self) -> float:
        return max(self.cpu.values())

    @property
    def total(self) -> float:
        return sum(self.cpu.values())


class Bench:
    """A source that stays, and a fresh target for each run; a context manager.

    Args:
        directory: Where everything is put.
        ram: What is in the VM's memory.
        network: Where the two nodes are.
    """

    def __init__(self, directory: Path, ram: Path, network: Any) -> None:
        self._directory, self._ram, self._network = directory, ram, network
        authority = Authority()
        self._names = dict(_NAMES)
        for side, name in (("source", _NAMES["a"]), ("target", _NAMES["b"])):
            self._names[side] = str(lay(directory / f"{side}-pki", authority.pem, authority.issue(name, ips=ADDRESSES)))
        with network.source():
            self._source = source(directory / "source", ram)

    def __enter__(self) -> Bench:
        self._source.__enter__()
        wanted = ("return-path", "pause-before-switchover", "events")
        self._source.run("migrate-set-capabilities", capabilities=[{"capability": w, "state": True} for w in wanted])
        self._source.run("migrate-set-parameters", max_bandwidth=1 << 40, downtime_limit=100)
        return self

    def __exit__(self, *exception: Any) -> None:
        self._source.__exit__(*exception)

    def run(self, name: str) -> Run:
        plane, with_tls = TRANSPORTS[name]
        directory = Path(tempfile.mkdtemp(dir=self._directory))
        incoming = f"tcp:{self._network.address}:0" if plane is None else f"unix:{qemu_socket(directory)}"
        with self._network.target():
            there = target(directory / "target", incoming, self._ram)
        workers: Optional[Workers] = None
        try:
            with there:
                self._arm(there, with_tls)
                if plane is None:
                    uri = f"tcp:{self._network.address}:{_port(there)}"
                else:
                    workers = Workers(directory, plane, self._network, self._names, opaque=with_tls)
                    workers.open()
                    uri = f"unix:{workers.listen}"
                return self._measure(there, uri, workers)
        finally:
            if workers is not None:
                workers.close()
            shutil.rmtree(directory)

    def _arm(self, there: Qemu, with_tls: bool) -> None:
        with self._source.session() as here:
            tls.disarm(here)
            here.execute("cont")
            if not with_tls:
                return
            tls.add_credentials(here, Side.SOURCE, self._names["source"])
            tls.arm_parameters(here, Side.SOURCE, tls.source_parameters(self._names["b"]))
        with there.session() as qmp:
            tls.add_credentials(qmp, Side.TARGET, self._names["target"], self._names["a"])
            tls.arm_parameters(qmp, Side.TARGET, tls.target_parameters())

    def _measure(self, there: Qemu, uri: str, workers: Optional[Workers]) -> Run:
        before = guestless_cpu(self._source), guestless_cpu(there)
        with self._source.monitor.within(_PATIENCE) as here, there.monitor.within(_PATIENCE) as far:
            began = time.time()
            here.execute("migrate", {"uri": uri})
            stop = _drive(here)
            resume = far.wait_event(["RESUME"], time.monotonic() + _PATIENCE)
        if resume is None:
            raise RuntimeError("the target does not run")
        cpu = {"source QEMU": guestless_cpu(self._source) - before[0], "target QEMU": guestless_cpu(there) - before[1]}
        if workers is not None:
            cpu.update(workers.end())
        gib = self._ram.stat().st_size / 1024**3
        costs = {process: seconds / gib for process, seconds in cpu.items()}
        return Run(resume.seconds - began, (resume.seconds - stop) * 1000, costs)


def _drive(here: Any) -> float:
    """From ``migrate`` to its end; when the guest was stopped."""
    stop = 0.0
    while True:
        event = here.wait_event(["STOP", "MIGRATION"], time.monotonic() + _PATIENCE)
        if event is None:
            raise RuntimeError("the migration does not end")
        status = event.data.get("status")
        if event.name == "STOP":
            stop = event.seconds
        elif status == "pre-switchover":
            here.execute("migrate-continue", {"state": status})
        elif status == "failed":
            raise RuntimeError(f"the migration failed: {here.execute('query-migrate')}")
        elif status == "completed":
            return stop


def _port(there: Qemu) -> str:
    return str(there.run("query-migrate")["socket-address"][0]["port"])
