# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ansible_collections.crosscluster.migration.plugins.module_utils import arguments
from ansible_collections.crosscluster.migration.plugins.plugin_utils.clusters import Clusters

ROOT = Path(__file__).resolve().parents[3]
ROLE = ROOT / "roles" / "migrate_vm"
PREFIX = "migrate_vm_"


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


SPECS = load(ROLE / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
DEFAULTS = load(ROLE / "defaults/main.yml")
MODULE = arguments.migration_arguments()


def test_argument_specs_have_the_keys_of_the_defaults():
    assert set(SPECS) == set(DEFAULTS)


@pytest.mark.parametrize("name", sorted(SPECS))
def test_argument_spec_has_the_value_of_the_default(name):
    assert SPECS[name]["default"] == DEFAULTS[name]


def test_role_has_every_option_of_the_module():
    """But the secret, which stands in the declaration of the clusters, and what the role itself sets."""
    assert {PREFIX + name for name in MODULE} - set(SPECS) == {
        PREFIX + name for name in (arguments.SECRET, arguments.INCOMING_KEY, "lease", "forward")
    }


# Where the role finds out what it hands to the module.
OWN = {"migrate_vm_source", "migrate_vm_target", "migrate_vm_incoming"}


@pytest.mark.parametrize("name", sorted(set(SPECS) - OWN))
def test_option_of_the_role_is_that_of_the_module(name):
    option, module = SPECS[name], MODULE[name.removeprefix(PREFIX)]
    for key in ("type", "elements", "choices"):
        assert option.get(key) == module.get(key) or sorted(option.get(key)) == sorted(module.get(key)), key
    assert set(option.get("options", {})) == set(module.get("options", {}))
    assert option["default"] == module.get("default", {} if option["type"] == "dict" else None)


@pytest.mark.parametrize("path", sorted((ROLE / "tasks").glob("*.yml")), ids=lambda path: path.name)
def test_task_file_is_short_and_used(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 60
    used = "".join(other.read_text(encoding="utf-8") for other in (ROLE / "tasks").glob("*.yml"))
    assert path.name == "main.yml" or f"include_tasks: {path.name}" in used


@pytest.mark.parametrize("path", sorted((ROOT / "playbooks").glob("*.yml")), ids=lambda path: path.name)
def test_playbook_sets_no_variable_called_like_an_option(path):
    for play in load(path):
        assert not set(play.get("vars", {})) & (set(SPECS) | set(MODULE))


def test_example_declares_only_what_the_collection_knows():
    everything = load(ROOT / "examples/inventory.yml")["all"]
    declared = everything["vars"]["crosscluster_clusters"]
    for name in declared:
        assert Clusters(declared).get(name).nodes
    moves = everything["children"]["moves"]
    for values in [moves["vars"], *moves["hosts"].values()]:
        assert set(values) <= set(SPECS)


def test_steps_take_every_option_that_the_role_takes():
    play = load(ROOT / "playbooks" / "migrate_by_steps.yml")[1]
    steps = play["tasks"][-1]["block"][0]
    given = set(steps["module_defaults"]["group/crosscluster.migration.migration"])
    given |= set(steps["block"][-1]["crosscluster.migration.migration"])
    assert {name.removeprefix(PREFIX) for name in SPECS} - given == {"state"}
