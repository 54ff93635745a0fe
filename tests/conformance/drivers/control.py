# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The line protocol of the control websocket, also in frames that break its rules."""

from __future__ import annotations

import json
import re
from typing import Any, Dict, Optional

from ..capture import Event
from ..session import Fatal, Session
from ..wire import WebSocket, frame
from . import data, http, qmp

__all__ = ["illegal", "receive", "send"]

REPLY_TIMEOUT_S = 60.0
# delays that the contract names: config lock, imports without news, VM start with a busy lock
TIMED = re.compile(r"got timeout|\"status\": \"pending\", \"msg\": \"\"|Encountered wrong lock")
LATE_S = 2.5
LIMIT = 131072
OPCODES = (1, 2, 8, 9, 10)
_PORT = re.compile(r":(6\d{4})\b")


def send(session: Session, event: Event) -> None:
    if event.connection == "fresh":
        _fresh(session, event)
    socket = session.sockets.get(event.connection or "")
    if socket is None:
        raise Fatal(f"no control connection {event.connection}")
    data.before_command(session, event)
    qmp.before_command(session, event)
    _pace(session, event)
    session.facts[f"sent {event.connection}"] = session.now()
    session.facts[f"command {event.connection}"] = event
    try:
        _write(session, socket, event)
    except (OSError, ValueError) as error:
        session.facts[f"write failed {event.connection}"] = str(error)


def _pace(session: Session, event: Event) -> None:
    """A pause that the sender made between two frames of one line, or after a part of a stream, must stay a pause."""
    before = session.capture.before(event)
    if "frame" in event.body or (before is not None and before.kind == "data"):
        session.world.sleep(min(1.0, session.gap(event)))


def _write(session: Session, socket: WebSocket, event: Event) -> None:
    body = event.body
    if "frame" in body:
        payload = _frame(session, event)
        if illegal(body["frame"], payload):
            session.facts["bad frame sent"], session.facts["offender"] = session.now(), event.connection
        socket.send(payload)
    elif "frames_of" in body:
        line = _shape(body) if "json_shape" in body else _whole(session, body)
        for start in range(0, len(line), body["frames_of"]):
            socket.send(frame(2, line[start : start + body["frames_of"]]))
    elif "raw" in body:
        socket.send(frame(2, (session.bindings.fill_text(body["raw"]) + "\n").encode()))
    else:
        socket.send_data(_line(session, event))


def _line(session: Session, event: Event) -> bytes:
    return (json.dumps(session.bindings.fill(event.body), separators=(",", ":")) + "\n").encode()


def _frame(session: Session, event: Event) -> bytes:
    shape: Dict[str, Any] = event.body["frame"]
    if "payload" in shape:
        payload = session.bindings.fill_text(shape["payload"]).encode()
    elif "payload_hex" in shape:
        payload = bytes.fromhex(shape["payload_hex"])
    else:
        line = b'{"cmd":"config","conf":"description: %s\\nmemory: 192\\n"}\n'
        payload = line % (b"x" * (int(shape["payload_len"]) - len(line) + 2))
    return frame(shape["opcode"], payload, shape.get("fin", True), shape.get("rsv", 0), shape.get("masked", True))


def illegal(shape: Dict[str, Any], wire: bytes) -> bool:
    """Whether the front end must not survive the frame (mtunnel-protocol 3.4)."""
    rules = shape.get("fin", True) and not shape.get("rsv", 0) and shape.get("masked", True)
    long = wire[1] & 0x7F == 127 and int.from_bytes(wire[2:10], "big") > LIMIT
    return not rules or shape["opcode"] not in OPCODES or long


def _whole(session: Session, body: Dict[str, Any]) -> bytes:
    """A line given as it is, beside the size of its frames."""
    if "raw" in body:
        return (session.bindings.fill_text(body["raw"]) + "\n").encode()
    request = {key: value for key, value in body.items() if key not in ("frames_of", "line_len")}
    return (json.dumps(session.bindings.fill(request), separators=(",", ":")) + "\n").encode()


def _shape(body: Dict[str, Any]) -> bytes:
    """A long line of which only the shape was kept: ``<7000 x>`` stands for so many characters."""

    def expand(match: "re.Match[str]") -> str:
        return match[2] * int(match[1])

    text = json.dumps(body["json_shape"], separators=(",", ":"))
    line = (re.sub(r"<(\d+) (.)>", expand, text) + "\n").encode()
    if len(line) != body["line_len"]:
        # the recorder's serialiser put spaces elsewhere: pad between the tokens
        line = line.replace(b'":"', b'": "').replace(b'","', b'", "') if len(line) < body["line_len"] else line
    return line


def receive(session: Session, event: Event) -> None:
    socket = session.socket(event)
    command: Optional[Event] = session.facts.get(f"command {event.connection}")
    try:
        text = socket.line(REPLY_TIMEOUT_S)
    except TimeoutError as error:
        raise Fatal(f"{event}: {error}; expected {json.dumps(event.body)[:200]}") from None
    elapsed = session.now() - session.facts.get(f"sent {event.connection}", session.now())
    try:
        actual = json.loads(text)
    except ValueError:
        session.fail(event, f"the reply is no JSON: {text[:200]!r}")
        return
    expected = event.body
    _ports(session, expected, actual)
    if command is not None and command.body.get("cmd") == "query-disk-import":
        actual = data.import_progress(session, event, expected, actual)
    session.compare(event, expected, actual, event.truncated)
    if isinstance(actual, dict) and "ticket" in actual:
        session.facts["granted"] = actual["ticket"]
    if isinstance(actual, dict) and "migrate" in actual:
        data.plain_plane(session, actual)
    if actual is not expected:
        _delay(session, event, command, elapsed)


def _delay(session: Session, event: Event, command: Optional[Event], elapsed: float) -> None:
    if command is None or command.approximate:
        return
    recorded = event.at - command.at
    if recorded >= LATE_S and TIMED.search(json.dumps(event.body)):
        session.timed(event, recorded, elapsed, "delay of the reply")


def _ports(session: Session, expected: Any, actual: Any) -> None:
    """Ports of the plain TCP plane depend on what else is reserved: this lab's stand for the recorded ones."""
    recorded, got = (_PORT.findall(json.dumps(each)) for each in (expected, actual))
    if "migrate" not in expected or len(recorded) != len(got):
        return
    ports = session.facts.setdefault("ports", {})
    ports.update(dict(zip(sorted(set(recorded)), sorted(set(got)))))
    session.bindings.add_literals([(re.compile(rf"(?<!\d){old}(?!\d)"), new) for old, new in ports.items()])


def _fresh(session: Session, event: Event) -> None:
    """Every command of such a block ran on a new tunnel (the note before it says so)."""
    note = [other for other in session.capture.notes("case") if other.index < event.index][-1]
    match = re.search(r"VM (\d+).*token of (\S+?)@", note.body["text"])
    if not match:
        raise Fatal(f"{note}: cannot tell which tunnel a fresh one is")
    vmid, user = match[1], match[2]
    old = session.sockets.pop("fresh", None)
    if old is not None:
        socket_quit(old)
    token = next(each for each in session.world.tokens if each.startswith(user + "@"))
    headers = {"Authorization": f"PVEAPIToken={token}={session.world.tokens[token]}"}
    session.world.forget_vm(int(vmid))
    from ..wire import request

    answer = request(
        session.world.address("target"), "POST", f"/api2/json/nodes/target/qemu/{vmid}/mtunnel", headers, {}, 30.0
    )
    if answer.status != 200:
        raise Fatal(f"{event}: POST mtunnel: {answer.status} {answer.reason}")
    granted = http.shown(answer)["json"]["data"]
    session.bindings.note(granted["upid"])
    session.sockets["fresh"] = session.world.tunnel(vmid, granted["ticket"], granted["socket"], headers)
    if "scsi0: local:" in event.body.get("conf", ""):
        socket = session.sockets["fresh"]
        socket.send_data(
            b'{"cmd":"disk","storage":"local","format":"raw","drive":{"interface":"scsi","index":"0","size":1048576}}\n'
        )
        socket.line(30.0)


def socket_quit(socket: WebSocket) -> None:
    try:
        socket.send_data(b'{"cmd":"quit","cleanup":true}\n')
        socket.line(20.0)
        socket.close_frame()
        socket.wait_end(5.0)
    except (OSError, TimeoutError):
        pass
    socket.finish()
