# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes that carry the VM's streams: the product's pump on the source, and what is at its other end.

For a direct transport that is the product's ``serve``, a process for each stream; for the websocket a stand-in for the
target's pveproxy. Each gives the path that QEMU connects to, and the CPU seconds of its two processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict

from unit.fakes.direct_target import DirectTarget, socket_path

from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import (
    DirectSettings,
    PlainSettings,
    PumpSettings,
    kind_of,
)

from .machine import cpu_of

__all__ = ["DISK", "RAM", "Direct", "Plain", "Websocket", "qemu_socket"]

RAM, DISK = "ram", "disk/scsi1"
_PUMP = "from ansible_collections.crosscluster.migration.plugins.module_utils.transport.pump import main; main()"
_MIGRATION, _KEY = "5" * 32, "ab" * 32
# A machine that is busy with something else must not cut a stream.
_PATIENT = {
    "deadman": 10.0, "stall": 60.0, "greeting": 10.0, "answer": 30.0, "background_answer": 60.0, "first_answer": 30.0
}  # fmt: skip


def qemu_socket(directory: Path, stream: str) -> str:
    """Where the target's QEMU waits for a stream."""
    return socket_path(str(directory), stream)


class _Pump:
    """The product's process on the source."""

    def __init__(self, first_line: bytes) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-B", "-c", _PUMP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self._say(first_line)

    def command(self, name: str, value: Any = None) -> None:
        self._say(json.dumps({"command": name, "value": value}).encode() + b"\n")

    def hear(self, name: str) -> Dict[str, Any]:
        for line in self._process.stdout or ():
            told: Dict[str, Any] = json.loads(line)
            if told["event"] == name:
                return told
            if told["event"] == "ended":
                raise RuntimeError(f"the pump ended before {name}: {told}")
        raise RuntimeError(f"the pump is gone before {name}")

    def cpu(self) -> float:
        return cpu_of(self._process.pid)

    def end(self) -> None:
        """Wait until it says that it ended well."""
        told = self.hear("ended")
        if not told["clean"]:
            raise RuntimeError(f"the stream ended badly: {told}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _say(self, line: bytes) -> None:
        if self._process.stdin is None:
            raise RuntimeError("no pipe")
        self._process.stdin.write(line)
        self._process.stdin.flush()


class _Carriers:
    """What all kinds share: a pump for each stream."""

    far = "target worker"
    to_tcp = False  # whether the target's QEMU listens on TCP

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pumps: Dict[str, _Pump] = {}

    def open(self, stream: str, listen: Dict[str, str]) -> str:
        """Up to the point where QEMU may connect; the path for it.

        Args:
            stream: RAM or DISK.
            listen: Where the target's QEMU waits.
        """
        self.start(stream, listen)
        self.pumps[stream].hear("listening")
        return self._path(stream)

    def cpu(self, stream: str) -> Dict[str, float]:
        """CPU seconds of the stream's processes since they began."""
        far = {self.far: self.far_cpu(stream)} if self.far else {}
        return {"source worker": self.pumps[stream].cpu(), **far}

    def pace(self, stream: str, rate: int) -> None:
        """bytes/s."""
        self.pumps[stream].command("rate", rate)

    def end(self, stream: str) -> None:
        """Wait for the stream's orderly end."""
        self.pumps[stream].end()

    def close(self) -> None:
        for pump in self.pumps.values():
            pump.close()

    def start(self, stream: str, listen: Dict[str, str]) -> None:
        raise NotImplementedError

    def far_cpu(self, stream: str) -> float:
        raise NotImplementedError

    def _path(self, stream: str) -> str:
        return str(self.directory / f"{stream.replace('/', '-')}.pump")


class Direct(_Carriers):
    """Two workers for each stream.

    Args:
        directory: Of this run.
        plane: ``tcp`` or ``tls``.
        network: Where the two nodes are.
        names: Certificates and names of both sides.
        opaque: QEMU encrypts by itself (``qemu-tls``).
    """

    def __init__(self, directory: Path, plane: str, network: Any, names: Dict[str, str], opaque: bool = False) -> None:
        super().__init__(directory)
        self._plane, self._network, self._names, self._opaque = plane, network, names, opaque
        self._ended: Dict[int, Dict[str, Any]] = {}
        self._children: Dict[str, int] = {}
        own = {"credentials": names["target"], "peer_name": names["a"]} if plane == "tls" else {"key": _KEY}
        settings: Dict[str, Any] = {"limits": _PATIENT, "address": network.address, **own}
        with network.target():
            self._target = DirectTarget(directory, plane, _MIGRATION, **settings)

    def start(self, stream: str, listen: Dict[str, str]) -> None:
        kind = kind_of(stream)
        if kind is None:
            raise ValueError(stream)
        with_tls = self._plane == "tls"
        wanted = DirectSettings(
            name=stream, kind=kind, plane=self._plane, address=self._network.address, port=self._target.port,
            peer_name=self._names["b"], own_name=self._names["a"], migration_id=_MIGRATION, stream=stream,
            limits=_PATIENT, credentials=self._names["source"] if with_tls else None, opaque=self._opaque,
        )  # fmt: skip
        with self._network.source():
            pump = self.pumps[stream] = _Pump(wanted.to_line("" if with_tls else _KEY))
        pump.hear("standing")
        self._children[stream] = int(self._target.wait("stream")["pid"])
        pump.command("open", {"listen": self._path(stream)})

    def far_cpu(self, stream: str) -> float:
        child = self._children[stream]
        return float(self._ended[child]["cpu_s"]) if child in self._ended else cpu_of(child)

    def end(self, stream: str) -> None:
        super().end(stream)
        child = self._children[stream]
        while child not in self._ended:
            told = self._target.wait("end")
            self._ended[int(told["pid"])] = told
        if not self._ended[child]["clean"]:
            raise RuntimeError(f"the stream ended badly: {self._ended[child]}")

    def close(self) -> None:
        super().close()
        self._target.stop()


class Websocket(_Carriers):
    """A pump and a stand-in for pveproxy for each stream."""

    far = "proxy"

    def __init__(self, directory: Path, network: Any, names: Dict[str, str]) -> None:
        super().__init__(directory)
        self._network, self._certificates = network, Path(names["target"])
        self._proxies: Dict[str, subprocess.Popen[bytes]] = {}

    def start(self, stream: str, listen: Dict[str, str]) -> None:
        kind = kind_of(stream)
        if kind is None:
            raise ValueError(stream)
        argv = [sys.executable, "-B", "-m", "bench.transports.proxy", self._network.address]
        with self._network.target():
            proxy = self._proxies[stream] = subprocess.Popen(
                [*argv, str(self._certificates), listen["path"]],
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        if proxy.stdout is None:
            raise RuntimeError("no pipe")
        endpoint = {
            "host": self._network.address, "port": int(proxy.stdout.readline()), "node": "target", "user": "mig@pve",
            "token_id": "t1", "validate_certs": False,
        }  # fmt: skip
        wanted = PumpSettings(name=stream, kind=kind, endpoint=endpoint, path="/bench", listen=self._path(stream))
        with self._network.source():
            self.pumps[stream] = _Pump(wanted.to_line("x"))

    def far_cpu(self, stream: str) -> float:
        return cpu_of(self._proxies[stream].pid)  # not reaped before the end

    def close(self) -> None:
        super().close()
        for proxy in self._proxies.values():
            proxy.kill()
            proxy.wait()


class Plain(_Carriers):
    """A worker on the source alone: the target's QEMU listens on TCP (``qemu-tcp``)."""

    far = ""
    to_tcp = True

    def __init__(self, directory: Path, network: Any, names: Dict[str, str]) -> None:
        super().__init__(directory)
        self._network = network

    def start(self, stream: str, listen: Dict[str, str]) -> None:
        kind = kind_of(stream)
        if kind is None:
            raise ValueError(stream)
        wanted = PlainSettings(
            name=stream, kind=kind, address=listen["host"], port=int(listen["port"]), listen=self._path(stream)
        )
        with self._network.source():
            self.pumps[stream] = _Pump(wanted.to_line(""))
