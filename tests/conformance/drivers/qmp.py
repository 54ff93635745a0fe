# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The monitor of the source QEMU. It is a real QEMU of another version: states are compared, figures are not."""

from __future__ import annotations

import copy
import time
from typing import Any, Dict, List, Optional

from ..capture import Event
from ..monitor import Monitor
from ..session import Fatal, Session

__all__ = ["before_command", "receive", "send"]

MIGRATION = ["none", "setup", "active", "pre-switchover", "device", "completed"]
ENDED = ("failed", "cancelled", "cancelling")
JOB = [
    "undefined",
    "created",
    "running",
    "paused",
    "standby",
    "ready",
    "waiting",
    "pending",
    "aborting",
    "concluded",
    "null",
]
# events that say something about guest or disk; the others are QEMU's own bookkeeping
TELLING = ("STOP", "RESUME", "BLOCK_JOB_READY", "BLOCK_JOB_COMPLETED", "SHUTDOWN")
WAIT_S = 60.0


def _monitor(session: Session) -> Monitor:
    monitor = session.facts.get("monitor")
    if monitor is None:
        source = session.world.source
        if source is None:
            raise Fatal("QMP without a source VM")
        monitor = Monitor(session.world.path("source", f"/run/qemu-server/{source.vmid}.qmp"), negotiate=False)
        session.facts["monitor"] = monitor
        session.facts["qmp commands"] = None
    return monitor  # type: ignore[no-any-return]


def _knows(session: Session, command: str) -> bool:
    if session.facts.get("qmp commands") is None:
        session.facts["qmp commands"] = {each["name"] for each in _monitor(session).query("query-commands")}
    return command in session.facts["qmp commands"]


def send(session: Session, event: Event) -> None:
    monitor = _monitor(session)
    command = copy.deepcopy(session.bindings.fill(event.body))
    name = command["execute"]
    session.facts["qmp command"] = command
    session.facts["qmp skipped"] = False
    if name != "qmp_capabilities":
        command = _adapted(session, command)
    if command is None:
        session.facts["qmp skipped"] = True
        return
    session.facts["qmp command"] = command
    monitor.send(command)


def _adapted(session: Session, command: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """What this QEMU's version has no command or capability for (bindings.json names the rules)."""
    name = command["execute"]
    for rule in session.world.qmp_rules:
        if rule["command"] != name or _knows(session, rule["unless_command"]):
            continue
        if rule["do"] == "skip":
            return None
        command.setdefault("arguments", {}).update(rule["add"])
    if name == "migrate-set-capabilities":
        known = {each["capability"] for each in _monitor(session).query("query-migrate-capabilities")}
        wanted = [each for each in command["arguments"]["capabilities"] if each["capability"] in known]
        command["arguments"]["capabilities"] = wanted
    return command


def receive(session: Session, event: Event) -> None:
    expected = event.body
    monitor = _monitor(session)
    if "event" in expected:
        if expected["event"] in TELLING and not monitor.seen(expected["event"], timeout=10.0):
            session.fail(event, f"QMP event {expected['event']} did not come")
        return
    if session.facts["qmp skipped"]:
        return
    command = session.facts["qmp command"]
    if command["execute"].startswith("query-"):
        _poll(session, event, monitor, command)
        return
    reply = monitor.reply(WAIT_S)
    if set(reply) - {"id"} != set(expected) - {"id"}:
        session.fail(event, f"{command['execute']}: expected {expected!r}, got {reply!r}")


def _poll(session: Session, event: Event, monitor: Monitor, command: Dict[str, Any]) -> None:
    """Asks until the recorded state is reached; a state further on counts as reached."""
    until = time.monotonic() + WAIT_S
    while True:
        reply = monitor.reply(WAIT_S)
        problem = _behind(command["execute"], event.body.get("return"), reply.get("return"))
        if problem is None:
            return
        if time.monotonic() > until or "error" in reply:
            session.fail(event, f"{command['execute']}: {problem}; last answer {str(reply)[:300]}")
            return
        time.sleep(0.05)
        monitor.send(command)


def _behind(name: str, expected: Any, actual: Any) -> Optional[str]:
    if name == "query-migrate":
        return _migration(expected or {}, actual or {})
    if name in ("query-block-jobs", "query-jobs"):
        key = "device" if name == "query-block-jobs" else "id"
        return _jobs(expected or [], actual or [], key)
    if name == "query-status":
        return None if expected["status"] == (actual or {}).get("status") else f"{expected['status']} expected"
    return None if isinstance(actual, type(expected)) else f"{expected!r} expected"


def _migration(expected: Dict[str, Any], actual: Dict[str, Any]) -> Optional[str]:
    wanted, got = expected.get("status", "none"), actual.get("status", "none")
    if wanted in ENDED:
        return None if got == wanted or (wanted == "cancelling" and got == "cancelled") else f"{wanted} expected"
    if got in ENDED:
        return f"{wanted} expected"
    return None if MIGRATION.index(got) >= MIGRATION.index(wanted) else f"{wanted} expected"


def _jobs(expected: List[Dict[str, Any]], actual: List[Dict[str, Any]], key: str) -> Optional[str]:
    present = {each[key]: each for each in actual}
    for job in expected:
        mine = present.get(job[key])
        if mine is None:
            if job.get("status") == "concluded":
                return f"job {job[key]} is not there"
            continue
        if JOB.index(mine["status"]) < JOB.index(job["status"]):
            return f"job {job[key]}: {job['status']} expected"
        if job.get("ready") and not mine.get("ready") and mine["status"] in ("created", "running"):
            return f"job {job[key]}: ready expected"
        if job.get("actively-synced") and mine.get("actively-synced") is False:
            return f"job {job[key]}: actively-synced expected"
    return None


def before_command(session: Session, event: Event) -> None:
    """Nothing to do: recorded QMP stands in the file in its order."""
