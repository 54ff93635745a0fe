# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that say how the bytes travel."""

from __future__ import annotations


class ModuleDocFragment:
    """Twin of ``arguments.transport``."""

    DOCUMENTATION = r"""
options:
  transports:
    description:
      - The ways the bytes may travel, best first. Only what is listed here is ever used.
      - The one used, and why earlier ones were not, is in the result.
      - This version carries V(websocket) only; the others are answered as not available.
    type: list
    elements: str
    choices: [websocket, tls, tcp, qemu-tls, qemu-tcp]
    default: [websocket]
  incoming:
    description: Where the target node listens, for the transports that do not use the API port.
    type: dict
    suboptions:
      address:
        description: Address on the target node.
        type: str
      port:
        description: Port on the target node.
        type: int
      peer_name:
        description: Name that the certificate of the target node must carry.
        type: str
"""
