# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of a VM without RAM: qcow2-internal, by the monitor or by qemu-img."""

from __future__ import annotations

import subprocess
import time
from typing import Any, Dict, List, Optional, Set, Tuple

from . import vm
from .base import Die, Node
from .flock import config_lock, migration_lock
from .properties import drive_keys, parse_drive
from .storage import Storages
from .vmconfig import VmConfig, check_lock, load, store

__all__ = ["check_name", "create", "delete", "get", "listing", "rollback", "tree"]


def check_name(name: str) -> None:
    """Names that are taken for other things."""
    if name == "current" or name.lower() == "pending":
        raise Die(f"unable to use snapshot name '{name.lower()}' (reserved name)")


def listing(config: VmConfig, running: bool) -> List[Dict[str, Any]]:
    """As GET snapshot: the snapshots, then the entry `current`."""
    found = []
    for name, values in sorted(config.snapshots.items()):
        entry: Dict[str, Any] = {
            "name": name,
            "snaptime": int(values.get("snaptime", "0")),
            "vmstate": int("vmstate" in values),
            "description": values.get("description", ""),
        }
        found.append({**entry, **{key: values[key] for key in ("parent", "snapstate") if key in values}})
    current = {"name": "current", "digest": config.digest, "running": int(running), "description": "You are here!"}
    return [*found, {**current, **{key: config.values[key] for key in ("parent",) if key in config.values}}]


def tree(entries: List[Dict[str, Any]]) -> str:
    """What qm listsnapshot prints: a branch per generation, the oldest first, the VM itself last."""
    names = {entry["name"] for entry in entries}
    lines: List[str] = []

    def branch(parent: Optional[str], prefix: str) -> None:
        children = [entry for entry in entries if _parent(entry, names) == parent]
        for entry in sorted(children, key=lambda entry: entry.get("snaptime", float("inf"))):
            moment = time.localtime(entry["snaptime"]) if "snaptime" in entry else None
            when = time.strftime("%Y-%m-%d %H:%M:%S", moment) if moment else ""
            text = (entry["description"] or "no-description").split("\n")[0]
            lines.append(f"{prefix} {entry['name']:<{max(30 - len(prefix), 0)}} {when:<23} {text}\n")
            branch(entry["name"], " " + prefix)

    branch(None, "`->")
    return "".join(lines)


def _parent(entry: Dict[str, Any], names: Set[str]) -> Optional[str]:
    return entry["parent"] if entry.get("parent") in names else None


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
