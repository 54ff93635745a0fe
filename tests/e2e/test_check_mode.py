# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check mode: says what would be created, and leaves both hosts as they were."""

from __future__ import annotations

import pytest

from e2e.sides import difference, everything

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.mark.parametrize("playbook", ["migrate", "migrate_by_steps"])
def test_check_mode_writes_nothing(mover, playbook):
    vm = mover().create()
    hosts = (vm.source_host, vm.target_host)
    before = [everything(host) for host in hosts]
    run = vm.controller.run(playbook, "--check", "--diff", extra=vm.extra()).expect(0)
    assert run.changed > 0, "the change to come is told"
    assert [difference(old, everything(host)) for old, host in zip(before, hosts)] == [[], []]
    vm.assert_stayed()
    vm.assert_nothing_on_target()
    assert "+scsi0: fast:" in run.output, "the diff shows the mapped config"
