# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Websocket upgrades, accepted and refused."""

from __future__ import annotations

import re
import time
from typing import Any, Dict, Tuple

from ..capture import Event
from ..session import Session
from ..wire import Answer, WebSocket, request
from . import data, http

__all__ = ["receive", "send"]

DEFAULTS = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "{{WS_KEY}}",
}
TIMEOUT_S = 40.0
DELAY_401_S = 3.0
KEPT = ("Upgrade", "Connection", "Sec-WebSocket-Accept", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions")


def send(session: Session, event: Event) -> None:
    _ticket(session, event)
    _age(session, event)
    body = event.body
    path = session.bindings.fill_text(body["path"] + "?" + body["query_raw"])
    headers = dict(body["headers"])
    if event.derived:
        # the frames of the real source were not logged: only what it must have sent is known
        headers = {**DEFAULTS, **headers}
    key = WebSocket.key()
    headers = {
        name: key if value == "{{WS_KEY}}" else session.bindings.fill_text(value) for name, value in headers.items()
    }
    socket_path = str(body["query"].get("socket", ""))
    session.paths[event.connection or ""] = socket_path
    vmid = re.search(r"/qemu/(\d+)/", body["path"])
    if vmid and socket_path.endswith(".mtunnel"):
        session.facts["vmid"] = int(vmid[1])
    data.before_handshake(session, event)
    session.facts[f"key {event.connection}"] = key
    session.facts[f"opening {event.connection}"] = event
    session.submit(f"ws {event.connection}", _open, session.world.address("target"), path, headers)


def _open(address: Tuple[str, int], path: str, headers: Dict[str, str]) -> "tuple[Answer, Any]":
    return WebSocket.open(address, path, headers, TIMEOUT_S)


def _ticket(session: Session, event: Event) -> None:
    """Where the POST mtunnel of the real source was not recorded, the ticket is fetched here."""
    missing = re.search(r"\{\{TICKET:(\d+)", str(event.body.get("query_raw", "")))
    if not missing or f"TICKET:{missing[1]}" in session.bindings.values:
        return
    recorded = next(
        (
            http_event
            for http_event in session.capture.of("http", True)
            if http_event.body["url"].endswith("/remote_migrate")
        ),
        None,
    )
    params = recorded.body["params"] if recorded else {}
    vmid = re.search(r"/qemu/(\d+)/", event.body["path"])
    asked = {"storages": params.get("target-storage", "local"), "bridges": params.get("target-bridge", "")}
    answer = request(
        session.world.address("target"),
        "POST",
        f"/api2/json/nodes/target/qemu/{vmid[1] if vmid else 0}/mtunnel",
        {"Authorization": session.bindings.fill_text(event.body["headers"]["Authorization"])},
        asked,
        30.0,
    )
    actual = http.shown(answer)
    http.remember(session, actual)
    granted = session.facts.get("granted")
    if answer.status != 200 or not granted:
        session.fail(event, f"POST mtunnel: {answer.status} {answer.reason}")
        return
    session.bindings.bind("TICKET", missing[1], granted)


def _age(session: Session, event: Event) -> None:
    """A ticket that is let grow old first: the recorded answer tells when the request really went out."""
    reply = session.capture.reply_to(event)
    if reply is None or not event.approximate or reply.at - event.at < 8.0:
        return
    sent_at = reply.at - (DELAY_401_S if reply.body["status"] == 401 else 0.0)
    time.sleep(max(0.0, session.facts["started"] + sent_at - session.now()))


def receive(session: Session, event: Event) -> None:
    answer, socket = session.result(f"ws {event.connection}", TIMEOUT_S + 10)
    expected = event.body
    session.compare(event, [expected["status"], expected["reason"]], [answer.status, answer.reason])
    if socket is None:
        _refused(session, event, answer)
        return
    session.sockets[event.connection or ""] = socket
    got = {name: value for name, value in answer.headers if name in KEPT or name in expected["headers"]}
    session.compare(event, {"headers": expected["headers"]}, {"headers": got})
    if answer.header("Sec-WebSocket-Accept") != WebSocket.accept(session.facts[f"key {event.connection}"]):
        session.fail(event, "Sec-WebSocket-Accept does not belong to the key")
    data.after_handshake(session, event)


def _refused(session: Session, event: Event, answer: Answer) -> None:
    expected, actual = event.body, http.shown(answer)
    if expected["status"] == 101:
        return
    for name, value in expected["headers"].items():
        if name == "Content-Length":
            # the recorded length is that of the body with the real host names
            value = str(len(answer.body))
        session.compare(event, value, answer.header(name), path=f"/headers/{name}")
    for key in ("json", "body"):
        if key in expected:
            session.compare(event, {key: expected[key]}, {key: actual.get(key, "")})
    opening = session.facts[f"opening {event.connection}"]
    recorded = event.at - opening.at
    if expected["status"] == 401 and recorded >= 2.5:
        session.timed(event, DELAY_401_S, answer.elapsed, "delay of the refusal")
