# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The API of a lab host: ``python -m lab.api.server [--address ADDRESS] [--port PORT]``.

The first process owns the listening socket and keeps the others alive: the daemon that runs the methods as root, and
the front-end workers (three, as MAX_WORKERS says) that terminate TLS.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
from typing import Callable, Dict, List, Optional

from lab.node.base import Node

from . import auth, statd
from .daemon import SOCKET, Daemon
from .frontend import Worker
from .personality import current
from .registry import Registry

__all__ = ["main"]

log = logging.getLogger("pveproxy")


def certificate(node: Node) -> "tuple[str, str]":
    """Certificate and key of the node; made when missing, self-signed."""
    base = node.path("/etc/pve/nodes/%s" % node.name)
    custom = base / "pveproxy-ssl.pem"
    if custom.exists():
        return str(custom), str(base / "pveproxy-ssl.key")
    cert, key = base / "pve-ssl.pem", base / "pve-ssl.key"
    if not cert.exists() or not key.exists():
        base.mkdir(parents=True, exist_ok=True)
        names = "subjectAltName=DNS:%s,DNS:localhost,IP:127.0.0.1" % node.name
        subprocess.run(
            [
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "730",
                "-subj",
                "/OU=PVE Cluster Node/O=Proxmox Virtual Environment/CN=%s" % node.name,
                "-addext",
                names,
                "-keyout",
                str(key),
                "-out",
                str(cert),
            ],
            check=True,
            stderr=subprocess.DEVNULL,
        )
    return str(cert), str(key)


def tls_context(node: Node) -> ssl.SSLContext:
    """Server side TLS with the node's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(*certificate(node))
    return context


def listener_tcp(address: str, port: int) -> socket.socket:
    """The shared listening socket; no address means all, IPv4 and IPv6."""
    if address:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return socket.create_server((address, port), family=family, backlog=256)
    try:
        return socket.create_server(("", port), family=socket.AF_INET6, backlog=256, dualstack_ipv6=True)
    except OSError:
        return socket.create_server(("", port), backlog=256)


def listener_unix(node: Node) -> socket.socket:
    """The daemon's socket."""
    path = node.path(SOCKET)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    os.chmod(path, 0o600)
    server.listen(256)
    return server


class Master:
    """Keeps daemon and workers alive."""

    def __init__(self, node: Node, tcp: socket.socket) -> None:
        self.node = node
        self.tcp = tcp
        self.unix = listener_unix(node)
        self.registry = Registry(node)
        self.context = tls_context(node)
        self.children: Dict[int, Callable[[], None]] = {}

    def run(self) -> None:
        """Start everything and restart what ends."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        self._start(lambda: Daemon(self.node, self.registry).serve(self.unix))
        self._start(lambda: statd.serve(self.node))
        for slot in range(current().workers):
            self._start(functools.partial(self._worker, slot))
        while True:
            pid, status = os.wait()
            work = self.children.pop(pid, None)
            if work:
                log.error("child %d ended with %d, starting another", pid, status)
                self._start(work)

    def _worker(self, slot: int) -> None:
        Worker(self.node, self.context, slot).run(self.tcp)

    def _start(self, work: Callable[[], None]) -> None:
        pid = os.fork()
        if pid:
            self.children[pid] = work
            return
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            work()
        finally:
            os._exit(1)

    def _stop(self, number: int, _frame: object) -> None:
        for pid in self.children:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
        os._exit(0)


def main(arguments: Optional[List[str]] = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="lab-api")
    parser.add_argument("--address", default=os.environ.get("LAB_API_ADDRESS", ""))
    parser.add_argument("--port", type=int, default=int(os.environ.get("LAB_API_PORT", "8006")))
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(asctime)s %(process)d %(message)s", level=logging.INFO, stream=sys.stderr)
    if current().time_scale != 1.0:
        os.environ.setdefault("LAB_TIME_SCALE", str(current().time_scale))  # the node library reads it there
    node = Node()
    auth.ensure_passwords(node)
    Master(node, listener_tcp(options.address, options.port)).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
