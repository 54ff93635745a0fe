# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Notes: what somebody did from outside, and the states that were seen then."""

from __future__ import annotations

import re
import time
from typing import Any, Callable, Dict, List, Tuple

from ..capture import Event
from ..session import Fatal, Session
from ..source import Engine
from ..wire import frame
from . import data, follow, stages, states

__all__ = ["handle"]

Handler = Callable[[Session, Event, "re.Match[str]"], None]
_ACTIONS: List[Tuple["re.Pattern[str]", Handler]] = []
_OBSERVATIONS: List[Tuple["re.Pattern[str]", Handler]] = []


def _action(pattern: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        _ACTIONS.append((re.compile(pattern), handler))
        return handler

    return register


def _observation(pattern: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        _OBSERVATIONS.append((re.compile(pattern), handler))
        return handler

    return register


def handle(session: Session, event: Event) -> None:
    kind, text = event.kind, str(event.body.get("text", ""))
    if kind in ("case", "scenario", "precondition", "tunnel-client-stdin", "age", "idle"):
        states.pause(session, event)
        if kind == "case":
            stages.enter(session, event)
            _stranger(session, event, text)
    elif kind in ("action", "observation"):
        _told(session, event, text, _ACTIONS if kind == "action" else _OBSERVATIONS)
    elif kind in ("data", "import"):
        data.send_note(session, event)
    elif kind == "forward":
        _forward(session, event)
    elif kind == "migration":
        _migration(session, event)
    elif kind in follow.KINDS:
        follow.KINDS[kind](session, event)
    elif kind in states.KINDS:
        states.KINDS[kind](session, event)
    else:
        session.fail(event, f"a note of kind {kind!r}: nothing here knows how to replay it")


def _told(session: Session, event: Event, text: str, table: List[Tuple["re.Pattern[str]", Handler]]) -> None:
    for pattern, handler in table:
        match = pattern.search(text)
        if match:
            if table is _ACTIONS:
                session.marks["action"] = session.now()
            handler(session, event, match)
            return
    session.fail(event, f"nothing here knows how to replay {text!r}")


def _control(session: Session) -> str:
    names = [name for name, path in session.paths.items() if path.endswith(".mtunnel") and name in session.sockets]
    if not names:
        raise Fatal("no control connection is open")
    return names[-1]


# -- forwards --------------------------------------------------------------------------------------------------


def _forward(session: Session, event: Event) -> None:
    body = event.body
    if body["event"] == "listen":
        data.forward(session, body["remote"])
        return
    if str(body.get("local", "")).endswith(".storage"):
        _import_sent(session, event)
        return
    stream = data.carried(session, event)
    if stream is None:
        return
    _source_clean_up(session, event)
    data.finish_mirrors(session, body)
    ended = stream.local_eof if body["event"] == "local-eof" else stream.remote_eof
    if not ended.wait(30.0):
        session.fail(event, f"{body['event']} did not come")


def _source_clean_up(session: Session, event: Event) -> None:
    """An NBD stream that ends just before the note of the source's clean-up ends by it."""
    following = next(session.capture.after(event), None)
    if (
        session.world.engine is not None
        and following is not None
        and following.kind == "source-state"
        and "cleanup" in str(following.body.get("tag"))
    ):
        session.world.engine.give_up()


def _import_sent(session: Session, event: Event) -> None:
    """The feeding of an import runs beside; its end is the end of the note."""
    if event.body["event"] != "local-eof":
        return
    for key, waiting in session.pending.items():
        if key.startswith("import ") and waiting:
            waiting.pop(0).result(300.0)
            return


def _migration(session: Session, event: Event) -> None:
    engine = session.world.engine
    if engine is not None:
        engine.settle()
        if engine.status() != str(event.body["text"]).split()[0].rstrip(","):
            session.fail(event, f"source: RAM migration {engine.status()}")


def _stranger(session: Session, event: Event, text: str) -> None:
    """Headings of the plain TCP plane that are actions at the same time."""
    if text.startswith("stranger connects to the migration port and closes"):
        port = session.facts.get("ports", {}).get("60000", "60000")
        address = session.world.host("target").migration_address
        session.world.run("source", ["bash", "-c", f"exec 3<>/dev/tcp/{address}/{port}; exec 3>&-"], None)
    elif text.startswith("control connection aborted"):
        session.socket_named(_control(session)).reset()


# -- actions ---------------------------------------------------------------------------------------------------


@_action(r"(?:control connection (?:was )?aborted|abort control ws)")
def _abort_control(session: Session, event: Event, match: "re.Match[str]") -> None:
    delay = re.search(r"after ([0-9.]+) s", str(event.body["text"]))
    time.sleep(float(delay[1]) if delay else 0.0)
    session.socket_named(_control(session)).reset()


@_action(r"(?:reset \(RST\)|TCP reset)")
def _reset(session: Session, event: Event, match: "re.Match[str]") -> None:
    name = (
        next((each for each in session.sockets if each.startswith("imp")), None)
        if "data websocket" in event.body["text"]
        else _control(session)
    )
    session.socket_named(name or _control(session)).reset()


@_action(r"^data websocket aborted")
def _abort_import(session: Session, event: Event, match: "re.Match[str]") -> None:
    names = [name for name, path in session.paths.items() if path.endswith(".storage")]
    session.socket_named(names[-1]).reset()


@_action(r"close frame, then the connection is closed \(FIN\)")
def _close_frame(session: Session, event: Event, match: "re.Match[str]") -> None:
    socket = session.socket_named(_control(session))
    socket.close_frame()
    socket.finish()


@_action(r"except for its last (\d+) bytes, then the connection is closed \(FIN\)")
def _partial(session: Session, event: Event, match: "re.Match[str]") -> None:
    socket = session.socket_named(_control(session))
    whole = frame(2, b'{"cmd":"resume"}\n')
    socket.send(whole[: -int(match[1])])
    socket.finish()


@_action(r"connection closed \(FIN")
def _fin(session: Session, event: Event, match: "re.Match[str]") -> None:
    session.socket_named(_control(session)).finish()


@_action(r"(abort nbd data ws|abort migration data ws)")
def _abort_data(session: Session, event: Event, match: "re.Match[str]") -> None:
    wanted = "_nbd.migrate" if "nbd" in match[1] else ".migrate"
    for name, path in session.paths.items():
        if path.endswith(wanted) and ("nbd" in match[1] or not path.endswith("_nbd.migrate")):
            stream = session.facts.get("carried", {}).get(name)
            if stream is not None:
                stream.abort()


@_action(r"another process takes the config lock of the target VM .* for ([0-9.]+) s")
def _hold_lock(session: Session, event: Event, match: "re.Match[str]") -> None:
    session.world.hold_lock("target", f"/var/lock/qemu-server/lock-{session.vmid()}.conf", float(match[1]))


@_action(r"^(/var/lock/\S+) held for ([0-9.]+) s")
def _hold_file(session: Session, event: Event, match: "re.Match[str]") -> None:
    session.facts["held"] = float(match[2])
    session.world.wait_holders()
    session.world.hold_lock("source", match[1], float(match[2]))
    session.facts["held until"] = session.now() + float(match[2])


@_action(r"another process on the target node holds the QMP connection")
def _hold_qmp(session: Session, event: Event, match: "re.Match[str]") -> None:
    session.facts["qmp holder"] = session.world.hold_qmp("target", session.vmid())


@_action(r"QMP connection released")
def _release_qmp(session: Session, event: Event, match: "re.Match[str]") -> None:
    session.facts.pop("qmp holder").close()
    session.world.sleep(session.gap(event) if session.gap(event) < 1 else 0.1)


@_action(r"runs `qm unlock` for this VM")
def _unlock(session: Session, event: Event, match: "re.Match[str]") -> None:
    ran = session.world.run("target", ["qm", "unlock", str(session.vmid())], None)
    if ran.rc:
        session.fail(event, f"qm unlock: {ran.rc} {ran.stderr}")


@_action(r"the config file gets the line `(.*)`")
def _config_line(session: Session, event: Event, match: "re.Match[str]") -> None:
    path = session.world.config_path("target", session.vmid())
    path.write_text(path.read_text(encoding="utf-8") + match[1] + "\n", encoding="utf-8")


@_action(r"the config file is removed")
def _config_removed(session: Session, event: Event, match: "re.Match[str]") -> None:
    session.world.config_path("target", session.vmid()).unlink()


@_action(r"^VM (\d+) is started")
def _start(session: Session, event: Event, match: "re.Match[str]") -> None:
    session.world.run("source", ["qm", "start", match[1]], None)


@_action(r"QMP stop on the source")
def _qmp_stop(session: Session, event: Event, match: "re.Match[str]") -> None:
    session.world.qmp_once("source", session.world.main_vmid(session.capture), "stop")


@_action(r"^trusted link goes down")
def _link_down(session: Session, event: Event, match: "re.Match[str]") -> None:
    session.world.trusted_link("target", up=False)


@_action(r"^migrate_cancel while link is down")
def _cancel_ram(session: Session, event: Event, match: "re.Match[str]") -> None:
    _engine(session).cancel_ram()


@_action(r"^block-job-cancel force")
def _cancel_job(session: Session, event: Event, match: "re.Match[str]") -> None:
    _engine(session).cancel_jobs_unanswered()


@_action(r"^yank block-node returned")
def _yank(session: Session, event: Event, match: "re.Match[str]") -> None:
    _engine(session).yank()


def _engine(session: Session) -> Engine:
    if session.world.engine is None:
        raise Fatal("no source to act on")
    return session.world.engine


@_observation(r"^no reply to block-job-cancel force for more than")
def _no_reply_job(session: Session, event: Event, match: "re.Match[str]") -> None:
    if _engine(session).answered(10.0):
        session.fail(event, "block-job-cancel force was answered")


@_action(r"link of the client down")
def _client_link_down(session: Session, event: Event, match: "re.Match[str]") -> None:
    session.marks["down"] = session.now()
    session.world.silence("target", True)


@_action(r"link up again after about ([0-9.]+) s")
def _client_link_up(session: Session, event: Event, match: "re.Match[str]") -> None:
    time.sleep(max(0.0, float(match[1]) - (session.now() - session.marks.get("down", session.now()))))
    session.world.silence("target", False)


@_action(r"regular cancel: migrate_cancel, job cancel")
def _cancel(session: Session, event: Event, match: "re.Match[str]") -> None:
    engine = session.world.engine
    if engine is None:
        raise Fatal("no source to cancel")
    engine.give_up()


@_action(
    r"QEMU (?:process )?(?:of (?:the )?)?(?:the )?target(?: VM)?.*(?:killed|SIGKILL)|target QEMU.*(?:killed|SIGKILL)"
)
def _kill_target(session: Session, event: Event, match: "re.Match[str]") -> None:
    session.world.kill_qemu("target", session.vmid())


@_action(r"^tunnel client process on the source killed with SIGKILL")
def _tunnel_client(session: Session, event: Event, match: "re.Match[str]") -> None:
    follow.tunnel_client_killed(session, event)


@_action(r"^decision to abort")
def _nothing(session: Session, event: Event, match: "re.Match[str]") -> None:
    """Only says why the next command is sent."""


@_action(r"^(\d+) mtunnels open and answering; now one oversized \((\d+) byte\) frame on the first")
def _bad_frame(session: Session, event: Event, match: "re.Match[str]") -> None:
    for name in session.sockets:
        if not follow.answers(session, name):
            session.fail(event, f"{name} does not answer before the bad frame")
    session.facts["workers"] = {
        name: session.world.worker_of(each.stream.port) for name, each in session.sockets.items()
    }


@_action(r"^(\d+) mtunnels; VM (\d+) started then stopped, then a websocket to its dead \.migrate socket")
def _dead_socket(session: Session, event: Event, match: "re.Match[str]") -> None:
    follow.dead_socket(session, event, int(match[2]))


@_action(r"\(stopped\) dd of=")
def _stop_consumer(session: Session, event: Event, match: "re.Match[str]") -> None:
    session.world.stop_consumer("target", True)


# -- observations ----------------------------------------------------------------------------------------------


@_observation(r"^after close: connection closed by the server")
def _closed_after_close(session: Session, event: Event, match: "re.Match[str]") -> None:
    socket = session.socket_named(_control(session))
    if socket.ended is None:
        socket.close_frame()
    _ended(session, event, _control(session))


@_observation(r"^(?:(\S+:\d+): |reply to close: |after array: )?connection closed by the server")
def _closed(session: Session, event: Event, match: "re.Match[str]") -> None:
    if match[1] and session.optional("workers") is not None:
        follow.collateral(session, event, match[1])
        return
    _ended(session, event, match[1] or _control(session))


def _ended(session: Session, event: Event, name: str) -> None:
    socket = session.socket_named(name)
    sent = session.facts.get(f"sent {name}", session.now())
    if not socket.wait_end(session.scaled(max(session.gap(event), 1.0)) + 10.0):
        session.fail(event, f"{name}: the server did not close the connection")
        return
    recorded = session.gap(event)
    if 4.0 <= recorded <= 6.0:
        # 5 s until the worker process of the front end is gone (mtunnel-protocol 3.4)
        session.timed(event, recorded, session.now() - sent, "end of the connection")


@_observation(r"^(\S+:\d+) still answers")
def _still_answers(session: Session, event: Event, match: "re.Match[str]") -> None:
    follow.collateral(session, event, match[1])


@_observation(r"^(?:(\S+:\d+): )?no answer")
def _no_answer(session: Session, event: Event, match: "re.Match[str]") -> None:
    follow.settle_collateral(session)
    follow.no_answer(session, event, match[1])


@_observation(r"^pong frame received, opcode 10, payload '(.*)'")
def _pong(session: Session, event: Event, match: "re.Match[str]") -> None:
    pong = session.socket_named(_control(session)).wait_pong(5.0)
    if pong != match[1].encode():
        session.fail(event, f"pong {match[1]!r} expected, got {pong!r}")


@_observation(r"^NBD greeting received on the new connection: NBDMAGIC IHAVEOPT")
def _greeting(session: Session, event: Event, match: "re.Match[str]") -> None:
    names = [name for name, path in session.paths.items() if path.endswith("_nbd.migrate")]
    greeting = session.socket_named(names[-1]).take(5.0)
    if not greeting.startswith(b"NBDMAGICIHAVEOPT"):
        session.fail(event, f"NBD greeting expected, got {greeting[:32]!r}")


@_observation(r"^raw content of source and target image: identical")
def _identical(session: Session, event: Event, match: "re.Match[str]") -> None:
    text = session.world.compare_images(session.vmid())
    if text:
        session.fail(event, text)


@_observation(r"^control connection after the task was deleted: closed by the server, no reply")
def _closed_no_reply(session: Session, event: Event, match: "re.Match[str]") -> None:
    _ended(session, event, _control(session))


@_observation(r"^ACL lines for the VM afterwards: (\[.*\])")
def _acl(session: Session, event: Event, match: "re.Match[str]") -> None:
    expected = re.findall(r"'([^']*)'", match[1])
    actual = [
        line
        for line in session.world.user_lines("target")
        if line.startswith("acl:") and f"/vms/{session.vmid()}:" in line
    ]
    session.compare(event, expected, actual, path="/acl")


def unknown(capture_events: List[Event]) -> List[Dict[str, Any]]:
    """Notes nothing here could replay: for the static check of a directory of recordings."""
    found = []
    for event in capture_events:
        table = {"action": _ACTIONS, "observation": _OBSERVATIONS}.get(event.kind)
        if table is not None and not any(pattern.search(str(event.body.get("text", ""))) for pattern, _ in table):
            found.append({"line": event.index + 1, "text": event.body.get("text")})
    return found
