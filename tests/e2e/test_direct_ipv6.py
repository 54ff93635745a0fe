# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A migration network of IPv6 addresses, in clear text, which needs the most of it: proof, listener, way back.

``tcp`` has the rule and the listener of ours; with ``qemu-tcp`` Proxmox is told the network and QEMU listens.
"""

from __future__ import annotations

import pytest

from e2e.direct import assert_nobody_listens, over, patched

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.mark.parametrize("transport", ["tcp", pytest.param("qemu-tcp", marks=pytest.mark.slow)])
def test_running_vm_moves_over_ipv6(mover, transport):
    vm = mover().create()
    options = over(vm, transport)
    for cluster, host in (("alpha", vm.source_host), ("beta", vm.target_host)):
        (node,) = options["crosscluster_clusters"][cluster]["nodes"].values()
        node["migration_address"] = str(host.addresses.migration6.ip)
    options["migrate_vm_incoming"]["network"] = str(vm.target_host.addresses.migration6.network)
    with patched(vm.target_host, transport):
        result = vm.controller.run("migrate", extra=options).expect(0).result()
    assert (result["transport"], result["transports_rejected"], result["residue"]) == (transport, [], [])
    vm.assert_moved()
    vm.assert_guest_went_on()
    assert_nobody_listens(vm)
    if transport == "qemu-tcp":
        [place] = [record for record in vm.records() if record["kind"] == "plain_listeners"]
        assert place["address"] == str(vm.target_host.addresses.migration6.ip)
