# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's monitor client: one connection per command, Proxmox's time-outs and texts (qemu-facts 8, pve-cli 5)."""

from __future__ import annotations

import errno
import json
import socket
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from .base import Die, Node

__all__ = ["MonitorError", "batch", "monitor", "run", "socket_path"]

SECONDS = {
    "nbd-server-stop": 25.0,
    "migrate": 60.0,
    "query-status": 3.0,
    "cont": 60.0,
    "human-monitor-command": 25.0,
    "quit": 6.0,
    "guest-fsfreeze-freeze": 3600.0,
    "guest-fstrim": 600.0,
    "block-export-add": 30.0,
    "nbd-server-start": 30.0,
}
DEFAULT_SECONDS = 5.0
RETRY_SECONDS = 0.1


class MonitorError(Die):
    """A command QEMU refused or did not answer; reason is the part after "failed - "."""

    def __init__(self, vmid: int, command: str, reason: str) -> None:
        super().__init__(f"VM {vmid} qmp command '{command}' failed - {reason}")
        self.reason = reason


class _Failed(Exception):
    pass


def socket_path(vmid: int, kind: str = "qmp") -> str:
    """Path of the monitor (qmp) or the guest agent (qga) socket."""
    return f"/run/qemu-server/{vmid}.{kind}"


class _Connection:
    """A monitor connection with one deadline for everything."""

    def __init__(self, node: Node, vmid: int, seconds: float, kind: str = "qmp") -> None:
        self.seconds = seconds
        self.deadline = time.monotonic() + node.seconds(seconds)
        self.buffer = b""
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.name = f"VM {vmid} {kind} socket"
        self._connect(str(node.path(socket_path(vmid, kind))))

    def _connect(self, path: str) -> None:
        while True:
            number = self.socket.connect_ex(path)
            if number == 0:
                self.socket.setblocking(True)
                return
            if number not in (errno.EAGAIN, errno.EINTR):
                raise _Failed(f"unable to connect to {self.name} - {errno_text(number)}")
            if time.monotonic() >= self.deadline:
                raise self.busy()
            time.sleep(min(RETRY_SECONDS, max(0.0, self.deadline - time.monotonic())))

    def busy(self) -> _Failed:
        """The socket is held by another client (QEMU serves one)."""
        return _Failed(f"unable to connect to {self.name} - timeout after {round(self.seconds * 10)} retries")

    def read(self) -> Dict[str, Any]:
        """The next object."""
        while b"\n" not in self.buffer:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(65536)
            except OSError as error:
                raise (
                    TimeoutError if isinstance(error, TimeoutError) else _Failed("client closed connection")
                ) from error
            if not data:
                raise _Failed("client closed connection")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def greet(self) -> None:
        """Wait for the greeting and leave negotiation mode."""
        try:
            while "QMP" not in self.read():
                pass
        except TimeoutError:
            raise self.busy() from None
        self.execute("qmp_capabilities", None)

    def execute(self, command: str, arguments: Optional[Mapping[str, Any]]) -> Any:
        """One command; events in between are dropped."""
        request: Dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = dict(arguments)
        try:
            self.socket.sendall(json.dumps(request).encode() + b"\n")
            while True:
                answer = self.read()
                if "return" in answer:
                    return answer["return"]
                if "error" in answer:
                    raise _Failed(answer["error"].get("desc", "unknown error"))
        except TimeoutError:
            raise _Failed("got timeout") from None
        except (BrokenPipeError, ConnectionResetError):
            raise _Failed("client closed connection") from None

    def close(self) -> None:
        """Disconnect."""
        self.socket.close()


def errno_text(number: int) -> str:
    """The C library's text."""
    import os

    return os.strerror(number)


def batch(
    node: Node,
    vmid: int,
    commands: Sequence[Tuple[str, Optional[Mapping[str, Any]]]],
    seconds: float,
    kind: str = "qmp",
) -> List[Any]:
    """Several commands over one connection; the results up to the first failure (an error aborts the rest)."""
    results: List[Any] = []
    try:
        connection = _Connection(node, vmid, seconds, kind)
    except (_Failed, OSError):
        return results
    try:
        connection.greet()
        for command, arguments in commands:
            results.append(connection.execute(command, arguments))
    except (_Failed, ValueError):
        pass
    finally:
        connection.close()
    return results


def run(
    node: Node, vmid: int, command: str, arguments: Optional[Mapping[str, Any]] = None, timeout: Optional[float] = None
) -> Any:
    """One command on a fresh connection; the caller checks first that the process runs (vm.command does)."""
    seconds = SECONDS.get(command, DEFAULT_SECONDS) if timeout is None else timeout
    connection = None
    try:
        connection = _Connection(node, vmid, seconds)
        connection.greet()
        return connection.execute(command, arguments)
    except _Failed as error:
        raise MonitorError(vmid, command, str(error)) from None
    finally:
        if connection is not None:
            connection.close()


def monitor(node: Node, vmid: int, line: str, timeout: float = 25.0) -> str:
    """A human monitor command; its text as QEMU gives it (CRLF line ends)."""
    return str(run(node, vmid, "human-monitor-command", {"command-line": line}, timeout))


def agent(node: Node, vmid: int, command: str, timeout: float = 3.0) -> Any:
    """A guest agent command (no greeting; the guest may not answer)."""
    try:
        connection = _Connection(node, vmid, timeout, "qga")
    except (_Failed, OSError) as error:
        raise Die(f"VM {vmid} qga command '{command}' failed - {error}") from None
    try:
        if command == "guest-shutdown":  # the agent never answers this one
            connection.socket.sendall(json.dumps({"execute": command}).encode() + b"\n")
            return None
        return connection.execute(command, None)
    except _Failed as error:
        raise Die(f"VM {vmid} qga command '{command}' failed - {error}") from None
    finally:
        connection.close()
