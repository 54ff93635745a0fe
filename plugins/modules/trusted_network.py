#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 crosscluster contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One node's part of an audit of the network between two nodes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: trusted_network
short_description: Looks at a node's network, and probes the peer through it
version_added: 0.1.0
author:
  - crosscluster contributors (@crosscluster)
description:
  - One node's part of the audit that the role P(crosscluster.migration.trusted_network#role) makes of the network
    between two nodes. The role calls it step by step on both nodes and on hosts that are no peers, and concludes.
  - Nothing is left behind. With O(step=listen) a process of limited life answers the peer's probes on one port. A table
    of nftables lets only the peer reach that port. Both go with O(step=report), or when the time is over.
  - Never touches a port of QEMU.
options:
  step:
    description:
      - V(look) reads where the node is in the network. It sends nothing.
      - V(listen) lets a process answer the peer's probes for O(lifetime).
      - V(probe) sends probes to the peer, which must listen.
      - V(knock) tries to connect from a host that is no peer, which must fail.
      - V(report) ends what V(listen) began, and says who knocked.
      - In check mode only V(look) does anything; the others say that their checks were not made.
    type: str
    choices: [look, listen, probe, knock, report]
    required: true
  network:
    description: The network in question, such as V(10.5.0.0/24). Needed for the steps V(look) and V(probe).
    type: str
  node:
    description: Name of this node in the findings, and part of what it proves to the peer.
    type: str
  peer:
    description: Name of the other node.
    type: str
  own_address:
    description: Address of this node in the network, as in RV(summary). Needed for V(listen).
    type: str
  interface:
    description: Interface of this node in the network, as in RV(summary). Needed for V(listen).
    type: str
  peer_address:
    description: Address of the other node, as in its RV(summary). For V(knock) the node whose port is tried.
    type: str
  peer_port:
    description: Port of the other node, as in its RV(port).
    type: int
  peer_mac:
    description: Hardware address of the other node, as in its RV(summary). No other may answer for its address.
    type: str
  responder_id:
    description: 32 hexadecimal digits, new for each run. Needed for V(listen) and V(report).
    type: str
  key:
    description:
      - 64 hexadecimal digits, drawn anew for each pair and each run. Both nodes prove with it who they are.
      - Travels over SSH only and lies in no file. Needed for V(listen) and V(probe).
    type: str
  ports:
    description: The first free port of this range answers. It must be open for the peer in the firewall of the node.
    type: str
    default: 60150-60159
  lifetime:
    description: How long the process answers at most, from V(5 s) to V(5 min).
    type: str
    default: 60 s
  members:
    description: Further addresses that belong to this network. Anybody else who has talked on it is a stranger.
    type: list
    elements: str
    default: []
  allowed_ranges:
    description: Kinds of addresses that are taken for private although they are not.
    type: list
    elements: str
    choices: [cgnat, link-local]
    default: []
  round_trip:
    description: The longest round trip that is no finding, such as V(2 ms). Without it every one is good.
    type: str
  loss_percent:
    description: The largest loss of packets that is no finding.
    type: int
    default: 100
attributes:
  check_mode:
    description: Can run in C(check_mode). It then sends nothing and opens no port, so most checks cannot be made.
    support: partial
    details: Only O(step=look) does anything in check mode.
  diff_mode:
    description: There is nothing to compare, nothing is changed.
    support: N/A
  idempotent:
    description: Nothing is changed, however often it is run.
    support: full
extends_documentation_fragment:
  - crosscluster.migration.attributes
seealso:
  - plugin: crosscluster.migration.network_verdict
    plugin_type: filter
"""

EXAMPLES = r"""
- name: See where a node is in the migration network
  crosscluster.migration.trusted_network:
    step: look
    network: 10.5.0.0/24
    node: alpha-a1
  delegate_to: alpha-a1

- name: See that a host of the office does not get in
  crosscluster.migration.trusted_network:
    step: knock
    peer_address: 10.5.0.1
    peer_port: 60150
  delegate_to: monitoring
"""

RETURN = r"""
checks:
  description: What was checked, each with its state, finding and remedy.
  type: list
  elements: dict
  returned: for the steps V(look), V(listen) and V(probe)
  contains:
    number:
      description: Number of the check.
      type: int
    title:
      description: What it is about.
      type: str
    part:
      description: Which half, for a check that has two.
      type: str
    node:
      description: The node it was made on.
      type: str
    state:
      description: V(passed), V(failed), V(not_run), or V(noted) for what only tells something.
      type: str
    finding:
      description: What was seen.
      type: str
    remedy:
      description: What can be done.
      type: str
  sample:
    - number: 3
      title: direct way to the peer
      part: ""
      node: alpha-a1
      state: passed
      finding: 10.5.0.2 is on the link of eno2, reached from 10.5.0.1
      remedy: ""
summary:
  description: The node's place in the network, null without exactly one address in it.
  type: dict
  returned: for the step V(look)
  sample:
    address: 10.5.0.1
    prefix: 24
    interface: eno2
    mac: "02:00:00:00:05:01"
    link_layer: ether
    mtu: 1500
    kind: ""
networks:
  description: The other networks in which the host has addresses.
  type: list
  elements: str
  returned: for the steps V(look) and V(knock)
port:
  description: The port on which the peer's probes are answered.
  type: int
  returned: for the step V(listen)
answered:
  description: Whether the peer answered and proved who it is.
  type: bool
  returned: for the step V(probe)
outcome:
  description: What came of it, V(connected), V(refused), V(silent), V(unreachable) or V(not_sent).
  type: str
  returned: for the step V(knock)
found:
  description: Whether the process still lived.
  type: bool
  returned: for the step V(report)
strangers:
  description: Addresses other than the peer's that tried to reach the port.
  type: list
  elements: str
  returned: for the step V(report)
code:
  description: Stable name of what went wrong, see the table of error codes.
  type: str
  returned: failure
  sample: NETWORK_FACTS_INVALID
side:
  description: Where the matter lies. V(source) for either node, because a node does not know which one it is.
  type: str
  returned: failure
  sample: source
object:
  description: The option, command or process that the message is about.
  type: str
  returned: failure
  sample: ip -j neigh show
message:
  description: What went wrong, in one sentence.
  type: str
  returned: failure
  sample: "'ip -j neigh show' failed"
remedy:
  description: What can be done about it, empty if nothing.
  type: str
  returned: failure
  sample: Install iproute2 on the node, and run the check as root.
facts:
  description: Details for programs.
  type: dict
  returned: failure
"""

from ansible_collections.crosscluster.migration.plugins.module_utils.face import FaceModule, run
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.spec import parse_duration
from ansible_collections.crosscluster.migration.plugins.module_utils.network.survey import (
    knock_at,
    listen,
    look,
    probe_peer,
    report,
    world,
)

STEPS = {"look": look, "listen": listen, "probe": probe_peer, "knock": knock_at, "report": report}


def arguments():
    return {
        "step": {"type": "str", "choices": ["look", "listen", "probe", "knock", "report"], "required": True},
        "network": {"type": "str"},
        "node": {"type": "str"},
        "peer": {"type": "str"},
        "own_address": {"type": "str"},
        "interface": {"type": "str"},
        "peer_address": {"type": "str"},
        "peer_port": {"type": "int"},
        "peer_mac": {"type": "str"},
        "responder_id": {"type": "str"},
        "key": {"type": "str", "no_log": True},
        "ports": {"type": "str", "default": "60150-60159"},
        "lifetime": {"type": "str", "default": "60 s"},
        "members": {"type": "list", "elements": "str", "default": []},
        "allowed_ranges": {"type": "list", "elements": "str", "choices": ["cgnat", "link-local"], "default": []},
        "round_trip": {"type": "str"},
        "loss_percent": {"type": "int", "default": 100},
    }


def quantities(parameters):
    """The options with their quantities as numbers."""
    round_trip = parameters["round_trip"]
    return {
        **parameters,
        "lifetime": parse_duration(parameters["lifetime"], "lifetime"),
        "round_trip_us": int(parse_duration(round_trip, "round_trip") * 1_000_000) if round_trip else 0,
    }


def main() -> None:
    module = FaceModule(
        argument_spec=arguments(),
        supports_check_mode=True,
        required_if=[
            ("step", "look", ["network", "node"]),
            ("step", "listen", ["node", "peer", "own_address", "interface", "peer_address", "responder_id", "key"]),
            ("step", "probe", ["network", "node", "peer", "peer_address", "peer_port", "key"]),
            ("step", "knock", ["peer_address", "peer_port"]),
            ("step", "report", ["responder_id"]),
        ],
    )
    if module.check_mode and module.params["step"] != "look":
        # Without evidence the verdict says so by itself.
        run(module, lambda _parameters: {"changed": False, "checks": []})
    step = STEPS[module.params["step"]]
    run(module, lambda parameters: {"changed": False, **step(world(), quantities(parameters))})


if __name__ == "__main__":
    main()
