# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths for preflight, inventory and fleet work: they exist, ask for their privilege, and answer in their form."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.api.auth import Caller
from lab.api.registry import Registry, error_answer
from lab.node.base import Die, Node
from lab.node.cluster import Cluster

CLUSTER_FIREWALL = """[OPTIONS]
enable: 1
policy_in: DROP

[ALIASES]
office 192.0.2.0/24 # desks

[IPSET management]
192.0.2.1

[RULES]
IN ACCEPT -p tcp -dport 22 -source +management # ssh
|IN SSH(DROP) -i vmbr0

[group web]
IN ACCEPT -p tcp -dport 443
"""
MODELS = "cpu-model: lab\n\tflags +aes\n\treported-model kvm64\n"
STORAGE = "dir: local\n\tpath /var/lib/vz\n\tcontent images\n\tshared\n"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    for name in ("nodes/alpha1/qemu-server", "firewall", "virtual-guest"):
        (tmp_path / "etc/pve" / name).mkdir(parents=True)
    (tmp_path / "etc/pve/user.cfg").write_text("user:none@pve:1:0::::::\n")
    (tmp_path / "etc/pve/storage.cfg").write_text(STORAGE)
    (tmp_path / "etc/pve/firewall/cluster.fw").write_text(CLUSTER_FIREWALL)
    (tmp_path / "etc/pve/virtual-guest/cpu-models.conf").write_text(MODELS)
    node = Node(root=str(tmp_path), name="alpha1")
    Cluster(node).create_stub(100, content="memory: 64\n")
    return Registry(node)


def call(registry: Registry, path: str, user: str = "root@pam", verb: str = "GET", **params: str) -> object:
    entry, values = registry.find(verb, path)
    return registry.run(entry, values, params, Caller(user), synchronous=True)


def refusal(registry: Registry, path: str, user: str = "root@pam", verb: str = "GET", **params: str) -> object:
    with pytest.raises(Die) as refused:
        call(registry, path, user, verb, **params)
    status, reason, body = error_answer(refused.value)
    return status, body.get("errors", reason)


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/cluster/firewall/options", "(/, Sys.Audit)"),
        ("/cluster/ha/groups", "(/, Sys.Audit)"),
        ("/cluster/status", "(/, Sys.Audit)"),
        ("/nodes/alpha1/dns", "(/nodes/alpha1, Sys.Audit)"),
        ("/nodes/localhost/status", "(/nodes/alpha1, Sys.Audit)"),
        ("/nodes/alpha1/firewall/rules", "(/nodes/alpha1, Sys.Audit)"),
        ("/nodes/alpha1/qemu/100/firewall/options", "(/vms/100, VM.Audit)"),
        ("/nodes/alpha1/qemu/100/snapshot", "(/vms/100, VM.Audit)"),
        ("/nodes/alpha1/qemu/100/status/current", "(/vms/100, VM.Audit)"),
        ("/nodes/alpha1/qemu/100/migrate", "(/vms/100, VM.Migrate)"),
        ("/nodes/alpha1/qemu/100/agent/get-osinfo", "(/vms/100, VM.GuestAgent.Audit|VM.GuestAgent.Unrestricted)"),
        ("/storage/local", "(/storage/local, Datastore.Allocate)"),
        ("/nodes/alpha1/storage/local/status", "(/storage/local, Datastore.Audit|Datastore.AllocateSpace)"),
    ],
)
def test_what_is_asked_for(registry: Registry, path: str, wanted: str) -> None:
    assert refusal(registry, path, "none@pve") == (403, "Permission check failed " + wanted)
    if "agent" not in path:
        call(registry, path)


@pytest.mark.parametrize(
    "path",
    ["/version", "/cluster/nextid", "/nodes/alpha1/network", "/access/permissions", "/nodes/alpha1/certificates"],
)
def test_what_any_token_may_read(registry: Registry, path: str) -> None:
    call(registry, path, "none@pve")


def test_firewall(registry: Registry) -> None:
    options = call(registry, "/cluster/firewall/options")
    assert (options["enable"], options["policy_in"], len(options["digest"])) == (1, "DROP", 40)
    first, second = call(registry, "/cluster/firewall/rules")
    assert (first["type"], first["action"], first["dport"], first["pos"], first["enable"]) == (
        "in",
        "ACCEPT",
        "22",
        0,
        1,
    )
    assert (second["macro"], second["action"], second["iface"], second["enable"]) == ("SSH", "DROP", "vmbr0", 0)
    assert call(registry, "/cluster/firewall/aliases")[0]["cidr"] == "192.0.2.0/24"
    assert call(registry, "/cluster/firewall/ipset")[0]["name"] == "management"
    assert call(registry, "/cluster/firewall/groups")[0]["group"] == "web"


def test_cpu_models_of_the_cluster(registry: Registry) -> None:
    model = {"cputype": "custom-lab", "flags": "+aes", "reported-model": "kvm64"}
    assert call(registry, "/cluster/qemu/custom-cpu-models") == [model]
    assert call(registry, "/cluster/qemu/custom-cpu-models/custom-lab") == model
    assert call(registry, "/cluster/qemu/custom-cpu-models", "none@pve") == []
    assert refusal(registry, "/cluster/qemu/custom-cpu-models/x")[0] == 500


def test_storages_of_the_cluster(registry: Registry) -> None:
    found = call(registry, "/storage")
    assert [(entry["storage"], entry["type"], entry["shared"]) for entry in found] == [("local", "dir", 1)]
    assert call(registry, "/storage", "none@pve") == []
    assert refusal(registry, "/storage/nosuch") == (500, "storage 'nosuch' does not exist")


def test_ha_resources_are_written(registry: Registry) -> None:
    assert refusal(registry, "/cluster/ha/resources", verb="POST", sid="vm:999")[0] == 500
    call(registry, "/cluster/ha/resources", verb="POST", sid="vm:100")
    assert refusal(registry, "/cluster/ha/resources", verb="POST", sid="100")[1] == (
        "resource ID 'vm:100' already defined"
    )
    call(registry, "/cluster/ha/resources/vm:100", verb="PUT", state="ignored")
    assert call(registry, "/cluster/ha/resources/100")["state"] == "ignored"
    call(registry, "/cluster/ha/resources/vm:100", verb="DELETE")
    assert call(registry, "/cluster/ha/resources") == []


def test_directories(registry: Registry) -> None:
    assert {"subdir": "version"} in call(registry, "/", "none@pve")
    assert {"subdir": "remote_migrate"} in call(registry, "/nodes/alpha1/qemu/100", "none@pve")
    assert {"name": "tasks"} in call(registry, "/nodes/alpha1", "none@pve")


def test_a_new_vm(registry: Registry) -> None:
    upid = call(registry, "/nodes/alpha1/qemu", verb="POST", vmid="101", memory="64", name="new")
    assert ":qmcreate:101:root@pam:" in upid
    assert call(registry, "/nodes/alpha1/qemu/101/config")["name"] == "new"
    assert refusal(registry, "/nodes/alpha1/qemu", verb="POST", vmid="101") == (
        500,
        "unable to create VM 101 - VM 101 already exists on node 'alpha1'",
    )
    assert refusal(registry, "/nodes/alpha1/qemu", "none@pve", "POST", vmid="102") == (
        403,
        "Permission check failed (/vms/102, VM.Allocate)",
    )
    assert refusal(registry, "/nodes/alpha1/qemu/101/migrate", verb="POST", target="alpha1") == (
        400,
        {"target": "target is local node."},
    )


def test_options_of_the_cluster(registry: Registry) -> None:
    registry.node.path("/etc/pve/datacenter.cfg").write_text(
        "console: html5\nkeyboard: en-us\nmigration: secure,network=198.51.100.0/24\n"
    )
    assert call(registry, "/cluster/options") == {
        "console": "html5",
        "keyboard": "en-us",
        "migration": {"type": "secure", "network": "198.51.100.0/24"},
        "allowed-tags": [],
    }
    assert call(registry, "/cluster/options", "none@pve") == {"console": "html5", "allowed-tags": []}


def test_replication_jobs(registry: Registry) -> None:
    registry.node.path("/etc/pve/replication.cfg").write_text(
        "local: 100-1\n\ttarget alpha2\n\nlocal: 101-0\n\ttarget x\n"
    )
    job = {"id": "100-1", "guest": 100, "jobnum": 1, "type": "local", "target": "alpha2"}
    assert call(registry, "/cluster/replication")[0] == job
    assert call(registry, "/nodes/alpha1/replication") == [job]
    assert call(registry, "/cluster/replication", "none@pve") == []


def test_the_node_names_its_processor(registry: Registry) -> None:
    found = call(registry, "/nodes/alpha1/status")["cpuinfo"]
    assert {"cpus", "flags", "hvm", "model", "user_hz"} <= set(found)
