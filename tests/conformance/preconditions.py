# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the two nodes must have before a recording can be replayed, read back from the recording itself."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

from .capture import Capture
from .source import SourceVm, derive

__all__ = ["Needs", "Vm", "needs"]

_TOKEN = re.compile(r"PVEAPIToken=([^=\"\s]+![^=\"\s]+)=")
_VOLUME = re.compile(r"(local:\d+/vm-[^,\s]+)[^\n]*?size=(\d+[KMGT]?)")
GENERATIONS = [
    (re.compile(r"9\.1\.10.*insecure-remote"), "seed"),
    (re.compile(r"insecure-remote"), "insecure"),
    (re.compile(r"9\.2\.[23]\b"), "transitional"),
    (re.compile(r"8\.4\.(9|[1-9]\d)\b"), "hardened"),
    (re.compile(r"9\.2\.[01]\b|9\.1|9\.0|8\."), "classic"),
]
TEMPLATE = (
    "boot: order=scsi0;net0\ncores: 1\nkvm: 0\nmemory: {memory}\nmeta: creation-qemu=11.1.3,ctime=1795153123\n"
    "name: vm{vmid}\nnet0: virtio=BC:24:11:0C:7D:{mac:02X},bridge=vmbr0\n"
    "scsi0: local:{vmid}/vm-{vmid}-disk-0.qcow2,size=1G\nscsihw: virtio-scsi-pci\nserial0: socket\n"
    "smbios1: uuid=f1fcce24-5a83-4a7e-8004-1{vmid:011d}\nvga: none\n"
    "vmgenid: a017f37c-a381-4bfb-9f02-e{vmid:011d}\n"
)


@dataclass(frozen=True)
class Vm:
    """A VM that is there at the start."""

    node: str
    vmid: int
    config: str
    volumes: Dict[str, int]
    running: bool


@dataclass(frozen=True)
class Needs:
    """All of it. ``slow_mirror`` and ``slow_ram``: the recording caught that phase at work."""

    personality: Dict[str, Any]
    source_personality: Dict[str, Any]
    tokens: List[str]
    storages: Dict[str, str]
    vms: List[Vm]
    source: Optional[SourceVm]
    drives_source: bool
    slow_mirror: bool = False
    slow_ram: bool = False
    long_timer: bool = False
    privileges: Dict[str, List[Tuple[bool, str, str]]] = field(default_factory=dict)


def needs(capture: Capture) -> Needs:
    source = derive(capture)
    vms = _cli_vms(capture)
    if source is not None:
        vms.append(Vm("source", source.vmid, source.config, source.volumes, source.running))
    elif not vms:
        vms = _stock_vms(capture)
    slow_mirror, slow_ram = _caught(capture)
    return Needs(
        _personality(capture, "target_pve"),
        _personality(capture, "source_pve"),
        sorted(set(_TOKEN.findall(capture.text()))),
        _storages(capture),
        vms,
        source,
        source is not None and not any(True for _ in capture.of("qmp")),
        slow_mirror,
        slow_ram,
        _long_timer(capture),
        _told_privileges(capture),
    )


def _long_timer(capture: Capture) -> bool:
    """A task that ends by a time limit of more than a minute."""
    last = 0.0
    for event in capture.events:
        if event.kind == "task-exit" and event.at - last > 60.0:
            return True
        last = event.at
    return False


def _personality(capture: Capture, side: str) -> Dict[str, Any]:
    version = str(capture.scenario.get(side, capture.scenario.get("target_pve", "")))
    generation = next((name for pattern, name in GENERATIONS if pattern.search(version)), "hardened")
    loop = "libev" if "libev" in str(capture.scenario.get("pveproxy_event_loop", "")) else "perl"
    return {"personality": generation, "event_loop": loop}


def _storages(capture: Capture) -> Dict[str, str]:
    """Those whose state an error tells, and those besides `local` on which volumes were made."""
    text = capture.text()
    found = {name: "images" for name in re.findall(r'"volid": ?"([\w.-]+):\d+/', text) if name != "local"}
    found.update({name: "iso" for name in re.findall(r"storage '([\w.-]+)' does not support vm images", text)})
    found.update({name: "disabled" for name in re.findall(r"storage '([\w.-]+)' is disabled", text)})
    return found


def _told_privileges(capture: Capture) -> Dict[str, List[Tuple[bool, str, str]]]:
    """User -> (propagates, path, privileges), where a heading tells what a role may do."""
    found: Dict[str, List[Tuple[bool, str, str]]] = {}
    for event in capture.notes("case"):
        user = re.search(r"token of (?:user )?([^\s;,]+@\w+)", event.body["text"])
        if user and "privileges" in event.body:
            found[user[1]] = [_told(part) for part in str(event.body["privileges"]).split(";")]
    return found


def _told(text: str) -> Tuple[bool, str, str]:
    """`A,B.{C,D} on /path (propagated)`; a path below / is granted for what lies below it."""
    privileges, _, rest = text.strip().rpartition(" on ")
    path = rest.split()[0]

    def spread(match: "re.Match[str]") -> str:
        return ",".join(match[1] + word for word in match[2].split(","))

    return path != "/" or "propagated" in rest, path, re.sub(r"([\w.]+\.)\{([\w,]+)\}", spread, privileges)


def _caught(capture: Capture) -> "tuple[bool, bool]":
    """Phases that a state note shows in the middle: they have to be slow enough to be seen."""
    for event in capture.notes("source-state"):
        jobs = event.body.get("block_jobs") or []
        if any(job.get("status") == "running" for job in jobs):
            return True, False
        if event.body.get("query_migrate", {}).get("status") == "active":
            return False, True
    return False, False


def _cli_vms(capture: Capture) -> List[Vm]:
    """VMs of a node-command recording: those whose state is shown, plus the usual VM 100 where it is listed."""
    commands = list(capture.of("cli"))
    if not commands:
        return []
    found: Dict[int, Vm] = {}
    for event in commands:
        state = event.body.get("state_before") or {}
        images = [re.match(r"vm-(\d+)-", name) for name in state.get("images") or []]
        numbers = [int(match[1]) for match in images if match]
        if state.get("config") and numbers and numbers[0] not in found:
            vmid = numbers[0]
            found[vmid] = _vm(vmid, _config(capture, vmid, 64), bool(state.get("qemu")))
    if 100 not in found and re.search(r"vm100\b|local:100/", capture.text()):
        found[100] = _vm(100, _config(capture, 100, 192), "vm100" in capture.text())
    return list(found.values())


def _stock_vms(capture: Capture) -> List[Vm]:
    """The VM that the stock source was asked to move, where nothing shows its config."""
    for event in capture.of("http", True):
        match = re.search(r"/qemu/(\d+)/remote_migrate$", event.body["url"])
        if match:
            running = event.body["params"].get("online") == "1"
            return [_vm(int(match[1]), _config(capture, int(match[1]), 192), running)]
    return []


def _vm(vmid: int, config: str, running: bool) -> Vm:
    return Vm("source", vmid, config, {volid: _bytes(size) for volid, size in _VOLUME.findall(config)}, running)


def _config(capture: Capture, vmid: int, memory: int) -> str:
    """The first config the recording shows, else the usual small VM."""
    for event in capture.of("cli"):
        argv = event.body["argv"]
        if argv[:3] == ["qm", "config", str(vmid)] and event.body["rc"] == 0:
            return re.sub(r"^lock: .*\n", "", event.body["stdout"], flags=re.MULTILINE)
        if argv[:2] == ["pvesh", "get"] and argv[2].endswith(f"/qemu/{vmid}/config") and event.body["rc"] == 0:
            values = json.loads(event.body["stdout"])
            lines = [f"{key}: {value}\n" for key, value in sorted(values.items()) if key not in ("digest", "lock")]
            return "".join(lines)
    return TEMPLATE.format(vmid=vmid, memory=memory, mac=vmid % 256)


def _bytes(size: str) -> int:
    factor = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}.get(size[-1], 1)
    return int(size.rstrip("KMGT")) * factor
