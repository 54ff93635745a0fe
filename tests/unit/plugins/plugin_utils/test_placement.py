# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import CrossclusterError, Side
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.errors import ApiRefused
from ansible_collections.crosscluster.migration.plugins.plugin_utils.placement import place

UUID = "6f7d5a10-0a4e-4f0e-9d6d-0d8c2f4f9b11"
OTHER_UUID = "11111111-2222-4333-8444-555555555555"
SECRET = "11111111-aaaa-bbbb-cccc-000000000000"
# What the configuration below asks for and nothing else.
MANY = "VM.Allocate VM.Audit VM.Config.CDROM VM.Config.HWType VM.Config.Memory VM.Config.Options VM.Config.Disk"
GRANTED = {
    "/": ["Sys.Incoming"],
    "/vms/117": [*MANY.split(), "VM.Config.Network"],
    "/vms/20000": [*MANY.split(), "VM.Config.Network"],
    "/storage/fast": ["Datastore.AllocateSpace"],
    "/storage/slow": ["Datastore.AllocateSpace"],
    "/sdn/zones/localnetwork/vmbr0": ["SDN.Use"],
}


def clusters():
    return {
        "alpha": {
            "api_host": "a.example",
            "api_user": "m@pve",
            "api_token_id": "move",
            "api_token_secret": SECRET,
            "nodes": {"a1": {}, "a2": {"inventory_host": "node-two"}},
        },
        "beta": {
            "api_host": "b.example",
            "api_user": "m@pve",
            "api_token_id": "move",
            "api_token_secret": SECRET,
            "vmid_pool": "20000-20001",
            "fingerprint": "ab" * 32,
            "target_root": True,
            "nodes": {"b1": {}},
        },
    }


def config(**more):
    return {
        "name": "web01",
        "smbios1": f"uuid={UUID}",
        "scsi0": "local:117/vm-117-disk-0.raw,size=1G",
        "scsi1": "local:117/vm-117-disk-1.raw,size=512M",
        "ide2": "none,media=cdrom",
        "net0": "virtio=BC:24:11:00:00:01,bridge=vmbr3",
        "memory": 512,
        **more,
    }


def vm(vmid, name, node="a1", **more):
    return {"type": "qemu", "vmid": vmid, "name": name, "node": node, "status": "running", **more}


class FakeApi:
    """Answers from a table of paths; a path that is missing is HTTP 500 as Proxmox VE says it."""

    def __init__(self, answers):
        self.answers = answers

    def get(self, *segments, **parameters):
        path = "/".join(segments)
        if path == "access/permissions":
            wanted = parameters["path"]
            # The value says whether the right propagates; the root's entry and those of pools do not.
            return {wanted: dict.fromkeys(self.answers["permissions"].get(wanted, []), 0)}
        if path not in self.answers:
            raise ApiRefused(f"{path} does not exist", object=path, status=500)
        return self.answers[path]


@pytest.fixture
def world():
    return {
        "a.example": {
            "cluster/resources": [vm(117, "web01", "a2"), vm(118, "db01"), {"type": "lxc", "vmid": 119}],
            "nodes/a2/qemu/117/config": config(),
            "nodes/a1/qemu/118/config": config(name="db01", smbios1=f"uuid={OTHER_UUID}"),
        },
        "b.example": {
            "cluster/resources": [],
            "version": {"version": "9.2.6"},
            "nodes": [{"node": "b1", "status": "online"}],
            "nodes/b1/storage": [
                {"storage": "fast", "content": "images,rootdir", "enabled": 1, "active": 1, "avail": 100 << 30},
                {"storage": "slow", "content": "images", "enabled": 1, "active": 1, "avail": 100 << 30},
                {"storage": "iso", "content": "iso", "enabled": 1, "active": 1, "avail": 100 << 30},
            ],
            "nodes/b1/network": [{"iface": "vmbr0", "type": "bridge"}, {"iface": "eth0", "type": "eth"}],
            "permissions": copy.deepcopy(GRANTED),
        },
    }


@pytest.fixture
def look(world):
    def ask(source=None, target=None, declared=None, **more):
        opened = []

        def opener(endpoint, secret, side):
            opened.append((endpoint.host, secret, side))
            return FakeApi(world[endpoint.host])

        placed = place(
            declared or clusters(),
            source or {"cluster": "alpha", "name": "web01"},
            target or {"cluster": "beta"},
            more.pop("disks", {"default": "fast", "scsi1": {"storage": "slow", "format": "raw"}}),
            more.pop("nics", {"default": "vmbr0"}),
            opener=opener,
            **more,
        )
        assert SECRET not in repr(placed)
        return placed

    return ask


def refusal(look, *arguments, **keywords):
    with pytest.raises(CrossclusterError) as caught:
        look(*arguments, **keywords)
    assert SECRET not in str(caught.value)
    return caught.value


def test_vm_is_found_by_name_with_its_node_and_inventory_host(look):
    placed = look()
    assert placed["source"] == {
        "cluster": "alpha",
        "node": "a2",
        "inventory_host": "node-two",
        "migration_address": None,
        "certificate_name": "a2",
        "vmid": 117,
        "name": "web01",
        "status": "running",
        "uuid": UUID,
    }
    assert placed["options"] == {
        "source": {"vmid": 117, "uuid": UUID},
        "target": {
            "api_host": "b.example",
            "api_port": 8006,
            "node": "b1",
            "vmid": "same",
            "api_user": "m@pve",
            "api_token_id": "move",
            "validate_certs": True,
            "fingerprint": "ab" * 32,
        },
    }
    assert placed["target"]["inventory_host"] == "beta-b1"
    assert placed["target"]["target_root"] is True
    assert placed["target"]["there"] is False


def test_vm_is_found_without_token_from_what_a_node_said(look, world):
    declared = clusters()
    for key in ("api_host", "api_user", "api_token_id", "api_token_secret"):
        del declared["alpha"][key]
    found = world.pop("a.example")["cluster/resources"]
    first = look(declared=declared, found=found)
    assert first["complete"] is False
    assert first["source"]["inventory_host"] == "node-two"
    second = look(declared=declared, found=found, config=config())
    assert second["complete"] is True
    assert second["options"]["source"]["uuid"] == UUID


def test_pool_gives_the_first_free_number(look, world):
    world["b.example"]["cluster/resources"] = [vm(20000, "x", "b1")]
    world["b.example"]["permissions"]["/vms/20001"] = GRANTED["/vms/20000"]
    placed = look(target={"cluster": "beta", "vmid": "pool"})
    assert placed["target"]["vmid"] == 20001
    assert placed["options"]["target"]["vmid_pool"] == "20000-20001"


@pytest.mark.parametrize("vmid", ["same", "pool"])
def test_vm_that_is_there_already_is_recognised_by_its_uuid(look, world, vmid):
    number = 117 if vmid == "same" else 20001
    world["b.example"]["cluster/resources"] = [vm(number, "renamed", "b1")]
    world["b.example"][f"nodes/b1/qemu/{number}/config"] = config(smbios1=f"uuid={UUID.upper()}")
    world["b.example"]["nodes/b1/storage"] = []
    placed = look(target={"cluster": "beta", "vmid": vmid})
    assert placed["target"]["there"] is True
    assert placed["target"]["vmid"] == number


def test_reservation_without_uuid_is_left_to_the_worker(look, world):
    world["b.example"]["cluster/resources"] = [vm(117, "", "b1", lock="create")]
    world["b.example"]["nodes/b1/qemu/117/config"] = {"lock": "create"}
    assert look()["target"]["there"] is True


def take_away(path, privilege):
    return lambda world: world["b.example"]["permissions"][path].remove(privilege)


def put(host, path, value):
    return lambda world: world[host].__setitem__(path, value)


def occupy(world):
    world["b.example"]["cluster/resources"] = [vm(117, "other", "b1")]
    world["b.example"]["nodes/b1/qemu/117/config"] = config(smbios1=f"uuid={OTHER_UUID}")


STORAGE = {"storage": "fast", "content": "images", "enabled": 1, "active": 1, "avail": 1 << 40}


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("VM_NOT_FOUND", put("a.example", "cluster/resources", [])),
        ("VM_NAME_AMBIGUOUS", put("a.example", "cluster/resources", [vm(1, "web01"), vm(2, "web01")])),
        ("HA_RESOURCE", put("a.example", "cluster/resources", [vm(117, "web01", "a2", hastate="ignored")])),
        ("TEMPLATE", put("a.example", "cluster/resources", [vm(117, "web01", "a2", template=1)])),
        ("NODE_UNKNOWN", put("a.example", "cluster/resources", [vm(117, "web01", "a9")])),
        ("UUID_MISSING", put("a.example", "nodes/a2/qemu/117/config", {"name": "web01"})),
        ("VMID_TAKEN", occupy),
        ("VERSION_TOO_OLD", put("b.example", "version", {"version": "7.2-11"})),
        ("NODE_UNKNOWN", put("b.example", "nodes", [{"node": "b9", "status": "online"}])),
        ("NODE_OFFLINE", put("b.example", "nodes", [{"node": "b1", "status": "offline"}])),
        ("STORAGE_UNKNOWN", put("b.example", "nodes/b1/storage", [])),
        ("STORAGE_UNKNOWN", put("b.example", "nodes/b1/storage", [{**STORAGE, "content": "iso"}])),
        ("STORAGE_UNKNOWN", put("b.example", "nodes/b1/storage", [{**STORAGE, "enabled": 0}])),
        ("STORAGE_UNKNOWN", put("b.example", "nodes/b1/storage", [{**STORAGE, "active": 0}])),
        ("BRIDGE_UNKNOWN", put("b.example", "nodes/b1/network", [{"iface": "vmbr0", "type": "eth"}])),
        ("PRIVILEGE_MISSING", take_away("/", "Sys.Incoming")),
        ("PRIVILEGE_MISSING", take_away("/vms/117", "VM.Audit")),
        ("PRIVILEGE_MISSING", take_away("/vms/117", "VM.Config.CDROM")),
        ("PRIVILEGE_MISSING", put("a.example", "nodes/a2/qemu/117/config", config(cores=2))),
        ("PRIVILEGE_MISSING", put("a.example", "nodes/a2/qemu/117/config", config(startup="order=1"))),
        (
            "PRIVILEGE_MISSING",
            put("a.example", "nodes/a2/qemu/117/config", config(ide0="local:vm-117-cloudinit,media=cdrom")),
        ),
        ("PRIVILEGE_MISSING", take_away("/storage/slow", "Datastore.AllocateSpace")),
        ("PRIVILEGE_MISSING", take_away("/sdn/zones/localnetwork/vmbr0", "SDN.Use")),
    ],
)
def test_what_is_missing_is_named(look, world, code, change):
    change(world)
    error = refusal(look)
    assert error.code == code
    assert error.message
    assert error.object


NIC = "virtio=BC:24:11:00:00:01,bridge=vmbr3"
BRIDGE = "/sdn/zones/localnetwork/vmbr0"


@pytest.mark.parametrize(
    ("nic", "place", "granted", "lacking"),
    [
        (f"{NIC},tag=100", "vmbr0", ["/100"], None),
        (f"{NIC},tag=100", "vmbr0", [""], "/100"),
        (f"{NIC},tag=100", {"bridge": "vmbr0", "tag": 7}, ["/7"], None),
        (f"{NIC},tag=100", {"bridge": "vmbr0", "tag": 7}, ["/100"], "/7"),
        (f"{NIC},trunks=5;10-11", "vmbr0", ["/5", "/10", "/11"], None),
        (f"{NIC},trunks=5;10-11", "vmbr0", ["/5", "/11"], "/10"),
        (f"{NIC},tag=4,trunks=5", "vmbr0", ["/5"], "/4"),
        (NIC, "vmbr0", ["/100"], ""),
    ],
)
def test_right_on_the_vlan_counts_where_there_is_one(look, world, nic, place, granted, lacking):
    world["a.example"]["nodes/a2/qemu/117/config"] = config(net0=nic)
    rights = world["b.example"]["permissions"]
    del rights[BRIDGE]
    rights.update({BRIDGE + path: ["SDN.Use"] for path in granted})
    if lacking is None:
        look(nics={"default": place})
    else:
        assert refusal(look, nics={"default": place}).object == BRIDGE + lacking


@pytest.mark.parametrize(
    ("status", "drive", "refused"),
    [
        ("running", "scsi0", False),
        ("stopped", "scsi0", True),
        ("running", "tpmstate0", True),
        ("running", "unused0", True),
    ],
)
def test_space_is_needed_for_what_arrives_as_a_whole(look, world, status, drive, refused):
    world["a.example"]["cluster/resources"] = [vm(117, "web01", "a2", status=status)]
    world["a.example"]["nodes/a2/qemu/117/config"] = {
        "smbios1": f"uuid={UUID}",
        drive: "local:117/vm-117-disk-0.raw,size=4M",
    }
    world["b.example"]["nodes/b1/storage"] = [{**STORAGE, "avail": 1000}]
    if refused:
        assert refusal(look).code == "STORAGE_FULL"
    else:
        look()


@pytest.mark.parametrize(
    ("code", "asked"),
    [
        ("CLUSTER_UNKNOWN", {"source": {"cluster": "gamma", "name": "web01"}}),
        ("CLUSTER_UNKNOWN", {"target": {"cluster": None}}),
        ("CLUSTERS_INVALID", {"source": {"cluster": "alpha"}}),
        ("NODE_UNKNOWN", {"target": {"cluster": "beta", "node": "b7"}}),
        ("UUID_DIFFERS", {"source": {"cluster": "alpha", "vmid": 117, "uuid": OTHER_UUID}}),
        ("VM_NOT_FOUND", {"source": {"cluster": "alpha", "vmid": 117, "name": "db01"}}),
        ("STORAGE_UNMAPPED", {"disks": {"scsi0": "fast"}}),
        ("BRIDGE_UNMAPPED", {"nics": {}}),
        ("STORAGE_UNKNOWN", {"disks": {"default": "iso"}}),
        ("BRIDGE_UNKNOWN", {"nics": {"default": "eth0"}}),
    ],
)
def test_what_is_asked_wrongly_is_named(look, world, code, asked):
    for privilege in ("/storage/iso", "/storage/fast"):
        world["b.example"]["permissions"][privilege] = ["Datastore.AllocateSpace"]
    assert refusal(look, **asked).code == code


def test_pool_without_free_number_is_refused(look, world):
    world["b.example"]["cluster/resources"] = [vm(20000, "x", "b1"), vm(20001, "y", "b1")]
    assert refusal(look, target={"cluster": "beta", "vmid": "pool"}).code == "POOL_EXHAUSTED"


def test_ha_resource_that_moved_already_is_not_refused(look, world):
    world["a.example"]["cluster/resources"] = [vm(117, "web01", "a2", hastate="stopped", status="stopped")]
    assert look()["source"]["status"] == "stopped"


@pytest.mark.parametrize(
    "broken",
    [
        None,
        SECRET,
        {"alpha": SECRET},
        {"alpha": {"api_tokn_secret": SECRET, "nodes": {"a1": {}}}},
        {"alpha": {"api_host": ["x"], "nodes": {"a1": {}}}},
        {"alpha": {"api_port": 0, "nodes": {"a1": {}}}},
        {"alpha": {"vmid_pool": "9-1", "nodes": {"a1": {}}}},
        {"alpha": {"validate_certs": "maybe", "nodes": {"a1": {}}}},
        {"alpha": {"nodes": {}}},
        {"alpha": {"nodes": {"a1": {"api_hst": "x"}}}},
    ],
)
def test_declaration_of_clusters_is_checked_without_quoting_it(broken):
    with pytest.raises(CrossclusterError) as caught:
        place(broken, {"cluster": "alpha", "vmid": 117}, None, {}, {}, opener=None)
    assert caught.value.code == "CLUSTERS_INVALID"
    assert caught.value.side is Side.CONTROLLER
    assert SECRET not in str(caught.value)


def test_fingerprint_of_the_cluster_is_not_taken_for_another_address(look, world):
    declared = clusters()
    declared["beta"]["nodes"] = {"b1": {"api_host": "b1.example"}, "b2": {"api_host": "b2.example"}}
    world["b1.example"] = world["b.example"]
    placed = look(target={"cluster": "beta", "node": "b1"}, declared=declared)
    assert placed["options"]["target"]["api_host"] == "b1.example"
    assert "fingerprint" not in placed["options"]["target"]


RUNS = {"status": "running", "qmpstatus": "running", "running-qemu": "9.2.0"}


@pytest.fixture
def gone(world):
    """The kept source copy was removed; the VM runs on the other cluster under another number."""
    world["a.example"]["cluster/resources"] = [vm(118, "db01")]
    world["b.example"]["cluster/resources"] = [vm(20000, "web01", "b1"), vm(300, "db01", "b1")]
    world["b.example"]["nodes/b1/qemu/20000/config"] = config()
    world["b.example"]["nodes/b1/qemu/20000/status/current"] = dict(RUNS)
    return world


@pytest.mark.parametrize("source", [{"name": "web01"}, {"name": "web01", "uuid": UUID}, {"vmid": 117, "name": "web01"}])
def test_vm_that_is_only_on_the_target_has_arrived(look, gone, source):
    placed = look(source={"cluster": "alpha", **source})
    assert placed["arrived"] is True
    assert placed["target"]["vmid"] == 20000
    assert placed["target"]["inventory_host"] == "beta-b1"
    assert placed["source"]["inventory_host"] is None


def test_vm_that_is_on_the_source_has_not_arrived(look):
    assert look()["arrived"] is False


def test_vm_that_is_only_on_the_target_is_found_by_its_number_and_uuid(look, gone):
    source = {"cluster": "alpha", "vmid": 117, "uuid": UUID}
    assert look(source=source, target={"cluster": "beta", "vmid": 20000})["arrived"] is True


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ({"vmid": 20000}, RUNS),
        ({"name": "web01", "uuid": OTHER_UUID}, RUNS),
        ({"name": "web01"}, {"status": "stopped"}),
        ({"name": "web01"}, {**RUNS, "qmpstatus": "inmigrate"}),
        ({"name": "web01"}, {"status": "running"}),
    ],
    ids=["a number is no identity", "another uuid", "stopped", "waits", "monitor does not answer"],
)
def test_vm_that_does_not_run_on_the_target_either_is_not_found(look, gone, source, status):
    gone["b.example"]["nodes/b1/qemu/20000/status/current"] = status
    assert refusal(look, source={"cluster": "alpha", **source}).code == "VM_NOT_FOUND"


def test_several_vms_of_that_name_on_the_target_are_not_guessed_at(look, gone):
    gone["b.example"]["cluster/resources"].append(vm(20001, "web01", "b1"))
    assert refusal(look).code == "VM_NAME_AMBIGUOUS"
