# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules promise about check mode, differences and repetition."""

from __future__ import annotations


class ModuleDocFragment:
    """Attributes of a module that changes something; ``INFO_MODULE`` for one that only reads."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and says what it would do, without writing anything anywhere.
    support: full
  diff_mode:
    description: Returns in C(diff) what was and what is to be, when run with C(--diff).
    support: full
  idempotent:
    description: When run again with the same options, nothing changes.
    support: full
  action_group:
    description: Use C(group/crosscluster.migration.migration) in C(module_defaults) to set options once.
    support: full
    membership:
      - crosscluster.migration.migration
  platform:
    description: Where the module can run.
    platforms: posix
    support: full
"""

    INFO_MODULE = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode); it only reads.
    support: full
  diff_mode:
    description: There is nothing to compare, the module only reads.
    support: N/A
  idempotent:
    description: The module only reads.
    support: full
"""
