# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from unit.fakes.certificates import Authority, lay

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import CrossclusterError
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.incoming_checks import examine
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.incoming_settings import IncomingSettings
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.incoming_errors import FirewallMissing

KEY = "ab" * 32
NO_NFT = FirewallMissing("no rule of nft can let in the peer alone", object="nft")


@pytest.fixture(scope="module")
def credentials(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pki")
    authority = Authority()
    lay(directory, authority.pem, authority.issue("b1.example"))
    return str(directory)


def settings(credentials, *transports):
    return IncomingSettings(
        "5d" * 16, transports, "10.77.0.21", (60100, 60149), "10.77.0.11", "a1.example", credentials
    )


def test_what_is_there_can_be_served(credentials):
    prospect = examine(settings(credentials, "tls", "tcp", "qemu-tls"), KEY, None)
    assert (prospect.planes, prospect.own_name, prospect.rejected) == (("tls", "tcp"), "b1.example", {})
    prospect.require()


def test_without_nft_tcp_is_rejected_and_tls_goes_on_with_a_warning(credentials):
    prospect = examine(settings(credentials, "tls", "tcp"), KEY, NO_NFT)
    assert prospect.planes == ("tls",)
    assert prospect.rejected_as_dict()["tcp"]["code"] == "FIREWALL_MISSING"
    assert "open to everybody" in prospect.warnings[0]


def test_without_certificates_only_tcp_is_left(tmp_path):
    prospect = examine(settings(str(tmp_path), "qemu-tls", "tls", "tcp"), KEY, None)
    assert (prospect.planes, prospect.own_name) == (("tcp",), "")
    assert {why["code"] for why in prospect.rejected_as_dict().values()} == {"CREDENTIALS_UNUSABLE"}
    assert list(prospect.rejected) == ["qemu-tls", "tls"]


def test_nothing_left_is_the_error_of_the_first(credentials):
    prospect = examine(settings(credentials, "tcp"), "", None)
    with pytest.raises(CrossclusterError, match="key"):
        prospect.require()
    with pytest.raises(FirewallMissing):
        examine(settings(credentials, "tcp"), KEY, NO_NFT).require()
