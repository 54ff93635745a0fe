# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""What faces ask for on the source node, and who does it: the engine seam (DESIGN 2). An edge file.

``worker`` is the only engine yet: a worker of our own per migration. An engine holds no state; journals, control
sockets and the target's API tell everything.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from typing import Any, Dict, List, Mapping, Optional

from ..errors import Side
from ..proxmox.errors import VmAbsent
from ..proxmox.session import Session
from ..proxmox.target_api import TargetApi
from ..proxmox.vm_config import VmConfig
from ..transport import policy
from . import arrival, package, places, preflight, qemu_tcp
from .client import Client
from .errors import Held, NotFound, SpecDiffers, TooLate, WorkerUnreachable
from .history import Facts
from .meeting_point import available
from .real_world import SourceNode, bad_credentials, endpoint_of, qemu_of
from .report import report
from .spec import Spec, difference
from .states import Phase

__all__ = ["WorkerEngine", "worker_engine"]

_START_TIMEOUT = 90.0  # seconds for `worker.pyz start`, which waits for its worker
_FORWARD_TIMEOUT = 90.0  # seconds; a look at a target that does not answer takes its deadlines
_RECOVERY_TIMEOUT = 300.0  # seconds for a restarted worker to bring an interrupted migration to an end


def worker_engine() -> WorkerEngine:
    """The engine that drives a worker of our own on this node."""
    return WorkerEngine()


class WorkerEngine:
    """One worker process per migration on the source node."""

    def preview(self, spec: Spec, secret: str, key: str = "") -> Dict[str, Any]:
        """Check mode: what would be done; reads only.

        Raises:
            CrossclusterError: what a run would be refused for.
        """
        facts = places.newest(vmid=spec.vmid, uuid=_uuid(spec))
        if facts is not None and not facts.final:
            _same_spec(spec, facts)
            return dict(report(facts), changed=facts.phase is not Phase.COMPLETED)
        arrived = self._arrived(spec, secret, facts, _ended_with_residue(spec))
        if arrived is not None:
            return arrived
        source, target = SourceNode(spec.vmid), _target(spec, secret)
        choice = _choice(spec, key, target, proof_follows=True)
        plan = preflight.look(spec, source, qemu_of(spec.vmid))
        preflight.check_target(spec, plan, target)
        return {
            "changed": True,
            "finished": True,
            "transport": choice.name,
            "transports_rejected": choice.rejected_as_list(),
            "warnings": [_PROOF_FOLLOWS.format(name=choice.name)] if choice.name in ("tcp", "qemu-tcp") else [],
            "would_create": {
                "node": spec.target.node,
                "vmid": spec.vmid if spec.target.vmid == "same" else spec.target.vmid,
                "volumes": [
                    {"key": v.key, "storage": v.storage, "format": v.format, "size": v.size, "by": v.mode.value}
                    for v in plan.volumes
                ],
                "nics": {key: nic.bridge for key, nic in plan.nics.items()},
                "run_state": plan.run_state,
            },
            "source_config": _public(plan.config.format()),
            "target_config": _public(plan.preview_config()),
        }

    def advance(
        self, spec: Spec, secret: str, milestone: str, lease: Optional[str] = None, wait: float = 0.0, key: str = ""
    ) -> Dict[str, Any]:
        """Bring the migration of ``spec`` on its way to ``milestone``; attaches to one that runs.

        Raises:
            SpecDiffers, Refused, Split, TargetNotRunning, VmAmbiguous: nothing was done.
            Held: neither side may run yet.
        """
        lease = lease or secrets.token_hex(16)
        facts = places.newest(vmid=spec.vmid, uuid=_uuid(spec))
        if facts is not None and not facts.final:
            _same_spec(spec, facts)
            running = self._attach(spec, secret, facts, milestone, lease, wait)
            if running is not None:
                return running
            facts = places.read_facts(facts.migration_id)
        ended = _ended_with_residue(spec)
        arrived = self._arrived(spec, secret, facts, ended)
        if arrived is not None:
            return arrived
        migration_id = self._begin(spec, secret, key, ended)
        try:
            return dict(self._drive(spec, secret, migration_id, milestone, lease, wait), changed=True)
        except WorkerUnreachable:
            facts = places.read_facts(migration_id)
            if not facts.final:
                raise
            return dict(report(facts), changed=True)  # it was over before we could ask

    def poll(self, migration_id: str, lease: str, wait: float) -> Dict[str, Any]:
        """State of a migration; renews the lease; returns early when the phase changes."""
        return self._ask(migration_id, "poll", wait, lease=lease)

    def info(
        self,
        vmid: Optional[int] = None,
        uuid: Optional[str] = None,
        migration_id: Optional[str] = None,
        wait: float = 0.0,
        journal: bool = False,
    ) -> Dict[str, Any]:
        """State of a migration; renews nothing.

        Raises:
            NotFound: no migration of that VM or id on this node.
        """
        migration_id = migration_id or _known(vmid, uuid).migration_id
        result = self._ask(migration_id, "status", wait)
        if journal:
            from . import journal as journals

            result["journal"] = journals.read(places.journal_path(migration_id))
        return result

    def abort(self, vmid: Optional[int] = None, uuid: Optional[str] = None) -> Dict[str, Any]:
        """End the migration of a VM and wait for its end; nothing to end is no error.

        Raises:
            Recorded: TOO_LATE after COMMIT_INTENT.
        """
        facts = places.newest(vmid=vmid, uuid=uuid)
        if facts is None or facts.final:
            return dict(report(facts) if facts else {}, changed=False, error=None, finished=True)
        migration_id = facts.migration_id
        try:
            with Client(places.control_socket(migration_id)) as client:
                client.call("abort")
        except WorkerUnreachable:
            _start({"migration_id": migration_id, "secret": "", "opened": None})
        ended = self._wait_end(migration_id, _RECOVERY_TIMEOUT)
        error = ended.get("error")
        if ended["phase"] in (Phase.COMPLETED.value, Phase.LOST.value):
            raise TooLate(
                f"the migration was committed before the abort came, it is {ended['phase']}",
                side=Side.SOURCE,
                object=f"VM {facts.vmid}",
                remedy="Move the VM back if it must not stay there",
            )
        if isinstance(error, dict) and error.get("code") == "ABORTED":
            ended["error"] = None  # what was asked for
        return dict(ended, changed=True)

    def forward(self, vmid: Optional[int] = None, uuid: Optional[str] = None) -> Dict[str, Any]:
        """Give a migration in hold over to the target; ``forward`` in the result says whether that is recorded.

        Raises:
            NotFound: no migration of that VM on this node.
        """
        facts = _known(vmid, uuid)
        if facts.forward or facts.phase is not Phase.HOLD or facts.running.get("run_state") != "running":
            return dict(report(facts), changed=False, error=None)
        end = time.monotonic() + _FORWARD_TIMEOUT
        while time.monotonic() < end:
            try:
                with Client(places.control_socket(facts.migration_id)) as client:
                    result = client.call("forward", 10.0)
            except WorkerUnreachable:
                _start({"migration_id": facts.migration_id, "secret": "", "opened": None})
                continue
            if result["forward"] or result["phase"] != Phase.HOLD.value:
                return dict(result, changed=bool(result["forward"]), error=None)
        raise Held(
            "the worker is still busy with a look at the target",
            side=Side.SOURCE,
            object=f"VM {facts.vmid}",
            remedy="Run the play again",
        )

    # A migration that is known already

    def _attach(
        self, spec: Spec, secret: str, facts: Facts, milestone: str, lease: str, wait: float
    ) -> Optional[Dict[str, Any]]:
        """The running migration, driven on; None when it had to be recovered and has ended."""
        migration_id = facts.migration_id
        try:
            result = self._drive(spec, secret, migration_id, milestone, lease, wait)
            if result["phase"] not in (Phase.ROLLBACK.value, Phase.ROLLED_BACK.value):
                return result
        except WorkerUnreachable:
            # No worker lives: a new one reads the journal and does what the state table says (DESIGN 2).
            if not _await_restart(migration_id):
                _start({"migration_id": migration_id, "secret": secret, "opened": None})
        ended = self._wait_end(migration_id, _RECOVERY_TIMEOUT)
        if ended["phase"] == Phase.ROLLED_BACK.value:
            return None
        return dict(ended, changed=True)

    def _drive(
        self, spec: Spec, secret: str, migration_id: str, milestone: str, lease: str, wait: float
    ) -> Dict[str, Any]:
        with Client(places.control_socket(migration_id)) as client:
            result = client.call(
                "advance",
                goal=milestone,
                lease=lease,
                digest=spec.digest,
                identity=spec.identity(),
                limits=spec.limits.to_dict(),
                secret=secret,
            )
            if wait > 0 and not result["finished"]:
                result = client.call("poll", wait, lease=lease, version=result["progress"].get("version"))
        return dict(result, changed=False, lease=lease)

    def _wait_end(self, migration_id: str, timeout: float) -> Dict[str, Any]:
        """Wait until a recovering worker has ended, or cannot end."""
        end = time.monotonic() + timeout
        while True:
            result = self._ask(migration_id, "status", min(10.0, max(0.0, end - time.monotonic())))
            if result["phase"] in _ENDED or (result["finished"] and result.get("error")):
                return result
            if time.monotonic() > end:
                raise Held(
                    f"the migration does not come to an end, it is in the phase {result['phase']}",
                    side=Side.SOURCE,
                    object=migration_id,
                    remedy="Run the play again; see worker.log in " + places.migration_directory(migration_id),
                )
            time.sleep(0.2)

    def _ask(self, migration_id: str, op: str, wait: float, **parameters: Any) -> Dict[str, Any]:
        """One look: by the worker when it lives or comes back, else by the journal."""
        end = time.monotonic() + wait + _RESTART_PATIENCE
        while True:
            try:
                with Client(places.control_socket(migration_id)) as client:
                    result = client.call(op, 0.0, **parameters)
                    if wait > 0 and not result["finished"]:
                        result = client.call(op, wait, version=result["progress"].get("version"), **parameters)
                break
            except WorkerUnreachable:
                wait = 0.0  # whatever happened, the caller wants to hear of it
                if time.monotonic() < end and _await_restart(migration_id):
                    continue
                facts = places.read_facts(migration_id)
                result = report(facts)
                if not facts.final:
                    result.update(_worker_gone(facts))
                break
        result["changed"] = False
        if not result["finished"] and parameters.get("lease"):
            result["lease"] = parameters["lease"]
        return result

    # A migration that is not there yet, or has ended

    def _arrived(self, spec: Spec, secret: str, facts: Optional[Facts], ended: List[Facts]) -> Optional[Dict[str, Any]]:
        """The VM is at the target already (DESIGN 3, identity); None when it is not.

        Raises:
            TargetNotRunning, TargetResidue, Split, VmAmbiguous, Recorded (TARGET_LOST): nothing is done.
        """
        source, target = SourceNode(spec.vmid), _target(spec, secret)
        found = arrival.find(spec, _uuid(spec), source, target, facts, ended)
        if found is None:
            return None
        known = report(facts) if facts is not None and found.moved else {}
        place = known.get("target") or {"vmid": found.vmid, "upid": None, "volumes": []}
        if known.get("residue") and not found.locked:
            known["residue"] = []  # the lock that was left has been taken off since
        return dict(
            known,
            changed=False,
            finished=True,
            phase=Phase.COMPLETED.value,
            target=dict(place, node=found.node),
            error=None,
        )

    def _begin(self, spec: Spec, secret: str, key: str, ended: List[Facts]) -> str:
        """Start a worker; returns the id of its migration."""
        target = _target(spec, secret)
        choice = _choice(spec, key, target)
        plan = preflight.look(spec, SourceNode(spec.vmid), qemu_of(spec.vmid))
        preflight.check_target(spec, plan, target)
        arrival.check_residue(spec, target, ended)
        migration_id = spec.incoming.migration_id or secrets.token_hex(16)
        worker_digest, program = package.install()
        opened = {
            "migration_id": migration_id,
            "spec": spec.to_dict(),
            "spec_digest": spec.digest,
            "worker_digest": worker_digest,
            "name": plan.name,
            "uuid": plan.config.uuid,
            "transport": choice.name,
            "transports_rejected": choice.rejected_as_list(),
        }
        _start({"migration_id": migration_id, "secret": secret, "key": key, "opened": opened}, program)
        return migration_id


# Seconds; the keeper waits 0.5 s, a loaded node needs some more to start an interpreter.
_RESTART_PATIENCE = 15.0

_ENDED = frozenset({Phase.COMPLETED.value, Phase.ROLLED_BACK.value, Phase.LOST.value})


def _await_restart(migration_id: str) -> bool:
    """Whether the worker answers; one that died is started again within a second, until then nothing can be said."""
    end = time.monotonic() + _RESTART_PATIENCE
    while time.monotonic() < end:
        try:
            Client(places.control_socket(migration_id)).close()
            return True
        except WorkerUnreachable:
            if places.read_facts(migration_id).final or not _is_kept(migration_id):
                return False
            time.sleep(0.2)
    return False


def _is_kept(migration_id: str) -> bool:
    """Whether something is left that starts the worker of this migration again: its keeper, or its unit (worker)."""
    return _unit_is_active(migration_id) if os.path.isdir("/run/systemd/system") else _has_keeper(migration_id)


def _unit_is_active(migration_id: str) -> bool:
    """Whether systemd has not given the unit up; between two starts it is ``activating`` (systemctl(1))."""
    asked = subprocess.run(
        ["systemctl", "is-active", f"crosscluster-{migration_id}.service"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=_START_TIMEOUT,
        check=False,
    )
    return asked.stdout.strip() in (b"active", b"activating", b"deactivating")


def _has_keeper(migration_id: str) -> bool:
    wanted = migration_id.encode("ascii")
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as stream:
                    words = stream.read().split(b"\0")
            except OSError:
                continue
            if wanted in words and {b"keep", b"run", b"recover"} & set(words):
                return True
    return False


def _worker_gone(facts: Facts) -> Dict[str, Any]:
    """A migration whose worker died for good is not finished, but waiting for it is useless."""
    error = Held(
        f"the worker of this migration is gone, in the phase {facts.phase.value}",
        side=Side.SOURCE,
        object=f"VM {facts.vmid}",
        remedy="Run the play again: a new worker recovers from the journal",
    )
    return {"finished": True, "error": error.to_dict()}


def _start(order: Mapping[str, Any], program: Optional[str] = None) -> None:
    """Run ``worker.pyz start``: secrets go through its stdin."""
    if program is None:
        _digest, program = package.install()
    done = subprocess.run(
        [sys.executable, "-I", "-B", program, "start"],
        input=json.dumps(order).encode("ascii"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=_START_TIMEOUT,
        cwd="/",
        check=False,
    )
    if done.returncode != 0:
        raise WorkerUnreachable(
            "the worker did not start",
            side=Side.SOURCE,
            object=str(order["migration_id"]),
            remedy="See worker.log in " + places.migration_directory(str(order["migration_id"])),
            facts={"stderr": done.stderr[-300:].decode("utf-8", "replace")},
        )


def _known(vmid: Optional[int], uuid: Optional[str]) -> Facts:
    facts = places.newest(vmid=vmid, uuid=uuid)
    if facts is None:
        raise NotFound(
            f"no migration of VM {vmid if vmid is not None else uuid} is known on this node",
            side=Side.SOURCE,
            object=f"VM {vmid if vmid is not None else uuid}",
        )
    return facts


_PROOF_FOLLOWS = "transport {name} is subject to the proof of the network, for which check mode sends nothing"


def _choice(spec: Spec, key: str, target: TargetApi, proof_follows: bool = False) -> policy.Choice:
    """The transport to begin with; what only shows when it is dialled, the worker finds out before any write."""
    known = available(spec.incoming, bool(key), bad_credentials, time.time(), proof_follows)
    if qemu_tcp.NAME in spec.transports and known[qemu_tcp.NAME] is None:
        known[qemu_tcp.NAME] = qemu_tcp.missing_right(target)
    return policy.choose(spec.transports, known)


def _target(spec: Spec, secret: str) -> TargetApi:
    return TargetApi(Session(endpoint_of(spec), secret), spec.target.node)


def _uuid(spec: Spec) -> Optional[str]:
    """The VM's uuid: as given, else from its configuration; None when it is not here any more."""
    if spec.uuid is not None:
        return spec.uuid
    try:
        return VmConfig.read(SourceNode(spec.vmid).config()).uuid or None
    except VmAbsent:
        return None


def _ended_with_residue(spec: Spec) -> List[Facts]:
    """The migrations of the VM that were rolled back and left something at the target, oldest first."""
    return [facts for facts in places.of_vm(spec.vmid) if facts.phase is Phase.ROLLED_BACK and facts.residue]


def _same_spec(spec: Spec, facts: Facts) -> None:
    if facts.spec is not None and facts.spec_digest != spec.digest:
        raise SpecDiffers(
            f"a migration of VM {spec.vmid} is under way with another spec",
            side=Side.SOURCE,
            object=f"VM {spec.vmid}",
            remedy="Finish or abort it (state: aborted) before asking for something else",
            facts={"differences": difference(facts.spec.identity(), spec.identity())},
        )


def _public(text: str) -> str:
    """A configuration without what nobody should read in a diff."""
    hidden = ("cipassword:", "sshkeys:")
    lines = [f"{line.split(':')[0]}: (not shown)" if line.startswith(hidden) else line for line in text.splitlines()]
    return "\n".join(lines) + "\n"
