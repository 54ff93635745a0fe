# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stock source of a remote migration: POST remote_migrate, its task, and the tunnel client process it starts."""
