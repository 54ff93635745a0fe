# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The process that answers the peer's probes: an edge file (processes, sockets, clock, nft).

It is forked from the module, lives for a minute and holds no file: the key is in its memory alone. Its table of nft is
there before the port opens and lets only the peer in; the peer's place in the set runs out by itself, so that a
responder that was killed leaves a closed door behind. The next one on the node removes what such a one left.

Whoever is root on the node asks it for its report over an abstract UNIX socket, and thereby ends it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import select
import selectors
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from .addresses import Address, parse_address
from .errors import ExchangeBroken, NetworkInvalid, ResponderFailed
from .exchange import ANSWER, ASK, MAX_LINE, Answerer, echo_key, echo_packet, echo_sequence
from .probe import Run, unfragmented

__all__ = ["Responder", "Settings", "collect", "parse_id", "start"]

TABLE = "crosscluster_probe_"
READY_TIME = 30.0  # seconds for the filter to be in place
CONVERSATION_TIME = 5.0  # direct-transports 7
MOST_CONVERSATIONS = 16
LIVES = (5, 300)  # seconds
_MARGIN = 30  # seconds by which the peer's place in the filter outlives the responder
_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_REPORT_LIMIT = 64 * 1024


@dataclass(frozen=True)
class Settings:
    """What a responder is for.

    Attributes:
        responder_id: 32 hexadecimal digits.
        ports: The first free one of them is taken.
        lifetime: Seconds, within :data:`LIVES`.
        with_filter: False only in tests, which want to see that its absence is noticed.
    """

    responder_id: str
    own_name: str
    peer_name: str
    own: Address
    peer: Address
    interface: str
    ports: Tuple[int, ...]
    lifetime: int
    key: bytes
    with_filter: bool = True

    def __repr__(self) -> str:
        return f"Settings({self.responder_id})"


def parse_id(text: Any) -> str:
    """32 hexadecimal digits, else NETWORK_INVALID."""
    if not isinstance(text, str) or not _ID.fullmatch(text):
        raise NetworkInvalid("an id has 32 hexadecimal digits", object="responder_id")
    return text


def start(settings: Settings, run: Run) -> int:
    """Lets a responder live on after the caller; the port on which it answers.

    Raises:
        ResponderFailed: RESPONDER_FAILED.
    """
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        _detach(receiving, lambda: _serve(settings, run, sending), sending)
    os.close(sending)
    os.waitpid(child, 0)
    try:
        return _port_of(receiving)
    finally:
        os.close(receiving)


def collect(responder_id: str) -> Optional[Dict[str, Any]]:
    """The report of a responder, which ends by it; None when it has ended already."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(READY_TIME)
        try:
            sock.connect(_control_name(responder_id))
            data = b""
            while len(data) < _REPORT_LIMIT:
                chunk = sock.recv(4096)
                if not chunk:
                    break
                data += chunk
            report = json.loads(data)
        except (OSError, ValueError):
            return None
    return report if isinstance(report, dict) else None


class Responder:
    """Answers until it was asked for its report, or its time is over.

    Args:
        settings: What it is for.
        run: Runs nft.
        clock: Seconds, monotonic.
    """

    def __init__(self, settings: Settings, run: Run, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._run, self._clock = settings, run, clock
        self._ends = clock() + settings.lifetime
        self._table = TABLE + settings.responder_id
        self._selector = selectors.DefaultSelector()
        self._talks: Dict[socket.socket, Tuple[Answerer, bytearray, float]] = {}
        self._echo_key = echo_key(settings.key, settings.peer_name, settings.own_name)
        self._listening: List[socket.socket] = []
        self._closed = False
        self.proven = 0
        self.echoes = 0

    def open(self) -> int:
        """Takes a port, closes it to strangers, and only then listens.

        Raises:
            ResponderFailed: RESPONDER_FAILED.
        """
        control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.append(control)
        control.bind(_control_name(self._settings.responder_id))
        stream, port = self._bind_free_port()
        self._listening.append(stream)
        if self._settings.with_filter:
            self._remove_leftovers()
            self._run(["nft", "-f", "-"], self._rules(port))
        datagram = socket.socket(stream.family, socket.SOCK_DGRAM)
        self._listening.append(datagram)
        unfragmented(datagram)
        datagram.bind((str(self._settings.own), port))
        for sock, action in ((stream, self._accept), (datagram, self._echo), (control, self._report)):
            sock.setblocking(False)
            if sock is not datagram:
                sock.listen(MOST_CONVERSATIONS)
            self._selector.register(sock, selectors.EVENT_READ, action)
        return port

    def serve(self) -> None:
        """Until its end."""
        while self._clock() < self._ends:
            for key, _events in self._selector.select(0.5):
                try:
                    key.data(key.fileobj)
                except OSError:
                    self._drop(key.fileobj)
            for sock in [sock for sock, talk in self._talks.items() if talk[2] < self._clock()]:
                self._drop(sock)

    def close(self) -> None:
        """Closes the port, then takes the filter away; the second time it does nothing."""
        if self._closed:
            return
        self._closed = True
        self._selector.close()
        for sock in [*self._talks, *self._listening]:
            sock.close()
        self._talks.clear()
        if self._settings.with_filter:
            self._run(["nft", "delete", "table", "inet", self._table], "")

    def _bind_free_port(self) -> Tuple[socket.socket, int]:
        family = socket.AF_INET if self._settings.own.version == 4 else socket.AF_INET6
        problem = "no port was given"
        for port in self._settings.ports:
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind((str(self._settings.own), port))
                # Two sockets may be bound to a port, only one may listen; a bound one does not let anybody in.
                with socket.socket(family, socket.SOCK_DGRAM) as trial:
                    trial.bind((str(self._settings.own), port))
            except OSError as error:
                problem = error.strerror or str(error)
                sock.close()
                continue
            return sock, port
        raise ResponderFailed(
            f"no port of {self._settings.own} is free: {problem}",
            object="ports",
            remedy="Give other ports, or end what listens on them.",
        )

    def _rules(self, port: int) -> str:
        """direct-transports 7, with a set whose member runs out and one that remembers who knocked."""
        version = self._settings.own.version
        family, kind = {4: ("ip", "ipv4_addr"), 6: ("ip6", "ipv6_addr")}[version]
        life = self._settings.lifetime + _MARGIN
        door = f"meta l4proto {{ tcp, udp }} th dport {port} {family} daddr {self._settings.own}"
        return (
            f"table inet {self._table} {{\n"
            f" set peers {{ type {kind}; flags timeout; elements = {{ {self._settings.peer} timeout {life}s }}; }}\n"
            f" set strangers {{ type {kind}; size 64; flags dynamic,timeout; timeout {life}s; }}\n"
            f" chain in {{\n"
            f"  type filter hook input priority -10; policy accept;\n"
            f'  {door} iifname "{self._settings.interface}" {family} saddr @peers accept\n'
            f"  {door} update @strangers {{ {family} saddr }} counter drop\n"
            f" }}\n"
            f"}}\n"
        )

    def _remove_leftovers(self) -> None:
        """Tables of responders that were killed; one that lives has its control socket."""
        listed = self._run(["nft", "list", "tables", "inet"], "").stdout
        for found in re.findall(rf"table inet {TABLE}([0-9a-f]{{32}})\b", listed, re.ASCII):
            if found != self._settings.responder_id and not _is_alive(found):
                self._run(["nft", "delete", "table", "inet", TABLE + found], "")

    def _accept(self, listener: socket.socket) -> None:
        sock, address = listener.accept()
        own = sock.getsockname()[:2]
        if not self._is_peer(address) or len(self._talks) >= MOST_CONVERSATIONS:
            sock.close()
            return
        sock.setblocking(False)
        answerer = Answerer(
            self._settings.key,
            self._settings.own_name,
            self._settings.peer_name,
            secrets.token_hex(32),
            own,
            address[:2],
        )
        self._talks[sock] = (answerer, bytearray(), self._clock() + CONVERSATION_TIME)
        self._selector.register(sock, selectors.EVENT_READ, self._hear)

    def _is_peer(self, sender: Tuple[Any, ...]) -> bool:
        try:
            return parse_address(sender[0]) == self._settings.peer
        except NetworkInvalid:
            return False  # a link-local address with its zone

    def _hear(self, sock: socket.socket) -> None:
        answerer, buffer, _deadline = self._talks[sock]
        data = sock.recv(MAX_LINE)
        buffer += data
        if not data or len(buffer) > MAX_LINE:
            self._drop(sock)
            return
        while b"\n" in buffer:
            line, _newline, rest = bytes(buffer).partition(b"\n")
            buffer[:] = rest
            try:
                answer = answerer.take(line)
            except ExchangeBroken:
                answer = b""
            if not answer:
                self._drop(sock)
                return
            sock.sendall(answer)
            if answerer.proven:
                self.proven += 1
                self._drop(sock)
                return

    def _echo(self, sock: socket.socket) -> None:
        packet, sender = sock.recvfrom(65535)
        number = echo_sequence(self._echo_key, ASK, packet)
        if number is not None and self._is_peer(sender):
            self.echoes += 1
            sock.sendto(echo_packet(self._echo_key, ANSWER, number, len(packet)), sender)

    def _report(self, listener: socket.socket) -> None:
        sock, _address = listener.accept()
        with sock:
            _pid, uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid != os.geteuid():
                return
            report = {"proven": self.proven, "echoes": self.echoes, "strangers": self._strangers()}
            # The door is shut before whoever asked goes on.
            self.close()
            self._ends = 0.0
            sock.setblocking(True)
            sock.sendall(json.dumps(report).encode())

    def _strangers(self) -> List[str]:
        done = self._run(["nft", "-j", "list", "set", "inet", self._table, "strangers"], "")
        try:
            found = json.loads(done.stdout)["nftables"]
            members = next(entry["set"].get("elem", []) for entry in found if "set" in entry)
            values = [member["elem"]["val"] if isinstance(member, dict) else member for member in members]
            return sorted(str(parse_address(value)) for value in values)[:64]
        except (ValueError, KeyError, TypeError, StopIteration, NetworkInvalid):
            return []

    def _drop(self, sock: Any) -> None:
        if sock in self._talks:
            del self._talks[sock]
            self._selector.unregister(sock)
            sock.close()


def _control_name(responder_id: str) -> str:
    return f"\0crosscluster-probe-{responder_id}"


def _is_alive(responder_id: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.bind(_control_name(responder_id))
        except OSError:
            return True
    return False


def _detach(unused: int, body: Callable[[], None], kept: int) -> None:
    """In the child: a session of its own, no terminal, no file but one; never returns."""
    try:
        os.close(unused)
        os.setsid()
        if os.fork() == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            # Whoever reads the module's output waits until nobody holds it open any more.
            os.closerange(3, kept)
            os.closerange(kept + 1, 1024)
            os.chdir("/")
            body()
    finally:
        os._exit(0)


def _serve(settings: Settings, run: Run, sending: int) -> None:
    responder = Responder(settings, run)
    try:
        try:
            _tell(sending, {"port": responder.open()})
        except (ResponderFailed, OSError) as error:
            _tell(sending, {"problem": str(getattr(error, "message", error))})
            return
        os.close(sending)
        responder.serve()
    finally:
        responder.close()


def _tell(sending: int, value: Mapping[str, Any]) -> None:
    os.write(sending, json.dumps(value).encode() + b"\n")


def _port_of(receiving: int) -> int:
    """What the responder says of itself once it listens, or why it does not."""
    ready, _w, _x = select.select([receiving], [], [], READY_TIME)
    line = os.read(receiving, 4096) if ready else b""
    try:
        said = json.loads(line)
    except ValueError:
        said = {"problem": "it said nothing" if not line else "it said nonsense"}
    if isinstance(said, dict) and isinstance(said.get("port"), int):
        return int(said["port"])
    problem = said.get("problem") if isinstance(said, dict) else said
    raise ResponderFailed(
        f"the responder did not come up: {str(problem)[:200]}", object="responder", remedy="Run the check again."
    )
