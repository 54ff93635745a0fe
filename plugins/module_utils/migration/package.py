# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The worker as one zip, made from the sources that travel in a module's payload (craft 2.7). An edge file.

The module runs from a zip that is deleted when it ends, so the sources are read out of it and installed on the node
under their digest, with the byte code that every process of the worker would else make for itself, at each start.
Only what is imported statically is in a payload: the three imports below carry everything.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import marshal
import os
import zipfile
from typing import Dict, Tuple, Union

from ..errors import Side
from ..transport import pump as _pump  # noqa: F401  carried for the worker's pumps
from . import incoming_start as _incoming  # noqa: F401  carried for the node
from . import places
from . import worker as _worker  # noqa: F401  carried for the node
from .errors import MigrationError

__all__ = ["ROOT", "WORKER_FILES", "digest", "install", "sources"]

ROOT = "ansible_collections.crosscluster.migration.plugins.module_utils"

WORKER_FILES: Tuple[str, ...] = (
    "errors",
    "migration.background",
    "migration.client",
    "migration.commit",
    "migration.context",
    "migration.control_socket",
    "migration.direct",
    "migration.errors",
    "migration.finish",
    "migration.history",
    "migration.incoming",
    "migration.incoming_checks",
    "migration.incoming_children",
    "migration.incoming_lines",
    "migration.incoming_places",
    "migration.incoming_requests",
    "migration.incoming_settings",
    "migration.incoming_start",
    "migration.incoming_tls",
    "migration.journal",
    "migration.machine",
    "migration.mapping",
    "migration.meeting_point",
    "migration.mirroring",
    "migration.places",
    "migration.plan",
    "migration.precopy",
    "migration.preflight",
    "migration.prepare",
    "migration.progress",
    "migration.qemu_tcp",
    "migration.qemu_tls",
    "migration.real_world",
    "migration.recovery_errors",
    "migration.refusals",
    "migration.report",
    "migration.requests",
    "migration.rollback",
    "migration.spec",
    "migration.states",
    "migration.steps",
    "migration.switchover",
    "migration.target_node",
    "migration.target_recovery",
    "migration.witness",
    "migration.worker",
    "migration.world",
    "network.addresses",
    "network.checks",
    "network.errors",
    "network.evidence",
    "network.exchange",
    "network.fields",
    "network.filtering",
    "network.neighbours",
    "network.probe",
    "network.responder",
    "network.routes",
    "network.rules",
    "network.ruleset",
    "network.solicitation",
    "network.survey",
    "network.verdict",
    "network.xfrm",
    "proxmox.commands",
    "proxmox.control_channel",
    "proxmox.endpoint",
    "proxmox.errors",
    "proxmox.fingerprint",
    "proxmox.node_cli",
    "proxmox.node_files",
    "proxmox.property_strings",
    "proxmox.replies",
    "proxmox.session",
    "proxmox.target_api",
    "proxmox.tunnel",
    "proxmox.upgrade",
    "proxmox.vm_config",
    "qemu.errors",
    "qemu.fields",
    "qemu.migrate",
    "qemu.mirror",
    "qemu.monitor",
    "qemu.nbd",
    "qemu.qmp",
    "qemu.status",
    "qemu.tls",
    "qemu.tls_words",
    "transport.accept",
    "transport.books",
    "transport.certificate",
    "transport.direct_carrier",
    "transport.direct_end",
    "transport.direct_guard",
    "transport.direct_pump",
    "transport.errors",
    "transport.firewall",
    "transport.guard",
    "transport.handshake",
    "transport.incoming_errors",
    "transport.interface",
    "transport.listener",
    "transport.local_end",
    "transport.network_proof",
    "transport.newcomer",
    "transport.opening",
    "transport.pacing",
    "transport.plain_end",
    "transport.plain_guard",
    "transport.plain_pump",
    "transport.policy",
    "transport.pump",
    "transport.pump_channel",
    "transport.pump_handle",
    "transport.remote_end",
    "transport.tcp_options",
    "transport.tls",
    "transport.unix_end",
    "transport.websocket",
    "transport.websocket_pump",
    "transport.wire",
    "websocket.errors",
    "websocket.frames",
    "websocket.handshake",
    "websocket.tls_stream",
)

_MAIN = f"""import sys
if sys.argv[1:2] == ["pump"]:
    from {ROOT}.transport.pump import main
elif sys.argv[1:2] in (["incoming"], ["incoming-start"]):
    from {ROOT}.migration.incoming_start import main
else:
    from {ROOT}.migration.worker import main
sys.exit(main())
"""
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed date: the same sources make the same zip
_UNCHECKED = (1).to_bytes(4, "little")  # PEP 552: this byte code belongs to its source, nobody needs to look


def sources() -> Dict[str, str]:
    """Source text of every file of the worker, by dotted name below ``module_utils``.

    Raises:
        MigrationError: a file is not in the payload: a defect of the collection.
    """
    found: Dict[str, str] = {}
    for name in WORKER_FILES:
        spec = importlib.util.find_spec(f"{ROOT}.{name}")
        text = spec.loader.get_source(f"{ROOT}.{name}") if spec and spec.loader else None  # type: ignore[attr-defined]
        if text is None:
            raise MigrationError(f"the payload lacks {name}", side=Side.SOURCE, object=name)
        found[name] = text
    return found


def digest(files: Dict[str, str]) -> str:
    """SHA-256 over the Python that is to run it, and name, length and bytes of each file, in order."""
    total = hashlib.sha256(_MAIN.encode("ascii") + importlib.util.MAGIC_NUMBER)
    for name in sorted(files):
        data = files[name].encode("utf-8")
        total.update(f"{name} {len(data)}\n".encode("ascii"))
        total.update(data)
    return total.hexdigest()


def build(files: Dict[str, str]) -> bytes:
    """The zip: sorted names, a fixed date, an empty ``__init__.py`` in each parent, byte code beside each source.

    A Python that the byte code is not for takes the source, for tracebacks too.
    """
    members: Dict[str, Union[str, bytes]] = {"__main__.py": _MAIN}
    for name, text in files.items():
        parts = f"{ROOT}.{name}".split(".")
        for depth in range(1, len(parts)):
            members["/".join(parts[:depth]) + "/__init__.py"] = ""
        members["/".join(parts) + ".py"] = text
        members["/".join(parts) + ".pyc"] = _compiled("/".join(parts) + ".py", text)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(members):
            archive.writestr(zipfile.ZipInfo(path, _EPOCH), members[path])
    return buffer.getvalue()


def _compiled(path: str, text: str) -> bytes:
    """The content of a ``.pyc`` file (PEP 552)."""
    head = importlib.util.MAGIC_NUMBER + _UNCHECKED + importlib.util.source_hash(text.encode("utf-8"))
    return head + marshal.dumps(compile(text, path, "exec", dont_inherit=True))


def install(library: str = places.LIBRARY) -> Tuple[str, str]:
    """Put the worker on this node under its digest; returns digest and path.

    An existing file is verified, never overwritten: a running worker may use it.
    """
    files = sources()
    name = digest(files)
    directory = os.path.join(library, "worker", name)
    path = os.path.join(directory, "worker.pyz")
    if _is_whole(path):
        return name, path
    data = build(files)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    _write(path + ".sha256", hashlib.sha256(data).hexdigest().encode("ascii"))
    _write(path, data)
    return name, path


def _is_whole(path: str) -> bool:
    """Whether the file there is the one that was written."""
    try:
        with open(path, "rb") as worker, open(path + ".sha256", "rb") as noted:
            return hashlib.sha256(worker.read()).hexdigest().encode("ascii") == noted.read()
    except FileNotFoundError:
        return False


def _write(path: str, data: bytes) -> None:
    """A whole file, durable, or none."""
    temporary = f"{path}.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(temporary, path)
