# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""/nodes/{node}/storage: the storages as a node sees them, and what they hold."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Mapping

from lab.node import simulated
from lab.node.base import Denied, ParamError
from lab.node.storage import Storage, Storages, Volume, check_format, parse_kib

from ..registry import Call, Need, method
from ..schema import boolean, enum, split_list, string

NODE = "/nodes/{node}"
SPACE = ("Datastore.Audit", "Datastore.AllocateSpace")
STORAGE = Need("/storage/{storage}", SPACE, True)
FORMAT = enum("raw", "qcow2", "subvol", "vmdk", optional=True)
FILTER = {
    "content": string(optional=True),
    "enabled": boolean(optional=True),
    "format": boolean(optional=True),
    "storage": string(optional=True, format="storage"),
    "target": string(optional=True),
}


@method("GET", NODE + "/storage", FILTER)
def storages(call: Call) -> List[Dict[str, Any]]:
    """Storages of the node that one may use or audit.

    `content` leaves out what is not usable here; `enabled` only what is switched off, not what other nodes have.
    """
    known = Storages(call.node).all()
    told = (simulated.report(call.node) or {}).get("storages", {})
    if call.params.get("storage") is not None:
        _known(call)
    found = []
    for sid in sorted(known):
        if call.params.get("storage") not in (None, sid) or not call.may("/storage/" + sid, SPACE, True):
            continue
        if _wanted(call, known[sid]):
            answer = told.get(sid) or Storages(call.node).status(sid)
            found.append({"storage": sid, **answer, **_fraction(answer), **_formats(call, known[sid])})
    return found


def _wanted(call: Call, storage: Storage) -> bool:
    content, target = split_list(call.params.get("content")), call.params.get("target")
    if content and not (set(content) & set(storage.content) and storage.enabled(call.node.name)):
        return False
    if target and not (storage.keys.get("shared", "0") != "0" and storage.on(call.node.name) and storage.on(target)):
        return False
    return not (call.params.get("enabled") and storage.disabled)


def _fraction(answer: Mapping[str, Any]) -> Dict[str, float]:
    """Perl prints 15 digits of a fraction."""
    return {"used_fraction": float("%.15g" % (answer["used"] / answer["total"]))} if answer["total"] else {}


def _formats(call: Call, storage: Storage) -> Dict[str, Any]:
    if not call.params.get("format"):
        return {}
    return {"format": [{form: 1 for form in storage.formats}, storage.default_format]}


@method("GET", NODE + "/storage/{storage}/status", {}, STORAGE)
def storage_status(call: Call) -> Dict[str, Any]:
    """Space of one storage."""
    _known(call)
    return Storages(call.node).status(call.params["storage"])


def _known(call: Call) -> None:
    if call.params["storage"] not in Storages(call.node).all():
        raise ParamError({"storage": "No such storage."})


@method(
    "GET",
    NODE + "/storage/{storage}/content",
    {"content": string(optional=True), "vmid": string(optional=True, format="vmid")},
    STORAGE,
)
def content(call: Call) -> List[Dict[str, Any]]:
    """Images and files on a storage."""
    sid, wanted = call.params["storage"], call.params.get("content")
    here = Storages(call.node)
    here.check_enabled(sid)
    volumes = here.listing(sid, wanted, int(call.params["vmid"]) if "vmid" in call.params else None)
    return [_volume(call, volume) for volume in volumes if _visible(call, sid, volume)]


def _visible(call: Call, sid: str, volume: Volume) -> bool:
    if call.may("/storage/" + sid, ["Datastore.Allocate"]) or call.may("/storage/" + sid, ["Datastore.Audit"]):
        return True
    if volume.content in ("iso", "vztmpl"):
        return True
    return bool(volume.vmid) and call.may("/vms/%d" % volume.vmid, ["VM.Config.Disk"])


def _volume(call: Call, volume: Volume) -> Dict[str, Any]:
    entry: Dict[str, Any] = {
        "volid": volume.volid,
        "format": volume.format,
        "size": volume.size,
        "content": volume.content,
        "ctime": _ctime(call, volume.volid),
    }
    return {**entry, "vmid": volume.vmid} if volume.vmid else entry


def _ctime(call: Call, volid: str) -> int:
    try:
        return int(os.stat(Storages(call.node).real_path(volid)).st_ctime)
    except OSError:
        return 0


@method(
    "POST",
    NODE + "/storage/{storage}/content",
    {"filename": string(), "size": string(), "vmid": string(format="vmid"), "format": FORMAT},
    Need("/storage/{storage}", ("Datastore.AllocateSpace",)),
)
def allocate(call: Call) -> str:
    """Make a volume."""
    name, kib = call.params["filename"], parse_kib(call.params["size"])
    form = call.params.get("format")
    if form:
        check_format(name, form)
    return Storages(call.node).alloc(call.params["storage"], int(call.params["vmid"]), form, name, kib)


def _volid(call: Call) -> str:
    volume = call.params["volume"]
    return volume if ":" in volume else "%s:%s" % (call.params["storage"], volume)


def _check_volume(call: Call, volid: str, privilege: str) -> None:
    storage, name = Storages(call.node).split(volid)
    owner = Storages(call.node).owner_and_format(storage, name)[0]
    if call.may("/storage/" + storage.sid, ["Datastore.Allocate"]):
        return
    if not call.may("/storage/" + storage.sid, [privilege]) or not call.may("/vms/%d" % owner, ["VM.Config.Disk"]):
        raise Denied("/storage/" + storage.sid, ["Datastore.Allocate"])


@method("GET", NODE + "/storage/{storage}/content/{volume}")
def volume(call: Call) -> Dict[str, Any]:
    """One volume's path, format and sizes."""
    volid = _volid(call)
    _check_volume(call, volid, "Datastore.Audit")
    size, form, used = Storages(call.node).size(volid)
    return {"path": Storages(call.node).path(volid), "size": size, "used": used, "format": form}


@method("DELETE", NODE + "/storage/{storage}/content/{volume}", {"delay": string(optional=True)})
def remove(call: Call) -> str:
    """Remove a volume in a task, in use or not."""
    volid = _volid(call)
    _check_volume(call, volid, "Datastore.AllocateSpace")
    storages_here = Storages(call.node)
    storage, name = storages_here.split(volid)
    owner = storages_here.owner_and_format(storage, name)[0]

    def work() -> None:
        storages_here.free(volid)
        os.write(1, ("Removed volume '%s'\n" % volid).encode())

    return call.spawn("imgdel", "%d@%s" % (owner, storage.sid), work)
