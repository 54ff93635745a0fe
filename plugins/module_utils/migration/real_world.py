# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The real world of a migration: files, commands, sockets and processes of a Proxmox VE node. An edge file."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from ..errors import Side
from ..proxmox.endpoint import Endpoint
from ..proxmox.errors import NodeCommandFailed
from ..proxmox.node_cli import NodeCli
from ..proxmox.node_files import NodeFiles
from ..proxmox.session import Session
from ..proxmox.target_api import TargetApi, TunnelGrant
from ..proxmox.tunnel import Tunnel
from ..qemu.monitor import Monitor
from ..transport import tls, websocket
from ..transport.errors import TlsFailed
from ..transport.interface import DirectSettings, Kind, PlainSettings
from ..transport.policy import Rejection
from ..transport.pump_handle import PumpHandle
from . import places
from .client import Client
from .errors import Refused
from .incoming_settings import is_opaque, plane_of
from .spec import Spec
from .world import Export, World

__all__ = ["RealClock", "SourceNode", "bad_credentials", "endpoint_of", "real_world"]

_MIGRATION_LOCK = "/var/lock/pve-manager/pve-migrate-{vmid}"  # pve-cli 4.1
_QMP = "/run/qemu-server/{vmid}.qmp"
_OPEN_TIMEOUT = 15.0  # seconds for the control channel: TCP, TLS, upgrade


class RealClock:
    """The clocks of this machine."""

    def monotonic(self) -> float:
        """Seconds; never jumps."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class ExportProcess:
    """A running ``pvesm export``.

    Args:
        argv: Command and arguments.
        announces_length: The 8 bytes in front tell the length of the stream. True of a raw image; in front of a
            qcow2 file stands the size of the disk in it (mtunnel-protocol 7.3: what the importer allocates by).
    """

    def __init__(self, argv: Sequence[str], announces_length: bool = True) -> None:
        self.announces_length = announces_length
        self._process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # dd's statistics; what counts are the bytes and the exit status
            cwd="/",
        )

    def fileno(self) -> int:
        """Where the stream is read."""
        if self._process.stdout is None:
            raise ValueError("the export has no output")
        return self._process.stdout.fileno()

    def close_output(self) -> None:
        """Close our copy: the pump holds the only one now."""
        if self._process.stdout is not None:
            self._process.stdout.close()

    def wait(self, timeout: float) -> int:
        """Exit status; killed when it does not end in time."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            self.close_output()


class SourceNode:
    """One VM on this node, through files and the node's own commands."""

    def __init__(self, vmid: int, files: Optional[NodeFiles] = None, cli: Optional[NodeCli] = None) -> None:
        self._vmid = vmid
        self._files = files or NodeFiles()
        self._cli = cli or NodeCli(files=self._files)
        self._lock: Optional[int] = None

    def take_migration_lock(self, timeout: float) -> None:
        """Hold Proxmox's guest-migration lock: keeps out its migration, replication and rollback."""
        path = _MIGRATION_LOCK.format(vmid=self._vmid)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        end = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._lock = descriptor
                return
            except OSError:
                if time.monotonic() > end:
                    os.close(descriptor)
                    raise Refused(
                        f"VM {self._vmid} is being migrated or replicated by somebody else",
                        code="MIGRATION_LOCK_HELD",
                        side=Side.SOURCE,
                        object=path,
                        remedy="Wait for the running task",
                    ) from None
                time.sleep(0.2)

    def release_migration_lock(self) -> None:
        """Let go of it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def config(self) -> bytes:
        """Text of the VM's configuration."""
        return self._files.vm_config_bytes(self._vmid)

    def node_name(self) -> str:
        """Name of this node."""
        return self._files.node_name()

    def ha_state(self) -> str:
        """State as HA resource, empty when it is none."""
        return self._files.ha_state(self._vmid)

    def is_replicated(self) -> bool:
        """Whether a replication job exists."""
        return bool(self._files.replication_jobs(self._vmid))

    def references(self, volids: Sequence[str]) -> Mapping[str, Sequence[int]]:
        """Other VMs that name one of the volumes."""
        return self._files.references(self._vmid, list(volids))

    def storage_types(self) -> Mapping[str, str]:
        """Type of each storage."""
        return {name: storage.type for name, storage in self._files.storages().items()}

    def firewall(self) -> Optional[str]:
        """Text of the VM's firewall file."""
        return self._files.firewall(self._vmid)

    def volume_list(self, storages: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Size and format of the VM's volumes on ``storages``, and which of them cannot be read as they are."""
        found: Dict[str, Mapping[str, Any]] = {}
        for storage in storages:
            for entry in self._cli.volumes(storage, self._vmid):
                inactive = self._files.volume_inactive(entry.volid)
                found[entry.volid] = {"size": entry.size, "format": entry.format, "inactive": inactive}
        return found

    def qemu_alive(self) -> bool:
        """Whether a QEMU process of this VM exists."""
        return self._files.qemu_pid(self._vmid) is not None

    def set_lock(self) -> None:
        """``qm set --lock migrate``."""
        self._cli.set_lock(self._vmid)

    def unlock(self) -> None:
        """Remove our lock word."""
        self._cli.unlock_own(self._vmid)

    def stop(self) -> None:
        """``qm stop --skiplock``."""
        self._cli.stop(self._vmid)

    def set_options(self, options: Mapping[str, str]) -> None:
        """``qm set --skiplock``."""
        self._cli.set_options(self._vmid, options)

    def export(self, volid: str, stream_format: str, with_snapshots: bool) -> Export:
        """Start ``pvesm export``."""
        argv = self._cli.export_argv(volid, stream_format, with_snapshots)
        try:
            return ExportProcess(argv, stream_format == "raw+size")
        except OSError as error:
            raise NodeCommandFailed(
                f"{argv[0]} cannot be started: {error.strerror}", side=Side.SOURCE, object=volid
            ) from error


def endpoint_of(spec: Spec) -> Endpoint:
    """Where the spec's target node is and how it proves itself."""
    target = spec.target
    return Endpoint(
        target.api_host,
        target.api_port,
        target.node,
        target.api_user,
        target.api_token_id,
        target.fingerprint,
        target.ca_path,
        target.validate_certs,
    )


def real_world(spec: Spec, migration_id: str, known: Mapping[str, str], program: str) -> World:
    """Everything for one migration on this node.

    Args:
        spec: The migration.
        migration_id: Its id.
        known: The secrets: ``target_api_token_secret`` and ``incoming_key``.
        program: The worker's own zip, which is also the pump's program.
    """
    secret, key = known.get("target_api_token_secret", ""), known.get("incoming_key", "")
    endpoint = endpoint_of(spec)
    session = Session(endpoint, secret)
    target = TargetApi(session, spec.target.node)
    clock = RealClock()
    argv = [sys.executable, "-I", "-B", program, "pump"]
    secrets = [secret]  # the last one is the one in force

    def renew_secret(another: str) -> None:
        secrets.append(another)
        session.renew(another)

    def socket_path(name: str) -> str:
        return os.path.join(places.run_directory(migration_id), f"{name}.sock")

    def dial(
        transport: str, name: str, kind: Kind, stream: str, export: Optional[Export], opaque_key: str
    ) -> PumpHandle:
        point, plane, opaque = spec.incoming, plane_of(transport, kind), is_opaque(transport, kind)
        input_fd = export.fileno() if export is not None else None
        settings = DirectSettings(
            name=name,
            kind=kind,
            plane=plane,
            address=point.address,
            port=point.port,
            local_address=point.own_address or None,
            peer_name=point.peer_name,
            own_name=point.own_name,
            migration_id=migration_id,
            stream=stream,
            credentials=point.credentials if plane == "tls" else None,
            input_fd=input_fd,
            limits=point.limits,
            opaque=opaque,
            proven=transport == "tcp",
            sized=export is None or export.announces_length,
            drain_timeout=websocket.DRAIN_SECONDS.get(kind, 10.0),
            peer_pid=os.getpid() if kind is Kind.CONTROL else None if export else NodeFiles().qemu_pid(spec.vmid),
        )
        stream_key = opaque_key if opaque else key if plane == "tcp" else ""
        return PumpHandle.launch(argv, settings, stream_key, input_fd, clock.monotonic)

    def open_tunnel(vmid: int, grant: TunnelGrant) -> Tunnel:
        path = target.tunnel_path(vmid, grant.ticket, grant.socket)
        return Tunnel.open(endpoint, secrets[-1], path, clock.monotonic() + _OPEN_TIMEOUT, clock.monotonic)

    def open_stream(
        name: str,
        kind: Kind,
        vmid: int,
        ticket: str,
        remote: str,
        rate: Optional[int],
        export: Optional[Export],
    ) -> Tuple[PumpHandle, str]:
        listen = None if export is not None else socket_path(name)
        input_fd = export.fileno() if export is not None else None
        settings = websocket.settings(
            name,
            kind,
            endpoint,
            target.tunnel_path(vmid, ticket, remote),
            listen=listen,
            input_fd=input_fd,
            rate=rate,
            sized=export is None or export.announces_length,
        )
        return PumpHandle.launch(argv, settings, secrets[-1], input_fd, clock.monotonic), listen or ""

    def open_plain(name: str, kind: Kind, address: str, port: int, rate: Optional[int]) -> Tuple[PumpHandle, str]:
        settings = PlainSettings(name, kind, address, port, socket_path(name), spec.incoming.own_address or None, rate)
        return PumpHandle.launch(argv, settings, "", None, clock.monotonic), settings.listen

    monitor = Monitor(_QMP.format(vmid=spec.vmid), clock.monotonic)
    return World(
        clock,
        SourceNode(spec.vmid),
        monitor,
        target,
        open_tunnel,
        open_stream,
        open_plain,
        dial,
        Client,
        socket_path,
        bool(key),
        bad_credentials,
        renew_secret,
    )


def bad_credentials(directory: str, transport: str) -> Optional[Rejection]:
    """What is wrong with this node's certificate for a transport, if anything."""
    credentials = tls.Credentials(directory)
    try:
        own = tls.own_certificate(credentials, Side.SOURCE)
        tls.check_credentials(credentials, own.dns_names[0] if own.dns_names else "", Side.SOURCE)
    except TlsFailed as error:
        return Rejection(error.code, error.message)
    # The target's QEMU compares the whole subject with the name (direct-transports 3.2).
    if transport == "qemu-tls" and own.subject != (("CN", own.dns_names[0]),):
        path = credentials.certificate(Side.SOURCE)
        return Rejection("CREDENTIALS_UNUSABLE", f"{path}: its subject is not CN={own.dns_names[0]} alone")
    return None


def qemu_of(vmid: int) -> Monitor:
    """The monitor of a VM on this node."""
    return Monitor(_QMP.format(vmid=vmid), time.monotonic)
