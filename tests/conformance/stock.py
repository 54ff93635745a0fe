# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recordings of the stock source: its own task is replayed as well, on a lab of its own.

Where such a file holds the control channel too, it is replayed twice: once the runner speaks in the source's place, as
recorded, and once the lab's own source does everything and its HTTP answers, log and exit status are compared.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import os
import re
import signal
import subprocess
import time
from typing import Dict, List, Optional, Tuple

from lab.hosts import namespace_pids

from .capture import Capture, Event
from .preconditions import TEMPLATE, Needs, Vm
from .session import Session

__all__ = ["Part", "belongs", "kill_tunnel_client", "parts", "prepared", "steady"]

MOVED = re.compile(r"volume '(\S+)' is '(\S+)' on the target")
FOUND = re.compile(r"found (local|generated) disk '(\S+)' \((.*)\)")
DD = re.compile(r"^(\d+) bytes .*copied, [\d.]+ s")
PROGRESS = re.compile(r"^$|^\d+ bytes .* copied, \d+ s, |migration (active|device), transferred|%\) in [^,]*$")
READY = re.compile(r": transferred .*, ready$")
JOB = re.compile(r"\bmirror-((?:scsi|virtio|sata|ide|efidisk)\d)")
COPIED = re.compile(r"\d+ bytes .*copied, [-\d.e]+ s, .*B/s")
"""the images here are not as long as the recorded ones: they hold nothing"""
TUNNEL_CLIENT = "proxmox-websock"


class Part(enum.Enum):
    """Who is the source in a replay."""

    RUNNER = "runner"
    STOCK = "stock source"


def _posts(capture: Capture) -> List[Event]:
    return [event for event in capture.of("http", True) if event.body["url"].endswith("/remote_migrate")]


def parts(capture: Capture) -> List[Part]:
    """How a file is replayed; one without remote_migrate has one ordinary part."""
    if not _posts(capture):
        return [Part.RUNNER]
    return [Part.RUNNER, Part.STOCK] if any(True for _ in capture.of("control")) else [Part.STOCK]


def belongs(capture: Capture, part: Part, event: Event) -> bool:
    """Whether an event is replayed in that part."""
    if not _posts(capture):
        return True
    of_the_task = event.channel == "http" or event.kind in ("task-log", "task-exit", "action", "case")
    return of_the_task if part is Part.STOCK else not of_the_task


# -- the VM ------------------------------------------------------------------------------------------------------------


def prepared(capture: Capture, part: Part, wanted: Needs) -> Needs:
    """What must be there for that part."""
    if part is Part.RUNNER or not _posts(capture):
        return wanted
    killed = any("tunnel client process" in event.body["text"] for event in capture.notes("action"))
    return dataclasses.replace(wanted, vms=[_vm(capture)], source=None, drives_source=False, slow_mirror=killed)


def _vm(capture: Capture) -> Vm:
    match = re.search(r"/qemu/(\d+)/remote_migrate$", _posts(capture)[0].body["url"])
    vmid = int(match[1]) if match else 100
    lines = [event.body["line"] for event in capture.notes("task-log") if "line" in event.body]
    online = any(event.body["params"].get("online") == "1" for event in _posts(capture))
    sizes = _sizes(lines)
    config = _sent_config(capture, lines) or _logged_config(vmid, lines, sizes)
    named = re.findall(r"(local:\d+/vm-[^,\s]+)(?:[^\n]*?size=(\d+)([KMGT]?))?", config)
    volumes = {volid: sizes.get(volid) or int(number or 4) << _shift(unit or "M") for volid, number, unit in named}
    for line in lines:
        grown = re.search(r"drive '(\w+)': size of disk '\S+' updated from 0T to", line)
        if grown:
            config = re.sub(rf"^({grown[1]}: .*),size=\w+", r"\1", config, flags=re.MULTILINE)
    return Vm("source", vmid, config, volumes, online)


def _shift(unit: str) -> int:
    return {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[unit]


def _sizes(lines: List[str]) -> Dict[str, int]:
    """Bytes of copied volumes: of the file where it is raw, of the disk where it is an image."""
    found: Dict[str, int] = {}
    copied: Optional[int] = None
    virtual: Optional[int] = None
    for line in lines:
        dd, image, moved = (
            DD.search(line),
            re.search(r"Formatting .* fmt=qcow2 .* size=(\d+) ", line),
            MOVED.search(line),
        )
        copied = int(dd[1]) if dd else copied
        virtual = int(image[1]) if image else virtual
        if moved and (virtual or copied):
            found[moved[1]] = virtual or copied or 0
            copied = virtual = None
    return found


def _sent_config(capture: Capture, lines: List[str]) -> Optional[str]:
    """The config that went to the target, with the source's volumes."""
    sent = [event.body["conf"] for event in capture.of("control", True) if event.body.get("cmd") == "config"]
    if not sent:
        return None
    config = re.sub(r"^lock: .*\n", "", sent[-1], flags=re.MULTILINE)
    back = {moved[2]: moved[1] for moved in map(MOVED.search, lines) if moved}
    config = re.sub(r"local:\d+/vm-[^,\s]+", lambda match: back.get(match[0], match[0]), config)
    return re.sub(r",format=\w+", "", config)


def _logged_config(vmid: int, lines: List[str], sizes: Dict[str, int]) -> str:
    """A config that has the volumes and NICs of the log; keys that the log does not tell are chosen here."""
    template = TEMPLATE.format(vmid=vmid, memory=192, mac=vmid % 256)
    disks = [(found[1], found[2], found[3]) for found in map(FOUND.search, lines) if found]
    if not disks or all(volid.endswith("-disk-0.qcow2") for _, volid, _ in disks):
        return template
    kept = [line for line in template.splitlines() if not line.startswith(("scsi0:", "net0:", "boot:"))]
    counts = {"scsi": 0, "unused": 0}
    for kind, volid, why in disks:
        size = f"size={_shown(sizes[volid])}"
        if kind == "generated":
            kept.append(f"ide2: {volid},media=cdrom,{size}")
        elif sizes[volid] == 540672:
            kept.append(f"efidisk0: {volid},efitype=4m,{size}")
        else:
            key = "unused" if why == "unused" else "scsi"
            kept.append(f"{key}{counts[key]}: {volid}" + (f",{size}" if key == "scsi" else ""))
            counts[key] += 1
    nets = sorted({match[1] for match in (re.search(r"mapped: (net\d+) from", line) for line in lines) if match})
    kept += [f"{key}: virtio=BC:24:11:00:00:{number:02X},bridge=vmbr0" for number, key in enumerate(nets)]
    return "".join(line + "\n" for line in sorted(kept))


def _shown(size: int) -> str:
    """A size as configs show it."""
    unit = next(unit for unit in "TGMK" if size % (1 << _shift(unit)) == 0)
    return f"{size >> _shift(unit)}{unit}"


# -- the log -----------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _qemu() -> Tuple[int, int]:
    text = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"version (\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def steady(lines: List[str], recorded: bool = False) -> List[str]:
    """Log lines without progress; recorded ones as a source with this machine's QEMU would have said them.

    Block jobs are called mirror-* from machine version 10.0 on, and the copy mode can be changed from QEMU 8.2 on.
    """
    found = []
    for line in lines:
        if PROGRESS.search(line) or (recorded and _qemu() < (8, 2) and "actively synced mode" in line):
            continue
        if recorded and _qemu() < (10, 0):
            line = JOB.sub(r"drive-\1", line)
        found.append(COPIED.sub("all bytes copied", READY.sub(": transferred all, ready", line)))
    return _sorted_runs(found)


def _sorted_runs(lines: List[str]) -> List[str]:
    """NICs are mapped in the order of an unsorted key list."""
    found: List[str] = []
    run: List[str] = []
    for line in [*lines, ""]:
        if "mapped: net" in line:
            run.append(line)
            continue
        found += sorted(run, key=lambda each: each.partition("mapped: ")[2])
        run = []
        found.append(line)
    return found[:-1]


def kill_tunnel_client(session: Session, log: List[str]) -> bool:
    """SIGKILL to the source's tunnel client process once a mirror is at work."""
    if not any("transferred" in line for line in log):
        return False
    time.sleep(2.0)
    for pid in namespace_pids(session.world.host("source").namespace):
        with open(f"/proc/{pid}/comm", encoding="ascii") as name:
            if name.read().strip() == TUNNEL_CLIENT:
                os.kill(pid, signal.SIGKILL)
                return True
    return False
