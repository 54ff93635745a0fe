# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands on a node: output, exit status and the effects on config, lock, QEMU and images."""

from __future__ import annotations

import json
import re
from typing import Any, Dict, List, Optional

from ..capture import Event
from ..session import Session
from ..world import Ran

__all__ = ["run"]

# a command that had to wait for a lock: its wait is part of the contract
WAITED = re.compile(r"trying to acquire|got timeout|timeout")
STARTUP_S = 4.0


def run(session: Session, event: Event) -> None:
    body = event.body
    node = body.get("node", "source")
    argv = session.bindings.fill(body["argv"])
    vmid = _vmid(body)
    _unrecorded(session, event, node, vmid)
    _state(session, event, "state_before", node, vmid)
    _meet_lock(session, event)
    ran = session.world.run(node, argv, session.bindings.fill(body["stdin"]) if body.get("stdin") else None)
    _output(session, event, "stdout", body["stdout"], ran.stdout)
    _output(session, event, "stderr", body["stderr"], ran.stderr)
    if ran.rc != body["rc"]:
        session.fail(event, f"{' '.join(argv)}: rc {body['rc']} expected, got {ran.rc}")
    _waits(session, event, ran)
    _state(session, event, "state_after", node, vmid)
    session.bindings.note(ran.stdout + ran.stderr)


def _unrecorded(session: Session, event: Event, node: str, vmid: Optional[int]) -> None:
    """Between two commands the recorder stopped a VM without a line about it: the states around say so."""
    before = event.body.get("state_before") or {}
    last = session.facts.get(f"state {vmid}")
    if (
        vmid is not None
        and last is not None
        and last.get("qemu")
        and before.get("config")
        and before.get("qemu") is None
    ):
        session.world.run(node, ["qm", "stop", str(vmid), "--skiplock"], None)
    if vmid is not None:
        session.facts[f"state {vmid}"] = event.body.get("state_after")


def _meet_lock(session: Session, event: Event) -> None:
    """A command that got its lock in the end came less than 10 s before the holder let go."""
    until = session.optional("held until")
    if until is not None and re.search(
        r"trying to acquire lock\.\.\.\n OK", event.body["stdout"] + event.body["stderr"]
    ):
        session.world.sleep(until - 5.0 - session.now())


def _vmid(body: Dict[str, Any]) -> Optional[int]:
    """The VM a command is about: the number the images or the arguments carry."""
    for state in ("state_before", "state_after"):
        for image in (body.get(state) or {}).get("images") or []:
            match = re.match(r"vm-(\d+)-", image)
            if match:
                return int(match[1])
    match = re.search(r"(?<![\d.])([1-9]\d{2})(?!\d)", " ".join(body["argv"]))
    return int(match[1]) if match else None


def _output(session: Session, event: Event, stream: str, expected: str, actual: str) -> None:
    texts = _split(expected), _split(actual)
    if texts[0] is not None and texts[1] is not None:
        (before, value), (ours, ours_value) = texts[0], texts[1]
        session.compare(event, before, ours, path=f"/{stream}-text")
        session.compare(event, value, ours_value, path=f"/{stream}")
        return
    if stream == "stdout" and _tree(session, event, expected, actual):
        return
    if "{{PID}}" in expected:
        # the width of a process id moves the columns of a table
        expected, actual = (re.sub(r"[ \t]+", " ", text) for text in (expected, actual))
    session.compare(event, expected, actual, path=f"/{stream}")


def _split(text: str) -> Optional[Any]:
    """Text before and the JSON value on the last line; None where there is none."""
    lines = text.rstrip("\n").split("\n")
    if lines[-1][:1] not in ("{", "["):
        return None
    try:
        return "\n".join(lines[:-1]), json.loads(lines[-1])
    except ValueError:
        return None


def _tree(session: Session, event: Event, expected: str, actual: str) -> bool:
    """`qm status --verbose`: nested key: value lines, compared as the object they show."""
    if "--verbose" not in event.body["argv"]:
        return False
    session.compare(event, _nested(expected), _nested(actual), path="")
    return True


def _nested(text: str) -> Dict[str, Any]:
    root: Dict[str, Any] = {}
    levels: List[Dict[str, Any]] = [root]
    for line in text.splitlines():
        depth = len(line) - len(line.lstrip("\t"))
        key, _, value = line.strip().partition(":")
        del levels[depth + 1 :]
        if value.strip():
            levels[-1][key] = float(value) if re.fullmatch(r" -?\d+(\.\d+)?", value) else value.strip()
        else:
            levels[-1][key] = {}
            levels.append(levels[-1][key])
    return root


def _waits(session: Session, event: Event, ran: Ran) -> None:
    body = event.body
    held = session.optional("held")
    if "lock...\n OK" in body["stdout"] + body["stderr"]:
        return  # it was made to come shortly before the holder let go
    if held is None or not WAITED.search(body["stdout"] + body["stderr"]):
        return
    # the real command needs 1 to 4 s of its own on the machine of the recording: only the waiting is compared
    if ran.elapsed < min(9.5, held) - 1.0 and ran.elapsed + STARTUP_S < body["duration_s"]:
        session.fail(event, f"waited {ran.elapsed:.1f} s, recorded {body['duration_s']:.1f} s")


def _state(session: Session, event: Event, key: str, node: str, vmid: Optional[int]) -> None:
    expected = event.body.get(key)
    if expected is None or vmid is None:
        return
    actual = session.world.vm_state(node, vmid)
    session.compare(event, expected, actual, path=f"/{key}")
