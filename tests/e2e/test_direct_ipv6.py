# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A migration network of IPv6 addresses. Over ``tcp``, which needs the most of it: proof, rule, listener, way back."""

from __future__ import annotations

import pytest

from e2e.direct import assert_nobody_listens, over

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def test_running_vm_moves_over_ipv6(mover):
    vm = mover().create()
    options = over(vm, "tcp")
    for cluster, host in (("alpha", vm.source_host), ("beta", vm.target_host)):
        (node,) = options["crosscluster_clusters"][cluster]["nodes"].values()
        node["migration_address"] = str(host.addresses.migration6.ip)
    options["migrate_vm_incoming"]["network"] = str(vm.target_host.addresses.migration6.network)
    result = vm.controller.run("migrate", extra=options).expect(0).result()
    assert (result["transport"], result["transports_rejected"], result["residue"]) == ("tcp", [], [])
    vm.assert_moved()
    vm.assert_guest_went_on()
    assert_nobody_listens(vm)
