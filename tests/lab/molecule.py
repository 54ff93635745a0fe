# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab under molecule: `python -m lab.molecule up|down [scenario]`, called by create and destroy of the scenarios.

Leaves in build/molecule/inventory the lab's inventory and the group `moves` with one VM, web01, whose guest beats;
`nested` makes hosts that are machines themselves, and has all of it in build/molecule-nested. One lab at a time of
either kind in a checkout.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys

from .harness import Guest
from .hosts import HostError
from .instance import CHECKOUT, Lab, LabError, down, instances
from .inventory import to_yaml
from .vms import Disk, create_vm

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


SMALL_DISKS = [Disk("scsi0", "fast", 8)]
SMALL_GUEST = {"memory": 96, "guest_words": "hb=500 rec=1000 slots=256 set=1 clocksource=tsc tsc=reliable"}
# As little as possible beside the move: one worker of the front end, and a status daemon as slow as Proxmox's own.
LIGHT = {"workers": 1, "statd": 10.0, "calm": 0.5}
LISTENER = CHECKOUT / "extensions" / "molecule" / "default" / "files" / "heartbeats.py"
BOOT_TIMEOUT = 1500.0  # seconds; one emulator in another takes a hundred processor seconds for what one does in two


class Scenario:
    """A scenario's place below build/ and what it does there."""

    directory = "molecule"

    def __init__(self) -> None:
        self.state = CHECKOUT / "build" / self.directory
        self.labs = self.state / "labs"
        self.inventory = self.state / "inventory"

    def up(self) -> None:
        """A fresh lab with a VM that runs and writes."""
        self.remove()
        self.inventory.mkdir(parents=True)
        try:
            lab = self.make_lab()
            os.symlink(lab.inventory, self.inventory / "lab.yml")
            (self.inventory / "moves.yml").write_text(to_yaml(MOVES), encoding="ascii")
        except BaseException:
            self.remove()
            raise

    def make_lab(self) -> Lab:
        """Two hosts of the usual kind."""
        lab = Lab.up({"alpha": 1, "beta": 1}, state=self.labs, target_root=True)
        source = lab.host("alpha1")
        with Guest([(source, VMID)]) as guest:
            create_vm(source, VMID, NAME, disks=DISKS, guest_words="rate=2 set=16")
            guest.wait_heartbeats(5)
            guest.wait_acknowledged(2)
        return lab

    def remove(self) -> None:
        """Every trace of it."""
        for number in instances(self.labs):
            down(number, state=self.labs)
        shutil.rmtree(self.state, ignore_errors=True)


class Nested(Scenario):
    """Two hosts that are machines, and a guest in a machine in a machine."""

    directory = "molecule-nested"

    def make_lab(self) -> Lab:
        def make_guest(lab: Lab) -> None:
            create_vm(lab.host("alpha1"), VMID, NAME, disks=SMALL_DISKS, start=False, **SMALL_GUEST)

        clusters = {"alpha": {"alpha1": "machine"}, "beta": {"beta1": "machine"}}
        lab = Lab.up(clusters, state=self.labs, personality=LIGHT, slow_mib=0, prepare=make_guest)
        source = lab.host("alpha1")
        source.run(["qm", "start", str(VMID)], timeout=BOOT_TIMEOUT)
        source.run(
            ["python3", "-", str(VMID), str(BOOT_TIMEOUT)],
            text_input=LISTENER.read_text(encoding="utf-8"),
            timeout=BOOT_TIMEOUT,
        )
        return lab


SCENARIOS = {"default": Scenario, "nested": Nested, "transports": Scenario, "trusted_network": Scenario}


def main(words: list[str]) -> int:
    """up or down, and which."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    action, name = (*words, "default")[:2] if words else ("", "")
    if len(words) > 2 or action not in ("up", "down") or name not in SCENARIOS:
        print("usage: python -m lab.molecule up|down [%s]" % "|".join(SCENARIOS), file=sys.stderr)
        return 2
    scenario = SCENARIOS[name]()
    try:
        scenario.up() if action == "up" else scenario.remove()
    except (LabError, HostError) as error:
        print("lab: %s" % error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
