# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The transport ``qemu-tls`` in the order of a migration: QEMU's own TLS inside the streams of the two workers.

RAM and disks are encrypted by QEMU alone. Their streams are in the clear between the workers, authenticated with a key
that the target makes and tells over ``control``, which has TLS; there nothing is opened before QEMU takes TLS only.
The target is armed and read back first, over ``control``: a TLS source would end a target that is not (qemu-facts 4).
That the source's QEMU holds something of ours is in the journal before it does. Every function does nothing for
another transport.
"""

from __future__ import annotations

import logging
from typing import Dict, Optional

from ..errors import CrossclusterError, Side
from ..qemu import tls, tls_words
from ..qemu.errors import CapabilityMissing, QemuTlsFailed, QmpRefused
from ..transport.interface import EndReason
from .context import Context
from .errors import MigrationError, TargetUnexpected
from .incoming_settings import is_key
from .plan import Plan

__all__ = ["arm", "arm_ram", "block_options", "disarm", "disarm_target", "explain", "opaque_key", "rehearse"]

_NAME = "qemu-tls"
_QMP_TIMEOUT = 5.0  # seconds for the few commands of one session
_ARM_TIMEOUT = 10.0  # seconds for the same on the target, which gives its own session as many
_LAST_WORD = 1.0  # seconds for a stream that QEMU has seen end to say why
_WAITING = ("none", "setup")  # of a target that nobody was let in to; QEMU 10 says `setup` after a refusal
_LOG = logging.getLogger(__name__)


def rehearse(context: Context, plan: Plan) -> None:
    """Step 0: the source's QEMU can do it and reads the certificates; nothing of it stays.

    Raises:
        CapabilityMissing, QemuTlsFailed, MigrationError: why it cannot.
    """
    if not _is_used(context) or plan.run_state == "stopped":
        return
    if plan.mirrored and plan.qemu is not None and plan.qemu < tls.NBD_HOSTNAME:
        raise CapabilityMissing(
            f"QEMU {plan.qemu} cannot name the peer of an encrypted disk",
            side=Side.SOURCE,
            object="QEMU",
            remedy="Stop and start the VM so that it runs under the installed QEMU, or use the transport tls",
        )
    _give_credentials(context)
    disarm(context)


def opaque_key(context: Context) -> str:
    """The key of the streams that QEMU encrypts itself, from the target over ``control``; empty for another transport.

    Raises:
        TargetUnexpected: the answer holds none.
    """
    if not _is_used(context):
        return ""
    key = context.require_incoming().call("opaque_key").get("key")
    if not is_key(key):
        raise TargetUnexpected(
            "the incoming worker told no key for the streams that QEMU encrypts", side=Side.TARGET, object="control"
        )
    return str(key)


def arm(context: Context) -> None:
    """The target takes nothing but TLS of exactly our source from now on; then the source gets its certificate.

    Raises:
        Recorded, QemuTlsFailed: one of the QEMUs refused; nothing has flowed.
    """
    if not _is_used(context):
        return
    exports = [f"drive-{volume.key}" for volume in context.plan.mirrored]
    context.require_incoming().call("tls_arm", _ARM_TIMEOUT, exports=exports)
    _give_credentials(context)


def _give_credentials(context: Context) -> None:
    if not context.facts.qemu_tls:
        context.note("qemu_tls")
    with context.world.qmp.session(context.world.clock.monotonic() + _QMP_TIMEOUT) as qmp:
        foreign = tls.foreign_credentials(qmp)
        if foreign:
            raise MigrationError(
                "the source's QEMU has TLS credentials of somebody else for migrations",
                side=Side.SOURCE,
                object=f"VM {context.facts.vmid}",
                remedy="Find out who set the migration parameter tls-creds of this VM, or use the transport tls",
                facts={"tls-creds": foreign},
            )
        tls.disarm(qmp)  # those of an earlier attempt
        tls.add_credentials(qmp, Side.SOURCE, context.spec.incoming.credentials)


def block_options(context: Context) -> Dict[str, str]:
    """What the node of a mirror is told in addition."""
    return tls.block_options(context.spec.incoming.peer_name) if _is_used(context) else {}


def arm_ram(context: Context) -> None:
    """The RAM goes by TLS.

    Raises:
        QemuTlsNotSet: it would not; nothing has flowed.
    """
    if not _is_used(context):
        return
    with context.world.qmp.session(context.world.clock.monotonic() + _QMP_TIMEOUT) as qmp:
        tls.arm_parameters(qmp, Side.SOURCE, tls.source_parameters(context.spec.incoming.peer_name))


def disarm(context: Context) -> None:
    """The source's QEMU has nothing of ours any more; what it refuses to give up is told."""
    if not context.facts.qemu_tls or not context.world.source.qemu_alive():
        return
    try:
        with context.world.qmp.session(context.world.clock.monotonic() + _QMP_TIMEOUT) as qmp:
            tls.disarm(qmp)
    except QmpRefused as error:
        context.warn(error)


def disarm_target(context: Context) -> None:
    """The same for the target, where the guest runs by now; the incoming worker tries once more when it ends."""
    if not _is_used(context) or context.incoming is None:
        return
    try:
        context.incoming.call("tls_disarm", _ARM_TIMEOUT)
    except CrossclusterError as error:
        _LOG.warning("tls_disarm over control: %s", error)


def explain(context: Context, stream: str, words: str) -> Optional[QemuTlsFailed]:
    """What QEMU's words about a stream mean; None when TLS is not the reason.

    The source's QEMU knows only what it refuses itself. If the stream was ended from the other side and the target
    still waits for somebody, its QEMU has refused us.
    """
    if not _is_used(context):
        return None
    point = context.spec.incoming
    refused = tls_words.handshake_refused(words, point.peer_name)
    if refused is not None:
        return refused
    end = _end_of(context, stream)
    if end is EndReason.ANSWER_MISSING:
        return tls_words.handshake_silent(words, point.peer_name)
    if end is EndReason.CLEAR_TEXT:
        return tls_words.clear_text(words)
    # A stream that one of the workers cut has another reason than the certificate.
    cut = end not in (EndReason.SERVER_CLOSED, EndReason.LOCAL_EOF, EndReason.LOCAL_FAILED, EndReason.PEER_ABORTED)
    return None if cut or not _target_waits(context) else tls_words.handshake_ended(words, point.own_name)


def _end_of(context: Context, stream: str) -> Optional[EndReason]:
    """How the stream has ended; its last word comes a moment after QEMU has seen the end."""
    pump, clock = context.pumps.get(stream), context.world.clock
    until = clock.monotonic() + _LAST_WORD
    while pump is not None:
        pump.poll_events()
        if pump.ended is not None:
            return pump.ended.reason
        if clock.monotonic() > until:
            break
        clock.sleep(0.02)
    return None


def _target_waits(context: Context) -> bool:
    """Whether the target's QEMU is there and has let nobody in; False when that cannot be found out."""
    try:
        state = context.require_incoming().call("state")
    except CrossclusterError as error:
        _LOG.warning("state over control: %s", error)
        return False
    migrate = state.get("migrate")
    status = migrate.get("status") if isinstance(migrate, dict) else None
    return state.get("run_state") == "inmigrate" and status in _WAITING


def _is_used(context: Context) -> bool:
    return context.facts.transport == _NAME
