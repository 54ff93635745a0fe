# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A target that waits for a migration: sockets, capabilities, NBD exports (mtunnel-protocol 5.2, 6.1)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping

from . import qmp
from .base import Die, Node, complain
from .process import command

__all__ = ["Incoming", "listen", "migrate_socket", "nbd_socket", "nbd_stop"]

TRUE_CAPABILITIES = ("auto-converge", "xbzrle")
WWW_DATA = 33
FIRST_PORT, LAST_PORT = 60000, 60050


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
    server on clear-text TCP of the node's address, as the real one does when the source omits it.
    """

    migratedfrom: str = ""
    nbd: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    nbd_proto_version: int = 0
    host_mtu: Mapping[str, int] = field(default_factory=dict)
    node_address: str = "127.0.0.1"


def listen(node: Node, vmid: int, incoming: Incoming) -> Dict[str, Any]:
    """Ready a started QEMU: capabilities, NBD server, exports; answers what the tunnel's `start` replies."""
    _set_capabilities(node, vmid)
    socket_path = migrate_socket(vmid)
    _give_to_proxy(node, socket_path)
    migrate: Dict[str, Any] = {"proto": "unix", "addr": socket_path, "uri": f"unix:{socket_path}"}
    complain(f"migration listens on unix:{socket_path}")
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
    if incoming.nbd_proto_version >= 1:
        path = nbd_socket(vmid)
        node.path(path).unlink(missing_ok=True)
        address: Dict[str, Any] = {"type": "unix", "data": {"path": str(node.path(path))}}
        command(node, vmid, "nbd-server-start", {"addr": address})
        _give_to_proxy(node, path)
        return f"nbd:unix:{path}"
    for port in range(FIRST_PORT, LAST_PORT + 1):
        address = {"type": "inet", "data": {"host": incoming.node_address, "port": str(port)}}
        try:
            command(node, vmid, "nbd-server-start", {"addr": address})
        except qmp.MonitorError as error:
            if "in use" in error.text:
                continue
            raise
        return f"nbd:{incoming.node_address}:{port}"
    raise Die(f"unable to find free port ({FIRST_PORT}-{LAST_PORT})")


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
