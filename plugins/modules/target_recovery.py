#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 crosscluster contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is left on a target whose control channel was lost: away with it, or on with it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: target_recovery
short_description: Removes or resumes what a broken migration left on the target
version_added: 0.1.0
author:
  - crosscluster contributors (@crosscluster)
description:
  - Once the control channel of a migration is lost, no API token can unlock, stop or remove what it left on the target.
    This module does it as root on the target node.
  - It acts only on what the migration recorded. The VM must have the recorded uuid and lock, and the task that held the
    tunnel must have ended. A number that somebody else has taken meanwhile is left alone with the code C(VMID_REUSED).
  - With O(state=removed) the VM is stopped and destroyed, then each recorded volume is freed to which no
    configuration and no running program refers. A VM that may have run is never removed.
  - With O(state=running) the VM is resumed, seen to run, and unlocked once O(source_fenced) is true. This needs
    O(commit_intent), which says that the source had given up the guest.
  - Proxmox VE removes the access rules on a VM together with the VM. Give the token its rights on the pool of numbers
    or on C(/vms) if a rule on the single number is not to be set again after O(state=removed).
options:
  state:
    description: What is to become of the VM on the target.
    type: str
    choices: [removed, running]
    required: true
  migration_id:
    description: The migration that left it, as in its result.
    type: str
    required: true
  vmid:
    description: Number of the VM on the target, as in the result of the migration.
    type: int
    required: true
  uuid:
    description: SMBIOS uuid of the VM. What has another uuid is somebody else's.
    type: str
    required: true
  lock:
    description:
      - The lock that the migration left the VM with, V(create) until it was configured and V(migrate) after that.
      - Without it both are taken for its own.
    type: str
    choices: [create, migrate]
  upid:
    description:
      - The task that held the tunnel, as in the result of the migration.
      - Without it only what has the recorded uuid is taken for left over.
    type: str
  volumes:
    description: The volumes that the migration allocated, as in its result.
    type: list
    elements: str
    default: []
  commit_intent:
    description: Whether the journal of the source says that the target was to be started.
    type: bool
    default: false
  source_fenced:
    description: Whether the QEMU of the source is gone for sure. The target is unlocked only then.
    type: bool
    default: false
  run_state:
    description: The state that the owner had left the VM in. Only V(running) is resumed, the others are unlocked.
    type: str
    choices: [running, paused, stopped]
    default: running
extends_documentation_fragment:
  - crosscluster.migration.attributes
seealso:
  - module: crosscluster.migration.migration
"""

EXAMPLES = r"""
- name: Remove what the failed move of web01 left on cluster beta
  crosscluster.migration.target_recovery:
    state: removed
    migration_id: "{{ move.migration_id }}"
    vmid: "{{ move.target.vmid }}"
    uuid: "{{ web01_uuid }}"
    upid: "{{ move.target.upid }}"
    volumes: "{{ move.target.volumes }}"
  delegate_to: b1
"""

RETURN = r"""
steps:
  description: What was done, in order; in check mode what would be done.
  type: list
  elements: dict
  returned: always
  sample:
    - action: stop
      object: VM 20017
    - action: destroy
      object: VM 20017
    - action: free
      object: fast:20017/vm-20017-disk-0.raw
kept:
  description: Recorded volumes that were not freed, and what refers to each.
  type: list
  elements: dict
  returned: always
  sample: []
status:
  description: What was found on the target before anything was done, V(absent), V(stopped) or QEMU's own word.
  type: str
  returned: always
  sample: inmigrate
diff:
  description: With C(--diff), what was there and what is there afterwards.
  type: dict
  returned: with C(--diff)
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

from ansible_collections.crosscluster.migration.plugins.module_utils.face import FaceModule, run
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.target_node import target_node
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.target_recovery import (
    Recorded,
    recover,
)


def arguments():
    return {
        "state": {"type": "str", "choices": ["removed", "running"], "required": True},
        "migration_id": {"type": "str", "required": True},
        "vmid": {"type": "int", "required": True},
        "uuid": {"type": "str", "required": True},
        "lock": {"type": "str", "choices": ["create", "migrate"]},
        "upid": {"type": "str"},
        "volumes": {"type": "list", "elements": "str", "default": []},
        "commit_intent": {"type": "bool", "default": False},
        "source_fenced": {"type": "bool", "default": False},
        "run_state": {"type": "str", "choices": ["running", "paused", "stopped"], "default": "running"},
    }


def main() -> None:
    module = FaceModule(argument_spec=arguments(), supports_check_mode=True)
    run(
        module,
        lambda parameters: recover(
            Recorded.parse(parameters), target_node(), parameters["state"], check_mode=module.check_mode
        ),
    )


if __name__ == "__main__":
    main()
