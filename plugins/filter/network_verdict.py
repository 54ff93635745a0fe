# SPDX-FileCopyrightText: 2026 crosscluster contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what was seen of a network to what it is worth."""

from __future__ import annotations

DOCUMENTATION = r"""
name: network_verdict
short_description: Concludes how far the network between two nodes can be trusted
version_added: 0.1.0
author:
  - crosscluster contributors (@crosscluster)
description:
  - Takes the results of M(crosscluster.migration.trusted_network) from two nodes and from hosts that are no peers, and
    concludes what the network between the nodes is worth.
  - V(encrypted) is all of V(private-proven) over a link that encrypts. V(private-proven) means that every check passed
    on both nodes. V(private-claimed) means that nothing failed, but something could not be checked, and somebody
    vouches for the network. Anything else is V(unknown). Clear text is only ever sent with the first two.
requirements:
  - netaddr
positional: _input
options:
  _input:
    description:
      - A dictionary with C(network), C(source), C(target) and C(knocks).
      - C(source) and C(target) have C(name), and results of the steps in C(look), C(listen), C(probe) and C(report).
      - C(knocks) are the results of the step C(knock), each with C(stranger) and C(node).
    type: dict
    required: true
  now:
    description: Seconds since 1970.
    type: float
    required: true
  statement:
    description: Who accepts the network and until when, a dictionary with C(accepted_by) and C(until).
    type: dict
seealso:
  - module: crosscluster.migration.trusted_network
"""

EXAMPLES = r"""
- name: Show what the network is worth
  ansible.builtin.debug:
    msg: "{{ (evidence | crosscluster.migration.network_verdict(now=now().timestamp())).verdict }}"
"""

RETURN = r"""
_value:
  description: The verdict.
  type: dict
  contains:
    source:
      description: Name of one node.
      type: str
    target:
      description: Name of the other node.
      type: str
    network:
      description: The network.
      type: str
    verdict:
      description: V(encrypted), V(private-proven), V(private-claimed) or V(unknown).
      type: str
    clear_text_allowed:
      description: Whether a transport without encryption can be chosen at all.
      type: bool
    checked_at:
      description: When it was checked, seconds since 1970.
      type: float
    valid_until:
      description: When it is worth nothing any more, 15 min later.
      type: float
    statement:
      description: Who vouches for the network and until when.
      type: dict
    checks:
      description: Every check of both nodes with its state, finding and remedy.
      type: list
      elements: dict
"""

from ansible.errors import AnsibleFilterError

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import CrossclusterError
from ansible_collections.crosscluster.migration.plugins.plugin_utils.network_audit import conclude


def network_verdict(evidence, now, statement=None):
    """See DOCUMENTATION."""
    try:
        return conclude(evidence, now=float(now), statement=statement or None)
    except CrossclusterError as error:
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    """Filters of the collection for networks."""

    def filters(self):
        return {"network_verdict": network_verdict}
