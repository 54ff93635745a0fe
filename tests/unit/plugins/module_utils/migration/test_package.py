# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker's zip: exactly what it imports, the same bytes every time, installed once."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import zipfile
import zipimport
from pathlib import Path

from ansible_collections.crosscluster.migration.plugins.module_utils.migration import package

UTILS = Path(package.__file__).resolve().parent.parent


def imported(name):
    """Files below module_utils that one file imports."""
    parents = name.split(".")[:-1]
    for node in ast.walk(ast.parse((UTILS / (name.replace(".", "/") + ".py")).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = parents[: len(parents) - node.level + 1] + (node.module.split(".") if node.module else [])
            for alias in node.names:
                for candidate in (".".join([*base, alias.name]), ".".join(base)):
                    if candidate and (UTILS / (candidate.replace(".", "/") + ".py")).exists():
                        yield candidate
                        break


def closure(*names):
    waiting, seen = set(names), set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        waiting |= set(imported(name)) - seen
    return seen


def test_package_holds_what_the_worker_imports_and_nothing_else():
    assert set(package.WORKER_FILES) == closure("migration.worker", "migration.incoming_start", "transport.pump")


def test_package_list_is_sorted_and_without_doubles():
    assert list(package.WORKER_FILES) == sorted(set(package.WORKER_FILES))


def test_pump_imports_little():
    """Each stream has a pump; 24 MiB is its limit (issue item 4)."""
    assert not {name for name in closure("transport.pump") if name.split(".")[0] == "migration"}


def test_same_sources_make_the_same_zip_and_digest():
    files = package.sources()
    assert package.build(files) == package.build(dict(reversed(list(files.items()))))
    assert package.digest(files) == package.digest(dict(reversed(list(files.items()))))
    changed = dict(files, errors=files["errors"] + "\n")
    assert package.digest(changed) != package.digest(files)


def test_package_is_installed_once_under_its_digest(tmp_path):
    digest, path = package.install(str(tmp_path))
    before = os.stat(path).st_mtime_ns
    assert package.install(str(tmp_path)) == (digest, path)
    assert os.stat(path).st_mtime_ns == before
    assert path == str(tmp_path / "worker" / digest / "worker.pyz")
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o700


def test_damaged_package_is_made_anew(tmp_path):
    _digest, path = package.install(str(tmp_path))
    with open(path, "ab") as stream:
        stream.write(b"x")
    package.install(str(tmp_path))
    assert zipfile.ZipFile(path).testzip() is None


def test_processes_of_the_worker_load_byte_code(tmp_path):
    """Compiling was most of what a start of the worker cost the node, three times over."""
    _digest, path = package.install(str(tmp_path))
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
    assert {name[:-1] for name in names if name.endswith(".pyc")} == {
        name for name in names if name.endswith(".py") and not name.endswith(("__init__.py", "__main__.py"))
    }
    room = os.path.join(path, *package.ROOT.split("."), "migration")
    assert zipimport.zipimporter(room).find_spec("worker").origin.endswith("worker.pyc")


def test_a_python_for_which_the_byte_code_is_not_takes_the_sources(tmp_path, monkeypatch):
    monkeypatch.setattr(package.importlib.util, "MAGIC_NUMBER", b"\0\0\r\n")
    _digest, path = package.install(str(tmp_path))
    done = subprocess.run([sys.executable, "-I", "-B", path], capture_output=True, check=False, cwd="/")
    assert (done.returncode, done.stderr[:6]) == (2, b"usage:")


def test_installed_package_runs_isolated(tmp_path):
    _digest, path = package.install(str(tmp_path))
    done = subprocess.run([sys.executable, "-I", "-B", path], capture_output=True, check=False, cwd="/")
    assert (done.returncode, done.stderr[:6]) == (2, b"usage:")
