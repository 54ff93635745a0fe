# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""pvesm: status, list, path, alloc, free, export, import (pve-cli 4.2)."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from typing import List, Optional

from lab.commands.cli import Arguments, Command, check_vmid, main, say, split_words
from lab.node.base import Die, Node, ParamError, complain
from lab.node.properties import split_volid
from lab.node.storage import Storage, Storages, Volume, check_format, parse_kib, qemu_img_info

ACCEPT_SECONDS = 30.0
HEADER_BYTES = 8
FORMATS = ("raw", "qcow2", "subvol", "vmdk")


def status(node: Node, arguments: Arguments) -> None:
    """Table of storages, KiB."""
    storages = Storages(node)
    wanted, content = arguments.options.get("storage"), arguments.options.get("content")
    if wanted is not None and wanted not in storages.all():
        raise ParamError({"storage": "No such storage."})
    names = sorted(
        sid
        for sid, storage in storages.all().items()
        if wanted in (None, sid)
        and not (content and not (set(split_words(content)) & set(storage.content) and storage.enabled(node.name)))
        and not (arguments.flag("enabled") and storage.disabled)
    )
    width = max([len(sid) for sid in names], default=0) + 1
    say(_status_row(width, "Name", "Type", "Status", "Total (KiB)", "Used (KiB)", "Available (KiB)", "%"))
    for sid in names:
        say(_status_line(width, sid, storages))


def _status_row(width: int, *cells: str) -> str:
    name, kind, state, total, used, available, share = cells
    return f"{name:<{width}} {kind:>10} {state:>10} {total:>15} {used:>15} {available:>15} {share:>8}\n"


def _status_line(width: int, sid: str, storages: Storages) -> str:
    found = storages.status(sid)
    total, used, available = (int(str(found[key])) for key in ("total", "used", "avail"))
    if not found["enabled"]:
        return _status_row(width, sid, str(found["type"]), "disabled", "0", "0", "0", "N/A")
    state = "active" if found["active"] else "inactive"
    share = f"{used * 100 / total:.2f}%" if total else "0.00%"
    return _status_row(
        width, sid, str(found["type"]), state, str(total >> 10), str(used >> 10), str(available >> 10), share
    )


def list_volumes(node: Node, arguments: Arguments) -> None:
    """Table of volumes, bytes."""
    sid = arguments.positional[0]
    storages = Storages(node)
    storages.check_enabled(sid)
    vmid = check_vmid(arguments.options["vmid"]) if "vmid" in arguments.options else None
    say(_table(storages.listing(sid, arguments.options.get("content"), vmid)))


def _table(volumes: List[Volume]) -> str:
    """Columns as wide as their longest entry; volumes that no VM owns come last, by format, without the last column."""
    width = max((len(volume.volid) for volume in volumes), default=0)
    digits = len(str(max((volume.size for volume in volumes), default=0)))
    rows = [f"{'Volid':<{width}} {'Format':<7} {'Type':<9} {'Size':>{digits}} VMID\n"]
    others = sorted((volume for volume in volumes if not volume.vmid), key=lambda volume: volume.format)
    for volume in [*(volume for volume in volumes if volume.vmid), *others]:
        row = f"{volume.volid:<{width}} {volume.format:<7} {volume.content:<9} {volume.size:>{digits}}"
        rows.append(row + (f" {volume.vmid}\n" if volume.vmid else "\n"))
    return "".join(rows)


def path(node: Node, arguments: Arguments) -> None:
    """Path of a volume, whether it exists or not."""
    say(Storages(node).path(arguments.positional[0]) + "\n")


def alloc(node: Node, arguments: Arguments) -> None:
    """Create a volume; size in KiB without unit."""
    sid, owner, name, text = arguments.positional
    vmid = arguments.vmid(1)
    del owner
    kib, form = parse_kib(text), arguments.options.get("format")
    if form is not None and form not in FORMATS:
        wanted = f"value '{form}' does not have a value in the enumeration '{', '.join(FORMATS)}'"
        raise ParamError({"format": wanted})
    if form is not None and name:
        check_format(name, form)
    storages = Storages(node)
    storages.check_enabled(sid)
    volid = storages.alloc(sid, vmid, form, name or None, kib)
    say(f"successfully created '{volid}'\n")


def free(node: Node, arguments: Arguments) -> None:
    """Remove a volume, used or not, there or not."""
    volid = arguments.positional[0]
    storages = Storages(node)
    storages.check_enabled(split_volid(volid)[0])
    storages.free(volid)
    say(f"Removed volume '{volid}'\n")


# export


def export(node: Node, arguments: Arguments) -> None:
    """8-byte header with the virtual size, then the data, to stdout or a file."""
    volid, form, target = arguments.positional
    storages = Storages(node)
    storage, name = storages.split(volid)
    image_format = storages.owner_and_format(storage, name)[1]
    size = _size(storages, volid)
    snapshots = arguments.flag("with-snapshots")
    known = (form == "raw+size" and not snapshots) or (
        storage.is_directory and snapshots and form == f"{image_format}+size" and image_format != "raw"
    )
    if not known:
        raise Die(f"volume export format {form} not available for {storage.plugin}", 255 if size is not None else 2)
    if size is None:
        raise Die(f"volume '{volid}' does not exist", 2)
    if target != "-":
        os.dup2(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 1)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a reader that is gone shows when dd writes
    with contextlib.suppress(BrokenPipeError):
        _write_all(size.to_bytes(HEADER_BYTES, "little"))
    if form == "raw+size" and image_format != "raw":
        _run(
            node,
            ["qemu-img", "convert", "-f", image_format, "-O", "raw", storages.real_path(volid), "/dev/stdout"],
            " ",
        )
    else:
        _run(node, ["dd", f"if={storages.real_path(volid)}", "bs=4k", "status=progress"], "' '")


def _size(storages: Storages, volid: str) -> Optional[int]:
    if not storages.exists(volid):
        complain(f"failed to stat '{storages.path(volid)}'")
        return None
    return storages.size(volid)[0]


def _write_all(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def _run(node: Node, argv: List[str], glue: str) -> None:
    done = subprocess.run(argv, restore_signals=True, check=False)
    if done.returncode == 0:
        return
    shown = glue.join(argv).replace(node.root + "/", "/") if node.root else glue.join(argv)
    if glue != " ":
        shown = shown.replace("dd' '", "dd '", 1) + "'"
    if done.returncode < 0:
        raise Die(f"command '{shown}' failed: got signal {-done.returncode}")
    raise Die(f"command '{shown}' failed: exit code {done.returncode}", 1)


# import


def import_volume(node: Node, arguments: Arguments) -> None:
    """A stream with size header becomes a new volume; an early end of the stream is not noticed."""
    volid, form, source = arguments.positional
    storages = Storages(node)
    storage, name = storages.split(volid)
    vmid, image_format = storages.owner_and_format(storage, name)
    if source.startswith("unix://"):
        _accept(node, source[len("unix://") :])
    elif source != "-":
        os.dup2(os.open(source, os.O_RDONLY), 0)
    _check_stream(storage, image_format, form, arguments.flag("with-snapshots"))
    wanted: Optional[str] = name.split("/")[-1]
    if storages.exists(volid):
        if not arguments.flag("allow-rename"):
            raise Die(f"file '{storages.path(volid)}' already exists")
        complain(f"file '{storages.path(volid)}' already exists - importing with a different name")
        wanted = None
    size = _read_header()
    created = _allocate(storages, storage.sid, vmid, image_format, wanted, size)
    try:
        _receive(storages, created, storage.is_directory, image_format)
    except Die:
        storages.free(created)
        raise
    say(f"successfully imported '{created}'\n")


def _check_stream(storage: Storage, image_format: str, form: str, snapshots: bool) -> None:
    """Whether the stream fits the volume; looked at when it is there (mtunnel-protocol 7.3: no conversion)."""
    match = re.fullmatch(r"(raw|qcow2|vmdk)\+size", form)
    if not match or (match[1] != "raw" and not storage.is_directory):
        raise Die(f"volume import format {form} not available for {storage.plugin}")
    if snapshots != (match[1] != "raw"):
        raise Die(f"format {form} cannot be imported {'with' if snapshots else 'without'} snapshots")
    if match[1] != image_format:
        raise Die(f"cannot import format {form} into a file of format {image_format}")


def _accept(node: Node, name: str) -> None:
    real = str(node.path(name))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(real)
    listener.listen(1)
    try:
        os.chown(real, 33, -1)
    except OSError:
        pass
    say("ready\n")
    listener.settimeout(node.seconds(ACCEPT_SECONDS))
    try:
        connection = listener.accept()[0]
    except TimeoutError:
        os.unlink(real)
        raise Die("import: no connection within 30 s - got timeout") from None
    connection.setblocking(True)
    os.dup2(connection.fileno(), 0)
    connection.close()
    listener.close()
    os.unlink(real)


def _read_header() -> int:
    header = b""
    while len(header) < HEADER_BYTES:
        data = os.read(0, HEADER_BYTES - len(header))
        if not data:
            raise Die("import: no size found in export header, aborting.")
        header += data
    return int.from_bytes(header, "little")


def _allocate(storages: Storages, sid: str, vmid: int, form: str, name: Optional[str], size: int) -> str:
    if size % 1024:
        rounded = (size + 1023) // 1024 * 1024
        complain(f"size {size} is not aligned to granularity 1024, rounding up to {rounded}")
        size = rounded
    return storages.alloc(sid, vmid, form, name, size // 1024)


def _receive(storages: Storages, volid: str, directory: bool, form: str) -> None:
    real = storages.real_path(volid)
    words = ["dd", f"of={real}", "conv=sparse", "bs=64k"]
    if not directory:  # a device keeps its size: what does not fit fails
        words = ["dd", f"of={real}", "conv=notrunc,sparse", "bs=64k"]
        words = ["bash", "-c", 'ulimit -f $(( $1 / 1024 )); shift; exec "$@"', "dd", str(os.stat(real).st_size), *words]
    _run(storages.node, words, "' '")
    if directory and form != "raw":
        _check_untrusted(real, form, volid)


def _check_untrusted(real: str, form: str, volid: str) -> None:
    info = qemu_img_info(real, form)
    if "backing-filename" in info or "data-file" in str(info.get("format-specific", "")):
        raise Die(f"volume '{volid}' has a forbidden reference to another file")


COMMANDS = {
    "status": Command(status, values=("storage", "content", "target", "format"), booleans=("enabled",)),
    "list": Command(list_volumes, ("storage",), values=("vmid", "content")),
    "path": Command(path, ("volume",)),
    "alloc": Command(alloc, ("storage", "vmid", "filename", "size"), values=("format",)),
    "free": Command(free, ("volume",), values=("storage", "delay")),
    "export": Command(
        export,
        ("volume", "format", "filename"),
        values=("base", "snapshot", "snapshot-list"),
        booleans=("with-snapshots",),
    ),
    "import": Command(
        import_volume,
        ("volume", "format", "filename"),
        values=("base", "snapshot", "delete-snapshot"),
        booleans=("with-snapshots", "allow-rename"),
    ),
}

if __name__ == "__main__":
    sys.exit(main("pvesm", COMMANDS))
