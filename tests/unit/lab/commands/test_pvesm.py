# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables and refusals of pvesm (pve-cli 4.2)."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.commands.cli import main
from lab.commands.pvesm import COMMANDS

CONFIG = """dir: local
\tpath /store
\tcontent images,iso,backup

dir: closed
\tpath /closed
\tcontent images
\tdisable

dir: other
\tpath /other
\tcontent images
\tnodes elsewhere
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture):
    (tmp_path / "etc/pve").mkdir(parents=True)
    (tmp_path / "etc/pve/storage.cfg").write_text(CONFIG)
    (tmp_path / "store/images/112").mkdir(parents=True)
    monkeypatch.setenv("LAB_ROOT", str(tmp_path))
    monkeypatch.setenv("LAB_NODE", "alpha1")

    def command(*words: str) -> "tuple[int, str, str]":
        code = main("pvesm", COMMANDS, words)
        return (code, *capfd.readouterr())

    return command


def test_an_empty_list_is_a_header_whose_size_column_has_one_digit(run) -> None:
    assert run("list", "local") == (0, "Volid Format  Type      Size VMID\n", "")


def test_files_stand_below_the_images_and_have_no_owner(run, tmp_path: Path) -> None:
    (tmp_path / "store/images/112/vm-112-disk-0.raw").write_bytes(b"\0" * 1024)
    (tmp_path / "store/template/iso").mkdir(parents=True)
    (tmp_path / "store/template/iso/a.iso").write_bytes(b"12345")
    assert run("list", "local")[1].splitlines() == [
        "Volid                       Format  Type      Size VMID",
        "local:112/vm-112-disk-0.raw raw     images    1024 112",
        "local:iso/a.iso             iso     iso          5",
    ]
    assert run("list", "local", "--content", "iso")[1].splitlines()[1:] == ["local:iso/a.iso iso     iso       5"]
    assert run("list", "local", "--vmid", "112")[1].count("\n") == 2
    assert run("path", "local:iso/a.iso")[1] == "/store/template/iso/a.iso\n"


def test_a_bad_vmid_is_refused(run) -> None:
    code, out, err = run("list", "local", "--vmid", "x")
    assert (code, out) == (255, "")
    assert err.startswith(
        "400 Parameter verification failed.\nvmid: invalid format - value does not look like a valid VM ID\n"
    )


def test_content_leaves_out_what_is_not_usable_here(run) -> None:
    def names(*words: str) -> "list[str]":
        return [line.split()[0] for line in run("status", *words)[1].splitlines()[1:]]

    assert names() == ["closed", "local", "other"]
    assert names("--content", "images") == ["local"]
    assert names("--enabled") == ["local", "other"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("local", "112", "", "64X"), "size: value does not match the regex pattern"),
        (
            ("local", "112", "", "64M", "--format", "qed"),
            "format: value 'qed' does not have a value in the enumeration 'raw, qcow2, subvol, vmdk'",
        ),
        (
            ("nosuch", "112", "vm-112-y.qcow2", "64M", "--format", "raw"),
            "format: different storage formats (raw != qcow2)",
        ),
    ],
)
def test_alloc_looks_at_its_parameters_before_the_storage(run, words: "tuple[str, ...]", text: str) -> None:
    usage = "pvesm alloc <storage> <vmid> <filename> <size> [OPTIONS]\n"
    assert run("alloc", *words) == (255, "", f"400 Parameter verification failed.\n{text}\n{usage}")
