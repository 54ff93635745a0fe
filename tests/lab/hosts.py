# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host of the lab, seen from the machine: start and stop, commands inside, and the faults of its cables."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from .network import AddressPlan, HostAddresses, Segment, in_namespace

__all__ = ["Host", "HostError", "namespace_pids", "remove_cgroups"]

HOSTINIT = Path(__file__).with_name("hostinit.py")
START_TIMEOUT = 30.0  # seconds
STOP_TIMEOUT = 10.0
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
MONITOR = re.compile(rb"path=/run/qemu-server/(\d+)\.qmp")
SHAPE_BURST = "256k"


class HostError(Exception):
    """A host did not start, or a command in it failed."""


def namespace_pids(namespace: str) -> list[int]:
    """Processes that live in a network namespace, whatever their pid namespace."""
    done = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
    return [int(word) for word in done.stdout.split()]


def remove_cgroups(instance: Path) -> None:
    """Remove the control groups of an instance's hosts that had systemd; their processes are gone."""
    names = [path.read_text(encoding="ascii").strip() for path in instance.glob("hosts/*/cgroup")]
    if not names:
        return
    # The unified hierarchy need not be mounted on the machine: look at it in a mount namespace that ends with this.
    script = (
        "mount -t cgroup2 none /mnt && cd /mnt && for name; do "
        "[ ! -d $name ] || find $name -depth -type d -exec rmdir {} +; done"
    )
    deadline = time.monotonic() + STOP_TIMEOUT
    while True:
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh", *names], capture_output=True, text=True, check=False
        )
        if not done.returncode:
            return
        if time.monotonic() > deadline:
            raise HostError("control groups %s stay: %s" % (", ".join(names), done.stderr.strip()))
        time.sleep(0.1)  # the last process of a host is just about to go


@dataclass
class Host:
    """A host: its own namespaces, root and processes. `state` is its directory in the instance's state."""

    plan: AddressPlan
    addresses: HostAddresses
    state: Path
    fingerprint: str = ""
    pid: int = 0
    has_api: bool = False
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The host's name in the lab, e.g. alpha1."""
        return self.addresses.name

    @property
    def node(self) -> str:
        """The node's own name: the same, unless another cluster has a node of that name."""
        return self.addresses.node

    @property
    def cluster(self) -> str:
        return self.addresses.cluster

    @property
    def inventory_host(self) -> str:
        return "%s-%s" % (self.cluster, self.node)

    @property
    def api_host(self) -> str:
        """IPv4 address of the API and of sshd."""
        return str(self.addresses.api4.ip)

    @property
    def migration_address(self) -> str:
        return str(self.addresses.migration4.ip)

    @property
    def namespace(self) -> str:
        return self.plan.namespace(self.name)

    @property
    def root(self) -> str:
        """The host's root as seen from the machine: sockets in its /run are reached through it as well."""
        return "/proc/%d/root" % self.pid

    def path(self, absolute: str) -> str:
        """A path inside the host, as seen from the machine."""
        return self.root + absolute

    # -- life --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start PID 1 and wait until it has built the root. The init.json must be there."""
        reader, writer = os.pipe()
        argv = [
            *in_namespace(self.namespace),
            "unshare",
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--fork",
            "--kill-child=SIGKILL",
            "/usr/bin/python3",
            "-I",
            str(HOSTINIT),
            str(self.state / "init.json"),
            str(writer),
        ]
        with open(self.state / "init.log", "ab") as log, contextlib.ExitStack() as closing:
            closing.callback(os.close, reader)
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(writer,),
                cwd="/",
            )
            os.close(writer)
            ready, _, _ = select.select([reader], [], [], START_TIMEOUT)
            if not ready or not os.read(reader, 16):
                process.kill()
                process.wait()
                raise HostError("%s did not start:\n%s" % (self.name, self.init_log()))
        process.returncode = 0  # it lives on by itself: nothing here waits for it
        self.pid = _only_child(process.pid)
        (self.state / "pid").write_text("%d\n" % self.pid, encoding="ascii")

    def stop(self) -> None:
        """Power off, as pulling the plug: every process and mount of the host is gone, its disks and files stay."""
        deadline = time.monotonic() + STOP_TIMEOUT
        while pids := namespace_pids(self.namespace):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            _reap(pids)
            if time.monotonic() > deadline:
                raise HostError("processes of %s do not end: %r" % (self.name, pids))
            time.sleep(0.02)
        self.pid = 0
        (self.state / "pid").unlink(missing_ok=True)

    def reboot(self) -> None:
        """Power off and on: /run, /tmp and the small storage are lost, everything else stays, no VM is started."""
        self.stop()
        self.start()
        self.wait_ready()

    def init_log(self) -> str:
        """What PID 1 and the set-up said."""
        path = self.state / "init.log"
        return path.read_text(encoding="utf-8", errors="replace")[-4000:] if path.exists() else ""

    def wait_ready(self, timeout: float = START_TIMEOUT) -> None:
        """Wait until sshd answers, and the API where there is one."""
        deadline = time.monotonic() + timeout
        self._wait_port(22, deadline, banner=True)
        if self.has_api:
            self._wait_port(8006, deadline)

    def _wait_port(self, port: int, deadline: float, banner: bool = False) -> None:
        while True:
            with contextlib.suppress(OSError), socket.create_connection((self.api_host, port), timeout=1.0) as link:
                if not banner or link.recv(4):
                    return
            if time.monotonic() > deadline:
                raise HostError("%s does not answer on port %d:\n%s" % (self.name, port, self.service_logs()))
            time.sleep(0.03)

    def service_logs(self) -> str:
        """The ends of the services' logs, for error messages."""
        found = [self.init_log()]
        with contextlib.suppress(OSError):
            for path in sorted(Path(self.path("/var/log/lab")).iterdir()):
                found.append("--- %s\n%s" % (path.name, path.read_text(errors="replace")[-2000:]))
        return "\n".join(found)

    # -- commands ----------------------------------------------------------------------------------------------

    def argv(self, argv: list[str]) -> list[str]:
        """A command as run inside the host; it dies with the process that started it (lab.md 4)."""
        return [
            "nsenter",
            "--target",
            str(self.pid),
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "setpriv",
            "--pdeathsig",
            "KILL",
            "--",
            *argv,
        ]

    def run(
        self, argv: list[str], *, check: bool = True, timeout: float | None = 60.0, text_input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside as root; its output is text. Raises HostError if it fails and check is set."""
        done = subprocess.run(
            self.argv(argv),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            cwd="/",
            check=False,
            env=ENVIRONMENT,
            input="" if text_input is None else text_input,
        )
        if check and done.returncode:
            raise HostError(
                "%s: %s: exit %d\n%s%s" % (self.name, " ".join(argv), done.returncode, done.stdout, done.stderr)
            )
        return done

    def popen(self, argv: list[str], **options: object) -> subprocess.Popen:
        """Start a command inside and return it running."""
        return subprocess.Popen(self.argv(argv), cwd="/", env=ENVIRONMENT, **options)  # type: ignore[call-overload]

    def api_python(self, arguments: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        """Run lab code (`-m lab.faults ...`) inside, with the tools' Python."""
        python = "/opt/lab-venv/bin/python" if os.path.exists(self.path("/opt/lab-venv/bin")) else "/usr/bin/python3"
        return self.run(["env", "PYTHONPATH=/opt/lab", python, *arguments], **options)  # type: ignore[arg-type]

    def qemu_pids(self) -> dict[int, int]:
        """VMID to pid (inside the host) of every QEMU that runs a VM, paused and incoming ones included."""
        found = {}
        for entry in Path(self.path("/proc")).iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                monitor = MONITOR.search((entry / "cmdline").read_bytes())
                if monitor:
                    found[int(monitor[1])] = int(entry.name)
        return found

    # -- faults of the cables (lab.md 4) -----------------------------------------------------------------------

    def _fabric(self, argv: list[str], check: bool = True) -> None:
        done = subprocess.run([*in_namespace(self.plan.fabric), *argv], capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise HostError("%s: %s" % (" ".join(argv), done.stderr.strip()))

    def link_down(self, segment: Segment = Segment.API) -> None:
        """Pull the cable: the host sees its carrier go."""
        self._fabric(["ip", "link", "set", self.plan.port(segment, self.name), "down"])

    def blackhole(self, segment: Segment = Segment.API) -> None:
        """Lose everything both ways with the link still up: the port leaves its bridge."""
        self._fabric(["ip", "link", "set", self.plan.port(segment, self.name), "nomaster"])

    def restore(self, segment: Segment = Segment.API) -> None:
        """End link_down and blackhole."""
        self._fabric(
            [
                "ip",
                "link",
                "set",
                self.plan.port(segment, self.name),
                "master",
                self.plan.bridge(segment, self.cluster),
                "up",
            ]
        )

    def mute(self, towards: Host) -> None:
        """Drop what this host sends to another one, on every segment; the other direction stays."""
        rules = ["table netdev mute-%s-%s {" % (self.name, towards.name)]
        for segment in (Segment.API, Segment.MIGRATION):
            port = self.plan.port(segment, self.name)
            for family, address in _addresses(towards.addresses, segment):
                rules.append(
                    'chain %s-%s { type filter hook ingress device "%s" priority 0; %s daddr %s drop; }'
                    % (segment.value, family, port, family, address)
                )
        self._nft_fabric("\n".join([*rules, "}"]) + "\n")

    def unmute(self, towards: Host) -> None:
        """End mute."""
        self._fabric(["nft", "delete", "table", "netdev", "mute-%s-%s" % (self.name, towards.name)], check=False)

    def _nft_fabric(self, rules: str) -> None:
        done = subprocess.run(
            [*in_namespace(self.plan.fabric), "nft", "-f", "-"],
            input=rules,
            text=True,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise HostError("nft: %s" % done.stderr.strip())

    def refuse_port(self, port: int) -> None:
        """Answer connections to a port of this host with RST."""
        self.run(
            ["nft", "-f", "-"],
            text_input=(
                "table inet lab-refuse-%d {\nchain input { type filter hook input priority -10;\n"
                "tcp dport %d reject with tcp reset;\n}\n}\n" % (port, port)
            ),
        )

    def lose_port(self, port: int, sender: Host) -> None:
        """Drop what another host sends to a port of this host, without a word; what is established falls silent."""
        rules = "".join(
            "%s saddr %s tcp dport %d drop;\n" % (family, address, port)
            for segment in (Segment.API, Segment.MIGRATION)
            for family, address in _addresses(sender.addresses, segment)
        )
        self.run(
            ["nft", "-f", "-"],
            text_input="table inet lab-refuse-%d {\nchain input { type filter hook input priority -10;\n%s}\n}\n"
            % (port, rules),
        )

    def accept_port(self, port: int) -> None:
        """End refuse_port and lose_port."""
        self.run(["nft", "delete", "table", "inet", "lab-refuse-%d" % port], check=False)

    def reset_connections(self, port: int, side: str = "sport") -> None:
        """Reset established TCP connections of this host by its own (sport) or the peer's (dport) port."""
        self.run(["ss", "-K", "-t", "state", "established", "( %s = :%d )" % (side, port)], check=False)

    def shape(self, mbit: float, segment: Segment = Segment.API) -> None:
        """Limit both directions of a segment of this host to so many Mbit/s."""
        words = ["root", "tbf", "rate", "%dkbit" % int(mbit * 1000), "burst", SHAPE_BURST, "latency", "50ms"]
        self._fabric(["tc", "qdisc", "replace", "dev", self.plan.port(segment, self.name), *words])
        self.run(["tc", "qdisc", "replace", "dev", segment.value, *words])

    def unshape(self, segment: Segment = Segment.API) -> None:
        """End shape."""
        self._fabric(["tc", "qdisc", "del", "dev", self.plan.port(segment, self.name), "root"], check=False)
        self.run(["tc", "qdisc", "del", "dev", segment.value, "root"], check=False)


def _addresses(addresses: HostAddresses, segment: Segment) -> list[tuple[str, object]]:
    if segment is Segment.API:
        return [("ip", addresses.api4.ip), ("ip6", addresses.api6.ip)]
    return [("ip", addresses.migration4.ip), ("ip6", addresses.migration6.ip)]


def _only_child(pid: int) -> int:
    children = Path("/proc/%d/task/%d/children" % (pid, pid)).read_text(encoding="ascii").split()
    if len(children) != 1:
        raise HostError("no PID 1 below process %d" % pid)
    return int(children[0])


def _reap(pids: list[int]) -> None:
    """Hosts started by this very process become its zombies."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
