# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands of a node: qm, pvesm, pvesh, with the real messages, effects and exit codes (pve-cli 4)."""
