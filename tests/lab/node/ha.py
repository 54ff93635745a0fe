# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""HA resources: the file, and what it changes for `qm` (pve-cli 7). No manager runs; requests only change the file."""

from __future__ import annotations

from typing import Dict, List, Optional

from .base import Die, Node, complain
from .cluster import Cluster, digest_of
from .flock import config_lock

__all__ = ["RECOVERED_LOCKS", "Resources", "recover"]

FILE = "/etc/pve/ha/resources.cfg"
RECOVERED_LOCKS = (
    "backup",
    "mounted",
    "migrate",
    "clone",
    "rollback",
    "snapshot",
    "snapshot-delete",
    "suspending",
    "suspended",
)
"""Locks that recovery after fencing removes before it starts the VM."""


class Resources:
    """The HA resource configuration of the cluster."""

    def __init__(self, node: Node) -> None:
        self.cluster = Cluster(node)

    def sections(self) -> Dict[str, Dict[str, str]]:
        """All resources by sid ("vm:100")."""
        found = {}
        for name, keys in self.cluster.sections(FILE).items():
            found[f"{keys['type']}:{name}"] = keys
        return found

    def listing(self) -> List[Dict[str, str]]:
        """As GET /cluster/ha/resources."""
        return [{"sid": sid, **self._shown(keys)} for sid, keys in sorted(self.sections().items())]

    def get(self, sid: str) -> Dict[str, str]:
        """One resource, or Die."""
        keys = self.sections().get(sid)
        if keys is None:
            raise Die(f"no such resource '{sid}'", 2)
        return {"sid": sid, **self._shown(keys)}

    def _shown(self, keys: Dict[str, str]) -> Dict[str, str]:
        try:
            text = self.cluster.node.path(FILE).read_text("utf-8")
        except FileNotFoundError:
            text = ""
        return {"state": "started", **keys, "digest": digest_of(text)}

    def state(self, vmid: int) -> Optional[str]:
        """Requested state of a VM in any state; None when it is no resource."""
        keys = self.sections().get(f"vm:{vmid}")
        return None if keys is None else keys.get("state", "started")

    def managed(self, vmid: int) -> bool:
        """Whether HA acts on the VM (a resource in state ignored is not managed)."""
        return self.state(vmid) not in (None, "ignored")

    def set(self, sid: str, state: str) -> None:
        """Add a resource or change its requested state."""
        kind, _, name = sid.partition(":")
        sections = self.cluster.sections(FILE)
        sections.setdefault(name, {"type": kind})["state"] = state
        self.cluster.write_sections(FILE, sections)

    def remove(self, sid: str) -> None:
        """Take a resource out of HA."""
        sections = self.cluster.sections(FILE)
        if sections.pop(sid.partition(":")[2], None) is None:
            raise Die(f"cannot delete service '{sid}', not HA managed!")
        self.cluster.write_sections(FILE, sections)


def recover(node: Node, vmid: int) -> bool:
    """What recovery after fencing does to a VM that came to this node: remove a leftover lock, start it (pve-cli 7).

    False when a lock stays in the way; the service then ends in state error.
    """
    from . import vm
    from .vmconfig import load, store

    with config_lock(node, vmid):
        config = load(node, vmid)
        word = config.lock
        if word is not None and word not in RECOVERED_LOCKS:
            complain(f"service 'vm:{vmid}' locked ({word}), unable to start!")
            return False
        if word is not None:
            del config.values["lock"]
            store(node, vmid, config)
            complain(f"removed leftover lock '{word}' from recovered service 'vm:{vmid}' to allow its start.")
    vm.start(node, vmid)
    return True
