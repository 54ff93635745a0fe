# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""API requests."""

from __future__ import annotations

import json
import re
from typing import Any, Dict, List, Optional

from ..capture import Event
from ..session import Session
from ..wire import Answer, request

__all__ = ["receive", "send"]

# answers that are late on purpose (README "How to compare"): the recorded delay is part of the contract
SLOW_ANSWERS = re.compile(r"^401 |^200 .*status/current|^200 .*tasks/UPID")
LATE_S = 2.5


def send(session: Session, event: Event) -> None:
    body = event.body
    url = session.bindings.fill_text(body["url"])
    headers = session.bindings.fill(body.get("headers", {}))
    params = session.bindings.fill(body.get("params") or {})
    node = session.world.node_of(url)
    session.facts["url"], session.facts["request"] = body["url"], event
    session.submit("http", request, session.world.address(node), body["method"], url, headers, params, 90.0)


def receive(session: Session, event: Event) -> None:
    answer: Answer = session.result("http", 120.0)
    expected = event.body
    actual = shown(answer)
    remember(session, actual)
    session.compare(event, [expected["status"], expected["reason"]], [answer.status, answer.reason])
    if "json" in expected:
        _json(session, event, expected["json"], actual)
    elif "body" in expected:
        session.compare(event, expected["body"], actual.get("body", ""))
    recorded = event.at - session.facts["request"].at
    sort = f"{expected['status']} {session.facts['url']}"
    if recorded >= LATE_S and SLOW_ANSWERS.search(sort) and not session.facts["request"].approximate:
        session.timed(event, recorded, answer.elapsed, "delay of the answer")


def shown(answer: Answer) -> Dict[str, Any]:
    """The body as the recordings show it: ``json`` when it is JSON, ``body`` otherwise."""
    text = answer.body.decode("utf-8", "surrogateescape")
    try:
        return {"json": json.loads(text)} if text.strip() else {"body": ""}
    except ValueError:
        return {"body": text}


def remember(session: Session, actual: Dict[str, Any]) -> None:
    data = actual.get("json", {}).get("data") if isinstance(actual.get("json"), dict) else None
    session.bindings.note(json.dumps(data))
    if isinstance(data, str):
        session.facts["task"] = data
    if not isinstance(data, dict):
        return
    if "upid" in data:
        session.marks["posted"] = session.now()
        session.facts["tunnel"] = data["upid"]
    if str(data.get("ticket", "")).startswith("PVE:"):
        session.bindings.bind("LOGIN_TICKET", None, data["ticket"])
        session.bindings.bind("CSRF", None, data["CSRFPreventionToken"])
    elif "ticket" in data and "socket" in data:
        session.facts["granted"] = data["ticket"]


def _json(session: Session, event: Event, expected: Any, actual: Dict[str, Any]) -> None:
    if "json" not in actual:
        session.fail(event, f"JSON expected, got {actual.get('body', '')!r}")
        return
    if "text_prefix" in expected:
        # the recorder kept the beginning of the text only
        if "LOGIN_TICKET" not in session.bindings.values:
            session.fail(event, f"no login ticket in {actual['json']!r}")
        return
    lines, ours = _lines(expected), _lines(actual["json"])
    if lines is not None and ours is not None:
        session.fail(event, *session.comparer.same_lines(lines, ours))
        return
    session.compare(event, {"json": expected}, actual, event.truncated)
    _late_ticket(session, event)


def _lines(value: Any) -> Optional[List[str]]:
    """The lines of a task log; None for any other answer."""
    data = value.get("data") if isinstance(value, dict) else None
    if (
        not isinstance(data, list)
        or not data
        or not all(isinstance(each, dict) and set(each) == {"n", "t"} for each in data)
    ):
        return None
    return [each["t"] for each in sorted(data, key=lambda each: int(each["n"]))]


def _late_ticket(session: Session, event: Event) -> None:
    """A cut recording lacks the ticket that a later line names."""
    if not event.truncated or "granted" not in session.facts:
        return
    number = 1
    while f"TICKET:{number}" in session.bindings.values:
        number += 1
    session.bindings.bind("TICKET", str(number), session.facts["granted"])
