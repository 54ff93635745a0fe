# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removing a VM: `qm destroy`, DELETE, and the clean-up of the tunnel's `quit` (pve-cli 4, mtunnel-protocol 5.3)."""

from __future__ import annotations

import os
import re
from typing import Dict, Iterable, List

from . import vm
from .base import Die, Node, complain
from .cluster import Cluster
from .flock import config_lock
from .ha import Resources
from .properties import is_drive, parse_drive
from .schema import is_cdrom
from .storage import Storages
from .vmconfig import VmConfig, check_lock, load, store

__all__ = ["check_removable", "destroy", "destroy_files"]

USER_FILE = "/etc/pve/user.cfg"
REPLICATION_FILE = "/etc/pve/replication.cfg"


def check_removable(node: Node, vmid: int, purge: bool = False) -> None:
    """The checks before the task: no config, protection, HA, replication, running."""
    config = load(node, vmid)
    if config.values.get("protection") == "1":
        raise Die(f"can't remove VM {vmid} - protection mode enabled")
    if not purge:
        if Resources(node).state(vmid) is not None:
            raise Die(f"unable to remove VM {vmid} - used in HA resources and purge parameter not set.")
        if any(name.split("-")[0] == str(vmid) for name in Cluster(node).sections(REPLICATION_FILE)):
            raise Die(f"There is a replication job '{vmid}' for guest '{vmid}' - Please remove that first.")
    if vm.pid(node, vmid) is not None:
        raise Die(f"VM {vmid} is running - destroy failed", 25)


def destroy(node: Node, vmid: int, skiplock: bool = False, purge: bool = False, unreferenced: bool = False) -> None:
    """The task of `qm destroy`: referenced volumes, config, ACL entries, firewall file; other volumes on request."""
    check_removable(node, vmid, purge)
    with config_lock(node, vmid):
        if vm.pid(node, vmid) is not None:
            raise Die(f"VM {vmid} is running - destroy failed", 25)
        destroy_files(node, vmid, skiplock, unreferenced, keep_config=True)
        _remove_access(node, vmid)
        node.path(f"/etc/pve/firewall/{vmid}.fw").unlink(missing_ok=True)
        if purge:
            _purge(node, vmid)
        Cluster(node).remove(vmid)


def destroy_files(
    node: Node, vmid: int, skiplock: bool = True, unreferenced: bool = False, keep_config: bool = False
) -> None:
    """Free the volumes the config refers to and that the VM owns, then the config; a running QEMU is not looked at."""
    config = load(node, vmid)
    if not skiplock:
        check_lock(config)
    volumes = _volumes(node, vmid, config)
    for volid in volumes:
        _free(node, volid, f"Could not remove disk '{volid}', check manually: ")
    if unreferenced:
        _free_unreferenced(node, vmid, volumes)
    if keep_config:
        config.values = {"lock": "destroyed"}
        config.pending, config.pending_delete, config.snapshots, config.special = {}, [], {}, {}
        store(node, vmid, config)
    else:
        Cluster(node).remove(vmid)


def _volumes(node: Node, vmid: int, config: VmConfig) -> List[str]:
    found: Dict[str, None] = {}
    for values in (config.values, config.pending, *config.snapshots.values()):
        for key in sorted(values):
            volid = values[key] if re.fullmatch(r"unused\d+|vmstate", key) else ""
            if is_drive(key) and not is_cdrom(values[key]):
                volid = parse_drive(values[key])["file"]
            if volid and _owned(node, vmid, volid):
                found[volid] = None
    return list(found)


def _owned(node: Node, vmid: int, volid: str) -> bool:
    if volid.startswith("/") or ":" not in volid:
        return False
    storages = Storages(node)
    try:
        storage, name = storages.split(volid)
        return storages.owner_and_format(storage, name)[0] == vmid
    except Die:
        return False


def _free(node: Node, volid: str, prefix: str) -> None:
    try:
        Storages(node).free(volid)
    except (Die, OSError) as error:
        complain(f"{prefix}{error}")


def _free_unreferenced(node: Node, vmid: int, done: Iterable[str]) -> None:
    storages = Storages(node)
    for sid, storage in storages.all().items():
        if not storage.enabled(node.name) or "images" not in storage.content:
            continue
        for volume in storages.list(sid, vmid):
            if volume.volid not in done:
                os.write(1, f"try to remove unreferenced disk '{volume.volid}'\n".encode())
                _free(node, volume.volid, "")


def _remove_access(node: Node, vmid: int) -> None:
    path = node.path(USER_FILE)
    if not path.exists():
        return
    text = path.read_text("utf-8")
    lines = [_without_member(line, vmid) for line in text.splitlines(True)]
    kept = "".join(line for line in lines if not re.match(rf"acl:\d+:/vms/{vmid}:", line))
    if kept != text:
        Cluster(node).write_file(USER_FILE, kept)


def _without_member(line: str, vmid: int) -> str:
    """A pool's line (pool:name:comment:vms:storages:) without the VM; other lines as they are."""
    fields = line.split(":")
    if fields[0] == "pool" and len(fields) > 3:
        fields[3] = ",".join(word for word in re.split(r"[,;\s]+", fields[3]) if word and word != str(vmid))
    return ":".join(fields)


def _purge(node: Node, vmid: int) -> None:
    os.write(1, f"purging VM {vmid} from related configurations..\n".encode())
    cluster = Cluster(node)
    jobs = cluster.sections(REPLICATION_FILE)
    kept = {name: keys for name, keys in jobs.items() if name.split("-")[0] != str(vmid)}
    if kept != jobs:
        cluster.write_sections(REPLICATION_FILE, kept)
    if Resources(node).state(vmid) is not None:
        Resources(node).remove(f"vm:{vmid}")
        os.write(1, f"NOTE: removed VM {vmid} from HA resource configuration.\n".encode())
