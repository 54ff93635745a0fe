# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""After the commit: fence the source, then clean up (DESIGN 5.8, safety I12)."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Dict

from ..errors import CrossclusterError, Side
from ..proxmox.vm_config import VmConfig
from . import direct, qemu_tls
from .context import Context
from .errors import MigrationError, SourceLost
from .states import Outcome

__all__ = ["cleanup", "fence"]

_QUIT_TIMEOUT = 5.0
_NOTES_MAX = 8192  # bytes; Proxmox's limit for a description
_TRIES = 3  # of marking the kept copy in CLEANUP; each may have waited 10 s for the config lock (pve-cli 4.1)
_TRY_PAUSE = 5.0
_LOG = logging.getLogger(__name__)


def fence(context: Context) -> Outcome:
    """COMMITTED: the source QEMU is gone before anything else happens; then the kept copy is made harmless.

    A configuration file system without quorum does not hold the fence back: QMP ``quit`` needs no config.
    """
    source = context.world.source
    context.drop_pumps()
    if source.qemu_alive():
        _stop(context)
    context.facts_source_state("stopped")
    try:
        _neutralise(context)
    except CrossclusterError as error:
        _LOG.warning("the kept source copy could not be marked yet: %s", error)
    return Outcome.OK


def _stop(context: Context) -> None:
    source = context.world.source
    try:
        source.stop()
    except CrossclusterError as error:
        _LOG.warning("qm stop failed, asking QEMU itself: %s", error)
        _quit(context)
    if source.qemu_alive():
        raise SourceLost(
            "the source QEMU could not be stopped; the target runs and stays locked until it is",
            side=Side.SOURCE,
            object=f"VM {context.facts.vmid}",
            remedy=f"Stop it by hand: qm stop {context.facts.vmid} --skiplock",
        )


def _quit(context: Context) -> None:
    clock = context.world.clock
    try:
        context.world.qmp.run("quit", timeout=_QUIT_TIMEOUT)
    except CrossclusterError as error:
        _LOG.info("QMP quit: %s", error.code)
    end = clock.monotonic() + _QUIT_TIMEOUT
    while context.world.source.qemu_alive() and clock.monotonic() < end:
        clock.sleep(0.1)


def _neutralise(context: Context) -> None:
    """The kept copy: no start at boot and no link on any NIC (safety 2); apart from that, a word in its notes.

    Repeatable: what is as wanted is not written again.
    """
    source, facts = context.world.source, context.facts
    config = VmConfig.read(source.config())
    if not config.lock:
        source.set_lock()  # somebody took it away: it is the only guard against a second start (pve-cli 2)
    linked = [nic for nic in config.nics() if nic.options.get("link_down") != "1"]
    wanted = {nic.key: replace(nic, options=dict(nic.options, link_down="1")).format() for nic in linked}
    if config.values.get("onboot") != "0":
        wanted["onboot"] = "0"
    if wanted:
        before: Dict[str, object] = {key: config.values.get(key) for key in wanted}
        context.note("neutralising", undo={**before, **facts.undo})
        source.set_options(wanted)
    _mark(context, config.description)


def _mark(context: Context, notes: str) -> None:
    facts = context.facts
    mark = f"crosscluster {facts.migration_id}: committed to {context.spec.target.node}/{facts.target_vmid}"
    if mark in notes:
        return
    marked = (notes + "\n" + mark).strip()
    if len(marked.encode()) > _NOTES_MAX:
        full = MigrationError(
            "the kept source copy could not be marked: its notes are full",
            side=Side.SOURCE,
            object=f"VM {facts.vmid}",
            remedy=f"It stays locked, unlinked and without start at boot. Keep in mind where the VM is now: {mark}",
        )
        context.warn(full)
        return
    context.note("neutralising", undo={"description": notes, **facts.undo})
    context.world.source.set_options({"description": marked})


def cleanup(context: Context) -> Outcome:
    """CLEANUP: unlock the target, end the tunnel; what cannot be done any more is told as residue or warning."""
    tunnel = context.tunnel
    if tunnel is not None and not tunnel.poisoned and context.persist(tunnel.unlock):
        context.persist(lambda: tunnel.quit(False))
    context.close_tunnel()
    _tell_lock(context)
    qemu_tls.disarm_target(context)
    direct.leave(context)
    _insist(context)
    context.finish_result()
    return Outcome.OK


def _insist(context: Context) -> None:
    """What the fence could not write on the kept copy, for example without quorum, is tried again (safety G2)."""
    for attempt in range(_TRIES):
        try:
            _neutralise(context)
            return
        except CrossclusterError as error:
            _LOG.warning("the kept source copy (attempt %d of %d): %s", attempt + 1, _TRIES, error)
            last = error
        if attempt + 1 < _TRIES:
            context.rest(_TRY_PAUSE)
    # The guest runs at the target already; the lock still guards this copy. Said, not hidden.
    context.warn(last)


def _tell_lock(context: Context) -> None:
    vmid = context.target_vmid
    try:
        status = direct.witness(context).status()
        if status is None:
            _LOG.warning("VM %d is not on node %s any more: somebody took it over", vmid, context.spec.target.node)
        lock = "" if status is None else status.lock
    except CrossclusterError as error:
        _LOG.warning("the target's lock could not be read: %s", error)
        lock = "unknown"
    if lock in ("migrate", "unknown") and direct.unlock(context):
        lock = ""
    if lock:
        context.note_or_remember(
            "residue", objects=[{"kind": "lock", "node": context.spec.target.node, "vmid": vmid, "lock": lock}]
        )
