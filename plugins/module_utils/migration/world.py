# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Everything a migration touches outside of its own memory, as small interfaces.

``worker`` builds the real ones once (``real_world``); tests pass fakes. Steps construct no socket, read no clock
and start no process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Protocol, Sequence, Tuple

from ..proxmox.commands import Command
from ..proxmox.replies import (
    BwlimitReply,
    DiskImportReply,
    DiskReply,
    ImportStatus,
    PlainStartReply,
    StartReply,
    VersionReply,
)
from ..proxmox.target_api import StorageInfo, TaskStatus, TunnelGrant, VmResource, VmStatus
from ..transport.interface import Kind, PumpEnd
from ..transport.policy import Rejection

__all__ = [
    "Clock",
    "Dial",
    "Export",
    "Incoming",
    "OpenPlain",
    "OpenStream",
    "OpenTunnel",
    "Pump",
    "Qmp",
    "Source",
    "Target",
    "Tunnel",
    "World",
]


class Clock(Protocol):
    """Time of the source node."""

    def monotonic(self) -> float:
        """Seconds; never jumps."""

    def wall(self) -> float:
        """Seconds since the epoch, for people."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class Qmp(Protocol):
    """The monitor of the source QEMU (``qemu.monitor.Monitor``)."""

    def run(self, command: str, arguments: Optional[Mapping[str, Any]] = None, timeout: float = 5.0) -> Any:
        """One command in a connection of its own."""

    def session(self, deadline: float) -> Any:
        """A context manager with ``execute`` and ``wait_event``."""


class Export(Protocol):
    """A running ``pvesm export``; its output is the import stream of a volume."""

    announces_length: bool
    """Whether the first 8 bytes say how long the rest is; else only the exit status tells a whole stream."""

    def fileno(self) -> int:
        """Where the stream is read; handed to the pump."""

    def close_output(self) -> None:
        """Close our copy of the output, so that only the pump holds it."""

    def wait(self, timeout: float) -> int:
        """Exit status; the process is killed when it does not end within ``timeout`` seconds."""


class Source(Protocol):
    """The source node, for one VM."""

    def take_migration_lock(self, timeout: float) -> None:
        """Hold Proxmox's guest-migration lock file until released (pve-cli 4.1)."""

    def release_migration_lock(self) -> None:
        """Let go of it; harmless when not held."""

    def config(self) -> bytes:
        """Text of the VM's configuration; raises VmAbsent."""

    def node_name(self) -> str:
        """Name of the node."""

    def ha_state(self) -> str:
        """State of the VM as HA resource, empty when it is none (read from the file)."""

    def is_replicated(self) -> bool:
        """Whether the VM has a replication job."""

    def references(self, volids: Sequence[str]) -> Mapping[str, Sequence[int]]:
        """Other VMs of the cluster that name one of the volumes."""

    def storage_types(self) -> Mapping[str, str]:
        """Type of each storage, by id."""

    def firewall(self) -> Optional[str]:
        """Text of the VM's firewall file, None without one."""

    def volume_list(self, storages: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """``volid -> {size bytes, format}`` of the VM's volumes on ``storages``."""

    def qemu_alive(self) -> bool:
        """Whether a QEMU process of this VM exists."""

    def set_lock(self) -> None:
        """``qm set --lock migrate``; raises when any lock is there."""

    def unlock(self) -> None:
        """Remove our lock word, after checking it."""

    def stop(self) -> None:
        """``qm stop --skiplock``; returns when the process is gone."""

    def set_options(self, options: Mapping[str, str]) -> None:
        """``qm set --skiplock`` with options."""

    def export(self, volid: str, stream_format: str, with_snapshots: bool) -> Export:
        """Start ``pvesm export`` to a pipe."""


class Target(Protocol):
    """The target's API (``proxmox.target_api.TargetApi`` and a few more calls)."""

    def open_tunnel(self, vmid: int, storages: Sequence[str], bridges: Sequence[str]) -> TunnelGrant:
        """POST mtunnel."""

    def task_status(self, upid: str) -> TaskStatus:
        """Whether the task runs."""

    def task_log(self, upid: str) -> List[str]:
        """Its log."""

    def delete_task(self, upid: str) -> None:
        """End it (the fence without root)."""

    def own_tunnel_task(self, vmid: int) -> Optional[str]:
        """UPID of a running tunnel task of that VMID, when this token may see one."""

    def vm_status(self, vmid: int, timeout: Optional[float] = None) -> VmStatus:
        """State, within ``timeout`` seconds; raises VmAbsent."""

    def vm_config(self, vmid: int) -> Dict[str, Any]:
        """Config; raises VmAbsent."""

    def vm_resources(self) -> List[VmResource]:
        """VMs that the token may see."""

    def storages(self) -> List[StorageInfo]:
        """Storages of the node for images."""

    def bridge_names(self) -> List[str]:
        """Bridges of the node."""

    def volumes_of(self, storage: str, vmid: int) -> List[str]:
        """Volume ids of that owner on a storage."""

    def machines(self) -> List[str]:
        """Versioned machines that the node's QEMU knows."""

    def version(self) -> str:
        """Version of pve-manager."""

    def permissions(self) -> Mapping[str, Sequence[str]]:
        """Privileges of the token, by path."""


class Tunnel(Protocol):
    """The control channel (``proxmox.tunnel.Tunnel``)."""

    @property
    def poisoned(self) -> str:
        """Why no further command may be sent; empty while the channel is sound."""

    def tick(self) -> None:
        """Read what came, keep the line warm; raises ChannelLost."""

    def late_reply(self, timeout: float) -> Optional[Mapping[str, Any]]:
        """The reply that did not come in time, if it comes within ``timeout`` seconds."""

    def close(self) -> None:
        """End the connection."""

    def version(self, timeout: Optional[float] = None) -> VersionReply:
        """Api and age; also the proof that the channel lives."""

    def bwlimit(self, storages: Sequence[Optional[str]], limit: Optional[int] = None) -> BwlimitReply:
        """Limit of the target; ``limit`` is ours in KiB/s."""

    def disk(self, storage: str, drive: Mapping[str, Any], image_format: str) -> DiskReply:
        """Allocate a volume for a mirrored disk."""

    def disk_import(
        self, volname: str, image_format: str, storage: str, export_formats: Sequence[str], with_snapshots: bool
    ) -> DiskImportReply:
        """Start an importer."""

    def query_disk_import(self) -> ImportStatus:
        """State of the importer."""

    def config(self, conf: str, firewall: Optional[str] = None) -> None:
        """Write the VM's configuration."""

    def start(
        self,
        source_node: str,
        target_node: str,
        machine: str,
        nbd: Mapping[str, DiskReply],
        nets_host_mtu: Optional[str] = None,
        cpu: Optional[str] = None,
        timeout: float = 60.0,
    ) -> StartReply:
        """Start the target QEMU listening."""

    def start_plain(self, command: Command, address: str) -> PlainStartReply:
        """The same with listeners in clear text, which must be at ``address``."""

    def ticket(self, path: str) -> str:
        """A ticket of 40 s for one data connection."""

    def resume(self, timeout: Optional[float] = None) -> None:
        """Let the target run: only after COMMIT_INTENT."""

    def nbdstop(self, timeout: Optional[float] = None) -> None:
        """Stop the NBD server."""

    def stop(self) -> None:
        """Kill the target QEMU."""

    def unlock(self) -> None:
        """Remove the target's lock."""

    def quit(self, cleanup: bool) -> None:
        """End the tunnel; with ``cleanup`` free everything it made."""


class Pump(Protocol):
    """One byte stream (``transport.pump_handle.PumpHandle``); counts in bytes, rates in bytes/s."""

    peer: Optional[Mapping[str, Any]]  # direct streams: who is at the other end
    sent: int
    received: int
    acknowledged: int
    in_flight: int
    acknowledged_rate: int
    busy_s: float
    draining: bool  # the local end has finished
    ended: Optional[PumpEnd]

    def poll_events(self) -> Any:
        """Take in what the pump reported."""

    def wait_standing(self, deadline: float) -> None:
        """Wait until a direct stream is authenticated and beats."""

    def open(self, listen: Optional[str] = None) -> None:
        """Let a direct stream that stands be used: by QEMU over the socket ``listen``, or by the exporter."""

    def wait_listening(self, deadline: float) -> None:
        """Wait until QEMU may connect to the pump's socket."""

    def set_rate(self, rate: Optional[int]) -> None:
        """Bytes/s that may be sent."""

    def set_write_blocking(self) -> None:
        """Guest writes wait for answers from now on: the answer deadline counts."""

    def arm_switchover(self, seconds: float) -> None:
        """Cut the stream if nobody disarms in time."""

    def disarm_switchover(self) -> None:
        """The switchover is over."""

    def kill(self) -> None:
        """End at once and reap."""


class OpenTunnel(Protocol):
    """Connects the control channel."""

    def __call__(self, vmid: int, grant: TunnelGrant) -> Tunnel:
        """Raises when the target does not accept it."""


class OpenStream(Protocol):
    """Starts a pump."""

    def __call__(
        self,
        name: str,
        kind: Kind,
        vmid: int,
        ticket: str,
        remote: str,
        rate: Optional[int],
        export: Optional[Export],
    ) -> Tuple[Pump, str]:
        """The pump and the path of its UNIX socket (empty for an import)."""


class OpenPlain(Protocol):
    """Starts a pump to a clear-text listener of the target's QEMU."""

    def __call__(self, name: str, kind: Kind, address: str, port: int, rate: Optional[int]) -> Tuple[Pump, str]:
        """The pump and the path of its UNIX socket."""


class Dial(Protocol):
    """Starts a pump that connects to the incoming worker of the target."""

    def __call__(
        self, transport: str, name: str, kind: Kind, stream: str, export: Optional[Export], opaque_key: str
    ) -> Pump:
        """Returns at once; ``wait_standing`` tells how it went. ``opaque_key`` is for what QEMU encrypts itself."""


class Incoming(Protocol):
    """The incoming worker of the target, over the stream ``control`` (``migration.client``)."""

    def call(self, op: str, wait: float = 0.0, **parameters: Any) -> Mapping[str, Any]:
        """One request and its answer, which may take ``wait`` seconds more than an immediate one."""

    def close(self) -> None:
        """Say nothing more."""


@dataclass(frozen=True)
class World:
    """The outside of one migration."""

    clock: Clock
    source: Source
    qmp: Qmp
    target: Target
    open_tunnel: OpenTunnel
    open_stream: OpenStream
    open_plain: OpenPlain
    dial: Dial
    open_incoming: Callable[[str], Incoming]  # the path of the control pump's socket
    socket_path: Callable[[str], str]  # of a stream, for QEMU
    has_incoming_key: bool
    bad_credentials: Callable[[str, str], Optional[Rejection]]  # this node's of a trust domain, for a transport
    renew_secret: Callable[[str], None]  # another secret of the same token from now on
