# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.crosscluster.migration.plugins.filter import network_verdict

NOBODY = {"network": "10.5.0.0/24", "source": {"name": "a"}, "target": {"name": "b"}, "knocks": []}


def test_filter_is_offered_and_concludes():
    verdict = network_verdict.FilterModule().filters()["network_verdict"]
    assert verdict(NOBODY, 1.0)["verdict"] == "unknown"
    statement = {"accepted_by": "operator", "until": "2099-12-31"}
    assert verdict(NOBODY, 1.0, statement)["verdict"] == "private-claimed"
    assert verdict(NOBODY, 1.0, {})["statement"] is None


def test_evidence_that_cannot_be_used_is_an_error_for_people():
    with pytest.raises(AnsibleFilterError, match="NETWORK_INVALID"):
        network_verdict.network_verdict({**NOBODY, "network": "x"}, 1.0)
