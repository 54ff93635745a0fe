#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 crosscluster contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A look at a migration, without any effect on it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_info
short_description: Reads where a migration stands
version_added: 0.1.0
author:
  - crosscluster contributors (@crosscluster)
description:
  - Reads phase, figures and, if asked, the journal of a migration from the node it runs on.
  - Does not count as watching. A migration is kept alive by M(crosscluster.migration.migration) only.
options:
  wait:
    description:
      - Seconds to wait for something to change, at most 60. The answer comes at once when the phase changes.
    type: float
    default: 0.0
  journal:
    description: Whether the entries of the journal are returned.
    type: bool
    default: false
extends_documentation_fragment:
  - crosscluster.migration.identity
  - crosscluster.migration.attributes
  - crosscluster.migration.attributes.info_module
seealso:
  - module: crosscluster.migration.migration
"""

EXAMPLES = r"""
- name: Where does the move of VM 117 stand
  crosscluster.migration.migration_info:
    source:
      vmid: 117
  delegate_to: a1
  register: move

- name: Read the journal of one migration
  crosscluster.migration.migration_info:
    migration_id: 5d0c6a9e3f7b41c8a2e4d96b1f08735c
    journal: true
  delegate_to: a1
"""

RETURN = r"""
migration_id:
  description: The 32 hexadecimal digits that name this migration on both nodes and in every journal.
  type: str
  returned: when there is a migration
  sample: 5d0c6a9e3f7b41c8a2e4d96b1f08735c
phase:
  description:
    - Where the migration stands. One of V(preflight), V(locked), V(reserved), V(allocated), V(listening), V(mirroring),
      V(precopy), V(switchover), V(committing), V(committed), V(cleanup), V(completed), and on the other road
      V(rollback), V(rolled_back), V(hold), V(lost).
  type: str
  returned: when there is a migration
  sample: mirroring
finished:
  description: Whether there is nothing left to wait for.
  type: bool
  returned: when there is a migration
  sample: false
transport:
  description: The transport that carries the bytes.
  type: str
  returned: once chosen
  sample: websocket
transports_rejected:
  description: The transports that stood earlier in the list, and why each was not used.
  type: list
  elements: dict
  returned: once chosen
  sample: []
target:
  description: What was made on the target.
  type: dict
  returned: once reserved
  contains:
    node:
      description: The node.
      type: str
      returned: always
      sample: b1
    vmid:
      description: The number of the VM there.
      type: int
      returned: always
      sample: 20017
    upid:
      description: The task that holds the tunnel on the target.
      type: str
      returned: always
      sample: "UPID:b1:0001A2B3:00C4D5E6:65F00000:qmtunnel:20017:migration@pve!move:"
    volumes:
      description: The volumes that were allocated.
      type: list
      elements: str
      returned: always
      sample: ["fast:20017/vm-20017-disk-0.raw"]
name:
  description: Name of the VM.
  type: str
  returned: when there is a migration
  sample: web01
uuid:
  description: SMBIOS uuid of the VM.
  type: str
  returned: when there is a migration
  sample: 6f7d5a10-0a4e-4f0e-9d6d-0d8c2f4f9b11
run_state:
  description: The state in which the owner had left the VM, V(running), V(paused) or V(stopped).
  type: str
  returned: when there is a migration
  sample: running
source:
  description: The VM on the source node, with C(vmid), its C(state) and our C(lock).
  type: dict
  returned: when there is a migration
commit_intent:
  description: Whether the point was passed from which the target may have been started.
  type: bool
  returned: when there is a migration
  sample: true
forward:
  description: Whether a move in hold was given over to the target, so that the source no longer takes the guest back.
  type: bool
  returned: when there is a migration
  sample: false
source_fenced:
  description: Whether the QEMU of the source is gone for sure.
  type: bool
  returned: when there is a migration
  sample: true
limits:
  description: The limits that hold, with C(bandwidth) in bytes per second, C(downtime) and C(deadline) in seconds.
  type: dict
  returned: when there is a migration
attempts:
  description: How often the switchover had to be tried again because the disks were not in step.
  type: int
  returned: when there is a migration
  sample: 0
guarantee:
  description: Who answers for it that only one copy runs.
  type: str
  returned: when there is a migration
  sample: crosscluster
residue:
  description: What is left on the target and could not be removed, see M(crosscluster.migration.target_recovery).
  type: list
  elements: dict
  returned: when there is a migration
  sample: []
warnings:
  description: What did not change the outcome and is worth knowing, for example that the kept copy could not be marked.
  type: list
  elements: str
  returned: when there are any
  sample: []
bytes:
  description: Bytes that went to the target, over all streams.
  type: int
  returned: when finished
  sample: 4831838208
duration_s:
  description: Seconds from the start to the end.
  type: float
  returned: when finished
  sample: 41.7
downtime_ms:
  description: The pause of the guest by QEMU's own reckoning, in milliseconds.
  type: int
  returned: when completed
  sample: 26
pause_ms:
  description: From the stop at the source to the target being seen running, in milliseconds.
  type: int
  returned: when completed
  sample: 106
proof:
  description: What was read back before the source was given up, and when.
  type: dict
  returned: when completed
progress:
  description: Figures of this moment. A figure that is not known yet is missing.
  type: dict
  returned: while the migration is not finished
  contains:
    percent:
      description: Part of the bytes that has been transferred.
      type: int
      returned: once known
      sample: 42
    bytes_transferred:
      description: Bytes that went to the target.
      type: int
      returned: once known
      sample: 1932735283
    bytes_total:
      description: Bytes that have to go, as far as is known by now.
      type: int
      returned: once known
      sample: 4590000000
    bytes_remaining:
      description: Bytes that still have to go.
      type: int
      returned: once known
      sample: 2657264717
    rate:
      description: Bytes per second over the last ten seconds.
      type: int
      returned: once known
      sample: 104857600
    dirty_rate:
      description: Bytes of memory that the guest changes per second.
      type: int
      returned: once known
      sample: 20971520
    eta_s:
      description: Seconds to the end at this rate.
      type: int
      returned: once known
      sample: 26
failure:
  description: Why the migration was given up, with C(code), C(side), C(object), C(message), C(remedy) and C(facts).
  type: dict
  returned: when it was given up
journal:
  description: The entries of the journal, oldest first.
  type: list
  elements: dict
  returned: with O(journal=true)
code:
  description: Stable name of what went wrong, see the table of error codes.
  type: str
  returned: failure
  sample: VMID_TAKEN
side:
  description: Where the matter lies, V(controller), V(source) or V(target).
  type: str
  returned: failure
  sample: target
object:
  description: The VM, volume, option, socket or the like that the message is about.
  type: str
  returned: failure
  sample: VM 20017
message:
  description: What went wrong, in one sentence.
  type: str
  returned: failure
  sample: VMID 20017 belongs to another VM
remedy:
  description: What can be done about it, empty if nothing.
  type: str
  returned: failure
  sample: choose another number
facts:
  description: Details for programs.
  type: dict
  returned: failure
"""

from ansible_collections.crosscluster.migration.plugins.module_utils.arguments import identity
from ansible_collections.crosscluster.migration.plugins.module_utils.face import FaceModule, inform, run
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.engines import worker_engine


def main() -> None:
    arguments = {
        **identity(),
        "wait": {"type": "float", "default": 0.0},
        "journal": {"type": "bool", "default": False},
    }
    module = FaceModule(
        argument_spec=arguments,
        supports_check_mode=True,
        required_one_of=[("source", "migration_id")],
        mutually_exclusive=[("source", "migration_id")],
    )
    run(module, lambda parameters: inform(worker_engine(), parameters))


if __name__ == "__main__":
    main()
