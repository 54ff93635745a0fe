# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One move of the VM by one transport, its disk first, and what it cost."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple, Optional

from pairs.qemu import Qemu
from unit.fakes.certificates import Authority, lay

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side
from ansible_collections.crosscluster.migration.plugins.module_utils.qemu import mirror, tls
from ansible_collections.crosscluster.migration.plugins.module_utils.transport import pacing

from .carriers import DISK, RAM, Direct, Plain, Websocket, qemu_socket
from .heart import Heart
from .machine import DATA, MIB, guestless_cpu, source, target
from .network import ADDRESSES

__all__ = ["TRANSPORTS", "Bench", "Cost", "Round", "Run"]

_PATIENCE = 300.0  # seconds for one move; the machine may be busy with something else
_NAMES = {"a": "a1.example.com", "b": "b1.example.com"}
_JOB, _NODE = "mirror-scsi1", "nbd-scsi1"
_UNLIMITED = 1 << 40  # bytes/s


class Transport(NamedTuple):
    """What carries the streams; without carriers QEMU connects to QEMU."""

    carriers: Optional[Callable[..., Any]] = None
    qemu_tls: bool = False
    paced: bool = False  # RAM at the rate that the product derives from the mirror's


TRANSPORTS: Dict[str, Transport] = {
    "direct": Transport(),
    "direct-tls": Transport(qemu_tls=True),
    "tcp": Transport(partial(Direct, plane="tcp")),
    "tls": Transport(partial(Direct, plane="tls")),
    "qemu-tls": Transport(partial(Direct, plane="tcp", opaque=True), qemu_tls=True),
    "qemu-tcp": Transport(Plain),
    "websocket": Transport(Websocket, paced=True),
    "websocket-unpaced": Transport(Websocket),
}


@dataclass(frozen=True)
class Cost:
    """Seconds, and CPU seconds per process and GiB that was carried."""

    wall: float
    cpu: Dict[str, float]

    @property
    def slowest(self) -> float:
        return max(self.cpu.values())

    @property
    def total(self) -> float:
        return sum(self.cpu.values())


@dataclass(frozen=True)
class Run:
    """One move: its disk until the mirror is ready, its RAM until the guest runs on the target.

    The pause is from STOP here to RESUME there; the downtime is QEMU's word; the gap is what the guest's beats show.
    """

    disk: Cost
    ram: Cost
    pause_ms: float
    downtime_ms: float
    gap_ms: float


Round = Dict[str, Run]  # one repetition, by transport


class Bench:
    """A source that stays, and a fresh target for each run; a context manager.

    Args:
        directory: Where everything is put.
        ram: What is in the VM's memory.
        disk: What is on its disk.
        network: Where the two nodes are.
    """

    def __init__(self, directory: Path, ram: Path, disk: Path, network: Any) -> None:
        self._directory, self._ram, self._disk, self._network = directory, ram, disk, network
        self._stack = contextlib.ExitStack()
        authority = Authority()
        self._names = dict(_NAMES)
        for side, name in (("source", _NAMES["a"]), ("target", _NAMES["b"])):
            place = lay(directory / f"{side}-pki", authority.pem, authority.issue(name, ips=ADDRESSES))
            self._names[side] = str(place)
        _lay_group(Path(self._names["target"]))

    def __enter__(self) -> Bench:
        with contextlib.ExitStack() as stack:
            self._heart = stack.enter_context(Heart(self._directory))
            with self._network.source():
                self._source = stack.enter_context(_entered(source(self._directory, self._ram, self._disk)))
            wanted = ("return-path", "pause-before-switchover", "events")
            states = [{"capability": name, "state": True} for name in wanted]
            self._source.run("migrate-set-capabilities", capabilities=states)
            now = time.time()
            self._heart.gap_ms(now, now)  # the guest is there
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stack.close()

    def run(self, name: str) -> Run:
        transport = TRANSPORTS[name]
        with tempfile.TemporaryDirectory(dir=self._directory) as text, contextlib.ExitStack() as stack:
            directory = Path(text)
            carriers = None
            if transport.carriers is not None:
                carriers = transport.carriers(directory, network=self._network, names=self._names)
                stack.callback(carriers.close)
            listen = {stream: self._listen(directory, stream, carriers) for stream in (RAM, DISK)}
            with self._network.target():
                machine = target(self._directory, directory, _uri(listen[RAM]), self._ram, self._disk)
            there = stack.enter_context(_entered(machine))
            here = stack.enter_context(self._source.monitor.within(_PATIENCE))
            far = stack.enter_context(there.monitor.within(_PATIENCE))
            self._arm(here, far, transport.qemu_tls)
            move = _Move(self._source, there, here, far, carriers, listen)
            disk = move.mirror(self._disk.stat().st_size, _NAMES["b"] if transport.qemu_tls else "")
            rate = _UNLIMITED
            if transport.paced:
                size = self._disk.stat().st_size
                rate = pacing.stream_rate(None, None, pacing.Measure(size, disk.wall, int(size / disk.wall)))
            return move.migrate(self._ram.stat().st_size, rate, disk, self._heart)

    def _listen(self, directory: Path, stream: str, carriers: Any) -> Dict[str, str]:
        """Where the target's QEMU listens."""
        if carriers is not None and not carriers.to_tcp:
            return {"type": "unix", "path": qemu_socket(directory, stream)}
        with self._network.target(), socket.create_server((self._network.address, 0)) as free:
            return {"type": "inet", "host": self._network.address, "port": str(free.getsockname()[1])}

    def _arm(self, here: Any, far: Any, with_tls: bool) -> None:
        tls.disarm(here)
        here.execute("cont")
        if with_tls:
            tls.add_credentials(here, Side.SOURCE, self._names["source"])
            tls.arm_parameters(here, Side.SOURCE, tls.source_parameters(self._names["b"]))
            tls.add_credentials(far, Side.TARGET, self._names["target"], self._names["a"])
            tls.arm_parameters(far, Side.TARGET, tls.target_parameters())


class _Move:
    """One VM from here to there."""

    def __init__(self, source: Qemu, target: Qemu, here: Any, far: Any, carriers: Any, listen: Dict[str, Any]) -> None:
        self._source, self._target = source, target
        self._here, self._far = here, far
        self._carriers = carriers
        self._listen = listen

    def mirror(self, size: int, tls_name: str) -> Cost:
        """Until the disk is ready."""
        here, listen = self._here, self._listen[DISK]
        data = {name: value for name, value in listen.items() if name != "type"}
        armed = {"tls-creds": tls.CREDENTIALS, "tls-authz": tls.AUTHORIZATION} if tls_name else {}
        self._far.execute("nbd-server-start", {"addr": {"type": listen["type"], "data": data}, **armed})
        self._far.execute("block-export-add", tls.Export(DATA, DATA).add())
        node = {**mirror.add_node(_NODE, "", DATA), "server": self._connect(DISK)}
        here.execute("blockdev-add", {**node, **(tls.block_options(tls_name) if tls_name else {})})
        before, began = self._cpu(DISK), time.time()
        here.execute("blockdev-mirror", mirror.start(_JOB, DATA, _NODE))
        ready = self._next(here, "BLOCK_JOB_READY")
        return self._cost(DISK, before, ready.seconds - began, size)

    def migrate(self, size: int, rate: int, disk: Cost, heart: Heart) -> Run:
        """The RAM, and the switchover."""
        here, uri = self._here, _uri(self._connect(RAM))
        here.execute("migrate-set-parameters", {"max-bandwidth": rate, "downtime-limit": 100})
        if rate != _UNLIMITED:
            self._carriers.pace(RAM, rate)
        before, began = self._cpu(RAM), time.time()
        here.execute("migrate", {"uri": uri})
        stop = self._follow()
        resume = self._next(self._far, "RESUME").seconds
        while not (downtime := here.execute("query-migrate")["downtime"]):  # it comes right after "completed"
            time.sleep(0.001)
        if self._carriers is not None:
            self._carriers.end(RAM)
        ram = self._cost(RAM, before, resume - began, size)
        return Run(disk, ram, (resume - stop) * 1000, float(downtime), heart.gap_ms(began, resume))

    def _connect(self, stream: str) -> Dict[str, str]:
        """Where the source's QEMU connects to."""
        listen = self._listen[stream]
        return listen if self._carriers is None else {"type": "unix", "path": self._carriers.open(stream, listen)}

    def _follow(self) -> float:
        """From ``migrate`` to its end; when the guest was stopped."""
        stop = 0.0
        while True:
            event = self._next(self._here, "STOP", "MIGRATION")
            status = event.data.get("status")
            if event.name == "STOP":
                stop = event.seconds
            elif status == "pre-switchover":
                self._end_mirror()
                self._here.execute("migrate-continue", {"state": status})
            elif status == "failed":
                raise RuntimeError(f"the migration failed: {self._here.execute('query-migrate')}")
            elif status == "completed":
                return stop

    def _end_mirror(self) -> None:
        """As the product does in the pause (direct-transports 3, rows 12 and 12a)."""
        here = self._here
        here.execute("block-job-cancel", mirror.end(_JOB))
        while self._next(here, "JOB_STATUS_CHANGE").data["status"] != "concluded":
            pass
        here.execute("job-dismiss", mirror.dismiss(_JOB))
        here.execute("blockdev-del", mirror.delete_node(_NODE))
        self._far.execute("nbd-server-stop")

    def _next(self, session: Any, *names: str) -> Any:
        event = session.wait_event(names, time.monotonic() + _PATIENCE)
        if event is None:
            raise RuntimeError(f"QEMU does not tell of {' or '.join(names)}")
        return event

    def _cpu(self, stream: str) -> Dict[str, float]:
        carriers = {} if self._carriers is None else self._carriers.cpu(stream)
        return {
            "source QEMU": guestless_cpu(self._source, self._here),
            "target QEMU": guestless_cpu(self._target, self._far),
            **carriers,
        }

    def _cost(self, stream: str, before: Dict[str, float], wall: float, size: int) -> Cost:
        gib = size / MIB / 1024
        return Cost(wall, {name: (now - before[name]) / gib for name, now in self._cpu(stream).items()})


@contextlib.contextmanager
def _entered(qemu: Qemu) -> Any:
    """It runs since it was made: it is ended even if it never answers."""
    try:
        yield qemu.__enter__()
    finally:
        qemu.__exit__()


def _uri(address: Dict[str, str]) -> str:
    return f"unix:{address['path']}" if address["type"] == "unix" else f"tcp:{address['host']}:{address['port']}"


def _lay_group(place: Path) -> None:
    """Diffie-Hellman parameters of RFC 7919, or QEMU's server makes its own for seconds."""
    command = ["openssl", "genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe2048"]
    subprocess.run([*command, "-out", str(place / "dh-params.pem")], check=True, capture_output=True)
