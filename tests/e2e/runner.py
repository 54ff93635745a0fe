# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A playbook under ansible-runner, as AWX runs it, with the interface of a play that is started from a shell."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import ansible_runner

from .controller import PLAY_TIMEOUT, Controller, PlayFailed, Run, read_events


class RunnerPlay:
    """A playbook of the collection under ansible-runner, which asks again and again whether it is to be cancelled."""

    def __init__(self, controller: Controller, playbook: str, extra: dict[str, Any]) -> None:
        output, self._record = controller.files()
        self._directory = output.with_suffix(".runner")
        self._directory.mkdir()
        self._cancel = threading.Event()
        self.started = time.monotonic()
        # ansible-runner takes its own settings from lower-case words; what ansible reads is in upper case.
        environment = {key: value for key, value in controller.environment(self._record).items() if key.isupper()}
        self._thread, self._runner = ansible_runner.run_async(
            private_data_dir=str(self._directory),
            playbook=f"crosscluster.migration.{playbook}",
            inventory=str(controller.lab.inventory),
            extravars=extra,
            envvars=environment,
            cancel_callback=self._cancel.is_set,
            quiet=True,
        )

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        return None if self._thread.is_alive() else self._runner.rc

    def output(self) -> str:
        path = Path(self._runner.config.artifact_dir) / "stdout"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def cancel(self) -> None:
        """What the button of AWX does; ansible-runner sees it within a second."""
        self._cancel.set()

    @property
    def cancelled(self) -> bool:
        """Whether ansible-runner says so itself."""
        return self._runner.status == "canceled"

    def wait(self, timeout: float = PLAY_TIMEOUT) -> Run:
        """Wait for the end; a play that does not end is cancelled and told about."""
        self._thread.join(timeout)
        if self._thread.is_alive():
            self.kill()
            raise PlayFailed(f"the play did not end within {timeout:.0f} s:\n{self.output()[-12000:]}")
        return Run(self._runner.rc, self.output(), read_events(self._record), time.monotonic() - self.started)

    def kill(self) -> None:
        """Cancelled, and gone when this returns."""
        self.cancel()
        self._thread.join()
