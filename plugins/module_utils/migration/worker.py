# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The worker: one supervising process per migration. An edge file.

``python3 -I -B worker.pyz start|keep|run|recover|pump``. ``start`` reads one JSON object with the secrets from stdin,
lays the files out and detaches; ``keep`` restarts a worker that dies where no systemd does it; ``run`` is the worker;
``recover`` is one for a migration whose worker is gone, which it never begins; ``pump`` (``transport.pump``) carries
one byte stream and imports nothing of this.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import Any, Dict, List, Mapping, Optional

from ..errors import CrossclusterError, Side
from . import places
from .background import has_systemd, log_to, start_session, start_unit
from .context import Context
from .control_socket import ControlSocket
from .errors import MigrationError, SpecDiffers, TooLate, VmBusy, WorkerUnreachable
from .history import Facts, fold
from .journal import FORMAT, Journal, sync_directory
from .machine import Machine
from .progress import Progress
from .real_world import real_world
from .report import report
from .requests import Requests
from .spec import Limits, Spec, difference
from .states import ABORTABLE, FINAL, Phase, reached
from .steps import STEPS

__all__ = ["Worker", "main"]

_LOG_BYTES = 1 << 20  # of each of the two log files
_START_TIMEOUT = 60.0  # seconds until the control socket of a new worker answers; two Pythons start one after the other
_RESTARTS = 3  # in _RESTART_WINDOW seconds (DESIGN 2)
_RESTART_WINDOW = 60.0
_PATIENCE = 90.0  # seconds that a caller waits with a worker that cannot get out of its phase
_LINGER = 3.0  # seconds for which the control socket outlives the end, so that pollers read it there
_LOG = logging.getLogger(__name__)


class Worker:
    """One migration: opens the journal, serves the control socket, runs the machine.

    Args:
        migration_id: Names the journal.
        recovering: A worker was there before, however little the journal says: nobody waits for this migration.
    """

    def __init__(self, migration_id: str, recovering: bool = False) -> None:
        self.migration_id = migration_id
        self.journal = Journal(places.journal_path(migration_id))
        self.facts: Facts = fold(self.journal.records)
        if self.facts.spec is None:
            raise MigrationError("the journal has no spec", side=Side.SOURCE, object=self.journal.path)
        self.spec: Spec = self.facts.spec
        self.fresh = len(self.journal.records) == 1 and not recovering
        self.progress = Progress()
        self.progress.update(phase=self.facts.phase.value, transport=self.facts.transport)
        self.requests = Requests(self.spec, time.monotonic)
        world = real_world(self.spec, migration_id, _secrets(migration_id), sys.argv[0])
        self.context = Context(world, self.journal, self.facts, self.requests, self.progress)

    def serve(self) -> ControlSocket:
        """Open the control socket."""
        hello = {"migration_id": self.migration_id, "digest": self.facts.worker_digest}
        operations = {
            "status": self._status,
            "poll": self._poll,
            "advance": self._advance,
            "abort": self._abort,
            "forward": self._forward,
            "journal": self._journal,
        }
        server = ControlSocket(places.control_socket(self.migration_id), hello, operations)
        server.start()
        return server

    def run(self) -> None:
        """Run the machine to a final phase, then take the secrets away."""
        if self.fresh:
            self.journal.record("worker", pid=os.getpid())  # a second one knows that it is the second
        else:
            self._hold_migration_lock()
        Machine(self.context, STEPS).run(restarted=not self.fresh)
        _forget_secrets(self.migration_id)

    def _hold_migration_lock(self) -> None:
        """The lock file died with the worker before us; take it again if nobody else has it."""
        try:
            self.context.world.source.take_migration_lock(0.0)
        except CrossclusterError as error:
            _LOG.warning("%s", error)

    # Operations of the control socket

    def _report(self, snapshot: Mapping[str, Any]) -> Dict[str, Any]:
        with self.context.lock:
            result = report(self.facts, snapshot)
        stuck = self.context.stuck_since
        if result["finished"]:
            return result
        if stuck is not None and time.monotonic() - stuck > _PATIENCE:
            # The worker goes on trying; the caller is told and may come back (safety 6.1, H).
            return dict(result, finished=True, error=self.context.stuck_error or result["error"])
        goal, phase = self.requests.goal, self.facts.phase
        wanted = goal is not Phase.PREFLIGHT and phase in ABORTABLE and reached(phase, goal)
        return dict(result, finished=wanted, error=None)

    def _status(self, request: Mapping[str, Any]) -> Dict[str, Any]:
        return self._report(self._wait(request))

    def _wait(self, request: Mapping[str, Any]) -> Dict[str, Any]:
        version = request.get("version")
        wait = min(60.0, max(0.0, float(request.get("wait") or 0.0)))
        if self.facts.phase in FINAL or not isinstance(version, int):
            return self.progress.snapshot()
        return self.progress.wait(version, wait)

    def _poll(self, request: Mapping[str, Any]) -> Dict[str, Any]:
        renewed = self.requests.renew(str(request.get("lease")))
        return dict(self._status(request), lease_held=renewed)

    def _advance(self, request: Mapping[str, Any]) -> Dict[str, Any]:
        if request.get("digest") != self.facts.spec_digest:
            raise SpecDiffers(
                f"a migration of VM {self.spec.vmid} runs with another spec",
                side=Side.SOURCE,
                object=f"VM {self.spec.vmid}",
                remedy="Finish or abort it (state: aborted) before asking for something else",
                facts={"differences": difference(self.spec.identity(), dict(request.get("identity") or {}))},
            )
        if request.get("secret"):
            key = _secrets(self.migration_id).get("incoming_key", "")
            _write_secret(self.migration_id, str(request["secret"]), key)
            self.context.world.renew_secret(str(request["secret"]))
        goal = Phase(str(request.get("goal")))
        limits = request.get("limits")
        self.requests.advance(goal, str(request.get("lease")), Limits.restore(limits) if limits else None)
        return self._report(self.progress.snapshot())

    def _abort(self, request: Mapping[str, Any]) -> Dict[str, Any]:
        phase = self.facts.phase
        if phase not in ABORTABLE and phase not in (Phase.ROLLBACK, Phase.ROLLED_BACK):
            raise TooLate(
                f"the migration is {phase.value} already and goes on to its end",
                side=Side.SOURCE,
                object=f"VM {self.spec.vmid}",
                remedy="Wait for its end; move the VM back afterwards if it must not stay there",
            )
        self.requests.ask_abort()
        return self._status(request)

    def _forward(self, request: Mapping[str, Any]) -> Dict[str, Any]:
        """Only the machine's own thread decides; this waits for its word."""
        version = self.progress.snapshot()["version"]
        if self.facts.phase is Phase.HOLD:
            self.requests.ask_forward()
        if self.facts.forward or self.facts.phase is not Phase.HOLD:
            return self._report(self.progress.snapshot())
        return self._status(dict(request, version=version))

    def _journal(self, _request: Mapping[str, Any]) -> Dict[str, Any]:
        return {"records": list(self.journal.records)}


def _secrets(migration_id: str) -> Dict[str, str]:
    """The secrets; none after a reboot of the node, when only what needs no target can be done."""
    try:
        with open(places.secrets_path(migration_id), encoding="utf-8") as stream:
            return {str(name): str(value) for name, value in json.load(stream).items()}
    except (OSError, ValueError, AttributeError) as error:
        _LOG.warning("the secrets of this migration are not there: %s", error)
        return {}


def _forget_secrets(migration_id: str) -> None:
    path = places.secrets_path(migration_id)
    if os.path.exists(path):
        os.unlink(path)


def _run(migration_id: str, recovering: bool = False) -> int:
    """The worker process."""
    log_to(places.log_path(migration_id), _LOG_BYTES)
    lock = places.VmLock(places.read_facts(migration_id).vmid)
    if not lock.take(migration_id):
        _LOG.error("another worker holds this VM")
        if lock.holder() != migration_id:  # one of the same migration is just quicker: its files are in use
            _step_back(migration_id)
        return 0
    try:
        worker = Worker(migration_id, recovering)
        server = worker.serve()
        _LOG.info("worker %d of migration %s in phase %s", os.getpid(), migration_id, worker.facts.phase.value)
        worker.run()
        lock.release()
        time.sleep(_LINGER)
        server.close()
        shutil.rmtree(places.run_directory(migration_id), ignore_errors=True)
        return 0
    except CrossclusterError as error:
        _LOG.error("the worker ends: %s", error)
        return 1
    except Exception:  # the last door: the log must have it, the keeper starts again
        _LOG.exception("the worker died")
        return 1


def _step_back(migration_id: str) -> None:
    """Two controllers began at once: a journal in which nothing was done yet ends here, or it would hide the other."""
    journal = Journal(places.journal_path(migration_id))
    if len(journal.records) == 1:
        facts = fold(journal.records)
        error = VmBusy(
            "another migration of this VM has just been started",
            side=Side.SOURCE,
            object=f"VM {facts.vmid}",
            remedy="Run the play again: it attaches to that one if the spec is the same",
        )
        journal.record("phase", phase=Phase.ROLLED_BACK.value, time=time.time(), error=error.to_dict())
        shutil.rmtree(places.run_directory(migration_id), ignore_errors=True)  # with the secrets
    journal.close()


def _keep(migration_id: str, word: str) -> int:
    """Wait for the worker and start it again when it dies: at most 3 times in 60 s (DESIGN 2)."""
    starts: List[float] = []
    while True:
        now = time.monotonic()
        starts = [start for start in starts if now - start < _RESTART_WINDOW] + [now]
        if len(starts) > _RESTARTS + 1:
            return 1
        program = [sys.executable, "-I", "-B", sys.argv[0], word, migration_id]
        worker = subprocess.Popen(program, cwd="/", start_new_session=True)
        status = worker.wait()
        _end_group(worker.pid)
        if status == 0:
            return 0
        time.sleep(0.5)


def _end_group(group: int) -> None:
    """What a dead worker left: its pumps, and a command of the node that must not take effect after it."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def _start() -> int:
    """Lay out the files of a migration, detach its worker, wait until it answers."""
    order = json.load(sys.stdin)
    migration_id = order["migration_id"]
    first = order.get("opened") is not None
    if first:  # before the secret is written: what no journal names, nobody would ever take away
        os.makedirs(places.migration_directory(migration_id), mode=0o700)
        sync_directory(os.path.dirname(places.migration_directory(migration_id)))
        begun = dict(order["opened"], format=FORMAT, phase=Phase.PREFLIGHT.value, time=time.time())
        Journal.create(places.journal_path(migration_id), "opened", **begun)
    os.makedirs(places.RUN, mode=0o700, exist_ok=True)
    os.makedirs(places.run_directory(migration_id), mode=0o700, exist_ok=True)
    secrets_path = places.secrets_path(migration_id)
    if order["secret"] or not os.path.exists(secrets_path):  # an abort brings none and must not lose the one there
        _write_secret(migration_id, order["secret"], order.get("key") or _secrets(migration_id).get("incoming_key", ""))
    _detach(migration_id, "run" if first else "recover")
    return 0 if _answers(migration_id) else 1


def _write_secret(migration_id: str, secret: str, key: str = "") -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    descriptor = os.open(places.secrets_path(migration_id), flags, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump({"target_api_token_secret": secret, "incoming_key": key}, stream)


def _detach(migration_id: str, word: str) -> None:
    """A transient unit where systemd runs, else a session of its own under a keeper (DESIGN 2)."""
    program = [sys.executable, "-I", "-B", sys.argv[0]]
    if not has_systemd():
        start_session([*program, "keep", migration_id, word])
        return
    properties = (
        "Restart=on-failure",
        "RestartSec=500ms",
        f"StartLimitBurst={_RESTARTS + 1}",
        f"StartLimitIntervalSec={int(_RESTART_WINDOW)}",
        "ProtectHome=read-only",  # not "yes": a ca_path may lie below /root or /home
    )
    start_unit(f"crosscluster-{migration_id}", properties, [*program, word, migration_id])


def _answers(migration_id: str) -> bool:
    from .client import Client

    end = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < end:
        try:
            Client(places.control_socket(migration_id)).close()
            return True
        except WorkerUnreachable:
            if places.read_facts(migration_id).final:
                return True
            time.sleep(0.05)
    return False


def main(arguments: Optional[List[str]] = None) -> int:
    """The program's door."""
    words = sys.argv[1:] if arguments is None else arguments
    os.umask(0o077)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if words[:1] == ["start"]:
        return _start()
    if len(words) == 2 and words[0] in ("run", "recover"):
        return _run(places.checked(words[1]), recovering=words[0] == "recover")
    if len(words) == 3 and words[0] == "keep" and words[2] in ("run", "recover"):
        return _keep(places.checked(words[1]), words[2])
    sys.stderr.write("usage: worker.pyz start | keep ID run|recover | run ID | recover ID | pump\n")
    return 2
