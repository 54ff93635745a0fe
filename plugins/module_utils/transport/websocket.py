# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The websocket plane: the settings of the pump that carries a stream. Pure."""

from __future__ import annotations

import dataclasses
from typing import Any, Mapping, Optional

from ..errors import Side
from .errors import SettingsInvalid
from .interface import Kind, PumpSettings

__all__ = ["NAME", "settings"]

NAME = "websocket"
# Seconds for the server to close after our close frame. An importer first writes what is queued for it, without
# bound (mtunnel-protocol 3.6); the worker, which knows the volume, gives up sooner.
DRAIN_SECONDS = {Kind.RAM: 10.0, Kind.NBD: 10.0, Kind.IMPORT: 3600.0}


def settings(
    name: str,
    kind: Kind,
    endpoint: Any,
    path: str,
    *,
    listen: Optional[str] = None,
    input_fd: Optional[int] = None,
    rate: Optional[int] = None,
    sized: bool = True,
) -> PumpSettings:
    """The settings of one pump.

    Args:
        name: Of the stream.
        kind: What it carries.
        endpoint: The :class:`~..proxmox.endpoint.Endpoint` of the target node (or a mapping of its fields).
        path: Path and query of the upgrade, with a ticket for the target's socket taken just now.
        listen: UNIX socket for QEMU, in a directory that only root can enter (RAM, NBD).
        input_fd: Descriptor of the exporter's output (IMPORT).
        rate: bytes/s; None is no limit (NBD is clocked by the mirror's buffer).
        sized: The import begins with its length.

    Raises:
        SettingsInvalid: PUMP_SETTINGS, socket and descriptor do not fit the kind of stream.
    """
    if (kind is Kind.IMPORT) != (input_fd is not None) or (kind is Kind.IMPORT) == (listen is not None):
        message = "RAM and NBD need a socket to listen on, an import a descriptor to read from"
        raise SettingsInvalid(message, side=Side.SOURCE, object=name)
    fields: Mapping[str, Any] = endpoint if isinstance(endpoint, Mapping) else dataclasses.asdict(endpoint)
    return PumpSettings(
        name=name,
        kind=kind,
        endpoint=dict(fields),
        path=path,
        listen=listen,
        input_fd=input_fd,
        rate=rate,
        sized=sized,
        drain_timeout=DRAIN_SECONDS[kind],
    )
