# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How each blow of the catalogue is dealt: to a process, a connection, a disk or a file, always from outside.

A blow is called with the scene once its moment has come, or before the play where the case has no moment. It returns
what ends it again (a function), or nothing. Product code has no hooks for any of this.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Callable, Optional

from e2e.sides import process_ids

from lab import faults

Healing = Optional[Callable[[], None]]
Blow = Callable[..., Healing]

WORKER = "worker.pyz"
JOURNAL_DISK = "/var/lib/crosscluster"
JOURNAL_DISK_MIB = 8
SMALL_STORAGE = "/srv/slow"
LEFT_ON_SMALL = 4 << 20  # bytes a target disk still finds


def _workers(scene: Any) -> list[int]:
    """Supervisors of this VM's move: worker processes that are no pump; the pumps end by themselves."""
    host = scene.source.host
    return [pid for pid in process_ids(host, WORKER) if pid not in process_ids(host, WORKER, " pump")]


def _kill_inside(scene: Any, side: Any, pids: list[int], number: int) -> None:
    """Signal processes by the pids that the host itself counts."""
    if pids:
        side.host.run(["kill", f"-{number}", *map(str, pids)], check=False)


def supervisor(scene: Any) -> list[int]:
    """The process that writes the journal, not the parent that only restarts it: it has no worker below itself."""
    host = scene.source.host
    pids = _workers(scene)
    parents = {int(Path(host.path(f"/proc/{pid}/stat")).read_text().rsplit(")", 1)[1].split()[1]) for pid in pids}
    return [pid for pid in pids if pid not in parents]


def nothing(_scene: Any) -> Healing:
    return None


def kill_worker(scene: Any) -> Healing:
    """SIGKILL; whoever restarts the worker does so."""
    _kill_inside(scene, scene.source, supervisor(scene), signal.SIGKILL)
    return None


def stop_worker(scene: Any, seconds: float) -> Healing:
    """SIGSTOP, and SIGCONT after so many seconds: a worker that slept through its deadlines."""
    pids = supervisor(scene)
    _kill_inside(scene, scene.source, pids, signal.SIGSTOP)
    waker = threading.Timer(seconds, _kill_inside, (scene, scene.source, pids, signal.SIGCONT))
    waker.start()
    return waker.join


def kill_controller(scene: Any) -> Healing:
    scene.play.kill()
    return None


def interrupt_controller(scene: Any) -> Healing:
    """Ctrl-C in a terminal: SIGINT to the process group."""
    scene.play.signal(signal.SIGINT, group=True)
    return None


def terminate_controller(scene: Any) -> Healing:
    scene.play.signal(signal.SIGTERM)
    return None


def cancel_runner(scene: Any) -> Healing:
    """What ansible-runner does on cancel: SIGKILL to the process group, and nothing else."""
    scene.play.signal(signal.SIGKILL, group=True)
    return None


def lab_fault(scene: Any, fault: str, **values: Any) -> Healing:
    """A fault of the target's API or tunnel, for this VM only."""
    root = scene.target_host.root
    name = f"{fault}-{scene.target_vmid or 'any'}"
    faults.set(root, fault, name=name, **values)
    return lambda: faults.clear(root, name)


def cut_control(scene: Any) -> Healing:
    """The control connection is reset; what it carried is gone."""
    return lab_fault(scene, "cut", kind="control", count=1)


def silence_ram(scene: Any) -> Healing:
    """Nothing leaves the target towards the source any more except on the control channel."""
    return lab_fault(scene, "silent", direction="to_source", kind="ram")


def kill_source_qemu(scene: Any) -> Healing:
    _kill_inside(scene, scene.source, [pid for pid in [scene.source.qemu] if pid], signal.SIGKILL)
    return None


def kill_target_qemu(scene: Any) -> Healing:
    _kill_inside(scene, scene.target, [pid for pid in [scene.target.qemu] if pid], signal.SIGKILL)
    return None


def fill_target(scene: Any) -> Healing:
    """The storage below the target's disk runs full while data is still to come."""
    host = scene.target_host
    base = host.path(SMALL_STORAGE)
    free = os.statvfs(base)
    size = max(0, free.f_bavail * free.f_frsize - LEFT_ON_SMALL)
    host.run(["fallocate", "-l", str(size), f"{SMALL_STORAGE}/ballast"])
    return lambda: host.run(["rm", "-f", f"{SMALL_STORAGE}/ballast"]) and None


def small_journal_disk(scene: Any) -> None:
    """Give the journal a file system of its own before the play, so that filling it hurts nobody else."""
    host = scene.source.host
    host.run(["mkdir", "-p", JOURNAL_DISK])
    if JOURNAL_DISK not in Path(host.path("/proc/mounts")).read_text(encoding="utf-8"):
        host.run(["mount", "-t", "tmpfs", "-o", f"size={JOURNAL_DISK_MIB}m,mode=0755", "tmpfs", JOURNAL_DISK])


def fill_journal(scene: Any) -> Healing:
    """The file system of the journal is full."""
    host = scene.source.host
    host.run(["sh", "-c", f"cat /dev/zero > {JOURNAL_DISK}/ballast; true"], check=False)
    return lambda: host.run(["rm", "-f", f"{JOURNAL_DISK}/ballast"]) and None


def add_ha(scene: Any) -> Healing:
    """Somebody puts the VM under HA while it moves."""
    path = Path(scene.source.host.path("/etc/pve/ha/resources.cfg"))
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    path.write_text(before + f"vm: {scene.source.vmid}\n\tstate started\n\n", encoding="utf-8")
    return lambda: path.write_text(before, encoding="utf-8") and None


def take_vmid(scene: Any) -> Healing:
    """Another VM has the number on the target already."""
    node = scene.target_host
    path = Path(node.path(f"/etc/pve/nodes/{node.name}/qemu-server/{scene.source.vmid}.conf"))
    path.write_text("cores: 1\nmemory: 16\nname: somebody-else\nsmbios1: uuid=11111111-2222-3333-4444-555555555555\n")
    return path.unlink


BLOWS: dict[str, Blow] = {
    each.__name__: each
    for each in (
        nothing, kill_worker, stop_worker, kill_controller, interrupt_controller, terminate_controller, cancel_runner,
        lab_fault, cut_control, silence_ram, kill_source_qemu, kill_target_qemu, fill_target, fill_journal, add_ha,
        take_vmid,
    )
}  # fmt: skip
PREPARATIONS: dict[str, Callable[[Any], None]] = {"fill_journal": small_journal_disk}


def wait_for(
    moment: Any, records: Callable[[], list[dict[str, Any]]], ended: Callable[[], bool], timeout: float
) -> bool:
    """Wait until the journal holds the moment; False when the play ended or the time passed without it."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if any(moment.matches(record) for record in records()):
            time.sleep(moment.delay)
            return True
        if ended():
            # The record may have come between the look and the end.
            return any(moment.matches(record) for record in records())
        time.sleep(0.002)
    return False


def unmount_journal_disk(host: Any) -> None:
    subprocess.run(host.argv(["umount", JOURNAL_DISK]), check=False, capture_output=True)
