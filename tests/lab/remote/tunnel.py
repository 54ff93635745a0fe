# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The task's side of the tunnel client process: commands in, replies out, its death noticed (mtunnel-protocol 11)."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from typing import Any, Dict, Mapping, Optional
from urllib.parse import quote

from lab.node.base import Die, Node, complain

from .endpoint import Endpoint

__all__ = ["Tunnel"]

PROGRAM = "proxmox-websocket-tunnel"
TERM_SECONDS, KILL_SECONDS = 30.0, 10.0
TIMEOUTS = {
    "disk": 600.0,
    "disk-import": 600.0,
    "config": 120.0,
    "version": 10.0,
    "bwlimit": 10.0,
    "stop": 10.0,
    "query-disk-import": 10.0,
    "unlock": 10.0,
    "resume": 30.0,
    "nbdstop": 30.0,
    "fstrim": 600.0,
    "quit": 30.0,
}


class Tunnel:
    """One process, one control connection, strictly one request outstanding."""

    def __init__(self, node: Node, endpoint: Endpoint, place: str, grant: Mapping[str, str]) -> None:
        self.node, self.endpoint, self.place = node, endpoint, place
        self.buffer = b""
        self.closing = False
        environment = {**os.environ, "LAB_ROOT": node.root, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lab.remote.websocket_tunnel"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            restore_signals=True,
        )
        threading.Thread(target=self._watch, daemon=True).start()
        query = f"?ticket={quote(grant['ticket'], safe='')}&socket={quote(grant['socket'], safe='')}"
        self._write({"control": True, "cmd": "connect", "data": self._connection(query)})

    def _connection(self, query: str) -> Dict[str, Any]:
        url = f"https://{self.endpoint.host}:{self.endpoint.port}/api2/json{self.place}{query}"
        data: Dict[str, Any] = {"url": url, "headers": [["Authorization", self.endpoint.apitoken]]}
        return {**data, **({"fingerprint": self.endpoint.fingerprint} if self.endpoint.fingerprint else {})}

    def _watch(self) -> None:
        """Its stderr is lines of the log; an end nobody asked for is told."""
        stream = self.process.stderr
        for line in stream or ():
            complain("tunnel: " + line.decode("utf-8", "replace").rstrip("\n"))
        code = self.process.wait()
        if code and not self.closing:
            how = f"got signal {-code}" if code < 0 else f"exit code {code}"
            complain(f"CMD websocket tunnel died: command '{PROGRAM}' failed: {how}\n")

    # -- lines ------------------------------------------------------------------------------------------------------

    def _write(self, message: Mapping[str, Any]) -> None:
        try:
            os.write(self.process.stdin.fileno(), (json.dumps(message) + "\n").encode())  # type: ignore[union-attr]
        except (BrokenPipeError, ValueError):
            raise Die("writing to tunnel failed: broken pipe") from None

    def _read(self, seconds: float) -> Dict[str, Any]:
        descriptor = self.process.stdout.fileno()  # type: ignore[union-attr]
        deadline = time.monotonic() + seconds
        while b"\n" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise Die("reading from tunnel failed: got timeout")
            data = os.read(descriptor, 65536)
            if not data:
                raise Die("reading from tunnel failed: got no data")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        found: Dict[str, Any] = json.loads(line)
        return found

    def call(self, name: str, parameters: Optional[Mapping[str, Any]] = None, seconds: float = 0.0) -> Dict[str, Any]:
        """A command and its reply; a refusal quotes the whole command, as the real one does."""
        message = {"cmd": name, **(parameters or {})}
        self._write(message)
        reply = self._read(seconds or TIMEOUTS.get(name, 30.0))
        if not reply.get("success"):
            raise Die(f"error - tunnel command '{json.dumps(message)}' failed - {str(reply.get('msg', '')).rstrip()}")
        return reply

    def forward(self, local: str, remote: str) -> None:
        """Carry connections to a local socket to one of the target's; the content of the reply is ignored."""
        query = f"?socket={quote(remote, safe='')}&"
        data = {**self._connection(query), "unix": str(self.node.path(local)), "ticket": {"path": remote}}
        self._write({"control": True, "cmd": "forward", "data": data})
        self._read(30.0)

    # -- end --------------------------------------------------------------------------------------------------------

    def quit(self, cleanup: bool) -> None:
        """`quit`, then the end of the process."""
        try:
            self.call("quit", {"cleanup": int(cleanup)})
        finally:
            self.close()

    def close(self) -> None:
        """Close the pipes, wait, TERM, KILL."""
        self.closing = True
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None and not stream.closed:
                stream.close()
        for seconds, signal in ((TERM_SECONDS, self.process.terminate), (KILL_SECONDS, self.process.kill)):
            try:
                self.process.wait(self.node.seconds(seconds))
                return
            except subprocess.TimeoutExpired:
                signal()
