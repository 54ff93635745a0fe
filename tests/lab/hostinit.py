# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""PID 1 of a lab host: builds the host's root from a lower tree (the machine's own /, or a Debian 13), starts its
services, reaps. With `systemd` in its settings it hands over to systemd once the root stands.

Run as `nsenter --net=... unshare --mount --uts --ipc --pid --fork python3 hostinit.py init.json`, standard library
only and no import of the lab: after pivot_root nothing of the checkout is visible any more. Everything needed later is
imported before, also what Python would import lazily (`encodings.idna`), because with another Debian as lower
directory the running Python loses its library.
"""

from __future__ import annotations

import ctypes
import encodings.ascii
import encodings.idna  # noqa: F401
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
MS_SHARED = 1 << 20
CLONE_NEWCGROUP = 0x02000000
MNT_DETACH = 2
SYS_PIVOT_ROOT, SYS_OPEN_TREE, SYS_MOVE_MOUNT = 155, 428, 429
AT_FDCWD, AT_SYMLINK_NOFOLLOW, OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH = -100, 0x100, 1, 4
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "net/tun", "loop-control")
SERVICE_PAUSE = 1.0  # seconds before a service that ended is started again
MACHINERY = "/opt/lab"
PYTHON = "/opt/lab-venv/bin/python"
COMMANDS = ("qm", "pvesm", "pvesh", "ha-manager")
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}

LIBC = ctypes.CDLL(None, use_errno=True)

WRAPPER = """#!{python} -I
import sys
sys.pycache_prefix = {pycache!r}
sys.path.insert(0, "{machinery}")
sys.argv[0] = "{name}"
import runpy
runpy.run_module("{module}", run_name="__main__")
"""

SSHD_CONFIG = """Port 22
{listen}
HostKey /etc/ssh/lab_host_ed25519
AuthorizedKeysFile /etc/ssh/lab_authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
UsePAM {pam}
UseDNS no
PrintMotd no
MaxStartups 100
PidFile /run/sshd.pid
Subsystem sftp internal-sftp
"""

SYSTEMD = "/usr/lib/systemd/systemd"
TARGET_UNIT = """[Unit]
Description=A host of the lab
Requires=basic.target
After=basic.target
Wants={wants}
AllowIsolate=yes
"""
# As on a Proxmox VE node the end of the API's unit ends no VM that was started by it.
SERVICE_UNIT = """[Unit]
Description=The lab's {name}
StartLimitIntervalSec=0
[Service]
ExecStartPre=/bin/sh -c "while [ -e /run/lab-faults/hold-{name} ]; do sleep 0.1; done"
ExecStart={command}
TimeoutStartSec=infinity
Restart=always
RestartSec=1
KillMode=process
StandardOutput=append:/var/log/lab/{name}.log
StandardError=inherit
"""


def check(result: int, what: str) -> int:
    """Turn a C library result below zero into OSError."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    check(
        LIBC.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()),
        "%s on %s" % (source, target),
    )


def tmpfs(target: str, mode: str = "0755", options: str = "") -> None:
    """A private tmpfs at target, made if it is not there."""
    os.makedirs(target, exist_ok=True)
    mount("tmpfs", target, "tmpfs", MS_NOSUID, "mode=" + mode + (options and "," + options))


def bind(source: str, target: str, read_only: bool = False) -> None:
    """Bind a directory or a file; target is made if it is not there."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "a", encoding="ascii"):
            pass
    mount(source, target, "", MS_BIND)
    if read_only:
        mount("none", target, "", MS_BIND | MS_REMOUNT | MS_RDONLY)


def overmount_link(source: str, target: str) -> None:
    """Put one symbolic link over another: /etc/pve is one directory for all nodes of a cluster, but `local` and
    `qemu-server` in it are different links on each node. Only the newer mount calls can do that to a link."""
    tree = check(LIBC.syscall(SYS_OPEN_TREE, AT_FDCWD, source.encode(), OPEN_TREE_CLONE | AT_SYMLINK_NOFOLLOW), source)
    try:
        check(LIBC.syscall(SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, target.encode(), MOVE_MOUNT_F_EMPTY_PATH), target)
    finally:
        os.close(tree)


def write(path: str, text: str, mode: int = 0o644) -> None:
    """Write a small file, replacing what is there (a link too)."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.islink(path):
        os.unlink(path)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)


def overlay(settings: dict, root: str) -> None:
    """The host's root: the lower tree, written to in the host's own upper directory; on tmpfs where the file system
    below cannot carry an upper directory (a container's root that is an overlay itself)."""
    state = settings["state"]
    os.makedirs(root, exist_ok=True)
    try:
        overlay_in(state, settings["lower"], root)
    except OSError as error:
        print("overlay on disk refused (%s), using tmpfs" % error, flush=True)
        volatile = os.path.join(state, "volatile")
        tmpfs(volatile)
        overlay_in(volatile, settings["lower"], root)


def overlay_in(directory: str, lower: str, root: str) -> None:
    """Mount the overlay by relative paths: its option string has no room for every path."""
    os.makedirs(os.path.join(directory, "upper"), exist_ok=True)
    os.makedirs(os.path.join(directory, "work"), exist_ok=True)
    os.chdir(directory)
    mount("overlay", root, "overlay", 0, "lowerdir=%s,upperdir=upper,workdir=work" % lower)


def fill_dev(root: str) -> None:
    """A /dev with the few nodes a host needs; no KVM device (lab.md 6: its presence proves nothing)."""
    dev = root + "/dev"
    tmpfs(dev)
    loops = ["loop%d" % number for number in range(8)]
    for name in (*DEVICES, *loops):
        if os.path.exists("/dev/" + name):
            bind("/dev/" + name, "%s/%s" % (dev, name))
    os.mkdir(dev + "/pts")
    mount("devpts", dev + "/pts", "devpts", MS_NOSUID, "newinstance,ptmxmode=0666,mode=620")
    os.symlink("pts/ptmx", dev + "/ptmx")
    tmpfs(dev + "/shm", "1777")
    for name, target in (
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ):
        os.symlink(target, "%s/%s" % (dev, name))


def build_root(settings: dict) -> str:
    """Mount everything of the new root and return its path."""
    state = settings["state"]
    root = os.path.join(state, "root")
    overlay(settings, root)
    mount("proc", root + "/proc", "proc", MS_NOSUID | MS_NODEV)
    mount("sysfs", root + "/sys", "sysfs", MS_NOSUID | MS_NODEV)
    if settings["systemd"]:
        container_mounts(root)
    fill_dev(root)
    tmpfs(root + "/run")
    tmpfs(root + "/tmp", "1777")
    tmpfs(root + "/root", "0700")
    for path in settings["hide"]:
        if os.path.isdir(root + path):
            tmpfs(root + path, "0700")
    bind(settings["pve"], root + "/etc/pve")
    own = os.path.join(state, "pve")
    for name in ("local", "qemu-server", "lxc"):
        overmount_link(os.path.join(own, name), root + "/etc/pve/" + name)
    bind(os.path.join(own, "members"), root + "/etc/pve/.members")
    bind(settings["tests"], root + MACHINERY, read_only=True)
    if settings["venv"]:
        bind(settings["venv"], root + "/opt/lab-venv", read_only=True)
    if settings["guest"]:
        bind(settings["guest"], root + "/opt/lab-guest", read_only=True)
    for name, path in settings["storages"].items():
        bind(os.path.join(state, "storage", name), root + path)
    if settings["small"]["mib"]:
        small_storage(root, settings["small"]["path"], settings["small"]["mib"], state)
    return root


def enter_cgroup(settings: dict) -> None:
    """A control group of its own, and that as the root of what can be seen of them. Only the unified hierarchy counts:
    systemd 257 refuses a machine's older one (lab.md 5). The note in the state directory is for who cleans up."""
    state = settings["state"]
    with open(os.path.join(state, "cgroup"), "w", encoding="ascii") as file:
        file.write(settings["cgroup"] + "\n")
    place = os.path.join(state, "unified")
    os.makedirs(place, exist_ok=True)
    mount("cgroup2", place, "cgroup2")
    own = os.path.join(place, settings["cgroup"])
    os.makedirs(own, exist_ok=True)
    with open(own + "/cgroup.procs", "w", encoding="ascii") as file:
        file.write("0")
    check(LIBC.unshare(CLONE_NEWCGROUP), "control group namespace")
    check(LIBC.umount2(place.encode(), MNT_DETACH), place)


def container_mounts(root: str) -> None:
    """What systemd finds in a container: its control groups, and the kernel's settings read-only but for the network,
    so that it changes none of the machine's."""
    mount("none", root + "/sys", "", MS_BIND | MS_REMOUNT | MS_RDONLY)
    mount("cgroup2", root + "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV)
    bind(root + "/proc/sys", root + "/proc/sys", read_only=True)
    bind(root + "/proc/sys/net", root + "/proc/sys/net")
    mount(root + "/proc/sys/net", root + "/proc/sys/net", "", MS_BIND | MS_REMOUNT)
    if os.path.exists(root + "/proc/sysrq-trigger"):
        bind("/dev/null", root + "/proc/sysrq-trigger")


def small_storage(root: str, path: str, mib: int, state: str) -> None:
    """A storage that can be filled up: tmpfs, or ext4 on a loop device where tmpfs knows no O_DIRECT."""
    target = root + path
    tmpfs(target, "0755", "size=%dm" % mib)
    probe = target + "/probe"
    try:
        os.close(os.open(probe, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600))
        os.unlink(probe)
    except OSError:
        image = os.path.join(state, "small.img")
        with open(image, "wb") as file:
            file.truncate(mib << 20)
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, target], check=True)


def change_root(root: str) -> None:
    """Make root the root; the old one is gone from this mount namespace afterwards."""
    os.chdir(root)
    check(LIBC.syscall(SYS_PIVOT_ROOT, b".", b"."), "pivot_root")
    check(LIBC.umount2(b".", MNT_DETACH), "old root")
    os.chdir("/")


def write_files(settings: dict) -> None:
    """The host's own files: names, sshd, the places Proxmox keeps its state in, and its commands."""
    write("/etc/hostname", settings["name"] + "\n")
    write("/etc/hosts", settings["hosts_file"])
    for path in (
        "/run/sshd",
        "/run/lock",
        "/run/lock/qemu-server",
        "/run/lock/pve-manager",
        "/run/qemu-server",
        "/run/pve",
        "/run/lab-faults",
        "/var/log/pve/tasks",
        "/var/log/lab",
        "/var/lib/vz/images",
        "/var/lib/pve-manager",
    ):
        os.makedirs(path, exist_ok=True)
    write("/etc/network/interfaces", settings["interfaces"])
    if settings["personality"]:
        write("/etc/lab/personality.json", json.dumps(settings["personality"]) + "\n")
    write("/etc/ssh/lab_host_ed25519", settings["host_key"], 0o600)
    write("/etc/ssh/lab_authorized_keys", settings["authorized_key"])
    listen = "\n".join("ListenAddress " + address for address in settings["listen"])
    pam = "yes" if settings["systemd"] else "no"
    write("/etc/ssh/lab_sshd_config", SSHD_CONFIG.format(listen=listen, pam=pam))
    unlock_root()
    common = {
        "python": PYTHON if settings["venv"] else "/usr/bin/python3",
        "machinery": MACHINERY,
        # The lab's code is read-only in a host; a machine's copy of it has its byte code beside it already.
        "pycache": None if settings["compiled"] else "/run/lab-pycache",
    }
    for name in COMMANDS:
        write(
            "/usr/sbin/" + name,
            WRAPPER.format(name=name, module="lab.commands." + name.replace("-", "_"), **common),
            0o755,
        )
    write(
        "/usr/lib/lab-api",
        WRAPPER.format(name="lab-api", module="lab.api.server", **common),
        0o755,
    )
    write("/run/lab-guest.json", json.dumps(settings["guest_boot"]) + "\n")
    write("/run/lab-host.json", json.dumps(settings["host_facts"]) + "\n")


def unlock_root() -> None:
    """sshd without PAM refuses accounts whose password field says locked, keys included."""
    with open("/etc/shadow", encoding="utf-8") as file:
        lines = file.read().split("\n")
    changed = ["root:*:" + line.split(":", 2)[2] if line.startswith("root:!") else line for line in lines]
    if changed != lines:
        write("/etc/shadow", "\n".join(changed), 0o640)


def services(settings: dict) -> dict:
    """Name to argv of what PID 1 keeps running."""
    found = {"sshd": ["/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/lab_sshd_config"]}
    if settings["api"] and os.path.exists(MACHINERY + "/lab/api/server.py"):
        found["api"] = ["/usr/lib/lab-api"]
    return found


def start(name: str, argv: list) -> int:
    """Start one service in its own session, its output in /var/log/lab."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/var/log/lab/%s.log" % name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawn(argv[0], argv, ENVIRONMENT, file_actions=actions, setsid=True)


def supervise(wanted: dict) -> None:
    """Start the services, reap every orphan for ever, start a service again a second after it ended.

    A file /run/lab-faults/hold-<service> keeps it down: tests that need a dead API use it.
    """
    running = {start(name, argv): name for name, argv in wanted.items()}
    due: dict = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG if due else 0)
        except ChildProcessError:
            pid, status = 0, 0
        if pid:
            name = running.pop(pid, None)
            if name:
                print("service %s ended with %d" % (name, status), flush=True)
                due[name] = time.monotonic() + SERVICE_PAUSE
            continue
        for name in [name for name, moment in due.items() if moment <= time.monotonic()]:
            if not os.path.exists("/run/lab-faults/hold-" + name):
                del due[name]
                running[start(name, wanted[name])] = name
        time.sleep(0.1)


def hand_over(settings: dict) -> None:
    """Become systemd, with the services as units below a target of the lab."""
    wanted = services(settings)
    for name, argv in wanted.items():
        write("/etc/systemd/system/lab-%s.service" % name, SERVICE_UNIT.format(name=name, command=" ".join(argv)))
    wants = " ".join("lab-%s.service" % name for name in wanted)
    write("/etc/systemd/system/lab.target", TARGET_UNIT.format(wants=wants + " dbus.socket systemd-logind.service"))
    write("/etc/machine-id", settings["machine_id"] + "\n", 0o444)
    mount("none", "/", "", MS_REC | MS_SHARED)
    os.execve(
        SYSTEMD, [SYSTEMD, "--system", "--unit=lab.target", "--show-status=no"], dict(ENVIRONMENT, container="lab")
    )


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        settings = json.load(file)
    ready = int(sys.argv[2]) if len(sys.argv) > 2 else -1
    assert os.getpid() == 1, "hostinit must be PID 1 of a new namespace"
    "warm.up".encode("idna")
    socket.sethostname(settings["name"])
    os.umask(0o022)
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    if settings["systemd"]:
        enter_cgroup(settings)
    change_root(build_root(settings))
    for name in ("iptables", "ip6tables", "arptables"):
        try:
            with open("/proc/sys/net/bridge/bridge-nf-call-" + name, "w", encoding="ascii") as file:
                file.write("0")
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EPERM, errno.EROFS, errno.EACCES):
                raise
    write_files(settings)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if ready >= 0:
        os.write(ready, b"ready\n")
        os.close(ready)
    if settings["systemd"]:
        hand_over(settings)
    supervise(services(settings))


if __name__ == "__main__":
    main()
