# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""After the commit: fence the source, then clean up (DESIGN 5.8, safety I12)."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Dict

from ..errors import CrossclusterError, Side
from ..proxmox.errors import VmAbsent
from ..proxmox.vm_config import VmConfig
from .context import Context
from .errors import SourceLost
from .states import Outcome

__all__ = ["cleanup", "fence"]

_QUIT_TIMEOUT = 5.0
_LOG = logging.getLogger(__name__)


def fence(context: Context) -> Outcome:
    """COMMITTED: the source QEMU is gone before anything else happens; then the kept copy is made harmless.

    A configuration file system without quorum does not hold the fence back: QMP ``quit`` needs no config.
    """
    source = context.world.source
    context.drop_pumps()
    if source.qemu_alive():
        _stop(context)
    _neutralise(context)
    context.facts_source_state("stopped")
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
    """The kept copy: no start at boot, no link on any NIC, and a word in its notes (safety 2)."""
    source, facts = context.world.source, context.facts
    try:
        config = VmConfig.read(source.config())
        mark = f"crosscluster {facts.migration_id}: committed to {context.spec.target.node}/{facts.target_vmid}"
        if mark in config.description:
            return
        wanted = {"onboot": "0", "description": (config.description + "\n" + mark).strip()}
        wanted.update(
            {nic.key: replace(nic, options=dict(nic.options, link_down="1")).format() for nic in config.nics()}
        )
        context.note("neutralising", undo=_undo(config, wanted))
        if not config.lock:
            source.set_lock()  # somebody took it away: it is the only guard against a second start (pve-cli 2)
        source.set_options(wanted)
    except CrossclusterError as error:
        # The guest runs at the target already; the lock still guards this copy. Said, not hidden (safety G2).
        _LOG.warning("the kept source copy could not be marked: %s", error)
        context.warn(error)


def _undo(config: VmConfig, wanted: Dict[str, str]) -> Dict[str, object]:
    before: Dict[str, object] = {key: config.values.get(key) for key in wanted if key != "description"}
    before["description"] = config.description
    return before


def cleanup(context: Context) -> Outcome:
    """CLEANUP: unlock the target, end the tunnel; what cannot be done any more is told as residue."""
    tunnel = context.tunnel
    if tunnel is not None and not tunnel.poisoned and context.persist(tunnel.unlock):
        context.persist(lambda: tunnel.quit(False))
    context.close_tunnel()
    _tell_lock(context)
    context.finish_result()
    return Outcome.OK


def _tell_lock(context: Context) -> None:
    vmid = context.target_vmid
    try:
        lock = context.world.target.vm_status(vmid).lock
    except VmAbsent:
        _LOG.warning("VM %d is not on node %s any more: somebody took it over", vmid, context.spec.target.node)
        lock = ""
    except CrossclusterError as error:
        _LOG.warning("the target's lock could not be read: %s", error)
        lock = "unknown"
    if lock:
        context.note_or_remember(
            "residue", objects=[{"kind": "lock", "node": context.spec.target.node, "vmid": vmid, "lock": lock}]
        )
