# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies below a host's overlay: the machine itself, or a Debian 13 tree made once by mmdebstrap (lab.md 1-2).

A tree is kept below build/cache/trees by suite, package list and calendar week, so that it is neither made twice nor
grows old. `make demo` makes none.
"""

from __future__ import annotations

import contextlib
import datetime
import enum
import fcntl
import hashlib
import re
import shutil
import subprocess
import time
from pathlib import Path

__all__ = ["HostType", "TreeError", "lower", "tree"]

CACHE = Path(__file__).resolve().parents[2] / "build" / "cache" / "trees"
KEEP = 3 * 7 * 86400.0  # seconds; a lab that is up may still stand on an older tree
SUITE = "trixie"
DEFAULT_MIRROR = "http://deb.debian.org/debian"
# One tree for both types. dbus and libpam-systemd: an ssh session becomes a logind scope, as on a Proxmox VE node.
PACKAGES = (
    "qemu-system-x86",
    "qemu-utils",
    "python3",
    "python3-aiohttp",
    "openssh-server",
    "openssh-client",
    "openssl",
    "iproute2",
    "nftables",
    "procps",
    "kmod",
    "e2fsprogs",
    "util-linux",
    "systemd-sysv",
    "dbus",
    "libpam-systemd",
)
OPTIONS = (
    "--quiet",
    "--mode=root",
    "--format=directory",
    "--variant=essential",
    '--aptopt=APT::Install-Recommends "0"',
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=force-unsafe-io",
)


class TreeError(Exception):
    """The tree cannot be made on this machine."""


class HostType(str, enum.Enum):
    """What a host is made of."""

    SELF = "self"
    """The machine itself below an overlay: its QEMU, its Python, nothing to make."""
    TRIXIE = "trixie"
    """Debian 13: QEMU 10.0, Python 3.13."""
    SYSTEMD = "systemd"
    """Debian 13 with systemd as PID 1."""
    MACHINE = "machine"
    """Debian 13 on a kernel of its own: a virtual machine (lab.machine)."""


def lower(kind: HostType) -> Path:
    """The lower directory of a host's root, made where it is missing."""
    return Path("/") if kind is HostType.SELF else tree()


def tree(cache: Path = CACHE) -> Path:
    """The Debian 13 tree, made where it is missing (half a minute on a quiet machine)."""
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = cache / _name(datetime.date.today())
        if not wanted.is_dir():
            _make(wanted)
            _remove_old(cache)
    return wanted


def _name(day: datetime.date) -> str:
    """Suite, week and a digest of what goes into the tree."""
    year, week, _ = day.isocalendar()
    digest = hashlib.sha256("\n".join((*PACKAGES, *OPTIONS)).encode("ascii")).hexdigest()[:12]
    return "%s-%d-%02d-%s" % (SUITE, year, week, digest)


def _make(wanted: Path) -> None:
    if not shutil.which("mmdebstrap"):
        raise TreeError("mmdebstrap is not installed; `make packages-trees` installs it")
    new = wanted.with_name(wanted.name + ".new")
    _remove(new)
    argv = ["mmdebstrap", *OPTIONS, "--include=" + ",".join(PACKAGES), SUITE, str(new), _mirror()]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        _remove(new)
        raise TreeError("mmdebstrap: exit %d\n%s" % (done.returncode, done.stderr[-4000:]))
    new.rename(wanted)


def _mirror() -> str:
    """Where this machine gets Debian from."""
    argv = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(LABEL)", "Created-By: Packages"]
    shown = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    return next(
        (
            words[0]
            for words in map(str.split, shown.splitlines())
            if len(words) == 3 and words[2] == "Debian" and "-" not in words[1]
        ),
        DEFAULT_MIRROR,
    )


def _remove_old(cache: Path) -> None:
    for entry in cache.iterdir():
        if re.fullmatch(r"[a-z]+-\d{4}-\d{2}-[0-9a-f]{12}", entry.name) and (
            entry.stat().st_mtime < time.time() - KEEP
        ):
            _remove(entry)


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


if __name__ == "__main__":
    print(tree())
