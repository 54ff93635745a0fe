# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
import yaml
from ansible.errors import AnsibleError

from ansible_collections.crosscluster.migration.plugins.lookup import placement

SECRET = "4711-0815-token"
CLUSTERS = {"alpha": {"nodes": {"a1": {}}, "api_token_secret": SECRET}}
FOUND = [{"type": "qemu", "vmid": 117, "name": "web01", "node": "a1", "status": "running"}]
UUID = "6f7d5a10-0a4e-4f0e-9d6d-0d8c2f4f9b11"


class Lookup(placement.LookupModule):
    """The look-up with its options as given; Ansible's own handling of options needs its loader."""

    def set_options(self, task_keys=None, var_options=None, direct=None):
        documented = yaml.safe_load(placement.DOCUMENTATION)["options"]
        self.given = {name: option.get("default") for name, option in documented.items()}
        self.given.update(direct)

    def get_option(self, option, hostvars=None):
        return self.given[option]


def lookup(**options):
    return Lookup().run([], variables={}, **options)


def test_lookup_returns_one_dictionary():
    [placed] = lookup(clusters=CLUSTERS, source={"cluster": "alpha", "vmid": 117}, resources=FOUND)
    assert placed["source"]["inventory_host"] == "alpha-a1"
    assert placed["complete"] is False


def test_lookup_takes_the_configuration_that_a_node_printed():
    [placed] = lookup(
        clusters=CLUSTERS,
        source={"cluster": "alpha", "name": "web01"},
        resources=FOUND,
        config={"smbios1": f"uuid={UUID}"},
    )
    assert placed["options"] == {"source": {"vmid": 117, "uuid": UUID}}


def test_lookup_fails_with_code_side_object_and_remedy():
    with pytest.raises(AnsibleError) as caught:
        lookup(clusters=CLUSTERS, source={"cluster": "gamma", "vmid": 117}, resources=FOUND)
    message = str(caught.value)
    assert "[CLUSTER_UNKNOWN, controller, crosscluster_clusters]" in message
    assert "Declared are: alpha" in message
    assert SECRET not in message
