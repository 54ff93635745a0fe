# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""End-to-end tests: the playbooks of the collection move real guests between two clusters of the lab."""
