# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fleets: hundreds of nodes and thousands of VMs that exist in configuration and load only (node/simulated.py).

`install(lab, {"alpha": Fleet(nodes=100, vms=10_000)})` puts them beside a cluster's real nodes, which answer for them.
`FleetServer` needs neither root nor namespaces: one API on a port of this machine, one cluster, up in a second or two.

    with FleetServer(Fleet()) as server:
        server.get("/cluster/resources", type="vm")

The same seed gives the same fleet.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import random
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

from . import cluster_files
from .network import HostAddresses

if TYPE_CHECKING:
    from .instance import Lab

__all__ = ["Fleet", "FleetServer", "extend_members", "install", "populate"]

GIB = 1 << 30
START_SECONDS = 30.0
SIZES = ((16, 128), (32, 256), (64, 512), (96, 1024))
"""CPUs and memory (GiB) of a node."""
RUNNING_SHARE = 0.85


@dataclass(frozen=True)
class Fleet:
    """How much of it; VMIDs are first_vmid and following, VM numbers are spread unevenly over the nodes."""

    nodes: int = 100
    vms: int = 10_000
    first_vmid: int = 10_000
    seed: int = 1

    def names(self, cluster: str) -> list[str]:
        """The simulated nodes' names."""
        return ["%ss%03d" % (cluster, number) for number in range(1, self.nodes + 1)]


def populate(pve: Path, cluster: str, fleet: Fleet) -> None:
    """Write a fleet into a cluster's shared /etc/pve."""
    chance = random.Random(fleet.seed)
    names = fleet.names(cluster)
    weights = [chance.uniform(0.3, 1.7) for _ in names]
    homes = sorted(chance.choices(range(fleet.nodes), weights, k=fleet.vms))
    vmids: dict[int, list[int]] = {}
    for vmid, home in enumerate(homes, fleet.first_vmid):
        vmids.setdefault(home, []).append(vmid)
    reports = pve / ".lab-status"
    reports.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        place = pve / "nodes" / name
        for sub in ("qemu-server", "lxc", "priv"):
            (place / sub).mkdir(parents=True)
        vms = {str(vmid): _make_vm(place / "qemu-server", vmid, chance) for vmid in vmids.get(number, [])}
        told = {
            "time": time.time(),
            "simulated": True,
            "node": _node_figures(vms, chance),
            "vms": vms,
            "storages": _storages(vms),
        }
        (reports / (name + ".json")).write_text(json.dumps(told), encoding="ascii")
    (pve / ".lab-fleet.json").write_text(json.dumps({"nodes": names}), encoding="ascii")


def _make_vm(directory: Path, vmid: int, chance: random.Random) -> dict[str, Any]:
    """Write one VM's config; answers its figures."""
    cores, memory = chance.choice((1, 2, 2, 4, 4, 8, 16)), chance.choice((1, 2, 4, 4, 8, 16, 32))
    disk = chance.choice((16, 32, 32, 64, 128))
    name, running = "fleet-%d" % vmid, chance.random() < RUNNING_SHARE
    mac = "BC:24:11:%02X:%02X:%02X" % (vmid >> 16 & 255, vmid >> 8 & 255, vmid & 255)
    identity = uuid.UUID(int=chance.getrandbits(128), version=4)
    lines = {
        "boot": "order=scsi0",
        "cores": cores,
        "cpu": "x86-64-v2-AES",
        "memory": memory << 10,
        "name": name,
        "net0": "virtio=%s,bridge=vmbr0" % mac,
        "ostype": "l26",
        "scsi0": "local:%d/vm-%d-disk-0.raw,size=%dG" % (vmid, vmid, disk),
        "scsihw": "virtio-scsi-single",
        "smbios1": "uuid=%s" % identity,
        "sockets": 1,
        "tags": "fleet;tier%d" % (vmid % 3),
    }
    (directory / ("%d.conf" % vmid)).write_text("".join("%s: %s\n" % pair for pair in lines.items()), encoding="ascii")
    figures: dict[str, object] = {"status": "running" if running else "stopped"}
    if running:
        figures.update(
            cpu=round(min(1.0, chance.betavariate(1, 12)), 4),
            uptime=chance.randrange(3600, 30_000_000),
            mem=int(memory * GIB * chance.uniform(0.3, 0.95)),
            netin=chance.randrange(10**11),
            netout=chance.randrange(10**11),
            diskread=chance.randrange(10**12),
            diskwrite=chance.randrange(10**12),
        )
    return {
        "vmid": vmid,
        "name": name,
        "cpus": cores,
        "maxmem": memory * GIB,
        "maxdisk": disk * GIB,
        "disk": 0,
        "tags": "fleet;tier%d" % (vmid % 3),
        "cpu": 0,
        "mem": 0,
        "uptime": 0,
        "netin": 0,
        "netout": 0,
        "diskread": 0,
        "diskwrite": 0,
        **figures,
    }


def _node_figures(vms: dict[str, dict[str, Any]], chance: random.Random) -> dict[str, object]:
    """A node at least as big as what runs on it."""
    used = sum(vm["mem"] for vm in vms.values()) + 2 * GIB
    busy = sum(vm["cpu"] * vm["cpus"] for vm in vms.values()) + 0.2
    fitting = [size for size in SIZES if size[1] * GIB >= used / 0.95 and size[0] >= busy] or [SIZES[-1]]
    cpus, memory = chance.choice(fitting)
    return {
        "uptime": chance.randrange(86_400, 30_000_000),
        "cpu": round(min(1.0, busy / cpus), 4),
        "maxcpu": cpus,
        "mem": used,
        "maxmem": max(memory * GIB, used),
        "level": "",
        "disk": 8 * GIB,
        "maxdisk": 96 * GIB,
    }


def _storages(vms: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    used = sum(vm["maxdisk"] for vm in vms.values()) // 3
    total = 64 << 40
    return {
        "local": {
            "type": "dir",
            "active": 1,
            "enabled": 1,
            "shared": 0,
            "content": "images,iso,backup",
            "total": total,
            "used": used,
            "avail": total - used,
        }
    }


def extend_members(path: Path, names: list[str], address: str) -> None:
    """Add simulated nodes to a .members file; the address is that of the real node that answers for them."""
    members = json.loads(path.read_text(encoding="ascii"))
    for number, name in enumerate(names, len(members["nodelist"]) + 1):
        members["nodelist"][name] = {"id": number, "online": 1, "ip": address}
    total = len(members["nodelist"])
    members.setdefault("cluster", {"name": "fleet", "version": total, "quorate": 1}).update(nodes=total)
    path.write_text(json.dumps(members) + "\n", encoding="ascii")


def install(lab: Lab, fleets: dict[str, Fleet]) -> None:
    """Add fleets to clusters of a lab that is up, or about to start its hosts."""
    for cluster, fleet in fleets.items():
        populate(lab.directory / "clusters" / cluster / "pve", cluster, fleet)
        hosts = [host for host in lab.hosts.values() if host.cluster == cluster]
        for host in hosts:
            extend_members(host.state / "pve" / "members", fleet.names(cluster), hosts[0].api_host)


class FleetServer:
    """One cluster's API on 127.0.0.1, with one node of its own and a simulated fleet; a context manager."""

    def __init__(self, fleet: Fleet | None = None, cluster: str = "alpha", port: int = 0) -> None:
        self.fleet, self.cluster = fleet or Fleet(), cluster
        self.port = port or _free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="lab-fleet-"))
        self.tokens: dict[str, str] = {}
        self.fingerprint = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def node(self) -> str:
        """The node that answers."""
        return self.cluster + "1"

    def __enter__(self) -> FleetServer:
        try:
            self._write()
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10.0)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _write(self) -> None:
        here4, here6 = ipaddress.IPv4Interface("127.0.0.1/8"), ipaddress.IPv6Interface("::1/128")
        host = HostAddresses(self.node, self.node, self.cluster, 0, here4, here6, here4, here6, here4.ip, here6.ip)
        self.tokens, prints = cluster_files.make_cluster(self.cluster, [host], self.directory)
        self.fingerprint = prints[self.node]
        pve = self.directory / "pve"
        populate(pve, self.cluster, self.fleet)
        members = {
            "nodename": self.node,
            "cluster": {"name": self.cluster, "version": 1, "quorate": 1},
            "nodelist": {self.node: {"id": 1, "online": 1, "ip": "127.0.0.1"}},
        }
        (pve / ".members").write_text(json.dumps(members), encoding="ascii")
        extend_members(pve / ".members", self.fleet.names(self.cluster), "127.0.0.1")
        for name in ("etc", "run", "var/log", "var/lib/vz", "var/lock", "tmp"):
            (self.directory / "root" / name).mkdir(parents=True)
        (self.directory / "root" / "etc" / "pve").symlink_to(pve)
        (self.directory / "personality.json").write_text('{"workers": 2, "statd": 2.0}\n', encoding="ascii")

    def _start(self) -> None:
        environment = dict(
            os.environ,
            LAB_ROOT=str(self.directory / "root"),
            LAB_NODE=self.node,
            LAB_PERSONALITY=str(self.directory / "personality.json"),
            PYTHONPATH=str(Path(__file__).resolve().parents[1]),
        )
        with open(self.directory / "server.log", "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "lab.api.server", "--address", "127.0.0.1", "--port", str(self.port)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError):
                self.get("/version")
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the server did not start:\n" + (self.directory / "server.log").read_text())
            time.sleep(0.05)

    def get(self, path: str, token: str = cluster_files.ROOT_TOKEN, **params: str) -> object:
        """`data` of a GET."""
        query = "?" + urlencode(params) if params else ""
        request = Request(
            "https://127.0.0.1:%d/api2/json%s%s" % (self.port, path, query),
            headers={"Authorization": "PVEAPIToken=%s=%s" % (token, self.tokens[token])},
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with build_opener(ProxyHandler({}), HTTPSHandler(context=context)).open(request, timeout=60) as answer:
            return json.load(answer)["data"]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
