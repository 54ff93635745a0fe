# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""From a checked VM to a target that listens: lock, reserve, allocate, listen (DESIGN 5, steps 1 to 4).

What is about to be created is in the journal before it is asked for, what was created right after the answer: a
crash between the two leaves a name or at least a storage and a VMID to look at.
"""

from __future__ import annotations

import logging
from typing import Dict, List, Optional, Tuple

from ..errors import CrossclusterError, Side
from ..proxmox import commands, replies
from ..proxmox.errors import (
    ApiError,
    ApiRefused,
    ApiUnreachable,
    FingerprintMismatch,
    LockForeign,
    ParameterRefused,
    PrivilegeMissing,
    TokenRefused,
    VmAbsent,
)
from ..proxmox.replies import DiskReply, ImportState
from ..proxmox.target_api import TunnelGrant, VmResource
from ..transport.interface import Kind
from . import direct, mapping, mirroring, preflight, qemu_tcp
from .context import Context
from .errors import Refused, TransferFailed, VmChanged
from .mapping import Volume
from .states import Outcome
from .switchover import check_unchanged
from .world import Target

__all__ = ["allocate", "begin", "candidates", "listen", "lock", "reserve"]

_LOCK_WAIT = 10.0  # seconds for Proxmox's guest-migration lock, as its own tasks wait (pve-cli 4.1)
_TUNNEL_WAIT = 30.0  # seconds until `mtunnel started`; the ticket lives 40 (mtunnel-protocol 3.1, pve-cli 1.1)
_STARTED = "mtunnel started"
_IMPORT_WAIT = 120.0  # seconds for `complete` after the last byte was sent
_SLOWEST = 8 << 20  # bytes/s; the proxy takes more than the storage writes, the rest is queued (mtunnel-protocol 3.6)
_SETTLE_WAIT = 45.0  # seconds for an importer without a stream to end: it waits 30 s for one (mtunnel-protocol 7.3)
_END_WAIT = 15.0  # seconds for our end of the stream after `complete`: another process tells of it
_POOL_TRIES = 50
_PROXY_ERRORS = 590  # from here on Proxmox says that it could not talk to itself: outcome unknown
_LOG = logging.getLogger(__name__)


def lock(context: Context) -> Outcome:
    """PREFLIGHT: both guards of Proxmox, around a second look at everything (DESIGN 5.1).

    Raises:
        Refused: nothing was written.
        LockForeign: somebody else holds the VM.
    """
    source = context.world.source
    source.take_migration_lock(_LOCK_WAIT)
    plan = preflight.look(context.spec, source, context.world.qmp)
    preflight.check_target(context.spec, plan, context.world.target)
    context.plan = plan
    _settle_transport(context)
    context.note("running", facts=plan.running_facts())
    context.note("locking")
    try:
        source.set_lock()
    except LockForeign:
        context.note("not_locked")
        raise
    context.note("lock_taken")
    return Outcome.OK


def _settle_transport(context: Context) -> None:
    """Step 0: the first listed transport that can be used; from here on it is never changed (DESIGN 4).

    What a target can is only told over a tunnel, and a tunnel takes the VMID (mtunnel-protocol 3.1). Every transport
    needs both, so the tunnel stays if another one is taken; if none is, the rollback gives the VMID back.

    Raises:
        NoTransportUsable: none of those listed; the source was not touched.
    """
    while True:
        direct.stand(context, context.plan)
        if not context.is_plain:
            return
        why = qemu_tcp.missing_right(context.world.target)
        if why is None:
            reserve(context)
            why = qemu_tcp.missing_capability(context)
        if why is None:
            return
        direct.take_next(context, why)


def candidates(wanted: str, source_vmid: int, pool: Optional[Tuple[int, int]], taken: List[VmResource]) -> List[int]:
    """VMIDs to try, in order."""
    if wanted == "same":
        return [source_vmid]
    if wanted != "pool" or pool is None:
        return [int(wanted)]
    used = {entry.vmid for entry in taken}
    return [vmid for vmid in range(pool[0], pool[1] + 1) if vmid not in used][:_POOL_TRIES]


def reserve(context: Context) -> Outcome:
    """LOCKED: POST mtunnel takes the VMID atomically; then the control channel (mtunnel-protocol 3.1).

    Done already where the choice of the transport needed it.

    Raises:
        Refused: VMID_TAKEN, nothing is left.
        ApiOutcomeUnknown: no answer; the rollback looks for the task.
    """
    if context.tunnel is not None:
        return Outcome.OK
    spec, target = context.spec, context.world.target
    storages, bridges = context.plan.storages, context.plan.bridges
    vmids = candidates(spec.target.vmid, spec.vmid, spec.target.vmid_pool, target.vm_resources())
    refusal: Optional[ParameterRefused] = None
    for vmid in vmids:
        if not _is_free(context, vmid):
            continue
        context.note("reserving", vmid=vmid, volumes_before=_volumes_before(context, storages, vmid))
        try:
            grant = target.open_tunnel(vmid, storages, bridges)
        except ParameterRefused as error:
            context.note("not_reserved")
            if "vmid" not in error.errors:
                raise
            refusal = error
            continue
        except (TokenRefused, PrivilegeMissing, ApiRefused, ApiUnreachable, FingerprintMismatch) as error:
            # Said no, or never heard it. Anything else, and a proxy's own errors, may have made the stub.
            if getattr(error, "status", 0) < _PROXY_ERRORS:
                context.note("not_reserved")
            raise
        context.note("tunnel", upid=grant.upid)
        _connect(context, vmid, grant)
        return Outcome.OK
    raise _taken(context, vmids, refusal)


def _is_free(context: Context, vmid: int) -> bool:
    """Whether no VM of that number is there: what is there after an unanswered POST is then ours (safety I6)."""
    try:
        context.world.target.vm_status(vmid)
    except VmAbsent:
        return True
    except PrivilegeMissing:
        return True  # not ours to see; the target itself refuses a number that is taken
    return False


def _volumes_before(context: Context, storages: List[str], vmid: int) -> Optional[List[str]]:
    """Volumes that already carry that VMID: never ours (safety I6). None when the token may not list them."""
    try:
        return sorted({volid for storage in storages for volid in context.world.target.volumes_of(storage, vmid)})
    except CrossclusterError as error:
        _LOG.info("volumes of VMID %d cannot be listed: %s", vmid, error.code)
        return None


def _connect(context: Context, vmid: int, grant: TunnelGrant) -> None:
    """The control channel, only after the task listens: a websocket that comes too early hits a dead socket."""
    clock, target = context.world.clock, context.world.target
    end = clock.monotonic() + _TUNNEL_WAIT
    while not _task_listens(target, grant.upid):
        if clock.monotonic() > end:
            raise TransferFailed(
                f"the tunnel task of VM {vmid} did not start within {_TUNNEL_WAIT:g} s",
                side=Side.TARGET,
                object=grant.upid,
                remedy="Look at that task's log on the target node",
            )
        context.pause(0.1)
    context.tunnel = context.world.open_tunnel(vmid, grant)
    context.caps = context.tunnel.version().caps


def _task_listens(target: Target, upid: str) -> bool:
    try:
        return any(_STARTED in line for line in target.task_log(upid))
    except ApiError as error:
        _LOG.info("the task log could not be read: %s", error.code)  # asked again until the wait is over
        return False


def _taken(context: Context, vmids: List[int], refusal: Optional[ParameterRefused]) -> Refused:
    reason = refusal.errors.get("vmid", "") if refusal else "a VM has it, or the pool is empty"
    return Refused(
        f"VMID {vmids[-1] if vmids else context.spec.target.vmid} is not free at the target: {str(reason)[:200]}",
        code="VMID_TAKEN",
        side=Side.TARGET,
        object=f"VMID {vmids[-1] if vmids else context.spec.target.vmid}",
        remedy="Give another target.vmid, or pool with a vmid_pool",
    )


def allocate(context: Context) -> Outcome:
    """RESERVED: import what cannot be mirrored, allocate what can (mtunnel-protocol 7.2, steps 3 and 4)."""
    tunnel, plan = context.require_tunnel(), context.plan
    if plan.storages:
        context.bwlimit = tunnel.bwlimit(plan.storages).bytes_per_second
    for volume in plan.imported:
        _import(context, volume)
    for volume in plan.mirrored:
        context.note("allocating", key=volume.key, storage=volume.storage)
        reply = tunnel.disk(volume.storage, volume.parameters, volume.format)
        context.note("volume", key=volume.key, storage=volume.storage, volid=reply.volid, drive=reply.drivestr)
        context.pause(0.0)
    return Outcome.OK


def _import(context: Context, volume: Volume) -> None:
    """One volume as a stream; the sender alone knows whether it arrived whole (mtunnel-protocol 7.3)."""
    tunnel, storage = context.require_tunnel(), volume.storage
    name = f"import-{volume.key}"
    context.note("allocating", key=volume.key, storage=storage)
    stream_format, with_snapshots = mapping.export_format(volume.source_format)
    volname = mapping.import_volume_name(volume.volid, context.facts.vmid, context.target_vmid)
    tunnel.disk_import(volname, volume.format, storage, [stream_format], with_snapshots)
    try:
        _carry(context, name, volume, stream_format, with_snapshots)
    except Exception:
        _settle(context, name, volume)
        raise
    context.drop_pump(name)


def _carry(context: Context, name: str, volume: Volume, stream_format: str, with_snapshots: bool) -> None:
    export = context.world.source.export(volume.volid, stream_format, with_snapshots)
    context.totals[name] = volume.size or 0
    try:
        pump, _path = direct.open_stream(context, name, Kind.IMPORT, replies.import_socket(context.target_vmid), export)
        export.close_output()
        volid = _follow_import(context, name, volume)
    finally:
        status = export.wait(5.0)
    if status != 0 or pump.ended is None or not pump.ended.clean:
        raise _import_failed(volume, f"pvesm export ended with {status}, the stream as {_end_of(pump)}")
    drive = mapping.imported_drive(volume, volid)
    context.note("volume", key=volume.key, storage=volume.storage, volid=volid, drive=drive)


def _settle(context: Context, name: str, volume: Volume) -> None:
    """Cut the stream and ask until the importer has ended: `quit` frees an import only if its end was read.

    A truncated one ends as ``complete`` too (mtunnel-protocol 5.3, 7.3). Nothing in here may hide why it was cut.
    """
    if name in context.pumps:
        context.drop_pump(name)
    clock = context.world.clock
    end = clock.monotonic() + _SETTLE_WAIT
    try:
        while clock.monotonic() < end:
            answer = context.require_tunnel().query_disk_import()
            if answer.state is ImportState.COMPLETE:
                context.note_or_remember(
                    "volume", key=volume.key, storage=volume.storage, volid=answer.volid, drive=None
                )
            if answer.state is not ImportState.PENDING:
                return
            context.rest(0.1)
    except CrossclusterError as error:
        _LOG.info("the import of %s is over: %s", volume.volid, error.code)


def _follow_import(context: Context, name: str, volume: Volume) -> str:
    """Until the target has the volume; limits asserted meanwhile reach the stream (DESIGN 3)."""
    clock, pump = context.world.clock, context.pumps[name]
    sent_at: Optional[float] = None
    while True:
        context.pause(0.1)
        context.moved[name] = pump.sent
        context.tell_progress()
        if mirroring.retune(context):
            pump.set_rate(context.stream_rate(Kind.IMPORT))
        if pump.ended is not None and not pump.ended.clean:
            raise _import_failed(volume, f"the stream ended as {_end_of(pump)}")
        answer = context.require_tunnel().query_disk_import()
        if answer.state is ImportState.COMPLETE:
            _await_end(context, name)
            return answer.volid
        if answer.state is ImportState.ERROR:
            raise _import_failed(volume, answer.message)
        if sent_at is None and (pump.draining or pump.ended is not None):
            sent_at = clock.monotonic()
        patience = _IMPORT_WAIT + pump.sent / _SLOWEST
        if sent_at is not None and clock.monotonic() - sent_at > patience:
            raise _import_failed(volume, f"the target did not finish within {patience:.0f} s after the last byte")


def _await_end(context: Context, name: str) -> None:
    """The pump says how its stream ended: it may have said so while the target was asked."""
    end = context.world.clock.monotonic() + _END_WAIT
    while context.pumps[name].ended is None and context.world.clock.monotonic() < end:
        context.pause(0.1)


def _end_of(pump: object) -> str:
    ended = getattr(pump, "ended", None)
    reason = getattr(ended, "reason", None)
    return str(getattr(reason, "value", reason))


def _import_failed(volume: Volume, reason: str) -> TransferFailed:
    return TransferFailed(
        f"volume {volume.volid} ({volume.key}) could not be copied: {reason[:300]}",
        side=Side.TARGET,
        object=volume.volid,
        remedy="See the log of the target's tunnel task and the source storage",
    )


def listen(context: Context) -> Outcome:
    """ALLOCATED: the target's config, then its QEMU listening (mtunnel-protocol 5.2, 5.4)."""
    tunnel, plan, facts = context.require_tunnel(), context.plan, context.facts
    if not facts.config_sent:
        drives = {volume.key: str(volume.drive) for volume in facts.volumes.values()}
        tunnel.config(plan.target_config(drives), context.world.source.firewall())
        context.note("config_sent")
    if plan.run_state == "stopped":
        return Outcome.OK
    if facts.started:
        tunnel.stop()  # a new attempt: the QEMU of the last one ended with the cancelled migration
    context.note("starting")
    nbd: Dict[str, DiskReply] = {}
    for volume in plan.mirrored:
        made = facts.volumes[volume.key]
        nbd[volume.key] = DiskReply(str(made.volid), str(made.drive))
    timeout = commands.start_timeout(plan.memory >> 20, len(plan.config.nics()))
    if context.is_plain:
        qemu_tcp.start(context, nbd, timeout)
        return Outcome.OK
    tunnel.start(plan.source_node, context.spec.target.node, plan.machine, nbd, plan.nets_host_mtu, plan.cpu, timeout)
    direct.attach(context)
    return Outcome.OK


def begin(context: Context) -> Outcome:
    """LISTENING: the trigger was given; a stopped VM has nothing left to move."""
    clock, triggered = context.world.clock, context.requests.triggered_at
    since = clock.monotonic() - triggered if triggered is not None else 0.0
    context.note("triggered", at=clock.wall() - since)
    if context.run_state != "stopped":
        return Outcome.OK
    context.checked_at = clock.monotonic()
    check_unchanged(context)
    if context.world.source.qemu_alive():
        raise VmChanged(
            "the VM was started while its volumes were copied",
            side=Side.SOURCE,
            object=f"VM {context.facts.vmid}",
            remedy="Run the play again: it moves the running VM",
        )
    return Outcome.OFFLINE
