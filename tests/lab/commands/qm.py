# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""qm: the subcommands of pve-cli 4 with their real texts, effects and exit codes.

Commands that are tasks on the real node run as synchronous tasks here: their output goes to stdout and into the task's
log, their error to stderr with status 255; what is refused before the task keeps its own status.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from typing import Callable, Dict, Optional

from lab.api import personality
from lab.commands.cli import Arguments, Command, main, say, split_words
from lab.node import destroy as removal
from lab.node import guest_agent, power, qmp, schema, snapshots, status, texts, update, vm
from lab.node.base import Die, Node, ParamError, complain
from lab.node.cluster import Cluster
from lab.node.command_line import Extras, build
from lab.node.flock import config_lock
from lab.node.properties import parse_drive, parse_size
from lab.node.schema import Kind
from lab.node.storage import Storages
from lab.node.tasks import Tasks
from lab.node.vmconfig import check_lock, encode_text, load, store
from lab.remote import request
from lab.remote.job import Job

USER = "root@pam"
CONFIG_BOOLEANS = tuple(name for name, option in schema.PLAIN.items() if option.kind is Kind.BOOLEAN)
SET_EXIT = 4
"""Exit status of qm set and qm unlock when the config flock does not come free."""


def _task(node: Node, kind: str, vmid: int, work: Callable[[], None]) -> None:
    try:
        Tasks(node).run(kind, str(vmid), USER, work)
    except Die as error:
        raise Die(error.text) from None


def _requested(node: Node, vmid: int, action: str) -> bool:
    """An HA VM is only asked to change, whatever its lock."""
    asked = power.request_of_ha(node, vmid, action)
    if asked is not None:
        _task(node, asked[0], vmid, asked[1])
    return asked is not None


# reading


def show_status(node: Node, arguments: Arguments) -> None:
    """`status: <word>`, or every field."""
    vmid = arguments.vmid()
    if arguments.flag("verbose"):
        say(status.verbose(status.current(node, vmid)))
    else:
        say(f"status: {status.word(node, vmid)}\n")


def show_config(node: Node, arguments: Arguments) -> None:
    """The config, pending changes applied unless --current."""
    config = load(node, arguments.vmid())
    values = config.values if arguments.flag("current") else config.with_pending()
    if "snapshot" in arguments.options:
        if arguments.options["snapshot"] not in config.snapshots:
            raise Die(f"snapshot '{arguments.options['snapshot']}' does not exist")
        values = config.snapshots[arguments.options["snapshot"]]
    for key in sorted(values):
        say(f"{key}: {_shown(key, values[key])}\n")


def _shown(key: str, value: str) -> str:
    return encode_text(value) if key == "description" else "**********" if key == "cipassword" else value


def pending(node: Node, arguments: Arguments) -> None:
    """cur, new and del lines."""
    config = load(node, arguments.vmid())
    for key in sorted({*config.values, *config.pending}):
        value, new = config.values.get(key), config.pending.get(key)
        if value is not None:
            word = "del" if key in config.pending_delete else "cur"
            say(f"{word} {key}: {_shown(key, value)}\n")
        if new is not None:
            say(f"new {key}: {_shown(key, new)}\n")


def list_vms(node: Node, arguments: Arguments) -> None:
    """Table; the status is the process state."""
    entries = status.listing(node)
    if not entries:
        return
    say(f"{'VMID':>10} {'NAME':<20} {'STATUS':<10} {'MEM(MB)':<10} {'BOOTDISK(GB)':>12} {'PID':<10}\n")
    for entry in entries:
        disk = entry["maxdisk"] / (1 << 30)
        row = f"{entry['vmid']:>10} {entry['name']:<20} {entry['status']:<10} {entry['maxmem'] >> 20:<10} "
        say(row + f"{disk:>12.2f} {entry.get('pid', 0):<10}\n")


def showcmd(node: Node, arguments: Arguments) -> None:
    """What a start would run."""
    vmid = arguments.vmid()
    words = build(node, vmid, load(node, vmid).with_pending(), Extras())
    glue = " \\\n  " if arguments.flag("pretty") else " "
    say(glue.join(["/usr/bin/kvm", "-id", str(vmid), *map(shlex.quote, words)]) + "\n")


def monitor(node: Node, arguments: Arguments) -> None:
    """A human monitor session on stdin; prompt and echo go to stderr."""
    vmid = arguments.vmid()
    load(node, vmid)
    say(f"Entering QEMU Monitor for VM {vmid} - type 'help' for help\n")
    while True:
        sys.stderr.write("qm> ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            return
        sys.stderr.write(line if line.endswith("\n") else line + "\n")
        sys.stderr.flush()
        if line.strip() in ("q", "quit"):
            return
        if line.strip():
            _monitor_line(node, vmid, line.strip())


def _monitor_line(node: Node, vmid: int, line: str) -> None:
    try:
        if vm.pid(node, vmid) is None:
            raise Die(texts.not_running(vmid))
        say(qmp.monitor(node, vmid, line).replace("\r\n", "\n"))
    except Die as error:
        say(f"ERROR: {error.text}\n")


# config


def set_options(node: Node, arguments: Arguments) -> None:
    """qm set."""
    vmid = arguments.vmid()
    options = dict(arguments.options)
    delete = split_words(options.pop("delete", ""))
    skiplock = Arguments((), {"skiplock": options.pop("skiplock", "0")}).flag("skiplock")
    digest = options.pop("digest", None)
    for name in ("force", "background_delay"):
        options.pop(name, None)
    revert = split_words(options.pop("revert", ""))
    Cluster(node).read(vmid)
    update.change_vm(node, vmid, update.Change(options, delete, revert, skiplock, digest), code=SET_EXIT)


def create(node: Node, arguments: Arguments) -> None:
    """qm create."""
    vmid = arguments.vmid()
    _task(node, "qmcreate", vmid, lambda: update.create_vm(node, vmid, arguments.options))


def unlock(node: Node, arguments: Arguments) -> None:
    """Remove any lock; checks nothing."""
    vmid = arguments.vmid()
    Cluster(node).read(vmid)
    with config_lock(node, vmid, code=SET_EXIT):
        config = load(node, vmid)
        if config.values.pop("lock", None) is not None:
            store(node, vmid, config)


def destroy(node: Node, arguments: Arguments) -> None:
    """Remove a stopped VM; never stops one."""
    vmid = arguments.vmid()
    purge = arguments.flag("purge")
    removal.check_removable(node, vmid, purge)
    skiplock, unreferenced = arguments.flag("skiplock"), arguments.flag("destroy-unreferenced-disks")
    _task(node, "qmdestroy", vmid, lambda: removal.destroy(node, vmid, skiplock, purge, unreferenced))


# power


def start(node: Node, arguments: Arguments) -> None:
    """qm start."""
    vmid = arguments.vmid()
    Cluster(node).check_quorum()
    if _requested(node, vmid, "start"):
        return
    extras = Extras(forcemachine=arguments.options.get("machine"), forcecpu=arguments.options.get("force-cpu"))
    _task(node, "qmstart", vmid, lambda: _discard(vm.start(node, vmid, arguments.flag("skiplock"), extras)))


def _discard(value: object) -> None:
    del value


def stop(node: Node, arguments: Arguments) -> None:
    """Waits until the process is gone."""
    vmid = arguments.vmid()
    if not _requested(node, vmid, "stop"):
        _task(node, "qmstop", vmid, lambda: vm.stop(node, vmid, arguments.flag("skiplock")))


def shutdown(node: Node, arguments: Arguments) -> None:
    """Ask the guest, wait, optionally force; a VM that stands still is refused before the task."""
    vmid = arguments.vmid()
    force, skiplock = arguments.flag("forceStop"), arguments.flag("skiplock")
    gently = power.shutdown(node, vmid, force)
    if _requested(node, vmid, "stop"):
        return
    if gently:
        _task(node, "qmshutdown", vmid, lambda: vm.shutdown(node, vmid, skiplock, _seconds(arguments), force))
    else:
        _task(node, "qmshutdown", vmid, lambda: vm.stop(node, vmid, skiplock))


def _seconds(arguments: Arguments) -> Optional[float]:
    return float(arguments.options["timeout"]) if "timeout" in arguments.options else None


def reboot(node: Node, arguments: Arguments) -> None:
    """Shut down and start again."""
    vmid = arguments.vmid()
    power.shutdown(node, vmid, False)
    power.must_run(node, vmid)

    def work() -> None:
        vm.shutdown(node, vmid, timeout=_seconds(arguments))
        vm.start(node, vmid)

    _task(node, "qmreboot", vmid, work)


def reset(node: Node, arguments: Arguments) -> None:
    """Hard reset."""
    vmid = arguments.vmid()
    power.must_run(node, vmid)
    _task(node, "qmreset", vmid, lambda: vm.reset(node, vmid, arguments.flag("skiplock")))


def suspend(node: Node, arguments: Arguments) -> None:
    """Pause."""
    vmid = arguments.vmid()
    power.must_run(node, vmid)
    if arguments.flag("todisk"):
        raise Die("suspend to disk is not part of the lab")
    _task(node, "qmpause", vmid, lambda: vm.suspend(node, vmid, arguments.flag("skiplock")))


def resume(node: Node, arguments: Arguments) -> None:
    """cont; a running VM is success before any look at the lock."""
    vmid = arguments.vmid()
    power.must_run(node, vmid)
    _task(node, "qmresume", vmid, lambda: vm.resume(node, vmid, arguments.flag("skiplock")))


def migrate(node: Node, arguments: Arguments) -> None:
    """Within a cluster: only the refusals."""
    power.check_migration(node, arguments.vmid(), arguments.positional[1], arguments.flag("online"))
    raise Die("migration within a cluster is not part of the lab")


def remote_migrate(node: Node, arguments: Arguments) -> None:
    """To another cluster; two checks more than the API makes, then the same task in the foreground."""
    positional = list(arguments.positional)
    if len(positional) == 2:
        positional.insert(1, positional[0])
    names = ("vmid", "target-vmid", "target-endpoint")
    params = {"node": node.name, **dict(zip(names, positional)), **arguments.options}
    request.check_target(params)
    wanted = request.wanted(node, params, None, personality.current().generation.insecure_remote)
    _task(node, "qmigrate", arguments.vmid(), lambda: Job(node, wanted).run())


# disks and snapshots


def resize(node: Node, arguments: Arguments) -> None:
    """Grow a disk; a refusal inside the task leaves status 0 (pve-cli 4)."""
    vmid, key, size = arguments.vmid(), arguments.positional[1], arguments.positional[2]
    Cluster(node).read(vmid)
    try:
        _task(node, "resize", vmid, lambda: _resize(node, vmid, key, size, arguments.flag("skiplock")))
    except Die as error:
        complain(error.text)


def _resize(node: Node, vmid: int, key: str, size: str, skiplock: bool) -> None:
    with config_lock(node, vmid):
        config = load(node, vmid)
        if not skiplock:
            check_lock(config)
        if key not in config.values:
            raise Die(f"disk '{key}' does not exist")
        drive = parse_drive(config.values[key])
        storages = Storages(node)
        old, form, _ = storages.size(drive["file"])
        new = old + parse_size(size[1:]) if size.startswith("+") else parse_size(size)
        if new < old:
            raise Die("shrinking disks is not supported")
        if vm.pid(node, vmid) is None:
            subprocess.run(
                ["qemu-img", "resize", "-q", "-f", form, storages.real_path(drive["file"]), str(new)], check=True
            )
        else:
            vm.command(node, vmid, "block_resize", {"device": f"drive-{key}", "size": new})
        config.values[key] = _with_size(config.values[key], new)
        store(node, vmid, config)


def _with_size(text: str, size: int) -> str:
    from lab.node.properties import format_drive, format_size

    return format_drive({**parse_drive(text), "size": format_size(size)})


def snapshot(node: Node, arguments: Arguments) -> None:
    """Without RAM."""
    vmid, name = arguments.vmid(), arguments.positional[1]
    text = arguments.options.get("description", "")
    snapshots.check_name(name)
    _task(node, "qmsnapshot", vmid, lambda: snapshots.create(node, vmid, name, text))


def delsnapshot(node: Node, arguments: Arguments) -> None:
    """Remove a snapshot."""
    vmid, name = arguments.vmid(), arguments.positional[1]
    _task(node, "qmdelsnapshot", vmid, lambda: snapshots.delete(node, vmid, name))


def rollback(node: Node, arguments: Arguments) -> None:
    """Back to a snapshot."""
    vmid, name = arguments.vmid(), arguments.positional[1]
    _task(node, "qmrollback", vmid, lambda: snapshots.rollback(node, vmid, name))


def listsnapshot(node: Node, arguments: Arguments) -> None:
    """Tree of snapshots."""
    vmid = arguments.vmid()
    say(snapshots.tree(snapshots.listing(load(node, vmid), vm.pid(node, vmid) is not None)))


def agent(node: Node, arguments: Arguments) -> None:
    """A guest agent command."""
    vmid, name = arguments.vmid(), arguments.positional[1]
    if name not in guest_agent.COMMANDS:
        words = ", ".join(guest_agent.COMMANDS)
        raise ParamError({"command": f"value '{name}' does not have a value in the enumeration '{words}'"})
    answer = guest_agent.run(node, vmid, name)
    if answer:
        say(json.dumps(answer, indent=3, separators=(",", " : "), sort_keys=True) + "\n")


def _option(name: str) -> bool:
    return schema.known(name)


def _power(run: Callable[[Node, Arguments], None], *values: str, booleans: "tuple[str, ...]" = ()) -> Command:
    return Command(run, ("vmid",), booleans=("skiplock", *booleans), values=values)


def _snapshot(
    run: Callable[[Node, Arguments], None], values: "tuple[str, ...]" = (), booleans: "tuple[str, ...]" = ()
) -> Command:
    return Command(run, ("vmid", "snapname"), values=values, booleans=booleans)


SET_VALUES = ("delete", "digest", "revert", "background_delay", "storage")
RESIZE = Command(resize, ("vmid", "disk", "size"), booleans=("skiplock",), values=("digest",))
AGENT = Command(agent, ("vmid", "command"))
COMMANDS: Dict[str, Command] = {
    "agent": AGENT,
    "config": Command(show_config, ("vmid",), booleans=("current",), values=("snapshot",)),
    "create": Command(create, ("vmid",), booleans=CONFIG_BOOLEANS, extra=_option),
    "delsnapshot": _snapshot(delsnapshot, booleans=("force",)),
    "destroy": _power(destroy, booleans=("purge", "destroy-unreferenced-disks")),
    "disk resize": RESIZE,
    "guest cmd": AGENT,
    "list": Command(list_vms, booleans=("full",)),
    "listsnapshot": Command(listsnapshot, ("vmid",)),
    "migrate": Command(
        migrate,
        ("vmid", "target"),
        booleans=("online", "force", "with-conntrack-state", "with-local-disks"),
        values=("bwlimit", "migration_network", "migration_type", "targetstorage"),
    ),
    "monitor": Command(monitor, ("vmid",)),
    "pending": Command(pending, ("vmid",)),
    "reboot": _power(reboot, "timeout"),
    "remote-migrate": Command(
        remote_migrate,
        ("vmid", "target-vmid", "target-endpoint"),
        optional=("target-vmid",),
        booleans=("online", "delete"),
        required=("target-bridge", "target-storage"),
        values=("bwlimit", "migration_type", "migration_network"),
    ),
    "reset": _power(reset),
    "resize": RESIZE,
    "resume": _power(resume, booleans=("nocheck",)),
    "rollback": _snapshot(rollback, booleans=("start",)),
    "set": Command(
        set_options, ("vmid",), booleans=("skiplock", "force", *CONFIG_BOOLEANS), values=SET_VALUES, extra=_option
    ),
    "showcmd": Command(showcmd, ("vmid",), booleans=("pretty",), values=("snapshot",)),
    "shutdown": _power(shutdown, "timeout", booleans=("forceStop", "keepActive")),
    "snapshot": _snapshot(snapshot, values=("description",), booleans=("vmstate",)),
    "start": _power(start, "machine", "force-cpu", "timeout"),
    "status": Command(show_status, ("vmid",), booleans=("verbose",)),
    "stop": _power(stop, "timeout", booleans=("keepActive", "overrule-shutdown")),
    "suspend": _power(suspend, "statestorage", booleans=("todisk",)),
    "unlock": Command(unlock, ("vmid",)),
}

if __name__ == "__main__":
    sys.exit(main("qm", COMMANDS))
