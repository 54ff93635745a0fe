# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lays the collections that galaxy.yml depends on into a directory: ``python tests/dependencies.py .build/links``.

They come out of the wheel named in requirements-collections.txt, which pip checks by its hash. A wheel is a zip, so
only their own files are unpacked; installing the whole wheel would take minutes and 500 MB.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]


def wanted() -> dict[str, str]:
    """Name and range of each collection that ours depends on."""
    return dict(yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["dependencies"])


def place(links: Path, name: str) -> Path:
    """Where a collection lies below a collections path."""
    return links.joinpath("ansible_collections", *name.split("."))


def version(links: Path, name: str) -> str:
    """The version that lies there."""
    manifest = json.loads((place(links, name) / "MANIFEST.json").read_text(encoding="utf-8"))
    return str(manifest["collection_info"]["version"])


def unpack(wheel: Path, links: Path, name: str) -> None:
    """The files of one collection, in place of those that were there."""
    shutil.rmtree(place(links, name), ignore_errors=True)
    prefix = "ansible_collections/" + name.replace(".", "/") + "/"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(links, [entry for entry in archive.namelist() if entry.startswith(prefix)])


def main() -> None:
    """Download once, unpack each."""
    links = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as download:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run(
            [*pip, "--require-hashes", "--dest", download, "--requirement", ROOT / "requirements-collections.txt"],
            check=True,
        )
        for name in wanted():
            unpack(next(Path(download).glob("*.whl")), links, name)
            print(f"{name} {version(links, name)}")


if __name__ == "__main__":
    main()
