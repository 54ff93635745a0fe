# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine boots: a kernel with an initramfs, the Debian 13 tree as a read-only disk, a disk with its own files.

The first three are made once and kept below build/cache; the last is made per host, already with the byte code of the
lab: under software emulation a Python that compiles its modules takes longer than everything it was started for.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab.guest import build as guest
from lab.trees import tree

__all__ = ["Machinery", "machinery", "make_disk", "program"]

HERE = Path(__file__).resolve().parent
LAB = HERE.parent
CACHE = LAB.parents[1] / "build" / "cache" / "machine"
MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "overlay", "bridge", "tun")
SPARE_MIB = 128
# Nothing of a machine outlives the test: no journal, and no check sums that would be computed by an emulated processor.
EXT4 = ["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal,^metadata_csum", "-m", "0", "-E", "lazy_itable_init=1"]


@dataclass(frozen=True)
class Machinery:
    """Files that all machines share."""

    kernel: Path
    initrd: Path
    root: Path
    tree: Path


def machinery(cache: Path = CACHE) -> Machinery:
    """Everything shared, made where it is missing."""
    below = tree()
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kernel = guest.kernel(cache, MODULES)
        digest = hashlib.sha256((kernel["version"] + " ".join(MODULES)).encode() + (HERE / "boot.c").read_bytes())
        initrd = cache / ("initrd-%s" % digest.hexdigest()[:16])
        if not initrd.exists():
            guest.compile_static(HERE / "boot.c", cache / "boot")
            guest.pack_initrd(cache, cache / "boot", initrd)
        root = cache / (below.name + ".ext4")
        if not root.exists():
            for old in cache.glob("*.ext4"):
                old.unlink()  # a machine that runs from it keeps its open file
            make_disk(below, root)
    return Machinery(cache / "vmlinuz", initrd, root, below)


def program(below: Path, name: str) -> list[str]:
    """A program of the tree, run on this machine with its own libraries."""
    libraries = below / "usr" / "lib" / "x86_64-linux-gnu"
    return [
        str(below / "usr" / "lib64" / "ld-linux-x86-64.so.2"), "--library-path", str(libraries),
        str(below / "usr" / "bin" / name),
    ]  # fmt: skip


def make_disk(content: Path, disk: Path) -> None:
    """An ext4 image of a directory, with some room; needs no mount."""
    used = sum(path.lstat().st_blocks for path in content.rglob("*")) // 2048
    new = disk.with_name(disk.name + ".new")
    new.unlink(missing_ok=True)
    _run([*EXT4, "-d", str(content), str(new), "%dM" % (used + used // 8 + SPARE_MIB)])
    new.replace(disk)


def copy_lab(below: Path, target: Path) -> None:
    """The lab's own code with its byte code, as the tree's Python wants it."""
    shutil.copytree(LAB, target, ignore=shutil.ignore_patterns("__pycache__", "guest", "callback"))
    environment = {**os.environ, "PYTHONHOME": str(below / "usr")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    _run([*program(below, "python3"), "-S", "-m", "compileall", "-q", str(target)], environment)


def _run(argv: list[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise guest.BuildError("%s: %s" % (argv[0], (done.stderr or done.stdout).strip()[-2000:]))
