# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The node's own commands ``qm``, ``pvesm`` and ``pvesh``: every change through them, every effect read back.

Edge file: processes. Exit codes are no classes (pve-cli 1.5): what counts is what the config says afterwards.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from typing import Any, Callable, List, Mapping, NoReturn, Optional, Sequence

from ..errors import Side
from .errors import LockForeign, NodeCommandFailed, VmAbsent, printable
from .node_files import NodeFiles

__all__ = ["Completed", "NodeCli", "Run", "StoredVolume", "run_command"]

QM = "/usr/sbin/qm"
PVESM = "/usr/sbin/pvesm"
PVESH = "/usr/sbin/pvesh"
LOCK_WORD = "migrate"
_SHORT = 60.0
_LONG = 600.0
_MAX_OUTPUT = 16 * 1024 * 1024


@dataclass(frozen=True)
class Completed:
    """A command that ended; ``returncode`` -1 when it was ended at its deadline."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class StoredVolume:
    """A volume as a storage lists it; size in bytes."""

    volid: str
    format: str
    size: int


Run = Callable[[Sequence[str], float], Completed]


def run_command(argv: Sequence[str], timeout: float) -> Completed:
    """Run a command of the node without a shell or a terminal, at most ``timeout`` seconds."""
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "HOME": os.environ.get("HOME", "/root"),
    }
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Completed(-1, "", f"not finished after {timeout:g} s")
    except OSError as error:
        return Completed(-1, "", f"cannot be run: {error.strerror}")
    texts = [data[:_MAX_OUTPUT].decode("utf-8", "replace") for data in (done.stdout, done.stderr)]
    return Completed(done.returncode, texts[0], texts[1])


class NodeCli:
    """Commands as root on this node.

    Args:
        run: Runs a command; injected for tests.
        files: Reads effects back.
        side: Which side of the migration this node is.
    """

    def __init__(self, run: Run = run_command, files: Optional[NodeFiles] = None, side: Side = Side.SOURCE) -> None:
        self._run = run
        self._files = files or NodeFiles(side=side)
        self._side = side

    def set_lock(self, vmid: int) -> None:
        """Take the lock ``migrate``: an atomic test-and-set, because ``--skiplock`` is not given (pve-cli 1.4)."""
        done = self._run([QM, "set", str(vmid), "--lock", LOCK_WORD], _SHORT)
        word = self._files.vm_lock(vmid)
        if done.returncode == 0 and word == LOCK_WORD:
            return
        if word:
            raise LockForeign(
                f"VM {vmid} is locked ({word}) by somebody else",
                side=self._side,
                object=f"VM {vmid}",
                remedy="Wait for the running action; after a crash check it, then 'qm unlock'.",
                facts={"lock": word},
            )
        self._failed(done, f"the lock of VM {vmid} could not be set")

    def unlock_own(self, vmid: int, word: str = LOCK_WORD) -> bool:
        """Give the lock back if it is ``word``; False when there is no lock. Another word is refused."""
        found = self._files.vm_lock(vmid)
        if not found:
            return False
        if found != word:
            raise LockForeign(
                f"VM {vmid} is locked ({found}), not ({word})",
                side=self._side,
                object=f"VM {vmid}",
                remedy="Somebody changed the lock: look at the VM before unlocking it.",
                facts={"lock": found},
            )
        done = self._run([QM, "set", str(vmid), "--delete", "lock", "--skiplock"], _SHORT)
        if self._files.vm_lock(vmid):
            self._failed(done, f"the lock of VM {vmid} could not be removed")
        return True

    def stop(self, vmid: int) -> bool:
        """Stop the VM's QEMU in spite of the lock; False when none ran. The process is gone when this returns."""
        if self._files.qemu_pid(vmid) is None:
            return False
        done = self._run([QM, "stop", str(vmid), "--skiplock"], _LONG)
        if self._files.qemu_pid(vmid) is not None:
            self._failed(done, f"VM {vmid} could not be stopped")
        return True

    def set_options(
        self,
        vmid: int,
        options: Mapping[str, str],
        delete: Sequence[str] = (),
        skiplock: bool = True,
    ) -> None:
        """Set and delete config keys of a VM; read back. Deleting an absent key is no change."""
        before = self._files.vm_config(vmid).values
        gone = [key for key in delete if key in before]
        argv = [QM, "set", str(vmid)]
        for key, value in options.items():
            argv += [f"--{key}", value]
        argv += ["--delete", ",".join(gone)] if gone else []
        if len(argv) == 3:
            return
        done = self._run(argv + (["--skiplock"] if skiplock else []), _SHORT)
        after = self._files.vm_config(vmid)
        wrong = [key for key, value in options.items() if not _holds(after.values, after.description, key, value)]
        wrong += [key for key in gone if key in after.values]
        if wrong:
            self._failed(done, f"the options {', '.join(wrong)} of VM {vmid} could not be changed")

    def destroy(self, vmid: int) -> bool:
        """Remove a stopped VM with the volumes its config names; False when there was none."""
        if not self._exists(vmid):
            return False
        done = self._run([QM, "destroy", str(vmid), "--skiplock", "--purge"], _LONG)
        if self._exists(vmid):
            self._failed(done, f"VM {vmid} could not be removed")
        return True

    def _exists(self, vmid: int) -> bool:
        try:
            self._files.vm_config_bytes(vmid)
        except VmAbsent:
            return False
        return True

    def resume(self, vmid: int) -> None:
        """Let a paused VM run in spite of its lock; observe the effect over QMP, not by this."""
        done = self._run([QM, "resume", str(vmid), "--skiplock"], _SHORT)
        if done.returncode:
            self._failed(done, f"VM {vmid} could not be resumed")

    def free(self, volid: str) -> None:
        """Delete a volume. There is no in-use check (pve-cli 1.7): the caller has made one."""
        done = self._run([PVESM, "free", volid], _LONG)
        if done.returncode:
            self._failed(done, f"volume {volid} could not be freed")

    def volume_path(self, volid: str) -> str:
        """Path of a volume; given for volumes that do not exist as well."""
        done = self._run([PVESM, "path", volid], _SHORT)
        path = done.stdout.strip()
        if done.returncode or not path.startswith("/"):
            self._failed(done, f"the path of volume {volid} could not be found")
        return path

    def volume_exists(self, volid: str, vmid: int) -> bool:
        """True when the storage lists the volume for the VMID."""
        return any(entry.volid == volid for entry in self.volumes(volid.partition(":")[0], vmid))

    def volumes(self, storage: str, vmid: int) -> List["StoredVolume"]:
        """What a storage lists for the VMID (pve-cli 4.2)."""
        done = self._run([PVESM, "list", storage, "--vmid", str(vmid)], _SHORT)
        if done.returncode:
            self._failed(done, f"storage {storage} could not be listed")
        rows = [line.split() for line in done.stdout.splitlines()[1:]]
        return [StoredVolume(row[0], row[1], int(row[3])) for row in rows if len(row) >= 4 and row[3].isdecimal()]

    @staticmethod
    def export_argv(volid: str, stream_format: str, with_snapshots: bool = False) -> List[str]:
        """The command whose stdout is the stream of a volume (pve-cli 4.2: qcow2 needs the snapshots)."""
        argv = [PVESM, "export", volid, stream_format, "-"]
        return argv + (["--with-snapshots", "1"] if with_snapshots else [])

    def end_task(self, upid: str) -> None:
        """End a task of this node: SIGTERM, and SIGKILL after 5 s (mtunnel-protocol 2.4); read the effect back."""
        done = self._run([PVESH, "delete", f"/nodes/localhost/tasks/{upid}"], _SHORT)
        if done.returncode:
            self._failed(done, f"the task {upid} could not be ended")

    def pvesh_get(self, path: str, **parameters: str) -> Any:
        """GET of the API in-process, as JSON."""
        argv = [PVESH, "get", path, "--output-format", "json"]
        for key, value in parameters.items():
            argv += [f"--{key}", value]
        done = self._run(argv, _SHORT)
        if done.returncode:
            self._failed(done, f"'pvesh get {path}' failed")
        # pve-cli 4.3: text may precede the value, which is the last line.
        return self._json(done, done.stdout.strip().rpartition("\n")[2], path)

    def _json(self, done: Completed, text: str, path: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return self._failed(done, f"'pvesh get {path}' gave no JSON")

    def _failed(self, done: Completed, what: str) -> NoReturn:
        reason = printable(done.stderr) or printable(done.stdout) or "no message"
        raise NodeCommandFailed(
            f"{what}: {reason}", side=self._side, object="node command", facts={"returncode": done.returncode}
        )


def _holds(values: Mapping[str, str], description: str, key: str, value: str) -> bool:
    """True when the config says what was set; Proxmox VE may order the members of a property string anew."""
    if key == "description":
        return description.strip("\n") == value.strip("\n")
    found = values.get(key)
    return found == value or (found is not None and sorted(found.split(",")) == sorted(value.split(",")))
