# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The task of a remote migration: phases, log, and what each failure leaves behind (mtunnel-protocol 2.3, 7.2, 8.3)."""

from __future__ import annotations

import datetime
import os
import re
import select
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional

from lab.node import vm, vmconfig
from lab.node.base import Die, Node, complain
from lab.node.command_line import bridge_mtu, nics
from lab.node.destroy import destroy
from lab.node.flock import config_lock, migration_lock
from lab.node.process import command, pid
from lab.node.properties import format_drive, parse_drive
from lab.node.storage import Storages

from .endpoint import Endpoint, IdMap
from .mirrors import Mirrors
from .ram import Ram
from .rest import Remote
from .tunnel import Tunnel
from .volumes import ProblemVolumes, SourceVolume, correct_sizes, drive_object, import_name, ordered, scan

__all__ = ["Job", "Wanted"]

WS_TUNNEL_VERSION = 2
CAPABILITY = "insecure-remote"
NO_CAPABILITY = (
    "Remote tunnel endpoint does not support insecure remote migration, upgrade target or omit migration_type=insecure"
)
RAM_SOCKET = re.compile(r"/run/qemu-server/(?:\d+)\.migrate")
TCP = re.compile(r"(localhost|[\d.]+|\[[\d.:a-fA-F]+\]):(\d+)")


@dataclass(frozen=True)
class Wanted:
    """What was asked for; bwlimit in KiB/s. insecure and network are the patch series' (6.2)."""

    vmid: int
    target_vmid: int
    target_node: str
    endpoint: Endpoint
    storages: IdMap
    bridges: IdMap
    online: bool = False
    delete: bool = False
    bwlimit: Optional[int] = None
    insecure: bool = False
    network: Optional[str] = None


class Job:
    """One migration."""

    def __init__(self, node: Node, wanted: Wanted) -> None:
        self.node, self.wanted, self.vmid = node, wanted, wanted.vmid
        self.started = time.time()
        self.running = self.paused = self.errors = False
        self.tunnel: Optional[Tunnel] = None
        self.mirrors: Optional[Mirrors] = None
        self.ram: Optional[Ram] = None
        self.renamed: Dict[str, str] = {}
        self.drives: Dict[str, str] = {}
        self.allocated: Dict[str, Dict[str, Any]] = {}
        self.limits: Dict[str, Optional[float]] = {}

    # -- log --------------------------------------------------------------------------------------------------------

    @staticmethod
    def log(text: str) -> None:
        """A line with its time."""
        complain(f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S} {text}")

    def error(self, text: str) -> None:
        """A line that says what failed."""
        self.log("ERROR: " + text)

    @property
    def took(self) -> str:
        """Time since the start."""
        whole = int(time.time() - self.started)
        return f"{whole // 3600:02d}:{whole % 3600 // 60:02d}:{whole % 60:02d}"

    # -- the whole --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """The task's work; both flocks are held to its end."""
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a dead tunnel client is an error of a phase
        with migration_lock(self.node, self.vmid), config_lock(self.node, self.vmid):
            try:
                self._prepare()
                self._guarded_phase1()
            except Die as error:
                self.error(f"migration aborted (duration {self.took}): {error.text}")
                raise Die("migration aborted") from None
            if self.running:
                self._guarded_phase2()
            if not (self.running and self.errors):
                self._finish()
        if self.errors:
            self.error(f"migration finished with problems (duration {self.took})")
            raise Die("migration problems")
        self.log(f"migration finished successfully (duration {self.took})")

    # -- prepare ----------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        config = vmconfig.load(self.node, self.vmid)
        vmconfig.check_lock(config)
        self.running = pid(self.node, self.vmid) is not None
        if self.running and not self.wanted.online:
            raise Die("can't migrate running VM without --online")
        if self.running:
            self.paused = command(self.node, self.vmid, "query-status")["status"] == "paused"
            self.log("conntrack state migration not supported or disabled, active connections might get dropped")
        blocking = vm.local_resources(config.values)
        if blocking:
            raise Die("can't migrate VM which uses local devices: " + ", ".join(blocking))
        self._open_tunnel(config)

    def _open_tunnel(self, config: vmconfig.VmConfig) -> None:
        sids = {volume.storage for volume in self._scan(config)}
        bridges = {nic["bridge"] for nic in nics(config.values).values() if nic.get("bridge")}
        params = {
            "storages": ",".join(sorted({self.wanted.storages.of(sid) for sid in sids})),
            "bridges": ",".join(sorted({self.wanted.bridges.of(name) for name in bridges})),
        }
        remote = Remote(self.wanted.endpoint)
        grant = remote.post(f"/nodes/{self.wanted.target_node}/qemu/{self.wanted.target_vmid}/mtunnel", params)
        self.log(f"remote: started tunnel worker '{grant['upid']}'")
        place = f"/nodes/{self.wanted.target_node}/qemu/{self.wanted.target_vmid}/mtunnelwebsocket"
        self.tunnel = Tunnel(self.node, self.wanted.endpoint, place, grant)
        try:
            self._check_version()
        except Die:
            self.tunnel.close()  # no quit: the target's stub stays, locked (mtunnel-protocol 8.3)
            raise
        complain("websocket tunnel started")

    def _check_version(self) -> None:
        reply = self._call("version")
        remote, least = int(reply["api"]), int(reply["api"]) - int(reply["age"])
        self.log(f"local WS tunnel version: {WS_TUNNEL_VERSION}")
        self.log(f"remote WS tunnel version: {remote}")
        self.log(f"minimum required WS tunnel version: {least}")
        if least > WS_TUNNEL_VERSION:
            versions = f"(current: {WS_TUNNEL_VERSION}, required: {least})"
            raise Die(f"Remote tunnel endpoint not compatible, upgrade required {versions}")
        if remote < WS_TUNNEL_VERSION:
            raise Die(
                f"Remote tunnel endpoint too old, upgrade required (local: {WS_TUNNEL_VERSION}, remote: {remote})"
            )
        if self.wanted.insecure and CAPABILITY not in reply.get("caps", ()):
            raise Die(NO_CAPABILITY)

    def _call(self, name: str, parameters: Optional[Dict[str, Any]] = None, seconds: float = 0.0) -> Dict[str, Any]:
        if self.tunnel is None:
            raise Die("no tunnel")
        return self.tunnel.call(name, parameters, seconds)

    # -- phase 1 ----------------------------------------------------------------------------------------------------

    def _guarded_phase1(self) -> None:
        try:
            self._phase1()
        except Die as error:
            self.errors = True
            self.error(error.text)
            self.log("aborting phase 1 - cleanup resources")
            self._try(lambda: vmconfig.remove_lock(self.node, self.vmid, "migrate"))
            self._try(lambda: self._quit(True))
            raise

    def _phase1(self) -> None:
        self.log(
            f"starting migration of VM {self.vmid} to node '{self.wanted.target_node}' ({self.wanted.endpoint.host})"
        )
        vmconfig.set_lock(self.node, self.vmid, "migrate")
        config = vmconfig.load(self.node, self.vmid)
        volumes = self._scan(config)
        for volume in volumes:
            self.limits[volume.volid] = self._limit(self.wanted.storages.of(volume.storage))
        for volume in volumes:
            self.log(volume.found)
        lines = correct_sizes(self.node, config)
        for line in lines:
            self.log(line)
        if lines:
            vmconfig.store(self.node, self.vmid, config)
        self._copy([volume for volume in volumes if not volume.online])
        self._send_config(config, {volume.key: volume for volume in volumes if volume.online})

    def _scan(self, config: vmconfig.VmConfig) -> List[SourceVolume]:
        try:
            return scan(self.node, config, self.running)
        except ProblemVolumes as problem:
            for volid, reason in sorted(problem.reasons.items()):
                self.error(f"can't migrate '{volid}': {reason}")
            raise

    def _limit(self, sid: Optional[str]) -> Optional[float]:
        """KiB/s; the target may only lower it."""
        wanted = {"operation": "migration", "storages": [sid], "bwlimit": self.wanted.bwlimit}
        found = self._call("bwlimit", wanted)["bwlimit"]
        return float(found) if found else None

    def _copy(self, volumes: List[SourceVolume]) -> None:
        if volumes:
            self.log("copying local disk images")
        for volume in volumes:
            snapshots = int(volume.format not in ("raw",))
            name = import_name(volume.volid, self.vmid, self.wanted.target_vmid)
            reply = self._call(
                "disk-import",
                {
                    "volname": name,
                    "format": volume.format,
                    "storage": self.wanted.storages.of(volume.storage),
                    "export_formats": f"{volume.format}+size",
                    "with_snapshots": snapshots,
                    "migration_snapshot": 0,
                    "allow_rename": "1",
                },
            )
            self._stream(volume, reply["format"], snapshots, reply["socket"])
            new = self._await_import()
            self.renamed[volume.volid] = new
            self.log(f"volume '{volume.volid}' is '{new}' on the target")

    def _stream(self, volume: SourceVolume, form: str, snapshots: int, remote: str) -> None:
        """`pvesm export` into the forwarded socket."""
        local = f"/run/pve/{self.vmid}.storage"
        self.tunnel.forward(local, remote)  # type: ignore[union-attr]
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.node.path(local)))
            connection.shutdown(socket.SHUT_RD)
            argv = ["/usr/sbin/pvesm", "export", volume.volid, form, "-", "-with-snapshots", str(snapshots)]
            exporter = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=connection.fileno(), stderr=subprocess.PIPE
            )
            _relay_lines(exporter)
            connection.shutdown(socket.SHUT_WR)
            if exporter.wait():
                raise Die(f"storage migration for '{volume.volid}' failed - export: exit code {exporter.returncode}")

    def _await_import(self) -> str:
        while True:
            time.sleep(self.node.seconds(1.0))
            reply = self._call("query-disk-import")
            if reply["status"] == "complete":
                return str(reply["volid"])
            if reply["status"] == "error":
                raise Die("disk import failed - error")
            if reply.get("msg"):
                self.log(f"disk-import: {reply['msg'].rstrip()}")

    def _send_config(self, config: vmconfig.VmConfig, online: Dict[str, SourceVolume]) -> None:
        sent = vmconfig.VmConfig.parse(self.vmid, config.format())
        self._map_bridges(sent)
        for key in ordered(list(online)):
            self._allocate(key, online[key], parse_drive(config.values[key]))
            sent.values[key] = self.allocated[key]["drivestr"]
        for values in (sent.values, sent.pending):
            for key, text in values.items():
                values[key] = self._moved(text)
        try:
            firewall: Optional[str] = self.node.path(f"/etc/pve/firewall/{self.vmid}.fw").read_text("utf-8")
        except FileNotFoundError:
            firewall = None
        self._call("config", {"conf": sent.format(), "firewall-config": firewall})

    def _map_bridges(self, config: vmconfig.VmConfig) -> None:
        for key, nic in nics(config.values).items():
            old = nic.get("bridge")
            if old:
                new = self.wanted.bridges.of(old)
                self.log(f"mapped: {key} from {old} to {new}")
                config.values[key] = re.sub(r"(^|,)bridge=[^,]+", rf"\g<1>bridge={new}", config.values[key])

    def _allocate(self, key: str, volume: SourceVolume, drive: Dict[str, str]) -> None:
        sid = self.wanted.storages.of(volume.storage)
        self.log(f"Allocating volume for drive '{key}' on remote storage '{sid}'..")
        size = Storages(self.node).size(volume.volid)[0]
        wanted = {"format": volume.format, "storage": sid, "drive": drive_object(key, drive, size)}
        self.allocated[key] = self._call("disk", wanted)
        self.log(f"volume '{volume.volid}' is '{self.allocated[key]['volid']}' on the target")

    def _moved(self, text: str) -> str:
        """A drive string with its copied volume's new name; the format goes with the old one."""
        for old, new in self.renamed.items():
            if text == old:
                return new
            if text.startswith(old + ","):
                drive = {key: value for key, value in parse_drive(text).items() if key != "format"}
                return format_drive({**drive, "file": new})
        return text

    # -- phase 2 ----------------------------------------------------------------------------------------------------

    def _guarded_phase2(self) -> None:
        try:
            self._phase2()
        except Die as error:
            self.errors = True
            self.error(f"online migrate failure - {error.text}")
            self._try(self._undo_phase2)
            if self.tunnel:
                self.tunnel.close()

    def _phase2(self) -> None:
        config = vmconfig.load(self.node, self.vmid)
        machine = vm.running_machine(self.node, self.vmid) or ""
        reply = self._call("start", self._start_parameters(config, machine), 90.0)
        address = self._reach(reply["migrate"])
        version = re.search(r"(\d+)\.(\d+)", machine)
        self.mirrors = Mirrors(self.node, self.vmid, (int(version[1]), int(version[2])) if version else (0, 0))
        if reply.get("drives"):
            self.log("starting storage migration")
            for key in _mirror_order(reply["drives"]):
                self._mirror(key, reply["drives"][key]["nbd_uri"], config)
            self.mirrors.switch(self.log)
        limit = self._limit(None)
        self.ram = Ram(self.node, self.vmid, config, self.log)
        self.ram.migrate(self._for_qemu(address), address, limit)
        if reply.get("drives"):
            self.mirrors.complete()

    def _start_parameters(self, config: vmconfig.VmConfig, machine: str) -> Dict[str, Any]:
        mtus = [f"{key}={_mtu(nic)}" for key, nic in nics(config.values).items() if nic["model"] == "virtio"]
        params: Dict[str, Any] = {
            "statefile": "tcp" if self.wanted.insecure else "unix",
            "forcecpu": None,
            "forcemachine": machine + "+pve0",
            "skiplock": 1,
        }
        if mtus:
            params["nets-host-mtu"] = ",".join(mtus)
        options = {
            "type": "insecure" if self.wanted.insecure else "websocket",
            "migratedfrom": self.node.name,
            "remote_node": self.wanted.target_node,
            "nbd_proto_version": 1,
            "spice_ticket": None,
            "network": self.wanted.network,
            "storagemap": self.wanted.storages.told(),
            "nbd": self.allocated,
        }
        return {"start_params": params, "migrate_opts": options}

    def _reach(self, migrate: Dict[str, Any]) -> str:
        """The address for the RAM: forwarded sockets of this node, or the target's port."""
        if migrate["proto"] == "tcp":
            where = f"{migrate['addr']}:{migrate['port']}"
            if not TCP.fullmatch(where):
                raise Die(f"unexpected address of the target: {where}")
            self.log(f"using direct TCP migration to {where}")
            return f"tcp:{where}"
        if not RAM_SOCKET.fullmatch(migrate["addr"]):
            raise Die(f"unexpected socket of the target: {migrate['addr']}")
        for remote in [migrate["addr"], *migrate.get("unix_sockets", ())]:
            local = self._local(remote)
            self.log(f"Setting up tunnel for '{local}'")
            self.tunnel.forward(local, remote)  # type: ignore[union-attr]
        return f"unix:{self._local(migrate['addr'])}"

    def _local(self, text: str) -> str:
        return text.replace(str(self.wanted.target_vmid), str(self.vmid))

    def _for_qemu(self, address: str) -> str:
        return f"unix:{self.node.path(address[len('unix:') :])}" if address.startswith("unix:") else address

    def _mirror(self, key: str, uri: str, config: vmconfig.VmConfig) -> None:
        match = re.fullmatch(
            rf"nbd:(unix:(/run/qemu-server/{self.wanted.target_vmid}_[\w.]+)|(.+):(\d+)):exportname=(drive-[\w.-]+)",
            uri,
        )
        if not match or match[5] != f"drive-{key}":
            raise Die(f"unexpected NBD address of the target: {uri}")
        if match[2]:
            local = self._local(match[2])
            server = {"type": "unix", "path": str(self.node.path(local))}
            shown = f"nbd:unix:{local}:exportname={match[5]}"
        else:
            server, shown = {"type": "inet", "host": match[3].strip("[]"), "port": match[4]}, uri
        self.log(f"{key}: start migration to {shown}")
        volid = parse_drive(config.values[key])["file"]
        self.mirrors.start(key, server, self.limits.get(volid))  # type: ignore[union-attr]

    def _undo_phase2(self) -> None:
        self.log("aborting phase 2 - cleanup resources")
        if self.ram is None:
            self.ram = Ram(self.node, self.vmid, vmconfig.load(self.node, self.vmid), self.log)
        self._try(self.ram.cancel)
        self._try(self._run_on)
        if self.mirrors is not None:
            self.mirrors.cancel()
        vmconfig.remove_lock(self.node, self.vmid, "migrate")
        self._call("stop")
        self._quit(True)

    def _run_on(self) -> None:
        """A source that already handed over its RAM is let run again."""
        deadline = time.monotonic() + 5.0
        while (
            command(self.node, self.vmid, "query-migrate").get("status") == "cancelling" and time.monotonic() < deadline
        ):
            time.sleep(0.1)
        if command(self.node, self.vmid, "query-status")["status"] == "postmigrate" and not self.paused:
            command(self.node, self.vmid, "cont")

    # -- end --------------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Everything after the data moved; the source is stopped even when the target did not resume (8.3)."""
        if self.running:
            if self.allocated:
                self.log("stopping NBD storage migration server on target.")
                self._noted(lambda: self._call("nbdstop"))
            if not self.paused:
                self._noted(lambda: self._call("resume"))
                self._fstrim()
            vm.stop_now(self.node, self.vmid, skiplock=True, nocheck=True)
        self._call("unlock")
        self._quit(False)
        if self.wanted.delete:
            destroy(self.node, self.vmid, skiplock=True)

    def _fstrim(self) -> None:
        if "fstrim_cloned_disks=1" in vmconfig.load(self.node, self.vmid).values.get("agent", ""):
            self.log("issuing guest fstrim")
            self._call("fstrim")

    def _quit(self, cleanup: bool) -> None:
        if self.tunnel is not None:
            self.tunnel.quit(cleanup)

    def _noted(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Die as error:
            self.errors = True
            self.error(error.text)

    def _try(self, action: Callable[[], Any]) -> None:
        """Clean-up goes on behind an error; it is only told."""
        try:
            action()
        except Die as error:
            self.error(error.text)


def _mirror_order(drives: Dict[str, Any]) -> List[str]:
    """That of an unsorted key list in the real one; here the reverse of the allocation, as was seen."""
    return list(reversed(ordered(list(drives))))


def _mtu(nic: Dict[str, str]) -> int:
    mtu = int(nic.get("mtu", "1"))
    return bridge_mtu(nic.get("bridge", "")) if mtu == 1 else mtu


def _relay_lines(process: "subprocess.Popen[bytes]") -> None:
    """Its stderr as lines of the log; a carriage return ends one too."""
    rest = b""
    descriptor = process.stderr.fileno()  # type: ignore[union-attr]
    while True:
        select.select([descriptor], [], [])
        data = os.read(descriptor, 65536)
        rest += data
        *lines, rest = re.split(rb"\r\n?|\n", rest)
        for line in lines:
            complain(line.decode("utf-8", "replace"))
        if not data:
            if rest:
                complain(rest.decode("utf-8", "replace"))
            return
