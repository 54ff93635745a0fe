# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""What the preflight found out about one VM and where everything of it goes; values only."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ..proxmox.vm_config import Nic, VmConfig
from ..qemu.status import Version
from . import mapping
from .mapping import Mode, Volume

__all__ = ["Plan", "fingerprint"]


def fingerprint(config: VmConfig) -> str:
    """Digest over everything a config says except the lock, which is ours to change."""
    values = {key: value for key, value in config.values.items() if key != "lock"}
    content = [values, config.description, config.pending, list(config.snapshots)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True)
class Plan:
    """One VM, ready to be moved.

    Attributes:
        config: The source's config as read.
        run_state: ``running``, ``paused`` or ``stopped``.
        machine: Versioned machine of the running QEMU; empty for a stopped VM.
        cpu: CPU string to force at the target; None takes the config's.
        qemu: Version of the running QEMU; None for a stopped VM.
        memory: Bytes of RAM.
        volumes: Every volume that moves.
        nics: NICs on their bridges at the target.
        nets_host_mtu: ``net0=1500`` of the virtio NICs; None without any.
        source_node: Name of the source node.
    """

    config: VmConfig
    run_state: str
    machine: str
    cpu: Optional[str]
    qemu: Optional[Version]
    memory: int
    volumes: Tuple[Volume, ...]
    nics: Mapping[str, Nic]
    nets_host_mtu: Optional[str]
    source_node: str

    @property
    def name(self) -> str:
        """Name of the VM, empty without one."""
        return self.config.values.get("name", "")

    @property
    def mirrored(self) -> List[Volume]:
        """Volumes that QEMU mirrors while the guest runs."""
        return [volume for volume in self.volumes if volume.mode is Mode.MIRROR]

    @property
    def imported(self) -> List[Volume]:
        """Volumes that travel as an export stream, before the config."""
        return [volume for volume in self.volumes if volume.mode is Mode.IMPORT]

    @property
    def storages(self) -> List[str]:
        """Storages of the target that are used."""
        return mapping.mapped_storages(list(self.volumes))

    @property
    def bridges(self) -> List[str]:
        """Bridges of the target that are used."""
        return mapping.mapped_bridges(self.nics)

    def target_config(self, drives: Mapping[str, str]) -> str:
        """Config text for the target, with the drive strings it gave us."""
        return mapping.target_config(self.config, drives, self.nics)

    def preview_config(self) -> str:
        """The same before anything is allocated: volume names are the target's choice."""
        drives = {v.key: f"{v.storage}:(new),format={v.format}" for v in self.volumes}
        return self.target_config(drives)

    def differs(self, text: bytes) -> bool:
        """Whether a config read now says something else than the one of this plan."""
        now = VmConfig.read(text)
        return fingerprint(now) != fingerprint(self.config)

    def running_facts(self) -> Dict[str, Any]:
        """For the journal: what a restarted worker must know about the source."""
        return {
            "run_state": self.run_state,
            "machine": self.machine,
            "qemu": str(self.qemu) if self.qemu else None,
            "config": fingerprint(self.config),
            "nets_host_mtu": self.nets_host_mtu,
        }
