# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""QEMU's own TLS on the target: arm a QEMU that waits, before anything flows, and take it all away again.

Proxmox has started that QEMU in the clear. From :func:`arm` on nobody but the one source gets in: verify-peer, and the
exact name of its certificate. One short QMP session each (20 to 40 ms, direct-transports 10.3).
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any, ContextManager, Dict, Optional, Protocol, Sequence

from ..errors import Side
from ..qemu import tls
from ..qemu.errors import QemuError, QmpUnreachable
from ..qemu.status import RunState, RunStatus
from ..transport.incoming_errors import AttachRefused, IncomingFailed

__all__ = ["Monitor", "arm", "disarm"]

_TIMEOUT = 10.0  # seconds for one session, whose commands take milliseconds each; no guest runs in that QEMU yet
_LOG = logging.getLogger(__name__)


class Monitor(Protocol):
    """The monitor of the target's QEMU."""

    def within(self, seconds: float) -> ContextManager[Any]:
        """A connected session."""


def arm(
    monitor: Monitor, *, directory: str, peer_name: str, nbd: Optional[str], exports: Sequence[str]
) -> Dict[str, Any]:
    """RAM and disks are taken by TLS only, and only from ``peer_name``; what was set has been read back.

    Args:
        monitor: Of a QEMU that waits for a migration.
        directory: The certificates of this node.
        peer_name: The name in the source's certificate.
        nbd: Socket of the NBD server; None without disks.
        exports: The disks that it offers.

    Raises:
        CrossclusterError: it is not armed; of what was done nothing is left but an NBD server without exports.
    """
    try:
        with monitor.within(_TIMEOUT) as qmp:
            _check_waiting(qmp)
            try:
                tls.disarm(qmp)  # a request that is repeated begins anew
                tls.add_credentials(qmp, Side.TARGET, directory, peer_name)
                tls.arm_parameters(qmp, Side.TARGET, tls.target_parameters())
                if nbd is not None:
                    tls.arm_nbd(qmp, nbd, exports)
            except QemuError:
                with contextlib.suppress(QemuError):
                    tls.disarm(qmp)
                raise
    except QemuError as error:
        raise _on_target(error) from error
    return {"exports": list(exports)}


def disarm(monitor: Monitor) -> Dict[str, Any]:
    """That QEMU has nothing of ours any more; one that has ended has nothing either.

    Raises:
        CrossclusterError: it does not answer or refuses.
    """
    try:
        with monitor.within(_TIMEOUT) as qmp:
            tls.disarm(qmp)
    except QmpUnreachable:
        _LOG.info("that QEMU has ended")
    except QemuError as error:
        raise _on_target(error) from error
    return {}


def _check_waiting(qmp: Any) -> None:
    """Only a QEMU that holds no guest yet is touched."""
    status = RunStatus.parse(qmp.execute("query-status"))
    if status.state is not RunState.INMIGRATE:
        raise AttachRefused(
            f"the target's QEMU does not wait for a migration, it is {status.text}",
            object="QEMU",
            remedy="Nothing of it was touched; run the play again",
        )


def _on_target(error: QemuError) -> Exception:
    """A monitor does not know on which side it is; errors about TLS do."""
    if error.side is Side.TARGET:
        return error
    return IncomingFailed(
        f"QEMU of the target: {error.message}", object="QEMU", remedy=error.remedy, facts=dict(error.facts)
    )
