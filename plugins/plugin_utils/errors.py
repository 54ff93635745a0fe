# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of the look-up and preflight on the controller, one class per code.

What the controller and the worker meet alike has the same code: the class of the room ``proxmox`` for a refused token
or another certificate, the code of the worker's refusal for what both look at before the first write.

::

    PlacementError
    ├── ClustersInvalid    CLUSTERS_INVALID    crosscluster_clusters is not what it should be
    ├── ClusterUnknown     CLUSTER_UNKNOWN     a cluster of that name is not declared
    ├── NodeUnknown        NODE_UNKNOWN        the cluster has no such node, or it is not declared
    ├── NodeOffline        NODE_OFFLINE        the node does not take part in its cluster
    ├── VmNotFound         VM_NOT_FOUND        no VM of that number or name in the source cluster
    ├── SeveralVms         VM_NAME_AMBIGUOUS   several VMs of that name
    ├── VmManagedByHa      HA_RESOURCE         an HA resource in any state
    ├── VmIsTemplate       TEMPLATE            templates do not run
    ├── UuidMissing        UUID_MISSING        a VM without uuid cannot be recognised again
    ├── UuidDiffers        UUID_DIFFERS        the VM is another one than the one asked for
    ├── VmidOccupied       VMID_TAKEN          the number belongs to another VM
    ├── PoolExhausted      POOL_EXHAUSTED      no number of the pool is free
    ├── DiskUnmapped       STORAGE_UNMAPPED    a disk has no storage on the target
    ├── NicUnmapped        BRIDGE_UNMAPPED     a NIC has no bridge on the target
    ├── StorageUnusable    STORAGE_UNKNOWN     missing, disabled, or not for disks
    ├── SpaceShort         STORAGE_FULL        less space than the disks are large
    ├── BridgeUnknown      BRIDGE_UNKNOWN      the node has no such bridge
    ├── VersionTooOld      VERSION_TOO_OLD     the target cannot take VMs of other clusters
    └── CertificateRefused CERTIFICATE_REFUSED the certificate is not trusted
"""

from __future__ import annotations

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import CrossclusterError

__all__ = [
    "BridgeUnknown",
    "CertificateRefused",
    "ClusterUnknown",
    "ClustersInvalid",
    "DiskUnmapped",
    "NicUnmapped",
    "NodeOffline",
    "NodeUnknown",
    "PlacementError",
    "PoolExhausted",
    "SeveralVms",
    "SpaceShort",
    "StorageUnusable",
    "UuidDiffers",
    "UuidMissing",
    "VersionTooOld",
    "VmIsTemplate",
    "VmManagedByHa",
    "VmNotFound",
    "VmidOccupied",
]


class PlacementError(CrossclusterError):
    """Base of this room."""

    code = "PLACEMENT_FAILED"


class ClustersInvalid(PlacementError):
    """``crosscluster_clusters`` is not what it should be."""

    code = "CLUSTERS_INVALID"


class ClusterUnknown(PlacementError):
    """A cluster of that name is not declared."""

    code = "CLUSTER_UNKNOWN"


class NodeUnknown(PlacementError):
    """The cluster has no such node, or it is not declared."""

    code = "NODE_UNKNOWN"


class NodeOffline(PlacementError):
    """The node does not take part in its cluster."""

    code = "NODE_OFFLINE"


class VmNotFound(PlacementError):
    """No VM of that number or name in the source cluster."""

    code = "VM_NOT_FOUND"


class SeveralVms(PlacementError):
    """Several VMs of that name."""

    code = "VM_NAME_AMBIGUOUS"


class VmManagedByHa(PlacementError):
    """The VM is an HA resource, in whatever state."""

    code = "HA_RESOURCE"


class VmIsTemplate(PlacementError):
    """Templates do not run."""

    code = "TEMPLATE"


class UuidMissing(PlacementError):
    """A VM without uuid cannot be recognised again."""

    code = "UUID_MISSING"


class UuidDiffers(PlacementError):
    """The VM is another one than the one asked for."""

    code = "UUID_DIFFERS"


class VmidOccupied(PlacementError):
    """The number belongs to another VM of the target cluster."""

    code = "VMID_TAKEN"


class PoolExhausted(PlacementError):
    """No number of the pool is free."""

    code = "POOL_EXHAUSTED"


class DiskUnmapped(PlacementError):
    """A disk of the VM has no storage on the target."""

    code = "STORAGE_UNMAPPED"


class NicUnmapped(PlacementError):
    """A NIC of the VM has no bridge on the target."""

    code = "BRIDGE_UNMAPPED"


class StorageUnusable(PlacementError):
    """The storage is missing, disabled, or does not take disks."""

    code = "STORAGE_UNKNOWN"


class SpaceShort(PlacementError):
    """The storage has less space than the disks are large."""

    code = "STORAGE_FULL"


class BridgeUnknown(PlacementError):
    """The node has no such bridge."""

    code = "BRIDGE_UNKNOWN"


class VersionTooOld(PlacementError):
    """The target cannot take VMs of other clusters."""

    code = "VERSION_TOO_OLD"


class CertificateRefused(PlacementError):
    """The certificate of the node is not trusted."""

    code = "CERTIFICATE_REFUSED"
