# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories of the API: what lies below a path, as far as the lab has it."""

from __future__ import annotations

from typing import Callable, Dict, List, Tuple

from .. import registry
from ..registry import Call, Need, method

SPACE = Need("/storage/{storage}", ("Datastore.Audit", "Datastore.AllocateSpace"), True)
VM = "/nodes/{node}/qemu/{vmid}"
# path -> what the real one calls an entry, privilege
DIRECTORIES: Dict[str, Tuple[str, Tuple[Need, ...]]] = {
    "/": ("subdir", ()),
    "/access": ("subdir", ()),
    "/cluster": ("name", ()),
    "/cluster/config": ("name", (Need("/", ("Sys.Audit",)),)),
    "/cluster/firewall": ("name", ()),
    "/cluster/ha": ("id", (Need("/", ("Sys.Audit",)),)),
    "/cluster/ha/status": ("name", ()),
    "/cluster/mapping": ("name", ()),
    "/nodes/{node}": ("name", ()),
    "/nodes/{node}/capabilities": ("name", ()),
    "/nodes/{node}/capabilities/qemu": ("name", ()),
    "/nodes/{node}/certificates": ("name", ()),
    "/nodes/{node}/firewall": ("name", ()),
    "/nodes/{node}/hardware": ("type", ()),
    "/nodes/{node}/storage/{storage}": ("subdir", (SPACE,)),
    "/nodes/{node}/tasks/{upid}": ("name", ()),
    VM: ("subdir", ()),
    VM + "/firewall": ("name", ()),
    VM + "/status": ("subdir", ()),
}


def children(path: str) -> List[str]:
    """Names of what is registered right below a path."""
    base = [part for part in path.split("/") if part]
    found = set()
    for template in registry.templates():
        parts = [part for part in template.split("/") if part]
        if parts[: len(base)] == base and len(parts) > len(base) and not parts[len(base)].startswith("{"):
            found.add(parts[len(base)])
    return sorted(found)


def _listing(path: str, word: str) -> Callable[[Call], List[Dict[str, str]]]:
    def run(call: Call) -> List[Dict[str, str]]:
        return [{word: name} for name in children(path)]

    return run


for _path, (_word, _needs) in DIRECTORIES.items():
    method("GET", _path, {}, _needs)(_listing(_path, _word))
