# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How each blow of the catalogue is dealt: to a process, a connection, a disk or a file, always from outside.

A blow is called with the scene once its moment has come, or before the play where the case has no moment. It returns
what ends it again (a function), or nothing. Product code has no hooks for any of this.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Callable, Optional

from e2e.sides import journal_paths, journal_records

from lab import faults
from lab.hosts import namespace_pids
from lab.network import Segment

Healing = Optional[Callable[[], None]]
Blow = Callable[..., Healing]

WORKER = "worker.pyz"
PUMP, INCOMING = "worker.pyz pump", "worker.pyz incoming "
API_PORT = 8006
RESUME_TIMEOUT = 30.0  # seconds from the intent until `resume` is in the log of the target's task
SMALL_STORAGE = "/srv/slow"
LEFT_ON_SMALL = 4 << 20  # bytes a target disk still finds


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def processes(host: Any, words: str) -> list[int]:
    """Pids, as the machine counts them, of a host's processes with these words in their command line."""
    return [pid for pid in namespace_pids(host.namespace) if words in _command_line(pid)]


def supervisors(host: Any) -> list[int]:
    """Pids, as the machine counts them, of the processes that write journals on a host.

    Not the pumps, which end by themselves, and not the parent that only restarts: a supervisor has no supervisor below.
    """
    lines = {pid: _command_line(pid) for pid in namespace_pids(host.namespace)}
    workers = [pid for pid, line in lines.items() if WORKER in line and " pump" not in line]
    parents = {_parent(pid) for pid in workers}
    return [pid for pid in workers if pid not in parents]


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _qemu(side: Any) -> list[int]:
    """The QEMU of a VM on a host, as the machine counts it. A blow that hits nothing would prove nothing."""
    mark = f"/run/qemu-server/{side.vmid}.qmp,"
    found = [
        pid
        for pid in namespace_pids(side.host.namespace)
        if (line := _command_line(pid)) and "qemu" in line and mark in line
    ]
    if not found:
        raise LookupError(f"VM {side.vmid} has no QEMU on {side.host.name}")
    return found


def nothing(_scene: Any) -> Healing:
    return None


def kill_worker(scene: Any) -> Healing:
    """SIGKILL; whoever restarts the worker does so."""
    _signal(scene.supervisors or supervisors(scene.source_host), signal.SIGKILL)
    return None


def kill_worker_in_resume(scene: Any) -> Healing:
    """The target has read `resume` and is about to execute it; whoever sent it is gone before it is answered."""
    deadline = time.monotonic() + RESUME_TIMEOUT
    while not has_received(scene, "resume"):
        if time.monotonic() > deadline:
            raise LookupError("`resume` never came to the target")
        time.sleep(0.005)
    return kill_worker(scene)


def has_received(scene: Any, command: str) -> bool:
    """Whether the log of a tunnel task of the VM says so: it names a command before it is executed.

    In a lab that stays up an earlier move may have left logs of that number; a task that has ended says so.
    """
    logs = Path(scene.target_host.path("/var/log/pve/tasks")).glob(f"[0-9A-F]/UPID:*:qmtunnel:{scene.target_vmid}:*")
    texts = [log.read_text(encoding="utf-8") for log in logs]
    return any(f"received command '{command}'" in text and "\nTASK " not in text for text in texts)


def stop_worker(scene: Any, seconds: float) -> Healing:
    """SIGSTOP, and SIGCONT after so many seconds: a worker that slept through its deadlines."""
    pids = scene.supervisors or supervisors(scene.source_host)
    _signal(pids, signal.SIGSTOP)
    waker = threading.Timer(seconds, _signal, (pids, signal.SIGCONT))
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
    """The callback by which AWX cancels a job says yes, and ansible-runner does what it does then."""
    scene.play.cancel()
    scene.play.wait()
    if not scene.play.cancelled:
        raise LookupError("the play had ended before ansible-runner cancelled it")
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


def silence_migration_network(scene: Any) -> Healing:
    """Nothing comes or goes between the workers any more; the target's API answers."""
    scene.target_host.blackhole(Segment.MIGRATION)
    return lambda: scene.target_host.restore(Segment.MIGRATION)


def silence_api(scene: Any) -> Healing:
    """What the source sends to the target's API is lost, and so is the tunnel's channel; the workers still talk."""
    host = scene.target_host
    host.lose_port(API_PORT, scene.source_host)
    return lambda: host.accept_port(API_PORT)


def silence_target(scene: Any, seconds: float) -> Healing:
    """Nothing passes between the two nodes for so many seconds; the controller still reaches both."""
    pair = ((scene.source_host, scene.target_host), (scene.target_host, scene.source_host))
    for host, towards in pair:
        host.mute(towards)

    def end() -> None:
        for host, towards in pair:
            host.unmute(towards)

    waker = threading.Timer(seconds, end)
    waker.start()
    return waker.join


def silence_status(scene: Any) -> Healing:
    """The target does not tell any more how its VM is, until the source has given the guest over or the play ended."""
    heal = lab_fault(scene, "http_no_answer", method="GET", path="/status/current")
    ended = threading.Event()

    def end_when_given_over() -> None:
        while not ended.wait(0.2):
            if any(record.get("kind") == "forward" for record in scene.mover.records()):
                break
        heal()

    watcher = threading.Thread(target=end_when_given_over)
    watcher.start()
    return lambda: ended.set() or watcher.join()


def kill_source_qemu(scene: Any) -> Healing:
    _signal(_qemu(scene.source), signal.SIGKILL)
    return None


def kill_target_qemu(scene: Any) -> Healing:
    _signal(_qemu(scene.target), signal.SIGKILL)
    return None


def kill_pumps(scene: Any) -> Healing:
    """The processes on the source that carry streams; the worker lives."""
    return _kill_all(processes(scene.source_host, PUMP))


def kill_incoming(scene: Any) -> Healing:
    """The incoming worker, and with it what carries its streams."""
    return _kill_all(_incoming(scene)[:1])


def kill_relays(scene: Any) -> Healing:
    """The processes on the target that carry streams; the incoming worker lives."""
    return _kill_all(_incoming(scene)[1:])


def _incoming(scene: Any) -> list[int]:
    """The incoming worker, and then its children."""
    return sorted(processes(scene.target_host, INCOMING))


def _kill_all(pids: list[int]) -> None:
    """A blow that hits nothing would prove nothing."""
    if not pids:
        raise LookupError("there was nothing to kill")
    _signal(pids, signal.SIGKILL)


def fill_target(scene: Any) -> Healing:
    """The storage below the target's disk runs full while data is still to come."""
    host = scene.target_host
    base = host.path(SMALL_STORAGE)
    free = os.statvfs(base)
    size = max(0, free.f_bavail * free.f_frsize - LEFT_ON_SMALL)
    host.run(["fallocate", "-l", str(size), f"{SMALL_STORAGE}/ballast"])
    return lambda: host.run(["rm", "-f", f"{SMALL_STORAGE}/ballast"]) and None


def fill_journal(scene: Any) -> Healing:
    """Every write to the journal fails as on a full disk.

    By strace: a file system that is really full still gives the journal the rest of its last block, in which the
    whole move may fit.
    """
    tracer = subprocess.Popen(
        ["strace", "-e", "trace=write", "-e", "inject=write:error=ENOSPC", "-P", _journal_name(scene)]
        + [word for pid in scene.supervisors for word in ("-p", str(pid))],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert tracer.stderr is not None
    assert "attached" in tracer.stderr.readline()

    def heal() -> None:
        tracer.terminate()
        _output, errors = tracer.communicate()
        assert "(INJECTED)" in errors, f"no write to the journal was ever refused:\n{errors}"

    return heal


def _journal_name(scene: Any) -> str:
    """The journal as the worker calls it."""
    host = scene.source_host
    return str(journal_paths(host)[-1]).removeprefix(str(host.root))


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
        nothing, kill_worker, kill_worker_in_resume, stop_worker, kill_controller, interrupt_controller,
        terminate_controller, cancel_runner, lab_fault, cut_control, silence_ram, silence_migration_network,
        silence_api, silence_target, silence_status, kill_source_qemu, kill_target_qemu, kill_pumps, kill_incoming,
        kill_relays, fill_target, fill_journal, add_ha, take_vmid,
    )
}  # fmt: skip


class JournalWatch:
    """The journal of the one move that is to come, read as it grows; older journals of the host are left alone."""

    def __init__(self, host: Any) -> None:
        self._host = host
        self._known = set(journal_paths(host))
        self._path: Path | None = None

    def records(self) -> list[dict[str, Any]]:
        if self._path is None:
            fresh = [path for path in journal_paths(self._host) if path not in self._known]
            self._path = fresh[-1] if fresh else None
        return journal_records(self._path) if self._path is not None else []


def wait_for(scene: Any, watch: JournalWatch, timeout: float) -> bool:
    """Wait until the journal holds the case's moment; False when the play ended or the time passed without it.

    The supervisor is looked up while nothing has come yet: what strikes must not have to search first.
    """
    moment, deadline = scene.case.moment, time.monotonic() + timeout
    looked_up = 0
    while time.monotonic() < deadline:
        records = watch.records()
        if any(moment.matches(record) for record in records):
            time.sleep(moment.delay)
            if moment.kind == "worker":  # its first word: what was there before was only on its way to it
                scene.supervisors = supervisors(scene.source_host)
            return True
        if scene.play.poll() is not None:
            # The record may have come between the look and the end.
            return any(moment.matches(record) for record in watch.records())
        if len(records) > looked_up or not scene.supervisors:
            looked_up = len(records)
            scene.supervisors = supervisors(scene.source_host) if records else []
        time.sleep(0.002)
    return False
