# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM's process: start (also to wait for a migration), stop, resume, monitor (pve-cli 4, mtunnel-protocol 5.2-5.3).

None of these take the config flock unless said so; the callers of the real functions differ, so they do it here too.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from typing import Any, Dict, List, Mapping, Optional

from . import qmp, texts
from .base import Die, Node, complain
from .cluster import Cluster
from .command_line import Extras, bridge_exists, build, nics, tap_name, tun_usable
from .flock import config_lock, config_lock_path, held_descriptor
from .incoming import Incoming, listen, migrate_socket, nbd_socket, nbd_stop, ram_uri
from .process import alive, command, pid
from .properties import drive_keys, parse_drive
from .schema import is_cloudinit
from .storage import Storages
from .vmconfig import check_lock, load

__all__ = [
    "Incoming",
    "check_machine",
    "command",
    "local_resources",
    "migrate_socket",
    "nbd_socket",
    "nbd_stop",
    "pid",
    "qemu_version",
    "reset",
    "resume",
    "resume_now",
    "shutdown",
    "start",
    "start_now",
    "stop",
    "stop_now",
    "suspend",
]

NO_EXTRAS = Extras()
PROGRAM = "qemu-system-x86_64"
START_SECONDS = 30.0
STOP_SECONDS = 60.0
SHUTDOWN_SECONDS = 60.0
KILL_SECONDS = 10.0
BUSY_SECONDS = 30.0
LOCAL_DEVICE = re.compile(r"(hostpci|usb|serial|parallel|virtiofs)\d+|ivshmem")


def qemu_version() -> str:
    """Version of the installed QEMU."""
    out = subprocess.run([PROGRAM, "--version"], stdout=subprocess.PIPE, text=True, check=False).stdout
    match = re.search(r"version (\d+(?:\.\d+)+)", out)
    return match[1] if match else "0"


def check_machine(node: Node, kind: str) -> None:
    """Refuse a machine type newer than the installed QEMU."""
    match = re.search(r"-(\d+)\.(\d+)(?:\.\d+)?(\+pve(\d+))?$", kind)
    if not match:
        return
    version = qemu_version()
    if (int(match[1]), int(match[2])) > tuple(int(part) for part in version.split(".")[:2]):
        shown = kind if match[3] else f"{kind}+pve0"
        old = f"Installed QEMU version '{version}' is too old to run machine type '{shown}'"
        raise Die(f"{old}, please upgrade node '{node.name}'")


def local_resources(values: Mapping[str, str]) -> List[str]:
    """Keys that bind a VM to this host."""
    found = []
    for key, value in sorted(values.items()):
        if not LOCAL_DEVICE.fullmatch(key) or (key.startswith("serial") and value == "socket"):
            continue
        if key.startswith("usb") and value.split(",")[0] in ("spice", "host=spice"):
            continue
        found.append(key)
    return found


# start


def start(
    node: Node, vmid: int, skiplock: bool = False, extras: Extras = NO_EXTRAS, incoming: Optional[Incoming] = None
) -> Dict[str, Any]:
    """Start with the config flock held and the checks of `qm start`; answers what the tunnel's `start` replies."""
    with config_lock(node, vmid):
        return start_now(node, vmid, skiplock, extras, incoming)


def start_now(
    node: Node, vmid: int, skiplock: bool = False, extras: Extras = NO_EXTRAS, incoming: Optional[Incoming] = None
) -> Dict[str, Any]:
    """Start; the caller holds the flock. A running VM is only noticed without incoming (mtunnel-protocol 5.2)."""
    from .update import apply_pending

    config = load(node, vmid)
    if not skiplock:
        check_lock(config)
    if incoming is None and pid(node, vmid) is not None:
        raise Die(f"VM {vmid} already running")
    if incoming is None:
        Cluster(node).check_quorum()
        apply_pending(node, vmid, config)
        _make_cloudinit(node, vmid, config.values)
    if extras.forcemachine:
        check_machine(node, extras.forcemachine)
    _check_bridges(config.values)
    if incoming is not None:
        # before QEMU 9.0 the end of an NBD client whose disk lives in an iothread aborts the whole process
        iothreads = not incoming.nbd or int(qemu_version().split(".")[0]) >= 9
        extras = Extras(
            ram_uri(node, vmid, incoming), extras.forcemachine, extras.forcecpu, incoming.host_mtu, iothreads
        )
    argv = [PROGRAM, *build(node, vmid, config.values, extras)]
    _check_volumes(node, config.values)
    _launch(node, vmid, argv, config.values, "QEMU: " if incoming else "")
    _after_start(node, vmid, config.values)
    return listen(node, vmid, incoming) if incoming else {}


def _make_cloudinit(node: Node, vmid: int, values: Mapping[str, str]) -> None:
    """The real start writes the image anew; here it is only allocated when missing, its content is not made."""
    storages = Storages(node)
    for key in drive_keys(values):
        drive = parse_drive(values[key])
        if is_cloudinit(drive):
            os.write(1, b"generating cloud-init ISO\n")
            if not storages.exists(drive["file"]):
                sid, name = drive["file"].split(":", 1)
                storages.alloc(sid, vmid, None, name.split("/")[-1], 4096)


def _check_bridges(values: Mapping[str, str]) -> None:
    for nic in nics(values).values():
        bridge = nic.get("bridge")
        if bridge and not bridge_exists(bridge):
            raise Die(f"bridge '{bridge}' does not exist")


def _check_volumes(node: Node, values: Mapping[str, str]) -> None:
    storages = Storages(node)
    for key in drive_keys(values):
        volid = parse_drive(values[key])["file"]
        if volid not in ("none", "cdrom") and not volid.startswith("/"):
            storages.check_enabled(volid.split(":")[0])
            if not storages.exists(volid):
                raise Die(f"volume '{volid}' does not exist")


def _launch(node: Node, vmid: int, argv: List[str], values: Mapping[str, str], prefix: str) -> None:
    if values.get("kvm") != "0":
        # no KVM in the lab, whatever device files the machine has: a tunnel's stub fails to start as it did on the rig
        complain(f"{prefix}Could not access KVM kernel module: No such file or directory")
        complain(f"{prefix}kvm: failed to initialize kvm: No such file or directory")
        raise Die("start failed: QEMU exited with code 1")
    node.path("/run/qemu-server").mkdir(parents=True, exist_ok=True)
    _ensure_event_daemon(node)
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=max(START_SECONDS, node.seconds(START_SECONDS)),
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        _busy_cleanup(node, vmid)
        raise Die("start failed: command '/usr/bin/kvm ...' failed: got timeout") from None
    for line in done.stdout.splitlines():
        complain(prefix + line.replace(PROGRAM, "kvm"))
    if done.returncode:
        _busy_cleanup(node, vmid)
        raise Die(f"start failed: QEMU exited with code {done.returncode}")


def _busy_cleanup(node: Node, vmid: int) -> None:
    """After a failed start of a running VM the real clean-up holds the config flock for about 30 s (start-hazards)."""
    if pid(node, vmid) is None:
        return
    descriptor = held_descriptor(node, config_lock_path(vmid))
    if descriptor is None:
        return
    subprocess.Popen(  # inherits the lock of the caller, so nobody gets in between
        ["sleep", str(node.seconds(BUSY_SECONDS))],
        start_new_session=True,
        pass_fds=[descriptor],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _ensure_event_daemon(node: Node) -> None:
    from . import events

    events.ensure(node)


def _after_start(node: Node, vmid: int, values: Mapping[str, str]) -> None:
    for key, nic in nics(values).items():
        if tun_usable() and nic.get("bridge"):
            _plug_tap(tap_name(vmid, key), nic)
        if nic.get("link_down") == "1":
            command(node, vmid, "set_link", {"name": key, "up": False})


def _plug_tap(tap: str, nic: Mapping[str, str]) -> None:
    lines = f"link set {tap} up\nlink set {tap} master {nic['bridge']}\n"
    subprocess.run(["ip", "-batch", "-"], input=lines, text=True, capture_output=True, check=False)


# stop, resume and the like


def stop(node: Node, vmid: int, skiplock: bool = False, nocheck: bool = False) -> None:
    """Stop with the config flock held; success when nothing runs, lock or not."""
    with config_lock(node, vmid):
        stop_now(node, vmid, skiplock, nocheck)


def stop_now(node: Node, vmid: int, skiplock: bool = False, nocheck: bool = False) -> None:
    """Stop: QMP quit, then SIGTERM after 60 s, then SIGKILL; the caller holds the flock."""
    number = pid(node, vmid) if nocheck else _process_of(node, vmid)
    if number is None:
        return
    config = None if nocheck else load(node, vmid)
    if config is not None and not skiplock:
        check_lock(config)
    try:
        command(node, vmid, "quit")
    except Die as error:
        complain(error.text)
        complain("VM quit/powerdown failed - terminating now with SIGTERM")
        _signal(number, signal.SIGTERM)
    _await_end(node, number)
    _forget(node, vmid)


def _process_of(node: Node, vmid: int) -> Optional[int]:
    """The process of a VM whose config is on this node; stop and shutdown look for the file themselves (pve-cli 4)."""
    if not Cluster(node).exists(vmid):
        raise Die(texts.no_such_config(node.name, vmid))
    return pid(node, vmid)


def _await_end(node: Node, number: int) -> None:
    if _gone(number, node.seconds(STOP_SECONDS)):
        return
    complain("VM still running - terminating now with SIGTERM")
    _signal(number, signal.SIGTERM)
    if not _gone(number, node.seconds(KILL_SECONDS)):
        complain("VM still running - terminating now with SIGKILL")
        _signal(number, signal.SIGKILL)
        _gone(number, 5.0)


def _gone(number: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while alive(number):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _signal(number: int, which: int) -> None:
    try:
        os.kill(number, which)
    except ProcessLookupError:
        pass


def _forget(node: Node, vmid: int) -> None:
    for kind in ("mon", "qmp", "pid", "vnc", "qga"):
        node.path(f"/run/qemu-server/{vmid}.{kind}").unlink(missing_ok=True)


def resume(node: Node, vmid: int, skiplock: bool = False, nocheck: bool = False) -> None:
    """Resume with the config flock held."""
    with config_lock(node, vmid):
        resume_now(node, vmid, skiplock, nocheck)


def resume_now(node: Node, vmid: int, skiplock: bool = False, nocheck: bool = False) -> None:
    """cont: nothing when running, before any look at the lock; no check that a migration was loaded (pve-cli 4)."""
    state = command(node, vmid, "query-status", None, 60.0 if nocheck else None)["status"]
    if state == "running":
        return
    if not nocheck:
        config = load(node, vmid)
        if not skiplock and config.lock != "backup":
            check_lock(config)
    if state == "shutdown":
        command(node, vmid, "system_reset")
    command(node, vmid, "system_wakeup" if state == "suspended" else "cont")


def suspend(node: Node, vmid: int, skiplock: bool = False) -> None:
    """Pause the CPUs."""
    with config_lock(node, vmid):
        config = load(node, vmid)
        if not skiplock and config.lock != "backup":
            check_lock(config)
        command(node, vmid, "stop")


def reset(node: Node, vmid: int, skiplock: bool = False) -> None:
    """Hard reset."""
    with config_lock(node, vmid):
        if not skiplock:
            check_lock(load(node, vmid))
        command(node, vmid, "system_reset")


def shutdown(
    node: Node, vmid: int, skiplock: bool = False, timeout: Optional[float] = None, force: bool = False
) -> None:
    """Power button (or agent), wait, and stop by force when asked to."""
    with config_lock(node, vmid):
        number = _process_of(node, vmid)
        if number is None:
            return
        config = load(node, vmid)
        if not skiplock:
            check_lock(config)
        try:
            if config.values.get("agent", "0").split(",")[0] in ("1", "enabled=1"):
                qmp.agent(node, vmid, "guest-shutdown", timeout or 10.0)
            else:
                command(node, vmid, "system_powerdown")
        except Die:
            problem = "VM quit/powerdown failed"
        else:
            if _gone(number, node.seconds(SHUTDOWN_SECONDS if timeout is None else timeout)):
                _forget(node, vmid)
                return
            problem = "VM still running" if force else "VM quit/powerdown failed - got timeout"
        if not force:
            raise Die(problem)
        complain(f"{problem} - terminating now with SIGTERM")
        _signal(number, signal.SIGTERM)
        if not _gone(number, node.seconds(KILL_SECONDS)):
            complain("VM still running - terminating now with SIGKILL")
            _signal(number, signal.SIGKILL)
            _gone(number, 5.0)
        _forget(node, vmid)


def running_machine(node: Node, vmid: int) -> Optional[str]:
    """Machine type of the running QEMU, from its object tree."""
    try:
        kind = qmp.run(node, vmid, "qom-get", {"path": "/machine", "property": "type"})
    except Die:
        return None
    return re.sub(r"-machine$", "", str(kind))
