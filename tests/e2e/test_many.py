# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many VMs step by step: twelve without a guest system, five forks, linear strategy; no lease is lost on the way.

Five forks are all that a machine of two cores has to give, and a lease is a bound in time.
"""

from __future__ import annotations

import pytest

from e2e.moves import assert_changes_nothing
from lab.vms import Disk

pytestmark = [pytest.mark.e2e, pytest.mark.measuring, pytest.mark.timeout(480)]

VMS = 12


def test_twelve_vms_move_by_steps(mover):
    vms = [mover().create([Disk("scsi0", "fast", 8)], watch=False, guest=False, memory=16) for _ in range(VMS)]
    extra = vms[0].extra(move_vms=",".join(vm.name for vm in vms))
    run = vms[0].controller.run("migrate_by_steps", "--forks", "5", extra=extra, timeout=400).expect(0)
    assert "CONTROLLER_LOST" not in run.output
    assert [vm.name for vm in vms if vm.target.run_state != "running" or vm.source.qemu] == []
    assert_changes_nothing(vms[0].controller.run("migrate_by_steps", "--forks", "5", extra=extra, timeout=400))
