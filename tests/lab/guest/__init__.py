# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guest that the lab's VMs boot: one static program as /init on a distribution kernel."""
