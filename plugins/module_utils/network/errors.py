# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Errors of the room network.

NetworkError
├── NetworkFactsInvalid  NETWORK_FACTS_INVALID  what a command of the node printed cannot be understood
├── NetworkInvalid       NETWORK_INVALID        an address, network, port, key or statement that cannot be used
├── ResponderFailed      RESPONDER_FAILED       the short-lived answering process of a node did not come up
└── ExchangeBroken       EXCHANGE_BROKEN        the other end of a probe does not speak our protocol, or has not the key
"""

from __future__ import annotations

from typing import Any

from ..errors import CrossclusterError, Side

__all__ = ["ExchangeBroken", "NetworkError", "NetworkFactsInvalid", "NetworkInvalid", "ResponderFailed"]


class NetworkError(CrossclusterError):
    """Base of the room; on the source unless said otherwise, because the room does not know which node it is on."""

    code = "NETWORK_FAILED"

    def __init__(self, message: str, *, side: Side = Side.SOURCE, **keywords: Any) -> None:
        super().__init__(message, side=side, **keywords)


class NetworkFactsInvalid(NetworkError):
    """What a command of the node printed about its network cannot be understood."""

    code = "NETWORK_FACTS_INVALID"


class NetworkInvalid(NetworkError):
    """An address, network, port, key or statement that cannot be used."""

    code = "NETWORK_INVALID"


class ResponderFailed(NetworkError):
    """The process that answers probes for a short time did not come up."""

    code = "RESPONDER_FAILED"


class ExchangeBroken(NetworkError):
    """The other end of a probe does not speak our protocol, or does not have the key."""

    code = "EXCHANGE_BROKEN"
