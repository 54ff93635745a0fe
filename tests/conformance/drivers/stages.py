# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recordings of states only: the headings say how far the migration is, the replay brings it there."""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Dict, List, Tuple

from ..capture import Event
from ..session import Fatal, Session
from ..wire import WebSocket, request
from . import http

__all__ = ["enter", "recorded_config", "staged"]

RAM_LOADED = re.compile(r"^RAM loaded")


def staged(capture: Any) -> bool:
    """True when a file shows stages of a migration that it does not contain."""
    return not any(True for _ in capture.of("control")) and any(
        RAM_LOADED.search(event.body["text"]) for event in capture.notes("case")
    )


def recorded_config(capture: Any) -> "tuple[int, str]":
    """The target's VMID and config, from the first GET config that shows a whole one."""
    for event in capture.of("http", False):
        data = (event.body.get("json") or {}).get("data") or {}
        if isinstance(data, dict) and "scsi0" in data and "memory" in data:
            number = re.search(r":(\d+)/", data["scsi0"])
            lines = [
                f"{key}: {value}" for key, value in sorted(data.items()) if key not in ("digest", "lock", "description")
            ]
            head = "".join(f"#{line}\n" for line in str(data.get("description", "")).splitlines())
            return int(number[1]) if number else 0, head + "\n".join(lines) + "\n"
    raise Fatal("no config in the recording")


def enter(session: Session, event: Event) -> None:
    """Called for each heading; those that name a stage bring the migration there."""
    if not session.facts.setdefault("staged", staged(session.capture)):
        return
    for pattern, step in _STEPS:
        if pattern.search(event.body["text"]):
            step(session)
            return


def _command(session: Session, **values: Any) -> Dict[str, Any]:
    socket = session.sockets["stage:control"]
    socket.send_data((json.dumps(values) + "\n").encode())
    reply: Dict[str, Any] = json.loads(socket.line(60.0))
    if not reply.get("success"):
        raise Fatal(f"{values['cmd']}: {reply.get('msg')}")
    return reply


def _headers(session: Session) -> Dict[str, str]:
    token = next((name for name in session.world.tokens if name.startswith("mig@")), "root@pam!migration")
    return {"Authorization": f"PVEAPIToken={token}={session.world.tokens[token]}"}


def _post(session: Session) -> None:
    vmid, _ = recorded_config(session.capture)
    answer = request(
        session.world.address("target"),
        "POST",
        f"/api2/json/nodes/target/qemu/{vmid}/mtunnel",
        _headers(session),
        {},
        30.0,
    )
    shown = http.shown(answer)
    if answer.status != 200:
        raise Fatal(f"POST mtunnel: {answer.status} {answer.reason}")
    http.remember(session, shown)
    granted = shown["json"]["data"]
    session.facts["vmid"] = vmid
    session.sockets["stage:control"] = session.world.tunnel(
        str(vmid), granted["ticket"], granted["socket"], _headers(session)
    )
    session.paths["stage:control"] = granted["socket"]


def _start(session: Session) -> None:
    _, config = recorded_config(session.capture)
    size = re.search(r"scsi0: .*?size=(\d+)G", config)
    disk = _command(
        session,
        cmd="disk",
        format="qcow2",
        storage="local",
        drive={"interface": "scsi", "index": "0", "size": int(size[1] if size else 1) << 30},
    )
    _command(session, cmd="config", conf=config)
    _command(
        session,
        cmd="start",
        start_params={"statefile": "unix", "skiplock": 1},
        migrate_opts={
            "type": "websocket",
            "migratedfrom": "source",
            "remote_node": "target",
            "nbd_proto_version": 1,
            "nbd": {"scsi0": {"volid": disk["volid"], "drivestr": disk["drivestr"]}},
        },
    )


def _open(session: Session, name: str, path: str) -> WebSocket:
    ticket = _command(session, cmd="ticket", path=path)["ticket"]
    socket = session.world.tunnel(str(session.vmid()), ticket, path, _headers(session))
    session.sockets[name], session.paths[name] = socket, path
    return socket


def _load(session: Session) -> None:
    from . import data

    engine, vmid = session.world.engine, session.vmid()
    if engine is None:
        raise Fatal("no source to load from")
    for name in ("_nbd.migrate", ".migrate"):
        remote = f"/run/qemu-server/{vmid}{name}"
        joined = data.forward(session, remote)
        drive = engine.connect_next() if name == "_nbd.migrate" else None
        if drive is None:
            engine.migrate()
        joined.attach(_open(session, "stage" + name, remote))
        if drive is not None:
            engine.mirror(drive)
        else:
            engine.settle()
    engine.end_mirrors()
    _command(session, cmd="nbdstop")


def _simple(**values: Any) -> Callable[[Session], None]:
    return lambda session: void(_command(session, **values))


def void(_: Any) -> None:
    """A step has no value."""


_STEPS: List[Tuple["re.Pattern[str]", Callable[[Session], None]]] = [
    (re.compile(r"^after POST mtunnel"), _post),
    (re.compile(r"^after start"), _start),
    (RAM_LOADED, _load),
    (re.compile(r"^after resume"), _simple(cmd="resume")),
    (re.compile(r"^after unlock"), _simple(cmd="unlock")),
    (re.compile(r"^after stop"), _simple(cmd="stop")),
    (re.compile(r"^after quit"), _simple(cmd="quit", cleanup=True)),
]
