# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Data websockets: forwarded sockets of the source QEMU and streams for disk-import."""

from __future__ import annotations

import json
import re
import struct
import time
from typing import Any, Dict, Iterator, List, Optional

from ..capture import Event
from ..relay import Carried, Forward
from ..session import Fatal, Session
from ..wire import WebSocket

__all__ = [
    "after_handshake",
    "before_command",
    "before_handshake",
    "carried",
    "finish_mirrors",
    "import_progress",
    "send_note",
]


def _local(session: Session, remote: str) -> Optional[str]:
    """The recorded local path of a forward, else the usual name for the source VM."""
    for event in session.capture.events:
        if event.kind == "forward" and event.body.get("remote") == remote:
            return str(event.body["local"])
        message = event.body.get("message")
        if (
            event.kind == "tunnel-client-stdin"
            and isinstance(message, dict)
            and message.get("cmd") == "forward"
            and message["data"].get("ticket", {}).get("path") == remote
        ):
            return str(message["data"]["unix"])
    source = session.world.source
    if source is None:
        return None
    return re.sub(r"/\d+((?:_nbd)?\.migrate)$", rf"/{source.vmid}\1", remote)


def forward(session: Session, remote: str) -> Forward:
    forwards: Dict[str, Forward] = session.facts.setdefault("forwards", {})
    if remote not in forwards:
        local = _local(session, remote)
        if local is None:
            raise Fatal(f"nothing on the source to carry to {remote}")
        forwards[remote] = Forward(session.world.path("source", local))
    return forwards[remote]


def _is_carried(path: str) -> bool:
    return path.endswith(".migrate")


def before_handshake(session: Session, event: Event) -> None:
    path = session.paths[event.connection or ""]
    if not _is_carried(path) or session.world.source is None:
        return
    forward(session, path)
    engine = session.world.engine
    if engine is None:
        return
    # nobody recorded QMP: the source QEMU connects because it is told so here
    if path.endswith("_nbd.migrate"):
        if engine.waiting():
            session.facts["drive"] = engine.connect_next()
    else:
        engine.migrate()


def after_handshake(session: Session, event: Event) -> None:
    path = session.paths[event.connection or ""]
    socket = session.socket(event)
    if path.endswith(".storage"):
        _plan_import(session, event, socket)
    if not _is_carried(path) or session.world.source is None:
        return
    engine = session.world.engine
    drive = session.facts.pop("drive", None)
    if engine is not None and path.endswith("_nbd.migrate") and drive is None:
        return
    joined = forward(session, path).attach(socket)
    session.facts.setdefault("carried", {})[event.connection] = joined
    if engine is not None and drive is not None:
        engine.mirror(drive)
    elif engine is not None:
        engine.settle()
        if engine.problem():
            session.fail(event, f"the RAM migration failed: {engine.problem()}")


def carried(session: Session, event: Event) -> Optional[Carried]:
    """The carried stream a forward note speaks of."""
    name = event.body.get("conn")
    streams: Dict[str, Carried] = session.facts.get("carried", {})
    if name is not None:
        return streams.get(str(name))
    local = str(event.body.get("local", ""))
    for remote, each in session.facts.get("forwards", {}).items():
        if _local(session, remote) == local:
            # several connections of one listener end in the order in which they were made
            key = f"{event.body['event']} {local}"
            number = session.facts[key] = session.facts.get(key, -1) + 1
            return each.carried[min(number, len(each.carried) - 1)] if each.carried else None
    return None


def before_command(session: Session, event: Event) -> None:
    engine = session.world.engine
    if engine is None or event.body.get("cmd") not in ("nbdstop", "resume"):
        return
    if engine.migrating and not engine.slow_ram:
        engine.settle()
        engine.end_mirrors()


def finish_mirrors(session: Session, body: Dict[str, Any]) -> None:
    """The end of an NBD stream is noted before the command that follows it: the mirrors end here then."""
    engine = session.world.engine
    path = session.paths.get(str(body.get("conn"))) or str(body.get("local", ""))
    if engine is not None and engine.migrating and path.endswith("_nbd.migrate") and engine.status() == "completed":
        engine.end_mirrors()


def plain_plane(session: Session, reply: Dict[str, Any]) -> None:
    """RAM and NBD on plain TCP: no websocket opens them, the reply of `start` does."""
    engine = session.world.engine
    uri = str(reply.get("migrate", {}).get("uri", ""))
    if engine is None or not uri.startswith("tcp:"):
        return
    while engine.waiting():
        where = next(iter(reply["drives"].values()))["nbd_uri"].split(":")
        engine.mirror(engine.connect_next({"type": "inet", "host": where[1], "port": where[2]}))
    engine.migrate(uri)
    engine.settle()


def _following(session: Session, event: Event) -> Iterator[Event]:
    """Events until the same connection or socket is opened again."""
    path = session.paths[event.connection or ""]
    for other in session.capture.after(event):
        if other.channel == "ws-handshake" and other.sent and other.body["query"].get("socket") == path:
            return
        yield other


def _plan_import(session: Session, event: Event, socket: WebSocket) -> None:
    """Streams whose sender was not noted byte by byte are sent at once, as the real source does."""
    total = virtual = None
    kind = "raw"
    for other in _following(session, event):
        if other.kind in ("data", "import"):
            return
        if other.kind == "forward" and other.body.get("event") == "local-eof" and total is None:
            total = int(other.body["bytes_sent"])
        text = str(other.body.get("msg", ""))
        size = re.search(r"^Formatting .*fmt=(\w+).*? size=(\d+)", text)
        if size:
            kind, virtual = size[1], virtual or int(size[2])
        odd = re.search(r"^size (\d+) is not aligned", text)
        if odd:
            virtual = int(odd[1])
        if other.body.get("status") in ("complete", "error"):
            break
    if total is None:
        return
    session.submit(f"import {event.connection}", _feed, session, socket, kind, total - 8, virtual or total - 8)


def _feed(session: Session, socket: WebSocket, kind: str, payload: int, virtual: int) -> int:
    if kind == "qcow2":
        image = session.world.image("qcow2", virtual)
        size = image.stat().st_size
        # the header holds the virtual size, also where the stream is an image file of another length
        socket.send(_frame(struct.pack("<Q", virtual)))
        with image.open("rb") as stream:
            while piece := stream.read(131072):
                socket.send(_frame(piece))
        payload = size
    else:
        socket.send(_frame(struct.pack("<Q", virtual)))
        _zeros(socket, payload)
    socket.close_frame()
    socket.wait_end(120.0)
    return payload


def _frame(payload: bytes) -> bytes:
    from ..wire import frame

    return frame(2, payload)


def _zeros(socket: WebSocket, count: int) -> None:
    block = bytes(range(256)) * 512
    while count:
        size = min(count, len(block))
        socket.send(_frame(block[:size]))
        count -= size


def send_note(session: Session, event: Event) -> None:
    """Notes of kind data and import: bytes the recorder sent itself."""
    body = event.body
    if body["kind"] == "import":
        match = re.search(r"sent 8\+(\d+) bytes, closing", body["text"])
        if not match:
            raise Fatal(f"{event}: cannot tell what was sent")
        socket = _storage_socket(session)
        socket.send(_frame(struct.pack("<Q", int(match[1]))))
        _zeros(socket, int(match[1]))
        socket.close_frame()
        socket.wait_end(60.0)
        return
    socket = session.sockets[body["conn"]]
    if "u64le_size_header" in body:
        socket.send(_frame(struct.pack("<Q", int(body["u64le_size_header"]))))
    _zeros(socket, int(body["payload_bytes"]))
    after = re.search(r"close frame(?: after ([0-9.]+) s)?", body["then"])
    if after:
        time.sleep(float(after[1] or 0))
        socket.close_frame()
        socket.wait_end(20.0)


def _storage_socket(session: Session) -> WebSocket:
    name = [each for each, path in session.paths.items() if path.endswith(".storage")][-1]
    return session.sockets[name]


def import_progress(session: Session, event: Event, expected: Dict[str, Any], actual: Any) -> Any:
    """Polls of an import: how often nothing new is reported depends on the machine, the order of the lines does not.

    A line that comes where there was none yet is kept for the next poll; the recorded reply then stands for itself.
    """
    ahead: List[Any] = session.facts.setdefault("import ahead", [])
    ahead.append(actual)
    actual = ahead.pop(0)
    if _quiet(expected) and not _quiet(actual) and isinstance(actual, dict) and actual.get("success"):
        ahead.insert(0, actual)
        return expected
    until = session.now() + 60.0
    while isinstance(actual, dict) and actual.get("status") == "pending" and session.now() < until:
        early = _quiet(actual) and not _quiet(expected)
        if not early and expected.get("status") not in ("complete", "error"):
            break
        actual = ahead.pop(0) if ahead else _poll(session, event)
    if isinstance(actual, dict) and actual.get("status") in ("complete", "error"):
        ahead.clear()
    return actual


def _quiet(reply: Any) -> bool:
    return isinstance(reply, dict) and reply.get("status") == "pending" and reply.get("msg") == ""


def _poll(session: Session, event: Event) -> Any:
    socket = session.socket(event)
    socket.send(_frame(b'{"cmd":"query-disk-import"}\n'))
    return json.loads(socket.line(30.0))
