# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must not move is refused before the first write anywhere, with a code that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest

from e2e.sides import difference, everything

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

ZERO = "00000000-0000-0000-0000-000000000000"


def wrong_token(vm: Any) -> dict[str, Any]:
    return {"crosscluster_clusters": _clusters(vm, "beta", api_token_secret=ZERO)}


def wrong_fingerprint(vm: Any) -> dict[str, Any]:
    clusters = _clusters(vm, "beta", fingerprint="AA:" * 31 + "AA", validate_certs=False)
    for node in clusters["beta"]["nodes"].values():
        node["fingerprint"] = "AA:" * 31 + "AA"
    return {"crosscluster_clusters": clusters}


def weak_token(vm: Any) -> dict[str, Any]:
    user, _, token_id = "weak@pve!nothing".partition("!")
    secret = vm.target_host.tokens["weak@pve!nothing"]
    return {
        "crosscluster_clusters": _clusters(vm, "beta", api_user=user, api_token_id=token_id, api_token_secret=secret)
    }


def unknown_storage(_vm: Any) -> dict[str, Any]:
    return {"move_storage": "nowhere"}


def missing_bridge(_vm: Any) -> dict[str, Any]:
    return {"move_bridge": "vmbr99"}


def vmid_taken(vm: Any) -> dict[str, Any]:
    node = vm.target_host
    path = Path(node.path(f"/etc/pve/nodes/{node.name}/qemu-server/{vm.vmid}.conf"))
    path.write_text("cores: 1\nmemory: 16\nname: other\nsmbios1: uuid=11111111-2222-3333-4444-555555555555\n")
    return {}


def ha_resource(vm: Any) -> dict[str, Any]:
    path = Path(vm.source_host.path("/etc/pve/ha/resources.cfg"))
    path.write_text(f"vm: {vm.vmid}\n\tstate started\n\n")
    return {}


def foreign_lock(vm: Any) -> dict[str, Any]:
    _rewrite(vm, lambda text: text + "lock: backup\n")
    return {}


def snapshot(vm: Any) -> dict[str, Any]:
    _rewrite(vm, lambda text: text + "parent: before\n\n[before]\ncores: 1\nsnaptime: 1750000000\n")
    return {}


def pending_change(vm: Any) -> dict[str, Any]:
    _rewrite(vm, lambda text: text + "\n[PENDING]\nmemory: 256\n")
    return {}


def passed_through_device(vm: Any) -> dict[str, Any]:
    _rewrite(vm, lambda text: text + "hostpci0: 0000:01:00.0\n")
    return {}


def unknown_key(vm: Any) -> dict[str, Any]:
    _rewrite(vm, lambda text: text + "frobnicate: 1\n")
    return {}


# What is wrong, and a word of the code by which it must be refused.
REFUSALS: dict[Callable[[Any], dict[str, Any]], str] = {
    wrong_token: "TOKEN",
    weak_token: "PRIVILEGE",
    wrong_fingerprint: "FINGERPRINT",
    unknown_storage: "STORAGE",
    missing_bridge: "BRIDGE",
    vmid_taken: "VMID",
    ha_resource: "HA",
    foreign_lock: "LOCK",
    snapshot: "SNAPSHOT",
    pending_change: "PENDING",
    passed_through_device: "",
    unknown_key: "",
}


def _clusters(vm: Any, cluster: str, **changes: Any) -> dict[str, Any]:
    clusters = vm.controller.clusters()
    clusters[cluster].update(changes)
    return clusters


def _rewrite(vm: Any, change: Callable[[str], str]) -> None:
    path = Path(vm.source_host.path(f"/etc/pve/nodes/{vm.source_host.name}/qemu-server/{vm.vmid}.conf"))
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


@pytest.fixture
def silent_vm(mover):
    """A running VM without a guest system: nothing in it changes while we look."""
    vm = mover().create(watch=False, guest=False)
    files = [Path(host.path("/etc/pve/ha/resources.cfg")) for host in (vm.source_host, vm.target_host)]
    before = [path.read_text() if path.exists() else None for path in files]
    yield vm
    for path, text in zip(files, before):
        if text is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(text)


@pytest.mark.parametrize("wrong", REFUSALS, ids=lambda function: function.__name__)
def test_refused_before_the_first_write(silent_vm, wrong):
    vm = silent_vm
    more = wrong(vm)
    hosts = (vm.source_host, vm.target_host)
    before = [everything(host) for host in hosts]
    run = vm.migrate(**more)
    assert run.status != 0, run.output
    assert "Traceback" not in run.output
    assert [code for code in run.codes if REFUSALS[wrong] in code], (run.codes, run.output)
    assert [difference(old, everything(host)) for old, host in zip(before, hosts)] == [[], []]
    assert vm.source.run_state == "running"
