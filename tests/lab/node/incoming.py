# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A target that waits for a migration: sockets, capabilities, NBD exports (mtunnel-protocol 5.2, 6.1)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional

from .base import Die, Node, complain
from .flock import file_lock
from .process import command

__all__ = ["Incoming", "address", "listen", "migrate_socket", "nbd_socket", "nbd_stop", "next_port", "ram_uri"]

TRUE_CAPABILITIES = ("auto-converge", "xbzrle")
WWW_DATA = 33
FIRST_PORT, LAST_PORT = 60000, 60050
RESERVED_PORTS = "/var/tmp/pve-reserved-ports"
RESERVED_SECONDS = 5.0


def migrate_socket(vmid: int) -> str:
    """Where a starting target listens for RAM."""
    return f"/run/qemu-server/{vmid}.migrate"


def nbd_socket(vmid: int) -> str:
    """Where its NBD server listens."""
    return f"/run/qemu-server/{vmid}_nbd.migrate"


@dataclass(frozen=True)
class Incoming:
    """A start that waits for a migration.

    nbd: config key -> {"volid", "drivestr"} as the tunnel's `disk` returned it; nbd_proto_version 0 opens the NBD
    server on clear-text TCP of the node's address, as the real one does when the source omits it. plain: NBD by TCP
    whatever the version says; ram_by_tcp: RAM too (the insecure-remote patch series, mtunnel-protocol 6.2).
    network: CIDR in which this node's address for them lies.
    """

    migratedfrom: str = ""
    nbd: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    nbd_proto_version: int = 0
    host_mtu: Mapping[str, int] = field(default_factory=dict)
    node_address: str = "127.0.0.1"
    plain: bool = False
    ram_by_tcp: bool = False
    network: Optional[str] = None

    @property
    def nbd_by_tcp(self) -> bool:
        """Whether the NBD server listens in clear text."""
        return self.plain or self.nbd_proto_version < 1


def address(incoming: Incoming) -> str:
    """The one address of this node inside the given network; without one the node's own."""
    if not incoming.network or not incoming.plain:
        return incoming.node_address
    text = subprocess.run(
        ["ip", "-json", "address", "show", "to", incoming.network, "up"], stdout=subprocess.PIPE, check=False
    ).stdout
    # what the filter leaves out is there as an empty object
    links = json.loads(text or "[]")
    found = [info["local"] for link in links for info in link.get("addr_info", ()) if "local" in info]
    if len(found) != 1:
        count = "multiple addresses" if found else "no address"
        raise Die(f"could not get IP: {count} configured on local node for network '{incoming.network}'")
    return str(found[0])


def ram_uri(node: Node, vmid: int, incoming: Incoming) -> str:
    """What QEMU is started with: its socket, or the promise to be told a port later (since 8.1.0)."""
    if incoming.ram_by_tcp:
        address(incoming)  # a network without an address here is refused before anything is started
        return "defer"
    node.path(migrate_socket(vmid)).unlink(missing_ok=True)
    return f"unix:{node.path(migrate_socket(vmid))}"


def _bracketed(where: str) -> str:
    return f"[{where}]" if ":" in where else where


def next_port(node: Node, where: str) -> int:
    """The lowest free port of the range; it is the caller's for 5 s (mtunnel-protocol 6.2)."""
    with file_lock(node, RESERVED_PORTS + ".lock"):
        taken = _reserved(node)
        for port in range(FIRST_PORT, LAST_PORT + 1):
            if port not in taken and _bindable(where, port):
                taken[port] = time.time() + RESERVED_SECONDS
                lines = "".join(f"{number} {until:.0f}\n" for number, until in sorted(taken.items()))
                node.path(RESERVED_PORTS).write_text(lines, "ascii")
                return port
    raise Die(f"unable to find free port ({FIRST_PORT}-{LAST_PORT})")


def _reserved(node: Node) -> Dict[int, float]:
    try:
        pairs = (line.split() for line in node.path(RESERVED_PORTS).read_text("ascii").splitlines())
        return {int(port): float(until) for port, until in pairs if float(until) > time.time()}
    except (FileNotFoundError, ValueError):
        return {}


def _bindable(where: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in where else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((where, port))
        except OSError:
            return False
    return True


def _migrate(node: Node, vmid: int, incoming: Incoming) -> Dict[str, Any]:
    if incoming.ram_by_tcp:
        where = address(incoming)
        port = next_port(node, where)
        uri = f"tcp:{_bracketed(where)}:{port}"
        command(node, vmid, "migrate-incoming", {"uri": uri})
        # the port is a JSON string, the address of IPv6 is bracketed (mtunnel-protocol 4.2 and 6.2)
        return {"proto": "tcp", "addr": _bracketed(where), "port": str(port), "uri": uri}
    socket_path = migrate_socket(vmid)
    _give_to_proxy(node, socket_path)
    return {"proto": "unix", "addr": socket_path, "uri": f"unix:{socket_path}"}


def listen(node: Node, vmid: int, incoming: Incoming) -> Dict[str, Any]:
    """Ready a started QEMU: capabilities, NBD server, exports; answers what the tunnel's `start` replies."""
    _set_capabilities(node, vmid)
    migrate = _migrate(node, vmid, incoming)
    complain(f"migration listens on {migrate['uri']}")
    drives: Dict[str, Dict[str, str]] = {}
    if incoming.nbd:
        where = _start_nbd(node, vmid, incoming)
        if where.startswith("nbd:unix:"):
            migrate["unix_sockets"] = [nbd_socket(vmid)]
        for key in incoming.nbd:
            drives[key] = _export(node, vmid, key, incoming.nbd[key], where)
    return {"migrate": migrate, "drives": drives}


def _set_capabilities(node: Node, vmid: int) -> None:
    known = [entry["capability"] for entry in command(node, vmid, "query-migrate-capabilities")]
    wanted = [{"capability": name, "state": name in TRUE_CAPABILITIES} for name in known]
    command(node, vmid, "migrate-set-capabilities", {"capabilities": wanted})


def _start_nbd(node: Node, vmid: int, incoming: Incoming) -> str:
    if not incoming.nbd_by_tcp:
        path = nbd_socket(vmid)
        node.path(path).unlink(missing_ok=True)
        listener: Dict[str, Any] = {"type": "unix", "data": {"path": str(node.path(path))}}
        command(node, vmid, "nbd-server-start", {"addr": listener})
        _give_to_proxy(node, path)
        return f"nbd:unix:{path}"
    where = address(incoming)
    port = next_port(node, where)
    listener = {"type": "inet", "data": {"host": where, "port": str(port)}}
    command(node, vmid, "nbd-server-start", {"addr": listener})
    return f"nbd:{_bracketed(where)}:{port}"


def _export(node: Node, vmid: int, key: str, disk: Mapping[str, str], where: str) -> Dict[str, str]:
    device = f"drive-{key}"
    blocks = command(node, vmid, "query-block")
    name = next(
        (block["inserted"]["node-name"] for block in blocks if block["device"] == device and "inserted" in block), None
    )
    if name is None:
        raise Die(f"drive '{key}' does not exist")
    export = {"id": device, "node-name": name, "writable": True, "name": device, "type": "nbd"}
    command(node, vmid, "block-export-add", export)
    uri = f"{where}:exportname={device}"
    complain(f"storage migration listens on {uri} volume:{disk['drivestr']}")
    return {"drivestr": disk["drivestr"], "volid": disk["volid"], "nbd_uri": uri}


def _give_to_proxy(node: Node, path: str) -> None:
    try:
        os.chown(node.path(path), WWW_DATA, -1)
    except OSError:
        pass


def nbd_stop(node: Node, vmid: int) -> None:
    """End the NBD server; a second call is QEMU's own refusal."""
    command(node, vmid, "nbd-server-stop", None, 25.0)
