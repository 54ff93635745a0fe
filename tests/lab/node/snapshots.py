# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of a VM without RAM: qcow2-internal, by the monitor or by qemu-img."""

from __future__ import annotations

import subprocess
import time
from typing import Dict, List, Tuple

from . import vm
from .base import Die, Node
from .flock import config_lock, migration_lock
from .properties import drive_keys, parse_drive
from .storage import Storages
from .vmconfig import VmConfig, check_lock, load, store

__all__ = ["create", "delete", "get", "rollback"]


def _disks(node: Node, values: Dict[str, str]) -> List[Tuple[str, str]]:
    found = []
    for key in drive_keys(values):
        drive = parse_drive(values[key])
        if drive.get("media") != "cdrom" and drive["file"] != "none":
            found.append((key, drive["file"]))
    return found


def _check_feature(node: Node, disks: List[Tuple[str, str]]) -> None:
    storages = Storages(node)
    for _, volid in disks:
        storage, name = storages.split(volid)
        if storages.owner_and_format(storage, name)[1] != "qcow2":
            raise Die("snapshot feature is not available")


def _image(node: Node, action: str, name: str, volid: str) -> None:
    argv = ["qemu-img", "snapshot", action, name, Storages(node).real_path(volid)]
    done = subprocess.run(argv, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise Die(done.stderr.strip() or f"qemu-img snapshot failed: exit code {done.returncode}")


def create(node: Node, vmid: int, name: str, description: str = "") -> None:
    """Take a snapshot of every disk and of the config."""
    with config_lock(node, vmid):
        config = load(node, vmid)
        check_lock(config)
        if name in config.snapshots:
            raise Die(f"snapshot name '{name}' already used")
        disks = _disks(node, config.values)
        _check_feature(node, disks)
        for key, volid in disks:
            print(f"snapshotting 'drive-{key}' ({volid})", flush=True)
            if vm.pid(node, vmid) is None:
                _image(node, "-c", name, volid)
            else:
                vm.command(node, vmid, "blockdev-snapshot-internal-sync", {"device": f"drive-{key}", "name": name})
        kept = {key: value for key, value in config.values.items() if key != "lock"}
        config.snapshots[name] = {
            **kept,
            "snaptime": str(int(time.time())),
            **({"description": description} if description else {}),
        }
        config.values["parent"] = name
        store(node, vmid, config)


def delete(node: Node, vmid: int, name: str) -> None:
    """Remove a snapshot; waits for the guest migration lock."""
    try:
        lock = migration_lock(node, vmid)
        lock.__enter__()
    except Die:
        raise Die("Failed to obtain guest migration lock - replication running?") from None
    try:
        with config_lock(node, vmid):
            config = load(node, vmid)
            check_lock(config)
            snapshot = get(config, name)
            for key, volid in _disks(node, snapshot):
                print(f"deleting snapshot 'drive-{key}' ({volid})", flush=True)
                if vm.pid(node, vmid) is None:
                    _image(node, "-d", name, volid)
                else:
                    vm.command(
                        node, vmid, "blockdev-snapshot-delete-internal-sync", {"device": f"drive-{key}", "name": name}
                    )
            _unlink(config, name)
            store(node, vmid, config)
    finally:
        lock.__exit__(None, None, None)


def get(config: VmConfig, name: str) -> Dict[str, str]:
    """The values of a snapshot, or Die."""
    if name not in config.snapshots:
        raise Die(f"snapshot '{name}' does not exist")
    return config.snapshots[name]


def _unlink(config: VmConfig, name: str) -> None:
    parent = config.snapshots.pop(name).get("parent")
    for values in (config.values, *config.snapshots.values()):
        if values.get("parent") == name:
            del values["parent"]
            if parent is not None:
                values["parent"] = parent


def rollback(node: Node, vmid: int, name: str) -> None:
    """Go back to a snapshot; waits for the guest migration lock."""
    with migration_lock(node, vmid), config_lock(node, vmid):
        config = load(node, vmid)
        check_lock(config)
        snapshot = get(config, name)
        vm.stop_now(node, vmid)
        for _, volid in _disks(node, snapshot):
            _image(node, "-a", name, volid)
        config.values = {key: value for key, value in snapshot.items() if key not in ("snaptime", "vmstate")}
        config.values["parent"] = name
        store(node, vmid, config)
