# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The listening end of one migration on the target node: one loop, no thread. An edge file.

It watches over the door (``transport.accept``), makes a process per authenticated stream, answers the source over the
stream ``control`` and the module over its local socket, and takes everything away when it ends: after ``bye``, when
nobody has been connected for the lifetime, or on SIGTERM. QEMU's sockets are untouched until a stream is opened.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import select
import signal
import socket
import ssl
import stat
import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Protocol, Tuple, cast

from ..errors import CrossclusterError, Side
from ..qemu.monitor import Monitor
from ..transport import direct_pump, tls, wire
from ..transport.accept import Door, Turned
from ..transport.direct_end import DirectEnd, addresses_of
from ..transport.direct_guard import DirectLimits
from ..transport.errors import NetworkChanged, TransportError
from ..transport.firewall import Firewall, Rule
from ..transport.handshake import Addresses, TargetGreeting, welcome
from ..transport.incoming_errors import FirewallMissing, IncomingFailed, NotAttached
from ..transport.interface import EndReason, Kind, kind_of
from ..transport.listener import Listener, device_with
from ..transport.newcomer import Newcomer
from . import incoming_places, incoming_tls
from .errors import Recorded
from .incoming_checks import examine
from .incoming_children import Errand, ParentChannel, StreamChild
from .incoming_lines import Conversation, Request, TooLong, invalid
from .incoming_requests import OPERATIONS, Attachment, World, carry_out
from .incoming_settings import IncomingSettings
from .target_node import target_node

__all__ = ["Incoming"]

_STREAMS = 64  # a VM has at most 1 + 30 disks and some imports
_CLIENTS = 8  # of the local socket
_WAITING = 16  # requests that are asked and not answered yet
_UNSENT = 1 << 20  # bytes of answers that a client may leave unread
_ERRAND_TIMEOUT = 330.0  # seconds; `qm destroy` of large volumes is the longest
_PARTING = 3.0  # seconds for the streams to end by themselves after `bye`
_ASK_TIMEOUT = 1.0  # seconds for the path of a socket; meanwhile the stream does not beat
_LOOK = 60.0  # seconds after which the loop looks at the clock in any case
_READ = 16384
_LOG = logging.getLogger(__name__)

Handler = Callable[[int], None]


class _Watched(Protocol):
    """Something to poll."""

    def fileno(self) -> int:
        """Its descriptor."""


class _Guest:
    """A connection that nobody knows yet."""

    def __init__(self, sock: socket.socket, newcomer: Newcomer) -> None:
        self.socket = sock
        self.newcomer = newcomer
        self.out = b""
        self.is_refused = False  # it may still take in why

    def fileno(self) -> int:
        return self.socket.fileno()

    def flush(self) -> bool:
        """Whether everything was taken."""
        self.out += self.newcomer.to_send()
        if self.out:
            with contextlib.suppress(BlockingIOError, InterruptedError):
                self.out = self.out[self.socket.send(self.out) :]
        return not self.out


class _Talk:
    """A conversation: with the source over ``control``, or with a client of the local socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.words = Conversation()
        self.out = b""

    def fileno(self) -> int:
        return self.socket.fileno()

    def say(self, line: bytes) -> None:
        """Send it, now or as soon as it is taken; raises OSError when the client is gone or does not listen."""
        self.out += line
        self.flush()
        if len(self.out) > _UNSENT:
            raise ConnectionAbortedError

    def flush(self) -> None:
        """Send on."""
        if self.out:
            with contextlib.suppress(BlockingIOError, InterruptedError):
                self.out = self.out[self.socket.send(self.out) :]


class Incoming:
    """One listening end.

    Args:
        settings: What to do.
        key: The key of ``tcp``; empty without one.
        world: What is asked of and done to the node; the real one when None.
        clock: Monotonic clock, seconds.

    Raises:
        CrossclusterError: it cannot listen; the code says why. What was made is taken away by who made us.
    """

    def __init__(
        self,
        settings: IncomingSettings,
        key: str,
        world: Optional[World] = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self._key = key
        self._world = world or _real_world(settings)
        self._clock = clock
        self._limits = DirectLimits.parse(settings.limits)
        first, last = settings.ports
        self._listener = Listener(settings.address, range(first, last + 1), device_with(settings.address))
        self._firewall = Firewall()
        self._firewall_error = self._set_rule()
        self.prospect = examine(settings, key, self._firewall_error)
        self.prospect.require()
        self._credentials = tls.Credentials(settings.credentials)
        self._context = tls.server_context(self._credentials) if "tls" in self.prospect.planes else None
        # For the streams that QEMU encrypts itself; the source gets it over a control stream with TLS, nobody else.
        is_served = "qemu-tls" in settings.transports and "qemu-tls" not in self.prospect.rejected
        self._opaque_key = secrets.token_hex(32) if is_served else ""
        self._takes_tls_only = False  # the target's QEMU, from tls_arm on
        self._door = Door(settings.peer_address, now=clock())
        self._local = _local_listener(incoming_places.socket_path(settings.migration_id))
        self._wakeup, self._waker = socket.socketpair()
        self._guests: Dict[int, _Guest] = {}
        self._clients: List[_Talk] = []
        self._control: Optional[_Talk] = None
        self._control_name = ""
        self._streams: List[StreamChild] = []
        self._taken: List[str] = []
        self._errand: Optional[Tuple[Errand, _Talk, Request]] = None
        self._errands: List[Tuple[_Talk, Request]] = []
        self._attachment = Attachment(settings.migration_id)
        self._sealed = self._removed = False
        self._alone_since: float = clock()
        self._ending = ""
        self._gone_by: float = 0.0

    # --- its life

    def run(self) -> None:
        """Listen until the end; afterwards no socket, process or rule of ours is left."""
        self._waker.setblocking(False)
        self._wakeup.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        self._listener.open()
        _LOG.info(
            "listening on %s port %d for %s", self.settings.address, self._listener.port, self.settings.peer_address
        )
        try:
            while not self._ending or (self._streams and self._clock() < self._gone_by):
                self._turn()
        finally:
            signal.set_wakeup_fd(-1)
            self._close()

    def stop(self, why: str, patience: float = 0.0) -> None:
        """End; streams have ``patience`` seconds to end by themselves."""
        if not self._ending:
            self._ending = why
            self._gone_by = self._clock() + patience

    def status(self) -> Dict[str, Any]:
        """What it does just now, JSON."""
        now = self._clock()
        return dict(
            self.settings.to_dict(),
            digest=self.settings.digest(self._key),
            pid=os.getpid(),
            port=self._listener.port,
            open=self._listener.is_open,
            own_name=self.prospect.own_name,
            planes=list(self.prospect.planes),
            rejected=self.prospect.rejected_as_dict(),
            firewall=self._firewall_report(),
            warnings=list(self.prospect.warnings),
            streams=[{"name": s.name, "plane": s.plane, "age_s": round(now - s.since, 1)} for s in self._streams],
            vmid=self._attachment.vmid,
            turned={reason.value: count for reason, count in self._door.turned.items()},
        )

    def _firewall_report(self) -> Dict[str, Any]:
        installed = self._firewall_error is None
        return {
            "installed": installed,
            "counters": self._firewall.counters(self.settings.migration_id) if installed else {},
        }

    def _set_rule(self) -> Optional[FirewallMissing]:
        """Before anybody can connect (direct-transports 7)."""
        settings = self.settings
        rule = Rule(
            settings.migration_id,
            settings.address,
            self._listener.port,
            settings.peer_address,
            self._listener.device,
        )
        try:
            self._firewall.install(rule)
        except FirewallMissing as error:
            _LOG.warning("%s", error)
            return error
        return None

    def _close(self) -> None:
        _LOG.info(
            "the end: %s; turned away: %s; dropped: %s",
            self._ending or "a fault",
            {reason.value: count for reason, count in self._door.turned.items() if count},
            self._firewall_report()["counters"],
        )
        self._listener.close()
        for guest in self._guests.values():
            guest.socket.close()
        for talk in self._talks():
            talk.socket.close()
        for stream in self._streams:
            stream.bury()
        if self._errand is not None:
            self._errand[0].bury()
        self._disarm()
        self._local.close()
        self._wakeup.close()
        self._waker.close()

    def _disarm(self) -> None:
        """QEMU's own TLS, if the source did not live to have it taken away."""
        attachment = self._attachment
        if attachment.armed and attachment.vmid is not None:
            try:
                incoming_tls.disarm(self._world.monitor(attachment.vmid))
            except CrossclusterError as error:
                _LOG.warning("%s", error)

    # --- the loop

    def _turn(self) -> None:
        """Wait for something and see to it."""
        poller = select.poll()
        handlers: Dict[int, Handler] = {}
        for thing, events, handler in self._watched():
            poller.register(thing.fileno(), events)
            handlers[thing.fileno()] = handler
        for descriptor, events in poller.poll(self._patience() * 1000):
            handlers[descriptor](events)
        self._look_at_clock()

    def _watched(self) -> List[Tuple[_Watched, int, Handler]]:
        """What to poll for what, and who sees to it."""
        watched: List[Tuple[_Watched, int, Handler]] = [
            (self._wakeup, select.POLLIN, self._wake),
            (self._local, select.POLLIN, self._accept_client),
        ]
        if self._listener.is_open and self._door.is_open(self._clock()):
            watched.append((self._listener, select.POLLIN, self._accept))
        for guest in self._guests.values():
            watched.append((guest, _events(guest.out), functools.partial(self._hear_guest, guest)))
        for talk in self._talks():
            watched.append((talk, _events(talk.out), functools.partial(self._hear, talk)))
        for stream in self._streams:
            watched.append((stream, select.POLLIN, functools.partial(self._hear_stream, stream)))
        if self._errand is not None:
            watched.append((self._errand[0], select.POLLIN, self._hear_errand))
        return watched

    def _talks(self) -> List[_Talk]:
        return [*self._clients, *([self._control] if self._control is not None else [])]

    def _patience(self) -> float:
        """Seconds until the clock itself brings something about."""
        now = self._clock()
        waits = [_LOOK]
        door = self._door.next_look(now)
        if door is not None:
            waits.append(door + 0.001)
        if self._ending:
            waits.append(self._gone_by - now)
        if not self._streams and self._errand is None:
            waits.append(self._alone_since + self.settings.lifetime - now)
        if self._errand is not None:
            waits.append(self._errand[0].deadline - now)
        return max(0.0, min(waits))

    def _look_at_clock(self) -> None:
        now = self._clock()
        for number in self._door.late(now):
            guest = self._guests[number]
            if guest.is_refused:
                self._let_go(guest)
            else:
                self._turn_away(guest, Turned.LATE, "it took too long")
        if self._errand is None and not self._streams and now - self._alone_since >= self.settings.lifetime:
            self.stop("nobody was connected for the lifetime")
        if self._ending:
            self._listener.shut()
        if self._errand is not None and now >= self._errand[0].deadline:
            self._end_errand()

    def _wake(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wakeup.recv(_READ)

    # --- the door

    def _accept(self, _events: int) -> None:
        accepted = self._listener.accept()
        if accepted is None:
            return
        sock, address = accepted
        if not self._door.arrived(sock.fileno(), address, self._clock()):
            _LOG.info("a stranger was turned away: %s", address)
            sock.close()
            return
        self._guests[sock.fileno()] = _Guest(sock, self._newcomer(sock))

    def _newcomer(self, sock: socket.socket) -> Newcomer:
        def handshake() -> tls.Handshake:
            context = cast(ssl.SSLContext, self._context)
            return tls.Handshake(Side.TARGET, context, self._credentials, self.settings.peer_name)

        planes = self.prospect.planes

        def greeting(plane: str) -> TargetGreeting:
            return TargetGreeting(
                plane,
                self.settings.migration_id,
                self._key if plane == "tcp" and "tcp" in planes else "",
                addresses_of(sock, Side.TARGET),
                secrets.token_hex(32),
                self._may_open,
                self._opaque_key if plane == "tcp" else "",
                holds_welcome=plane == "tcp",
            )

        return Newcomer((*planes, "tcp") if self._opaque_key else planes, handshake, greeting)

    def _may_open(self, stream: str) -> Optional[str]:
        """Why a stream may not stand, for an authenticated peer; None when it may, and is taken now."""
        kind = kind_of(stream)
        if kind is None:
            return "no stream is called so"
        if stream in self._taken:
            return "it was opened before, and no stream is opened twice"
        if kind is Kind.CONTROL and self._control is not None:
            return "there is one already"
        if self._sealed and kind is not Kind.CONTROL:
            return "no more streams are expected"
        if len(self._taken) >= _STREAMS:
            return "there are too many"
        self._taken.append(stream)
        return None

    def _hear_guest(self, guest: _Guest, events: int) -> None:
        number = guest.fileno()
        if self._guests.get(number) is not guest:
            return None  # gone since the poll
        if guest.is_refused:
            return self._see_off(guest)
        try:
            if events & ~select.POLLOUT and not guest.newcomer.stream:
                room = self._door.room(number)
                data = guest.socket.recv(min(_READ, room)) if room else b""
                if not data:
                    reason = Turned.FAILED if room else Turned.TALKATIVE
                    return self._turn_away(guest, reason, "it said too much" if not room else "it went away")
                self._door.heard(number, len(data))
                guest.newcomer.receive(data)
            if guest.flush() and guest.newcomer.stream:
                self._let_in(guest)
        except BlockingIOError:
            return None
        except TransportError as error:
            _LOG.info("a connection was turned away: %s", error)
            guest.is_refused = True
            self._door.parts(number, Turned.FAILED, self._clock())
            return self._see_off(guest)
        except OSError as error:
            return self._turn_away(guest, Turned.FAILED, str(error.strerror))
        return None

    def _see_off(self, guest: _Guest) -> None:
        """Say why, as far as it may know, and read on for a moment.

        A close with unread input would reset our last words on their way (direct-transports 4.5).
        """
        number = guest.fileno()
        try:
            if guest.flush():
                guest.socket.shutdown(socket.SHUT_WR)
            room = self._door.room(number)
            data = guest.socket.recv(min(_READ, room)) if room else b""
            if data:
                return self._door.heard(number, len(data))
        except BlockingIOError:
            return None
        except OSError as error:
            _LOG.debug("it did not wait for the reason: %s", error.strerror)
        return self._let_go(guest)

    def _turn_away(self, guest: _Guest, reason: Turned, why: str) -> None:
        _LOG.info("a connection was turned away: %s", why)
        self._let_go(guest, reason)

    def _let_go(self, guest: _Guest, reason: Optional[Turned] = None) -> None:
        self._door.left(guest.fileno(), reason)
        del self._guests[guest.fileno()]
        guest.socket.close()
        if guest.newcomer.stream in self._taken:
            self._taken.remove(guest.newcomer.stream)  # it was known and left before it stood: it may come again

    # --- streams

    def _let_in(self, guest: _Guest) -> None:
        """A process for an authenticated stream."""
        self._door.left(guest.fileno())
        del self._guests[guest.fileno()]
        name, plane = guest.newcomer.stream, guest.newcomer.plane
        local = self._open_control(name) if kind_of(name) is Kind.CONTROL else None
        descriptors = [guest.fileno(), *([local.fileno()] if local is not None else [])]

        # Clear text, over a network that was proven: each connection looks at it again.
        proven = plane == "tcp" and not guest.newcomer.opaque

        def carry(parent: ParentChannel) -> None:
            connection = DirectEnd(guest.socket, plane, guest.newcomer.handshake)
            refusal = _admit(connection, addresses_of(guest.socket, Side.TARGET)) if proven else None
            if refusal is not None:
                parent.tell_end(EndReason.REFUSED.value, False, refusal)
                return
            end = direct_pump.serve(connection, name, _Target(name, parent, local), self._limits, time.monotonic)
            parent.tell_end(end.reason.value, end.clean, end.detail)

        stream = StreamChild(name, plane, self._clock(), descriptors, carry, guest.newcomer.opaque)
        _LOG.info("stream %s stands, process %d", name, stream.pid)
        self._streams.append(stream)
        guest.socket.close()
        if local is not None:
            local.close()

    def _open_control(self, name: str) -> socket.socket:
        """Our end of a new ``control``; returns the other one."""
        ours, theirs = socket.socketpair()
        self._control_name = name
        if self._sealed:
            self._listener.shut()
        self._control = _Talk(ours)
        self._control.say(Conversation.greeting(migration_id=self.settings.migration_id))
        return theirs

    def _hear_stream(self, stream: StreamChild, _events: int) -> None:
        question = stream.hear() if stream in self._streams else {}
        if question is None:
            self._end_stream(stream)
        elif question:
            stream.was_opened = True
            stream.answer(self._path_for(stream))

    def _path_for(self, stream: StreamChild) -> Dict[str, str]:
        """Where QEMU waits for a stream, at the moment when it is opened."""
        path = self._attachment.path(stream.name)
        if path is None:
            return {"refused": f"no socket was attached for {stream.name}"}
        if stream.opaque and not self._takes_tls_only:
            return {"refused": f"QEMU was not told to take {stream.name} by TLS only, and nothing else protects it"}
        if not self._world.is_socket(path):
            return {"refused": f"{path} is gone: QEMU has ended"}
        return {"path": path}

    def _end_stream(self, stream: StreamChild) -> None:
        self._streams.remove(stream)
        stream.bury()
        _LOG.info(
            "stream %s ended: %s%s %s",
            stream.name,
            stream.end["reason"],
            "" if stream.end["clean"] else " (not clean)",
            stream.end["detail"],
        )
        self._alone_since = self._clock()
        refused = stream.end["reason"] == EndReason.REFUSED.value
        if refused or (kind_of(stream.name) is not Kind.CONTROL and not stream.was_opened):
            self._taken.remove(stream.name)  # QEMU never saw it: the transport that is tried next may have it
        if stream.name == self._control_name:
            self._lose_control()

    def _lose_control(self) -> None:
        """The source may come back with a new worker, to have removed or resumed what it recorded."""
        if self._control is not None:
            self._drop(self._control)
        if self._removed:
            self.stop("control was lost and nothing is left")
        elif self._sealed and not self._ending:
            self._listener.open()  # for a new control alone

    # --- conversations

    def _accept_client(self, _events: int) -> None:
        try:
            sock, _address = self._local.accept()
        except OSError:
            return
        if len(self._clients) >= _CLIENTS:
            self._clients.pop(0).socket.close()
        talk = _Talk(sock)
        self._clients.append(talk)
        self._try_to_say(talk, Conversation.greeting(migration_id=self.settings.migration_id))

    def _hear(self, talk: _Talk, events: int) -> None:
        try:
            if events & select.POLLOUT:
                talk.flush()
            if events & ~select.POLLOUT:
                data = talk.socket.recv(_READ)
                if not data:
                    return self._drop(talk)
                for request in talk.words.receive(data):
                    self._serve(talk, request)
        except BlockingIOError:
            return None
        except (OSError, TooLong):
            return self._drop(talk)
        return None

    def _drop(self, talk: _Talk) -> None:
        self._errands = [errand for errand in self._errands if errand[0] is not talk]
        talk.socket.close()
        if talk is self._control:
            self._control = None
        elif talk in self._clients:
            self._clients.remove(talk)

    def _serve(self, talk: _Talk, request: Request) -> None:
        is_control = talk is self._control
        if not is_control and request.op == "status":
            talk.say(Conversation.answer(request, self.status()))
        elif not is_control:
            talk.say(Conversation.refuse(request, invalid("only status can be asked for here")))
        elif request.op in OPERATIONS and len(self._errands) >= _WAITING:
            talk.say(Conversation.refuse(request, invalid("too many requests are waiting")))
        elif request.op in OPERATIONS:
            self._errands.append((talk, request))
            self._begin_errand()
        elif request.op == "report":
            talk.say(Conversation.answer(request, self.status()))
        elif request.op == "opaque_key":
            talk.say(self._tell_opaque_key(request))
        elif request.op == "seal":
            self._sealed = True
            self._listener.shut()
            talk.say(Conversation.answer(request, {}))
        elif request.op == "bye":
            talk.say(Conversation.answer(request, self.status()))
            with contextlib.suppress(OSError):
                talk.socket.shutdown(socket.SHUT_WR)
            self.stop("bye", _PARTING)
        else:
            talk.say(Conversation.refuse(request, invalid(f"unknown request {request.op[:40]!r}")))

    def _tell_opaque_key(self, request: Request) -> bytes:
        """Only where nobody on the way can read it, and to whom the certificate names."""
        is_secured = any(s.name == self._control_name and s.plane == "tls" for s in self._streams)
        if not is_secured or not self._opaque_key:
            return Conversation.refuse(request, invalid("qemu-tls is not served here, or not to who asks in the clear"))
        return Conversation.answer(request, {"key": self._opaque_key})

    def _try_to_say(self, talk: _Talk, line: bytes) -> None:
        try:
            talk.say(line)
        except OSError:
            self._drop(talk)

    # --- errands

    def _begin_errand(self) -> None:
        """One after the other: they are about one VM."""
        if self._errand is not None or not self._errands:
            return
        talk, request = self._errands.pop(0)
        attachment, world = self._attachment, self._world
        if request.op in ("tls_arm", "tls_disarm"):
            self._takes_tls_only = False  # until the answer says so
        errand = Errand(lambda: _run_errand(attachment, request, world), self._clock() + _ERRAND_TIMEOUT)
        _LOG.info("%s", request.op)
        self._errand = (errand, talk, request)

    def _hear_errand(self, _events: int) -> None:
        if self._errand is not None and self._errand[0].hear():
            self._end_errand()

    def _end_errand(self) -> None:
        if self._errand is None:
            return
        (errand, talk, request), self._errand = self._errand, None
        result = errand.result() or {"error": None}
        errand.bury()
        if "data" in result:
            attachment = result["attachment"]
            self._attachment = Attachment(**attachment)
            self._removed = self._removed or request.op == "remove"
            self._takes_tls_only = self._takes_tls_only or request.op == "tls_arm"
            line = Conversation.answer(request, result["data"])
        else:
            _LOG.warning("%s failed: %s", request.op, result["error"])
            line = _failure_line(request, result["error"])
        if talk is self._control:
            self._try_to_say(talk, line)
        elif self._removed and self._control is None:
            self.stop("control was lost and nothing is left")
        self._begin_errand()


class _Target:
    """Where a stream goes to on this node, as its process asks for it when it is opened.

    Args:
        stream: Its name.
        parent: Knows the paths.
        local: For ``control`` the socket itself.
    """

    def __init__(self, stream: str, parent: ParentChannel, local: Optional[socket.socket]) -> None:
        self._stream = stream
        self._parent = parent
        self._local = local

    def connect(self) -> socket.socket:
        """A connected socket; raises OSError, or NotAttached with a sentence for the user on the other side."""
        if self._local is not None:
            return self._local
        answer = self._parent.ask(_ASK_TIMEOUT, ask="path")
        if "path" not in answer:
            raise NotAttached(str(answer.get("refused")), object=self._stream)
        return direct_pump.connect_unix(answer["path"])


def _admit(connection: DirectEnd, addresses: Addresses) -> Optional[str]:
    """WELCOME, or why not, which the peer hears; in the process of the stream, for the node's commands take time."""
    from ..transport import network_proof  # streams of other transports do without its memory

    try:
        network_proof.prove(addresses, Side.TARGET)
    except NetworkChanged as error:
        connection.send(wire.abort(error.code, error.message))
        connection.finish()
        connection.linger(_PARTING, time.monotonic)
        connection.close()
        return f"{error.code}: {error.message}"
    connection.send(welcome())
    return None


def _events(out: bytes) -> int:
    return select.POLLIN | select.POLLOUT if out else select.POLLIN


def _run_errand(attachment: Attachment, request: Request, world: World) -> Mapping[str, Any]:
    """In a process of its own."""
    try:
        data, attached = carry_out(request.op, attachment, request.values, world)
    except CrossclusterError as error:
        return {"error": error.to_dict()}
    except Exception as error:  # the last door of this process
        return {"error": IncomingFailed(f"{request.op} died: {type(error).__name__}", object="control").to_dict()}
    return {"data": data, "attachment": vars(attached)}


def _failure_line(request: Request, error: Optional[Mapping[str, Any]]) -> bytes:
    if error is None:
        return Conversation.refuse(request, IncomingFailed(f"{request.op} did not end in time", object="control"))
    return Conversation.refuse(request, Recorded.parse(error))


def _local_listener(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # of one that was killed: who holds the id is the only one
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen(_CLIENTS)
    listener.setblocking(False)
    return listener


def _real_world(settings: IncomingSettings) -> World:
    return World(
        node=target_node(),
        monitor=lambda vmid: Monitor(f"/run/qemu-server/{vmid}.qmp", time.monotonic),
        is_socket=_is_socket,
        unlink=_unlink,
        credentials=settings.credentials,
        peer_name=settings.peer_name,
    )


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
