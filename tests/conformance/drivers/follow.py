# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks that are followed to their end, and tunnels that do or do not answer any more."""

from __future__ import annotations

import re
import time
from typing import Any, Callable, Dict, List, Optional
from urllib.parse import quote

from .. import stock
from ..capture import Event
from ..session import TOLERANCE_S, Session
from ..wire import WebSocket, request
from . import http

__all__ = ["KINDS", "answers", "collateral", "dead_socket", "no_answer", "settle_collateral", "tunnel_client_killed"]

POLL_S = 0.05
SOURCE_S = 300.0


def _upid(session: Session, node: str, kind: Optional[str] = None) -> Optional[str]:
    if kind == "qmtunnel" or (kind is None and node == "target"):
        return session.bindings.upid(node, "qmtunnel") or session.bindings.upid(node)
    return session.bindings.upid(node, kind or "")


def _get(session: Session, path: str) -> Any:
    token = next((name for name in session.world.tokens if name.startswith("root@pam")), "")
    headers = {"Authorization": f"PVEAPIToken={token}={session.world.tokens[token]}"}
    answer = request(session.world.address(_node(path)), "GET", "/api2/json" + path, headers, {}, 20.0)
    return http.shown(answer).get("json", {}).get("data")


def _node(path: str) -> str:
    match = re.match(r"/nodes/(\w+)/", path)
    return match[1] if match else "target"


def task(session: Session, upid: str) -> Dict[str, Any]:
    node = upid.split(":")[1]
    return _get(session, f"/nodes/{node}/tasks/{quote(upid, safe='')}/status") or {}


def log(session: Session, upid: str) -> List[str]:
    return session.world.task_log(upid.split(":")[1], upid)


def _tail(session: Session, event: Event, expected: List[str], lines: List[str]) -> None:
    wanted = session.comparer.in_order(expected)
    session.fail(event, *session.comparer.same_lines(wanted, session.comparer.in_order(lines)[-len(wanted) :]))


def _target_task(session: Session, event: Event) -> None:
    body = event.body
    if "after_s" in body:
        _series(session, event)
        return
    upid = _upid(session, "target", "qmtunnel")
    if upid is None:
        session.fail(event, "no tunnel task was seen")
        return
    if body.get("status") == "stopped":
        _leave(session)
    if "status" in body:
        _reach(session, event, upid, body["status"], body.get("exitstatus"))
    if "log" in body:
        _wait_log(session, upid, len(body["log"]))
        session.fail(event, *session.comparer.same_lines(body["log"], log(session, upid)))
    if "log_tail" in body:
        _tail(session, event, body["log_tail"], log(session, upid))


def _leave(session: Session) -> None:
    """After quit the recorder closed its connection; the task ends only then."""
    for name, path in session.paths.items():
        command = session.facts.get(f"command {name}")
        socket = session.sockets.get(name)
        if (
            path.endswith(".mtunnel")
            and socket is not None
            and socket.ended is None
            and command is not None
            and command.body.get("cmd") == "quit"
        ):
            socket.close_frame()
            socket.wait_end(5.0)


def _wait_log(session: Session, upid: str, count: int) -> None:
    until = session.now() + 5.0
    while len(log(session, upid)) < count and session.now() < until:
        time.sleep(POLL_S)


def _reach(session: Session, event: Event, upid: str, status: str, exitstatus: Optional[str]) -> None:
    """The recorded state, at the latest a little later than it was seen then."""
    until = session.now() + session.scaled(session.gap(event)) + 10.0
    while True:
        got = task(session, upid)
        if got.get("status") == status or session.now() > until:
            break
        time.sleep(POLL_S)
    session.compare(event, {"status": status}, {"status": got.get("status")})
    if exitstatus is not None:
        session.compare(event, {"exitstatus": exitstatus}, {"exitstatus": got.get("exitstatus")})


def _task_exit(session: Session, event: Event) -> None:
    body = event.body
    upid = _upid(session, body["node"], body.get("type")) if body.get("type") else session.facts.get("task")
    if upid is None or upid.split(":")[1] != body["node"]:
        upid = session.bindings.upid(body["node"])
    if upid is None:
        session.fail(event, f"no task on {body['node']} was seen")
        return
    began = session.marks.get("posted", session.facts["started"])
    _reach(session, event, upid, "stopped", body["exitstatus"])
    if "log" in body:
        session.fail(event, *session.comparer.same_lines(body["log"], log(session, upid)))
    if "log_tail" in body:
        _tail(session, event, body["log_tail"], log(session, upid))
    if session.gap(event) > 60.0:
        session.timed(event, session.gap(event), session.now() - began, "end of the task")


def _series(session: Session, event: Event) -> None:
    """Changes seen by polling after a command was written; the first note of a run stands for all of them."""
    run = [other for other in session.capture.notes("target-task") if "after_s" in other.body]
    if event.index != run[0].index:
        return
    rows = [{**other.body, "event": other} for other in run]
    seen = _poll(session, float(rows[-1]["after_s"]) + 4.0, rows[-1]["status"])
    keys = ("status", "exitstatus", "resume_logged", "qmpstatus", "config_lock")
    for row in rows:
        match = next((each for each in seen if all(each[key] == row[key] for key in keys)), None)
        if match is not None:
            if abs(match["after_s"] - row["after_s"]) > TOLERANCE_S:
                session.fail(row["event"], f"seen after {match['after_s']:.1f} s, recorded {row['after_s']:.1f} s")
            continue
        following = [other["after_s"] for other in rows if other["after_s"] > row["after_s"]]
        if following and following[0] - row["after_s"] < 0.5:
            continue  # a state this short may fall between two polls
        shown = [{key: each[key] for key in (*keys, "after_s")} for each in seen]
        session.fail(row["event"], f"not seen: {[row[key] for key in keys]}; seen {shown}")


def _poll(session: Session, seconds: float, last: str) -> List[Dict[str, Any]]:
    upid, vmid = _upid(session, "target", "qmtunnel") or "", session.vmid()
    began, seen = session.facts.get("sent at", session.marks.get("action", session.now())), []
    while session.now() - began < seconds:
        got = task(session, upid)
        lines = log(session, upid)
        state = _get(session, f"/nodes/target/qemu/{vmid}/status/current") or {}
        row = {
            "status": got.get("status"),
            "exitstatus": got.get("exitstatus"),
            "resume_logged": "received command 'resume'" in lines,
            "qmpstatus": state.get("qmpstatus"),
            "config_lock": session.world.lock_of(session.world.config_text("target", vmid) or ""),
        }
        if not seen or any(seen[-1][key] != value for key, value in row.items()):
            seen.append({**row, "after_s": session.now() - began})
        if row["status"] == last == "stopped" and session.now() - began > 1.0:
            break
        time.sleep(POLL_S)
    return seen


def _task_log(session: Session, event: Event) -> None:
    body = event.body
    if "lines" in body:
        upid = _upid(session, "target", "qmtunnel")
        session.fail(event, *session.comparer.same_lines(body["lines"], log(session, upid or "")))
        return
    if body.get("node") == "source":
        _source_line(session, event)


def _source_line(session: Session, event: Event) -> None:
    """Lines of the stock source's task. They are compared once, at the last of them, when the task is over."""
    lines = [
        other
        for other in session.capture.notes("task-log")
        if other.body.get("node") == "source" and "line" in other.body
    ]
    if event.index != lines[-1].index:
        return
    upid = session.bindings.upid("source")
    if upid is None:
        session.fail(event, "no task on the source was seen")
        return
    until = session.now() + SOURCE_S
    while task(session, upid).get("status") != "stopped" and session.now() < until:
        time.sleep(0.2)
    recorded = stock.steady([other.body["line"] for other in lines], recorded=True)
    actual = stock.steady(log(session, upid))
    if recorded[0] == "no content":  # the recorder's first poll came before the first line and hid it
        recorded, actual = recorded[1:], actual[1:]
    session.fail(event, *session.comparer.same_lines(recorded, actual))


def tunnel_client_killed(session: Session, event: Event) -> None:
    """Somebody kills the source's tunnel client while a mirror is at work."""
    upid = session.bindings.upid("source")
    until = session.now() + SOURCE_S
    while session.now() < until:
        if stock.kill_tunnel_client(session, log(session, upid or "")):
            return
        time.sleep(POLL_S)
    session.fail(event, "no mirror was seen at work, or no tunnel client")


def _tasklog(session: Session, event: Event) -> None:
    upid = _upid(session, "target", "qmtunnel")
    expected = session.comparer.lines(event.body["text"])
    lines = session.comparer.lines("\n".join(log(session, upid or "")))
    session.fail(event, *session.comparer.same_lines(expected, lines[-len(expected) :]))


# -- several tunnels in one front end --------------------------------------------------------------------------


def answers(session: Session, name: str) -> bool:
    socket: Optional[WebSocket] = session.sockets.get(name)
    if socket is None or socket.ended is not None:
        return False
    try:
        socket.send_data(b'{"cmd":"version"}\n')
        return b'"success"' in socket.line(5.0)
    except (OSError, TimeoutError):
        return False


def settle_collateral(session: Session) -> None:
    """After a bad frame the worker process needs 5 s to die; nothing is asked before."""
    sent = session.facts.get("bad frame sent")
    if sent is not None:
        time.sleep(max(0.0, 7.0 - (session.now() - sent)))


def collateral(session: Session, event: Event, name: str) -> None:
    """Which neighbours share the offender's worker is chance: those must be lost, and no other."""
    settle_collateral(session)
    workers: Dict[str, Optional[int]] = session.facts.get("workers", {})
    offender = session.facts.get("offender", name)
    doomed = session.capture.scenario.get("pveproxy_event_loop") != "libev" and workers.get(name) == workers.get(
        offender
    )
    alive = answers(session, name)
    if alive == doomed:
        session.fail(
            event,
            f"{name} in worker {workers.get(name)} {'answers' if alive else 'is lost'}; "
            f"the bad frame went to worker {workers.get(offender)}",
        )


def no_answer(session: Session, event: Event, name: Optional[str]) -> None:
    if name is None:
        name = session.facts.get("dead socket") or next(
            (each for each in reversed(list(session.sockets)) if f"sent {each}" in session.facts), ""
        )
    if name == "dead socket":
        waiting = session.pending.get("dead socket", [])
        if waiting and waiting[0].done():
            session.fail(event, f"an answer came: {waiting[0].exception() or waiting[0].result()[0].status}")
        return
    socket = session.sockets.get(name)
    if socket is None:
        return
    try:
        line = socket.line(min(4.0, max(1.0, session.gap(event))))
        session.fail(event, f"{name} answered: {line[:200]!r}")
    except TimeoutError:
        if socket.ended is not None:
            session.fail(event, f"{name}: the connection ended ({socket.ended}), expected it to hang")


def dead_socket(session: Session, event: Event, vmid: int) -> None:
    """A VM is started incoming and stopped, then a websocket with a valid ticket goes to its socket."""
    import json

    name = next(each for each in session.sockets if each.endswith(f":{vmid}"))
    socket = session.sockets[name]

    def command(**values: Any) -> Any:
        socket.send_data((json.dumps(values) + "\n").encode())
        return json.loads(socket.line(60.0))

    config = "cores: 1\nkvm: 0\nmemory: 192\nserial0: socket\nvga: none\n"
    steps = [
        command(cmd="config", conf=config),
        command(
            cmd="start",
            start_params={"statefile": "unix", "skiplock": 1},
            migrate_opts={
                "type": "websocket",
                "migratedfrom": "source",
                "remote_node": "target",
                "nbd_proto_version": 1,
            },
        ),
        command(cmd="ticket", path=f"/run/qemu-server/{vmid}.migrate"),
        command(cmd="stop"),
    ]
    session.fail(event, *[str(step) for step in steps if not step.get("success")])
    ticket = steps[2].get("ticket", "")
    path = (
        f"/api2/json/nodes/target/qemu/{vmid}/mtunnelwebsocket?ticket={quote(ticket, safe='')}"
        f"&socket={quote(f'/run/qemu-server/{vmid}.migrate', safe='')}"
    )
    token = next(iter(session.world.tokens))
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": WebSocket.key(),
        "Authorization": f"PVEAPIToken={token}={session.world.tokens[token]}",
    }
    session.facts["dead socket"] = "dead socket"
    session.submit("dead socket", WebSocket.open, session.world.address("target"), path, headers, 75.0)
    time.sleep(12.0 if not session.slow else 60.0)


KINDS: Dict[str, Callable[[Session, Event], None]] = {
    "target-task": _target_task,
    "task-exit": _task_exit,
    "task-log": _task_log,
    "tasklog": _tasklog,
}
