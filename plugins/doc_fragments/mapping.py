# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that say what becomes of disks and NICs."""

from __future__ import annotations


class ModuleDocFragment:
    """Twin of ``arguments.mapping``."""

    DOCUMENTATION = r"""
options:
  disks:
    description:
      - Storage on the target for each disk. The key is the name of the disk in the configuration (V(scsi0)),
        or V(default) for every disk that is not named. Nothing is implied, a disk without a storage is refused.
      - The value is the name of a storage, or a dictionary with C(storage) and C(format) (V(raw) or V(qcow2)).
        Without a format the disk keeps the one it has.
    type: dict
    default: {}
  nics:
    description:
      - Bridge on the target for each NIC. The key is the name of the NIC in the configuration (V(net0)),
        or V(default) for every NIC that is not named. A NIC without a bridge is refused.
      - The value is the name of a bridge, or a dictionary with C(bridge), C(tag) (a VLAN) and C(firewall) (a boolean).
        What is not given stays as it is.
    type: dict
    default: {}
  offline:
    description: Also move a VM that is stopped. It stays stopped.
    type: bool
    default: false
"""
