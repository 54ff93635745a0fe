# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that say how long, how fast, and how long a pause."""

from __future__ import annotations


class ModuleDocFragment:
    """Twin of ``arguments.waiting``."""

    DOCUMENTATION = r"""
options:
  limits:
    description:
      - Limits of the move. They are no part of what identifies it, setting them again tunes the running move.
    type: dict
    suboptions:
      bandwidth:
        description:
          - Most bytes per second over all streams, such as V(200 MiB/s).
          - Without it the move starts at 50 MiB/s and follows what the target is seen to take.
        type: str
      downtime:
        description: Longest pause of the guest to aim at, such as V(300 ms).
        type: str
      deadline:
        description: Longest time from the start to the point of no return, such as V(30 min).
        type: str
  on_controller_loss:
    description:
      - What the worker on the source node does when the play no longer asks for O(controller_timeout).
      - V(rollback) gives up, the VM stays where it is. V(continue) carries on.
    type: str
    choices: [rollback, continue]
    default: rollback
  controller_timeout:
    description: How long the play may be silent once the move was started.
    type: str
    default: 120 s
  reservation_timeout:
    description: How long what was prepared on the target is kept while the move has not been started.
    type: str
    default: 30 min
"""
