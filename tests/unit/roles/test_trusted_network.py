# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ansible_collections.crosscluster.migration.plugins.module_utils.network import survey
from ansible_collections.crosscluster.migration.plugins.modules import trusted_network

ROOT = Path(__file__).resolve().parents[3]
ROLE = ROOT / "roles" / "trusted_network"
PREFIX = "trusted_network_"


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


SPECS = load(ROLE / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
DEFAULTS = load(ROLE / "defaults/main.yml")
MODULE = trusted_network.arguments()
DOCUMENTED = yaml.safe_load(trusted_network.DOCUMENTATION)["options"]


def test_argument_specs_are_those_of_the_defaults():
    assert {name: spec["default"] for name, spec in SPECS.items()} == DEFAULTS
    assert all(name.startswith(PREFIX) for name in SPECS)


def test_documentation_of_the_module_is_that_of_its_arguments():
    assert set(DOCUMENTED) == set(MODULE)
    for name, option in MODULE.items():
        for key in ("type", "elements", "choices", "default"):
            assert DOCUMENTED[name].get(key) == option.get(key), (name, key)


@pytest.mark.parametrize("name", sorted(name for name in MODULE if PREFIX + name in SPECS))
def test_option_of_the_role_is_that_of_the_module(name):
    for key in ("type", "elements", "choices"):
        assert SPECS[PREFIX + name].get(key) == MODULE[name].get(key)
    default = SPECS[PREFIX + name]["default"]
    assert default == (MODULE[name].get("default") or type(default)())


def test_every_step_of_the_module_has_its_function():
    assert list(trusted_network.STEPS) == MODULE["step"]["choices"]
    assert MODULE["ports"]["default"] == survey.PORTS
    assert MODULE["key"]["no_log"] is True


@pytest.mark.parametrize("path", sorted((ROLE / "tasks").glob("*.yml")), ids=lambda path: path.name)
def test_task_file_is_short_and_used(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 80
    used = "".join(other.read_text(encoding="utf-8") for other in (ROLE / "tasks").glob("*.yml"))
    assert path.name == "main.yml" or f"include_tasks: {path.name}" in used


def test_playbook_sets_no_variable_called_like_an_option():
    for play in load(ROOT / "playbooks" / "trusted_network.yml"):
        assert not set(play.get("vars", {})) & (set(SPECS) | set(MODULE))
