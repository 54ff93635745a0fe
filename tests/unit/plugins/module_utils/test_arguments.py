# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import importlib

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.crosscluster.migration.plugins.module_utils import arguments

FRAGMENTS = "ansible_collections.crosscluster.migration.plugins.doc_fragments."
GROUPS = ["source", "identity", "endpoint", "mapping", "transport", "waiting"]
TOKEN = "4711-token"
TARGET = {"api_host": "b1", "node": "b1", "api_user": "m@pve", "api_token_id": "move"}
WHOLE = {"source": {"vmid": 117}, "target": TARGET, arguments.SECRET: TOKEN}


def shape(options, inner):
    """What both forms say about each option: type, default, choices, elements, required, and the same within."""
    return {
        name: {
            "type": option.get("type"),
            "default": option.get("default"),
            "choices": option.get("choices"),
            "elements": option.get("elements"),
            "required": option.get("required", False),
            "options": shape(option.get(inner) or {}, inner),
        }
        for name, option in options.items()
    }


@pytest.mark.parametrize("group", GROUPS)
def test_group_says_the_same_as_its_fragment(group):
    fragment = importlib.import_module(FRAGMENTS + group).ModuleDocFragment
    documented = yaml.safe_load(fragment.DOCUMENTATION)["options"]
    assert shape(getattr(arguments, group)(), "options") == shape(documented, "suboptions")


@pytest.mark.parametrize("group", GROUPS)
def test_group_is_fresh_each_time(group):
    getattr(arguments, group)().clear()
    assert getattr(arguments, group)()


def test_milestone_arguments_are_those_of_migration_without_what_steers_it():
    assert set(arguments.migration_arguments()) - set(arguments.milestone_arguments()) == {
        "state",
        "wait",
        "lease",
        "forward",
    }


def test_secret_of_the_token_is_flat_and_censored():
    assert arguments.migration_arguments()[arguments.SECRET]["no_log"] is True
    assert not [name for name in arguments.endpoint()["target"]["options"] if "secret" in name]


def validated(given):
    return ArgumentSpecValidator(arguments.migration_arguments()).validate(given)


@pytest.mark.parametrize(
    "given",
    [
        WHOLE,
        {"source": {"vmid": 117}, "state": "aborted"},
        {"source": {"vmid": 117}, "lease": "a:b"},
        {**WHOLE, "wait": False, "on_controller_loss": "continue"},
        {**WHOLE, "disks": {"default": "fast", "scsi1": {"storage": "slow", "format": "raw"}}},
        {**WHOLE, "nics": {"net0": {"bridge": "vmbr0", "tag": 7, "firewall": True}}},
    ],
)
def test_complete_arguments_break_no_rule(given):
    assert arguments.wrong_shape(arguments.migration_arguments(), given) is None
    result = validated(given)
    assert result.error_messages == []
    assert arguments.broken_rule(result.validated_parameters) is None


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"source": {"vmid": 117}}, "target"),
        ({"source": {"vmid": 117}, "target": TARGET}, arguments.SECRET),
        ({**WHOLE, "wait": False}, "on_controller_loss"),
        ({**WHOLE, "disks": {"scsi0": ["fast"]}}, "disks.scsi0"),
        ({**WHOLE, "disks": {"scsi0": {"format": "raw"}}}, "disks.scsi0"),
        ({**WHOLE, "disks": {"scsi0": {"storage": "fast", "size": 1}}}, "size"),
        ({**WHOLE, "disks": {"scsi0": ""}}, "disks.scsi0"),
        ({**WHOLE, "nics": {"net0": {"bridge": "vmbr0", "vlan": 1}}}, "vlan"),
        ({**WHOLE, "nics": {"net0": None}}, "nics.net0"),
    ],
)
def test_broken_rule_names_the_option(given, named, monkeypatch):
    monkeypatch.delenv(arguments.SECRET_ENVIRONMENT, raising=False)
    rule = arguments.broken_rule(validated(given).validated_parameters)
    assert named in rule
    assert TOKEN not in rule


def test_secret_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv(arguments.SECRET_ENVIRONMENT, TOKEN)
    parameters = validated({"source": {"vmid": 117}, "target": TARGET}).validated_parameters
    assert parameters[arguments.SECRET] == TOKEN
    assert arguments.broken_rule(parameters) is None


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"target": TOKEN}, "target"),
        ({"target": [TOKEN]}, "target"),
        ({"source": TOKEN}, "source"),
        ({"disks": TOKEN}, "disks"),
        ({"limits": TOKEN}, "limits"),
        ({"targt": {"token": TOKEN}}, "targt"),
        ({"target_api_token_secrt": TOKEN}, "target_api_token_secrt"),
        ({"target": {"api_token_secret": TOKEN}}, "api_token_secret"),
        ({arguments.SECRET: {"value": TOKEN}}, arguments.SECRET),
        ({"state": [TOKEN]}, "state"),
    ],
)
def test_wrong_shape_is_named_without_its_value(given, named):
    wrong = arguments.wrong_shape(arguments.migration_arguments(), given)
    assert named in wrong
    assert TOKEN not in wrong
