# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A listening end for tests of the direct pump: it greets, forks, and has the product's ``serve`` carry each stream.

Run as a program with its settings as one argument in JSON; it tells on stdout, one object per line: its port, the
process and the stream of every connection that it let in, and how that ended. :class:`DirectTarget` runs and hears it.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[2])

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side
from ansible_collections.crosscluster.migration.plugins.module_utils.transport import direct_pump, tls, wire
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.direct_end import DirectEnd, addresses_of
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.direct_guard import DirectLimits
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.errors import TransportError
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.handshake import TargetGreeting, farewell

__all__ = ["DirectTarget", "socket_path"]

LINKS = str(Path(__file__).parents[3] / ".build" / "links")


def socket_path(directory: str, stream: str) -> str:
    """Where the QEMU of a stream listens."""
    return os.path.join(directory, stream.replace("/", "-") + ".qemu")


class DirectTarget:
    """The program as a process."""

    def __init__(self, directory: Path, plane: str, migration_id: str, **settings: Any) -> None:
        values = {"directory": str(directory), "plane": plane, "mid": migration_id, **settings}
        argv = [sys.executable, "-B", __file__, json.dumps(values), LINKS]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        self.directory = str(directory)
        self.port = int(self.next()["port"])

    def next(self, seconds: float = 30.0) -> Dict[str, Any]:
        """The next thing that it tells."""
        stdout = self.process.stdout
        assert stdout is not None
        assert select.select([stdout], [], [], seconds)[0], "the target says nothing"
        line = b""
        while not line.endswith(b"\n"):
            byte = os.read(stdout.fileno(), 1)
            assert byte, "the target is gone"
            line += byte
        return dict(json.loads(line))

    def wait(self, key: str, pid: Optional[int] = None) -> Dict[str, Any]:
        """The next thing of a kind: ``stream``, ``end``, ``refused``; of one process or of any."""
        while True:
            told = self.next()
            if key in told and pid in (None, told["pid"]):
                return told

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


# --- the program ----------------------------------------------------------------------------------------------------


class _Qemu:
    """The UNIX socket of a stream, as incoming's children find it."""

    def __init__(self, path: str) -> None:
        self._path = path

    def connect(self) -> socket.socket:
        return direct_pump.connect_unix(self._path)


def tell(**fields: Any) -> None:
    os.write(1, json.dumps(fields).encode() + b"\n")


def greet(sock: socket.socket, settings: Dict[str, Any]) -> "tuple[DirectEnd, str]":
    """Blocking and without any limit: that is what the listening end of the product is there for."""
    handshake: Optional[tls.Handshake] = None
    if settings["plane"] == "tls":
        credentials = tls.Credentials(settings["credentials"])
        handshake = tls.Handshake(Side.TARGET, tls.server_context(credentials), credentials, settings["peer_name"])
        try:
            while not handshake.advance():
                sock.sendall(handshake.to_send())
                handshake.receive(sock.recv(16384))
        finally:
            sock.sendall(handshake.to_send())
    end = DirectEnd(sock, settings["plane"], handshake)
    greeting = TargetGreeting(
        settings["plane"], settings["mid"], settings.get("key", ""), addresses_of(sock, Side.TARGET),
        secrets.token_hex(32), lambda stream: settings.get("refuses", {}).get(stream), settings.get("key", ""),
    )  # fmt: skip
    try:
        while not greeting.done:
            frames: Optional[List[wire.Frame]] = end.receive()
            if frames is None:
                raise SystemExit(0)
            for frame in frames:
                end.send(greeting.receive(frame))
            if not end.heard:
                select.select([sock], [], [])
    except TransportError as error:
        end.send(farewell(error))
        end.finish()
        end.linger(1.0, time.monotonic)
        raise
    return end, greeting.stream


def carry(sock: socket.socket, settings: Dict[str, Any]) -> None:
    try:
        end, stream = greet(sock, settings)
    except TransportError as error:
        tell(pid=os.getpid(), refused=error.message)
        return
    tell(pid=os.getpid(), stream=stream)
    qemu = _Qemu(socket_path(settings["directory"], stream))
    result = direct_pump.serve(end, stream, qemu, DirectLimits.parse(settings.get("limits", {})))
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    used = time.process_time()
    end = {"end": result.reason.value, "clean": result.clean, "detail": result.detail}
    tell(pid=os.getpid(), peak_kib=int(peak.split()[1]), cpu_s=used, **end)


def main() -> None:
    settings = json.loads(sys.argv[1])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket()
    listener.bind((settings.get("address", "127.0.0.1"), 0))
    listener.listen(16)
    tell(port=listener.getsockname()[1])
    while True:
        sock, _address = listener.accept()
        if os.fork() == 0:
            listener.close()
            carry(sock, settings)
            os._exit(0)
        sock.close()


if __name__ == "__main__":
    main()
