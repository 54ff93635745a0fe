#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 crosscluster contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The listening end of one migration on the target node, for the transports that go straight from node to node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: incoming
short_description: Listens on the target node for one migration
version_added: 0.1.0
author:
  - crosscluster contributors (@crosscluster)
description:
  - Starts a worker on the target node that receives one migration directly from the source node, for the transports
    V(tls), V(tcp) and V(qemu-tls). It runs as root on the target node. Nothing of Proxmox VE is changed.
  - It listens on one address and one port, hears O(peer_address) only, and hands a connection on to QEMU once the
    other side has proven who it is and both sides are ready. A table of nftables named C(crosscluster_<migration_id>)
    keeps everybody else away from the port. Such a table can only narrow what gets in. The port must be open in the
    firewall of the node itself.
  - Without nftables V(tcp) is refused, and V(tls) works with a warning.
  - The worker ends by itself at the end of the migration, or after O(lifetime) without an authenticated connection. It
    takes its port, its sockets and its table with it.
  - While it lives it also removes or resumes, on the word of the source, what a broken migration left on the target.
    It follows the same rules as M(crosscluster.migration.target_recovery).
options:
  state:
    description:
      - V(listening) has a worker that listens with these settings. One that does so already is kept. For one with other
        settings the task fails with the code C(INCOMING_DIFFERS).
      - V(absent) ends the worker, also one that hangs or was killed, and removes what is left of it.
    type: str
    choices: [listening, absent]
    default: listening
  migration_id:
    description: The migration that may connect, 32 random hexadecimal digits. The migration gets this id.
    type: str
    required: true
  transports:
    description:
      - The transports that are wanted. What cannot be served is in RV(rejected) with its reason.
      - The task fails, with the first of the reasons, only if none of them can be served.
      - Required with O(state=listening).
    type: list
    elements: str
    choices: [tls, tcp, qemu-tls]
  address:
    description:
      - The address of this node to listen on, IPv4 or IPv6. A node without it fails with C(ADDRESS_ABSENT).
      - Required with O(state=listening).
    type: str
  ports:
    description: The ports to choose from, as a range or a single number. If all are taken, C(PORTS_TAKEN).
    type: str
    default: 60100-60149
  peer_address:
    description:
      - The address from which the source node connects, of the same family as O(address).
      - Required with O(state=listening).
    type: str
  peer_name:
    description: The name that the certificate of the source node must carry, exactly. Required for V(tls).
    type: str
  domain:
    description:
      - The trust domain whose certificates this node uses, the name of a directory below C(/etc/crosscluster/pki).
      - Required for V(tls) and V(qemu-tls).
    type: str
  key:
    description:
      - The key by which the two workers prove themselves to each other over V(tcp), 64 random hexadecimal digits.
      - Required for V(tcp). It is kept in memory only.
    type: str
  lifetime:
    description: Time without an authenticated connection after which the worker ends, a number, a space and a unit.
    type: str
    default: 10 min
  limits:
    description: Timers of the connections in seconds, for example C(deadman). They are the same on both sides.
    type: dict
    default: {}
extends_documentation_fragment:
  - crosscluster.migration.attributes
seealso:
  - module: crosscluster.migration.migration
  - module: crosscluster.migration.target_recovery
"""

EXAMPLES = r"""
- name: Listen for a move from a1, over TLS
  crosscluster.migration.incoming:
    migration_id: 5d0c6a9e3f7b41c8a2e4d96b1f08735c
    transports:
      - tls
    address: 10.77.0.21
    peer_address: 10.77.0.11
    peer_name: a1.alpha.example.com
    domain: example
  delegate_to: b1
  register: listening

- name: Listen in the clear, on a network that was proven trusted before
  crosscluster.migration.incoming:
    migration_id: 5d0c6a9e3f7b41c8a2e4d96b1f08735c
    transports:
      - tcp
    address: fd00:77::21
    peer_address: fd00:77::11
    key: "{{ migration_key }}"
  delegate_to: b1

- name: End what still listens for it
  crosscluster.migration.incoming:
    state: absent
    migration_id: 5d0c6a9e3f7b41c8a2e4d96b1f08735c
  delegate_to: b1
"""

RETURN = r"""
migration_id:
  description: The migration that may connect.
  type: str
  returned: always
  sample: 5d0c6a9e3f7b41c8a2e4d96b1f08735c
address:
  description: Where it listens.
  type: str
  returned: O(state=listening)
  sample: 10.77.0.21
port:
  description: The port, in check mode the one that would be taken now.
  type: int
  returned: O(state=listening)
  sample: 60100
peer_address:
  description: Who may connect.
  type: str
  returned: O(state=listening)
  sample: 10.77.0.11
peer_name:
  description: The name that the certificate of the source must carry, empty without TLS.
  type: str
  returned: O(state=listening)
  sample: a1.alpha.example.com
own_name:
  description: The name in the certificate of this node, by which the source knows it, empty without TLS.
  type: str
  returned: O(state=listening)
  sample: b1.beta.example.com
planes:
  description: What may be between the two workers, of V(tls) and V(tcp). V(qemu-tls) needs V(tls).
  type: list
  elements: str
  returned: O(state=listening)
  sample: ["tls"]
rejected:
  description: Per transport that was wanted and cannot be served the C(code), the C(reason) and the C(remedy).
  type: dict
  returned: O(state=listening)
  sample: {}
firewall:
  description:
    - Whether the table is C(installed), and as C(counters) the packets that it dropped, C(strangers) from other
      addresses and C(other_devices) from the right address over another device.
  type: dict
  returned: O(state=listening)
  sample:
    installed: true
    counters:
      strangers: 0
      other_devices: 0
streams:
  description: The streams that are connected, with C(name), C(plane) and C(age_s).
  type: list
  elements: dict
  returned: O(state=listening)
  sample: []
diff:
  description: With C(--diff), who listened where and who listens afterwards.
  type: dict
  returned: with C(--diff)
code:
  description: Stable name of what went wrong, see the table of error codes.
  type: str
  returned: failure
  sample: PORTS_TAKEN
side:
  description: Where the matter lies, V(controller), V(source) or V(target).
  type: str
  returned: failure
  sample: target
object:
  description: The address, option, file or the like that the message is about.
  type: str
  returned: failure
  sample: 10.77.0.21
message:
  description: What went wrong, in one sentence.
  type: str
  returned: failure
  sample: this node does not have the address 10.77.0.21
remedy:
  description: What can be done about it, empty if nothing.
  type: str
  returned: failure
  sample: Give an address of the target node in the migration network
facts:
  description: Details for programs.
  type: dict
  returned: failure
"""

from ansible_collections.crosscluster.migration.plugins.module_utils.face import FaceModule, run
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.incoming_engine import absent, listening


def arguments():
    return {
        "state": {"type": "str", "choices": ["listening", "absent"], "default": "listening"},
        "migration_id": {"type": "str", "required": True},
        "transports": {"type": "list", "elements": "str", "choices": ["tls", "tcp", "qemu-tls"]},
        "address": {"type": "str"},
        "ports": {"type": "str", "default": "60100-60149"},
        "peer_address": {"type": "str"},
        "peer_name": {"type": "str"},
        "domain": {"type": "str"},
        "key": {"type": "str", "no_log": True},
        "lifetime": {"type": "str", "default": "10 min"},
        "limits": {"type": "dict", "default": {}},
    }


def main() -> None:
    module = FaceModule(
        argument_spec=arguments(),
        required_if=[("state", "listening", ("transports", "address", "peer_address"))],
        supports_check_mode=True,
    )
    if module.params["state"] == "absent":
        run(module, lambda parameters: absent(parameters["migration_id"], module.check_mode))
    run(module, lambda parameters: listening(parameters, module.check_mode))


if __name__ == "__main__":
    main()
