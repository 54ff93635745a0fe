# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option that names the VM to be moved."""

from __future__ import annotations


class ModuleDocFragment:
    """Twin of ``arguments.source``."""

    DOCUMENTATION = r"""
options:
  source:
    description: The VM on the node this task is delegated to.
    type: dict
    required: true
    suboptions:
      vmid:
        description: The number of the VM on the source node.
        type: int
        required: true
      uuid:
        description:
          - The SMBIOS uuid of the VM, as in C(smbios1) of its configuration.
          - It is the identity of a VM over both clusters; the name is not. The VM must have it.
        type: str
"""
