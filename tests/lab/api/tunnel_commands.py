# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fourteen commands of the tunnel: schemas of the three generations and what each does (mtunnel-protocol 5)."""

from __future__ import annotations

import functools
import os
import re
import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Set

from lab.node import firewall, qmp, update, vm, vmconfig
from lab.node.base import Denied, Die, Node
from lab.node.command_line import Extras
from lab.node.properties import format_size
from lab.node.storage import IMAGE_FORMATS, Storages

from . import perl_json, preconditions
from .access import Access
from .auth import Keys
from .drives import drive_string
from .importer import Importer
from .personality import Personality, current
from .schema import Field, array, boolean, enum, integer, obj, string

__all__ = ["COMMANDS", "SCHEMAS", "Session"]

Parameters = Dict[str, Any]
Result = Optional[Dict[str, Any]]
Properties = Mapping[str, Field]
WS_TUNNEL_VERSION = 2
RESUME_SECONDS = 0.025
LOCATION = " at /usr/share/perl5/PVE/API2/Qemu.pm line 1."
WIDE = "Wide character in subroutine entry at /usr/share/perl5/PVE/QemuServer.pm line 1."


class Session:
    """What a tunnel remembers between its commands."""

    def __init__(self, node: Node, vmid: int, user: str) -> None:
        self.node = node
        self.vmid = vmid
        self.user = user
        self.lock: Optional[str] = "create"
        self.exiting = False
        self.disks: Dict[str, str] = {}
        """volid -> drive string of every `disk`, for the comparison in `start`"""
        self.volumes: List[str] = []
        """what quit with cleanup frees"""
        self.sockets: Set[str] = set()
        self.importer: Optional[Importer] = None
        self.firewall = False

    @property
    def storages(self) -> Storages:
        """The node's storages."""
        return Storages(self.node)

    def may(self, path: str, privileges: Sequence[str], any_of: bool = False) -> bool:
        """Whether the tunnel's user holds the privileges now."""
        return Access.of(self.node).may(self.user, path, privileges, any_of)

    def check_storage(self, sid: str) -> None:
        """The same checks as POST mtunnel makes."""
        preconditions.storage(self.node, sid, self.may)


def say(text: str) -> None:
    """One line of the task's log."""
    os.write(1, (text + "\n").encode("utf-8", "surrogateescape"))


# -- version, bwlimit, disk -------------------------------------------------------------------------------------------


def version(session: Session, parameters: Parameters) -> Result:
    """Protocol version; capabilities only where there are any."""
    answer: Dict[str, Any] = {"api": WS_TUNNEL_VERSION, "age": 0}
    if current().generation.insecure_remote:
        answer["caps"] = ["insecure-remote"]
    return answer


def bwlimit_schema(personality: Personality) -> Properties:
    return {"storages": array(), "bwlimit": integer(optional=True, minimum=0), "operation": string(optional=True)}


def bwlimit(session: Session, parameters: Parameters) -> Result:
    """The lower of the wish and the limits set here, KiB/s; the remote side may only lower.

    A limit comes from a property string and stays a text. Who could change a limit overrides it (mtunnel-protocol 2.6):
    Datastore.Allocate for that of a storage, Sys.Modify on / for the cluster's.
    """
    wish, operation = parameters.get("bwlimit"), perl_json.scalar(parameters.get("operation", "migration"))
    storages = list(dict.fromkeys(str(sid) for sid in parameters["storages"] if sid is not None))

    def overrides(path: str, privilege: str) -> bool:
        return wish is not None and session.may(path, [privilege])

    if storages and overrides("/storage", "Datastore.Allocate"):
        return {"bwlimit": wish}
    found, without = [], not storages
    for sid in storages:
        if not overrides("/storage/" + sid, "Datastore.Allocate"):
            limit = _limit(session.storages.get(sid).keys.get("bwlimit"), operation)
            found.append(limit)
            without = without or limit is None
    if without and not overrides("/", "Sys.Modify"):
        found.append(_limit(preconditions.datacenter(session.node, "bwlimit"), operation))
    for limit in found:
        if limit is not None and (not wish or float(limit) < float(wish)):
            wish = limit
    return {"bwlimit": wish}


def _limit(text: Optional[str], operation: str) -> Optional[str]:
    own = dict(part.partition("=")[::2] for part in (text or "").split(",") if part)
    return own.get(operation, own.get("default"))


def disk_schema(personality: Personality) -> Properties:
    return {"format": enum(*IMAGE_FORMATS, optional=True), "storage": string(format="storage"), "drive": obj({}, True)}


def disk(session: Session, parameters: Parameters) -> Result:
    """Allocate a volume; the size is taken as bytes whatever it looks like (mtunnel-protocol 4.2)."""
    sid, drive = parameters["storage"], dict(parameters["drive"])
    session.check_storage(sid)
    strict = current().generation.validates_start
    for key in ("file", "volume", "format") if strict else ("file", "format"):
        drive.pop(key, None)
    storage = session.storages.get(sid)
    wanted = parameters.get("format")
    form = wanted if wanted in storage.formats else storage.default_format
    size = _leading_number(drive.get("size"))
    volid = session.storages.alloc_bytes(sid, session.vmid, form, None, size)
    text = drive_string({**drive, "file": volid, "format": form}, format_size(size))
    session.disks[volid] = text
    session.volumes.append(volid)
    return {"drivestr": text, "volid": volid}


def _leading_number(value: Any) -> int:
    """Perl's number of a text: 64M is 64."""
    match = re.match(r"\s*(-?\d+)", perl_json.scalar(value))
    return int(match[1]) if match else 0


# -- disk-import ------------------------------------------------------------------------------------------------------


def disk_import_schema(personality: Personality) -> Properties:
    return {
        "volname": string(),
        "format": enum("raw", "qcow2", "subvol", "vmdk"),
        "storage": string(format="storage"),
        "export_formats": string(),
        "snapshot": string(optional=True),
        "with_snapshots": boolean(optional=True),
        "migration_snapshot": boolean(optional=True),
        "allow_rename": boolean(optional=True),
    }


def disk_import(session: Session, parameters: Parameters) -> Result:
    """Start the importer and wait for it to listen."""
    session.check_storage(parameters["storage"])
    if session.importer is not None:
        raise Die("disk import already running as PID '%d'" % session.importer.pid)
    importer = Importer.start(session.node, session.vmid, parameters)
    session.importer = importer
    session.sockets.add(importer.socket)
    return {"socket": importer.socket, "format": importer.format}


def query_disk_import(session: Session, parameters: Parameters) -> Result:
    """One line of the importer's output per call."""
    if session.importer is None:
        raise Die("no disk import running")
    answer = session.importer.query()
    if answer["status"] != "pending":
        session.sockets.discard(session.importer.socket)
        session.importer = None
    if answer["status"] == "complete":
        session.volumes.append(answer["volid"])
    return answer


# -- config -----------------------------------------------------------------------------------------------------------


def config_schema(personality: Personality) -> Properties:
    return {"conf": string(), "firewall-config": string(optional=True)}


def config(session: Session, parameters: Parameters) -> Result:
    """Firewall text, then the config through the ordinary update with the caller's privileges, then lock migrate."""
    given = parameters.get("firewall-config")
    if given:
        path = session.node.path("/etc/pve/firewall/%d.fw" % session.vmid)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = firewall.saved(given)
        if text:
            path.write_text(text, "utf-8", "surrogateescape")
        else:
            path.unlink(missing_ok=True)
        session.firewall = True
    try:
        text = parameters["conf"].encode("latin-1").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise Die(WIDE) from None
    update.apply_tunnel_config(session.node, session.vmid, text, session.user, session.may)
    session.lock = "migrate"
    return None


# -- start ------------------------------------------------------------------------------------------------------------


def start_schema(personality: Personality) -> Optional[Properties]:
    """None before there was one: anything reaches the VM start."""
    generation = personality.generation
    if not generation.validates_start:
        return {"start_params": obj({}, True), "migrate_opts": obj({}, True)}
    insecure = generation.insecure_remote
    params = {
        "statefile": enum("unix", *(("tcp",) if insecure else ())),
        "forcemachine": string(optional=True, format="machine"),
        "forcecpu": string(optional=True),
        "skiplock": boolean(optional=True),
        "nets-host-mtu": string(optional=True),
    }
    options = {
        "type": enum("websocket", *(("insecure",) if insecure else ())),
        "migratedfrom": string(format="node"),
        "remote_node": string(format="node"),
        "nbd_proto_version": integer(optional=True, minimum=1),
        "spice_ticket": string(optional=True, format="hex"),
        "network": string(optional=True, format="cidr"),
        "storagemap": obj({}, True, optional=True),
        "nbd": obj({}, True, optional=True),
    }
    nested = not generation.refuses_nested
    return {"start_params": obj(params, nested), "migrate_opts": obj(options, nested)}


def start(session: Session, parameters: Parameters) -> Result:
    """Start the target QEMU waiting for the migration, the NBD server beside it."""
    params, options = parameters["start_params"], parameters["migrate_opts"]
    machine = params.get("forcemachine")
    if machine:
        vm.check_machine(session.node, machine)
    nbd = _nbd_volumes(session, options.get("nbd") or {})
    incoming = vm.Incoming(
        migratedfrom=str(options.get("migratedfrom", "")),
        nbd=nbd,
        nbd_proto_version=int(options.get("nbd_proto_version") or 0),
        host_mtu=_host_mtu(params.get("nets-host-mtu")),
        node_address=preconditions.node_address(session.node),
        plain=options.get("type") == "insecure" and current().generation.insecure_remote,
        ram_by_tcp=params.get("statefile") == "tcp",
        network=options.get("network") or preconditions.migration_network(session.node),
    )
    _report_mtu(incoming.host_mtu)
    extras = Extras(forcemachine=machine, forcecpu=params.get("forcecpu"))
    answer = vm.start_now(session.node, session.vmid, skiplock=True, extras=extras, incoming=incoming)
    migrate = answer["migrate"]
    if migrate["proto"] == "unix":
        session.sockets.update([migrate["addr"], *migrate.get("unix_sockets", ())])
    elif not incoming.plain:
        vm.stop_now(session.node, session.vmid, skiplock=True, nocheck=True)
        raise Die("migration over non-UNIX sockets not possible")
    return {key: value for key, value in answer.items() if value or key != "drives"}


def _nbd_volumes(session: Session, wanted: Mapping[str, Any]) -> Dict[str, Dict[str, str]]:
    """Each volume must be one this tunnel allocated, with the very same drive string (>= 9.2.2)."""
    strict = current().generation.validates_start
    found = {}
    for key, given in sorted(wanted.items()):
        entry = {name: value for name, value in perl_json.hash_of(given, LOCATION).items() if name != "success"}
        volid = entry.get("volid")
        if volid is None and not strict:
            continue
        if volid is None:
            raise Die("No volid set for NBD volume '%s'" % key)
        if strict:
            _check_nbd(session, key, volid, entry)
        found[key] = {"volid": volid, "drivestr": entry.get("drivestr", "")}
    return found


def _check_nbd(session: Session, key: str, volid: str, entry: Mapping[str, Any]) -> None:
    for name in sorted(set(entry) - {"volid", "drivestr"}):
        raise Die("Unknown NBD volume key for '%s:%s': '%s'" % (key, volid, name))
    expected = session.disks.get(volid)
    if expected is None:
        raise Die("Unknown NBD volume '%s:%s'" % (key, volid))
    if entry.get("drivestr") != expected:
        raise Die("NBD mismatch for '%s': '%s' vs' %s" % (key, entry.get("drivestr", ""), expected))


def _host_mtu(text: Optional[str]) -> Dict[str, int]:
    pairs = (part.partition("=") for part in (text or "").split(",") if part)
    return {key: int(value) for key, _, value in pairs if value.isdigit()}


def _report_mtu(host_mtu: Mapping[str, int]) -> None:
    for key, value in sorted(host_mtu.items()):
        say("netdev %s: using 'host_mtu=%d' for migration compat" % (key, value))


# -- the rest ---------------------------------------------------------------------------------------------------------


def ticket_schema(personality: Personality) -> Properties:
    return {"path": string()}


def ticket(session: Session, parameters: Parameters) -> Result:
    """A ticket for one of the sockets this tunnel opened."""
    path = parameters["path"]
    if path not in session.sockets:
        raise Die("Not allowed to generate ticket for unknown socket '%s'" % path)
    return {"ticket": Keys(session.node).tunnel_ticket(session.user, path, time.time())}


def resume(session: Session, parameters: Parameters) -> Result:
    """cont; silently nothing when running; no look at whether a migration was loaded."""
    if vm.pid(session.node, session.vmid) is None:
        raise Die("VM %d not running" % session.vmid)
    vm.resume_now(session.node, session.vmid, skiplock=True, nocheck=True)
    # the real one needs 9 to 29 ms more: who cuts the connection right after the command must find the reply unsent
    time.sleep(RESUME_SECONDS)
    return None


def nbdstop(session: Session, parameters: Parameters) -> Result:
    """End the NBD server of the target."""
    vm.nbd_stop(session.node, session.vmid)
    return None


def fstrim(session: Session, parameters: Parameters) -> Result:
    """Guest trim through the agent; errors are swallowed."""
    enabled = vmconfig.load(session.node, session.vmid).values.get("agent", "0").split(",")[0]
    if vm.pid(session.node, session.vmid) is not None and enabled in ("1", "enabled=1"):
        try:
            qmp.agent(session.node, session.vmid, "guest-ping")
            qmp.agent(session.node, session.vmid, "guest-fstrim", 600.0)
        except Die:
            pass
    return None


def stop(session: Session, parameters: Parameters) -> Result:
    """Kill the target QEMU; success also when nothing runs."""
    vm.stop_now(session.node, session.vmid, skiplock=True, nocheck=True)
    return None


def unlock(session: Session, parameters: Parameters) -> Result:
    """Remove the lock; afterwards no lock is checked any more."""
    vmconfig.remove_lock(session.node, session.vmid)
    session.lock = None
    return None


def quit_schema(personality: Personality) -> Properties:
    return {"cleanup": boolean()}


def quit_(session: Session, parameters: Parameters) -> Result:
    """Exit mode; with cleanup first free what this tunnel made. A QEMU still running is left an orphan."""
    if parameters["cleanup"]:
        _clean_up(session)
    say("switching to exit-mode, waiting for client to disconnect")
    session.exiting = True
    return None


def _clean_up(session: Session) -> None:
    node = session.node
    if session.firewall:
        node.path("/etc/pve/firewall/%d.fw" % session.vmid).unlink(missing_ok=True)
    for volid in session.volumes:
        say("freeing volume '%s' as part of cleanup" % volid)
        _try(functools.partial(session.storages.free, volid))
    _try(lambda: preconditions.forget(node, session.vmid))


def _try(action: Callable[[], None]) -> None:
    """Errors of a clean-up are only logged."""
    try:
        action()
    except (Denied, Die) as error:
        say(error.text)


COMMANDS: Dict[str, Callable[[Session, Parameters], Result]] = {
    "version": version,
    "config": config,
    "bwlimit": bwlimit,
    "disk": disk,
    "disk-import": disk_import,
    "query-disk-import": query_disk_import,
    "start": start,
    "fstrim": fstrim,
    "stop": stop,
    "nbdstop": nbdstop,
    "resume": resume,
    "unlock": unlock,
    "ticket": ticket,
    "quit": quit_,
}
SCHEMAS: Dict[str, Callable[[Personality], Optional[Properties]]] = {
    "config": config_schema,
    "bwlimit": bwlimit_schema,
    "disk": disk_schema,
    "disk-import": disk_import_schema,
    "start": start_schema,
    "ticket": ticket_schema,
    "quit": quit_schema,
}
