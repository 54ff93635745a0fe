# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that is a machine: a QEMU in the host's network namespace, reached by ssh and by nothing else.

The namespace's cables end in bridges with the machine's cards beside them, so that every fault of a cable works as it
does for other hosts. Before the first start `path` leads into what will become the machine's own disk.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path

from lab.guest import build
from lab.hosts import Host, HostError
from lab.network import AddressPlan, HostAddresses, Segment, host_batch, in_namespace

from . import image
from .accelerator import arguments as accelerator

__all__ = ["MOUNT", "MachineHost", "machine_settings", "outer_batch"]

MOUNT = "/mnt"  # of the machine's own disk, inside
MEMORY_MIB = 768
PROCESSORS = 1  # a second one costs more by the calls between the two than it carries
# The time stamp counter first of all: any other clock is a device, and an emulator inside asks for the time all along.
APPEND = (
    "console=ttyS0 quiet mitigations=off nokaslr no_timer_check audit=0 apparmor=0 cryptomgr.notests "
    "clocksource=tsc tsc=reliable random.trust_cpu=on nowatchdog rcupdate.rcu_expedited=1"
)
SSH = ("-o", "ControlMaster=auto", "-o", "ControlPersist=300", "-o", "ConnectTimeout=60")
# Where what the machine sees below a path lies before it was started, relative to the host's and the cluster's state.
STORAGES = {"/var/lib/vz": "storage/local", "/srv/fast": "storage/fast"}


def card_addresses(host: HostAddresses) -> dict[str, str]:
    """Hardware addresses of a machine's cards by their names inside; the emulator's default is the same for all."""
    return {segment.value: "52:54:00:63:%02x:%02x" % (host.index, number) for number, segment in enumerate(Segment, 1)}


def machine_settings(plan: AddressPlan, host: HostAddresses, settings: dict) -> dict:
    """What differs in the init.json of a machine: where things lie inside, and what its first program needs."""
    return {
        "state": MOUNT + "/state",
        "lower": "/",
        "pve": MOUNT + "/pve",
        "tests": MOUNT + "/tests",
        "guest": settings["guest"] and MOUNT + "/guest",
        "hide": ["/home", MOUNT, "/media"],
        "compiled": True,
        "cards": {address: name for name, address in card_addresses(host).items()},
        "network": host_batch(plan, host),
    }


def outer_batch() -> list[str]:
    """ip -batch lines for a machine's namespace: each cable is bridged to a card."""
    lines = ["link set lo up"]
    for segment in Segment:
        lines += [
            "link add br-%s type bridge" % segment.value,
            "tuntap add dev tap-%s mode tap" % segment.value,
            *("link set %s%s master br-%s up" % (kind, segment.value, segment.value) for kind in ("", "tap-")),
            "link set br-%s up" % segment.value,
        ]
    return lines


class MachineHost(Host):
    """A host in its own kernel."""

    start_timeout = 600.0  # seconds; under software emulation it comes up in half a minute on a quiet machine

    @property
    def console(self) -> Path:
        """What the machine's kernel and its PID 1 said."""
        return self.state / "console.log"

    def path(self, absolute: str) -> str:
        """Before the first start: where a file of the host lies. Later nothing but ssh leads inside."""
        if (self.state / "disk.ext4").exists():
            raise HostError("%s is a machine of its own: its files are reached by ssh only" % self.name)
        if absolute.startswith("/etc/pve/"):
            return str(self.state.parents[1] / "clusters" / self.cluster / absolute[5:])
        for place, below in STORAGES.items():
            if absolute.startswith(place + "/"):
                return str(self.state / below) + absolute[len(place) :]
        raise HostError("%s of %s is out of reach before it was started" % (absolute, self.name))

    def start(self) -> None:
        """Start the machine; it needs its time (wait_ready). Its disk is made of its state at the first time."""
        shared = image.machinery()
        disk = self.state / "disk.ext4"
        if not disk.exists():
            self._make_disk(shared.tree, disk)
        with open(self.state / "init.log", "ab") as log:
            process = subprocess.Popen(
                [*in_namespace(self.namespace), *self._emulator(shared, disk)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )
        self.pid = process.pid
        process.returncode = 0  # it lives on by itself: nothing here waits for it
        (self.state / "pid").write_text("%d\n" % self.pid, encoding="ascii")

    def _make_disk(self, below: Path, disk: Path) -> None:
        content = self.state / "disk"
        shutil.copytree(self.state, content / "state", symlinks=True, ignore=shutil.ignore_patterns("disk", "init.*"))
        for name in ("upper", "work", "root"):
            (content / "state" / name).mkdir()
        shutil.copytree(self.state.parents[1] / "clusters" / self.cluster / "pve", content / "pve", symlinks=True)
        image.copy_lab(below, content / "tests" / "lab")
        shutil.copy(self.state / "init.json", content)
        settings = json.loads((self.state / "init.json").read_text(encoding="utf-8"))
        (content / "guest").mkdir()
        for key in ("kernel", "initrd") if settings["guest"] else ():
            shutil.copy(build.CACHE / Path(settings["guest_boot"][key]).name, content / "guest")
        image.make_disk(content, disk)
        shutil.rmtree(content)

    def _emulator(self, shared: image.Machinery, disk: Path) -> list[str]:
        argv = [
            *image.program(shared.tree, "qemu-system-x86_64"),
            *(word for place in ("qemu", "seabios") for word in ("-L", str(shared.tree / "usr/share" / place))),
            "-name", self.name, "-machine", "q35", *accelerator(shared), "-smp", str(PROCESSORS),
            "-m", str(MEMORY_MIB), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-serial", "file:%s" % self.console, "-device", "virtio-rng-pci",
            "-kernel", str(shared.kernel), "-initrd", str(shared.initrd), "-append", APPEND,
        ]  # fmt: skip
        for number, (path, options) in enumerate(((shared.root, ",read-only=on"), (disk, ""))):
            argv += ["-blockdev", "raw,node-name=d%d,file.driver=file,file.filename=%s%s" % (number, path, options)]
            argv += ["-device", "virtio-blk-pci,drive=d%d" % number]
        for name, address in card_addresses(self.addresses).items():
            argv += ["-netdev", "tap,id=%s,ifname=tap-%s,script=no,downscript=no" % (name, name)]
            argv += ["-device", "virtio-net-pci,netdev=%s,mac=%s,romfile=" % (name, address)]
        return argv

    def argv(self, argv: list[str]) -> list[str]:
        """A command as run inside the machine."""
        sockets = Path(self.plan.control_sockets)
        sockets.mkdir(mode=0o700, exist_ok=True)
        config = self.state.parents[1] / "ssh_config"
        control = "ControlPath=%s/lab-%s" % (sockets, self.name)
        return ["ssh", "-F", str(config), *SSH, "-o", control, self.name, "--", shlex.join(argv)]

    def api_python(self, arguments: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        """Run lab code inside, with the tree's Python."""
        return self.run(["env", "PYTHONPATH=/opt/lab", "/usr/bin/python3", *arguments], **options)  # type: ignore[arg-type]

    def service_logs(self) -> str:
        """The console and what the emulator said, for error messages."""
        said = self.console.read_text(encoding="utf-8", errors="replace")[-4000:] if self.console.exists() else ""
        return "%s\n--- console\n%s" % (self.init_log(), said)

    def qemu_pids(self) -> dict[int, int]:
        """VMID to pid (inside) of every VM's QEMU, told by its pid file."""
        script = "cd /run/qemu-server 2>/dev/null && grep -H . *.pid || true"
        lines = self.run(["sh", "-c", script]).stdout.split()
        return {int(name.partition(".")[0]): int(pid) for name, _, pid in (line.partition(":") for line in lines)}

    def wait_ready(self, timeout: float = 0.0) -> None:
        """Wait until sshd answers, and the API where there is one."""
        super().wait_ready(timeout or self.start_timeout)
