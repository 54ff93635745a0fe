# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changing a VM config: `qm set` and PUT config, `qm create`, and the tunnel's `config` (mtunnel-protocol 5.4).

Order of refusals: option types, skiplock, storage access, privileges and root-only keys, then (under the flock) digest,
lock word, volumes. While the VM runs, what hotplug.py cannot do at once goes to the pending section.
"""

from __future__ import annotations

import os
import random
import re
import time
import uuid
from dataclasses import dataclass
from typing import Callable, Dict, List, Mapping, Optional, Sequence

from . import schema, vm
from .base import ROOT_USER, Denied, Die, May, Node, ParamError, complain, may_all
from .cluster import Cluster
from .command_line import nics
from .flock import config_lock
from .formats import FormatError
from .hotplug import at_once, removes_at_once
from .properties import format_drive, format_size, is_drive, parse_drive, parse_list, split_volid
from .storage import Storages
from .texts import UNDEFINED
from .vmconfig import VmConfig, check_lock, load, remove_lock, set_lock, store

__all__ = ["Change", "apply_pending", "apply_tunnel_config", "change_vm", "create_vm", "refuse_change"]

Log = Callable[[str], None]


def _print(text: str) -> None:
    os.write(1, (text + "\n").encode("utf-8", "surrogateescape"))


@dataclass(frozen=True)
class Change:
    """What one call wants to change; values are texts. may None means root@pam."""

    params: Mapping[str, str]
    delete: Sequence[str] = ()
    revert: Sequence[str] = ()
    skiplock: bool = False
    digest: Optional[str] = None
    user: str = ROOT_USER
    may: Optional[May] = None
    from_text: bool = False
    """The values come from a config text, whose reader saw to their types; they are no parameters."""

    def checked(self, node: Node, vmid: int) -> Dict[str, str]:
        """The options to set, once everything that needs no config is checked."""
        options = dict(self.params) if self.from_text else _check_params(self.params)
        _check_hookscript(node, options)
        if self.skiplock and self.user != ROOT_USER:
            raise ParamError({"skiplock": "Only root may use this option."})
        if not options and not self.delete and not self.revert:
            raise Die("no options specified")
        _check_deleted(options, self.delete)
        _check_disks(node, vmid, options, self.user, self.may)
        _check_privileges(vmid, options, [*self.delete, *self.revert], self.user, self.may)
        return options

    def check_config(self, config: VmConfig) -> None:
        """What a config must be like for the change."""
        if self.digest is not None and self.digest != config.digest:
            raise Die("checksum mismatch (file change by other user?)")
        if not self.skiplock:
            check_lock(config)

    def line(self, vmid: int) -> str:
        """The first line of the task."""
        lists = {"delete": ",".join(self.delete), "revert": ",".join(self.revert), "digest": self.digest or ""}
        words = {**self.params, **{key: value for key, value in lists.items() if value}}
        if self.skiplock:
            words["skiplock"] = "1"
        return f"update VM {vmid}: " + " ".join(f"-{key} {_shown(key, words[key])}" for key in sorted(words))


def change_vm(node: Node, vmid: int, change: Change, log: Log = _print, code: int = 255) -> None:
    """Make a change; code is the exit status of a lock time-out."""
    options = change.checked(node, vmid)
    with config_lock(node, vmid, code=code):
        config = load(node, vmid)
        change.check_config(config)
        log(change.line(vmid))
        for key in change.revert:
            config.pending.pop(key, None)
            config.pending_delete = [entry for entry in config.pending_delete if entry != key]
        errors = _apply(node, vmid, config, options, change.delete)
        store(node, vmid, config)
    if errors:
        raise ParamError(errors)


def refuse_change(node: Node, vmid: int, change: Change) -> None:
    """The refusals alone: a change that becomes a task is refused before it."""
    change.checked(node, vmid)
    with config_lock(node, vmid):
        change.check_config(load(node, vmid))


def _shown(key: str, value: str) -> str:
    return "<hidden>" if key == "cipassword" else value


def _check_deleted(options: Mapping[str, str], delete: Sequence[str]) -> None:
    for key in delete:
        if key in options:
            raise ParamError({"delete": f"you can't use '-{key}' and -delete {key}' at the same time"})
        if not schema.known(key):
            raise ParamError({"delete": f"unknown option '{key}'"})


def _check_params(params: Mapping[str, str]) -> Dict[str, str]:
    errors, options = {}, {}
    for key, value in params.items():
        try:
            options[key] = schema.normalise(key, value)
        except FormatError as error:
            errors[key] = error.of_parameter(key)
        except ValueError as error:
            errors[key] = UNDEFINED if str(error).startswith("unknown setting") else str(error)
    if errors:
        raise ParamError(errors)
    return options


def _check_hookscript(node: Node, options: Mapping[str, str]) -> None:
    script = options.get("hookscript")
    if script is not None and not Storages(node).exists(script):
        raise ParamError({"hookscript": f"script '{script}' does not exist\n"})


def _check_disks(node: Node, vmid: int, options: Mapping[str, str], user: str, may: Optional[May]) -> None:
    for key, value in options.items():
        if not is_drive(key):
            continue
        volid = parse_drive(value)["file"]
        if volid in ("none", "cdrom"):
            continue
        if volid.startswith("/"):
            if user != ROOT_USER:
                raise Die("Only root can pass arbitrary filesystem paths. at /usr/share/perl5/PVE/Storage.pm line 637.")
            continue
        sid = split_volid(volid)[0]
        Storages(node).check_enabled(sid)
        if re.fullmatch(r"\d+(\.\d+)?", split_volid(volid)[1]):
            may_all(may, f"/storage/{sid}", ["Datastore.AllocateSpace"])
        elif not _owned(node, vmid, volid) and may is not None and Storages(node).exists(volid):
            may_all(may, f"/storage/{sid}", ["Datastore.Allocate"])


def _owned(node: Node, vmid: int, volid: str) -> bool:
    storages = Storages(node)
    storage, name = storages.split(volid)
    return storages.owner_and_format(storage, name)[0] == vmid


def _check_privileges(
    vmid: int, options: Mapping[str, str], delete: Sequence[str], user: str, may: Optional[May]
) -> None:
    if user == ROOT_USER:
        return
    refusals: List[Die] = []
    for key in [*delete, *options]:
        reason = schema.root_only(key, options.get(key))
        if reason is not None:
            raise Die(reason)
        if may is None:
            continue
        for privileges, any_of in schema.privileges(key, options.get(key)):
            if not may(f"/vms/{vmid}", list(privileges), any_of):
                refusals.append(Denied(f"/vms/{vmid}", privileges, any_of))
    if refusals:
        # the real one walks an unsorted key list: the privilege it names is a random one of those missing
        raise random.choice(refusals)
    for path in _bridges(options):
        may_all(may, path, ["SDN.Use"])
    for path in _mappings(options):
        may_all(may, path, ["Mapping.Use"])
    if "startup" in [*options, *delete]:
        may_all(may, "/", ["Sys.Modify"])


def _bridges(options: Mapping[str, str]) -> List[str]:
    """What SDN.Use is asked for: the bridge, or each VLAN tag on it (mtunnel-protocol 2.6)."""
    found = []
    for _, nic in sorted(nics(options).items()):
        if "bridge" in nic:
            bridge = f"/sdn/zones/localnetwork/{nic['bridge']}"
            tags = [nic["tag"]] if "tag" in nic else []
            for first, last in re.findall(r"(\d+)(?:-(\d+))?", nic.get("trunks", "")):
                tags += [str(number) for number in range(int(first), int(last or first) + 1)]
            found += [f"{bridge}/{tag}" for tag in tags] or [bridge]
    return found


def _mappings(options: Mapping[str, str]) -> List[str]:
    """What Mapping.Use is asked for: devices and directories of the cluster's mappings (mtunnel-protocol 2.6)."""
    found = []
    for key, value in sorted(options.items()):
        match = re.fullmatch(r"(hostpci|usb|virtiofs)\d+", key)
        if match:
            kind, default = {"hostpci": ("pci", "host"), "usb": ("usb", "host"), "virtiofs": ("dir", "dirid")}[match[1]]
            name = parse_list(value, default).get("dirid" if kind == "dir" else "mapping")
            found += [f"/mapping/{kind}/{name}"] if name else []
    return found


# applying


def _apply(
    node: Node, vmid: int, config: VmConfig, options: Mapping[str, str], delete: Sequence[str]
) -> Dict[str, str]:
    """Change the config; what a running VM did not take is pending and told."""
    running, errors = vm.pid(node, vmid) is not None, {}
    for key in delete:
        if key not in config.values and key not in config.pending:
            complain(f"cannot delete '{key}' - not set in current configuration!")
            config.pending_delete = [entry for entry in config.pending_delete if entry != key]
        elif running and not removes_at_once(key):
            config.pending.pop(key, None)
            config.pending_delete = sorted({*config.pending_delete, key})
        else:
            _remove(node, vmid, config, key)
    for key, value in _resolve(node, vmid, config, options).items():
        config.pending_delete = [entry for entry in config.pending_delete if entry != key]
        try:
            done = not running or at_once(node, vmid, key, config.values.get(key), value)
        except Die as error:
            errors[key], done = f"hotplug problem - {error.text}\n", False
        if done:
            config.pending.pop(key, None)
            _displace(node, vmid, config, key, value)
            config.values[key] = value
        else:
            config.pending[key] = value
    return errors


def apply_pending(node: Node, vmid: int, config: VmConfig) -> None:
    """Before a start: pending changes become current ones; the caller holds the flock."""
    if not config.pending and not config.pending_delete:
        return
    for key in config.pending_delete:
        _remove(node, vmid, config, key)
    for key, value in config.pending.items():
        _displace(node, vmid, config, key, value)
        config.values[key] = value
    config.pending, config.pending_delete = {}, []
    store(node, vmid, config)


def _remove(node: Node, vmid: int, config: VmConfig, key: str) -> None:
    value = config.values.pop(key, None)
    config.pending.pop(key, None)
    if key.startswith("unused") and value is not None:
        Storages(node).free(value)
    elif value is not None and is_drive(key):
        _keep_unused(node, vmid, config, value)


def _displace(node: Node, vmid: int, config: VmConfig, key: str, value: str) -> None:
    old = config.values.get(key)
    if old is not None and is_drive(key) and parse_drive(old)["file"] != parse_drive(value)["file"]:
        _keep_unused(node, vmid, config, old)


def _keep_unused(node: Node, vmid: int, config: VmConfig, drive: str) -> None:
    """A detached volume of the VM stays in its config as unusedN; CD-ROMs and cloud-init images do not."""
    properties = parse_drive(drive)
    volid = properties["file"]
    if volid in ("none", "cdrom") or volid.startswith("/") or schema.is_cdrom(drive):
        return
    if schema.is_cloudinit(properties):
        Storages(node).free(volid)
        return
    if _owned(node, vmid, volid):
        number = next(count for count in range(256) if f"unused{count}" not in config.values)
        config.values[f"unused{number}"] = volid


def _resolve(node: Node, vmid: int, config: VmConfig, options: Mapping[str, str]) -> Dict[str, str]:
    resolved = {}
    for key, value in options.items():
        if is_drive(key):
            value = _resolve_drive(node, vmid, key, parse_drive(value))
        elif key.startswith("unused"):
            if not Storages(node).exists(value):
                raise Die(f"volume '{value}' does not exist")
        elif re.fullmatch(r"net\d+", key):
            value = _with_mac(value)
        elif key == "vmgenid" and value == "1":
            value = str(uuid.uuid4())
        resolved[key] = value
    return resolved


def _resolve_drive(node: Node, vmid: int, key: str, drive: Dict[str, str]) -> str:
    volid = drive["file"]
    if volid in ("none", "cdrom") or volid.startswith("/"):
        return format_drive(drive)
    storages = Storages(node)
    sid, name = split_volid(volid)
    if re.fullmatch(r"\d+(\.\d+)?", name):
        return _new_drive(storages, vmid, key, sid, float(name), drive)
    if name == "cloudinit":
        return _new_cloudinit(storages, vmid, sid, drive)
    if not storages.exists(volid):
        raise Die(f"volume '{volid}' does not exist")
    if key != "tpmstate0" and drive.get("media") != "cdrom":
        drive["size"] = format_size(storages.size(volid)[0])
    return format_drive(drive)


def _new_drive(storages: Storages, vmid: int, key: str, sid: str, gib: float, drive: Dict[str, str]) -> str:
    form = drive.pop("format", None) or storages.get(sid).default_format
    size = {"efidisk0": 540672, "tpmstate0": 4 << 20}.get(key, int(gib * (1 << 30)))
    if key == "tpmstate0":
        form = "raw"
    drive["file"] = storages.alloc_bytes(sid, vmid, form, None, size)
    drive["size"] = format_size(size)
    _print(f"{key}: successfully created disk '{drive['file']},size={drive['size']}'")
    return format_drive(drive)


def _new_cloudinit(storages: Storages, vmid: int, sid: str, drive: Dict[str, str]) -> str:
    storage = storages.get(sid)
    form = drive.pop("format", None) or ("qcow2" if storage.is_directory else "raw")
    name = f"vm-{vmid}-cloudinit" + (f".{form}" if storage.is_directory else "")
    drive["file"] = storages.alloc(sid, vmid, form, name, 4096)
    drive["media"] = "cdrom"
    return format_drive(drive)


def _with_mac(value: str) -> str:
    properties = parse_list(value, "model")
    model = next((key for key in properties if key in schema.NIC_MODELS), None) or properties.pop("model")
    mac = properties.pop(model, None) or properties.pop("macaddr", None) or _random_mac()
    rest = "".join(f",{key}={properties[key]}" for key in sorted(properties))
    return f"{model}={mac.upper()}{rest}"


def _random_mac() -> str:
    return "BC:24:11:" + ":".join(f"{random.randrange(256):02X}" for _ in range(3))


# create, and the tunnel's config


def create_vm(node: Node, vmid: int, params: Mapping[str, str]) -> None:
    """`qm create`: a stub first, then the options; the stub goes again when an option fails."""
    options = _check_params(params)
    try:
        Cluster(node).create_stub(vmid, content="lock: create\n")
    except Die as error:
        raise Die(
            error.text.replace("empty VM config - VM", "VM").replace(
                "unable to create VM", f"unable to create VM {vmid} - VM", 1
            )
        ) from None
    try:
        with config_lock(node, vmid):
            config = load(node, vmid)
            config.values.update(_resolve(node, vmid, config, options))
            _defaults(config.values)
            del config.values["lock"]
            store(node, vmid, config)
    except Die as error:
        Cluster(node).remove(vmid)
        raise Die(f"unable to create VM {vmid} - {error.text}", error.code) from None


def _defaults(values: Dict[str, str]) -> None:
    values.setdefault("smbios1", f"uuid={uuid.uuid4()}")
    values.setdefault("vmgenid", str(uuid.uuid4()))
    values.setdefault("meta", f"creation-qemu={vm.qemu_version()},ctime={int(time.time())}")
    order = [key for key in sorted(values) if is_drive(key) and key not in ("efidisk0", "tpmstate0")]
    order += sorted(nics(values))
    if order:
        values.setdefault("boot", "order=" + ";".join(order))


def apply_tunnel_config(
    node: Node, vmid: int, text: str, user: str = ROOT_USER, may: Optional[May] = None, log: Log = _print
) -> None:
    """Steps 2 to 5 of the tunnel's `config`; call without the config flock held, with lock `create` on the stub."""
    wanted = VmConfig.parse(vmid, text, strict=True)
    values = {key: value for key, value in wanted.values.items() if key not in ("lock", "digest", "parent")}
    aside = {key: values.pop(key) for key in ("vmgenid", "meta") if key in values}
    remove_lock(node, vmid, "create")
    try:
        change_vm(node, vmid, Change(values, user=user, may=may, from_text=True), log)
    except Die:
        set_lock(node, vmid, "create")
        raise
    with config_lock(node, vmid):
        config = load(node, vmid)
        config.values.update({**aside, "lock": "migrate"})
        store(node, vmid, config)
