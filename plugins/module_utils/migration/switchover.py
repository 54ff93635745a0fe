# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""From ``pre-switchover`` to a target that is proven loaded (DESIGN 5.6). The guest is paused: no node command runs.

Every failure in here leaves the source able to run: up to ``migrate-continue`` a cancel brings it back by itself,
after it the return path does (qemu-facts 3.1, pve-cli 1).
"""

from __future__ import annotations

from ..errors import Side
from ..proxmox.vm_config import VmConfig
from ..qemu import migrate
from ..qemu.migrate import MigrationStatus
from . import mirroring, precopy, rollback
from .context import Context
from .errors import GuestOff, NotConverging, TargetUnexpected, TransferFailed, VmChanged
from .states import Outcome

__all__ = ["SWITCHOVER_DEADLINE", "check_unchanged", "loaded", "switchover"]

SWITCHOVER_DEADLINE = 10.0  # seconds in `device` (DESIGN 4); the pump cuts on its own after it
_ROUND_TRIP = 5.0  # seconds for the proof that the control channel lives
_LOADED_TIMEOUT = 5.0  # seconds for the target to be read as paused; the guest stands still
_LOADED_REQUEST = 3.0  # seconds for one such request
_LAST_LOOK = 1.0  # seconds for QEMU to say how it ended, once the pump has cut


def switchover(context: Context) -> Outcome:
    """SWITCHOVER: OK means that everything I2 asks for has been seen (safety 3).

    Raises:
        TransferFailed, VmChanged, TargetUnexpected: the source runs on after the rollback.
    """
    context.requests.check()  # I11: without a lease never into the switchover
    tunnel = context.require_tunnel()
    tunnel.version(timeout=_ROUND_TRIP)
    if not _in_step(context):
        return _again(context)
    mirroring.end(context)
    for key in context.facts.mirrors:
        context.pumps[key].poll_events()
    if context.facts.mirrors:  # else the target's QEMU has no NBD server, and refuses to stop it
        tunnel.nbdstop(timeout=_ROUND_TRIP)
    check_unchanged(context)
    _continue(context)
    context.checked_at = context.world.clock.monotonic()
    loaded(context)
    check_unchanged(context)
    if context.requests.abort:  # accepted while the switchover went on: before the intent it counts (DESIGN 3)
        context.requests.check()
    context.arrived()
    return Outcome.OK


def _in_step(context: Context) -> bool:
    """QEMU < 8.2: the guest is paused now, so what is missing is the whole price (DESIGN 5.5)."""
    if context.write_blocking or not context.facts.mirrors:
        return True
    return mirroring.behind(context) < context.requests.limits.downtime / 2


def _again(context: Context) -> Outcome:
    """Back to a running guest; the target must listen anew, because its QEMU ends with the cancel."""
    if context.facts.attempts + 1 >= precopy.MAX_ATTEMPTS:
        raise NotConverging(
            f"the disks could not be brought in step within {precopy.MAX_ATTEMPTS} attempts",
            side=Side.SOURCE,
            object=f"VM {context.facts.vmid}",
            remedy="Raise limits.downtime or limits.bandwidth, or move the VM while it writes less",
        )
    context.drop_pumps()
    rollback.leave_migration(context)
    rollback.remove_mirrors(context)
    rollback.run_again(context)
    return Outcome.NOT_SYNCED


def _continue(context: Context) -> None:
    """Hand over the rest; the pump's deadline runs from before the command (DESIGN 2)."""
    clock, qmp = context.world.clock, context.world.qmp
    deadline = SWITCHOVER_DEADLINE
    if context.is_direct:
        deadline = context.spec.incoming.limits.get("switchover", deadline)
    context.pumps["ram"].arm_switchover(deadline)
    qmp.run("migrate-continue", migrate.continue_arguments())
    end = clock.monotonic() + deadline + 2.0
    while True:
        # Mute while QEMU writes what is left to a full socket (direct-transports 4.1); the pump ends that, not we.
        info = precopy.information(context, max(_LAST_LOOK, end - clock.monotonic()))
        if info.status is MigrationStatus.COMPLETED:
            break
        if info.status.is_final or info.status.has_failed:
            raise precopy.failed(context, info)
        if clock.monotonic() > end:
            raise TransferFailed(
                f"the switchover took longer than {deadline:g} s",
                side=Side.TARGET,
                object="ram",
                remedy="The source runs on; look at the network to the target and at the target's load",
            )
        clock.sleep(0.005)
    context.pumps["ram"].disarm_switchover()
    context.downtime_ms = info.downtime_ms
    context.moved["ram"] = info.transferred


def loaded(context: Context) -> None:
    """The target's own word that it has everything and is paused.

    Raises:
        TargetUnexpected: it says something else, or nothing genuine in time (pve-cli 5).
    """
    clock = context.world.clock
    end = clock.monotonic() + _LOADED_TIMEOUT
    while True:
        status = context.world.target.vm_status(context.target_vmid, timeout=_LOADED_REQUEST)
        if status.genuine and status.qmpstatus == "shutdown":
            context.note_or_remember("guest_off")  # it is off, and nobody continues it (qemu-facts 3.6)
            raise GuestOff(context.facts.vmid)
        if status.genuine and status.qmpstatus == "paused":
            context.proof["target_loaded"] = "status/current: paused, with QMP-derived fields"
            return
        if clock.monotonic() > end or (status.genuine and status.qmpstatus not in ("inmigrate", "paused")):
            raise TargetUnexpected(
                f"the target should be loaded and paused but is {status.qmpstatus or status.status}",
                side=Side.TARGET,
                object=f"VM {context.target_vmid}",
                remedy="The source runs on; see the target's task log",
                facts={"qmpstatus": status.qmpstatus, "genuine": status.genuine},
            )
        clock.sleep(0.02)


def check_unchanged(context: Context) -> None:
    """The VM is still no HA resource and its configuration is the one that was read (safety I2).

    Raises:
        VmChanged: names what changed.
    """
    source, name = context.world.source, f"VM {context.facts.vmid}"
    text = source.config()
    if VmConfig.read(text).lock != "migrate":
        raise VmChanged(
            "the lock of the VM was taken away during the migration",
            side=Side.SOURCE,
            object=name,
            remedy="Find out who unlocked it, and run the play again",
        )
    if source.ha_state():
        raise VmChanged(
            "the VM was made an HA resource during the migration",
            side=Side.SOURCE,
            object=name,
            remedy="Remove it from HA and run the play again",
        )
    if context.plan.differs(text):
        raise VmChanged(
            "the configuration of the VM was changed during the migration",
            side=Side.SOURCE,
            object=name,
            remedy="Run the play again with the configuration as it is now",
        )
