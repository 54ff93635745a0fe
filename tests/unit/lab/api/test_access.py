# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ACLs: propagation, depth, groups, tokens, pools."""

from __future__ import annotations

import pytest

from lab.api.access import Access, UserConfig

CONFIG = """
user:mig@pve:1:0::::::
user:grp@pve:1:0::::::
group:ops:grp@pve,mig@pve::
token:mig@pve!sep:0:1::
token:mig@pve!own:0:0::
token:root@pam!t:0:0::
role:Mig:VM.Allocate,Sys.Incoming:
pool:p1::100,101:local:
acl:1:/:mig@pve:Mig:
acl:0:/vms:mig@pve:PVEAuditor:
acl:1:/vms/200:mig@pve:PVEVMUser:
acl:1:/vms/300:mig@pve:NoAccess:
acl:1:/vms/400:@ops:PVEAuditor:
acl:1:/vms:mig@pve!sep:Mig:
acl:1:/pool/p1:grp@pve:PVEAuditor:
"""


@pytest.fixture
def access() -> Access:
    return Access(UserConfig.parse(CONFIG))


def test_propagates_down_until_a_deeper_entry_replaces_it(access: Access) -> None:
    assert access.may("mig@pve", "/vms/150", ["VM.Allocate"])
    assert not access.may("mig@pve", "/vms/200", ["VM.Allocate"])
    assert access.may("mig@pve", "/vms/200", ["VM.PowerMgmt"])


def test_an_entry_that_does_not_propagate_holds_on_its_path_only(access: Access) -> None:
    assert access.may("mig@pve", "/vms", ["VM.Audit"])
    assert not access.may("mig@pve", "/vms/150", ["VM.Audit"])


def test_no_access_takes_everything(access: Access) -> None:
    assert access.privileges("mig@pve", "/vms/300") == set()


def test_groups_count_where_the_user_has_no_entry_of_its_own(access: Access) -> None:
    assert access.may("grp@pve", "/vms/400", ["VM.Audit"])
    assert access.privileges("mig@pve", "/vms/400") == access.privileges("grp@pve", "/vms/400")


def test_separated_token_has_what_both_have(access: Access) -> None:
    assert access.may("mig@pve!sep", "/vms/150", ["VM.Allocate"])
    assert not access.may("mig@pve!sep", "/", ["Sys.Incoming"])
    assert access.may("mig@pve!own", "/", ["Sys.Incoming"])


def test_root_and_its_full_token_may_everything(access: Access) -> None:
    assert access.may("root@pam", "/anything", ["Sys.Modify", "Sys.Incoming"])
    assert access.may("root@pam!t", "/vms/1", ["VM.Allocate"])


def test_pool_members_inherit_from_the_pool(access: Access) -> None:
    assert access.may("grp@pve", "/vms/100", ["VM.Audit"])
    assert not access.may("grp@pve", "/vms/102", ["VM.Audit"])


def test_admin_role_lacks_the_root_privileges(access: Access) -> None:
    assert "Sys.Incoming" not in access.config.roles["PVEAdmin"]
    assert "Sys.Incoming" in access.config.roles["Administrator"]


def test_any_of(access: Access) -> None:
    assert access.may("mig@pve", "/vms/150", ["Sys.Modify", "VM.Allocate"], True)
    assert not access.may("mig@pve", "/vms/150", ["Sys.Modify", "VM.Allocate"])


def test_the_overview_tells_what_goes_on_to_the_paths_below(access: Access) -> None:
    found = access.overview("mig@pve")
    assert found["/"] == {"Sys.Incoming": 1, "VM.Allocate": 1}
    assert found["/vms"]["VM.Audit"] == 0
    assert found["/storage"] == found["/"]
    assert "/vms/300" not in found
    assert access.overview("mig@pve", "/vms/300") == {"/vms/300": {}}
    assert access.overview("grp@pve")["/pool/p1"]["VM.Audit"] == 1
    assert access.overview("grp@pve")["/vms/100"]["VM.Audit"] == 0
    assert "/" not in access.overview("mig@pve!sep")
    assert set(access.overview("root@pam")) >= {"/", "/access", "/access/groups", "/nodes", "/pool/p1", "/vms/101"}
