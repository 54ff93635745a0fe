# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The source VM of a recording: what it must have been, and its part of the work where QMP was not recorded."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Dict, List, Optional

from .capture import Capture
from .monitor import Monitor

__all__ = ["Engine", "SourceVm", "derive"]

DEFAULT_SOURCE = 100


@dataclass(frozen=True)
class SourceVm:
    """Config text and volumes (volid -> bytes) of a source VM."""

    vmid: int
    config: str
    volumes: Dict[str, int]
    running: bool
    mirrored: List[str] = field(default_factory=list)


def derive(capture: Capture) -> Optional[SourceVm]:
    """The source VM a recording must have had, read back from what it sent to the target."""
    from .drivers import stages

    if stages.staged(capture):
        return _moved(stages.recorded_config(capture)[1], DEFAULT_SOURCE, True, ["scsi0"])
    if not _needed(capture):
        return None
    configs = [
        event.body
        for event in capture.of("control", True)
        if event.body.get("cmd") == "config" and "conf" in event.body
    ]
    vmid = _source_vmid(capture)
    if not configs:
        return None
    starts = [event.body for event in capture.of("control", True) if event.body.get("cmd") == "start"]
    mirrored = [drive for start in starts for drive in start.get("migrate_opts", {}).get("nbd", {})]
    return _moved(configs[-1]["conf"], vmid, bool(starts), mirrored)


def _moved(config: str, vmid: int, running: bool, mirrored: List[str]) -> SourceVm:
    """The source's config is the target's with its own volume names."""
    target = re.search(r":(\d+)/vm-\1-", config)
    if target:
        config = config.replace(f":{target[1]}/vm-{target[1]}-", f":{vmid}/vm-{vmid}-")
    config = re.sub(r"^lock: .*\n", "", config, flags=re.MULTILINE)
    volumes = {
        volid: _bytes(size) for volid, size in re.findall(r"(local:\d+/vm-[^,\s]+)[^\n]*?size=(\d+[KMGT]?)", config)
    }
    return SourceVm(vmid, config, volumes, running, mirrored)


def _needed(capture: Capture) -> bool:
    if any(True for _ in capture.of("qmp")) or any(True for _ in capture.notes("source-state")):
        return True
    if any(event.body.get("migrate_opts", {}).get("type") == "insecure" for event in capture.of("control", True)):
        return any(event.body["url"].endswith("/remote_migrate") for event in capture.of("http", True))
    return any(
        str(event.body.get("query", {}).get("socket", "")).endswith(".migrate")
        for event in capture.of("ws-handshake", True)
    )


def _source_vmid(capture: Capture) -> int:
    for event in capture.of("http", True):
        match = re.search(r"/qemu/(\d+)/remote_migrate$", event.body["url"])
        if match:
            return int(match[1])
    for event in capture.notes("forward"):
        match = re.search(r"/(\d+)(?:_nbd)?\.migrate$", str(event.body.get("local", "")))
        if match:
            return int(match[1])
    return DEFAULT_SOURCE


def _bytes(size: str) -> int:
    factor = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}.get(size[-1], 1)
    return int(size.rstrip("KMGT")) * factor


class Engine:
    """Does by QMP what the source did when nobody recorded it: mirrors, RAM, switchover, abort."""

    def __init__(self, monitor: Monitor, vmid: int, drives: List[str], slow_mirror: bool, slow_ram: bool) -> None:
        self._monitor, self._vmid = monitor, vmid
        self._waiting = list(drives)
        self.slow_mirror, self.slow_ram = slow_mirror, slow_ram
        self.jobs: List[str] = []
        self.migrating = False

    def waiting(self) -> bool:
        return bool(self._waiting)

    def has_command(self, name: str) -> bool:
        return any(each["name"] == name for each in self._monitor.query("query-commands"))

    def connect_next(self, server: Optional[Dict[str, str]] = None) -> str:
        """Makes QEMU connect to the NBD listener for the next drive: the answer comes once the server greeted it."""
        drive = self._waiting.pop(0)
        server = server or {"type": "unix", "path": f"/run/qemu-server/{self._vmid}_nbd.migrate"}
        self._monitor.send(
            {
                "execute": "blockdev-add",
                "arguments": {
                    "driver": "nbd",
                    "node-name": f"mig-{drive}",
                    "export": f"drive-{drive}",
                    "detect-zeroes": "on",
                    "discard": "unmap",
                    "server": server,
                },
            }
        )
        return drive

    def mirror(self, drive: str) -> None:
        reply = self._monitor.reply(30.0)
        if "error" in reply:
            raise RuntimeError(f"blockdev-add mig-{drive}: {reply['error']}")
        arguments: Dict[str, Any] = {
            "job-id": f"mig-{drive}",
            "device": f"drive-{drive}",
            "target": f"mig-{drive}",
            "sync": "full",
            "auto-dismiss": False,
        }
        if self.slow_mirror:
            arguments["speed"] = 1 << 20
        elif not self.has_command("block-job-change"):
            arguments["copy-mode"] = "write-blocking"
        self._monitor.query("blockdev-mirror", arguments)
        self.jobs.append(f"mig-{drive}")
        if self.slow_mirror:
            # the first burst has to be over: a connection lost between two requests is not noticed by the job
            time.sleep(1.5)
        else:
            self._until(lambda: self._job(f"mig-{drive}").get("ready"), 60.0, f"mirror of {drive} ready")

    def _job(self, name: str) -> Dict[str, Any]:
        return next((job for job in self._monitor.query("query-block-jobs") if job["device"] == name), {})

    @staticmethod
    def _until(check: Any, timeout: float, what: str) -> None:
        until = time.monotonic() + timeout
        while not check():
            if time.monotonic() > until:
                raise TimeoutError(f"source: {what}: not within {timeout:g} s")
            time.sleep(0.05)

    def migrate(self, uri: str = "") -> None:
        parameters = {"downtime-limit": 100, "max-bandwidth": (16 << 10) if self.slow_ram else (16 << 30)}
        self._monitor.query("migrate-set-parameters", parameters)
        self._monitor.query("migrate", {"uri": uri or f"unix:/run/qemu-server/{self._vmid}.migrate"})
        self.migrating = True

    def status(self) -> str:
        return str(self._monitor.query("query-migrate").get("status", ""))

    def settle(self) -> None:
        """The RAM is over (unless it was slowed down on purpose)."""
        if self.migrating and not self.slow_ram:
            self._until(lambda: self.status() in ("completed", "failed", "cancelled"), 120.0, "RAM migration")

    def problem(self) -> str:
        """Why the RAM migration failed; empty when it did not."""
        found = self._monitor.query("query-migrate")
        return str(found.get("error-desc", "no reason given")) if found.get("status") == "failed" else ""

    def end_mirrors(self) -> None:
        for name in list(self.jobs):
            if self._job(name).get("status") not in ("concluded", None):
                self._monitor.execute("block-job-cancel", {"device": name})
            self._until(partial(self._concluded, name), 30.0, f"end of {name}")
            self._monitor.execute("job-dismiss", {"id": name})
            self._monitor.execute("blockdev-del", {"node-name": name})
            self.jobs.remove(name)

    def _concluded(self, name: str) -> bool:
        jobs = [job for job in self._monitor.query("query-jobs") if job["id"] == name]
        return not jobs or jobs[0]["status"] == "concluded"

    def give_up(self) -> None:
        """Regular cancel: RAM first, then the mirrors; the VM runs on."""
        if self.migrating:
            self._monitor.execute("migrate_cancel")
            self._until(lambda: self.status() in ("cancelled", "failed", "completed"), 20.0, "migrate_cancel")
        for name in list(self.jobs):
            self._monitor.execute("block-job-cancel", {"device": name, "force": True})
        self.end_mirrors()
        if self._monitor.query("query-status")["status"] == "postmigrate":
            self._monitor.execute("cont")

    def cancel_ram(self) -> None:
        self._monitor.execute("migrate_cancel")

    def cancel_jobs_unanswered(self) -> None:
        """Over a dead link this command is not answered: its reply is not waited for."""
        for name in self.jobs:
            self._monitor.send(
                {"execute": "block-job-cancel", "id": "forced", "arguments": {"device": name, "force": True}}
            )

    def answered(self, seconds: float) -> bool:
        try:
            self._monitor.reply(seconds, "forced")
            return True
        except TimeoutError:
            return False

    def write(self) -> None:
        """A write to the disk: an idle guest would not notice that its mirror is gone."""
        for name in self.jobs:
            drive = name[len("mig-") :]
            self._monitor.execute("human-monitor-command", {"command-line": f'qemu-io {drive} "write -P 1 0 4k"'})
            self._monitor.execute("human-monitor-command", {"command-line": f'qemu-io drive-{drive} "write -P 1 0 4k"'})

    def yank(self) -> None:
        nodes = [each for each in self._monitor.query("query-yank") if each["type"] == "block-node"]
        self._monitor.query("yank", {"instances": [each for each in nodes if each["node-name"].startswith("mig-")]})

    def state(self) -> Dict[str, Any]:
        migrate = self._monitor.query("query-migrate")
        shown = {key: migrate[key] for key in ("status", "error-desc") if key in migrate}
        jobs = [
            {
                "device": job["device"],
                "status": job["status"],
                "ready": job["ready"],
                "error": job.get("error"),
                "offset": job["offset"],
                "len": job["len"],
            }
            for job in self._monitor.query("query-block-jobs")
        ]
        return {
            "query_status": self._monitor.query("query-status")["status"],
            "query_migrate": shown,
            "block_jobs": jobs,
        }
