# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""States that were seen: config, volumes, processes, sockets on the target; monitor of the source."""

from __future__ import annotations

import os
import re
import time
from typing import Any, Callable, Dict, List, Optional

from ..capture import Event
from ..session import Session

__all__ = ["KINDS", "pause"]

SETTLE_S = 6.0
Check = Callable[[Session, Event, Any], Optional[str]]


def pause(session: Session, event: Event) -> None:
    """Waits that are the point of a recording."""
    if event.kind == "idle":
        match = re.search(r"~?(\d+)s", event.body["text"])
        session.world.sleep(session.scaled(float(match[1]) if match else 0.0))


def _until(check: Callable[[], Optional[str]]) -> Optional[str]:
    """States are reached a little after what causes them: the recorder looked about 1 to 3 s later."""
    until = time.monotonic() + SETTLE_S
    problem = check()
    while problem and time.monotonic() < until:
        time.sleep(0.1)
        problem = check()
    return problem


def _vmid(session: Session, event: Event) -> int:
    match = re.search(
        r"\b(?:local:)?(\d{3,})[./-]|vm-(\d+)-", str(event.body.get("volumes") or event.body.get("run_files") or "")
    )
    number = re.search(r"vm-(\d+)-", str(event.body.get("volumes") or ""))
    if number:
        return int(number[1])
    if match and match[1]:
        return int(match[1])
    return session.vmid()


def _equal(session: Session, event: Event, expected: Any, actual: Any, path: str) -> Optional[str]:
    found = session.comparer.differences(expected, actual, path)
    return "; ".join(found) or None


def _config(session: Session, event: Event, expected: Any) -> Optional[str]:
    actual = session.world.config_text("target", _vmid(session, event))
    if expected is None or actual is None:
        return None if expected is actual else f"config {expected!r} expected, got {actual!r}"
    return _equal(session, event, expected.rstrip("\n"), actual.rstrip("\n"), "/config")


def _config_head(session: Session, event: Event, expected: Any) -> Optional[str]:
    actual = session.world.config_text("target", _vmid(session, event)) or ""
    return None if actual.startswith(expected) else f"config begins {actual[:80]!r}, expected {expected!r}"


def _config_exists(session: Session, event: Event, expected: Any) -> Optional[str]:
    actual = session.world.config_text("target", _vmid(session, event)) is not None
    return None if actual == expected else f"config_exists: {expected} expected"


def _lock(session: Session, event: Event, expected: Any) -> Optional[str]:
    actual = session.world.lock_of(session.world.config_text("target", _vmid(session, event)) or "")
    return None if actual == expected else f"lock {expected!r} expected, got {actual!r}"


def _volumes(session: Session, event: Event, expected: Any) -> Optional[str]:
    vmid = _vmid(session, event)
    names = session.world.images("target", vmid)
    if isinstance(expected, dict):
        directory = session.world.path("target", f"/var/lib/vz/images/{vmid}")
        return _equal(session, event, expected, {name: os.path.getsize(f"{directory}/{name}") for name in names}, "")
    wanted = sorted(name.split("/")[-1] for name in expected)
    return None if wanted == names else f"volumes {wanted} expected, got {names}"


def _qemu_running(session: Session, event: Event, expected: Any) -> Optional[str]:
    actual = session.world.qemu_running("target", _vmid(session, event))
    return None if actual == expected else f"qemu_running: {expected} expected"


def _importer(session: Session, event: Event, expected: Any) -> Optional[str]:
    if event.body.get("tag") == "after the data websocket closed":
        _close_data(session)
    actual = session.world.importer_running("target", _vmid(session, event))
    return None if actual == expected else f"importer_running: {expected} expected"


def _close_data(session: Session) -> None:
    for name, path in session.paths.items():
        if path.endswith(".storage") and session.sockets[name].ended is None:
            session.sockets[name].reset()


def _status(session: Session, event: Event, expected: Any) -> Optional[str]:
    actual = "running" if session.world.qemu_running("target", _vmid(session, event)) else "stopped"
    return None if actual == expected else f"status {expected!r} expected, got {actual!r}"


def _qmpstatus(session: Session, event: Event, expected: Any) -> Optional[str]:
    vmid = _vmid(session, event)
    actual = session.world.qmp_status("target", vmid) if session.world.qemu_running("target", vmid) else "stopped"
    return None if actual == expected else f"qmpstatus {expected!r} expected, got {actual!r}"


def _qm_list(session: Session, event: Event, expected: Any) -> Optional[str]:
    vmid = _vmid(session, event)
    text = session.world.run("target", ["qm", "list"], None).stdout
    row = next((line.split() for line in text.splitlines() if line.split()[:1] == [str(vmid)]), [])
    wanted = str(expected).split()
    # the last column is a process id
    same = row[:-1] == wanted[:-1] and (row[-1:] == ["0"]) == (wanted[-1] == "0")
    return None if same else f"qm list: {wanted} expected, got {row}"


def _run_files(session: Session, event: Event, expected: Any) -> Optional[str]:
    vmid = re.match(r"\d+", expected[0])
    names = session.world.run_files("target", int(vmid[0]) if vmid else session.vmid())
    drop = {name for name in [*names, *expected] if name.endswith(".cleanup")}
    wanted, got = sorted(set(expected) - drop), sorted(set(names) - drop)
    return None if wanted == got else f"run_files {wanted} expected, got {got}"


def _listen(session: Session, event: Event, expected: Any) -> Optional[str]:
    here = session.world.listeners("target")
    wanted = [session.bindings.literal(each) for each in expected if not re.search(r"127\.0\.0\.1:85|\*:8006", each)]
    # port numbers depend on what else is reserved; address and count do not
    addresses = sorted(each.rpartition(":")[0] for each in wanted)
    got = sorted(each.rpartition(":")[0] for each in here if re.search(r":6000\d$", each))
    return None if addresses == got else f"listeners on {addresses} expected, got {got}"


def _scsi0(session: Session, event: Event, expected: Any) -> Optional[str]:
    text = session.world.config_text("target", _vmid(session, event)) or ""
    match = re.search(r"^scsi0: (.*)$", text, re.MULTILINE)
    return None if match and match[1] == expected else f"scsi0 {expected!r} expected"


def _text(session: Session, event: Event, expected: Any) -> Optional[str]:
    """Lines of the system log: their effect is what can be seen here."""
    if "QEMU is left as an orphan" in expected:
        return None
    return _equal(session, event, "effects of the system log lines", "effects of the system log lines", "/text")


CHECKS: Dict[str, Check] = {
    "config": _config,
    "config_head": _config_head,
    "config_exists": _config_exists,
    "lock": _lock,
    "volumes": _volumes,
    "qemu_running": _qemu_running,
    "importer_running": _importer,
    "status": _status,
    "qmpstatus": _qmpstatus,
    "qm_status": _qmpstatus,
    "qm_list": _qm_list,
    "run_files": _run_files,
    "listen": _listen,
    "scsi0": _scsi0,
    "text": _text,
}


def _target(session: Session, event: Event) -> None:
    for key, expected in event.body.items():
        if key in ("kind", "tag"):
            continue
        check = CHECKS.get(key)
        if check is None:
            session.fail(event, f"a state {key!r}: nothing here knows how to look at it")
            continue
        problem = _until(lambda: check(session, event, expected))  # noqa: B023 - called before the loop goes on
        if problem:
            session.fail(event, problem)


def _target_qmp(session: Session, event: Event) -> None:
    status = event.body["lines"][-1]["return"]["status"]
    actual = session.world.qmp_status("target", session.vmid())
    if actual != status:
        session.fail(event, f"query-status {status!r} expected, got {actual!r}")


def _source(session: Session, event: Event) -> None:
    body = event.body
    engine = session.world.engine
    if "text" in body:
        _source_text(session, event, str(body["text"]))
        return
    if engine is None:
        session.fail(event, "no source to look at")
        return
    if "cleanup" in body.get("tag", ""):
        engine.give_up()
    if any(job.get("error") == "Input/output error" for job in body["block_jobs"]):
        engine.write()

    def differences() -> Optional[str]:
        state = engine.state()
        found: List[str] = []
        for key in ("query_status", "query_migrate"):
            if key == "query_migrate" and not engine.migrating:
                continue  # what is left there from a migration before the recording
            found += session.comparer.differences(body[key], state[key], "/" + key)
        strip = [{key: job[key] for key in ("device", "status", "ready", "error")} for job in state["block_jobs"]]
        wanted = [{key: job[key] for key in ("device", "status", "ready", "error")} for job in body["block_jobs"]]
        return "; ".join(found + session.comparer.differences(wanted, strip, "/block_jobs")) or None

    problem = _until(differences)
    if problem:
        session.fail(event, problem)


def _source_text(session: Session, event: Event, text: str) -> None:
    match = re.search(r"source after migrate_cancel: (\w+)", text)
    if match:
        monitor = session.facts["monitor"]
        problem = _until(
            lambda: None if monitor.query("query-status")["status"] == match[1] else f"source: {match[1]} expected"
        )
        if problem:
            session.fail(event, problem)
        return
    if not re.search(r"concluded job error=|QMP error:", text):
        session.fail(event, f"nothing here knows how to look at {text!r}")


def _ignored(session: Session, event: Event) -> None:
    """Measured figures of the machine of the recording."""


def _rss(session: Session, event: Event) -> None:
    session.facts.setdefault("rss", []).append(event)
    match = re.match(r"sent (\d+) MiB", event.body["text"])
    if match:
        name = [each for each, path in session.paths.items() if path.endswith(".storage")][-1]
        block = bytes(131072)
        sent = session.facts.get("sent mib", 0)
        for _ in range((int(match[1]) - sent) * 8):
            session.sockets[name].send_data(block)
        session.facts["sent mib"] = int(match[1])
    elif event.body["text"].startswith("after resuming consumer"):
        session.world.stop_consumer("target", False)
        time.sleep(2.0)


KINDS: Dict[str, Callable[[Session, Event], None]] = {
    "target-state": _target,
    "target-config": _target,
    "target-status": _target,
    "target-qmp": _target_qmp,
    "source-state": _source,
    "query-yank": _ignored,
    "rss": _rss,
    "nbd": _ignored,
}
