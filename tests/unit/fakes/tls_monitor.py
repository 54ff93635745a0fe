# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A QEMU as far as its TLS settings go, behind a monitor whose session ends with its block."""

from __future__ import annotations

import contextlib
from typing import Any, Dict, List

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side
from ansible_collections.crosscluster.migration.plugins.module_utils.qemu.errors import QmpRefused, QmpUnreachable

NODES = {"drive-scsi0": "#block117", "drive-virtio1": "drive-virtio1"}


class TlsMonitor:
    """Answers as QEMU 7.2 and 10.0 do; ``fails`` names a command that is refused, with the words."""

    def __init__(self, state: str = "inmigrate", exports: Any = None) -> None:
        exports = NODES if exports is None else exports
        self.state = state
        self.alive = True
        self.objects: Dict[str, Dict[str, Any]] = {}
        self.parameters: Dict[str, Any] = {"tls-creds": "", "tls-hostname": "", "tls-authz": "", "max-bandwidth": 5}
        self.exports = [{"id": i, "node-name": n, "type": "nbd", "shutting-down": False} for i, n in exports.items()]
        self.server: Dict[str, Any] = {}
        self.fails: Dict[str, str] = {}
        self.deaf = False  # takes parameters and forgets them
        self.commands: List[str] = []

    @contextlib.contextmanager
    def within(self, _seconds: float) -> Any:
        if not self.alive:
            raise QmpUnreachable("gone", side=Side.SOURCE, object="qmp")
        yield self

    def execute(self, command: str, arguments: Any = None) -> Any:
        self.commands.append(command)
        if command in self.fails:
            raise QmpRefused(command, "GenericError", self.fails[command], object="qmp")
        answer = getattr(self, command.replace("-", "_"))(arguments or {})
        return {} if answer is None else answer

    def query_status(self, _a: Any) -> Any:
        return {"status": self.state, "running": self.state == "running"}

    def object_add(self, a: Any) -> None:
        self.objects[a["id"]] = a

    def object_del(self, a: Any) -> None:
        del self.objects[a["id"]]

    def qom_list(self, a: Any) -> Any:
        assert a == {"path": "/objects"}
        return [{"name": name, "type": "child<x>"} for name in ["pc.ram", *self.objects]]

    def migrate_set_parameters(self, a: Any) -> None:
        if not self.deaf:
            self.parameters.update(a)

    def query_migrate_parameters(self, _a: Any) -> Any:
        return dict(self.parameters)

    def query_block_exports(self, _a: Any) -> Any:
        return list(self.exports)

    def nbd_server_stop(self, _a: Any) -> None:
        self.server, self.exports = {}, []

    def nbd_server_start(self, a: Any) -> None:
        self.server = a

    def block_export_add(self, a: Any) -> None:
        assert (a["name"], a["writable"]) == (a["id"], True)
        self.exports.append({key: a[key] for key in ("id", "node-name", "type")})
