# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""A real mutual handshake between two nodes, and what each side saw: before a move, and without one.

Edge file: sockets, processes, the clock. The listening side is a process of its own for at most a minute, because the
task that starts it must end before the task on the other node begins. It serves one peer and leaves its report in a
file of root's, which is read once.

It sets no rule of nft as ``incoming`` does: nothing is behind it that a stranger could reach, who comes from another
address is closed without a byte, and a rule would outlive a process that is killed, with nobody to take it away.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import select
import signal
import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Sequence

from ..errors import Side
from ..proxmox.errors import printable
from .accept import same_address
from .errors import HandshakeFailed, RehearsalFailed, TlsFailed, TransportError
from .listener import Listener
from .tls import Cause, Credentials, Handshake, client_context, server_context

__all__ = ["LONGEST_LIFE", "Rehearsal", "collect", "connect", "listen", "serve"]

LONGEST_LIFE = 60.0
EXCHANGE = 10.0  # seconds for handshake and both words; nothing waits for it, and a node may be very busy
RUN = "/run/crosscluster"
_READ = 16384
_LONGEST_WORD = 4096
_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_FIREWALL = "Look at the firewalls on the way, and whether the other node listens on this address and port."


@dataclass(frozen=True)
class Rehearsal:
    """What one side knows beforehand.

    Args:
        credentials: Its files.
        peer_name: The name that the peer's certificate must carry.
        clock: Monotonic, seconds.
    """

    credentials: Credentials
    peer_name: str
    clock: Callable[[], float] = time.monotonic


Report = Dict[str, Any]


def connect(rehearsal: Rehearsal, address: str, port: int, seconds: float = EXCHANGE) -> Report:
    """The source's side: connects once and reports; a failure is part of the report."""
    started = rehearsal.clock()
    deadline = started + seconds
    handshake: Optional[Handshake] = None
    try:
        handshake = _handshake(Side.SOURCE, rehearsal)
        with _connected(address, port, seconds) as sock:
            wire = _Wire(sock, handshake, deadline, rehearsal.clock)
            try:
                wire.shake()
                wire.believe(wire.hear())
                wire.say({"ok": True})
            finally:
                wire.end()
        error = None
    except TransportError as failure:
        error = failure
    return _report(Side.SOURCE, handshake, error, rehearsal.clock() - started, f"{address}:{port}")


def serve(rehearsal: Rehearsal, listener: Listener, peer_address: str, seconds: float) -> Report:
    """The target's side: serves the first connection that is the peer's, whatever comes of it, and reports.

    Who comes from another address, speaks no TLS or hangs up is passed over, so that a stranger cannot use it up.
    """
    started = rehearsal.clock()
    deadline = started + seconds
    failure: TransportError = _silence(rehearsal.peer_name, "nobody has connected")
    handshake: Optional[Handshake] = None
    at = ""
    while rehearsal.clock() < deadline:
        if not select.select([listener], [], [], max(0.0, deadline - rehearsal.clock()))[0]:
            break
        accepted = listener.accept()
        if accepted is None:
            continue
        sock, at = accepted
        with sock:
            if peer_address and not same_address(at, peer_address):
                continue
            try:
                handshake = _handshake(Side.TARGET, rehearsal)
                _answer(_Wire(sock, handshake, min(deadline, rehearsal.clock() + EXCHANGE), rehearsal.clock))
            except HandshakeFailed as error:
                failure, handshake = error, None
            except TransportError as error:
                return _report(Side.TARGET, handshake, error, rehearsal.clock() - started, at)
            else:
                return _report(Side.TARGET, handshake, None, rehearsal.clock() - started, at)
    return _report(Side.TARGET, None, failure, rehearsal.clock() - started, at)


def listen(
    rehearsal: Rehearsal, address: str, ports: Sequence[int], peer_address: str, life: float, run: str = RUN
) -> Dict[str, Any]:
    """Start the target's side in a process of its own; ``address``, ``port`` and ``rehearsal_id`` are for the others.

    Raises:
        CredentialsUnusable: This node's own files are no good.
        HandshakeFailed: The peer's name is none.
        TransportError: No port of the range is free, or the address is not here.
    """
    # Said here and now, not in a report that nobody may fetch.
    _handshake(Side.TARGET, rehearsal)
    listener = Listener(address, ports)
    listener.open()
    number = secrets.token_hex(16)
    path = _report_path(run, number)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    life = min(life, LONGEST_LIFE)
    _detach(lambda: _leave(path, serve(rehearsal, listener, peer_address, life)), listener.fileno(), life)
    port = listener.port
    listener.close()
    return {"rehearsal_id": number, "address": address, "port": port}


def collect(number: str, seconds: float, run: str = RUN) -> Report:
    """What the listening side saw; waits for it and removes it."""
    if not _ID.fullmatch(number):
        raise RehearsalFailed("this is no rehearsal's id", side=Side.TARGET, object="rehearsal_id")
    path = _report_path(run, number)
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() >= deadline:
            raise RehearsalFailed(
                "the listening side of the rehearsal has not reported",
                side=Side.TARGET,
                object=number,
                remedy="Start the rehearsal again; its report is kept until it is collected once.",
            )
        time.sleep(0.05)
    report: Report = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    return report


# --- one conversation -----------------------------------------------------------------------------------------------


class _Wire:
    """A handshake and two lines of JSON over a socket that never blocks, all of it before one moment."""

    def __init__(self, sock: socket.socket, handshake: Handshake, deadline: float, clock: Callable[[], float]) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._deadline = deadline
        self._clock = clock
        self.handshake = handshake

    def shake(self) -> None:
        """Until this side is satisfied; whatever it has to say about it is sent, alerts too."""
        try:
            while not self.handshake.advance():
                self._flush()
                self._fill()
        except TlsFailed as error:
            if self.handshake.stands:  # only we are not content: no alert tells the peer, so a word must
                self.say({"ok": False, "cause": error.facts["cause"], "reason": error.facts["reason"]})
            raise
        finally:
            self._flush()

    def say(self, word: Dict[str, Any]) -> None:
        """One line."""
        self.handshake.tls.write(json.dumps(word).encode("utf-8") + b"\n")
        self._flush()

    def hear(self) -> Dict[str, Any]:
        """One line. Read before waiting: it may have come with the handshake (direct-transports 10.1)."""
        line = b""
        while not line.endswith(b"\n"):
            try:
                part = self.handshake.tls.read(_LONGEST_WORD)
            except ssl.SSLWantReadError:
                self._fill()
                continue
            except ssl.SSLError as error:
                raise self.handshake.failure(error) from error
            line += part
            if not part or len(line) > _LONGEST_WORD:
                raise self._broken("it ended in the middle of a word")
        try:
            word = json.loads(line)
        except ValueError as error:
            raise self._broken("it says something that is no word of ours") from error
        return word if isinstance(word, dict) else {}

    def believe(self, word: Dict[str, Any]) -> None:
        """The peer's word: fine, or why it refuses us."""
        if word.get("ok") is not True:
            raise self.handshake.refused_in_words(str(word.get("cause", "")), printable(str(word.get("reason", ""))))

    def end(self) -> None:
        """Close our half and wait a little for the other: an early close would reset the line under our last word."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
            while select.select([self._sock], [], [], max(0.0, min(2.0, self._deadline - self._clock())))[0]:
                if not self._sock.recv(_READ):
                    return
        except OSError:
            return

    def _flush(self) -> None:
        data = self.handshake.to_send()
        while data:
            self._wait(writing=True)
            try:
                data = data[self._sock.send(data) :]
            except BlockingIOError:
                continue
            except OSError:
                return  # the peer is gone; what it said before is still to be read

    def _fill(self) -> None:
        self._wait(writing=False)
        try:
            self.handshake.receive(self._sock.recv(_READ))
        except BlockingIOError:
            return
        except OSError:
            self.handshake.receive(b"")

    def _wait(self, writing: bool) -> None:
        left = max(0.0, self._deadline - self._clock())
        if not any(select.select([] if writing else [self._sock], [self._sock] if writing else [], [], left)):
            raise _silence(self.handshake.peer_name, "it fell silent in the handshake")

    def _broken(self, reason: str) -> HandshakeFailed:
        return _failed(self.handshake.peer_name, Cause.PROTOCOL, reason, "See what listens there.")


def _answer(wire: _Wire) -> None:
    """The target's side of one conversation: it speaks first, for only it knows that the source is accepted."""
    try:
        wire.shake()
        wire.say({"ok": True})
        wire.believe(wire.hear())
    finally:
        wire.end()


def _handshake(side: Side, rehearsal: Rehearsal) -> Handshake:
    make = client_context if side is Side.SOURCE else server_context
    return Handshake(side, make(rehearsal.credentials), rehearsal.credentials, rehearsal.peer_name)


def _connected(address: str, port: int, seconds: float) -> socket.socket:
    try:
        return socket.create_connection((address, port), timeout=seconds)
    except OSError as error:
        why = error.strerror or "no answer in time"
        raise _failed(f"{address}:{port}", Cause.UNREACHABLE, f"no connection: {why}", _FIREWALL) from error


def _silence(object: str, reason: str) -> HandshakeFailed:
    return _failed(object, Cause.SILENT, reason, _FIREWALL)


def _failed(object: str, cause: Cause, reason: str, remedy: str) -> HandshakeFailed:
    facts = {"cause": cause.value, "reason": reason}
    return HandshakeFailed(f"{object}: {reason}", side=Side.TARGET, object=object, remedy=remedy, facts=facts)


def _report(
    side: Side, handshake: Optional[Handshake], error: Optional[TransportError], seconds: float, at: str
) -> Report:
    saw: Dict[str, Any] = {}
    if handshake is not None and handshake.stands:
        saw = handshake.seen()
    return {
        "ok": error is None,
        "side": side.value,
        "peer": at,
        "saw": saw,
        "failure": error.to_dict() if error else None,
        "duration_ms": int(seconds * 1000),
    }


# --- the process of the listening side ------------------------------------------------------------------------------


def _report_path(run: str, number: str) -> Path:
    return Path(run, f"rehearsal-{number}.json")


def _leave(path: Path, report: Report) -> None:
    """Complete or not at all."""
    fresh = path.with_suffix(".new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(report, file)
    os.replace(fresh, path)


def _detach(work: Callable[[], None], kept: int, life: float) -> None:
    """Run ``work`` in a process that nobody waits for and that holds nothing of this one but descriptor ``kept``.

    Were its standard output left open, the task would not end before it does.
    """
    first = os.fork()
    if first:
        os.waitpid(first, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(life + EXCHANGE) + 1)  # its end, whatever becomes of it
            nothing = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(nothing, number)
            _close_all_but(kept)
            work()
    finally:
        os._exit(0)


def _close_all_but(kept: int) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != kept:
            try:
                os.close(int(name))
            except OSError:
                continue
