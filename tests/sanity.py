# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs `ansible-test sanity --local` on a copy of the collection, with package registries only and no ignore file.

ansible-test wants a real directory `.../ansible_collections/<namespace>/<name>`, strips the environment of its children
and would fetch a pip installer from a host that is no registry. So it gets: a copy of what git knows, a home of its own
with pip's effective settings in a file, a stand-in for that installer, and links to the real interpreters on PATH.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / ".build" / "sanity"
TREE = BASE / "ansible_collections" / "crosscluster" / "migration"
HOME = BASE / "home"
INTERPRETERS = BASE / "interpreters"
REPORT = ROOT / "build" / "reports" / "sanity.xml"

# Only what the tarball holds and what ansible-test itself asks for; lab and end-to-end tests are no part of a release.
KEPT = re.compile(
    r"(plugins|roles|playbooks|meta|docs|examples|changelogs|tests/unit(?!/lab/)|tests/integration)/|"
    r"(galaxy\.yml|README\.md|CHANGELOG\.rst|COPYING|tests/config\.yml)$"
)
# Named after the pip that the core in the environment asks for (23.1.2: core 2.17; 24.2: 2.18, 2.19; 25.2: 2.20 on).
PIP_INSTALLERS = ("get_pip_23_1_2.py", "get_pip_24_2.py", "get_pip_25_2.py")
# What pip says while the tool makes its environments.
NOISE = re.compile(
    r"\s*(Collecting|Downloading|Using cached|Looking in|Installing|Successfully installed|━)|WARNING: Location"
)
# A process of its own: `ensurepip.bootstrap()` sets PIP_CONFIG_FILE to the null device for everything after it.
INSTALLER = """\
import subprocess, sys
if __name__ == "__main__":
    subprocess.check_call([sys.executable, "-m", "ensurepip"], stdout=subprocess.DEVNULL)
    wanted = [a for a in sys.argv[1:] if a.startswith("pip==")]
    if wanted:
        subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"] + wanted)
"""


def copy_tree() -> None:
    """Copy the kept files; untracked new ones too, so that a developer sees findings before the commit."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    shutil.rmtree(TREE, ignore_errors=True)
    for name in listing.stdout.decode().split("\0"):
        source = ROOT / name
        if KEPT.match(name) and source.is_file():
            target = TREE / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    # ansible-test lists files through git, and the checkout around this tree ignores all of it.
    subprocess.run(["git", "init", "--quiet"], cwd=TREE, check=True)


def write_pip_settings() -> None:
    """Put pip's effective settings, wherever they come from, into the file the stripped children still read."""
    shown = subprocess.run([sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True)
    settings: dict[str, str] = {}
    # The environment comes last, because it wins over the files.
    for line in sorted(shown.stdout.splitlines(), key=lambda text: text.startswith(":env:")):
        key, _sign, value = line.partition("=")
        if key.startswith((":env:.", "global.")):
            settings[key.rsplit(".", 1)[-1]] = "\n    ".join(str(ast.literal_eval(value)).split())
    lines = ["[global]", *(f"{name} = {value}" for name, value in settings.items())]
    target = HOME / ".config" / "pip" / "pip.conf"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(lines) + "\n")


def write_installers() -> None:
    """Lay the stand-in where ansible-test keeps the installer it has fetched before."""
    cache = HOME / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    for name in PIP_INSTALLERS:
        (cache / name).write_text(INSTALLER)


def interpreter(name: str) -> str | None:
    """Return the real path behind a command name; a version manager's shim that is not enabled counts as absent."""
    managed = sorted(Path.home().glob(f".pyenv/versions/*/bin/{name}"))
    candidates = [f"/usr/bin/{name}", f"/usr/local/bin/{name}", *(str(path) for path in managed)]
    return next((path for path in candidates if os.access(path, os.X_OK)), None)


def link_interpreters() -> list[str]:
    """Link every interpreter that is here, from the node's floor up; the suite runs with those and says which."""
    shutil.rmtree(INTERPRETERS, ignore_errors=True)
    INTERPRETERS.mkdir(parents=True)
    found = []
    for minor in range(9, 16):
        path = interpreter(f"python3.{minor}")
        if path:
            (INTERPRETERS / f"python3.{minor}").symlink_to(path)
            found.append(f"3.{minor}")
    return found


def run() -> tuple[int, list[str], set[str]]:
    """Run the tool; return its status, the tests it ran and those that found something."""
    environment = {
        "HOME": str(HOME),
        "PATH": f"{INTERPRETERS}:{Path(sys.executable).parent}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
    }
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "ansible-test"), "sanity", "--local", "--color", "no"],
        cwd=TREE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    ran: list[str] = []
    failed: set[str] = set()
    for line in process.stdout or ():
        if not NOISE.match(line):
            print(line, end="", flush=True)
        started = re.match(r'Running sanity test "([^"]+)"', line)
        if started and started[1] not in ran:
            ran.append(started[1])
        ended = re.search(r"The test `ansible-test sanity --test (\S+)", line) or re.match(
            r"ERROR: Found \d+ (\S+) issue", line
        )
        if ended:
            failed.add(ended[1])
    return process.wait(), ran, failed


def write_report(status: int, ran: list[str], failed: set[str]) -> None:
    """Write what the suite reads; a run that broke before it could test anything is one error."""
    broken = {"run"} if not ran or (status and not failed) else set()
    names = [*ran, *sorted((failed | broken) - set(ran))]
    bad = failed | broken
    suite = ElementTree.Element("testsuite", name="sanity", tests=str(len(names)), failures=str(len(bad)))
    for name in names:
        case = ElementTree.SubElement(suite, "testcase", classname="sanity", name=name)
        if name in bad:
            ElementTree.SubElement(case, "failure", message="see the log")
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(suite).write(REPORT)


def main() -> int:
    """Prepare, run, report."""
    copy_tree()
    write_pip_settings()
    write_installers()
    print("interpreters: " + ", ".join(link_interpreters()), flush=True)
    if any(TREE.glob("tests/sanity/ignore*")):
        print("an ignore file is not allowed here")
        return 1
    status, ran, failed = run()
    write_report(status, ran, failed)
    return status or int(not ran)


if __name__ == "__main__":
    sys.exit(main())
