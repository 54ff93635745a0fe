# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM that is to move from alpha to beta, the guest inside it as seen from outside, and what must hold afterwards."""

from __future__ import annotations

import itertools
import json
import shutil
import time
from pathlib import Path
from typing import Any, Iterable

from lab.harness import Guest
from lab.records import RecordCheck
from lab.vms import Disk, image_paths

from .controller import Controller, Run
from .sides import STORAGES, Side, journals_of

FIRST_VMID = 200
SETTLE = 30.0  # seconds for what goes on after the play's end
# The guest's own pace is for who measures: under software emulation it costs a quarter of a processor, this half of it.
CALM = "hb=50 rec=100"  # milliseconds
EAGER = ""
ENDS = ("completed", "rolled_back", "lost")  # phases in which a move has come to its end
_numbers = itertools.count(FIRST_VMID)


class Mover:
    """One VM on the source node of a lab and its place on the target node."""

    def __init__(self, lab: Any, controller: Controller, source: str = "alpha1", target: str = "beta1") -> None:
        self.lab, self.controller = lab, controller
        self.source_host, self.target_host = lab.host(source), lab.host(target)
        self.vmid = next(_numbers)
        self.target_vmid = self.vmid
        self.name = f"vm{self.vmid}"
        self.guest: Guest | None = None
        self._retired: list[Side] = []
        self.vm: Any = None

    def create(
        self,
        disks: Iterable[Disk] = (Disk(fill_mib=16),),
        watch: bool = True,
        guest_words: str = CALM,
        **options: Any,
    ) -> Mover:
        """Make the VM; with ``watch`` it runs the lab's guest and is waited for until it writes."""
        options["guest_words"] = guest_words
        self.vm = self.lab.create_vm(self.source_host, self.vmid, self.name, disks=list(disks), **options)
        if watch:
            self.guest = Guest([(self.source_host, self.vmid), (self.target_host, self.target_vmid)])
            self.guest.wait_heartbeats(5)
            if list(disks):
                self.guest.wait_acknowledged(2)
        self._wait_listed()
        return self

    def _wait_listed(self) -> None:
        """The cluster shows a new VM without its name until its status daemon has told of it, as Proxmox does."""
        deadline = time.monotonic() + SETTLE
        argv = ["pvesh", "get", "/cluster/resources", "--type", "vm", "--output-format", "json"]
        while time.monotonic() < deadline:
            entries = json.loads(self.source_host.run(argv).stdout.splitlines()[-1])
            if any(entry.get("vmid") == self.vmid and entry.get("name") == self.name for entry in entries):
                return
            time.sleep(0.3)
        raise TimeoutError(f"the cluster does not list {self.name}")

    @property
    def source(self) -> Side:
        return Side(self.source_host, self.vmid)

    @property
    def target(self) -> Side:
        return Side(self.target_host, self.target_vmid)

    def extra(self, **more: Any) -> dict[str, Any]:
        """Extra variables of the public playbooks for this VM."""
        return {"move_vms": self.name, "move_to": "beta", "move_storage": "fast", "move_bridge": "vmbr0", **more}

    def migrate(self, *arguments: str, **more: Any) -> Run:
        """Run the playbook to its end, whatever that is."""
        return self.controller.run("migrate", *arguments, extra=self.extra(**more))

    def records(self) -> list[dict[str, Any]]:
        """All journal records of this VM on the source node, of every attempt."""
        return [record for journal in journals_of(self.source_host, self.vmid) for record in journal]

    def check_records(self, side: Side) -> RecordCheck:
        """The records on the images of one side against everything the guest was told to be safe."""
        assert self.guest is not None
        paths = image_paths(side.host, side.vmid)
        return self.guest.check_records(
            path for key, path in paths.items() if key.startswith(("scsi", "virtio", "sata"))
        )

    def retire_target(self) -> None:
        """The present target number stays with what lies there; it is taken away with everything else."""
        self._retired.append(self.target)

    def destroy(self) -> None:
        """Take both copies away, so that the next test has the machine for itself."""
        if self.guest is not None:
            self.guest.close()
        self._wait_worker_gone()
        for side in (self.source, self.target, *self._retired):
            for argv in (["qm", "unlock"], ["qm", "stop"], ["qm", "destroy"]):
                if side.config_text is not None:
                    side.host.run([*argv, str(side.vmid)], check=False)
            for path in STORAGES.values():
                shutil.rmtree(side.host.path(f"{path}/images/{side.vmid}"), ignore_errors=True)

    def _wait_worker_gone(self) -> None:
        """A worker answers for some seconds after its end; the next test shall find the node as it was."""
        base = Path(self.source_host.path("/run/crosscluster"))
        deadline = time.monotonic() + SETTLE
        while base.is_dir() and any(path.is_dir() for path in base.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.2)

    # -- what must hold ------------------------------------------------------------------------------------------

    def assert_moved(self, state: str = "running") -> None:
        """The target owns the VM, the source is stopped, locked, kept, and cannot start or answer on the network."""
        assert self.source.qemu is None, "the source QEMU still runs"
        assert self.source.lock == "migrate"
        assert self.source.volumes(), "the source's volumes are gone"
        assert self.source.config.get("onboot", "0") == "0"
        nics = {key: value for key, value in self.source.config.items() if key.startswith("net")}
        assert [key for key, value in nics.items() if "link_down=1" not in value] == []
        assert self.target.run_state == state
        assert self.target.lock is None
        assert self.target.config["smbios1"].split(",")[0] == self.source.config["smbios1"].split(",")[0]

    def assert_guest_went_on(self) -> None:
        """The one guest counts on at the target, and every write it was told to be safe is there."""
        assert self.guest is not None
        self.guest.wait_heartbeats(20, host=self.target_host.name)
        assert self.guest.violations() == []
        checked = self.check_records(self.target)
        assert checked.bad == []
        assert checked.checked > 0

    def assert_stayed(self) -> None:
        """The source owns the VM and nothing in it or around it tells of a move."""
        assert self.source.run_state == "running"
        assert self.source.lock is None
        assert self.source.jobs() == []
        assert self.source.foreign_nodes() == []
        if self.guest is not None:
            self.guest.wait_heartbeats(20, host=self.source_host.name)
            assert self.guest.violations() == []

    def assert_nothing_on_target(self) -> None:
        """No config, no QEMU, no volume of this VM."""
        assert self.target.config_text is None
        assert self.target.qemu is None
        assert self.target.volumes() == {}

    @property
    def phase(self) -> str:
        """The phase that the last journal of this VM has reached; empty without one."""
        phases = [record["phase"] for record in self.records() if "phase" in record]
        return phases[-1] if phases else ""

    def wait_final(self, timeout: float = SETTLE) -> str:
        """Wait until the last journal of this VM has reached an end or waits in hold; returns its phase."""
        deadline = time.monotonic() + timeout
        while (phase := self.phase) not in (*ENDS, "hold") and time.monotonic() < deadline:
            time.sleep(0.2)
        return phase


def assert_changes_nothing(run: Run) -> None:
    """A second run: ends well and reports no change anywhere."""
    run.expect(0)
    assert run.changed == 0, run.output
