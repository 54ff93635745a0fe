# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a VM's name and a cluster's name to the options of the module ``migration``, with everything checked.

Knows the order of the questions. Asks the clusters through a function that opens an API, so that a test can pass in
another one. Nothing it returns is a secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, Mapping, Optional

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.errors import PrivilegeMissing
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.target_api import VmStatus

from .clusters import Cluster, Clusters, Endpoint, Node, parse_pool
from .errors import ClustersInvalid, NodeUnknown, UuidMissing, VmNotFound
from .locate import Resource, candidates, disks_of, find_source, mapped, nics_of, only, refuse_unfit, resources, uuid_of
from .preflight import Wish, check_target, target_vmid
from .proxmox_api import Api, open_api

__all__ = ["Opener", "place"]

Opener = Callable[[Endpoint, Optional[str], Side], Api]


def place(
    declared: Any,
    source: Mapping[str, Any],
    target: Optional[Mapping[str, Any]],
    disks: Mapping[str, Any],
    nics: Mapping[str, Any],
    *,
    found: Optional[Any] = None,
    config: Optional[Mapping[str, Any]] = None,
    opener: Opener = open_api,
) -> Dict[str, Any]:
    """Where the VM is and where it will be.

    Args:
        declared: The variable ``crosscluster_clusters``.
        source: ``cluster`` and ``name`` or ``vmid``, or both; ``uuid`` if it is known.
        target: ``cluster``, and as wanted ``node``, ``vmid``, ``vmid_pool``; None to look for the source only.
        disks: Storage for each disk.
        nics: Bridge for each NIC.
        found: The list of VMs of the source cluster, when its API cannot be asked.
        config: The configuration of the VM, when its API cannot be asked.
        opener: Opens an API.

    Raises:
        CrossclusterError: the code names what is wrong.
    """
    clusters = Clusters(declared)
    home = clusters.get(source.get("cluster"))
    api = opener(home.cluster_endpoint(), clusters.secret(home.name), Side.SOURCE) if home.has_token else None
    try:
        vm = _source(home, source, found, api)
    except VmNotFound as error:
        if target is None:
            raise
        return _arrived(clusters, source, target, error, opener)
    node = home.node(vm.node)
    placed: Dict[str, Any] = {
        "source": {
            "cluster": home.name,
            "node": node.name,
            "inventory_host": node.inventory_host,
            "migration_address": node.migration_address,
            "certificate_name": node.certificate_name,
            "vmid": vm.vmid,
            "name": vm.name,
            "status": vm.status,
            "uuid": None,
        },
        "options": {"source": {"vmid": vm.vmid}},
        "complete": False,
        "arrived": False,
    }
    if config is None and api is not None:
        config = api.get("nodes", vm.node, "qemu", str(vm.vmid), "config")
    if config is None:
        return placed
    uuid = uuid_of(config, vm.vmid, source.get("uuid"))
    placed["source"]["uuid"] = uuid
    placed["options"]["source"]["uuid"] = uuid
    placed["complete"] = True
    if target is not None:
        refuse_unfit(vm)
        placed.update(_target(clusters, target, vm, uuid, parts=_Parts(config, disks, nics), opener=opener))
    return placed


@dataclass(frozen=True)
class _Parts:
    """The configuration of a VM and what becomes of its parts."""

    config: Mapping[str, Any]
    disks: Mapping[str, Any]
    nics: Mapping[str, Any]


def _source(home: Cluster, source: Mapping[str, Any], found: Optional[Any], api: Optional[Api]) -> Resource:
    vmid, name = source.get("vmid"), source.get("name")
    if vmid in (None, "") and not name:
        raise ClustersInvalid("neither vmid nor name of the VM is given", side=Side.CONTROLLER, object="source")
    if found is None:
        if api is None:
            raise ClustersInvalid(
                f"cluster {home.name} has no API token, and no list of its VMs was given",
                side=Side.CONTROLLER,
                object=f"crosscluster_clusters.{home.name}",
                remedy="Declare a token, or give resources as `pvesh get /cluster/resources` prints them.",
            )
        found = api.get("cluster", "resources", type="vm")
    number = int(vmid) if vmid not in (None, "") else None
    return find_source(resources(found), home.name, number, str(name) if name else None)


def _arrived(
    clusters: Clusters, source: Mapping[str, Any], target: Mapping[str, Any], missing: VmNotFound, opener: Opener
) -> Dict[str, Any]:
    """A VM whose kept source copy was removed, as its owner may: all is well if it runs on the target.

    Known by its uuid, or by its name when nobody has told one: there is no configuration left to take it from.
    """
    away = clusters.get(target.get("cluster"))
    node = _target_node(away, target.get("node"))
    api = opener(away.node_endpoint(node), clusters.secret(away.name), Side.TARGET)
    present = resources(api.get("cluster", "resources", type="vm"))
    name, uuid = str(source.get("name") or ""), str(source.get("uuid") or "").lower()
    numbers = {int(text) for text in (source.get("vmid"), target.get("vmid")) if str(text).isdigit()} if uuid else set()
    there = [vm for vm in candidates(present, numbers, name) if not uuid or _has_uuid(api, vm, uuid)]
    if not there:
        raise missing
    vm = only(there, away.name, name or uuid, Side.TARGET)
    status = VmStatus.parse(api.get("nodes", vm.node, "qemu", str(vm.vmid), "status", "current"), 0.0)
    if not status.runs:
        missing.remedy = f"Cluster {away.name} has it as VM {vm.vmid}, but it does not run there."
        raise missing
    host = away.nodes.get(vm.node)
    return {
        "source": {
            "cluster": source.get("cluster"),
            "node": None,
            "inventory_host": None,
            "vmid": None,
            "name": vm.name,
            "status": None,
            "uuid": uuid or None,
        },
        "target": {
            "cluster": away.name,
            "node": vm.node,
            "inventory_host": host.inventory_host if host else None,
            "target_root": away.target_root,
            "vmid": vm.vmid,
            "there": True,
            "lock": vm.lock,
        },
        "options": {},
        "complete": True,
        "arrived": True,
    }


def _has_uuid(api: Api, vm: Resource, uuid: str) -> bool:
    try:
        return uuid_of(api.get("nodes", vm.node, "qemu", str(vm.vmid), "config"), vm.vmid, None) == uuid
    except (PrivilegeMissing, UuidMissing):
        return False


def _target(
    clusters: Clusters,
    target: Mapping[str, Any],
    vm: Resource,
    uuid: str,
    *,
    parts: _Parts,
    opener: Opener,
) -> Dict[str, Any]:
    """The target's part of the answer, checked."""
    away = clusters.get(target.get("cluster"))
    node = _target_node(away, target.get("node"))
    endpoint = away.node_endpoint(node)
    api = opener(endpoint, clusters.secret(away.name), Side.TARGET)
    wish = Wish(
        uuid=uuid,
        source_vmid=vm.vmid,
        node=node.name,
        vmid=str(target.get("vmid") or ("pool" if target.get("vmid_pool") else "same")),
        vmid_pool=parse_pool("target.vmid_pool", target.get("vmid_pool")) or away.vmid_pool,
        disks=tuple(disks_of(parts.config, vm.status == "running")),
        nics=tuple(nics_of(parts.config)),
        storage_of=mapped(parts.disks, "storage"),
        bridge_of=mapped(parts.nics, "bridge"),
        # A place of its own that names no VLAN leaves the NIC in the one it is in, whatever the default says.
        tag_of={key: place.get("tag") if isinstance(place, Mapping) else None for key, place in parts.nics.items()},
        config=parts.config,
    )
    present = resources(api.get("cluster", "resources", type="vm"))
    vmid, there = target_vmid(api, wish, present)
    if not there:
        check_target(api, wish, vmid)
    return {
        "target": {
            "cluster": away.name,
            "node": node.name,
            "inventory_host": node.inventory_host,
            "migration_address": node.migration_address,
            "certificate_name": node.certificate_name,
            "target_root": away.target_root,
            "vmid": vmid,
            "there": there,
            "lock": next((found.lock for found in present if found.vmid == vmid), None),
        },
        "options": {"source": {"vmid": vm.vmid, "uuid": uuid}, "target": _options(endpoint, node, wish)},
    }


def _target_node(away: Cluster, wanted: Optional[Any]) -> Node:
    if wanted:
        return away.node(str(wanted))
    if len(away.nodes) > 1:
        raise NodeUnknown(
            f"cluster {away.name} has several nodes and none is named",
            side=Side.CONTROLLER,
            object="target.node",
            remedy=f"Declared are: {', '.join(sorted(away.nodes))}.",
        )
    return next(iter(away.nodes.values()))


def _options(endpoint: Endpoint, node: Node, wish: Wish) -> Dict[str, Any]:
    """The option ``target`` of the modules."""
    options: Dict[str, Any] = {
        "api_host": endpoint.host,
        "api_port": endpoint.port,
        "node": node.name,
        "vmid": wish.vmid,
        "api_user": endpoint.user,
        "api_token_id": endpoint.token_id,
        "validate_certs": endpoint.validate_certs,
    }
    if wish.vmid == "pool" and wish.vmid_pool:
        options["vmid_pool"] = f"{wish.vmid_pool[0]}-{wish.vmid_pool[1]}"
    if endpoint.fingerprint:
        options["fingerprint"] = endpoint.fingerprint
    if endpoint.ca_path:
        options["ca_path"] = endpoint.ca_path
    return options
