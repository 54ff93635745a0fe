# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""/nodes/{node}/qemu: configs, states, start, stop, removal, monitor, migration preconditions."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional

from lab.node import destroy, power, qmp, snapshots, status, update, vm, vmconfig
from lab.node.base import Denied, Die, May, ParamError, complain
from lab.node.command_line import Extras
from lab.node.properties import drive_keys, parse_drive, parse_size
from lab.remote import request
from lab.remote.job import Job

from ..personality import current as current_personality
from ..registry import Call, Need, method
from ..schema import boolean, enum, integer, split_list, string

AUDIT = Need("/vms/{vmid}", ("VM.Audit",))
POWER = Need("/vms/{vmid}", ("VM.PowerMgmt",))
BASE = "/nodes/{node}/qemu/{vmid}"
SKIPLOCK = boolean(optional=True)
# HMP commands a token may use, by privilege on / (qemu-facts 8); everything else is root@pam's
MODIFY_COMMANDS = [
    "migrate_set_parameter",
    "migrate_set_capability",
    "migrate_cancel",
    "migrate_continue",
    "migrate_pause",
    "cont",
    "stop",
    "calc_dirty_rate",
    "block_job_pause",
    "block_job_resume",
    "block_job_set_speed",
    "block_job_cancel",
    "announce_self",
]
ROOT_COMMANDS = [
    "object_add",
    "object_del",
    "migrate",
    "migrate_incoming",
    "migrate_recover",
    "nbd_server_start",
    "nbd_server_add",
    "nbd_server_remove",
    "nbd_server_stop",
    "device_add",
    "drive_mirror",
]


CREATE = {"start": boolean(optional=True), "pool": string(optional=True), "unique": boolean(optional=True)}


@method("GET", "/nodes/{node}/qemu", {"full": boolean(optional=True)})
def listing(call: Call) -> List[Dict[str, Any]]:
    """VMs of the node that the caller may audit."""
    return [entry for entry in status.listing(call.node) if call.may("/vms/%d" % entry["vmid"], ["VM.Audit"])]


@method("GET", BASE + "/config", {"current": boolean(optional=True), "snapshot": string(optional=True)}, AUDIT)
def get_config(call: Call) -> Dict[str, Any]:
    """Config with pending changes applied, as it is now, or that of a snapshot."""
    name = call.params.get("snapshot")
    if name and call.params.get("current"):
        text = "cannot use 'snapshot' parameter with 'current'"
        raise ParamError({"snapshot": text, "current": text})
    config = vmconfig.load(call.node, call.vmid)
    values = config.values if call.params.get("current") else config.with_pending()
    if name:
        values = snapshots.get(config, name)
    return {**config.typed(_masked(values)), "digest": config.digest}


def _masked(values: Mapping[str, str]) -> Dict[str, str]:
    """A password is shown to nobody."""
    return {key: "**********" if key == "cipassword" else value for key, value in values.items()}


@method("GET", BASE + "/pending", {}, AUDIT)
def pending(call: Call) -> List[Dict[str, Any]]:
    """Every key with its current and its pending value."""
    config = vmconfig.load(call.node, call.vmid)
    current, later = config.typed(_masked(config.values)), config.typed(_masked(config.pending))
    found: List[Dict[str, Any]] = [{"key": "digest", "value": config.digest}]
    for key in sorted(set(current) | set(later)):
        entry: Dict[str, Any] = {"key": key}
        if key in current:
            entry["value"] = current[key]
        if key in later:
            entry["pending"] = later[key]
        if key in config.pending_delete:
            entry["delete"] = 1
        found.append(entry)
    return found


def _change(call: Call) -> update.Change:
    call.root_only("skiplock")
    params = {
        key: _text(value) for key, value in call.params.items() if key not in CHANGE and key not in ("node", "vmid")
    }
    return update.Change(
        params,
        split_list(call.params.get("delete")),
        split_list(call.params.get("revert")),
        bool(call.params.get("skiplock")),
        call.params.get("digest"),
        call.caller.user,
        _may(call),
    )


def _may(call: Call) -> Optional[May]:
    return None if call.caller.is_root else call.may


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


CHANGE = {
    "skiplock": SKIPLOCK,
    "digest": string(optional=True),
    "delete": string(optional=True),
    "revert": string(optional=True),
    "force": boolean(optional=True),
    "background_delay": integer(optional=True, minimum=1, maximum=30),
}


@method("PUT", BASE + "/config", CHANGE, additional=True)
def put_config(call: Call) -> None:
    """Change options at once; each key asks for its own privilege."""
    update.change_vm(call.node, call.vmid, _change(call))


@method("POST", BASE + "/config", CHANGE, additional=True)
def post_config(call: Call) -> str:
    """The same as a task; what is refused is no task yet."""
    change = _change(call)
    update.refuse_change(call.node, call.vmid, change)
    return call.spawn("qmconfig", str(call.vmid), lambda: update.change_vm(call.node, call.vmid, change))


@method("GET", BASE + "/status/current", {}, AUDIT)
def current(call: Call) -> Dict[str, Any]:
    """State, with QMP fields when the monitor answers within 3 s."""
    return status.current(call.node, call.vmid)


def _task(call: Call, kind: str, work: Callable[[], None]) -> str:
    return call.spawn(kind, str(call.vmid), work)


def _asked_ha(call: Call, action: str) -> Optional[str]:
    """HA resources are only asked to change state (pve-cli 7)."""
    asked = power.request_of_ha(call.node, call.vmid, action)
    return None if asked is None else _task(call, *asked)


def _skips(call: Call) -> bool:
    return bool(call.params.get("skiplock"))


START = {
    "skiplock": SKIPLOCK,
    "timeout": integer(optional=True, minimum=0),
    "machine": string(optional=True, format="machine"),
    "force-cpu": string(optional=True),
    "stateuri": string(optional=True),
    "migratedfrom": string(optional=True, format="node"),
    "migration_type": enum("secure", "insecure", optional=True),
    "migration_network": string(optional=True, format="cidr"),
    "targetstorage": string(optional=True),
}
ROOT_START = tuple(key for key in START if key not in ("timeout", "machine"))


@method("POST", BASE + "/status/start", START, POWER)
def start(call: Call) -> str:
    """Start the VM in a task, which is the first to look for its config."""
    call.root_only(*ROOT_START)
    call.cluster.check_quorum()
    extras = Extras(forcemachine=call.params.get("machine"), forcecpu=call.params.get("force-cpu"))
    return _asked_ha(call, "start") or _task(call, "qmstart", lambda: _start(call, extras))


def _start(call: Call, extras: Extras) -> None:
    vm.start(call.node, call.vmid, _skips(call), extras)


STOP = {"skiplock": SKIPLOCK, "timeout": integer(optional=True, minimum=0), "keepActive": boolean(optional=True)}


@method("POST", BASE + "/status/stop", {**STOP, "overrule-shutdown": boolean(optional=True)}, POWER)
def stop(call: Call) -> str:
    """Stop the VM in a task; success when it does not run, whatever its lock."""
    call.root_only("skiplock", "keepActive")
    return _asked_ha(call, "stop") or _task(call, "qmstop", lambda: vm.stop(call.node, call.vmid, _skips(call)))


@method("POST", BASE + "/status/shutdown", {**STOP, "forceStop": boolean(optional=True)}, POWER)
def shutdown(call: Call) -> str:
    """Ask the guest to power off; a VM that stands still is refused before the task."""
    call.root_only("skiplock", "keepActive")
    force, seconds = bool(call.params.get("forceStop")), call.params.get("timeout")
    gently = power.shutdown(call.node, call.vmid, force)
    asked = _asked_ha(call, "stop")
    if asked:
        return asked
    if not gently:
        return _task(call, "qmshutdown", lambda: vm.stop(call.node, call.vmid, _skips(call)))
    return _task(call, "qmshutdown", lambda: vm.shutdown(call.node, call.vmid, _skips(call), seconds, force))


@method("POST", BASE + "/status/reboot", {"timeout": integer(optional=True, minimum=0)}, POWER)
def reboot(call: Call) -> str:
    """Shut down and start again."""
    power.shutdown(call.node, call.vmid, False)
    power.must_run(call.node, call.vmid)

    def work() -> None:
        vm.shutdown(call.node, call.vmid, timeout=call.params.get("timeout"))
        vm.start(call.node, call.vmid)

    return _task(call, "qmreboot", work)


@method("POST", BASE + "/status/resume", {"skiplock": SKIPLOCK, "nocheck": boolean(optional=True)}, POWER)
def resume(call: Call) -> str:
    """Let a paused VM run."""
    call.root_only("skiplock", "nocheck")
    power.must_run(call.node, call.vmid)
    return _task(call, "qmresume", lambda: vm.resume(call.node, call.vmid, _skips(call)))


@method(
    "POST",
    BASE + "/status/suspend",
    {"skiplock": SKIPLOCK, "todisk": boolean(optional=True), "statestorage": string(optional=True)},
    POWER,
)
def suspend(call: Call) -> str:
    """Pause the VM."""
    call.root_only("skiplock")
    power.must_run(call.node, call.vmid)
    if call.params.get("todisk"):
        raise Die("suspend to disk is not part of the lab")
    return _task(call, "qmpause", lambda: vm.suspend(call.node, call.vmid, _skips(call)))


@method("POST", BASE + "/status/reset", {"skiplock": SKIPLOCK}, POWER)
def reset(call: Call) -> str:
    """Reset the VM."""
    call.root_only("skiplock")
    power.must_run(call.node, call.vmid)
    return _task(call, "qmreset", lambda: vm.reset(call.node, call.vmid, _skips(call)))


def _must_exist(call: Call) -> None:
    vmconfig.load(call.node, call.vmid)


@method(
    "DELETE",
    BASE,
    {"skiplock": SKIPLOCK, "purge": boolean(optional=True), "destroy-unreferenced-disks": boolean(optional=True)},
    Need("/vms/{vmid}", ("VM.Allocate",)),
)
def delete(call: Call) -> str:
    """Remove the VM and the volumes its config names; refused at once while it runs."""
    call.root_only("skiplock")
    destroy.check_removable(call.node, call.vmid, bool(call.params.get("purge")))
    return _task(
        call,
        "qmdestroy",
        lambda: destroy.destroy(
            call.node,
            call.vmid,
            skiplock=bool(call.params.get("skiplock")),
            purge=bool(call.params.get("purge")),
            unreferenced=bool(call.params.get("destroy-unreferenced-disks")),
        ),
    )


@method("POST", BASE + "/monitor", {"command": string()}, Need("/vms/{vmid}", ("Sys.Audit", "Sys.Modify"), True))
def monitor(call: Call) -> str:
    """A human monitor command; its errors are text of a successful answer."""
    word = (call.params["command"].split() or [""])[0]
    _check_monitor(call, word)
    _must_exist(call)
    try:
        if vm.pid(call.node, call.vmid) is None:
            raise Die("VM %d not running" % call.vmid)
        return qmp.monitor(call.node, call.vmid, call.params["command"])
    except Die as error:
        return "ERROR: " + error.text


def _check_monitor(call: Call, word: str) -> None:
    if word in ("info", "help", "?"):
        return
    if word in MODIFY_COMMANDS:
        call.need("/", "Sys.Modify")
        return
    if word not in ROOT_COMMANDS:
        complain("command '%s' non-existent or not assigned a required permission yet, limiting to root user" % word)
    if not call.caller.is_root:
        raise Denied("root only", ["root@pam"]) if word in ROOT_COMMANDS else Denied("/", ["Sys.Modify"])


@method(
    "GET", BASE + "/migrate", {"target": string(optional=True, format="node")}, Need("/vms/{vmid}", ("VM.Migrate",))
)
def preconditions(call: Call) -> Dict[str, Any]:
    """What stands in the way of an intra-cluster migration."""
    config = vmconfig.load(call.node, call.vmid)
    vmconfig.check_lock(config)
    others = [name for name in call.cluster.nodes() if name != call.node.name]
    return {
        "running": int(vm.pid(call.node, call.vmid) is not None),
        "allowed_nodes": others,
        "not_allowed_nodes": {},
        "local_disks": _local_disks(config.values),
        "local_resources": vm.local_resources(config.values),
        "mapped-resources": [],
        "mapped-resource-info": {},
        "has-dbus-vmstate": 1,
    }


def _local_disks(values: Dict[str, str]) -> List[Dict[str, Any]]:
    found = []
    unused = [key for key in values if key.startswith("unused")]
    for key in [*drive_keys(values), *sorted(unused)]:
        drive = parse_drive(values[key])
        if drive["file"] in ("none", "cdrom") or drive["file"].startswith("/"):
            continue
        found.append(
            {
                "volid": drive["file"],
                "drivename": key,
                "cdrom": int(drive.get("media") == "cdrom"),
                "is_attached": int(key not in unused),
                "is_unused": int(key in unused),
                "is_tpmstate": int(key == "tpmstate0"),
                "is_cloudinit": int("cloudinit" in drive["file"]),
                "is_vmstate": 0,
                "shared": 0,
                "replicate": int(drive.get("replicate", "1")),
                "size": parse_size(drive["size"]) if "size" in drive else 0,
            }
        )
    return found


MIGRATE = {
    "target": string(format="node"),
    "online": boolean(optional=True),
    "force": boolean(optional=True),
    "with-local-disks": boolean(optional=True),
    "with-conntrack-state": boolean(optional=True),
    "bwlimit": integer(optional=True, minimum=0),
    "migration_type": enum("secure", "insecure", optional=True),
    "migration_network": string(optional=True, format="cidr"),
    "targetstorage": string(optional=True),
}


@method("POST", BASE + "/migrate", MIGRATE, Need("/vms/{vmid}", ("VM.Migrate",)))
def migrate(call: Call) -> str:
    """Within a cluster: only the refusals."""
    power.check_migration(call.node, call.vmid, call.params["target"], bool(call.params.get("online")))
    raise Die("migration within a cluster is not part of the lab")


@method("POST", "/nodes/{node}/qemu", {"vmid": integer(minimum=100), **CREATE}, additional=True)
def create(call: Call) -> str:
    """A new VM in a task; a VMID that is taken is refused before it."""
    call.need("/vms/%d" % call.vmid, "VM.Allocate")
    holder = call.cluster.locate(call.vmid)
    if holder is not None:
        kind = "CT" if holder[1] == "lxc" else "VM"
        raise Die(
            "unable to create VM %d - %s %d already exists on node '%s'" % (call.vmid, kind, call.vmid, holder[0])
        )
    values = {key: _text(value) for key, value in call.params.items() if key not in (*CREATE, "node", "vmid")}
    update.Change({"description": "", **values}, user=call.caller.user, may=_may(call)).checked(call.node, call.vmid)
    return _task(call, "qmcreate", lambda: update.create_vm(call.node, call.vmid, values))


@method("POST", BASE + "/remote_migrate", {}, Need("/vms/{vmid}", ("VM.Migrate",)), additional=True)
def remote_migrate(call: Call) -> str:
    """The stock source's own engine; what is refused here is no task yet."""
    patched = current_personality().generation.insecure_remote
    params = {**call.params, "vmid": str(call.vmid)}
    job = request.wanted(call.node, params, None if call.caller.is_root else call.may, patched)
    return call.spawn("qmigrate", str(call.vmid), lambda: Job(call.node, job).run())
