# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTPS API of a lab host: REST methods, permissions, the websocket front end and the tunnel worker."""
