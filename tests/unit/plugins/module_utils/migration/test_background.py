# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes that outlive who started them, and their logs."""

from __future__ import annotations

import logging
import os
import subprocess

from ansible_collections.crosscluster.migration.plugins.module_utils.migration import background


def test_unit_is_hardened_and_has_what_was_asked_for(monkeypatch):
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda words, **_more: commands.append(words))
    background.start_unit("crosscluster-x", ("ProtectHome=read-only",), ["python3", "worker.pyz"])
    (words,) = commands
    assert words[:3] == ["systemd-run", "--unit=crosscluster-x", "--collect"]
    hardened = ("NoNewPrivileges", "LockPersonality", "RestrictRealtime")
    assert {f"--property={each}=yes" for each in hardened} < set(words)
    assert "--property=ProtectHome=read-only" in words
    assert words[-3:] == ["--", "python3", "worker.pyz"]


def test_session_inherits_nothing_but_a_plain_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("CROSSCLUSTER_TARGET_API_TOKEN_SECRET", "not for everybody")
    process = background.start_session(["sh", "-c", f"env > {tmp_path}/env; ps -o sid= -p $$ > {tmp_path}/sid"])
    assert process.wait(10) == 0
    assert "CROSSCLUSTER" not in (tmp_path / "env").read_text(encoding="utf-8")
    assert int((tmp_path / "sid").read_text(encoding="utf-8")) == process.pid


def test_log_is_for_root_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(logging, "basicConfig", lambda **more: more["handlers"][0].close())
    background.log_to(str(tmp_path / "log"), 100)
    assert os.stat(tmp_path / "log").st_mode & 0o777 == 0o600
