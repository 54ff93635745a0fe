# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""One listening TCP socket: one address, one port out of a range, one device (direct-transports 7). An edge file."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import os
import socket
import subprocess
from typing import Any, List, Optional, Sequence, Tuple

from .incoming_errors import AddressAbsent, PortsTaken

__all__ = ["BACKLOG", "Listener", "device_with", "devices_with"]

BACKLOG = 16
_TIMEOUT = 10.0  # seconds for `ip`


class Listener:
    """A port of ours: bound first, so that a rule can be set for it, then opened, closed and opened again.

    Args:
        address: The one address to listen on.
        ports: The ports to try, in order.
        device: Only what comes in over it; None when the address belongs to more than one.

    Raises:
        AddressAbsent: ADDRESS_ABSENT
        PortsTaken: PORTS_TAKEN
    """

    def __init__(self, address: str, ports: Sequence[int], device: Optional[str] = None) -> None:
        self.address = address
        self.device = device
        self._socket, self._claim, self.port = _bound(address, ports, device)
        self.is_open = False

    def fileno(self) -> int:
        """Descriptor to poll."""
        return self._socket.fileno()

    def open(self) -> None:
        """Let connections in."""
        self._socket.listen(BACKLOG)
        self.is_open = True

    def shut(self) -> None:
        """Let nobody in any more; the port stays ours (Linux: a socket that listened and was shut down stays bound)."""
        if self.is_open:
            self._socket.shutdown(socket.SHUT_RDWR)
            self.is_open = False

    def accept(self) -> Optional[Tuple[socket.socket, str]]:
        """A connection, not blocking, and the address it comes from; None when there is none."""
        try:
            connection, peer = self._socket.accept()
        except OSError:  # none there, gone again, or no descriptor left: the loop comes back
            return None
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, _with_scope(peer)

    def close(self) -> None:
        """Give the port back."""
        self.is_open = False
        self._socket.close()
        self._claim.close()


def _with_scope(place: Tuple[Any, ...]) -> str:
    """The address of a socket; Python gives the scope of a link-local one as a number beside it."""
    if len(place) == 4 and place[3] and "%" not in place[0]:
        with contextlib.suppress(OSError):  # the device is gone
            return f"{place[0]}%{socket.if_indextoname(place[3])}"
    return str(place[0])


def device_with(address: str) -> Optional[str]:
    """The one device that has an address; None when it is not exactly one, or cannot be told."""
    found = devices_with(address)
    return found[0] if len(found) == 1 else None


def devices_with(address: str) -> List[str]:
    """The devices of this node that have an address; empty when none has, or when ``ip`` does not tell."""
    plain, _percent, scope = address.partition("%")
    try:
        done = subprocess.run(
            ["ip", "-json", "address", "show"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
            check=False,
        )
        links: Any = json.loads(done.stdout or b"[]")
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return []
    wanted = ipaddress.ip_address(plain)
    return [
        str(link["ifname"])
        for link in links
        if (not scope or link.get("ifname") == scope)
        and any(_is(entry.get("local"), wanted) for entry in link.get("addr_info", []))
    ]


def _is(text: object, wanted: object) -> bool:
    try:
        return ipaddress.ip_address(str(text)) == wanted
    except ValueError:
        return False


def _bound(address: str, ports: Sequence[int], device: Optional[str]) -> Tuple[socket.socket, socket.socket, int]:
    for port in ports:
        claim = _claimed(address, port)
        if claim is None:
            continue
        try:
            return _bind(address, port, device), claim, port
        except OSError as error:
            claim.close()
            if error.errno != errno.EADDRINUSE:
                raise _absent(address, error) from error
    raise PortsTaken(
        f"all {len(ports)} ports from {ports[0]} to {ports[-1]} of {address} are taken",
        object=address,
        remedy="Give a wider range, or end migrations that are not needed any more (state: absent)",
    )


def _claimed(address: str, port: int) -> Optional[socket.socket]:
    """A name that only one process of this network namespace can have, until it ends; None when another has it.

    Two sockets with SO_REUSEADDR may be bound to one port as long as neither listens (tried on Linux 6.18): the
    second of two workers would find out when its rule is set already.
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0crosscluster-port-{ipaddress.ip_address(address.partition('%')[0])}-{port}")
        return claim
    except OSError:
        claim.close()
        return None


def _absent(address: str, error: OSError) -> AddressAbsent:
    if error.errno == errno.EADDRNOTAVAIL:
        message = f"this node does not have the address {address}"
    else:
        message = f"nothing can listen on {address}: {os.strerror(error.errno or 0)}"
    remedy = "Give an address of the target node in the migration network"
    return AddressAbsent(message, object=address, remedy=remedy)


def _bind(address: str, port: int, device: Optional[str]) -> socket.socket:
    family, kind, protocol, _name, place = socket.getaddrinfo(
        address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # old connections in TIME_WAIT do not count
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if device is not None:
            # Linux takes a packet for a local address on any device (weak host model).
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode("ascii") + b"\0")
        sock.bind(place)
        return sock
    except OSError:
        sock.close()
        raise
