# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""QEMU's own TLS: what both QEMUs are told about their x509 credentials, and how that is read back.

QEMU looks at the credentials when a connection is made, not when it begins to listen (qemu-facts 4), so a target that
Proxmox has started in the clear can be armed before the first byte. The order is vital: a TLS source ends a target
that is not armed (qemu-facts 4). Arguments, sequences over a given monitor, checked answers; what QEMU's words mean
stands in ``tls_words``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Collection, Dict, List, Mapping, Protocol

from ..errors import Side
from .errors import QemuTlsNotSet, QmpRefused
from .fields import mapping, sequence, text
from .status import Version
from .tls_words import credentials_refused

__all__ = [
    "AUTHORIZATION",
    "CREDENTIALS",
    "NBD_HOSTNAME",
    "Export",
    "Qmp",
    "add_credentials",
    "arm_nbd",
    "arm_parameters",
    "block_options",
    "check_exports",
    "disarm",
    "foreign_credentials",
    "source_parameters",
    "target_parameters",
]

CREDENTIALS, AUTHORIZATION = "crosscluster-tls", "crosscluster-authz"
NBD_HOSTNAME = Version(7, 0, 0)  # an NBD node takes tls-hostname since then (qemu-facts 6)
_OBJECTS = {"path": "/objects"}  # where object-add puts them
_NO_PARAMETERS = {"tls-creds": "", "tls-hostname": "", "tls-authz": ""}


class Qmp(Protocol):
    """A connected monitor (``monitor.Session``)."""

    def execute(self, command: str, arguments: Any = None) -> Any:
        """The value of one command."""


def add_credentials(qmp: Qmp, side: Side, directory: str, peer_name: str = "") -> None:
    """Have QEMU read the certificates of this node; on the target, let nobody but ``peer_name`` in.

    Without the second object every certificate of the CA would be let in (qemu-facts 7).

    Raises:
        QemuTlsFailed: names the file, what is wrong with it and what to do.
    """
    credentials = {
        "qom-type": "tls-creds-x509",
        "id": CREDENTIALS,
        "endpoint": "client" if side is Side.SOURCE else "server",
        "dir": directory,
        "verify-peer": True,
    }
    try:
        qmp.execute("object-add", credentials)
    except QmpRefused as error:
        raise credentials_refused(error.description, side, directory) from None
    if side is Side.TARGET:
        # The subject is CN alone (direct-transports 6.1): with more, the order of its parts would count.
        authorization = {"qom-type": "authz-simple", "id": AUTHORIZATION, "identity": f"CN={peer_name}"}
        qmp.execute("object-add", authorization)


def target_parameters() -> Dict[str, str]:
    """What an armed target has as migration parameters."""
    return {"tls-creds": CREDENTIALS, "tls-authz": AUTHORIZATION, "tls-hostname": ""}


def source_parameters(peer_name: str) -> Dict[str, str]:
    """The same for the source; the address is a UNIX socket, so the name to be checked is told (qemu-facts 4)."""
    return {"tls-creds": CREDENTIALS, "tls-authz": "", "tls-hostname": peer_name}


def arm_parameters(qmp: Qmp, side: Side, wanted: Mapping[str, str]) -> None:
    """Set the migration parameters and read them back.

    Raises:
        QemuTlsNotSet: QEMU has others.
    """
    qmp.execute("migrate-set-parameters", dict(wanted))
    found = _parameters(qmp)
    if found != wanted:
        raise _not_set(side, "migration parameters", dict(wanted), found)


def foreign_credentials(qmp: Qmp) -> str:
    """The TLS credentials of its owner in a QEMU; empty without any."""
    found = _parameters(qmp)["tls-creds"]
    return "" if found == CREDENTIALS else found


def block_options(peer_name: str) -> Dict[str, str]:
    """What an NBD client node is told in addition."""
    return {"tls-creds": CREDENTIALS, "tls-hostname": peer_name}


@dataclass(frozen=True, order=True)
class Export:
    """One disk that the target's NBD server offers; Proxmox gives id and name the same word (qemu-facts 6)."""

    id: str
    node: str

    @classmethod
    def parse_all(cls, raw: Any) -> List[Export]:
        """The answer of ``query-block-exports``, those on NBD, in order.

        Raises:
            QmpInvalid: names the field.
        """
        entries = [mapping("export", entry) for entry in sequence("query-block-exports", raw)]
        return sorted(cls(text(e, "id"), text(e, "node-name")) for e in entries if text(e, "type") == "nbd")

    def add(self) -> Dict[str, Any]:
        """Arguments of ``block-export-add``."""
        return {"type": "nbd", "id": self.id, "node-name": self.node, "name": self.id, "writable": True}


def check_exports(found: Collection[Export], names: Collection[str]) -> None:
    """Exactly the disks of this migration are offered.

    Raises:
        QemuTlsNotSet: others are.
    """
    offered = sorted(export.id for export in found)
    if offered != sorted(names):
        raise _not_set(Side.TARGET, "NBD exports", sorted(names), offered)


def arm_nbd(qmp: Qmp, path: str, names: Collection[str]) -> None:
    """Open the NBD server anew with TLS, on the same socket and with the same exports; none of them may be missing.

    A running server cannot be switched, and stopping it drops its exports (qemu-facts 6).

    Raises:
        QemuTlsNotSet: the exports are not those of this migration, or not all of them are there again.
    """
    exports = Export.parse_all(qmp.execute("query-block-exports"))
    check_exports(exports, names)
    qmp.execute("nbd-server-stop")
    address = {"type": "unix", "data": {"path": path}}
    qmp.execute("nbd-server-start", {"addr": address, "tls-creds": CREDENTIALS, "tls-authz": AUTHORIZATION})
    for export in exports:
        qmp.execute("block-export-add", export.add())
    again = Export.parse_all(qmp.execute("query-block-exports"))
    if again != exports:
        raise _not_set(Side.TARGET, "NBD exports", [e.id for e in exports], [e.id for e in again])


def disarm(qmp: Qmp) -> None:
    """Nothing of ours is left in a QEMU; harmless when nothing is there.

    Parameters first: with the name of an object that is gone every later migration of that QEMU would fail
    (qemu-facts 4). Credentials of somebody else stay.
    """
    if _parameters(qmp)["tls-creds"] == CREDENTIALS:
        qmp.execute("migrate-set-parameters", dict(_NO_PARAMETERS))
    objects = sequence("qom-list", qmp.execute("qom-list", _OBJECTS))
    names = [text(mapping("object", entry), "name") for entry in objects]
    for name in (CREDENTIALS, AUTHORIZATION):
        if name in names:
            qmp.execute("object-del", {"id": name})


def _parameters(qmp: Qmp) -> Dict[str, str]:
    """The three about TLS; one that was never set is empty or absent."""
    answer = mapping("query-migrate-parameters", qmp.execute("query-migrate-parameters"))
    return {name: text(answer, name, "") if answer.get(name) is not None else "" for name in _NO_PARAMETERS}


def _not_set(side: Side, what: str, wanted: Any, found: Any) -> QemuTlsNotSet:
    return QemuTlsNotSet(
        f"QEMU of the {side.value} has other {what} than it was told",
        side=side,
        object=what,
        remedy="Nothing was sent; find out who else gives orders to that QEMU, and run the play again",
        facts={"wanted": wanted, "found": found},
    )
