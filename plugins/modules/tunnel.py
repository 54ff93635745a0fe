#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 crosscluster contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first milestone of a move: a tunnel, and a VMID that is ours."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tunnel
short_description: Opens the tunnel to another cluster and reserves the VMID
version_added: 0.1.0
author:
  - crosscluster contributors (@crosscluster)
description:
  - Locks the VM on the source, opens the tunnel to the target node and takes the VMID there. The guest notices nothing.
  - The first step for those who compose a move of single steps. M(crosscluster.migration.migration) does it by itself.
  - All options are those of M(crosscluster.migration.migration). They make one specification, the same for each step.
    A repetition with the same specification attaches to what is there. Another one is refused with the code
    C(SPEC_DIFFERS), which names the difference.
  - What was prepared is kept for O(reservation_timeout) and then removed, unless the move is started.
extends_documentation_fragment:
  - crosscluster.migration.source
  - crosscluster.migration.endpoint
  - crosscluster.migration.mapping
  - crosscluster.migration.transport
  - crosscluster.migration.waiting
  - crosscluster.migration.attributes
seealso:
  - module: crosscluster.migration.migration
  - module: crosscluster.migration.target_disk
"""

EXAMPLES = r"""
- name: Reserve the number of VM 117 on cluster beta
  crosscluster.migration.tunnel:
    source:
      vmid: 117
    target:
      api_host: b1.beta.example.com
      node: b1
      vmid: same
      api_user: migration@pve
      api_token_id: move
      fingerprint: "{{ beta_fingerprint }}"
    target_api_token_secret: "{{ beta_token_secret }}"
    disks:
      default: fast
      scsi1: slow
    nics:
      default: vmbr0
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
  sample: reserved
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
lease:
  description: Names this run. Requests that carry it keep the migration alive.
  type: str
  returned: while the migration is not finished
  sample: "5d0c6a9e3f7b41c8a2e4d96b1f08735c:9d1f"
progress:
  description: Figures of this moment, see M(crosscluster.migration.migration_info).
  type: dict
  returned: while the migration is not finished
would_create:
  description:
    - What would be made on the target, with C(node), C(vmid), C(volumes), C(nics), and the C(run_state) of the VM.
  type: dict
  returned: in check mode, when there is something to do
diff:
  description: With C(--diff), the configuration of the VM on the source and the one it gets on the target.
  type: dict
  returned: in check mode
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

from ansible_collections.crosscluster.migration.plugins.module_utils.arguments import milestone_arguments
from ansible_collections.crosscluster.migration.plugins.module_utils.face import FaceModule, advance, run
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.engines import worker_engine


def main() -> None:
    module = FaceModule(argument_spec=milestone_arguments(), supports_check_mode=True)
    run(module, lambda parameters: advance(worker_engine(), parameters, "reserved", module.check_mode))


if __name__ == "__main__":
    main()
