#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 crosscluster contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two nodes shake hands as they will in a move, and say what they saw of each other."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tls_rehearsal
short_description: Rehearses the TLS handshake between two nodes
version_added: 0.1.0
author:
  - crosscluster contributors (@crosscluster)
description:
  - Makes a real mutual TLS 1.3 handshake between two nodes over the network that a move will take, with the files, the
    checks and the pinned names of the transport V(tls), and returns what each side saw.
  - Three tasks make a rehearsal. The target listens with O(state=listening), which starts a process of its own for at
    most a minute. The source connects with O(state=connected). The target's report is fetched with O(state=collected).
  - That the handshake failed is a result, not a failure of the task, so that both reports can be had. See RV(ok).
  - The role P(crosscluster.migration.certificates#role) runs all three with its entry point C(rehearse).
options:
  state:
    description: Which of the three tasks this is.
    type: str
    choices: [listening, connected, collected]
    required: true
  domain:
    description:
      - Name of the trust domain, as in M(crosscluster.migration.node_certificate).
      - Required with V(listening) and V(connected).
    type: str
  directory:
    description: Where the trust domains are kept.
    type: path
    default: /etc/crosscluster/pki
  peer_name:
    description: The name that the other node's certificate must carry. Required with V(listening) and V(connected).
    type: str
  address:
    description: The target's address, to listen on or to connect to. Required with V(listening) and V(connected).
    type: str
  port:
    description: With V(connected), the port that the target returned.
    type: int
  ports:
    description: With V(listening), the ports to choose from, as a range or a single number.
    type: str
    default: 60100-60149
  peer_address:
    description: With V(listening), the only address that is let in. Without it any address is.
    type: str
  rehearsal_id:
    description: With V(collected), what V(listening) returned.
    type: str
  life:
    description: With V(listening), how long it listens at most; with V(collected), how long its report is waited for.
    type: str
    default: 30 s
extends_documentation_fragment:
  - crosscluster.migration.attributes
  - crosscluster.migration.attributes.info_module
seealso:
  - module: crosscluster.migration.node_certificate
"""

EXAMPLES = r"""
- name: Let the target listen
  crosscluster.migration.tls_rehearsal:
    state: listening
    domain: production
    address: 192.0.2.21
    peer_name: a1.alpha
  delegate_to: b1
  register: there

- name: Connect from the source
  crosscluster.migration.tls_rehearsal:
    state: connected
    domain: production
    address: "{{ there.address }}"
    port: "{{ there.port }}"
    peer_name: b1.beta
  delegate_to: a1
  register: source

- name: Ask the target what it saw
  crosscluster.migration.tls_rehearsal:
    state: collected
    rehearsal_id: "{{ there.rehearsal_id }}"
  delegate_to: b1
  register: target
"""

RETURN = r"""
rehearsal_id:
  description: Names the report of the listening side.
  type: str
  returned: with O(state=listening)
  sample: 5d0c6a9e3f7b41c8a2e4d96b1f08735c
address:
  description: Where it listens.
  type: str
  returned: with O(state=listening)
  sample: 192.0.2.21
port:
  description: The port on which it listens.
  type: int
  returned: with O(state=listening)
  sample: 60100
ok:
  description: Whether this side would let a guest go this way.
  type: bool
  returned: otherwise
peer:
  description: The other side as the network shows it, an address, with its port where this side connected.
  type: str
  returned: otherwise
  sample: 192.0.2.21:60100
saw:
  description: What this side saw of the other. Empty if the handshake did not come that far.
  type: dict
  returned: otherwise
  contains:
    peer_name:
      description: The name that was asked for.
      type: str
    names:
      description: DNS names in the other's certificate.
      type: list
      elements: str
    addresses:
      description: IP addresses in it.
      type: list
      elements: str
    fingerprint:
      description: Its SHA-256 fingerprint.
      type: str
    not_after:
      description: When it ends, in seconds since 1970.
      type: int
    version:
      description: The protocol.
      type: str
      sample: TLSv1.3
    cipher:
      description: The cipher suite.
      type: str
      sample: TLS_AES_256_GCM_SHA384
failure:
  description:
    - Why not, with C(code), C(side), C(object), C(message), C(remedy) and C(facts), empty if RV(ok).
    - C(facts.cause) is one word, such as V(foreign_ca), V(wrong_name), V(expired), V(not_yet_valid), V(missing),
      V(wrong_purpose), V(revoked), V(crl_expired), V(unreachable) or V(silent).
  type: dict
  returned: otherwise
duration_ms:
  description: How long it took, from connect or from the beginning of listening.
  type: int
  returned: otherwise
code:
  description: Stable name of what went wrong, see the table of error codes.
  type: str
  returned: failure
  sample: PORTS_TAKEN
side:
  description: Where the matter lies, V(source) or V(target).
  type: str
  returned: success and failure
  sample: target
object:
  description: The file, address or option that the message is about.
  type: str
  returned: failure
message:
  description: What went wrong, in one sentence.
  type: str
  returned: failure
remedy:
  description: What can be done about it, empty if nothing.
  type: str
  returned: failure
facts:
  description: Details for programs.
  type: dict
  returned: failure
"""

from ansible_collections.crosscluster.migration.plugins.module_utils.face import FaceModule, run
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.incoming_settings import (
    is_domain,
    parse_address,
    parse_ports,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.spec import parse_duration
from ansible_collections.crosscluster.migration.plugins.module_utils.transport import rehearsal
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.incoming_errors import IncomingInvalid
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.tls import Credentials


def arguments():
    return {
        "state": {"type": "str", "choices": ["listening", "connected", "collected"], "required": True},
        "domain": {"type": "str"},
        "directory": {"type": "path", "default": "/etc/crosscluster/pki"},
        "peer_name": {"type": "str"},
        "address": {"type": "str"},
        "port": {"type": "int"},
        "ports": {"type": "str", "default": "60100-60149"},
        "peer_address": {"type": "str"},
        "rehearsal_id": {"type": "str"},
        "life": {"type": "str", "default": "30 s"},
    }


def work(given):
    life = parse_duration(given["life"], "life")
    if given["state"] == "collected":
        return {"changed": False, **rehearsal.collect(given["rehearsal_id"], min(life, rehearsal.LONGEST_LIFE))}
    if not is_domain(given["domain"]):
        raise IncomingInvalid("option domain must be the name of a trust domain", object="domain")
    play = rehearsal.Rehearsal(Credentials(f"{given['directory']}/{given['domain']}"), given["peer_name"])
    address = parse_address("address", given["address"])
    if given["state"] == "connected":
        port, _same = parse_ports(given["port"])
        return {"changed": False, **rehearsal.connect(play, address, port)}
    first, last = parse_ports(given["ports"])
    peer_address = parse_address("peer_address", given["peer_address"]) if given["peer_address"] else ""
    return {"changed": False, **rehearsal.listen(play, address, range(first, last + 1), peer_address, life)}


def main() -> None:
    ends = ["domain", "peer_name", "address"]
    module = FaceModule(
        argument_spec=arguments(),
        supports_check_mode=True,
        required_if=[
            ("state", "listening", ends),
            ("state", "connected", [*ends, "port"]),
            ("state", "collected", ["rehearsal_id"]),
        ],
    )
    run(module, work)


if __name__ == "__main__":
    main()
