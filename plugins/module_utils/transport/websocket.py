# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The websocket plane: from the plan of a stream to the settings of the pump that carries it. Pure."""

from __future__ import annotations

import dataclasses
from typing import Any, Mapping, Optional

from ..errors import Side
from .errors import SettingsInvalid
from .interface import Kind, PumpSettings, StreamPlan

__all__ = ["NAME", "settings"]

NAME = "websocket"
# Seconds for the server to close after our close frame. An importer first writes what is queued for it, without
# bound (mtunnel-protocol 3.6); the worker, which knows the volume, gives up sooner.
DRAIN_SECONDS = {Kind.RAM: 10.0, Kind.NBD: 10.0, Kind.IMPORT: 3600.0}


def settings(
    plan: StreamPlan,
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
        plan: The stream.
        endpoint: The :class:`~..proxmox.endpoint.Endpoint` of the target node (or a mapping of its fields).
        path: Path and query of the upgrade, with a ticket for ``plan.remote_socket`` taken just now.
        listen: UNIX socket for QEMU, in a directory that only root can enter (RAM, NBD).
        input_fd: Descriptor of the exporter's output (IMPORT).
        rate: bytes/s; None is no limit (NBD is clocked by the mirror's buffer).
        sized: The import begins with its length.

    Raises:
        SettingsInvalid: PUMP_SETTINGS, socket and descriptor do not fit the kind of stream.
    """
    if (plan.kind is Kind.IMPORT) != (input_fd is not None) or (plan.kind is Kind.IMPORT) == (listen is not None):
        message = "RAM and NBD need a socket to listen on, an import a descriptor to read from"
        raise SettingsInvalid(message, side=Side.SOURCE, object=plan.name)
    fields: Mapping[str, Any] = endpoint if isinstance(endpoint, Mapping) else dataclasses.asdict(endpoint)
    return PumpSettings(
        name=plan.name,
        kind=plan.kind,
        endpoint=dict(fields),
        path=path,
        listen=listen,
        input_fd=input_fd,
        rate=rate,
        sized=sized,
        drain_timeout=DRAIN_SECONDS[plan.kind],
    )
