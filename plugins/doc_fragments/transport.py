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
      - V(websocket) needs nothing but the API of the target node. V(tls), V(tcp) and V(qemu-tls) go straight to a
        worker there, see M(crosscluster.migration.incoming). V(tcp) is clear text. With V(qemu-tls) the two QEMUs
        encrypt memory and disks themselves, and the workers everything else as with V(tls).
      - V(qemu-tcp) goes in clear text to ports that the QEMU of the target opens itself. It needs a target that
        announces C(insecure-remote), which no released Proxmox VE does, and C(Sys.Modify) on C(/) for its token.
    type: list
    elements: str
    choices: [websocket, tls, tcp, qemu-tls, qemu-tcp]
    default: [websocket]
  incoming:
    description:
      - Where the target node listens, for the transports that do not use the API port.
      - What M(crosscluster.migration.incoming) returned.
      - The role P(crosscluster.migration.migrate_vm#role) fills it in.
    type: dict
    suboptions:
      migration_id:
        description: The 32 hexadecimal digits for which the target listens. The migration gets this id.
        type: str
      address:
        description:
          - Address on the target node.
          - For V(qemu-tcp) the one that the verdict in O(incoming.network) is about. Nothing of ours listens there.
        type: str
      port:
        description: Port on the target node.
        type: int
      peer_name:
        description: Name that the certificate of the target node must carry.
        type: str
      own_name:
        description: Name in the certificate of the source node.
        type: str
      planes:
        description: What may be between the two workers.
        type: list
        elements: str
        choices: [tls, tcp]
        default: []
      own_address:
        description: Address of the source node from which it connects. By default the kernel chooses.
        type: str
      domain:
        description: Trust domain whose certificates the source node uses, below C(/etc/crosscluster/pki).
        type: str
      rejected:
        description:
          - Why transports cannot be used, by their names, as far as the controller knows it already.
          - Each value is a dictionary with C(code), C(reason) and, where something can be done, C(remedy).
        type: dict
        default: {}
      limits:
        description: Timers of the streams, in seconds, such as C(deadman).
        type: dict
        default: {}
      network:
        description:
          - The verdict of the role P(crosscluster.migration.trusted_network#role) on the network between the two nodes.
          - V(tcp) and V(qemu-tcp) need one that is not older than 15 minutes and that allows clear text.
        type: dict
        default: {}
  clear_text:
    description: Without it V(tcp) and V(qemu-tcp) are refused, whatever is known of the network.
    type: dict
    suboptions:
      accepted_by:
        description: The person who accepts that whoever is on that network may read and alter what is carried.
        type: str
      until:
        description: The last day on which that holds, such as V(2026-12-31).
        type: str
  incoming_key:
    description:
      - The key with which the two workers prove themselves to each other over V(tcp), 64 hexadecimal digits.
      - The same as for M(crosscluster.migration.incoming).
    type: str
"""
