# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mirrors of the source's disks onto the target's NBD exports, with the lines of their log (mtunnel-protocol 7.2)."""

from __future__ import annotations

import time
from typing import Any, Dict, List, Mapping, Optional, Set, Tuple

from lab.node.base import Die, Node, complain
from lab.node.process import command

__all__ = ["Mirrors", "duration", "human"]

POLL_SECONDS = 1.0
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def human(count: float) -> str:
    """A size with one decimal."""
    unit = 0
    while count >= 1024 and unit < len(UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.1f} {UNITS[unit]}"


def duration(seconds: float) -> str:
    """5s, 1m 5s, 2h 0m 5s."""
    whole = int(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    words = ([f"{hours}h"] if hours else []) + ([f"{minutes}m"] if whole >= 60 else [])
    return " ".join([*words, f"{whole % 60}s"])


class Mirrors:
    """The block jobs of one migration; the prefix of their names follows the machine's version."""

    def __init__(self, node: Node, vmid: int, machine: Tuple[int, int]) -> None:
        self.node, self.vmid = node, vmid
        self.prefix = "mirror" if machine >= (10, 0) else "drive"
        self.started: Dict[str, float] = {}
        self.told: Set[str] = set()
        """jobs whose readiness was logged; they are not told again when another one starts"""
        self.switchable = any(each["name"] == "block-job-change" for each in self._run("query-commands"))

    def _run(self, name: str, arguments: Optional[Mapping[str, Any]] = None, timeout: Optional[float] = None) -> Any:
        return command(self.node, self.vmid, name, arguments, timeout)

    def _jobs(self) -> Dict[str, Dict[str, Any]]:
        return {job["device"]: job for job in self._run("query-block-jobs")}

    def start(self, key: str, server: Mapping[str, str], limit: Optional[float]) -> None:
        """One mirror; then wait until all that were started are ready. limit in KiB/s."""
        job, device = f"{self.prefix}-{key}", f"drive-{key}"
        told = f" with bandwidth limit: {limit:g} KiB/s" if limit else ""
        complain(f"drive mirror is starting for {device}{told}")
        target = {
            "driver": "nbd",
            "node-name": f"remote-{key}",
            "export": device,
            "server": dict(server),
            "detect-zeroes": "on",
            "discard": "unmap",
        }
        # QEMU connects in this command, through a process of ours that needs a ticket first
        self._run("blockdev-add", target, 30.0)
        arguments: Dict[str, Any] = {
            "job-id": job,
            "device": device,
            "target": f"remote-{key}",
            "sync": "full",
            "auto-dismiss": False,
        }
        if limit:
            arguments["speed"] = int(limit * 1024)
        self._run("blockdev-mirror", arguments, 30.0)
        self.started[key] = time.monotonic()
        self._until_ready()

    def _until_ready(self) -> None:
        while True:
            jobs = self._jobs()
            for key in sorted(self.started):
                job = jobs.get(f"{self.prefix}-{key}")
                self._check(key, job)
                if job is not None and key not in self.told:
                    self._progress(key, job)
            if self.told.issuperset(self.started):
                break
            time.sleep(self.node.seconds(POLL_SECONDS))
        complain("all 'mirror' jobs are ready")

    def _progress(self, key: str, job: Mapping[str, Any]) -> None:
        total, done = job["len"], job["offset"]
        share = 100.0 * done / total if total else 100.0
        line = f"{self.prefix}-{key}: transferred {human(done)} of {human(total)} ({share:.2f}%) in "
        line += duration(time.monotonic() - self.started[key])
        if job.get("ready"):
            self.told.add(key)
            line += ", ready"
        complain(line)

    def _check(self, key: str, job: Optional[Mapping[str, Any]]) -> None:
        """A job that is gone or concluded before its time has failed."""
        if job is not None and not job.get("error") and job["status"] not in ("concluded", "null", "aborting"):
            return
        status = "ok" if job is None else job.get("io-status", "ok")
        reason = (job or {}).get("error") or "mirroring has been cancelled"
        self.cancel()
        raise Die(f"block job (mirror) error: {self.prefix}-{key}: {reason} (io-status: {status})")

    def switch(self, log: Any) -> None:
        """Write-blocking copy mode for all of them, where this QEMU can change it (>= 8.2)."""
        if not self.switchable:
            return
        log("switching mirror jobs to actively synced mode")
        for key in sorted(self.started):
            name = f"{self.prefix}-{key}"
            complain(f"{name}: switching to actively synced mode")
            self._run("block-job-change", {"id": name, "type": "mirror", "copy-mode": "write-blocking"})
        left = sorted(self.started)
        while left:
            jobs = self._jobs()
            for key in list(left):
                self._check(key, jobs.get(f"{self.prefix}-{key}"))
                if jobs[f"{self.prefix}-{key}"].get("actively-synced"):
                    complain(f"{self.prefix}-{key}: successfully switched to actively synced mode")
                    left.remove(key)
            if left:
                time.sleep(self.node.seconds(POLL_SECONDS))

    def complete(self) -> None:
        """End all mirrors without loss, the VM being paused after its RAM moved."""
        self._until_ready()
        for key in sorted(self.started):
            name = f"{self.prefix}-{key}"
            complain(f"{name}: Completing block job...")
            self._run("block-job-cancel", {"device": name})
            complain(f"{name}: Completed successfully.")
        for key in sorted(self.started):
            self._await_end(key)
            self._forget(key)
            complain(f"{self.prefix}-{key}: mirror-job finished")
        self.started.clear()

    def _await_end(self, key: str, seconds: float = 60.0) -> None:
        name = f"{self.prefix}-{key}"
        deadline = time.monotonic() + seconds
        while True:
            job = self._jobs().get(name)
            if job is None or job["status"] in ("concluded", "null"):
                if job is not None and job.get("error"):
                    raise Die(f"block job (mirror) error: {name}: {job['error']}")
                return
            if time.monotonic() > deadline:
                raise Die(f"block job (mirror) error: {name}: does not end")
            time.sleep(0.1)

    def cancel(self) -> None:
        """Force all of them to end; errors are told."""
        keys: List[str] = sorted(self.started)
        self.started.clear()
        for key in keys:
            name = f"{self.prefix}-{key}"
            complain(f"{name}: Cancelling block job")
            try:
                job = self._jobs().get(name)
                if job is not None and job["status"] not in ("concluded", "null", "aborting"):
                    self._run("block-job-cancel", {"device": name, "force": True})
                self._await_quietly(key)
                self._forget(key)
            except Die as error:
                complain(error.text)
            complain(f"{name}: Done.")

    def _await_quietly(self, key: str) -> None:
        try:
            self._await_end(key, 10.0)
        except Die:
            pass

    def _forget(self, key: str) -> None:
        for name, arguments in (
            ("job-dismiss", {"id": f"{self.prefix}-{key}"}),
            ("blockdev-del", {"node-name": f"remote-{key}"}),
        ):
            try:
                self._run(name, arguments)
            except Die:
                pass
