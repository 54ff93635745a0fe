# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A source node, a source QEMU and a target that behave as the references say, in memory and without time.

The target is as unkind as Proxmox: a lost connection frees nothing, a token can unlock nothing, a buffered command
is executed after its connection is gone. ``Faults`` says what goes wrong; ``running`` is the invariant to look at.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Set, Tuple
from urllib.parse import quote

from ansible_collections.crosscluster.migration.plugins.module_utils.migration.errors import WorkerUnreachable
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.recovery_errors import (
    IntentMissing,
    TargetNotLoaded,
    TunnelTaskRunning,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox import replies
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.errors import (
    ApiOutcomeUnknown,
    ApiUnreachable,
    ChannelLost,
    CommandRefused,
    LockForeign,
    ParameterRefused,
    ReplyTimeout,
    TunnelPoisoned,
    VmAbsent,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.target_api import (
    StorageInfo,
    TaskStatus,
    TunnelGrant,
    VmStatus,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.qemu.errors import QmpRefused, QmpUnreachable
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.errors import PumpFailed
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.incoming_errors import IncomingFailed
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import EndReason, Kind, PumpEnd
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.policy import Rejection

UUID = "7ad2f857-bc18-4222-b836-574a1a2b4014"
CONFIG = f"""boot: order=scsi0
cores: 1
machine: pc-q35-7.2
memory: 128
name: web01
net0: virtio=BC:24:11:7A:D2:F8,bridge=vmbr0
scsi0: local:100/vm-100-disk-0.raw,size=64M
smbios1: uuid={UUID}
"""
UPID = "UPID:beta1:00000025:00036475:6B01DCB5:qmtunnel:{vmid}:mig@pve!move:"
DISK = 64 << 20


class Crash(BaseException):
    """The worker process dies at this very point."""


@dataclass
class Faults:
    """What goes wrong. Commands are those of the tunnel."""

    lose_channel_at: str = ""  # before this command is sent
    silent_at: str = ""  # this command never arrives, the connection stays
    lose_reply_of: str = ""  # the command is executed, the connection is gone
    silent_reply_of: str = ""  # the command is executed, the reply never comes, the connection stays
    refuse: Dict[str, str] = field(default_factory=dict)  # command -> text
    post_unknown: bool = False
    target_qemu_dies_at: str = ""
    mirror_error: str = ""
    ram_error: str = ""
    bad_certificate: str = ""  # QEMU's words at object-add
    handshake_error: str = ""  # QEMU's words about the other side's certificate
    api_down: bool = False
    before: Optional[Callable[[str], None]] = None  # called with each tunnel command


class FakeClock:
    """Time passes by sleeping only."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        self.now += 0.0001
        return self.now

    def wall(self) -> float:
        return 1_700_000_000.0 + self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class FakeQemu:
    """The source QEMU behind its monitor."""

    def __init__(self, clock: FakeClock, paused: bool = False) -> None:
        self.clock = clock
        self.alive = True
        self.state = "paused" if paused else "running"
        self.migration = "none"
        self.jobs: Dict[str, Dict[str, Any]] = {}
        self.nodes: List[str] = []
        self.version = (10, 0, 0)
        self.faults = Faults()
        self.target: Optional[FakeTarget] = None
        self.commands: List[str] = []
        self.remaining = 0
        self.objects: Dict[str, Dict[str, Any]] = {}
        self.parameters: Dict[str, Any] = {"tls-creds": "", "tls-hostname": "", "tls-authz": ""}
        self.encrypted: List[Any] = []  # the names that were checked in the handshakes of disks and RAM

    def run(self, command: str, arguments: Any = None, timeout: float = 5.0) -> Any:
        if not self.alive:
            raise QmpUnreachable("gone", side=replies_side(), object="qmp")
        self.commands.append(command)
        return getattr(self, command.replace("-", "_"))(arguments or {})

    @contextlib.contextmanager
    def session(self, deadline: float) -> Any:
        yield self

    def execute(self, command: str, arguments: Any = None) -> Any:
        return self.run(command, arguments)

    def wait_event(self, names: Any, deadline: float) -> Any:
        self.clock.sleep(0.1)

    def query_status(self, _a: Any) -> Any:
        return {"status": self.state, "running": self.state == "running"}

    def query_version(self, _a: Any) -> Any:
        major, minor, micro = self.version
        return {"qemu": {"major": major, "minor": minor, "micro": micro}}

    def query_block(self, _a: Any) -> Any:
        return [
            {
                "device": "drive-scsi0",
                "qdev": "scsi0",
                "inserted": {
                    "node-name": "#block1",
                    "file": "/x",
                    "drv": "raw",
                    "ro": False,
                    "image": {"virtual-size": DISK, "format": "raw"},
                },
            }
        ]

    def query_machines(self, _a: Any) -> Any:
        return [{"name": "pc-q35-7.2"}]

    def qom_get(self, a: Any) -> Any:
        return "pc-q35-7.2-machine" if a["property"] == "type" else 1500

    def query_memory_size_summary(self, _a: Any) -> Any:
        return {"base-memory": 128 << 20}

    def object_add(self, a: Any) -> None:
        if self.faults.bad_certificate:
            raise QmpRefused("object-add", "GenericError", self.faults.bad_certificate, object="qmp")
        self.objects[a["id"]] = a

    def object_del(self, a: Any) -> None:
        del self.objects[a["id"]]

    def qom_list(self, _a: Any) -> Any:
        return [{"name": name, "type": "child<x>"} for name in ["pc.ram", *self.objects]]

    def blockdev_add(self, a: Any) -> None:
        words = self._handshake(a.get("tls-creds", ""), a.get("tls-hostname", ""))
        if words:
            raise QmpRefused("blockdev-add", "GenericError", words, object="qmp")
        self.nodes.append(a["node-name"])

    def _handshake(self, credentials: str, name: str) -> str:
        """What goes wrong between the two QEMUs; a target in the clear dies of a TLS source (qemu-facts 4)."""
        armed = self.target is not None and self.target.armed
        if not credentials:
            return "TLS negotiation required" if armed else ""
        if credentials not in self.objects:
            raise AssertionError("credentials that are not there")
        if not armed:
            raise AssertionError("a TLS source before an armed target")
        self.encrypted.append(name)
        return self.faults.handshake_error

    def blockdev_mirror(self, a: Any) -> None:
        self.jobs[a["job-id"]] = {"status": "running", "error": None, "looks": 0, "synced": False}

    def query_block_jobs(self, _a: Any) -> Any:
        rows = []
        for name, job in self.jobs.items():
            if job["status"] == "concluded":
                continue
            job["looks"] += 1
            if self.faults.mirror_error and job["looks"] > 1:
                job.update(status="concluded", error=self.faults.mirror_error)
                continue
            if job["looks"] > 2 and job["status"] == "running":
                job["status"] = "ready"
            rows.append(
                {
                    "device": name,
                    "type": "mirror",
                    "status": job["status"],
                    "offset": min(DISK, job["looks"] * (DISK // 2)) - self.remaining,
                    "len": DISK,
                    "ready": job["status"] == "ready",
                    "speed": 0,
                    "actively-synced": job["synced"],
                }
            )
        return rows

    def query_jobs(self, _a: Any) -> Any:
        return [
            {"id": name, "type": "mirror", "status": job["status"], **({"error": job["error"]} if job["error"] else {})}
            for name, job in self.jobs.items()
        ]

    def block_job_change(self, a: Any) -> None:
        self.jobs[a["id"]]["synced"] = True

    def block_job_cancel(self, a: Any) -> None:
        self.jobs[a["device"]]["status"] = "concluded"

    def block_job_set_speed(self, a: Any) -> None:
        self.jobs[a["device"]]["speed"] = a["speed"]

    def job_dismiss(self, a: Any) -> None:
        del self.jobs[a["id"]]

    def blockdev_del(self, a: Any) -> None:
        self.nodes.remove(a["node-name"])

    def query_named_block_nodes(self, _a: Any) -> Any:
        return [{"node-name": name} for name in [*self.nodes, "#block1"]]

    def query_migrate_capabilities(self, _a: Any) -> Any:
        return [{"capability": name, "state": False} for name in ("return-path", "pause-before-switchover", "xbzrle")]

    def migrate_set_capabilities(self, _a: Any) -> None:
        pass

    def migrate_set_parameters(self, a: Any) -> None:
        self.parameters.update(a)

    def query_migrate_parameters(self, _a: Any) -> Any:
        return dict(self.parameters)

    def migrate(self, _a: Any) -> None:
        self.migration = "active"
        self.faults.ram_error = (
            self._handshake(self.parameters["tls-creds"], self.parameters["tls-hostname"]) or self.faults.ram_error
        )

    def query_migrate(self, _a: Any) -> Any:
        answer = {"status": self.migration, "ram": {"total": 128 << 20, "transferred": 50 << 20, "remaining": 1 << 20}}
        if self.migration == "active":
            if self.faults.ram_error:
                self.migration, answer["status"] = "failed", "failed"
                answer["error-desc"] = self.faults.ram_error
            else:
                self.migration, self.state = "pre-switchover", "paused" if self.state == "paused" else "finish-migrate"
        elif self.migration == "device":
            self.migration, self.state = "completed", "postmigrate"
            if self.target is not None:
                self.target.load()
        return answer | {"downtime": 30}

    def migrate_continue(self, _a: Any) -> None:
        if self.migration != "pre-switchover":
            raise AssertionError("migrate-continue outside of pre-switchover")
        self.migration = "device"

    def migrate_cancel(self, _a: Any) -> None:
        if self.migration in ("active", "pre-switchover", "device"):
            self.migration = "cancelled"
            if self.state == "finish-migrate":
                self.state = "running"
            if self.target is not None:
                self.target.qemu = ""

    def cont(self, _a: Any) -> None:
        self.state = "running"

    def quit(self, _a: Any) -> None:
        self.alive = False


def replies_side() -> Any:
    from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side

    return Side.SOURCE


class FakeExport:
    """A ``pvesm export`` that does what it should."""

    announces_length = True

    def close_output(self) -> None:
        pass

    def wait(self, timeout: float) -> int:
        return 0


class FakeSource:
    """The source node's files and commands."""

    def __init__(self, qemu: FakeQemu, text: str = CONFIG) -> None:
        self.qemu = qemu
        self.text = text
        self.lock = ""
        self.ha = ""
        self.held = False
        self.options: Dict[str, str] = {}

    def take_migration_lock(self, timeout: float) -> None:
        self.held = True

    def release_migration_lock(self) -> None:
        self.held = False

    def config(self) -> bytes:
        return (self.text + (f"lock: {self.lock}\n" if self.lock else "")).encode()

    def node_name(self) -> str:
        return "alpha1"

    def ha_state(self) -> str:
        return self.ha

    def is_replicated(self) -> bool:
        return False

    def references(self, volids: Any) -> Dict[str, List[int]]:
        return {}

    def storage_types(self) -> Dict[str, str]:
        return {"local": "dir"}

    def firewall(self) -> None:
        return None

    def volume_list(self, storages: Any) -> Dict[str, Dict[str, Any]]:
        return {}

    def qemu_alive(self) -> bool:
        return self.qemu.alive

    def set_lock(self) -> None:
        if self.lock:
            raise LockForeign("locked", side=replies_side(), object="VM 100")
        self.lock = "migrate"

    def unlock(self) -> None:
        self.lock = ""

    def stop(self) -> None:
        self.qemu.alive = False

    def set_options(self, options: Dict[str, str]) -> None:
        self.options.update(options)
        kept = [line for line in self.text.splitlines() if line.partition(":")[0] not in options]
        self.text = "".join(f"{line}\n" for line in kept + [f"{k}: {quote(v, ' ,=:')}" for k, v in options.items()])

    def export(self, volid: str, stream_format: str, with_snapshots: bool) -> FakeExport:
        return FakeExport()


class FakeTarget:
    """The target's API and everything behind it; outlives every worker."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.vms: Dict[int, Dict[str, Any]] = {}
        self.qemu = ""  # qmpstatus, empty without a process
        self.armed = False  # takes nothing but TLS
        self.ever_ran = False
        self.volumes: List[str] = []
        self.task_running = False
        self.log: List[str] = []
        self.faults = Faults()
        self.rights = ["Sys.Incoming", "Sys.Modify"]
        self.caps: List[str] = []
        self.plain_start: Dict[str, Any] = {}
        self.connection: Optional[FakeTunnel] = None
        self.import_ends: Callable[[], bool] = lambda: True  # whether the importer has seen the end of its stream

    def _up(self) -> None:
        if self.faults.api_down:
            raise ApiUnreachable("down", object="api", status=0)

    def load(self) -> None:
        """The whole RAM arrived."""
        if self.qemu == "inmigrate":
            self.qemu = "paused"

    def open_tunnel(self, vmid: int, storages: Any, bridges: Any) -> TunnelGrant:
        self._up()
        if vmid in self.vms:
            raise ParameterRefused(
                "Parameter verification failed", object="mtunnel", status=400, errors={"vmid": "already exists"}
            )
        self.vms[vmid] = {"lock": "create"}
        self.task_running, self.log = True, ["mtunnel started"]
        if self.faults.post_unknown:
            raise ApiOutcomeUnknown("no answer", object="mtunnel", status=0)
        return TunnelGrant(UPID.format(vmid=vmid), "PVETUNNEL:x", f"/run/qemu-server/{vmid}.mtunnel")

    def task_status(self, upid: str) -> TaskStatus:
        self._up()
        return TaskStatus(self.task_running, "" if self.task_running else "mtunnel exited unexpectedly")

    def task_log(self, upid: str) -> List[str]:
        self._up()
        return list(self.log)

    def delete_task(self, upid: str) -> None:
        self._up()
        self.task_running = False

    def own_tunnel_task(self, vmid: int) -> Optional[str]:
        self._up()
        return UPID.format(vmid=vmid) if self.task_running else None

    def vm_status(self, vmid: int, timeout: Optional[float] = None) -> VmStatus:
        self._up()
        if vmid not in self.vms:
            raise VmAbsent("absent", object=f"VM {vmid}", status=500)
        alive = bool(self.qemu)
        status = "running" if alive else "stopped"
        return VmStatus(status, self.qemu or "stopped", self.vms[vmid]["lock"], alive)

    def vm_config(self, vmid: int) -> Dict[str, Any]:
        if "conf" not in self.vms[vmid]:
            return dict(self.vms[vmid])
        return {"lock": self.vms[vmid]["lock"], "smbios1": f"uuid={UUID}"}

    def vm_resources(self) -> List[Any]:
        self._up()
        return []

    def storages(self) -> List[StorageInfo]:
        return [StorageInfo("fast", "dir", 1 << 40, 1 << 40, True)]

    def bridge_names(self) -> List[str]:
        return ["vmbr0"]

    def volumes_of(self, storage: str, vmid: int) -> List[str]:
        self._up()
        return [volid for volid in self.volumes if volid.startswith(f"{storage}:{vmid}/")]

    def machines(self) -> List[str]:
        return ["pc-q35-7.2", "pc-i440fx-9.0+pve0", "virt-9.0"]

    def version(self) -> str:
        return "9.2.11"

    def permissions(self) -> Dict[str, List[str]]:
        return {"/": self.rights}


class FakeTunnel:
    """One control connection and the task behind it."""

    def __init__(self, target: FakeTarget, vmid: int) -> None:
        self.target, self.vmid = target, vmid
        self.poisoned = ""
        target.connection = self
        self.made: List[str] = []
        self.importing = ""

    def drop(self) -> None:
        """The connection is gone: the task ends, nothing is freed (mtunnel-protocol 8.1)."""
        self.poisoned = self.poisoned or "lost"
        self.target.task_running = False

    def _command(self, name: str, execute: Callable[[], Any]) -> Any:
        faults = self.target.faults
        if self.poisoned:
            raise TunnelPoisoned("poisoned", object="tunnel")
        if faults.before is not None:
            faults.before(name)
        if faults.target_qemu_dies_at == name:
            self.target.qemu = ""
        if faults.lose_channel_at == name:
            self.drop()
            raise ChannelLost("lost", object="tunnel")
        if faults.silent_at == name:
            self.poisoned = "no reply"
            raise ReplyTimeout("no reply", object="tunnel")
        self.target.log.append(f"received command '{name}'")
        if name in faults.refuse:
            raise CommandRefused(name, faults.refuse[name], object="tunnel")
        try:
            result = execute()
        except CommandRefused:
            if faults.silent_reply_of != name:
                raise
        if faults.lose_reply_of == name:
            self.drop()
            raise ChannelLost("lost", object="tunnel")
        if faults.silent_reply_of == name:
            self.poisoned = "no reply"
            raise ReplyTimeout("no reply", object="tunnel")
        return result

    def tick(self) -> None:
        if self.poisoned == "lost":
            raise ChannelLost("lost", object="tunnel")

    def late_reply(self, timeout: float) -> None:
        self.target.clock.sleep(timeout)

    def close(self) -> None:
        """Of a connection that fell silent the target hears nothing, not even its end."""
        if not self.target.faults.api_down:
            self.drop()

    def version(self, timeout: Optional[float] = None) -> Any:
        return self._command("version", lambda: replies.VersionReply(2, 0, frozenset(self.target.caps)))

    def bwlimit(self, storages: Any, limit: Any = None) -> Any:
        return self._command("bwlimit", lambda: replies.BwlimitReply(None))

    def disk(self, storage: str, drive: Any, image_format: str) -> Any:
        def allocate() -> Any:
            volid = f"{storage}:{self.vmid}/vm-{self.vmid}-disk-{len(self.target.volumes)}.{image_format}"
            self.target.volumes.append(volid)
            self.made.append(volid)
            return replies.DiskReply(volid, f"{volid},size=64M")

        return self._command("disk", allocate)

    def disk_import(
        self, volname: str, image_format: str, storage: str, export_formats: Any, with_snapshots: bool
    ) -> None:
        def begin() -> None:
            self.importing = f"{storage}:{self.vmid}/{volname}"
            self.target.volumes.append(self.importing)

        self._command("disk-import", begin)

    def query_disk_import(self) -> Any:
        """The volume counts as made only once its ``complete`` was read (mtunnel-protocol 5.3)."""

        def answer() -> Any:
            if not self.importing:
                raise CommandRefused("query-disk-import", "no disk import running", object="tunnel")
            if not self.target.import_ends():
                self.target.clock.sleep(5.0)  # nothing to relay: the server waits (mtunnel-protocol 7.3)
                return replies.ImportStatus(replies.ImportState.PENDING, "", "")
            volid, self.importing = self.importing, ""
            self.made.append(volid)
            return replies.ImportStatus(replies.ImportState.COMPLETE, "", volid)

        return self._command("query-disk-import", answer)

    def config(self, conf: str, firewall: Any = None) -> None:
        self._command("config", lambda: self.target.vms[self.vmid].update(lock="migrate", conf=conf))

    def start(self, *_a: Any) -> Any:
        def begin() -> None:
            self.target.qemu, self.target.armed = "inmigrate", False

        return self._command("start", begin)

    def start_plain(self, command: Any, address: str) -> Any:
        """Patched targets only (mtunnel-protocol 6.2)."""
        self.target.plain_start = command.request()
        self.start()
        return replies.PlainStartReply(address, 60000, 60001)

    def ticket(self, path: str) -> str:
        return self._command("ticket", lambda: "PVETUNNEL:t")

    def resume(self, timeout: Optional[float] = None) -> None:
        def go() -> None:
            if not self.target.qemu:
                raise CommandRefused("resume", f"VM {self.vmid} not running", object="tunnel")
            self.target.qemu, self.target.ever_ran = "running", True

        self._command("resume", go)

    def nbdstop(self, timeout: Optional[float] = None) -> None:
        def end() -> None:
            if not self.made:
                raise CommandRefused("nbdstop", "NBD server not running", object="tunnel")

        self._command("nbdstop", end)

    def stop(self) -> None:
        def kill() -> None:
            self.target.qemu = ""

        self._command("stop", kill)

    def unlock(self) -> None:
        self._command("unlock", lambda: self.target.vms[self.vmid].update(lock=""))

    def quit(self, cleanup: bool) -> None:
        def end() -> None:
            if cleanup:
                self.target.vms.pop(self.vmid)
                self.target.volumes = [volid for volid in self.target.volumes if volid not in self.made]

        self._command("quit", end)


class FakePump:
    """A byte stream that carries everything at once."""

    def __init__(self) -> None:
        self.peer: Optional[Dict[str, Any]] = {"name": "b1", "address": "192.0.2.2"}
        self.opened: Optional[str] = None
        self.sent = self.received = self.acknowledged = 1 << 20
        self.in_flight = 0
        self.acknowledged_rate = 0
        self.busy_s = 0.0
        self.ended: Optional[PumpEnd] = None
        self.armed = False
        self.rates: List[Optional[int]] = []
        self.write_blocking = False
        self.draining = False

    def poll_events(self) -> List[Any]:
        return []

    def wait_standing(self, deadline: float) -> None:
        if self.ended is not None:
            facts = {"code": self.ended.code}
            raise PumpFailed("The stream failed", side=replies_side(), object="stream", facts=facts)

    def open(self, listen: Optional[str] = None) -> None:
        self.opened = listen

    def wait_listening(self, deadline: float) -> None:
        pass

    def set_rate(self, rate: Optional[int]) -> None:
        self.rates.append(rate)

    def set_write_blocking(self) -> None:
        self.write_blocking = True

    def arm_switchover(self, seconds: float) -> None:
        self.armed = True
        self.armed_for = seconds

    def disarm_switchover(self) -> None:
        self.armed = False

    def kill(self) -> None:
        self.ended = PumpEnd(EndReason.CUT, False)


class FakeIncoming:
    """The listening end on the target node: does as root what no token can."""

    def __init__(self, target: FakeTarget) -> None:
        self.target = target
        self.calls: List[Tuple[str, Dict[str, Any]]] = []
        self.refuses = ""
        self.opaque_key = "0c" * 32
        self.loses_answer_of = ""
        self.closed = False

    def call(self, op: str, wait: float = 0.0, **parameters: Any) -> Dict[str, Any]:
        self.calls.append((op, parameters))
        if op == "remove":
            self.target.vms.pop(parameters["recorded"]["vmid"], None)
            self.target.qemu = ""
            gone = set(parameters["recorded"]["volumes"])
            self.target.volumes = [volid for volid in self.target.volumes if volid not in gone]
        if op in ("tls_arm", "tls_disarm"):
            if op == self.refuses:
                raise IncomingFailed("refused", object="QEMU")
            self.target.armed = op == "tls_arm"
        if op == "opaque_key":
            return {"key": self.opaque_key}
        if op == "state" and op != self.loses_answer_of:
            return self._state()
        if op == "task":
            received = any("received command 'resume'" in line for line in self.target.log)
            return {"running": self.target.task_running, "resume_received": received}
        if op == "end_task":
            self.target.task_running = False
        if op == "resume":
            self._resume(parameters["recorded"])
        if op == self.loses_answer_of:
            raise WorkerUnreachable("no answer", side=replies_side(), object="control")
        return {}

    def _state(self) -> Dict[str, Any]:
        lock = next((vm["lock"] for vm in self.target.vms.values()), "")
        status = "completed" if self.target.qemu in ("paused", "running") else "none"
        return {
            "exists": bool(self.target.vms), "run_state": self.target.qemu or None, "migrate": {"status": status},
            "uuid": UUID, "lock": lock,
        }  # fmt: skip

    def _resume(self, recorded: Dict[str, Any]) -> None:
        """As ``target_recovery``: nothing while the task runs, no guest without intent, no unlock before the fence."""
        if self.target.task_running:
            raise TunnelTaskRunning("the tunnel task has not ended", object="task")
        if not recorded["commit_intent"]:
            raise IntentMissing("no intent", object="VM")
        if self.target.qemu != "running" and recorded["run_state"] == "running":
            if self.target.qemu != "paused":
                raise TargetNotLoaded("not loaded", object="VM")
            self.target.qemu, self.target.ever_ran = "running", True
        if recorded["source_fenced"]:
            self.target.vms[recorded["vmid"]]["lock"] = ""

    def close(self) -> None:
        self.closed = True


class Cluster:
    """Both sides of one migration; a worker that dies is replaced, they are not."""

    def __init__(self, paused: bool = False, text: str = CONFIG) -> None:
        self.clock = FakeClock()
        self.qemu = FakeQemu(self.clock, paused)
        self.source = FakeSource(self.qemu, text)
        self.target = FakeTarget(self.clock)
        self.faults = self.qemu.faults = self.target.faults = Faults()
        self.qemu.target = self.target
        self.pumps: List[FakePump] = []
        self.dialled: List[str] = []
        self.opaque_keys: List[str] = []  # that went along with each
        self.streams: List[str] = []  # what they were called on the wire, where none is opened twice
        self.plain: List[Tuple[str, str, int, Any]] = []  # streams in clear text: name, address, port, rate
        self.unreachable: Set[str] = set()  # streams that the incoming worker refuses
        self.refusal = ""  # the code of why
        self.bad_credentials: Dict[str, Rejection] = {}  # why the source's certificate will not do for a transport
        self.incoming = FakeIncoming(self.target)
        self.lives = 0

    @property
    def running(self) -> int:
        """Copies of the guest that run at this moment."""
        return int(self.qemu.alive and self.qemu.state == "running") + int(self.target.qemu == "running")

    def world(self) -> Any:
        from ansible_collections.crosscluster.migration.plugins.module_utils.migration.world import World

        def open_tunnel(vmid: int, grant: Any) -> FakeTunnel:
            return FakeTunnel(self.target, vmid)

        def open_stream(name: str, kind: Kind, *_rest: Any) -> Any:
            self.pumps.append(FakePump())
            return self.pumps[-1], f"/run/crosscluster/x/{name}.sock"

        def open_plain(name: str, kind: Kind, address: str, port: int, rate: Any) -> Any:
            self.plain.append((name, address, port, rate))
            return open_stream(name, kind)

        def dial(_transport: str, name: str, kind: Kind, stream: str, *rest: Any) -> Any:
            self.pumps.append(FakePump())
            self.dialled.append(name)
            self.opaque_keys.append(rest[-1])
            again, self.streams = stream in self.streams, [*self.streams, stream]
            if name in self.unreachable or stream in self.unreachable or (again and kind is Kind.CONTROL):
                self.pumps[-1].peer = None
                self.pumps[-1].ended = PumpEnd(EndReason.REFUSED, False, "no answer", self.refusal)
            return self.pumps[-1]

        return World(
            self.clock,
            self.source,
            self.qemu,
            self.target,
            open_tunnel,
            open_stream,
            open_plain,
            dial,
            lambda _path: self.incoming,
            lambda name: f"/run/crosscluster/x/{name}.sock",
            True,
            lambda _domain, transport: self.bad_credentials.get(transport),
            lambda _secret: None,
        )

    def worker_dies(self) -> None:
        """Its sockets close: streams are cut, the control connection ends (DESIGN 2)."""
        if self.target.connection is not None:
            self.target.connection.drop()
        if self.qemu.migration in ("active", "device"):
            self.qemu.migration = "failed"
            if self.qemu.state == "finish-migrate":
                self.qemu.state = "running"
            if self.target.qemu == "inmigrate":
                self.target.qemu = ""
        for job in self.qemu.jobs.values():
            job.update(status="concluded", error="Input/output error")
