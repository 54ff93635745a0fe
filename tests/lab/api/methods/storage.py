# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""/storage: what storage.cfg says, for all nodes."""

from __future__ import annotations

from typing import Any, Dict, List

from lab.node.cluster import digest_of
from lab.node.storage import Storage, Storages

from ..registry import Call, Need, method
from ..schema import string

FILE = "/etc/pve/storage.cfg"
FLAGS = ("disable", "shared", "sparse", "mkdir")


@method("GET", "/storage", {"type": string(optional=True)})
def listing(call: Call) -> List[Dict[str, Any]]:
    """Storages one may use or audit."""
    wanted = call.params.get("type")
    return [
        _shown(call, storage)
        for sid, storage in sorted(Storages(call.node).all().items())
        if wanted in (None, storage.kind)
        and call.may("/storage/" + sid, ["Datastore.Audit", "Datastore.AllocateSpace"], True)
    ]


@method("GET", "/storage/{storage}", {}, Need("/storage/{storage}", ("Datastore.Allocate",)))
def one(call: Call) -> Dict[str, Any]:
    """The section of one storage."""
    return _shown(call, Storages(call.node).get(call.params["storage"]))


def _shown(call: Call, storage: Storage) -> Dict[str, Any]:
    path = call.node.path(FILE)
    digest = digest_of(path.read_text("utf-8") if path.exists() else "")
    keys = {key: int(value != "0") if key in FLAGS else value for key, value in storage.keys.items()}
    return {**keys, "storage": storage.sid, "content": ",".join(storage.content), "digest": digest}
