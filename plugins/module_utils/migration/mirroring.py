# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The mirrors of the online disks: start, wait, keep in step, end (DESIGN 5.5, 5.6).

QEMU never touches the network: each NBD node connects to the UNIX socket of its own pump, which has the target's
greeting already, so ``blockdev-add`` does not wait for a silent peer (qemu-facts 5.1).
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional

from ..errors import Side
from ..proxmox import replies
from ..qemu import mirror as mirrors
from ..qemu.errors import QmpRefused
from ..qemu.mirror import BlockJob, Job
from ..qemu.status import BlockDevice, RunState, RunStatus, find_drive
from ..transport.interface import Kind
from . import direct, qemu_tcp, qemu_tls
from .context import Context
from .errors import GuestOff, TransferFailed
from .mapping import Volume
from .states import Outcome

__all__ = ["END_TIMEOUT", "behind", "check_guest", "check_state", "end", "jobs", "mirror", "retune"]

_POLL = 0.5  # seconds between two looks at the jobs
END_TIMEOUT = 10.0  # seconds for a ready mirror to end; the guest is paused meanwhile


def mirror(context: Context) -> Outcome:
    """MIRRORING: start one mirror after the other, wait until all are ready, then keep them in step.

    Raises:
        TransferFailed: a job ended with an error or its stream broke.
        GuestOff: the guest powered itself off.
    """
    volumes = context.plan.mirrored
    devices = BlockDevice.parse_all(context.world.qmp.run("query-block"))
    # All there is to move counts from the start: a percentage that falls would tell a person nothing.
    context.totals.update({volume.key: find_drive(devices, volume.key).virtual_size for volume in volumes})
    context.totals["ram"] = context.plan.memory
    for volume in volumes:
        _start(context, volume, find_drive(devices, volume.key), len(volumes))
        _wait_ready(context)
    if volumes and context.plan.qemu and mirrors.supports_copy_mode_change(context.plan.qemu):
        _write_blocking(context)
    return Outcome.OK


def _start(context: Context, volume: Volume, device: BlockDevice, count: int) -> None:
    """One mirror; its names are in the journal before QEMU hears them."""
    key = volume.key
    node, job = f"crosscluster-{key}", f"crosscluster-{key}"
    _pump, path = direct.open_stream(context, key, Kind.NBD, replies.nbd_socket(context.target_vmid))
    context.note("mirror", key=key, job=job, node=node)
    added = {**mirrors.add_node(node, path, f"drive-{key}"), **qemu_tls.block_options(context)}
    started = mirrors.start(
        job, device.mirror_source, node, speed=context.disk_speed(), buffer=mirrors.buffer_size(count)
    )
    try:
        with context.world.qmp.session(context.world.clock.monotonic() + 15.0) as qmp:
            qmp.execute("blockdev-add", added)
            qmp.execute("blockdev-mirror", started)
    except QmpRefused as error:
        explained = qemu_tls.explain(context, key, error.description)
        if explained is None:
            raise
        raise explained from error


def jobs(context: Context) -> Dict[str, BlockJob]:
    """Our mirrors by disk key; checks that each one lives and its stream too.

    Raises:
        TransferFailed: names the disk and the reason.
    """
    found = BlockJob.parse_all(context.world.qmp.run("query-block-jobs"))
    ours: Dict[str, BlockJob] = {}
    for key, names in context.facts.mirrors.items():
        job = found.get(names["job"])
        if job is None or job.is_concluded or job.error:
            raise _job_failed(context, key, names["job"], job.error if job else None)
        _check_stream(context, key)
        ours[key] = job
        context.totals[key] = max(job.len, 1)
        context.moved[key] = job.offset
    return ours


def check_guest(context: Context) -> RunState:
    """The source's run state; a guest that powered itself off ends the migration.

    Raises:
        GuestOff: honoured at the source (safety 6.1, O).
    """
    return check_state(context, context.world.qmp.run("query-status"))


def check_state(context: Context, answer: Any) -> RunState:
    """The same for an answer of ``query-status`` that is there already."""
    state = RunStatus.parse(answer).state
    if state is RunState.SHUTDOWN:
        raise GuestOff(context.facts.vmid)
    return state


def retune(context: Context) -> bool:
    """Limits that were asserted again reach the mirrors (DESIGN 3); True when there were new ones."""
    limits = context.requests.limits
    if context.applied_limits == limits:
        return False
    if context.applied_limits is not None:
        context.note("limits", limits=limits.to_dict())
        for names in context.facts.mirrors.values():
            context.world.qmp.run("block-job-set-speed", mirrors.set_speed(names["job"], context.disk_speed()))
    context.applied_limits = limits
    return True


def _wait_ready(context: Context) -> None:
    while not all(job.ready for job in jobs(context).values()):
        context.tell_progress()
        check_guest(context)
        retune(context)
        context.pause(_POLL)
    context.tell_progress()


def _write_blocking(context: Context) -> None:
    """QEMU >= 8.2: guest writes wait for the target from now on, so the mirrors stay in step (DESIGN 5.5)."""
    for key, names in context.facts.mirrors.items():
        context.world.qmp.run("block-job-change", mirrors.write_blocking(names["job"]))
        context.pumps[key].set_write_blocking()
    while not all(job.actively_synced for job in jobs(context).values()):
        context.tell_progress()
        context.pause(0.2)
    context.write_blocking = True


def behind(context: Context, current: Optional[Mapping[str, BlockJob]] = None) -> float:
    """Seconds that the mirrors need for what is still missing, at the measured rate (DESIGN 5.5)."""
    found = jobs(context) if current is None else current
    remaining = sum(job.remaining for job in found.values())
    return remaining / float(context.measured_rate()) if remaining else 0.0


def end(context: Context) -> None:
    """End every mirror so that both sides are identical, and remove its node. The guest is paused.

    Raises:
        TransferFailed: a mirror ended with an error or not in time.
    """
    qmp, clock = context.world.qmp, context.world.clock
    deadline = clock.monotonic() + END_TIMEOUT
    names = dict(context.facts.mirrors)
    for entry in names.values():
        qmp.run("block-job-cancel", mirrors.end(entry["job"]))
    waiting: List[str] = list(names)
    while waiting:
        found = Job.parse_all(qmp.run("query-jobs"))
        for key in list(waiting):
            job = found.get(names[key]["job"])
            if job is None or job.error:
                raise _job_failed(context, key, names[key]["job"], job.error if job else "the job vanished")
            if job.is_concluded:
                _remove(context, names[key])
                waiting.remove(key)
        if waiting and clock.monotonic() > deadline:
            raise _job_failed(context, waiting[0], names[waiting[0]]["job"], f"it did not end within {END_TIMEOUT:g} s")
        if waiting:
            clock.sleep(0.003)


def _remove(context: Context, names: Mapping[str, str]) -> None:
    context.world.qmp.run("job-dismiss", mirrors.dismiss(names["job"]))
    context.world.qmp.run("blockdev-del", mirrors.delete_node(names["node"]))


def _check_stream(context: Context, key: str) -> None:
    pump = context.pumps.get(key)
    if pump is not None and pump.ended is not None:
        where = "the incoming worker" if context.is_direct else "its listeners" if context.is_plain else "port 8006"
        raise qemu_tcp.explain(context, key) or TransferFailed(
            f"the byte stream of disk {key} ended: {getattr(pump.ended.reason, 'value', pump.ended.reason)}",
            side=Side.TARGET,
            object=key,
            remedy=f"Look at the network between the source node and {where} of the target node",
            facts={"detail": getattr(pump.ended, "detail", "")},
        )


def _job_failed(context: Context, key: str, job: str, error: Optional[str]) -> TransferFailed:
    """The error with its reason: the job's own text where QEMU still shows it."""
    known = Job.parse_all(context.world.qmp.run("query-jobs")).get(job)
    text = error or (known.error if known else None) or "no reason given"
    _check_stream(context, key)  # a broken stream is the better explanation
    return TransferFailed(
        f"the mirror of disk {key} failed: {text[:300]}",
        side=Side.SOURCE if "read" in text.lower() else Side.TARGET,
        object=key,
        remedy="Look at the free space of the target storage and at the source disk",
    )
