# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two workers' processes for one RAM stream, as in a migration: the product's pump and the product's ``serve``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict

from unit.fakes.direct_target import DirectTarget, socket_path

from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import DirectSettings, Kind

from .machine import cpu_of

__all__ = ["Workers", "qemu_socket"]

_RAM = "ram"
_PUMP = "from ansible_collections.crosscluster.migration.plugins.module_utils.transport.pump import main; main()"
_MIGRATION, _KEY = "5" * 32, "ab" * 32
# A machine that is busy with something else must not cut a stream.
_PATIENT = {"deadman": 10.0, "stall": 60.0, "greeting": 10.0, "first_answer": 30.0}


class Workers:
    """Both ends of one stream."""

    def __init__(self, directory: Path, plane: str, network: Any, names: Dict[str, str], opaque: bool = False) -> None:
        self.listen = str(directory / "pump")
        settings: Dict[str, Any] = {"limits": _PATIENT, "address": network.address}
        settings.update({"credentials": names["target"], "peer_name": names["a"]} if plane == "tls" else {"key": _KEY})
        with network.target():
            self._target = DirectTarget(directory, plane, _MIGRATION, **settings)
        wanted = DirectSettings(
            name=_RAM, kind=Kind.RAM, plane=plane, address=network.address, port=self._target.port,
            peer_name=names["b"], own_name=names["a"], migration_id=_MIGRATION, stream=_RAM, limits=_PATIENT,
            credentials=names["source"] if plane == "tls" else None, opaque=opaque,
        )  # fmt: skip
        with network.source():
            self._pump = subprocess.Popen(
                [sys.executable, "-B", "-c", _PUMP],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        self._first_line = wanted.to_line("" if plane == "tls" else _KEY)

    def open(self) -> None:
        """Up to the point where QEMU may connect; CPU is counted from here on."""
        self._say(self._first_line)
        self._hear("standing")
        self._child = int(self._target.wait("stream")["pid"])
        self._say(json.dumps({"command": "open", "value": {"listen": self.listen}}).encode() + b"\n")
        self._hear("listening")
        self._before = cpu_of(self._pump.pid), cpu_of(self._child)

    def end(self) -> Dict[str, float]:
        """CPU seconds of each, once both have ended well."""
        told = self._hear("ended")
        source = cpu_of(self._pump.pid)
        end = self._target.wait("end", self._child)
        if not told["clean"] or not end["clean"]:
            raise RuntimeError(f"the stream ended badly: {told}, {end}")
        return {"source worker": source - self._before[0], "target worker": end["cpu_s"] - self._before[1]}

    def close(self) -> None:
        self._pump.kill()
        self._pump.wait()
        self._target.stop()

    def _say(self, line: bytes) -> None:
        if self._pump.stdin is None:
            raise RuntimeError("no pipe")
        self._pump.stdin.write(line)
        self._pump.stdin.flush()

    def _hear(self, name: str) -> Dict[str, Any]:
        for line in self._pump.stdout or ():
            told: Dict[str, Any] = json.loads(line)
            if told["event"] == name:
                return told
            if told["event"] == "ended":
                raise RuntimeError(f"the pump ended before {name}: {told}")
        raise RuntimeError(f"the pump is gone before {name}")


def qemu_socket(directory: Path) -> str:
    """Where the target's QEMU waits."""
    return socket_path(str(directory), _RAM)
