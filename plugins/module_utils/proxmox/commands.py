# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The 14 commands of the tunnel, one builder each (mtunnel-protocol 5).

A builder sends exactly the keys of the reference, because targets from 9.2.4 on refuse any other. Timeouts in seconds;
every command may wait 10 s for the target's config lock before it does anything.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from .errors import CommandInvalid

__all__ = [
    "Command",
    "Name",
    "bwlimit",
    "config",
    "disk",
    "disk_import",
    "fstrim",
    "nbdstop",
    "query_disk_import",
    "quit_tunnel",
    "resume",
    "start",
    "start_timeout",
    "stop",
    "ticket",
    "unlock",
    "version",
]

_LINE_LIMIT = 1024 * 1024
# Lines of a config whose values must not come back in a message.
_SECRET_KEYS = ("cipassword", "sshkeys")


class Name(enum.Enum):
    """Commands of mtunnel-protocol 0.3."""

    VERSION = "version"
    CONFIG = "config"
    BWLIMIT = "bwlimit"
    DISK = "disk"
    DISK_IMPORT = "disk-import"
    QUERY_DISK_IMPORT = "query-disk-import"
    START = "start"
    FSTRIM = "fstrim"
    STOP = "stop"
    NBDSTOP = "nbdstop"
    RESUME = "resume"
    UNLOCK = "unlock"
    TICKET = "ticket"
    QUIT = "quit"


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: The command's name.
        parameters: Its parameters, as they go on the wire beside ``cmd``.
        timeout: Seconds to wait for the reply.
        redact: Texts that must not show in a message when the target quotes them.
    """

    name: Name
    parameters: Mapping[str, Any]
    timeout: float
    redact: Tuple[str, ...] = field(default=(), repr=False)

    def request(self) -> Dict[str, Any]:
        """The object on the wire."""
        return {"cmd": self.name.value, **self.parameters}

    def line(self) -> bytes:
        """The line on the wire: ASCII, ended by a line feed."""
        text = json.dumps(self.request(), ensure_ascii=True, allow_nan=False, separators=(",", ":")) + "\n"
        if len(text) > _LINE_LIMIT:
            raise CommandInvalid(
                f"'{self.name.value}' would be a line of {len(text)} bytes, more than {_LINE_LIMIT}",
                object=self.name.value,
            )
        return text.encode("ascii")

    def __repr__(self) -> str:
        return f"Command({self.name.value!r}, timeout={self.timeout})"


def version() -> Command:
    """Protocol version; also the round trip that proves the channel alive."""
    return Command(Name.VERSION, {}, 15.0)


def bwlimit(storages: Sequence[Optional[str]], limit: Optional[int] = None) -> Command:
    """The target's bandwidth limit in KiB/s; ``[None]`` asks for RAM. The target may only lower ours."""
    parameters: Dict[str, Any] = {"storages": list(storages), "operation": "migration"}
    if limit is not None:
        parameters["bwlimit"] = limit
    return Command(Name.BWLIMIT, parameters, 15.0)


def disk(storage: str, drive: Mapping[str, Any], image_format: str) -> Command:
    """Allocate an empty volume for a mirror.

    Args:
        storage: Storage of the target.
        drive: ``interface``, ``index`` (string), ``size`` (bytes) and the drive's options; no file, no format.
        image_format: ``raw``, ``qcow2`` or another format of the enumeration.
    """
    size = drive.get("size")
    # mtunnel-protocol 4.2: "64M" would be accepted and become 64 bytes.
    if not isinstance(size, int) or isinstance(size, bool) or size <= 0:
        raise CommandInvalid(f"the size of a disk is a positive number of bytes, not {size!r}", object="disk")
    if not isinstance(drive.get("index"), str) or {"file", "volume", "format"} & set(drive):
        raise CommandInvalid("a drive has its index as a string and no file, volume or format", object="disk")
    return Command(Name.DISK, {"format": image_format, "storage": storage, "drive": dict(drive)}, 600.0)


def disk_import(
    volname: str, image_format: str, storage: str, export_formats: Sequence[str], with_snapshots: bool
) -> Command:
    """Open the socket for one volume's stream; the free name is the target's choice."""
    return Command(
        Name.DISK_IMPORT,
        {
            "volname": volname,
            "format": image_format,
            "storage": storage,
            "export_formats": ",".join(export_formats),
            "with_snapshots": int(with_snapshots),
            "migration_snapshot": 0,
            "allow_rename": "1",
        },
        600.0,
    )


def query_disk_import() -> Command:
    """One line of the running import; the target waits up to 5 s for one."""
    return Command(Name.QUERY_DISK_IMPORT, {}, 20.0)


def config(conf: str, firewall: Optional[str] = None) -> Command:
    """The target's config text and the VM's firewall file."""
    # mtunnel-protocol 5.4: other text is stored broken or refused.
    if not conf.isascii():
        raise CommandInvalid("the config text is not ASCII; other characters must be percent-encoded", object="config")
    return Command(Name.CONFIG, {"conf": conf, "firewall-config": firewall}, 120.0, _secrets(conf))


def _secrets(conf: str) -> Tuple[str, ...]:
    values = []
    for line in conf.splitlines():
        key, _colon, value = line.partition(":")
        if key in _SECRET_KEYS and len(value.strip()) > 3:
            values.append(value.strip())
    return tuple(values)


def start_timeout(memory_mib: int, nics: int) -> float:
    """Seconds for ``start``: 30 s or one per GiB of memory, 5 s per NIC, 10 s more (mtunnel-protocol 5)."""
    return max(30.0, memory_mib / 1024.0) + 5.0 * nics + 10.0


def start(
    source_node: str,
    target_node: str,
    machine: str,
    nbd: Mapping[str, Mapping[str, str]],
    nets_host_mtu: Optional[str] = None,
    cpu: Optional[str] = None,
    timeout: float = 60.0,
    network: Optional[str] = None,
) -> Command:
    """Start the target QEMU, incoming on UNIX sockets, paused; or on clear-text TCP, where ``network`` is given.

    Args:
        source_node: Node the VM comes from.
        target_node: Node it goes to: the one we are connected to.
        machine: Versioned machine of the running source QEMU.
        nbd: Per drive key ``volid`` and ``drivestr`` of the reply to ``disk``, byte for byte.
        nets_host_mtu: ``net0=1500,...`` of the virtio NICs; None when there are none.
        cpu: CPU string when the source runs another one than the config says.
        timeout: Seconds; see :func:`start_timeout`.
        network: The target listens at its one address in there (mtunnel-protocol 6.2); CIDR.
    """
    params: Dict[str, Any] = {
        "statefile": "unix" if network is None else "tcp",
        "forcemachine": machine,
        "skiplock": 1,
    }
    if cpu is not None:
        params["forcecpu"] = cpu
    if nets_host_mtu:
        params["nets-host-mtu"] = nets_host_mtu
    options: Dict[str, Any] = {
        "type": "websocket" if network is None else "insecure",
        "migratedfrom": source_node,
        "remote_node": target_node,
        # mtunnel-protocol 5.2: without it the NBD server listens on clear-text TCP.
        "nbd_proto_version": 1,
        "nbd": {key: {"volid": reply["volid"], "drivestr": reply["drivestr"]} for key, reply in nbd.items()},
    }
    if network is not None:
        options["network"] = network
    return Command(Name.START, {"start_params": params, "migrate_opts": options}, timeout)


def ticket(path: str) -> Command:
    """A ticket for one websocket to ``path``; good for 40 s."""
    return Command(Name.TICKET, {"path": path}, 15.0)


def resume() -> Command:
    """Let the target's guest run. The one command whose loss must be read back, never repeated."""
    return Command(Name.RESUME, {}, 30.0)


def nbdstop() -> Command:
    """End the NBD server; before ``resume``, and allowed while the target is still incoming (pve-cli 1)."""
    return Command(Name.NBDSTOP, {}, 30.0)


def fstrim() -> Command:
    """Trim in the guest; the target swallows errors."""
    return Command(Name.FSTRIM, {}, 600.0)


def stop() -> Command:
    """Kill the target's QEMU; success also when none runs. Longer than Proxmox's 10 s: the target may need them."""
    return Command(Name.STOP, {}, 60.0)


def unlock() -> Command:
    """Take the lock off the target's config."""
    return Command(Name.UNLOCK, {}, 20.0)


def quit_tunnel(cleanup: bool) -> Command:
    """End the tunnel; with ``cleanup`` everything this tunnel made is removed (``stop`` must come first)."""
    return Command(Name.QUIT, {"cleanup": int(cleanup)}, 300.0 if cleanup else 30.0)
