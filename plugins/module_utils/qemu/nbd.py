# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The books of one NBD connection: which requests are open, how many written bytes are acknowledged.

Follows both directions of the bytes between QEMU's NBD client and the target's NBD server without holding
or changing them: fixed newstyle negotiation, then transmission with simple, structured or extended headers
(the NBD protocol document, doc/proto.md). Payloads are skipped, however the stream is cut. Sans-I/O; clock
values are passed in. The pump paces and guards by it (direct-transports 4.3: the answer rule).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Callable, Dict, Optional, Tuple, Union

from ..errors import Side
from .errors import NbdInvalid

__all__ = ["GREETING_SIZE", "Ledger", "Request", "check_greeting"]

Buffer = Union[bytes, bytearray, memoryview]

GREETING = b"NBDMAGICIHAVEOPT"
GREETING_SIZE = 18  # bytes: the two magics and 16 handshake flags
OPTION_MAGIC = b"IHAVEOPT"
OPTION_REPLY_MAGIC = 0x0003E889045565A9
OPTION_EXPORT_NAME, OPTION_GO = 1, 7
REPLY_ACK, REPLY_ERROR_BIT = 1, 1 << 31
FLAG_FIXED, FLAG_NO_ZEROES = 1, 2
REQUEST, REQUEST_EXTENDED = 0x25609513, 0x21E41C71
SIMPLE, STRUCTURED, EXTENDED = 0x67446698, 0x668E33EF, 0x6E8A278C
COMMAND_READ, COMMAND_WRITE, COMMAND_DISCONNECT = 0, 1, 2
COMMAND_PAYLOAD = 1 << 5  # an extended request with this flag is followed by `length` bytes
CHUNK_DONE = 1  # the last chunk of a structured or extended reply
CHUNK_ERROR = 1 << 15  # chunk types with this bit carry an error
MAX_OPEN = 1024  # requests; QEMU has 16 per connection
MAX_OPTION = 65536  # bytes of one negotiation message; QEMU's own limit is 32 MiB, its messages < 5 KiB
MAX_LENGTH = 32 * 1024 * 1024  # bytes that follow one header; QEMU's own limit

_OPTION = struct.Struct(">8sII")
_OPTION_REPLY = struct.Struct(">QIII")
_REQUEST_EXTENDED = struct.Struct(">IHHQQQ")
_SIMPLE = struct.Struct(">IIQ")
_STRUCTURED = struct.Struct(">IHHQI")
_EXTENDED = struct.Struct(">IHHQQQ")


def check_greeting(data: Buffer) -> bool:
    """Whether ``data`` is a complete greeting; False while it is a beginning of one.

    Raises:
        NbdInvalid: NBD_INVALID, this is no NBD server of the fixed newstyle kind.
    """
    head = bytes(data[:GREETING_SIZE])
    if not GREETING.startswith(head[: len(GREETING)]):
        raise _invalid("the server does not greet as an NBD server")
    if len(head) < GREETING_SIZE:
        return False
    if not head[17] & FLAG_FIXED:
        raise _invalid("the server does not offer fixed newstyle negotiation")
    return True


@dataclass(frozen=True)
class Request:
    """One request without its final answer."""

    command: int
    length: int  # bytes; of a write these are on the wire
    payload: int  # bytes of it that followed the header
    since: float  # clock value at which its header came by


Next = Tuple[int, Callable[[bytes], int]]


class _Direction:
    """Cuts one direction into headers of announced size; a header says how many bytes to skip after it."""

    def __init__(self, size: int, handler: Callable[[bytes], int]) -> None:
        self.expect(size, handler)
        self._skip = 0
        self._head = bytearray()

    def expect(self, size: int, handler: Callable[[bytes], int]) -> None:
        self.size, self.handler = size, handler

    def receive(self, data: Buffer) -> None:
        view = memoryview(data)
        at, end = 0, len(view)
        while at < end:
            if self._skip:
                step = min(self._skip, end - at)
                self._skip -= step
                at += step
                continue
            step = min(self.size - len(self._head), end - at)
            if step < 0:  # the other direction shortened what is expected in the middle of a header
                raise _invalid("a message was cut short")
            self._head += view[at : at + step]
            at += step
            if len(self._head) == self.size:
                head, before = bytes(self._head), self.size
                skip = self.handler(head)
                if self.size > before and skip < 0:  # the handler wants a longer header of the same message
                    continue
                self._head.clear()
                self._skip = skip


class Ledger:
    """Both directions of one NBD connection.

    Feed :meth:`client` with what QEMU sends and :meth:`server` with what the target sends, in the order in
    which they pass the pump. Attributes: ``acknowledged`` written bytes with a good answer, ``in_flight``
    written bytes without an answer, ``transmitting``.
    """

    def __init__(self) -> None:
        self.acknowledged = 0
        self.in_flight = 0
        self.transmitting = False
        self._open: Dict[int, Request] = {}
        self._errors: Dict[int, bool] = {}
        self._asked: Optional[float] = None
        self._option = 0
        self._no_zeroes = False
        self._now = 0.0
        self._client = _Direction(4, self._client_flags)
        self._server = _Direction(GREETING_SIZE, self._greeting)

    @property
    def outstanding(self) -> int:
        """How many requests have no final answer."""
        return len(self._open)

    @property
    def oldest(self) -> Optional[Request]:
        """The request that waits longest."""
        return next(iter(self._open.values()), None)

    @property
    def negotiating_since(self) -> Optional[float]:
        """Clock value of the last negotiation message of QEMU that has no answer yet.

        QEMU negotiates in its main loop: the guest may stand still meanwhile (qemu-facts 5.1).
        """
        return self._asked

    def client(self, data: Buffer, now: float) -> None:
        """QEMU sent ``data``.

        Raises:
            NbdInvalid: NBD_INVALID.
        """
        self._now = now
        self._client.receive(data)

    def server(self, data: Buffer, now: float) -> None:
        """The target sent ``data``.

        Raises:
            NbdInvalid: NBD_INVALID.
        """
        self._now = now
        self._server.receive(data)

    # The client's direction.

    def _client_flags(self, head: bytes) -> int:
        self._no_zeroes = bool(head[3] & FLAG_NO_ZEROES)
        self._client.expect(4, self._client_magic)
        return 0

    def _client_magic(self, head: bytes) -> int:
        """Four bytes tell an option from a request, and one kind of request from the other."""
        if head == OPTION_MAGIC[:4] and not self.transmitting:
            self._client.expect(_OPTION.size, self._client_option)
        elif int.from_bytes(head, "big") == REQUEST:
            self._client.expect(28, self._client_request)
        elif int.from_bytes(head, "big") == REQUEST_EXTENDED:
            self._client.expect(_REQUEST_EXTENDED.size, self._client_extended)
        else:
            raise _invalid("QEMU sent neither an option nor a request")
        return -1

    def _client_option(self, head: bytes) -> int:
        magic, self._option, length = _OPTION.unpack(head)
        if magic != OPTION_MAGIC:
            raise _invalid("QEMU sent a damaged option")
        self._asked = self._now
        if self._option == OPTION_EXPORT_NAME:  # the one option that is not answered by an option reply
            self._server.expect(10 if self._no_zeroes else 134, self._export)
        self._client.expect(4, self._client_magic)
        return _bounded(length, MAX_OPTION)

    def _client_request(self, head: bytes) -> int:
        command, cookie, length = struct.unpack_from(">6xHQ8xI", head)
        self._client.expect(4, self._client_magic)
        return self._request(command, cookie, length, length if command == COMMAND_WRITE else 0)

    def _client_extended(self, head: bytes) -> int:
        _magic, flags, command, cookie, _offset, length = _REQUEST_EXTENDED.unpack(head)
        self._client.expect(4, self._client_magic)
        # A write has its bytes behind it with and without the flag: QEMU 10.0 does not set it.
        carries = command == COMMAND_WRITE or flags & COMMAND_PAYLOAD
        return self._request(command, cookie, length, length if carries else 0)

    def _request(self, command: int, cookie: int, length: int, payload: int) -> int:
        if command == COMMAND_DISCONNECT:  # never answered
            return 0
        if cookie in self._open or len(self._open) >= MAX_OPEN:
            raise _invalid("QEMU has too many requests open or uses one cookie twice")
        self._open[cookie] = Request(command, length, _bounded(payload, MAX_LENGTH), self._now)
        if command == COMMAND_WRITE:
            self.in_flight += payload
        return payload

    # The server's direction.

    def _greeting(self, head: bytes) -> int:
        check_greeting(head)
        self._server.expect(_OPTION_REPLY.size, self._option_reply)
        return 0

    def _option_reply(self, head: bytes) -> int:
        magic, option, kind, length = _OPTION_REPLY.unpack(head)
        if magic != OPTION_REPLY_MAGIC:
            raise _invalid("the server sent a damaged option reply")
        if kind == REPLY_ACK or kind & REPLY_ERROR_BIT:
            self._asked = None
        if option == OPTION_GO and kind == REPLY_ACK:
            self._transmit()
        return _bounded(length, MAX_OPTION)

    def _export(self, head: bytes) -> int:
        self._asked = None
        self._transmit()
        return 0

    def _transmit(self) -> None:
        self.transmitting = True
        self._server.expect(4, self._server_magic)

    def _server_magic(self, head: bytes) -> int:
        magic = int.from_bytes(head, "big")
        if magic == SIMPLE:
            self._server.expect(_SIMPLE.size, self._simple)
        elif magic == STRUCTURED:
            self._server.expect(_STRUCTURED.size, self._structured)
        elif magic == EXTENDED:
            self._server.expect(_EXTENDED.size, self._extended)
        else:
            raise _invalid("the server sent something that is no reply")
        return -1

    def _simple(self, head: bytes) -> int:
        _magic, error, cookie = _SIMPLE.unpack(head)
        request = self._close(cookie, error != 0)
        return request.length if request.command == COMMAND_READ and not error else 0

    def _structured(self, head: bytes) -> int:
        _magic, flags, kind, cookie, length = _STRUCTURED.unpack(head)
        return self._chunk(flags, kind, cookie, length)

    def _extended(self, head: bytes) -> int:
        _magic, flags, kind, cookie, _offset, length = _EXTENDED.unpack(head)
        return self._chunk(flags, kind, cookie, length)

    def _chunk(self, flags: int, kind: int, cookie: int, length: int) -> int:
        if cookie not in self._open:
            raise _invalid("the server answers what was not asked")
        if kind & CHUNK_ERROR:
            self._errors[cookie] = True
        if flags & CHUNK_DONE:
            self._close(cookie, self._errors.pop(cookie, False))
        self._server.expect(4, self._server_magic)
        return _bounded(length, MAX_LENGTH)

    def _close(self, cookie: int, failed: bool) -> Request:
        request = self._open.pop(cookie, None)
        if request is None:
            raise _invalid("the server answers what was not asked")
        if request.command == COMMAND_WRITE:
            self.in_flight -= request.payload
            self.acknowledged += 0 if failed else request.payload
        self._server.expect(4, self._server_magic)
        return request


def _bounded(length: int, limit: int) -> int:
    if length > limit:
        raise _invalid(f"a message announces {length} bytes, more than {limit}")
    return length


def _invalid(what: str) -> NbdInvalid:
    return NbdInvalid(f"The NBD connection is broken: {what}", side=Side.TARGET, object="NBD")
