# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The house rules: who may import whom, what may touch the world, where a phase may be assigned, where a test lives.

The order of the rooms is that of the design: faces, migration, transport, {proxmox, qemu, network}, websocket, errors.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Iterator

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "plugins"
UTILS = PLUGINS / "module_utils"
LAB = ROOT / "tests" / "lab"
COLLECTION = "ansible_collections.crosscluster.migration."

# A room may import itself, `errors` and the rooms named here. Neighbours on one floor do not know each other.
ROOMS = {
    "errors": set(),
    "fleet": set(),
    "websocket": set(),
    "network": set(),
    "qemu": set(),
    "proxmox": {"websocket"},
    "transport": {"websocket", "proxmox", "qemu", "network"},
    "migration": {"websocket", "proxmox", "qemu", "network", "transport"},
}
FACES = {"arguments", "face"}

# What makes a file an edge: it reaches sockets, processes, clocks or the file system.
WORLD = {
    "asyncio", "fcntl", "http.client", "multiprocessing", "os", "select", "selectors", "shutil", "signal", "socket",
    "subprocess", "tempfile", "time", "urllib.request",
}  # fmt: skip
EDGES = {
    "websocket/tls_stream.py",
    "network/probe.py",
    "network/responder.py",
    "qemu/monitor.py",
    "proxmox/node_cli.py",
    "proxmox/node_files.py",
    "proxmox/session.py",
    "proxmox/target_api.py",
    "proxmox/tunnel.py",
    "proxmox/upgrade.py",
    "transport/credential_store.py",
    "transport/direct_carrier.py",
    "transport/direct_end.py",
    "transport/direct_pump.py",
    "transport/firewall.py",
    "transport/listener.py",
    "transport/local_end.py",
    "transport/plain_end.py",
    "transport/pump.py",
    "transport/pump_channel.py",
    "transport/pump_handle.py",
    "transport/rehearsal.py",
    "transport/remote_end.py",
    "transport/tcp_options.py",
    "transport/unix_end.py",
    "transport/websocket_pump.py",
    "migration/background.py",
    "migration/client.py",
    "migration/control_socket.py",
    "migration/engines.py",
    "migration/incoming.py",
    "migration/incoming_children.py",
    "migration/incoming_engine.py",
    "migration/incoming_places.py",
    "migration/incoming_start.py",
    "migration/journal.py",
    "migration/package.py",
    "migration/places.py",
    "migration/real_world.py",
    "migration/target_node.py",
    "migration/worker.py",
}
# Gone from later Pythons, so not for code that shall run there.
STANDARD = sys.stdlib_module_names - {"asynchat", "asyncore", "distutils", "imp", "smtpd"}


def python_files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*.py") if "__pycache__" not in path.parts)


def identity(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and absolute dotted name of everything a file imports, relative imports resolved."""
    package = (COLLECTION + ".".join(path.relative_to(ROOT).parent.parts)).split(".")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{name}.{alias.name}"


def room_of(path: Path) -> str:
    return path.relative_to(UTILS).parts[0].removesuffix(".py")


def room_files() -> list[Path]:
    return [path for path in python_files(UTILS) if room_of(path) not in FACES]


def imported_room(name: str) -> str | None:
    prefix = COLLECTION + "plugins.module_utils."
    return name[len(prefix) :].split(".")[0] if name.startswith(prefix) else None


def room_faults(path: Path) -> list[str]:
    room = room_of(path)
    if room not in ROOMS:
        return [f"{identity(path)}: no room of the design is called {room}"]
    allowed = {room, "errors"} | ROOMS[room]
    faults = []
    for line, name in imports_of(path):
        other = imported_room(name)
        if other is not None and other not in allowed:
            faults.append(f"{identity(path)}:{line}: room {room} imports {other}")
        elif other is None and name.split(".")[0] not in STANDARD:
            faults.append(f"{identity(path)}:{line}: {name} is not in the standard library")
    return faults


def edge_faults(path: Path) -> list[str]:
    if str(path.relative_to(UTILS)) in EDGES:
        return []
    faults = []
    for line, name in imports_of(path):
        parents = {name, name.rpartition(".")[0], name.split(".")[0]}
        if parents & WORLD:
            faults.append(f"{identity(path)}:{line}: {name}, but this file is not in the list of edges")
    return faults


def phase_assignments(path: Path) -> Iterator[int]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Attribute) and target.attr in {"phase", "_phase"}:
                yield node.lineno


@pytest.mark.parametrize("path", room_files(), ids=identity)
def test_room_imports_only_lower_rooms_and_the_standard_library(path):
    assert room_faults(path) == []


@pytest.mark.parametrize("path", room_files(), ids=identity)
def test_room_touches_the_world_only_at_its_edges(path):
    assert edge_faults(path) == []


@pytest.mark.parametrize("path", room_files(), ids=identity)
def test_no_phase_is_assigned_outside_the_state_table(path):
    # history.py takes in what the table's executor has put into the journal; it decides nothing.
    lines = [] if path.name in {"states.py", "history.py"} else list(phase_assignments(path))
    assert lines == []


def test_module_utils_has_no_package_files():
    """A re-export there would pull whole rooms into every module's payload."""
    assert [identity(path) for path in UTILS.rglob("__init__.py") if path.stat().st_size] == []


@pytest.mark.parametrize("path", python_files(PLUGINS), ids=identity)
def test_plugin_holds_no_assert(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)] == []


@pytest.mark.parametrize("path", python_files(LAB), ids=identity)
def test_lab_shares_no_code_with_the_product(path):
    taken = [name for _line, name in imports_of(path) if name.startswith(COLLECTION + "plugins")]
    assert taken == []


@pytest.mark.parametrize("path", python_files(PLUGINS), ids=identity)
def test_product_imports_nothing_of_the_tests(path):
    taken = [name for _line, name in imports_of(path) if name.split(".")[0] in {"lab", "crash", "bench", "tests"}]
    assert taken == []


@pytest.mark.parametrize("path", room_files(), ids=identity)
def test_room_file_has_its_mirrored_test(path):
    """A file that only declares errors or constants is covered by the tests of who raises them."""
    relative = path.relative_to(PLUGINS)
    mirror = ROOT / "tests" / "unit" / "plugins" / relative.parent / f"test_{relative.name}"
    assert relative.name == "errors.py" or mirror.exists(), f"missing: {identity(mirror)}"


def test_every_source_names_its_licence():
    """`reuse lint` accepts a table; whoever copies one file out of the tree should still see whose it is."""
    sources = [*python_files(PLUGINS), *python_files(ROOT / "tests"), *sorted((ROOT / "tests").rglob("*.c"))]
    mark = "SPDX-" + "License-Identifier: GPL-3.0-or-later"
    bare = [path for path in sources if path.stat().st_size and mark not in path.read_text(encoding="utf-8")[:400]]
    assert [identity(path) for path in bare if "output" not in path.parts] == []


def test_error_codes_are_unique_over_all_rooms():
    owners: dict[str, list[str]] = {}
    for path in python_files(UTILS):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                for code in class_codes(node):
                    owners.setdefault(code, []).append(f"{identity(path)}:{node.name}")
    assert {code: places for code, places in owners.items() if len(places) > 1} == {}


def class_codes(node: ast.ClassDef) -> Iterator[str]:
    for statement in node.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        value = getattr(statement, "value", None)
        named = any(isinstance(target, ast.Name) and target.id == "code" for target in targets)
        if named and isinstance(value, ast.Constant) and isinstance(value.value, str) and value.value:
            yield value.value


def test_error_codes_are_upper_snake_case():
    codes = [
        code
        for path in python_files(UTILS)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        for code in class_codes(node)
    ]
    assert [code for code in codes if not re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*", code)] == []


def test_room_rule_finds_what_it_is_for(tmp_path, monkeypatch):
    """The rule itself is tried: an upward import and a foreign library must be found."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    monkeypatch.setattr(sys.modules[__name__], "UTILS", tmp_path / "plugins" / "module_utils")
    path = tmp_path / "plugins" / "module_utils" / "websocket" / "wrong.py"
    path.parent.mkdir(parents=True)
    path.write_text("from ..migration.states import Phase\nimport requests\nfrom ..errors import Side\nimport socket\n")
    assert [fault.split(": ", 1)[1] for fault in room_faults(path)] == [
        "room websocket imports migration",
        "requests is not in the standard library",
    ]
    assert len(edge_faults(path)) == 1
