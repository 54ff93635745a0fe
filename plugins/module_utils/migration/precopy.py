# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The RAM, up to the moment in which the source is paused in ``pre-switchover`` (DESIGN 5.5)."""

from __future__ import annotations

from typing import Dict, Optional

from ..errors import CrossclusterError, Side
from ..proxmox import replies
from ..qemu import migrate
from ..qemu.migrate import MigrationInfo, MigrationStatus
from ..transport.interface import Kind
from . import direct, mirroring, qemu_tcp, qemu_tls
from .context import Context
from .errors import TransferFailed
from .states import Outcome

__all__ = ["MAX_ATTEMPTS", "information", "precopy"]

MAX_ATTEMPTS = 3  # of a switchover with mirrors that cannot be kept in step (DESIGN 5.5)
_POLL = 1.0  # seconds
_FIRST_POLL = 0.1  # seconds; doubled up to _POLL: mostly empty RAM ends sooner than its size says
_EVENT_WAIT = 0.1  # seconds; STOP may have come just before the monitor was held
_NEAR = 2.0  # seconds of remaining transfer from which on the monitor is held (DESIGN 2)
_HOLD = 2.5  # seconds that the monitor is held at most; Proxmox's own pollers give up after 3 s (pve-cli 5)
_GAP = 0.3  # seconds between two holds


def information(context: Context, timeout: float = 5.0) -> MigrationInfo:
    """``query-migrate`` of the source."""
    return MigrationInfo.parse(context.world.qmp.run("query-migrate", timeout=timeout))


def precopy(context: Context) -> Outcome:
    """PRECOPY: copy RAM while the guest runs; OK when the source is paused in ``pre-switchover``.

    Raises:
        TransferFailed: QEMU's reason.
        GuestOff: the guest powered itself off.
    """
    _configure(context)
    _wait_in_step(context)
    _pump, path = direct.open_stream(context, "ram", Kind.RAM, replies.ram_socket(context.target_vmid))
    context.world.qmp.run("migrate", migrate.uri(path))
    _follow(context)
    return Outcome.OK


def _configure(context: Context) -> None:
    """Capabilities and limits; return-path and pause-before-switchover on the source only (qemu-facts 3)."""
    tunnel, qmp = context.require_tunnel(), context.world.qmp
    context.ram_limit = tunnel.bwlimit([None]).bytes_per_second
    listed = qmp.run("query-migrate-capabilities")
    qmp.run("migrate-set-capabilities", migrate.source_capabilities(listed))
    qmp.run("migrate-set-parameters", parameters(context))
    qemu_tls.arm_ram(context)


def parameters(context: Context) -> Dict[str, int]:
    """Arguments of migrate-set-parameters for the limits as they are now."""
    return migrate.parameters(
        downtime_limit_ms=int(context.requests.limits.downtime * 1000),
        bandwidth=context.stream_rate(),
        ram_bytes=context.plan.memory,
    )


def _wait_in_step(context: Context) -> None:
    """QEMU < 8.2: wait until the mirrors are at most half the downtime limit behind (DESIGN 5.5)."""
    if not context.facts.mirrors or context.write_blocking:
        return
    while mirroring.behind(context) >= context.requests.limits.downtime / 2:
        context.tell_progress()
        mirroring.check_guest(context)
        mirroring.retune(context)
        context.pause(0.3)


def _follow(context: Context) -> None:
    clock = context.world.clock
    poll, last = _FIRST_POLL, (clock.monotonic(), 0)
    while True:
        info = information(context)
        now = clock.monotonic()
        if _is_paused(context, info):
            context.stopped_at = now
            return
        _tell(context, info)
        context.pumps["ram"].set_rate(context.stream_rate())  # the measure gets better with every byte
        if mirroring.retune(context):
            context.world.qmp.run("migrate-set-parameters", parameters(context))
        if context.facts.mirrors:
            mirroring.jobs(context)
        mirroring.check_guest(context)
        fall = (last[1] - info.remaining) / max(now - last[0], _FIRST_POLL)
        last = (now, info.remaining)
        if _is_near(context, info, fall):
            if _hold(context):
                return
            context.pause(_GAP)
        else:
            context.pause(poll)
            poll = min(_POLL, 2 * poll)


def _is_paused(context: Context, info: MigrationInfo) -> bool:
    """Whether the source waits in pre-switchover; everything final is a failure here."""
    if info.status is MigrationStatus.PRE_SWITCHOVER:
        return True
    if info.status.is_final or info.status.has_failed:
        raise failed(context, info)
    return False


def failed(context: Context, info: MigrationInfo) -> CrossclusterError:
    """The error for a RAM migration that ended too early."""
    told = qemu_tls.explain(context, "ram", info.error or "") or qemu_tcp.explain(context, "ram")
    return told or TransferFailed(
        f"the RAM migration ended as {info.status_text}: {(info.error or 'no reason given')[:300]}",
        side=Side.TARGET,
        object="ram",
        remedy="Look at the target's QEMU log and at the network to the target node",
    )


def _is_near(context: Context, info: MigrationInfo, fall: float = 0.0) -> bool:
    """Whether the guest may stand still soon: every moment until that is seen is one more of its pause.

    ``fall`` is the rate (bytes/s) at which the remaining RAM became less: zeros go faster than any bandwidth.
    """
    if info.total == 0:
        return True  # it has just begun: a small VM may be done before the next look
    rate = max(info.bandwidth or context.stream_rate() or 0, fall)
    return info.status is MigrationStatus.ACTIVE and info.remaining < _NEAR * rate


def _hold(context: Context) -> bool:
    """Hold the monitor and wait for STOP; True when the source is paused in pre-switchover.

    The monitor serves one client, so the hold is bounded and followed by a gap.
    """
    clock = context.world.clock
    end = clock.monotonic() + _HOLD
    with context.world.qmp.session(end + 1.0) as qmp:
        stopped: Optional[float] = None
        while clock.monotonic() < end:
            if _is_paused(context, MigrationInfo.parse(qmp.execute("query-migrate"))):
                context.stopped_at = stopped or clock.monotonic()
                return True
            if stopped is not None:
                clock.sleep(0.002)
            else:
                event = qmp.wait_event(("STOP", "SHUTDOWN"), min(end, clock.monotonic() + _EVENT_WAIT))
                mirroring.check_state(context, qmp.execute("query-status"))
                stopped = clock.monotonic() if event is not None else None
    return False


def _tell(context: Context, info: MigrationInfo) -> None:
    if info.total:  # pages of zeros are never sent, so what is left shrinks faster than what was sent grows
        context.totals["ram"] = max(info.transferred + info.remaining, 1)
    context.moved["ram"] = info.transferred
    context.tell_progress(dirty_rate=info.dirty_rate_bytes, passes=info.passes)
