# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The tunnel: control channel over a websocket over TLS, used synchronously.

Edge file: sockets. The owner calls :meth:`Tunnel.tick` when the descriptor is readable or a second has passed.
"""

from __future__ import annotations

import re
import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, TypeVar

from ..errors import CrossclusterError
from ..websocket import frames
from ..websocket.errors import FrameInvalid, StreamLost
from ..websocket.tls_stream import TlsStream
from . import commands, replies
from .commands import Command
from .control_channel import ControlChannel, Reply
from .endpoint import Endpoint
from .errors import ChannelLost, CommandRefused, EndpointInvalid, ReplyTimeout
from .upgrade import open_websocket, wait

__all__ = ["Tunnel"]

# mtunnel-protocol 3.5: nothing times out at the server, but firewalls on the way forget idle connections.
PING_INTERVAL = 30.0
_Typed = TypeVar("_Typed")
_VMID = re.compile(r"/qemu/([0-9]+)/mtunnelwebsocket\?", re.ASCII)


class Tunnel:
    """The control connection of one migration; single threaded, one command at a time."""

    def __init__(self, stream: TlsStream, first: bytes, vmid: int, clock: Callable[[], float]) -> None:
        self.vmid = vmid
        self._stream = stream
        self._clock = clock
        self._decoder = frames.Decoder()
        self._channel = ControlChannel()
        self._replies: List[Reply] = []
        self._lost: Optional[ChannelLost] = None
        self._pinged = clock()
        self._import_storage = ""
        if first:
            self._take(first)

    @classmethod
    def open(
        cls,
        endpoint: Endpoint,
        secret: str,
        path: str,
        deadline: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> "Tunnel":
        """Connect the control channel. Only after the task log says ``mtunnel started`` (pve-cli 1.1).

        Args:
            endpoint: The node that made the tunnel.
            secret: The token's secret.
            path: From ``TargetApi.tunnel_path`` for the control socket.
            deadline: Moment on ``clock`` (seconds) by which the websocket stands.
            clock: Monotonic clock, seconds.
        """
        found = _VMID.search(path)
        if not found:
            raise EndpointInvalid("the path of the tunnel has no VMID", object="tunnel")
        stream, first = open_websocket(endpoint, secret, path, deadline, clock)
        return cls(stream, first, int(found.group(1)), clock)

    def fileno(self) -> int:
        """Descriptor to poll for reading."""
        return self._stream.fileno()

    @property
    def poisoned(self) -> str:
        """Why no further command may be sent; empty while the tunnel is sound."""
        return str(self._lost.message) if self._lost else self._channel.poisoned

    def call(self, command: Command, timeout: Optional[float] = None) -> Dict[str, Any]:
        """Send a command and wait for its reply; the reply without ``success``.

        Raises:
            CommandRefused: the target said no; the channel is sound.
            ReplyTimeout: no reply in time; poisoned, the socket stays open, see :meth:`late_reply`.
            ChannelLost: the connection ended.
            AnswerMalformed: what came is no reply; poisoned.
            TunnelPoisoned: not sent.
        """
        if self._lost:
            raise self._lost
        line = self._channel.send(command)
        deadline = self._clock() + (command.timeout if timeout is None else timeout)
        self._send(line)
        reply = self._await(deadline)
        if reply is None:
            self._channel.poison(f"no reply to {command.name.value} in time")
            raise ReplyTimeout(
                f"the target did not answer '{command.name.value}' in time",
                object="control channel",
                remedy="Its effect is unknown: the state of the target is read back.",
                facts={"command": command.name.value},
            )
        return _body(reply, self.vmid)

    def late_reply(self, timeout: float) -> Optional[Dict[str, Any]]:
        """The reply that was not in time: waits ``timeout`` seconds more; None when it does not come.

        Raises as :meth:`call`. No further command may be sent in either case.
        """
        if self._channel.outstanding is None and not self._replies:
            return None
        reply = self._await(self._clock() + timeout)
        return None if reply is None else _body(reply, self.vmid)

    def tick(self) -> None:
        """Read what came, ping every 30 s; raises ChannelLost."""
        if self._lost:
            raise self._lost
        self._pump()
        if self._lost:
            raise self._lost
        self._ping()

    def close(self) -> None:
        """Close frame, then the connection. The target then ends its task."""
        if not self._lost:
            try:
                self._write(frames.close_frame())
            except ChannelLost:
                pass
        self._lost = self._lost or self._gone("was closed")
        self._stream.close_gracefully()

    # The commands, typed.

    def version(self, timeout: Optional[float] = None) -> replies.VersionReply:
        """Also the proof that the channel is alive."""
        return self._typed(replies.VersionReply.parse, commands.version(), timeout)

    def bwlimit(self, storages: Sequence[Optional[str]], limit: Optional[int] = None) -> replies.BwlimitReply:
        """``limit`` in KiB/s."""
        return self._typed(replies.BwlimitReply.parse, commands.bwlimit(storages, limit))

    def disk(self, storage: str, drive: Mapping[str, Any], image_format: str) -> replies.DiskReply:
        """Allocate a volume."""
        return self._typed(
            lambda raw: replies.DiskReply.parse(raw, storage, self.vmid), commands.disk(storage, drive, image_format)
        )

    def disk_import(
        self, volname: str, image_format: str, storage: str, export_formats: Sequence[str], with_snapshots: bool
    ) -> replies.DiskImportReply:
        """Open an import."""
        self._import_storage = storage
        return self._typed(
            lambda raw: replies.DiskImportReply.parse(raw, self.vmid, export_formats),
            commands.disk_import(volname, image_format, storage, export_formats, with_snapshots),
        )

    def query_disk_import(self) -> replies.ImportStatus:
        """State of the import opened last."""
        return self._typed(
            lambda raw: replies.ImportStatus.parse(raw, self._import_storage, self.vmid), commands.query_disk_import()
        )

    def config(self, conf: str, firewall: Optional[str] = None) -> None:
        """Write the target's config."""
        self._plain(commands.config(conf, firewall))

    def start(
        self,
        source_node: str,
        target_node: str,
        machine: str,
        nbd: Mapping[str, replies.DiskReply],
        nets_host_mtu: Optional[str] = None,
        cpu: Optional[str] = None,
        timeout: float = 60.0,
    ) -> replies.StartReply:
        """Start the target's QEMU; never repeat it (mtunnel-protocol 5.2)."""
        asked = {key: {"volid": reply.volid, "drivestr": reply.drivestr} for key, reply in nbd.items()}
        command = commands.start(source_node, target_node, machine, asked, nets_host_mtu, cpu, timeout)
        return self._typed(lambda raw: replies.StartReply.parse(raw, self.vmid, asked), command)

    def start_plain(self, command: Command, address: str) -> replies.PlainStartReply:
        """The same with listeners in clear text: ``command`` names a network, ``address`` is all that is accepted."""
        asked = command.parameters["migrate_opts"]["nbd"]
        return self._typed(lambda raw: replies.PlainStartReply.parse(raw, asked, address), command)

    def ticket(self, path: str) -> str:
        """A ticket for one websocket to ``path``."""
        return self._typed(replies.TicketReply.parse, commands.ticket(path)).ticket

    def resume(self, timeout: Optional[float] = None) -> None:
        """Let the guest run."""
        self._plain(commands.resume(), timeout)

    def nbdstop(self, timeout: Optional[float] = None) -> None:
        """End the NBD server."""
        self._plain(commands.nbdstop(), timeout)

    def fstrim(self) -> None:
        """Trim in the guest."""
        self._plain(commands.fstrim())

    def stop(self) -> None:
        """Kill the target's QEMU."""
        self._plain(commands.stop())

    def unlock(self) -> None:
        """Take the lock off."""
        self._plain(commands.unlock())

    def quit(self, cleanup: bool) -> None:
        """End the tunnel; ``stop`` first when ``cleanup``."""
        self._plain(commands.quit_tunnel(cleanup))

    def _typed(
        self, parse: Callable[[Dict[str, Any]], _Typed], command: Command, timeout: Optional[float] = None
    ) -> _Typed:
        # A malformed body does not break the pairing of commands and replies: stop and quit may follow.
        return parse(self.call(command, timeout))

    def _plain(self, command: Command, timeout: Optional[float] = None) -> None:
        body = self.call(command, timeout)
        replies.check_empty(body, command.name.value)

    def _await(self, deadline: float) -> Optional[Reply]:
        while not self._replies:
            if self._lost:
                raise self._lost
            self._pump()
            if self._replies or self._lost:
                continue
            left = deadline - self._clock()
            if left <= 0:
                return None
            # Some replies take minutes: the line is kept warm meanwhile.
            wait(self._stream, self._stream.pending == 0, min(left, PING_INTERVAL))
            self._ping()
        return self._replies.pop(0)

    def _ping(self) -> None:
        if self._clock() - self._pinged >= PING_INTERVAL:
            self._pinged = self._clock()
            self._write(frames.ping_frame(b"tick"))

    def _send(self, line: bytes) -> None:
        for at in range(0, len(line), frames.MAX_PAYLOAD):
            self._write(frames.encode(frames.Opcode.BINARY, line[at : at + frames.MAX_PAYLOAD]))

    def _write(self, data: bytes) -> None:
        try:
            self._stream.write(data)
            self._stream.flush()
        except StreamLost as error:
            self._lost = self._gone("broke", error)
            raise self._lost from error

    def _pump(self) -> None:
        """Take what came without waiting."""
        try:
            self._stream.flush()
            while True:
                data = self._stream.read()
                if data is None:
                    return
                if not data:
                    self._lost = self._gone("was closed by the target")
                    return
                self._take(data)
        except StreamLost as error:
            self._lost = self._gone("broke", error)

    def _take(self, data: bytes) -> None:
        try:
            for event in self._decoder.receive(data):
                if isinstance(event, frames.Data):
                    self._replies += self._channel.receive(event.payload)
                elif isinstance(event, frames.Ping):
                    self._write(frames.encode(frames.Opcode.PONG, event.payload))
                elif isinstance(event, frames.Close):
                    self._lost = self._gone("was closed by the target")
        except FrameInvalid as error:
            self._channel.poison("invalid frame")
            self._lost = self._gone("carried an invalid frame", error)

    def _gone(self, how: str, error: Optional[CrossclusterError] = None) -> ChannelLost:
        outstanding = self._channel.outstanding
        self._channel.poison("connection ended")
        return ChannelLost(
            f"the control connection {how}",
            object="control channel",
            remedy="Nothing on the target is freed by this; its state is read back.",
            facts={
                "outstanding": outstanding.name.value if outstanding else "",
                "reason": error.message if error else "",
            },
        )


def _body(reply: Reply, vmid: int) -> Dict[str, Any]:
    if not reply.success:
        raise CommandRefused(reply.command.name.value, reply.text, object=f"VM {vmid}")
    return dict(reply.body)
