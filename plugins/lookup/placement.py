# SPDX-FileCopyrightText: 2026 crosscluster contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a VM is and where it will be: the look-up that roles and playbooks use."""

from __future__ import annotations

DOCUMENTATION = r"""
name: placement
short_description: Finds a VM on one cluster and its place on another
version_added: 0.1.0
author:
  - crosscluster contributors (@crosscluster)
description:
  - Finds out on which node of the source cluster a VM runs, and checks that the target cluster can take it.
    Returns the options O(ignore:source) and O(ignore:target) for M(crosscluster.migration.migration).
  - Only reads, and only through the APIs of the two clusters, with their certificates pinned. No node is logged in to.
  - Fails with the first thing that is missing. The message ends with the code, the side and what can be done.
  - Never returns a secret.
requirements:
  - proxmoxer
  - requests
options:
  _terms:
    description: Not used.
    type: list
    elements: str
  clusters:
    description: The declared clusters, that is C(crosscluster_clusters).
    type: dict
    required: true
  source:
    description: The VM, a dictionary with C(cluster) and C(name) or C(vmid), and C(uuid) if it is known.
    type: dict
    required: true
  target:
    description:
      - Where it goes, a dictionary with C(cluster), and as wanted C(node), C(vmid) and C(vmid_pool).
      - Without it the VM is only looked for on the source.
    type: dict
  disks:
    description: Storage for each disk, as in M(crosscluster.migration.migration).
    type: dict
    default: {}
  nics:
    description: Bridge for each NIC, as in M(crosscluster.migration.migration).
    type: dict
    default: {}
  resources:
    description:
      - The VMs of the source cluster as C(pvesh get /cluster/resources --type vm --output-format json) prints them.
      - Needed for a source cluster that is declared without an API token.
    type: list
    elements: dict
  config:
    description:
      - The configuration of the VM as C(pvesh get /nodes/<node>/qemu/<vmid>/config --output-format json) prints it.
      - Needed for a source cluster that is declared without an API token. Without it only the node is looked up.
    type: dict
seealso:
  - module: crosscluster.migration.migration
"""

EXAMPLES = r"""
- name: Show where web01 would go
  ansible.builtin.debug:
    msg: >-
      {{ query('crosscluster.migration.placement', clusters=crosscluster_clusters,
               source={'cluster': 'alpha', 'name': 'web01'}, target={'cluster': 'beta'},
               disks={'default': 'fast'}, nics={'default': 'vmbr0'}) | first }}
"""

RETURN = r"""
_raw:
  description: One dictionary.
  type: list
  elements: dict
  contains:
    source:
      description:
        - The VM, with C(cluster), C(node), C(inventory_host), C(migration_address), C(certificate_name), C(vmid),
          C(name), C(status) and C(uuid).
      type: dict
    target:
      description:
        - Its place, with C(cluster), C(node), C(inventory_host), C(migration_address), C(certificate_name),
          C(target_root), C(vmid), C(lock), and C(there), which says whether the VM is there already.
      type: dict
    options:
      description: The options C(source) and C(target) of M(crosscluster.migration.migration).
      type: dict
    arrived:
      description:
        - Whether the source cluster has no such VM (any more) and it runs on the target, known by the uuid that was
          given or else by its name. There is nothing to be moved then; C(source) names no node, C(options) is empty.
      type: bool
    complete:
      description: Whether the configuration of the VM was known, so that everything could be checked.
      type: bool
"""

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import CrossclusterError
from ansible_collections.crosscluster.migration.plugins.plugin_utils.placement import place


class LookupModule(LookupBase):
    """See DOCUMENTATION."""

    def run(self, terms, variables=None, **kwargs):
        self.set_options(var_options=variables, direct=kwargs)
        try:
            return [
                place(
                    self.get_option("clusters"),
                    self.get_option("source"),
                    self.get_option("target"),
                    self.get_option("disks"),
                    self.get_option("nics"),
                    found=self.get_option("resources"),
                    config=self.get_option("config"),
                )
            ]
        except CrossclusterError as error:
            raise AnsibleLookupError(str(error)) from None
