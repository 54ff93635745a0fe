# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The importer of disk-import: a `pvesm import` process on a UNIX socket, its output line by line.

mtunnel-protocol 7.3.

A stream cut short is a success for it; only the sender can know. It outlives the tunnel until its data connection ends.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from typing import Any, Dict, List, Mapping, Optional

from lab import faults
from lab.node.base import Die, Node
from lab.node.storage import Storage, Storages

from .personality import scaled
from .schema import split_list

__all__ = ["Importer", "transfer_format"]

READY_SECONDS = 30.0
"""The real one waits 5 s (mtunnel-protocol 7.3) for a program that starts in a fraction of one; ours may have to share
two cores with much else. What is waited for comes or does not come."""
QUERY_SECONDS = 5.0
COMPLETE = re.compile(r"successfully imported '(.+)'")


def transfer_format(storage: Storage, image_format: str, offered: str, with_snapshots: bool) -> str:
    """The first stream format offered that the storage can import.

    A directory takes whole image files as volumes with snapshots only; without, it takes raw data and finds out later
    that they do not fit the image's format (mtunnel-protocol 7.3).
    """
    known = [] if with_snapshots else ["raw+size"]
    if storage.is_directory and with_snapshots and image_format in ("qcow2", "vmdk"):
        known = [image_format + "+size"]
    for name in split_list(offered):
        if name in known:
            return name
    raise Die("no matching import/export format found for storage '%s'" % storage.sid)


class Importer:
    """One running import."""

    def __init__(self, process: "subprocess.Popen[bytes]", socket: str, form: str) -> None:
        self.process = process
        self.socket = socket
        self.format = form
        self.buffer = b""
        self.ended = False

    @property
    def pid(self) -> int:
        """Process id that error texts name."""
        return self.process.pid

    @classmethod
    def start(cls, node: Node, vmid: int, parameters: Mapping[str, Any]) -> "Importer":
        """Start the process and wait for its "ready"."""
        storages = Storages(node)
        storage = storages.get(parameters["storage"])
        image_format = parameters["format"]
        if image_format not in storage.formats:
            raise Die("unsupported format '%s' for storage '%s'" % (image_format, storage.sid))
        form = transfer_format(
            storage, image_format, parameters["export_formats"], bool(parameters.get("with_snapshots"))
        )
        name = storages.volume_name(storage, vmid, parameters["volname"], image_format)
        socket = "/run/qemu-server/%d.storage" % vmid
        node.path(socket).unlink(missing_ok=True)
        argv = [
            *command(node),
            "import",
            "%s:%s" % (storage.sid, name),
            form,
            "unix://" + socket,
            "-with-snapshots",
            str(int(bool(parameters.get("with_snapshots")))),
        ]
        if parameters.get("snapshot"):
            argv += ["-snapshot", str(parameters["snapshot"])]
        if parameters.get("allow_rename"):
            argv += ["-allow-rename", "1"]
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(node),
            restore_signals=True,
        )
        importer = cls(process, socket, form)
        importer._await_ready()
        return importer

    def _await_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        lines: List[str] = []
        while True:
            line = self._line(deadline - time.monotonic())
            if line is None:
                self.process.kill()
                self.process.wait()
                raise Die("import failed: %s" % (" ".join(lines) or "timeout"))
            if line == "ready":
                return
            lines.append(line)

    def _line(self, seconds: float) -> Optional[str]:
        """The next line of output, or None after a time or at its end."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self.buffer and not self.ended:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                return None
            data = os.read(self.process.stdout.fileno(), 65536)
            self.ended = not data
            self.buffer += data.replace(b"\r", b"\n")
        if not self.buffer:
            return None
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode("utf-8", "replace")

    def query(self) -> Dict[str, Any]:
        """pending with one line, complete with the volume, or error."""
        if faults.take("import_error"):
            self.process.kill()
            self.ended = True
        line = self._line(scaled(QUERY_SECONDS))
        if line:
            # in the task's log too, where only there a reason survives (mtunnel-protocol 7.3); the line keeps its end
            os.write(1, ("disk-import: %s\n\n" % line).encode("utf-8", "surrogateescape"))
        if line is None and not self.ended:
            return {"status": "pending", "msg": ""}
        match = COMPLETE.fullmatch(line) if line is not None else None
        if match:
            self.process.wait()
            return {"status": "complete", "volid": match[1]}
        if line is not None:
            return {"status": "pending", "msg": line + "\n"}
        self.process.wait()
        return {"status": "error", "msg": "import process failed\n"}


def command(node: Node) -> List[str]:
    """pvesm of this host; stand-alone the module itself."""
    program = "/usr/sbin/pvesm"
    return [program] if not node.root and os.path.exists(program) else [sys.executable, "-m", "lab.commands.pvesm"]


def environment(node: Node) -> Dict[str, str]:
    """The importer's environment: same root, same modules."""
    return {**os.environ, "LAB_ROOT": node.root, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
