# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An instance of the lab: number, namespaces, state directory, hosts; up, attach, down.

What claims an instance number for the whole machine is the fabric's namespace `cclN-fabric`; the alias of its `lo`
says which checkout owns it. Everything else of an instance is found from there and from build/lab/N, so that `down`
also works after an `up` that was killed half-way.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from . import cluster_files, inventory, network
from .hosts import Host, namespace_pids, remove_cgroups
from .machine.host import MachineHost, machine_settings, outer_batch
from .network import AddressPlan, Clusters, HostAddresses
from .trees import HostType, lower

__all__ = ["CHECKOUT", "STATE", "Lab", "LabError", "down", "in_use", "instances"]

CHECKOUT = Path(__file__).resolve().parents[2]
STATE = CHECKOUT / "build" / "lab"
MACHINE_LOCK = Path("/run/lock")  # a directory can be locked as well, and nothing is left behind
SMALL_STORAGE_MIB = 256
KILL_TIMEOUT = 10.0  # seconds
DEFAULT_CLUSTERS = {"alpha": 1, "beta": 1}


class LabError(Exception):
    """The lab cannot be brought up or found."""


@contextlib.contextmanager
def _machine_lock():
    handle = os.open(MACHINE_LOCK if MACHINE_LOCK.is_dir() else "/run", os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _fabrics() -> set[int]:
    """Numbers whose fabric exists on this machine, whoever owns it."""
    found = set()
    with contextlib.suppress(FileNotFoundError):
        for entry in network.NETNS_DIRECTORY.iterdir():
            number = entry.name[len("ccl") : -len("-fabric")]
            if entry.name.startswith("ccl") and entry.name.endswith("-fabric") and number.isdigit():
                found.add(int(number))
    return found


def _namespaces(number: int) -> list[str]:
    """The namespaces of an instance."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(
            entry.name for entry in network.NETNS_DIRECTORY.iterdir() if entry.name.startswith("ccl%d-" % number)
        )
    return []


def _owner(number: int) -> str:
    """The checkout that made an instance's fabric, "" if it got no further than the namespace."""
    done = subprocess.run(
        ["ip", "-n", "ccl%d-fabric" % number, "-json", "link", "show", "lo"],
        capture_output=True,
        text=True,
        check=False,
    )
    with contextlib.suppress(ValueError, IndexError):
        return json.loads(done.stdout)[0].get("ifalias", "")
    return ""


def _mine(number: int, state: Path) -> bool:
    owner = _owner(number)
    return owner == str(state)[-250:] or (not owner and (state / str(number)).is_dir())


def instances(state: Path = STATE) -> list[int]:
    """Instances of this checkout that left anything, running or not."""
    found = {int(entry.name) for entry in state.iterdir() if entry.name.isdigit()} if state.is_dir() else set()
    return sorted(found | {number for number in _fabrics() if _mine(number, state)})


@dataclass
class Lab:
    """A running instance."""

    plan: AddressPlan
    directory: Path
    hosts: dict[str, Host] = field(default_factory=dict)
    slow_mib: int = SMALL_STORAGE_MIB

    @property
    def instance(self) -> int:
        return self.plan.instance

    def host(self, name: str) -> Host:
        """The host of a node, by its name (alpha1) or inventory name (alpha-alpha1)."""
        for host in self.hosts.values():
            if name in (host.name, host.inventory_host):
                return host
        raise LabError("no host %r; there are %s" % (name, ", ".join(self.hosts)))

    @property
    def inventory(self) -> Path:
        return self.directory / "inventory.yml"

    def no_proxy(self) -> str:
        """Addresses that must not go through a proxy of the machine."""
        return ",".join([str(self.plan.network4), *(host.api_host for host in self.hosts.values())])

    # -- up ----------------------------------------------------------------------------------------------------

    @classmethod
    def up(
        cls,
        clusters: Clusters | None = None,
        instance: int | None = None,
        *,
        state: Path = STATE,
        api: bool = True,
        personality: dict | None = None,
        guest: dict | None = None,
        target_root: bool = False,
        slow_mib: int = SMALL_STORAGE_MIB,
        prepare: Callable[[Lab], None] | None = None,
    ) -> Lab:
        """Bring an instance up; whatever goes wrong (Ctrl-C too), nothing of it stays.

        clusters: see AddressPlan; `{"alpha": 1, "beta": {"beta1": "trixie"}}` gives beta1 QEMU 10.0.
        personality is what /etc/lab/personality.json says in every host. guest is {"directory", "kernel", "initrd",
        "append"} of guest.build.build(), made here if not given; an empty one gives hosts that boot no guest.
        prepare is called when every file is there and before any host starts: the only time for files of a machine.
        """
        _require_root()
        wanted = dict(clusters or DEFAULT_CLUSTERS)
        for host in AddressPlan(0, wanted).hosts():  # names and types are checked before anything is made
            lower(host.kind)
        if guest is None:
            from .guest.build import build

            guest = build()
        with _machine_lock():
            _clear_debris(state)
            plan, claim = _claim(wanted, instance, state)
        lab = cls(plan, state / str(plan.instance), slow_mib=slow_mib)
        try:
            lab._make(api, personality or {}, guest, target_root, prepare)
        except BaseException:
            down(plan.instance, state=state)
            raise
        finally:
            os.close(claim)
        return lab

    def _make(
        self,
        api: bool,
        personality: dict,
        guest: dict,
        target_root: bool,
        prepare: Callable[[Lab], None] | None,
    ) -> None:
        started = time.monotonic()
        network.ip_batch(network.machine_batch(self.plan))
        network.ip_batch(network.fabric_batch(self.plan), self.plan.fabric)
        _fabric_settings(self.plan)
        addresses = self.plan.hosts()
        with ThreadPoolExecutor(max_workers=8) as pool:
            wires = [
                pool.submit(network.ip_batch, _wires(self.plan, host), self.plan.namespace(host.name))
                for host in addresses
            ]
            self._write_state(guest)
            for wire in wires:
                wire.result()
            for host in self.hosts.values():
                host.has_api = api and (CHECKOUT / "tests" / "lab" / "api" / "server.py").exists()
                self._write_init(host, personality, guest, api)
            if prepare:
                prepare(self)
            for job in [pool.submit(host.start) for host in self.hosts.values()]:
                job.result()
            for job in [pool.submit(host.wait_ready) for host in self.hosts.values()]:
                job.result()
        inventory.write_files(self, cluster_files.MIGRATION_TOKEN, target_root)
        self.save(up_seconds=round(time.monotonic() - started, 3))

    def _write_state(self, guest: dict) -> None:
        """Keys, clusters and the hosts' directories."""
        _keygen(self.directory / "id_ed25519", "lab-%d" % self.instance)
        addresses = self.plan.hosts()
        for name in self.plan.clusters:
            members = [host for host in addresses if host.cluster == name]
            place = self.directory / "clusters" / name
            secrets, prints = cluster_files.make_cluster(name, members, place)
            for host in members:
                state = self.directory / "hosts" / host.name
                cluster_files.make_node_view(name, host, members, state / "pve")
                for storage in cluster_files.STORAGES:
                    (state / "storage" / storage / "images").mkdir(parents=True)
                _keygen(state / "host_key", host.name)
                made = _host_class(host)(self.plan, host, state, prints[host.name], tokens=secrets)
                self.hosts[host.name] = made

    def _write_init(self, host: Host, personality: dict, guest: dict, api: bool) -> None:
        names = "".join(
            "%s %s.lab.invalid %s\n" % (each.api4.ip, name, name)
            for each in self.plan.hosts()
            for name in [each.node if each.cluster == host.cluster else each.name]
        )
        kind = host.addresses.kind
        venv = _venv() if kind is HostType.SELF else None  # the other types bring a Python of their own
        boot = (
            {
                "kernel": "/opt/lab-guest/" + guest["kernel"],
                "initrd": "/opt/lab-guest/" + guest["initrd"],
                "append": guest["append"],
            }
            if guest
            else {}
        )
        settings = {
            "name": host.node,
            "state": str(host.state),
            "lower": str(lower(kind)),
            "api": api,
            "systemd": kind is HostType.SYSTEMD,
            "cgroup": host.namespace,
            "machine_id": uuid.uuid4().hex,
            "hide": _hidden(),
            "pve": str(self.directory / "clusters" / host.cluster / "pve"),
            "tests": str(CHECKOUT / "tests"),
            "venv": str(venv or ""),
            "compiled": False,
            "guest": str(guest["directory"]) if guest else "",
            "guest_boot": boot,
            "storages": cluster_files.STORAGES,
            "small": {"path": cluster_files.SMALL_STORAGE[1], "mib": self.slow_mib},
            "hosts_file": "127.0.0.1 localhost\n::1 localhost\n" + names,
            "interfaces": _interfaces(host),
            "personality": personality,
            "host_key": (host.state / "host_key").read_text(encoding="ascii"),
            "authorized_key": (self.directory / "id_ed25519.pub").read_text(encoding="ascii"),
            "listen": [str(host.addresses.api4.ip), str(host.addresses.api6.ip)],
            "host_facts": {
                "node": host.node,
                "type": kind.value,
                "cluster": host.cluster,
                "instance": self.instance,
                "api": host.api_host,
                "migration": host.migration_address,
            },
        }
        if kind is HostType.MACHINE:
            settings.update(machine_settings(self.plan, host.addresses, settings))
        path = host.state / "init.json"
        path.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        path.chmod(0o600)

    def save(self, **more: object) -> None:
        """Write lab.json: what attach, status and tests in other languages read."""
        facts = {
            "ready": True,
            "owner": {"pid": os.getpid(), "started": _started(os.getpid())},
            "instance": self.instance,
            "directory": str(self.directory),
            "fabric": self.plan.fabric,
            "network": str(self.plan.network4),
            "inventory": str(self.inventory),
            "slow_mib": self.slow_mib,
            "clusters": self.plan.clusters,
            "tokens": {
                name: next(host.tokens for host in self.hosts.values() if host.cluster == name)
                for name in self.plan.clusters
            },
            "hosts": {
                host.name: {
                    "cluster": host.cluster,
                    "node": host.node,
                    "type": host.addresses.kind.value,
                    "inventory_host": host.inventory_host,
                    "pid": host.pid,
                    "root": host.root,
                    "api_host": host.api_host,
                    "api6": str(host.addresses.api6.ip),
                    "fingerprint": host.fingerprint,
                    "migration_address": host.migration_address,
                    "namespace": host.namespace,
                    "state": str(host.state),
                    "has_api": host.has_api,
                }
                for host in self.hosts.values()
            },
            **more,
        }
        new = self.directory / "lab.json.new"
        new.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        new.chmod(0o600)
        new.replace(self.directory / "lab.json")

    # -- attach and down ---------------------------------------------------------------------------------------

    @classmethod
    def attach(cls, instance: int | None = None, *, state: Path = STATE) -> Lab:
        """The running instance of this checkout, or the one named."""
        ready = [number for number in instances(state) if (state / str(number) / "lab.json").exists()]
        if instance is None:
            if len(ready) != 1:
                raise LabError("%d labs of this checkout are up, say which: %r" % (len(ready), ready))
            instance = ready[0]
        directory = state / str(instance)
        try:
            facts = json.loads((directory / "lab.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise LabError("lab %d is not up" % instance) from None
        plan = AddressPlan(instance, facts["clusters"])
        lab = cls(plan, directory, slow_mib=facts["slow_mib"])
        for addresses in plan.hosts():
            known = facts["hosts"][addresses.name]
            host = _host_class(addresses)(
                plan,
                addresses,
                directory / "hosts" / addresses.name,
                known["fingerprint"],
                has_api=known["has_api"],
                tokens=facts["tokens"][addresses.cluster],
            )
            with contextlib.suppress(FileNotFoundError):
                host.pid = int((host.state / "pid").read_text(encoding="ascii"))
            lab.hosts[host.name] = host
        return lab

    def down(self) -> None:
        """Remove the instance without a trace."""
        down(self.instance, state=self.directory.parent)

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    # -- VMs ---------------------------------------------------------------------------------------------------

    def create_vm(self, host: Host, vmid: int, name: str, **options: object):
        """See vms.create_vm."""
        from .vms import create_vm

        return create_vm(host, vmid, name, **options)  # type: ignore[arg-type]


def down(instance: int, *, state: Path = STATE, force: bool = False) -> bool:
    """Remove everything of an instance: processes, mounts (they go with their namespaces), links, files.

    Returns whether anything was there. Refuses an instance of another checkout unless forced.
    """
    _require_root()
    # An `up` of the same checkout would take what is half removed for debris, and remove it too.
    with _machine_lock():
        return _down(instance, state, force)


def _down(instance: int, state: Path, force: bool = False) -> bool:
    directory = state / str(instance)
    there = _namespaces(instance)
    if there and instance in _fabrics() and not force and not _mine(instance, state):
        raise LabError("lab %d belongs to %s" % (instance, _owner(instance)))
    _end_ssh_masters(Path("/run/ccl%d-ssh" % instance))
    deadline = time.monotonic() + KILL_TIMEOUT
    while pids := [pid for name in there for pid in namespace_pids(name)]:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        for pid in pids:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > deadline:
            raise LabError("processes of lab %d do not end: %r" % (instance, pids))
        time.sleep(0.02)
    remove_cgroups(directory)
    subprocess.run(["ip", "link", "del", "ccl%d" % instance], capture_output=True, check=False)
    # The fabric last: while it is there, the number is taken.
    for name in sorted(there, key=lambda each: each.endswith("-fabric")):
        if not name.endswith("-fabric"):
            network.ip_batch(["netns del " + name])
    existed = directory.exists()
    if existed:
        shutil.rmtree(directory)
        with contextlib.suppress(OSError):
            state.rmdir()
    for name in there:
        if name.endswith("-fabric"):
            network.ip_batch(["netns del " + name])
    return existed or bool(there)


def _end_ssh_masters(directory: Path) -> None:
    """End the connections that Ansible's ssh keeps open, and remove their sockets."""
    for path in directory.iterdir() if directory.is_dir() else ():
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                ["ssh", "-F", "none", "-O", "exit", "-S", str(path), "lab"],
                capture_output=True,
                stdin=subprocess.DEVNULL,
                check=False,
                timeout=2.0,
            )
    shutil.rmtree(directory, ignore_errors=True)


def _owner_alive(directory: Path) -> int:
    """Pid of the process that made a lab, while it lives: a test run, or a person's Python."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        owner = json.loads((directory / "lab.json").read_text(encoding="utf-8"))["owner"]
        if _started(owner["pid"]) == owner["started"]:
            return int(owner["pid"])
    return 0


def _started(pid: int) -> int:
    """When a process started, in clock ticks since boot; tells it from a later one of the same number."""
    return int(Path("/proc/%d/stat" % pid).read_text(encoding="ascii").rsplit(")", 1)[1].split()[19])


def in_use(instance: int, state: Path = STATE) -> int:
    """Pid of another living process that made this lab, 0 if there is none."""
    pid = _owner_alive(state / str(instance))
    return pid if pid != os.getpid() else 0


def _require_root() -> None:
    if os.geteuid() != 0:
        raise LabError("the lab needs root: it makes namespaces, mounts and bridges")


def _claim(clusters: Clusters, instance: int | None, state: Path) -> tuple[AddressPlan, int]:
    """Take a free instance number for this machine, under the machine's lock; the descriptor returned holds the lock
    that tells an `up` at work from one that was killed."""
    taken, networks = _fabrics(), network.machine_networks()
    for number in network.INSTANCES if instance is None else [instance]:
        plan = AddressPlan(number, clusters)
        directory = state / str(number)
        if number in taken or network.overlaps(plan, networks) or directory.exists():
            continue
        directory.mkdir(parents=True)
        claim = os.open(directory / "claim", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        network.ip_batch(["netns add " + plan.fabric])
        subprocess.run(["ip", "-n", plan.fabric, "link", "set", "lo", "alias", str(state)[-250:]], check=True)
        return plan, claim
    raise LabError(
        "no free instance number" if instance is None else "instance %d is taken, or its network is in use" % instance
    )


def _clear_debris(state: Path) -> None:
    """Remove what a killed `up` of this checkout left: nobody holds its claim and it never became ready."""
    for number in instances(state):
        directory = state / str(number)
        if number in _fabrics() and (directory / "lab.json").exists():
            continue
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(directory / "claim", os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # another process of this checkout is bringing it up just now
            finally:
                os.close(handle)
        with contextlib.suppress(LabError):
            _down(number, state)


def _fabric_settings(plan: AddressPlan) -> None:
    """Routing on; bridged frames past iptables (lab.md 1.11: a machine's drop policy swallowed them)."""
    script = (
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1; "
        "for f in iptables ip6tables arptables; do "
        "[ ! -e /proc/sys/net/bridge/bridge-nf-call-$f ] || echo 0 >/proc/sys/net/bridge/bridge-nf-call-$f; done"
    )
    subprocess.run([*network.in_namespace(plan.fabric), "sh", "-c", script], check=True)


def _keygen(path: Path, comment: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)], check=True)


def _venv() -> Path | None:
    """The tools' virtual environment, if its Python can be reached from inside a host."""
    venv = CHECKOUT / ".venv"
    if not (venv / "bin" / "python").exists():
        return None
    python = (venv / "bin" / "python").resolve()
    for hidden in (*_hidden(), "/root", "/tmp", "/run"):
        if python.is_relative_to(hidden):
            raise LabError(
                "the hosts hide %s, where the Python of %s lies: make it with /usr/bin/python3" % (hidden, venv)
            )
    return venv


def _hidden() -> list[str]:
    """Directories of the machine that no host may see: the checkout (with every lab's state) and the homes."""
    return sorted({"/home", "/mnt", "/media", str(CHECKOUT)})


def _host_class(host: HostAddresses) -> type[Host]:
    return MachineHost if host.kind is HostType.MACHINE else Host


def _wires(plan: AddressPlan, host: HostAddresses) -> list[str]:
    """ip -batch lines for a host's namespace: its addresses, or the cables of a machine that has them inside."""
    return outer_batch() if host.kind is HostType.MACHINE else network.host_batch(plan, host)


def _interfaces(host: Host) -> str:
    """/etc/network/interfaces as Proxmox writes it, for the network API."""
    return (
        "auto lo\niface lo inet loopback\n\niface guest inet manual\n\nauto api\niface api inet static\n"
        "\taddress %s\n\tgateway %s\n\nauto mig\niface mig inet static\n\taddress %s\n\n"
        "auto vmbr0\niface vmbr0 inet manual\n\tbridge-ports guest\n\tbridge-stp off\n\tbridge-fd 0\n\n"
        "auto vmbr1\niface vmbr1 inet manual\n\tbridge-ports none\n\tbridge-stp off\n\tbridge-fd 0\n"
        % (host.addresses.api4, host.addresses.gateway4, host.addresses.migration4)
    )
