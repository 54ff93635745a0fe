# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Errors of the room transport.

TransportError
├── NoTransportUsable  NO_TRANSPORT_USABLE  nothing of what the user listed can be used
├── SettingsInvalid    PUMP_SETTINGS        a pump was given settings it cannot work by (our bug)
└── PumpFailed         PUMP_FAILED          a pump ended before it was ready; ``facts.reason`` says why
"""

from __future__ import annotations

from ..errors import CrossclusterError

__all__ = ["NoTransportUsable", "PumpFailed", "SettingsInvalid", "TransportError"]


class TransportError(CrossclusterError):
    """Base of every error about carrying a byte stream to the target."""

    code = "TRANSPORT_FAILED"


class NoTransportUsable(TransportError):
    """No listed transport can be used; ``facts.rejected`` tells why, one by one."""

    code = "NO_TRANSPORT_USABLE"


class SettingsInvalid(TransportError):
    """The settings of a pump are incomplete or contradict each other."""

    code = "PUMP_SETTINGS"


class PumpFailed(TransportError):
    """A pump ended before its stream stood."""

    code = "PUMP_FAILED"
