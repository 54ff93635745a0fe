# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""/nodes/{node}/qemu: configs, states, start, stop, removal, monitor, migration preconditions."""

from __future__ import annotations

from typing import Any, Callable, Dict, List

from lab.node import destroy, qmp, status, update, vm, vmconfig
from lab.node.base import Denied, Die, ParamError, complain
from lab.node.ha import Resources
from lab.node.properties import drive_keys, parse_drive, parse_size
from lab.remote import request
from lab.remote.job import Job

from ..personality import current as current_personality
from ..registry import Call, Need, method
from ..schema import boolean, integer, split_list, string

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


@method("GET", "/nodes/{node}/qemu", {"full": boolean(optional=True)})
def listing(call: Call) -> List[Dict[str, Any]]:
    """VMs of the node that the caller may audit."""
    return [entry for entry in status.listing(call.node) if call.may("/vms/%d" % entry["vmid"], ["VM.Audit"])]


@method("GET", BASE + "/config", {"current": boolean(optional=True), "snapshot": string(optional=True)}, AUDIT)
def get_config(call: Call) -> Dict[str, Any]:
    """Config with pending changes applied, or as it is now."""
    config = vmconfig.load(call.node, call.vmid)
    values = config.values if call.params.get("current") else config.with_pending()
    return {**config.typed(values), "digest": config.digest}


@method("GET", BASE + "/pending", {}, AUDIT)
def pending(call: Call) -> List[Dict[str, Any]]:
    """Every key with its current and its pending value."""
    config = vmconfig.load(call.node, call.vmid)
    current, later = config.typed(config.values), config.typed(config.pending)
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


def _update(call: Call) -> None:
    call.root_only("skiplock")
    params = {
        key: value
        for key, value in call.params.items()
        if key not in ("node", "vmid", "skiplock", "digest", "delete", "force", "background_delay")
    }
    update.update_vm(
        call.node,
        call.vmid,
        {key: str(value) for key, value in params.items()},
        delete=split_list(call.params.get("delete")),
        skiplock=bool(call.params.get("skiplock")),
        digest=call.params.get("digest"),
        user=call.caller.user,
        may=None if call.caller.is_root else call.may,
    )


CHANGE = {"skiplock": SKIPLOCK, "digest": string(optional=True), "delete": string(optional=True)}


@method("PUT", BASE + "/config", CHANGE, additional=True)
def put_config(call: Call) -> None:
    """Change options at once; each key asks for its own privilege."""
    _update(call)


@method("POST", BASE + "/config", CHANGE, additional=True)
def post_config(call: Call) -> str:
    """The same as a task."""
    return call.spawn("qmconfig", str(call.vmid), lambda: _update(call))


@method("GET", BASE + "/status/current", {}, AUDIT)
def current(call: Call) -> Dict[str, Any]:
    """State, with QMP fields when the monitor answers within 3 s."""
    return status.current(call.node, call.vmid)


def _task(call: Call, kind: str, work: Callable[[], None]) -> str:
    return call.spawn(kind, str(call.vmid), work)


def _requested_by_ha(call: Call) -> bool:
    """HA resources are only asked to change state (pve-cli 7)."""
    return Resources(call.node).managed(call.vmid)


def _ask_ha(call: Call, state: str, word: str) -> str:
    def work() -> None:
        print("Requesting HA %s for VM %d" % (word, call.vmid), flush=True)
        Resources(call.node).set("vm:%d" % call.vmid, state)

    return _task(call, "ha" + word, work)


@method(
    "POST",
    BASE + "/status/start",
    {"skiplock": SKIPLOCK, "timeout": integer(optional=True), "machine": string(optional=True)},
    POWER,
)
def start(call: Call) -> str:
    """Start the VM in a task."""
    call.root_only("skiplock")
    _must_exist(call)
    if _requested_by_ha(call):
        return _ask_ha(call, "started", "start")
    return _task(call, "qmstart", lambda: _start(call))


def _start(call: Call) -> None:
    vm.start(call.node, call.vmid, skiplock=bool(call.params.get("skiplock")))


@method(
    "POST",
    BASE + "/status/stop",
    {
        "skiplock": SKIPLOCK,
        "timeout": integer(optional=True, minimum=0),
        "keepActive": boolean(optional=True),
        "overrule-shutdown": boolean(optional=True),
    },
    POWER,
)
def stop(call: Call) -> str:
    """Stop the VM in a task; success when it does not run, whatever its lock."""
    call.root_only("skiplock", "keepActive")
    _must_exist(call)
    if _requested_by_ha(call):
        return _ask_ha(call, "stopped", "stop")
    return _task(call, "qmstop", lambda: vm.stop(call.node, call.vmid, skiplock=bool(call.params.get("skiplock"))))


@method(
    "POST",
    BASE + "/status/shutdown",
    {
        "skiplock": SKIPLOCK,
        "timeout": integer(optional=True, minimum=0),
        "forceStop": boolean(optional=True),
        "keepActive": boolean(optional=True),
    },
    POWER,
)
def shutdown(call: Call) -> str:
    """Ask the guest to power off."""
    call.root_only("skiplock", "keepActive")
    _must_exist(call)
    if _requested_by_ha(call):
        return _ask_ha(call, "stopped", "stop")
    return _task(
        call, "qmshutdown", lambda: vm.shutdown(call.node, call.vmid, skiplock=bool(call.params.get("skiplock")))
    )


@method("POST", BASE + "/status/resume", {"skiplock": SKIPLOCK, "nocheck": boolean(optional=True)}, POWER)
def resume(call: Call) -> str:
    """Let a paused VM run."""
    call.root_only("skiplock", "nocheck")
    _must_exist(call)
    if vm.pid(call.node, call.vmid) is None:
        raise Die("VM %d not running" % call.vmid, 2)
    return _task(call, "qmresume", lambda: vm.resume(call.node, call.vmid, skiplock=bool(call.params.get("skiplock"))))


@method("POST", BASE + "/status/suspend", {"skiplock": SKIPLOCK, "todisk": boolean(optional=True)}, POWER)
def suspend(call: Call) -> str:
    """Pause the VM."""
    call.root_only("skiplock")
    _must_exist(call)
    return _task(call, "qmpause", lambda: vm.suspend(call.node, call.vmid, bool(call.params.get("skiplock"))))


@method("POST", BASE + "/status/reset", {"skiplock": SKIPLOCK}, POWER)
def reset(call: Call) -> str:
    """Reset the VM."""
    call.root_only("skiplock")
    _must_exist(call)
    return _task(call, "qmreset", lambda: vm.reset(call.node, call.vmid, bool(call.params.get("skiplock"))))


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


@method("POST", BASE + "/remote_migrate", {}, Need("/vms/{vmid}", ("VM.Migrate",)), additional=True)
def remote_migrate(call: Call) -> str:
    """The stock source's own engine; what is refused here is no task yet."""
    patched = current_personality().generation.insecure_remote
    params = {**call.params, "vmid": str(call.vmid)}
    job = request.wanted(call.node, params, None if call.caller.is_root else call.may, patched)
    return call.spawn("qmigrate", str(call.vmid), lambda: Job(call.node, job).run())


AGENT = (
    "ping",
    "info",
    "fsfreeze-status",
    "fsfreeze-freeze",
    "fsfreeze-thaw",
    "fstrim",
    "get-osinfo",
    "network-get-interfaces",
    "get-time",
)


@method(
    "POST",
    BASE + "/agent",
    {"command": string()},
    Need("/vms/{vmid}", ("VM.GuestAgent.Audit", "VM.GuestAgent.Unrestricted"), True),
)
def agent(call: Call) -> Dict[str, Any]:
    """A guest agent command."""
    if call.params["command"] not in AGENT:
        raise ParamError(
            {
                "command": "value '%s' does not have a value in the enumeration '%s'"
                % (call.params["command"], ", ".join(sorted(AGENT)))
            }
        )
    if vmconfig.load(call.node, call.vmid).values.get("agent", "0").split(",")[0] not in ("1", "enabled=1"):
        raise Die("No QEMU guest agent configured")
    if vm.pid(call.node, call.vmid) is None:
        raise Die("VM %d is not running" % call.vmid)
    try:
        return {"result": qmp.agent(call.node, call.vmid, "guest-" + call.params["command"])}
    except Die:
        raise Die("QEMU guest agent is not running") from None
