# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that name a VM or a migration to be looked at."""

from __future__ import annotations


class ModuleDocFragment:
    """Twin of ``arguments.identity``."""

    DOCUMENTATION = r"""
options:
  source:
    description: The VM on the node this task is delegated to; either way of naming it will do.
    type: dict
    suboptions:
      vmid:
        description: The number of the VM on the source node.
        type: int
      uuid:
        description: The SMBIOS uuid of the VM.
        type: str
  migration_id:
    description: The 32 hexadecimal digits that name one migration.
    type: str
"""
