# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the guest below build/cache: fetches the distribution's cloud kernel, compiles /init, packs the initramfs."""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from . import initramfs

__all__ = ["APPEND", "BuildError", "build", "compile_static", "kernel", "pack_initrd"]

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[2] / "build" / "cache" / "guest"
KEEP = 86400.0  # seconds
KERNEL_PACKAGE = "linux-image-cloud-amd64"  # depends on the package of the kernel proper
# lab.md 3: worth 0.3 CPU-s of a boot under software emulation. panic= is left away so that a crash is seen.
APPEND = "console=ttyS0 quiet mitigations=off nokaslr no_timer_check audit=0 apparmor=0 cryptomgr.notests"
GCC = ["gcc", "-O2", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-pie", "-no-pie", "-s"]
TCC = ["tcc", "-static", "-nostdlib"]


class BuildError(Exception):
    """The guest cannot be built on this machine."""


def _run(argv: list[str], cwd: Path | None = None) -> str:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError("%s: %s" % (" ".join(argv), (done.stderr or done.stdout).strip()))
    return done.stdout


def build(cache: Path = CACHE) -> dict:
    """The guest's directory, kernel, initrd (file names in it) and kernel command line; made where missing."""
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = kernel(cache)
        digest = hashlib.sha256(found["version"].encode())
        for source in ("worker.c", "initramfs.py", "build.py"):
            digest.update((HERE / source).read_bytes())
        initrd = "initrd-%s" % digest.hexdigest()[:16]
        if not (cache / initrd).exists():
            _make_initrd(cache, initrd)
    return {"directory": cache, "kernel": "vmlinuz", "initrd": initrd, "append": APPEND}


def kernel(cache: Path, modules: tuple[str, ...] = initramfs.MODULES) -> dict:
    """Version of the kernel in cache and its modules in the order they are to be loaded; fetched where missing. The
    caller keeps others away."""
    facts = cache / "kernel.json"
    if not facts.exists():
        _fetch_kernel(cache, modules)
    return json.loads(facts.read_text(encoding="ascii"))


def _kernel_package() -> str:
    """The package that the meta package depends on (a pattern would fetch every kernel there is)."""
    found = re.search(r"Depends: (linux-image-\S+)", _run(["apt-cache", "depends", KERNEL_PACKAGE]))
    if not found:
        raise BuildError("%s names no kernel package" % KERNEL_PACKAGE)
    return found.group(1)


def _fetch_kernel(cache: Path, modules: tuple[str, ...]) -> None:
    """Download and unpack the kernel package; keep the kernel and the modules that are wanted of it."""
    try:
        package = _kernel_package()
    except BuildError:
        _run(["apt-get", "update", "-qq"])
        package = _kernel_package()
    with tempfile.TemporaryDirectory(dir=cache) as name:
        place = Path(name)
        try:
            _run(["apt-get", "download", "-qq", package], cwd=place)
        except BuildError:
            _run(["apt-get", "update", "-qq"])
            _run(["apt-get", "download", "-qq", package], cwd=place)
        (place / "tree").mkdir()
        _run(["dpkg-deb", "-x", str(next(place.glob("*.deb"))), str(place / "tree")])
        _keep_kernel(place / "tree", cache, package, modules)


def _keep_kernel(tree: Path, cache: Path, package: str, wanted: tuple[str, ...]) -> None:
    base = next(path for path in (tree / "lib" / "modules", tree / "usr" / "lib" / "modules") if path.is_dir())
    base = next(base.iterdir())
    files = {re.sub(r"\.ko(\.\w+)?$", "", path.name).replace("-", "_"): path for path in base.rglob("*.ko*")}
    built_in = {
        Path(line).stem.replace("-", "_") for line in (base / "modules.builtin").read_text(encoding="ascii").split()
    }

    def read(name: str) -> bytes | None:
        if name in built_in:
            return None
        return initramfs.plain_module(files[name].name, files[name].read_bytes())

    modules = cache / "modules"
    shutil.rmtree(modules, ignore_errors=True)
    modules.mkdir()
    order = initramfs.module_order(wanted, read)
    for name, data in order:
        (modules / name).write_bytes(data)
    shutil.copyfile(next((tree / "boot").glob("vmlinuz-*")), cache / "vmlinuz")
    facts = {"package": package, "version": base.name, "modules": [name for name, _ in order]}
    new = cache / "kernel.json.new"
    new.write_text(json.dumps(facts, indent=1) + "\n", encoding="ascii")
    new.replace(cache / "kernel.json")


def _make_initrd(cache: Path, initrd: str) -> None:
    compile_static(HERE / "worker.c", cache / "worker")
    for old in cache.glob("initrd-*"):
        if old.stat().st_mtime < time.time() - KEEP:  # a lab that is up still boots from its own
            old.unlink()
    pack_initrd(cache, cache / "worker", cache / initrd)


def pack_initrd(cache: Path, init: Path, initrd: Path) -> None:
    """An initramfs of a program as /init and the modules in cache, which it has to load by the order of their names."""
    names = json.loads((cache / "kernel.json").read_text(encoding="ascii"))["modules"]
    entries = [
        initramfs.directory("dev"),
        initramfs.device("dev/console", 5, 1),
        initramfs.directory("modules"),
        initramfs.file("init", init.read_bytes(), 0o755),
    ]
    entries += [
        initramfs.file("modules/%02d-%s" % (number, name), (cache / "modules" / name).read_bytes())
        for number, name in enumerate(names)
    ]
    new = cache / "initrd.new"
    new.write_bytes(initramfs.pack(entries))
    new.replace(initrd)


def compile_static(source: Path, target: Path) -> None:
    """A program without a C library. tcc first: it is small and needs no headers."""
    for compiler in (TCC, GCC):
        if shutil.which(compiler[0]):
            _run([*compiler, "-o", str(target), str(source)])
            return
    raise BuildError("neither tcc nor gcc is installed")


if __name__ == "__main__":
    print(json.dumps(build(), default=str))
