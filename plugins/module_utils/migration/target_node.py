# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The target node as :mod:`target_recovery` sees it: its files, its programs and the monitor of one QEMU.

An edge file. Runs as root on the target node. Reads files and QMP, writes through ``qm`` and ``pvesm`` only, and reads
every effect back: an exit status says little (pve-cli 1.5).
"""

from __future__ import annotations

import glob
import os
import re
import time
from typing import Callable, List, Optional

from ..errors import Side
from ..proxmox.errors import NodeCommandFailed, VmAbsent
from ..proxmox.node_cli import NodeCli
from ..proxmox.node_files import NodeFiles
from ..proxmox.vm_config import VmConfig
from ..qemu.errors import QemuError
from ..qemu.monitor import Monitor
from .recovery_errors import RecordInvalid, RecoveryFailed
from .target_recovery import Action, Step

__all__ = ["Node", "target_node"]

RESUME_TIMEOUT = 15.0  # seconds until a resumed QEMU says that it runs
END_TIMEOUT = 5.0  # seconds until a task that was killed is gone
_ENDED = ("Z", "X")  # process states: a zombie executes nothing any more
GLANCE = 0.2  # seconds between two looks
TASK_MARGIN = 30.0  # seconds; a config is stamped by the cluster file system, the log by the node's own


class Node:
    """The node this process runs on.

    Args:
        cli: Runs ``qm``, ``pvesm`` and ``pvesh``, and reads their effects back.
        files: The node's files.
        root: Where the files are; ``/`` on a node.
        clock: Monotonic seconds.
        pause: Waits for some seconds.
    """

    def __init__(
        self,
        cli: NodeCli,
        files: NodeFiles,
        root: str = "/",
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._cli = cli
        self._files = files
        self._root = root
        self._clock = clock
        self._pause = pause

    # --- what is there

    def task_running(self, upid: Optional[str], vmid: int) -> bool:
        """Whether the task, or any tunnel task for this VMID, runs."""
        active = self._cli.pvesh_get("/nodes/localhost/tasks", source="active", vmid=str(vmid))
        entries = [entry for entry in active if isinstance(entry, dict)] if isinstance(active, list) else []
        if any(entry.get("type") == "qmtunnel" and not entry.get("endtime") for entry in entries):
            return True
        if upid is None:
            return False
        try:
            status = self._cli.pvesh_get(f"/nodes/localhost/tasks/{upid}/status")
        except NodeCommandFailed:
            return self._process_alive(upid)  # the log of an old task may be gone
        return not isinstance(status, dict) or status.get("status") != "stopped"

    def task_alive(self, upid: str) -> bool:
        """Whether the process of a task lives, which must be one of this node.

        Raises:
            RecordInvalid: it is another node's, whose processes nobody sees here.
        """
        own = self._files.node_name()
        if upid.split(":")[1] != own:
            raise RecordInvalid(f"option upid must be a task of node {own}", object="upid")
        return self._process_alive(upid)

    def end_task(self, upid: str) -> None:
        """End a task: SIGTERM, after 5 s SIGKILL, both by Proxmox."""
        if not self.task_alive(upid):
            return
        self._cli.end_task(upid)
        # Proxmox does not look again behind its SIGKILL.
        deadline = self._clock() + END_TIMEOUT
        while self.task_alive(upid):
            if self._clock() >= deadline:
                raise RecoveryFailed(f"the task {upid} was ended and lives on", object=upid)
            self._pause(GLANCE)

    def task_log(self, upid: str) -> Optional[List[str]]:
        """The lines of the log of a task, None if there is none."""
        text = self._read(self._path(self._log_path(upid)))
        return None if text is None else text.splitlines()

    def config(self, vmid: int) -> Optional[VmConfig]:
        """The configuration of a VM of this node."""
        try:
            return self._files.vm_config(vmid)
        except VmAbsent:
            return None

    def owner(self, vmid: int) -> Optional[str]:
        """A node that has a VM or container of this number."""
        for path in self._configs():
            if os.path.basename(path) == f"{vmid}.conf":
                return path.split(os.sep)[-3]
        return None

    def written_by_task(self, vmid: int, upid: Optional[str]) -> bool:
        """Whether the configuration was last written while the task ran."""
        if upid is None:
            return False
        begun = int(upid.split(":")[4], 16)  # UPID:node:pid:pstart:starttime:type:id:user:
        try:
            written = os.stat(self._path(self._config_path(vmid))).st_mtime
            ended = os.stat(self._path(self._log_path(upid))).st_mtime
        except OSError:
            return False
        return begun - TASK_MARGIN <= written <= ended + TASK_MARGIN

    def run_state(self, vmid: int) -> Optional[str]:
        """QEMU's run state; None without a process, ``unknown`` if it does not answer."""
        if self._files.qemu_pid(vmid) is None:
            return None
        try:
            answer = self._monitor(vmid).run("query-status")
        except QemuError:
            return "unknown" if self._files.qemu_pid(vmid) is not None else None
        return str(answer.get("status", "unknown")) if isinstance(answer, dict) else "unknown"

    def loaded(self, vmid: int) -> bool:
        """Whether an incoming migration has completed."""
        try:
            answer = self._monitor(vmid).run("query-migrate")
        except QemuError:
            return False
        return isinstance(answer, dict) and answer.get("status") == "completed"

    def exists(self, volume: str, vmid: int) -> bool:
        """Whether the volume is in the list of its storage."""
        return self._cli.volume_exists(volume, vmid)

    def referrer(self, volume: str, vmid: int) -> Optional[str]:
        """A configuration or process other than those of this VM that refers to the volume."""
        own = os.path.realpath(self._path(self._config_path(vmid)))
        for path in self._configs():
            # A drive line holds the volume bare or as file=, a linked clone as a path below its base.
            words = {word.rpartition("=")[2] for word in re.split(r"[\s,]+", self._read(path) or "")}
            named = any(word == volume or word.startswith(volume + "/") for word in words)
            if named and os.path.realpath(path) != own:
                return f"the configuration {os.path.basename(path)} of node {path.split(os.sep)[-3]}"
        return self._user_of(volume, vmid)

    # --- what can be done

    def carry_out(self, step: Step, vmid: int) -> None:
        """Runs the command of a step; its effect is read back.

        Raises:
            CommandFailed: NODE_COMMAND_FAILED, with what the program said.
            RecoveryFailed: RECOVERY_FAILED, a resumed QEMU does not run.
        """
        if step.action is Action.STOP:
            self._cli.stop(vmid)
        elif step.action is Action.DESTROY:
            self._cli.destroy(vmid)
        elif step.action is Action.FREE:
            self._cli.free(step.object)
        elif step.action is Action.UNLOCK:
            self._cli.unlock_own(vmid)
        else:
            self._resume(vmid)

    def _resume(self, vmid: int) -> None:
        self._cli.resume(vmid)
        deadline = self._clock() + RESUME_TIMEOUT
        while self.run_state(vmid) != "running":
            if self._clock() >= deadline:
                raise RecoveryFailed(f"VM {vmid} was resumed and does not run", object=f"VM {vmid}")
            self._pause(GLANCE)

    # --- how

    def _path(self, path: str) -> str:
        return os.path.join(self._root, path.lstrip("/"))

    @staticmethod
    def _config_path(vmid: int) -> str:
        return f"/etc/pve/qemu-server/{vmid}.conf"

    @staticmethod
    def _log_path(upid: str) -> str:
        # The directory is the last digit of the start time: UPID:node:pid:pstart:starttime:...
        return f"/var/log/pve/tasks/{upid.split(':')[4][-1].upper()}/{upid}"

    def _process_alive(self, upid: str) -> bool:
        """Whether the process of a task lives: its number may have been given away, its start time not."""
        pid, started = (int(part, 16) for part in upid.split(":")[2:4])  # UPID:node:pid:pstart:starttime:...
        text = self._read(self._path(f"/proc/{pid}/stat"))
        fields = (text or "").rpartition(")")[2].split()
        return fields[19:20] == [str(started)] and fields[0] not in _ENDED

    def _configs(self) -> List[str]:
        base = self._path("/etc/pve/nodes/*/")
        return sorted(glob.glob(base + "qemu-server/*.conf") + glob.glob(base + "lxc/*.conf"))

    @staticmethod
    def _read(path: str) -> Optional[str]:
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
            return None

    def _monitor(self, vmid: int) -> Monitor:
        return Monitor(self._path(f"/run/qemu-server/{vmid}.qmp"), self._clock)

    def _user_of(self, volume: str, vmid: int) -> Optional[str]:
        """A process other than this VM's QEMU that has the volume open."""
        try:
            wanted = os.stat(self._path(self._cli.volume_path(volume)))
        except (OSError, NodeCommandFailed):
            return None  # no file: a network storage, which the configurations speak for
        own = str(self._files.qemu_pid(vmid))
        for descriptor in glob.iglob(self._path("/proc/[0-9]*/fd/*")):
            pid = descriptor.split(os.sep)[-3]
            try:
                opened = os.stat(descriptor)
            except OSError:
                continue
            if (opened.st_dev, opened.st_ino) == (wanted.st_dev, wanted.st_ino) and pid != own:
                return f"process {pid}"
        return None


def target_node() -> Node:
    """The node this process runs on."""
    files = NodeFiles(side=Side.TARGET)
    return Node(NodeCli(files=files, side=Side.TARGET), files)
