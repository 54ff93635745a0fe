# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab under molecule: `python -m lab.molecule up|down`, called by create and destroy of the scenario `default`.

Leaves in build/molecule/inventory the lab's inventory and the group `moves` with one VM, web01, whose guest beats.
One lab at a time in a checkout.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys

from .harness import Guest
from .instance import CHECKOUT, Lab, LabError, down, instances
from .inventory import to_yaml
from .vms import Disk, create_vm

STATE = CHECKOUT / "build" / "molecule"
LABS = STATE / "labs"
INVENTORY = STATE / "inventory"
VMID, NAME = 100, "web01"
DISKS = [Disk("scsi0", "fast", 64, "raw", fill_mib=16), Disk("scsi1", "local", 64, "qcow2", fill_mib=8)]
MOVES = {
    "moves": {
        "hosts": {
            NAME: {
                "migrate_vm_source": {"cluster": "alpha", "name": NAME},
                "migrate_vm_target": {"cluster": "beta"},
                "migrate_vm_disks": {"default": "fast"},
                "migrate_vm_nics": {"default": "vmbr0"},
            }
        }
    }
}


def up() -> None:
    """A fresh lab with a VM that runs and writes."""
    remove()
    INVENTORY.mkdir(parents=True)
    lab = Lab.up({"alpha": 1, "beta": 1}, state=LABS)
    try:
        source = lab.host("alpha1")
        with Guest([(source, VMID)]) as guest:
            create_vm(source, VMID, NAME, disks=DISKS, guest_words="rate=2 set=16")
            guest.wait_heartbeats(5)
            guest.wait_acknowledged(2)
        os.symlink(lab.inventory, INVENTORY / "lab.yml")
        (INVENTORY / "moves.yml").write_text(to_yaml(MOVES), encoding="ascii")
    except BaseException:
        remove()
        raise


def remove() -> None:
    """Every trace of it."""
    for number in instances(LABS):
        down(number, state=LABS)
    shutil.rmtree(STATE, ignore_errors=True)


def main(words: list[str]) -> int:
    """up or down."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    actions = {"up": up, "down": remove}
    if len(words) != 1 or words[0] not in actions:
        print("usage: python -m lab.molecule up|down", file=sys.stderr)
        return 2
    try:
        actions[words[0]]()
    except LabError as error:
        print("lab: %s" % error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
