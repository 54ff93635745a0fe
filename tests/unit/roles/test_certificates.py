# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role certificates as it is written: options, defaults, files. What it does is the molecule scenario's to show."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import jinja2
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
ROLE = ROOT / "roles" / "certificates"
PREFIX = "certificates_"


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


ENTRIES = load(ROLE / "meta/argument_specs.yml")["argument_specs"]
SPECS = ENTRIES["main"]["options"]
DEFAULTS = load(ROLE / "defaults/main.yml")


def arguments_of(module):
    spec = importlib.util.spec_from_file_location(module, ROOT / "plugins" / "modules" / f"{module}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded.arguments()


def tasks(path):
    """All tasks of a file, those in blocks too."""
    for task in load(path):
        yield task
        yield from task.get("block", ())


@pytest.mark.parametrize("entry", ENTRIES)
def test_argument_specs_are_those_of_the_defaults(entry):
    options = ENTRIES[entry]["options"]
    assert {name: option["default"] for name, option in options.items()} == DEFAULTS


def test_every_option_has_the_prefix_of_the_role():
    assert [name for name in DEFAULTS if not name.startswith(PREFIX)] == []
    private = load(ROLE / "vars/main.yml")
    assert [name for name in private if not name.startswith("_" + PREFIX)] == []


@pytest.mark.parametrize("path", sorted((ROLE / "tasks").glob("*.yml")), ids=lambda path: path.name)
def test_task_file_is_short_and_used(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 75
    used = "".join(other.read_text(encoding="utf-8") for other in (ROLE / "tasks").glob("*.yml"))
    assert path.stem in ENTRIES or f"include_tasks: {path.name}" in used


@pytest.mark.parametrize("module", ["node_certificate", "tls_rehearsal"])
def test_role_gives_options_that_the_module_has(module):
    known = set(arguments_of(module))
    name = f"crosscluster.migration.{module}"
    given = [task[name] for path in (ROLE / "tasks").glob("*.yml") for task in tasks(path) if name in task]
    assert given
    assert [sorted(set(each) - known) for each in given if set(each) - known] == []


def test_default_of_the_directory_is_that_of_the_modules():
    for module in ("node_certificate", "tls_rehearsal"):
        assert arguments_of(module)["directory"]["default"] == DEFAULTS["certificates_directory"]


def test_domain_is_the_one_that_moves_look_for():
    private = load(ROOT / "roles/migrate_vm/vars/main.yml")
    assert private["_migrate_vm_domain"] == DEFAULTS["certificates_domain"]


def rendered(name, **given):
    """A private variable of the role, with the others that stand in it."""
    private = load(ROLE / "vars/main.yml")
    known = {**DEFAULTS, "_certificates_units": private["_certificates_units"], **given}
    for each in ("_certificates_expected_s", "_certificates_life_s", "_certificates_window_s"):
        known[each] = jinja2.Environment().from_string(private[each]).render(known)
    return int(known[name])


@pytest.mark.parametrize(
    ("longest_move", "life", "window"),
    [
        ("30 s", 86400, 28800),
        ("4 h", 86400, 28800),
        ("7.5 h", 86400, 28800),
        ("8 h", 86400, 28800),
        ("600 min", 108000, 36000),
        ("24 h", 259200, 86400),
    ],
)
def test_life_is_a_day_or_three_times_the_longest_move_and_its_last_third_outlasts_one(longest_move, life, window):
    """What the gate let through when a move began lasts until it has ended."""
    given = {"certificates_expected_duration": longest_move}
    assert rendered("_certificates_life_s", **given) == life
    assert rendered("_certificates_window_s", **given) == window >= rendered("_certificates_expected_s", **given)


def test_life_and_window_are_those_of_certificates_and_lists():
    issue, sign, lists = (
        (ROLE / f"tasks/{name}.yml").read_text(encoding="utf-8") for name in ("issue", "sign", "revocation_list")
    )
    assert 'renew_before: "{{ _certificates_window_s }} s"' in issue
    assert 'ownca_not_after: "+{{ _certificates_life_s }}s"' in sign
    assert 'next_update: "+{{ _certificates_life_s }}s"' in lists
    assert "_certificates_window_s" in lists


def test_everything_of_the_ca_happens_on_the_controller():
    """No task that names the CA's key runs anywhere else."""
    for path in (ROLE / "tasks").glob("*.yml"):
        text = path.read_text(encoding="utf-8")
        if "ca-key.pem" in text and path.name not in ("create_authority.yml", "revocation_list.yml"):
            assert load(path)[0]["delegate_to"] == "localhost"
    inherited = next(task for task in tasks(ROLE / "tasks/authority.yml") if "block" in task)
    assert inherited["delegate_to"] == "localhost"


def test_page_for_operators_names_every_option_that_exists_and_none_that_does_not():
    text = (ROOT / "docs/certificates.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\bcertificates_[a-z_]+", text)) - {"certificates_source_saw", "certificates_target_saw"}
    assert named <= set(DEFAULTS)
