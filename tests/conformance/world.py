# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab as a replay sees it: two clusters of one node each, called source and target like the recorded ones.

Every file gets a lab of its own: it comes up in a second, and nothing of the file before can help or harm it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Pattern, Tuple

from lab.hosts import Host
from lab.instance import CHECKOUT, Lab, down, instances
from lab.network import Segment

from .capture import Capture
from .monitor import Monitor
from .preconditions import Needs, Vm
from .source import Engine, SourceVm
from .wire import WebSocket

__all__ = ["Ran", "World", "clear_debris"]

_HERE = Path(__file__).resolve().parent
API_PORT = 8006
LONG_SCALE = 0.05
STATE = CHECKOUT / "build" / "conformance"
"""One directory per process below: other users of the lab, and other runs, clear up what they take for debris."""
FILLED = 256 << 20


@dataclass(frozen=True)
class Ran:
    """A finished command on a node."""

    stdout: str
    stderr: str
    rc: int
    elapsed: float


def clear_debris() -> None:
    """Removes the labs of runs that were killed."""
    for place in STATE.iterdir() if STATE.is_dir() else []:
        if place.name.isdigit() and not Path("/proc", place.name).exists():
            for number in instances(place):
                down(number, state=place)
            shutil.rmtree(place, ignore_errors=True)


class World:
    """One lab instance prepared for one recording; a context manager."""

    def __init__(self, needs: Needs, slow: bool = False) -> None:
        self.needs = needs
        self.bindings = json.loads((_HERE / "bindings.json").read_text(encoding="utf-8"))
        self.long_scale = 1.0 if slow else LONG_SCALE
        self.tokens: Dict[str, str] = {}
        self.password = str(uuid.uuid4())
        self.source: Optional[SourceVm] = needs.source
        self.engine: Optional[Engine] = None
        self._monitor: Optional[Monitor] = None
        self._holders: List[threading.Thread] = []
        self._scratch = Path(tempfile.mkdtemp(prefix="conformance-"))
        self.lab: Lab
        self.qmp_rules: List[Dict[str, Any]] = self.bindings["qmp"]

    def __enter__(self) -> "World":
        personality = self._character("target")
        self.lab = Lab.up(
            {"source": ["source"], "target": ["target"]},
            state=STATE / str(os.getpid()),
            personality=personality,
            guest={},
        )
        try:
            self._prepare()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._monitor is not None:
            self._monitor.close()
        shutil.rmtree(self._scratch, ignore_errors=True)
        self.lab.down()
        with contextlib.suppress(OSError):
            (STATE / str(os.getpid())).rmdir()

    # -- set-up ------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        normal = str(uuid.uuid4())
        for node in ("source", "target"):
            pve = self.lab.directory / "clusters" / node / "pve"
            (pve / "user.cfg").write_text(self._users(normal), encoding="utf-8")
            (pve / "priv" / "token.cfg").write_text(
                "".join(f"{token} {secret}\n" for token, secret in self.tokens.items()), encoding="utf-8"
            )
            (pve / "priv" / "lab-passwords").write_text(f"root@pam {self.password}\n", encoding="utf-8")
            (pve / "storage.cfg").write_text(self._storages(), encoding="utf-8")
            self._personality(node)
        for vm in self.needs.vms:
            self._make(vm)
        if self.source is not None and self.needs.drives_source:
            self._start_engine()

    def _character(self, node: str) -> Dict[str, Any]:
        """The lab's own long waits are shortened only where the recording waits for one of them."""
        character = self.needs.source_personality if node == "source" else self.needs.personality
        return dict(character, long_scale=self.long_scale if self.needs.long_timer else 1.0)

    def _personality(self, node: str) -> None:
        path = Path(self.path(node, "/etc/lab/personality.json"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self._character(node)), encoding="utf-8")

    def _users(self, normal: str) -> str:
        table = self.bindings["users"]
        lines = ["user:root@pam:1:0::::::"]
        roles: Dict[str, str] = {}
        for token in sorted({*self.needs.tokens, "root@pam!migration"}):
            user = token.partition("!")[0]
            known = table.get(token) or table.get(user) or self._told(user) or table["default"]
            self.tokens.setdefault(token, str(uuid.uuid4()) if known.get("secret") == "own" else normal)
            if user != "root@pam":
                lines.append(f"user:{user}:1:0::::::")
            lines.append(f"token:{token}:0:0::")
            for path, (propagate, privileges) in known.get("acl", {}).items():
                role = roles.setdefault(privileges, known.get("role", {}).get(path) or f"Role{len(roles) + 1}")
                lines.append(f"acl:{propagate}:{path}:{user}:{role}:")
        lines += [f"role:{role}:{privileges}:" for privileges, role in roles.items()]
        return "\n".join(dict.fromkeys(lines)) + "\n"

    def _told(self, user: str) -> Dict[str, Any]:
        """A user of whom the recording itself says what it may."""
        told = self.needs.privileges.get(user)
        if not told:
            return {}
        return {"secret": "own", "acl": {path: [int(propagate), held] for propagate, path, held in told}}

    def _storages(self) -> str:
        sections = [self.bindings["storages"]["local"]]
        for name, kind in self.needs.storages.items():
            sections.append(self.bindings["storages"][kind].replace("NAME", name))
        return "\n".join(sections)

    def _make(self, vm: Vm) -> None:
        for volid, size in vm.volumes.items():
            path = Path(self.path(vm.node, "/var/lib/vz/images/" + volid.split(":", 1)[1]))
            path.parent.mkdir(parents=True, exist_ok=True)
            kind = path.suffix.lstrip(".")
            if kind == "raw":
                path.write_bytes(b"")
                os.truncate(path, size)  # qemu-img would round up to sectors
            else:
                subprocess.run(["qemu-img", "create", "-q", "-f", kind, str(path), str(size)], check=True)
            if self.needs.slow_mirror:
                # a mirror that is to be seen at work needs something to copy
                subprocess.run(
                    ["qemu-io", "-f", kind, "-c", f"write -P 7 0 {min(size, FILLED)}", str(path)],
                    check=True,
                    stdout=subprocess.DEVNULL,
                )
        self.config_path(vm.node, vm.vmid).write_text(vm.config, encoding="utf-8")
        if vm.running:
            ran = self.run(vm.node, ["qm", "start", str(vm.vmid)], None)
            if ran.rc:
                raise RuntimeError(
                    f"the recording's VM {vm.vmid} does not start on {vm.node}: {ran.stdout}{ran.stderr}"
                )

    def _start_engine(self) -> None:
        source = self.source
        if source is None or not source.running:
            return
        self._monitor = Monitor(self.path("source", f"/run/qemu-server/{source.vmid}.qmp"))
        self.engine = Engine(
            self._monitor, source.vmid, list(source.mirrored), self.needs.slow_mirror, self.needs.slow_ram
        )

    # -- names -------------------------------------------------------------------------------------------------

    def host(self, node: str) -> Host:
        return self.lab.host(node)

    def address(self, node: str) -> Tuple[str, int]:
        return self.host(node).api_host, API_PORT

    def node_of(self, url: str) -> str:
        return "source" if self.host("source").api_host in url or "//source." in url else "target"

    def path(self, node: str, absolute: str) -> str:
        """A file of a node. /var/lock is a link to /run/lock, which would lead out of the node's root from here."""
        return self.host(node).path(re.sub(r"^/var/lock/", "/run/lock/", absolute))

    def config_path(self, node: str, vmid: int) -> Path:
        return Path(self.path(node, f"/etc/pve/nodes/{node}/qemu-server/{vmid}.conf"))

    def literals(self) -> List[Tuple[Pattern[str], str]]:
        """The table of bindings.json with this lab's facts filled in."""
        text = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True).stdout
        version = re.search(r"version (\d+\.\d+)\.(\d+)", text)
        if not version:
            raise RuntimeError(f"no QEMU version in {text!r}")
        facts = {"qemu": f"{version[1]}.{version[2]}", "machine": version[1]}
        for node in ("source", "target"):
            facts[f"{node}.api"] = self.host(node).api_host
            facts[f"{node}.net"] = self.host(node).api_host.rpartition(".")[0]
            facts["mig.net"] = self.host(node).migration_address.rpartition(".")[0] + ".0/24"
            facts[f"{node}.mig"] = self.host(node).migration_address
        found = []
        for pattern, replacement in self.bindings["literals"]:
            for name, value in facts.items():
                replacement = replacement.replace("{" + name + "}", value)
            found.append((re.compile(pattern), replacement))
        return found

    def values(self) -> Dict[str, str]:
        """Values of the placeholders that are known from the start."""
        found = {
            "PASSWORD": self.password,
            "TOKEN:wrong": str(uuid.uuid4()),
            "FINGERPRINT:target": self.host("target").fingerprint,
            "FINGERPRINT:wrong": ":".join(["AB"] * 32),
        }
        for token, secret in self.tokens.items():
            found.setdefault("TOKEN:" + token.split("@")[0], secret)
        found["TOKEN"] = self.tokens["root@pam!migration"]
        return found

    # -- actions -----------------------------------------------------------------------------------------------

    @staticmethod
    def sleep(seconds: float) -> None:
        time.sleep(max(0.0, seconds))

    def run(self, node: str, argv: List[str], stdin: Optional[str]) -> Ran:
        started = time.monotonic()
        host = self.host(node)
        environment = dict(
            os.environ,
            LC_ALL="C.UTF-8",
            LANG="C.UTF-8",
            PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            HOME="/root",
        )
        done = subprocess.run(
            host.argv(argv),
            input=(stdin or "").encode(),
            capture_output=True,
            timeout=180,
            cwd="/",
            env=environment,
            check=False,
        )
        decode = {"encoding": "utf-8", "errors": "surrogateescape"}
        return Ran(
            done.stdout.decode(**decode), done.stderr.decode(**decode), done.returncode, time.monotonic() - started
        )

    def tunnel(self, vmid: str, ticket: str, socket: str, headers: Dict[str, str]) -> WebSocket:
        """A control websocket of the runner's own."""
        import urllib.parse

        query = urllib.parse.urlencode({"ticket": ticket, "socket": socket})
        handshake = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": WebSocket.key(),
            **headers,
        }
        answer, opened = WebSocket.open(
            self.address("target"), f"/api2/json/nodes/target/qemu/{vmid}/mtunnelwebsocket?{query}", handshake, 20.0
        )
        if opened is None:
            raise RuntimeError(f"upgrade refused: {answer.status} {answer.reason}")
        return opened

    def forget_vm(self, vmid: int) -> None:
        """Removes what an ended tunnel left of a stub."""
        self.config_path("target", vmid).unlink(missing_ok=True)
        shutil.rmtree(self.path("target", f"/var/lib/vz/images/{vmid}"), ignore_errors=True)

    def hold_lock(self, node: str, path: str, seconds: float) -> None:
        """Another process holds a flock; returns once it is held."""
        real, held = self.path(node, path), threading.Event()
        os.makedirs(os.path.dirname(real), exist_ok=True)

        def hold() -> None:
            with open(real, "a", encoding="utf-8") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                held.set()
                time.sleep(seconds)

        self._holders.append(threading.Thread(target=hold, daemon=True))
        self._holders[-1].start()
        held.wait(30.0)

    def wait_holders(self) -> None:
        while self._holders:
            self._holders.pop().join(120.0)

    def hold_qmp(self, node: str, vmid: int) -> Monitor:
        return Monitor(self.path(node, f"/run/qemu-server/{vmid}.qmp"), negotiate=False)

    def qmp_once(self, node: str, vmid: int, command: str) -> Any:
        monitor = Monitor(self.path(node, f"/run/qemu-server/{vmid}.qmp"))
        try:
            return monitor.query(command)
        finally:
            monitor.close()

    def silence(self, node: str, down: bool) -> None:
        if down:
            self.host(node).blackhole(Segment.API)
        else:
            self.host(node).restore(Segment.API)

    def trusted_link(self, node: str, up: bool) -> None:
        if up:
            self.host(node).restore(Segment.MIGRATION)
        else:
            self.host(node).link_down(Segment.MIGRATION)

    def worker_of(self, port: int) -> Optional[int]:
        """The front-end process that holds the connection from this client port."""
        text = self.run(
            "target", ["ss", "-Htnp", "state", "established", f"( sport = :{API_PORT} and dport = :{port} )"], None
        ).stdout
        match = re.search(r"pid=(\d+)", text)
        return int(match[1]) if match else None

    def main_vmid(self, capture: Capture) -> int:
        return self.needs.vms[0].vmid if self.needs.vms else 100

    def _processes(self, node: str) -> Dict[int, str]:
        found = {}
        for entry in Path(self.path(node, "/proc")).iterdir():
            if entry.name.isdigit():
                try:
                    found[int(entry.name)] = (
                        (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    )
                except OSError:
                    continue
        return found

    def stop_consumer(self, node: str, stopped: bool) -> None:
        for pid, line in self._processes(node).items():
            if "of=/var/lib/vz/images" in line or "pvesm import" in line or " import local:" in line:
                self.run(node, ["kill", "-STOP" if stopped else "-CONT", str(pid)], None)

    def kill_qemu(self, node: str, vmid: int) -> None:
        for pid, line in self._processes(node).items():
            if f"-pidfile /run/qemu-server/{vmid}.pid" in line:
                self.run(node, ["kill", "-KILL", str(pid)], None)

    def image(self, kind: str, size: int) -> Path:
        path = self._scratch / f"image-{uuid.uuid4().hex}.{kind}"
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", kind, "-o", "preallocation=metadata", str(path), str(size)], check=True
        )
        return path

    def compare_images(self, vmid: int) -> str:
        """Empty when every volume of the source VM has the target's content."""
        assert self.source is not None
        for volid in self.source.volumes:
            name = volid.split(":", 1)[1]
            one = self.path("source", "/var/lib/vz/images/" + name)
            other = self.path("target", "/var/lib/vz/images/" + name.replace(str(self.source.vmid), str(vmid)))
            done = subprocess.run(
                ["qemu-img", "compare", "-U", one, other], capture_output=True, text=True, check=False
            )
            if done.returncode:
                return f"{volid}: {done.stdout.strip()} {done.stderr.strip()}"
        return ""

    # -- states ------------------------------------------------------------------------------------------------

    def config_text(self, node: str, vmid: int) -> Optional[str]:
        try:
            return self.config_path(node, vmid).read_text(encoding="utf-8", errors="surrogateescape")
        except FileNotFoundError:
            return None

    @staticmethod
    def lock_of(config: str) -> Optional[str]:
        match = re.search(r"^lock: (\S+)", config.split("\n[")[0], re.MULTILINE)
        return match[1] if match else None

    def qemu_running(self, node: str, vmid: int) -> bool:
        return any(f"-pidfile /run/qemu-server/{vmid}.pid" in line for line in self._processes(node).values())

    def qmp_status(self, node: str, vmid: int) -> Optional[str]:
        if self.source is not None and self.engine is not None and node == "source" and vmid == self.source.vmid:
            return str(self.engine.state()["query_status"])
        try:
            return str(self.qmp_once(node, vmid, "query-status")["status"])
        except (OSError, TimeoutError, RuntimeError, KeyError):
            return None

    def images(self, node: str, vmid: int) -> List[str]:
        directory = self.path(node, f"/var/lib/vz/images/{vmid}")
        return sorted(os.listdir(directory)) if os.path.isdir(directory) else []

    def vm_state(self, node: str, vmid: int) -> Dict[str, Any]:
        """As the node-command recordings show it."""
        config = self.config_text(node, vmid)
        found: Dict[str, Any] = {"config": "present" if config is not None else None}
        if config is not None:
            found["lock"] = self.lock_of(config)
        found["qemu"] = self.qmp_status(node, vmid)
        found["images"] = self.images(node, vmid)
        return found

    def run_files(self, node: str, vmid: int) -> List[str]:
        names = os.listdir(self.path(node, "/run/qemu-server"))
        return sorted(name for name in names if re.match(rf"{vmid}[._]", name))

    def listeners(self, node: str) -> List[str]:
        text = self.run(node, ["ss", "-Hltn"], None).stdout
        return [line.split()[3] for line in text.splitlines() if line.split()]

    def importer_running(self, node: str, vmid: int) -> bool:
        return any(
            re.search(rf"(pvesm import|import local:{vmid}/|of=/var/lib/vz/images/{vmid}/)", line)
            for line in self._processes(node).values()
        )

    def user_lines(self, node: str) -> List[str]:
        return (self.lab.directory / "clusters" / node / "pve" / "user.cfg").read_text(encoding="utf-8").splitlines()

    def task_log(self, node: str, upid: str) -> List[str]:
        """The log file of a task, complete."""
        for base in Path(self.path(node, "/var/log/pve/tasks")).rglob("*"):
            if base.is_file() and base.name.rstrip(":") == upid.rstrip(":"):
                return base.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
        return []
