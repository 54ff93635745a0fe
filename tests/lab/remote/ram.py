# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The RAM migration of the source, with its parameters, polls and lines (mtunnel-protocol 7.2, steps 10 to 14)."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, Mapping, Optional

from lab.node.base import Die, Node
from lab.node.process import command
from lab.node.vmconfig import VmConfig

from .mirrors import human

__all__ = ["Ram"]

TRUE_CAPABILITIES = ("auto-converge", "xbzrle")
POLL_SECONDS, FAST_POLL_SECONDS = 1.0, 0.1
UNLIMITED = 16 << 30
DOWNTIME_CAP_MS = 2_000_000
FAILED_POLLS = 5
GROWING_POLLS = 5


class Ram:
    """One migration of the running VM's state."""

    def __init__(self, node: Node, vmid: int, config: VmConfig, log: Callable[[str], None]) -> None:
        self.node, self.vmid, self.config, self.log = node, vmid, config, log
        self.downtime_ms = 0

    def _run(self, name: str, arguments: Optional[Mapping[str, Any]] = None, timeout: Optional[float] = None) -> Any:
        return command(self.node, self.vmid, name, arguments, timeout)

    def migrate(self, uri: str, shown: str, limit: Optional[float]) -> None:
        """Until `completed`; limit in KiB/s. uri is what QEMU gets, shown what the log says."""
        self.log(f"starting online/live migration on {shown}")
        self._capabilities()
        self._parameters(limit)
        self.log(f"start migrate command to {shown}")
        self._run("migrate", {"uri": uri})
        self._follow()

    def _capabilities(self) -> None:
        self.log("set migration capabilities")
        known = [entry["capability"] for entry in self._run("query-migrate-capabilities")]
        wanted = [{"capability": name, "state": name in TRUE_CAPABILITIES} for name in known]
        self._run("migrate-set-capabilities", {"capabilities": wanted})

    def _parameters(self, limit: Optional[float]) -> None:
        values = self.config.values
        speed = [int(values["migrate_speed"]) << 20] if int(values.get("migrate_speed", "0")) else []
        speed += [int(limit * 1024)] if limit else []
        self.downtime_ms = min(int(float(values.get("migrate_downtime", "0.1")) * 1000), DOWNTIME_CAP_MS)
        memory = int(values.get("memory", "512").split(",")[0].rpartition("=")[2]) << 20
        cache = 1 << (memory // 10 - 1).bit_length()
        if speed:
            self.log(f"migration speed limit: {human(min(speed))}/s")
        self.log(f"migration downtime limit: {self.downtime_ms} ms")
        self.log(f"migration cachesize: {human(cache)}")
        self.log("set migration parameters")
        wanted = {
            "max-bandwidth": min(speed or [UNLIMITED]),
            "downtime-limit": self.downtime_ms,
            "xbzrle-cache-size": cache,
        }
        self._run("migrate-set-parameters", wanted)

    def _follow(self) -> None:
        failures = grown = 0
        remaining: Optional[int] = None
        transferred, pause = 0, POLL_SECONDS
        while True:
            time.sleep(self.node.seconds(pause))
            try:
                info = self._run("query-migrate")
                failures = 0
            except Die:
                failures += 1
                if failures > FAILED_POLLS:
                    raise Die("too many query migrate failures - aborting") from None
                continue
            if self._ended(info):
                return
            ram: Dict[str, int] = info.get("ram") or {}
            if info.get("status") in ("active", "device") and ram:
                self._progress(info, ram)
                left, moved = ram["remaining"], ram["transferred"] - transferred
                grown = grown + 1 if remaining is not None and (left == 0 or left > remaining) else grown
                remaining, transferred = left, ram["transferred"]
                pause = FAST_POLL_SECONDS if left < moved else POLL_SECONDS
                if grown > GROWING_POLLS and self.downtime_ms < DOWNTIME_CAP_MS:
                    grown = 0
                    self._more_downtime()

    def _progress(self, info: Mapping[str, Any], ram: Mapping[str, int]) -> None:
        rate = human(ram.get("mbps", 0) * 1e6 / 8)
        share = f"{human(ram['transferred'])} of {human(ram['total'])}"
        line = f"migration {info['status']}, transferred {share} VM-state, {rate}/s"
        dirty = ram.get("dirty-pages-rate", 0) * ram.get("page-size", 4096)
        self.log(
            line
            + (f", VM dirties lots of memory: {human(dirty)}/s" if dirty > ram.get("mbps", 0) * 1e6 / 8 > 0 else "")
        )

    def _more_downtime(self) -> None:
        self.downtime_ms = min(self.downtime_ms * 2, DOWNTIME_CAP_MS)
        self.log(f"auto-increased downtime to continue migration: {self.downtime_ms} ms")
        self._run("migrate-set-parameters", {"downtime-limit": self.downtime_ms})

    def _ended(self, info: Mapping[str, Any]) -> bool:
        status = info.get("status")
        if status in ("setup", "cancelling", "wait-unplug", "active", "device"):
            return False
        if status == "completed":
            seconds = max(info.get("total-time", 0), 1) / 1000
            speed = human(info["ram"]["total"] / seconds)
            self.log(f"average migration speed: {speed}/s - downtime {info.get('downtime', 0)} ms")
            self.log(f"migration completed, transferred {human(info['ram']['transferred'])} VM-state")
            self.log("migration status: completed")
            return True
        if status in ("failed", "cancelled"):
            reason = f" - {info['error-desc']}" if info.get("error-desc") else ""
            self.log(f"migration status error: {status}{reason}")
            raise Die("aborting")
        raise Die(f"unable to parse migration status '{status}' - aborting")

    def cancel(self) -> None:
        """migrate_cancel, then the VM runs on unless it was paused before."""
        self.log("migrate_cancel")
        self._run("migrate_cancel")
