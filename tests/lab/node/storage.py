# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Storages of a node: volume ids, allocation, listing, sizes; a directory type and a raw-only volume-group type.

The second type (`lvmthin`) has volumes without directory and extension, knows raw only, and refuses what the real one
refuses; its devices are sparse files behind links in /dev/<vgname>, as the lab's machines may lack a device mapper.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Tuple

from . import texts
from .base import Die, Node, ParamError
from .cluster import Cluster
from .flock import file_lock
from .properties import split_volid

__all__ = [
    "IMAGE_FORMATS",
    "Storage",
    "Storages",
    "Volume",
    "check_format",
    "file_format",
    "parse_kib",
    "qemu_img_info",
]

IMAGE_FORMATS = ("raw", "qcow", "qed", "qcow2", "vmdk", "cloop")
DIRECTORY_TYPES = ("dir", "nfs", "cifs", "cephfs", "btrfs")
DEFAULT_CONFIG = {
    "local": {"type": "dir", "path": "/var/lib/vz", "content": "iso,vztmpl,backup,images,rootdir,snippets"}
}
BACKING_DIRECTORY = "/var/lib/lab-lvm"
FILE_CONTENT = {"backup": "dump", "iso": "template/iso", "snippets": "snippets", "vztmpl": "template/cache"}
"""Content types of a directory storage that are plain files, and where they lie."""


@dataclass(frozen=True)
class Storage:
    """One section of storage.cfg."""

    sid: str
    kind: str
    keys: Dict[str, str]

    @property
    def is_directory(self) -> bool:
        """Whether volumes are files with a format extension."""
        return self.kind in DIRECTORY_TYPES

    @property
    def plugin(self) -> str:
        """The plugin name that stands in error texts."""
        return {"dir": "PVE::Storage::DirPlugin", "lvmthin": "PVE::Storage::LvmThinPlugin"}.get(
            self.kind, f"PVE::Storage::{self.kind.capitalize()}Plugin"
        )

    @property
    def content(self) -> List[str]:
        """Content types."""
        default = "images,rootdir" if not self.is_directory else ""
        return [word for word in re.split(r"[,\s]+", self.keys.get("content", default)) if word and word != "none"]

    @property
    def formats(self) -> Tuple[str, ...]:
        """Image formats, the default first."""
        return ("raw", "qcow2", "vmdk") if self.is_directory else ("raw",)

    @property
    def default_format(self) -> str:
        """Format of a volume when none is asked for."""
        return self.keys.get("format", "raw") if self.is_directory else "raw"

    @property
    def disabled(self) -> bool:
        """Switched off for every node (the file has the bare word, or a 1)."""
        return self.keys.get("disable", "0") != "0"

    def on(self, node: str) -> bool:
        """Whether the storage is one of that node."""
        nodes = [word for word in re.split(r"[,\s]+", self.keys.get("nodes", "")) if word]
        return not nodes or node in nodes

    def enabled(self, node: str) -> bool:
        """Usable on that node."""
        return not self.disabled and self.on(node)


@dataclass(frozen=True)
class Volume:
    """One image found by a listing; sizes in bytes."""

    volid: str
    vmid: int
    format: str
    size: int
    path: str
    content: str = "images"


class Storages:
    """All storages of the cluster as this node sees them."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def all(self) -> Dict[str, Storage]:
        """Every section of storage.cfg (with Proxmox's default when the file is missing)."""
        sections = Cluster(self.node).sections("/etc/pve/storage.cfg") or DEFAULT_CONFIG
        return {sid: Storage(sid, keys["type"], keys) for sid, keys in sections.items()}

    def get(self, sid: str) -> Storage:
        """One storage, or Die."""
        found = self.all().get(sid)
        if found is None:
            raise Die(texts.storage_missing(sid))
        return found

    def check_enabled(self, sid: str) -> Storage:
        """A storage usable on this node."""
        storage = self.get(sid)
        if storage.disabled:
            raise Die(texts.storage_disabled(sid))
        if not storage.on(self.node.name):
            raise Die(f"storage '{sid}' is not available on node '{self.node.name}'")
        return storage

    def check_enabled_images(self, sid: str) -> Storage:
        """A storage usable on this node that may hold VM images."""
        storage = self.check_enabled(sid)
        if "images" not in storage.content:
            raise Die(texts.storage_no_images(sid))
        return storage

    # names and paths

    def split(self, volid: str) -> Tuple[Storage, str]:
        """Storage and volume name of a volume id."""
        sid, name = split_volid(volid)
        return self.get(sid), name

    def owner_and_format(self, storage: Storage, name: str) -> Tuple[int, str]:
        """Owner and image format that a volume name spells; Die as the plugin's parser."""
        if not storage.is_directory:
            match = re.fullmatch(r"(?:vm|base)-(\d+)-\S+", name)
            if not match:
                raise Die(f"unable to parse lvm volume name '{name}'")
            return int(match[1]), "raw"
        match = re.fullmatch(r"(?:\d+/\S+/)?(\d+)/(\S+)", name)
        if match:
            return int(match[1]), file_format(match[2])
        if re.fullmatch(r"(?:iso|vztmpl|backup|snippets|import)/[^/]+", name):
            return 0, "raw"
        raise Die(f"unable to parse directory volume name '{name}'")

    def path(self, volid: str) -> str:
        """Absolute path of a volume, existing or not."""
        storage, name = self.split(volid)
        self.owner_and_format(storage, name)
        if not storage.is_directory:
            return f"/dev/{storage.keys['vgname']}/{name}"
        base = storage.keys["path"].rstrip("/")
        content, _, rest = name.partition("/")
        if content in (*FILE_CONTENT, "import"):
            return f"{base}/{FILE_CONTENT.get(content, content)}/{rest}"
        if name.count("/") > 1:
            name = "/".join(name.split("/")[-2:])
        return f"{base}/images/{name}"

    def real_path(self, volid: str) -> str:
        """The path below the root prefix, to open it."""
        storage = self.split(volid)[0]
        if not storage.is_directory:
            self.activate(storage)
        return str(self.node.path(self.path(volid)))

    def exists(self, volid: str) -> bool:
        """Whether the volume is there."""
        return os.path.exists(self.real_path(volid))

    def volume_name(self, storage: Storage, vmid: int, name: str, form: str) -> str:
        """The volume name of a bare file name on that storage (disk-import: extension follows the format)."""
        bare = name[: -len(form) - 1] if name.endswith("." + form) else name
        if not storage.is_directory:
            return bare
        file_format(f"{bare}.{form}")
        return f"{vmid}/{bare}.{form}"

    def free_name(self, storage: Storage, vmid: int, form: str) -> str:
        """The lowest free vm-N-disk-K, counted over all formats, with extension on directories."""
        taken = set()
        for volume in self.list(storage.sid, vmid):
            match = re.search(rf"vm-{vmid}-disk-(\d+)(?:\.\w+)?$", volume.volid)
            if match:
                taken.add(int(match[1]))
        number = next(count for count in range(1 << 20) if count not in taken)
        return f"vm-{vmid}-disk-{number}" + (f".{form}" if storage.is_directory else "")

    # allocation

    def alloc(self, sid: str, vmid: int, form: Optional[str], name: Optional[str], kib: int) -> str:
        """Create a volume of kib KiB and return its id; prints what qemu-img prints."""
        return self.alloc_bytes(sid, vmid, form, name, kib * 1024)

    def alloc_bytes(self, sid: str, vmid: int, form: Optional[str], name: Optional[str], size: int) -> str:
        """The same with a size in bytes (the real one hands fractions of KiB to qemu-img)."""
        storage = self.check_enabled(sid)
        form = (
            form or (name and storage.is_directory and "." in name and name.rsplit(".", 1)[1]) or storage.default_format
        )
        with file_lock(self.node, f"/run/lock/lab-storage-{sid}", 60.0):
            if form not in storage.formats:
                raise Die(f"unsupported format '{form}'")
            name = name or self.free_name(storage, vmid, form)
            if storage.is_directory:
                return self._create_file(storage, vmid, form, name, size)
            return self._create_device(storage, vmid, name, size)

    def _create_file(self, storage: Storage, vmid: int, form: str, name: str, size: int) -> str:
        if file_format(name) != form:
            raise Die(f"illegal name '{name}' - wrong extension for format ('{file_format(name)} != '{form}')")
        volid = f"{storage.sid}:{vmid}/{name}"
        path = self.path(volid)
        if self.exists(volid):
            raise Die(f"disk image '{path}' already exists", 25)
        os.makedirs(os.path.dirname(self.real_path(volid)), exist_ok=True)
        argv = ["qemu-img", "create"]
        if form == "qcow2":
            argv += ["-o", "preallocation=metadata"]
        elif form == "raw":
            argv += ["-o", "preallocation=off"]
        self._run_create([*argv, "-f", form, self.real_path(volid), str(size)], path)
        return volid

    def _run_create(self, argv: List[str], path: str) -> None:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            if os.path.exists(self.node.path(path)):
                os.unlink(self.node.path(path))
            reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
            raise Die(f"unable to create image: {reason}")
        os.write(1, done.stdout.replace(self.node.root + "/", "/").encode())

    def _create_device(self, storage: Storage, vmid: int, name: str, size: int) -> str:
        if not re.match(rf"(vm|base)-{vmid}-", name):
            raise Die(f"illegal name '{name}' - should be 'vm-{vmid}-*'")
        group, volid = storage.keys["vgname"], f"{storage.sid}:{name}"
        if os.path.lexists(self.real_path(volid)):
            text = f'Logical Volume "{name}" already exists in volume group "{group}"'
            raise Die(f"lvcreate '{group}/{name}' error:   {text}", 5)
        extent = 4 << 20
        backing = self.node.path(f"{BACKING_DIRECTORY}/{group}/{name}")
        backing.parent.mkdir(parents=True, exist_ok=True)
        with open(backing, "wb") as stream:
            stream.truncate((size + extent - 1) // extent * extent)
        self.activate(storage)
        os.write(1, f'  Logical volume "{name}" created.\n'.encode())
        return volid

    def free(self, volid: str) -> None:
        """Remove a volume; no in-use check, and a missing one is only mentioned (pve-cli 4.2)."""
        storage, _ = self.split(volid)
        path, real = self.path(volid), self.real_path(volid)
        if not os.path.lexists(real):
            os.write(1, f"disk image '{path}' does not exist\n".encode())
            return
        if not storage.is_directory:
            os.unlink(os.path.realpath(real))
            os.write(1, f'  Logical volume "{os.path.basename(path)}" successfully removed.\n'.encode())
        os.unlink(real)
        try:
            os.rmdir(os.path.dirname(real))
        except OSError:
            pass

    # reading

    def size(self, volid: str) -> Tuple[int, str, int]:
        """Virtual size, format and used bytes; Die when the volume is missing."""
        storage, name = self.split(volid)
        form = self.owner_and_format(storage, name)[1]
        real = self.real_path(volid)
        if not os.path.exists(real):
            raise Die(f"volume '{volid}' does not exist", 2)
        if not storage.is_directory:
            return os.stat(real).st_size, "raw", os.stat(real).st_blocks * 512
        info = qemu_img_info(real, form)
        return int(str(info["virtual-size"])), form, int(str(info.get("actual-size", 0)))

    def list(self, sid: str, vmid: Optional[int] = None) -> List[Volume]:
        """Images of a storage, ordered by volume id."""
        storage = self.get(sid)
        found = self._list_files(storage, vmid) if storage.is_directory else self._list_devices(storage, vmid)
        return sorted(found, key=lambda volume: volume.volid)

    def _list_files(self, storage: Storage, vmid: Optional[int]) -> List[Volume]:
        base = self.node.path(storage.keys["path"].rstrip("/") + "/images")
        found = []
        for directory in sorted(base.glob("[1-9]*")) if vmid is None else [base / str(vmid)]:
            for path in sorted(directory.glob("*")):
                if directory.name.isdigit() and re.fullmatch(r"[^/\s]+\.(raw|qcow2|vmdk)", path.name):
                    found.append(self._volume(storage, f"{directory.name}/{path.name}", str(path)))
        return [volume for volume in found if volume is not None]

    def _volume(self, storage: Storage, name: str, real: str) -> Optional[Volume]:
        owner, form = self.owner_and_format(storage, name)
        try:
            # qemu-img counts raw files in sectors
            size = (
                (os.stat(real).st_size + 511) // 512 * 512
                if form == "raw"
                else int(str(qemu_img_info(real, form)["virtual-size"]))
            )
        except (Die, OSError):
            size = 0
        return Volume(f"{storage.sid}:{name}", owner, form, size, self.path(f"{storage.sid}:{name}"))

    def listing(self, sid: str, content: Optional[str] = None, vmid: Optional[int] = None) -> List[Volume]:
        """Everything on a storage, as the content API and pvesm list show it; a VMID leaves only what it owns."""
        found = self.list(sid, vmid) if content in (None, "images") else []
        return found + [
            volume
            for volume in self.files(sid)
            if content in (None, volume.content) and vmid in (None, volume.vmid or None)
        ]

    def files(self, sid: str) -> List[Volume]:
        """What a directory storage holds besides images: ISO images, templates, backups, snippets."""
        storage = self.get(sid)
        found = []
        for content, place in FILE_CONTENT.items() if storage.is_directory else ():
            if content not in storage.content:
                continue
            base = self.node.path(f"{storage.keys['path'].rstrip('/')}/{place}")
            for path in sorted(base.glob("*")):
                form = _file_kind(content, path.name)
                if form and path.is_file():
                    match = re.match(r"vzdump-(?:qemu|lxc)-(\d+)-", path.name)
                    owner = int(match[1]) if match else 0
                    volid = f"{sid}:{content}/{path.name}"
                    found.append(Volume(volid, owner, form, path.stat().st_size, self.path(volid), content))
        return found

    def activate(self, storage: Storage) -> None:
        """Make the device links of a volume group again (a host that came up anew has an empty /dev)."""
        group = storage.keys["vgname"]
        for backing in self.node.path(f"{BACKING_DIRECTORY}/{group}").glob("*"):
            link = self.node.path(f"/dev/{group}/{backing.name}")
            link.parent.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(link):
                os.symlink(backing, link)

    def _list_devices(self, storage: Storage, vmid: Optional[int]) -> List[Volume]:
        self.activate(storage)
        base = self.node.path(f"/dev/{storage.keys['vgname']}")
        found = []
        for path in sorted(base.glob("vm-*")) if base.exists() else []:
            match = re.match(r"vm-(\d+)-", path.name)
            if match and (vmid is None or int(match[1]) == vmid):
                found.append(Volume(f"{storage.sid}:{path.name}", int(match[1]), "raw", path.stat().st_size, str(path)))
        return found

    def status(self, sid: str) -> Dict[str, object]:
        """Space of a storage in bytes, as GET .../storage/<s>/status."""
        storage = self.get(sid)
        place = storage.keys.get("path", BACKING_DIRECTORY)
        real = self.node.path(place)
        total = used = available = 0
        active = storage.enabled(self.node.name) and (real.exists() or not storage.is_directory)
        if active:  # what is not looked at shows zeros
            space = os.statvfs(real if real.exists() else self.node.path("/"))
            total = space.f_blocks * space.f_frsize
            used = (space.f_blocks - space.f_bfree) * space.f_frsize
            available = space.f_bavail * space.f_frsize
        return {
            "type": storage.kind,
            "active": int(active),
            "enabled": int(storage.enabled(self.node.name)),
            "shared": int("shared" in storage.keys),
            "content": ",".join(storage.content),
            "total": total,
            "used": used,
            "avail": available,
        }


def _file_kind(content: str, name: str) -> str:
    """The format a listing shows for a file that is no image, "" for one it leaves out."""
    match = re.search(
        {
            "iso": r"\.(iso|img)$",
            "vztmpl": r"\.(tar\.(?:gz|xz|zst)|tgz|txz)$",
            "backup": r"^vzdump-.*\.(tgz|(?:tar|vma)(?:\.(?:gz|lzo|zst))?)$",
            "snippets": r"()",
        }[content],
        name,
        re.IGNORECASE,
    )
    if not match:
        return ""
    return {"iso": "iso", "snippets": "snippet"}.get(
        content, match[1].replace("tar.gz", "tgz").replace("tar.xz", "txz")
    )


def file_format(name: str) -> str:
    """Format of a file name on a directory storage."""
    match = re.fullmatch(r"[^/\s]+\.(raw|qcow2|vmdk|subvol)", name)
    if not match:
        raise Die(f"unable to parse volume filename '{name}'")
    return match[1]


def qemu_img_info(path: str, form: Optional[str] = None) -> Dict[str, object]:
    """qemu-img info without image locks (Proxmox's QEMU has locking off)."""
    argv: Sequence[str] = ["qemu-img", "info", "-U", "--output=json", *(("-f", form) if form else ()), path]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        failure = f"command '/usr/bin/qemu-img info '--output=json' {path}' failed: exit code {done.returncode}"
        raise Die(f"{failure}\n{done.stderr.rstrip()}", 1)
    info: dict[str, object] = json.loads(done.stdout)
    return info


def check_format(name: str, form: str) -> None:
    """pvesm alloc and the content API: the name's extension against --format."""
    spelled = name.rsplit(".", 1)[1] if "." in name else ""
    if spelled in ("raw", "qcow2", "vmdk", "subvol") and spelled != form:
        raise ParamError({"format": f"different storage formats ({form} != {spelled})"})


def parse_kib(text: str) -> int:
    """A size of pvesm alloc and the content API: KiB, or a number with M or G."""
    match = re.fullmatch(r"(\d+)([MG])?", text)
    if not match:
        raise ParamError({"size": "value does not match the regex pattern"})
    return int(match[1]) * {None: 1, "M": 1 << 10, "G": 1 << 20}[match[2]]
