# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be seen of a VM on one host of the lab from outside: config, QEMU, volumes, locks, journals.

Reads files and QMP; asks nothing of the product and nothing of the lab's own commands. QMP serves one client, so
``run_state`` is for the time before and after a move, never during it.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator

STORAGES = {"local": "/var/lib/vz", "fast": "/srv/fast", "slow": "/srv/slow"}
JOURNALS = "/var/lib/crosscluster/migrations"
WRITTEN = ("/etc/pve", "/var/lib/crosscluster", "/run/crosscluster", "/run/qemu-server", "/var/log/pve/tasks")
QMP_TIMEOUT = 5.0  # seconds


@dataclass(frozen=True)
class Side:
    """One VM, or its absence, on one host."""

    host: Any
    vmid: int

    @property
    def config_text(self) -> str | None:
        path = Path(self.host.path(f"/etc/pve/nodes/{self.host.name}/qemu-server/{self.vmid}.conf"))
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else None

    @property
    def config(self) -> dict[str, str]:
        """The current section of the config; empty when there is none."""
        values = {}
        for line in (self.config_text or "").split("\n[", 1)[0].splitlines():
            key, sign, value = line.partition(": ")
            if sign and not line.startswith("#"):
                values[key] = value
        return values

    @property
    def lock(self) -> str | None:
        return self.config.get("lock")

    @property
    def qemu(self) -> int | None:
        """The pid of its QEMU inside the host."""
        return self.host.qemu_pids().get(self.vmid)

    def qmp(self, command: str, **arguments: Any) -> Any:
        """One QMP command on a connection of its own."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(QMP_TIMEOUT)
            link.connect(self.host.path(f"/run/qemu-server/{self.vmid}.qmp"))
            stream = link.makefile("rwb")
            stream.readline()
            for name, given in (("qmp_capabilities", {}), (command, arguments)):
                stream.write(json.dumps({"execute": name, "arguments": given}).encode() + b"\n")
                stream.flush()
                answer = _answer(stream)
            return answer

    @property
    def run_state(self) -> str | None:
        """QEMU's own word for the run state, or None when no QEMU runs this VM."""
        return self.qmp("query-status")["status"] if self.qemu else None

    def volumes(self) -> dict[str, int]:
        """Volume id to allocated size of everything that lies in the image directories of this VMID."""
        found = {}
        for storage, path in STORAGES.items():
            directory = Path(self.host.path(f"{path}/images/{self.vmid}"))
            if directory.is_dir():
                for entry in directory.iterdir():
                    found[f"{storage}:{self.vmid}/{entry.name}"] = entry.stat().st_size
        return found

    def image(self, volid: str) -> Path:
        """The file of a volume as seen from the machine."""
        storage, name = volid.split(":", 1)
        return Path(self.host.path(f"{STORAGES[storage]}/images/{name}"))

    def jobs(self) -> list[str]:
        """Block jobs of its QEMU."""
        return [job["device"] for job in self.qmp("query-block-jobs")]

    def foreign_nodes(self) -> list[str]:
        """Block nodes that carry NBD: what a migration adds to a source and must take away again."""
        return [node["node-name"] for node in self.qmp("query-named-block-nodes") if node.get("drv") == "nbd"]


def _answer(stream: Any) -> Any:
    while True:
        reply = json.loads(stream.readline())
        if "return" in reply:
            return reply["return"]
        if "error" in reply:
            raise AssertionError(f"QMP: {reply['error']}")


def files_below(host: Any, places: tuple[str, ...] = WRITTEN, contents: bool = True) -> dict[str, str]:
    """Path to kind and content digest of everything below some directories of a host."""
    found = {}
    for place in places:
        base = Path(host.path(place))
        for directory, names, files in os.walk(base):
            # What the lab's own daemons keep is no write of anybody else's.
            names[:] = [name for name in names if not name.startswith(".lab-")]
            for name in [*names, *files]:
                path = Path(directory) / name
                inside = place + str(path)[len(str(base)) :]
                found[inside] = _print(path, contents)
    return found


def _print(path: Path, contents: bool) -> str:
    try:
        if path.is_symlink():
            return "link to " + os.readlink(path)
        if path.is_file() and contents:
            return hashlib.sha256(path.read_bytes()).hexdigest()
        return "directory" if path.is_dir() else "there"
    except FileNotFoundError:
        return "gone"


def image_names(host: Any) -> set[str]:
    """Every file in the image directories; a running guest changes what is in them, not which there are."""
    return set(files_below(host, tuple(f"{path}/images" for path in STORAGES.values()), contents=False))


def everything(host: Any) -> dict[str, str]:
    """What a run that must write nothing has to leave as it was."""
    return {**files_below(host), **dict.fromkeys(image_names(host), "image")}


def difference(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Paths that came, went or changed."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def journal_paths(host: Any) -> list[Path]:
    """Journals on a host, oldest first."""
    base = Path(host.path(JOURNALS))
    found = [path / "journal" for path in base.iterdir() if (path / "journal").exists()] if base.is_dir() else []
    return sorted(found, key=lambda path: path.stat().st_mtime)


def journal_records(path: Path) -> list[dict[str, Any]]:
    """The whole records of a journal; a torn last line is left out."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line.split(b" ", 2)[2]) for line in lines if line.count(b" ") >= 2]


def journals_of(host: Any, vmid: int) -> Iterator[list[dict[str, Any]]]:
    """The records of every journal of one source VM."""
    for path in journal_paths(host):
        records = journal_records(path)
        if records and records[0]["spec"]["source"]["vmid"] == vmid:
            yield records


def process_ids(host: Any, *words: str) -> list[int]:
    """Pids, as the host counts them, of processes in a host whose command line holds all of the words."""
    found = []
    for name in os.listdir(host.path("/proc")):
        if not name.isdigit():
            continue
        try:
            base = Path(host.path(f"/proc/{name}"))
            line = (base / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if all(word in line for word in words):
                found.append(int(name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
