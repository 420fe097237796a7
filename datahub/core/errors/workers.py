"""A worker that is gone: exit code 4, or 1 where it crashed."""

from __future__ import annotations

import signal

from datahub.core.errors.base import DatahubError

CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT)


class WorkerDied(DatahubError):
    """A worker that is gone or does not answer. Another try may help, unless it crashed: that is a bug of some code."""

    exit_code = 4
    retryable = True
    pid: int | None = None
    signal: int | None = None
    """What ended the process, where a signal did."""

    def __init__(self, stage: str, cause: str) -> None:
        super().__init__(f"a worker died while {stage}: {cause}", "run the command again; finished work is kept")
        self.stage, self.cause = stage, cause

    @classmethod
    def ended(cls, stage: str, pid: int, code: int) -> WorkerDied:
        """Of a process that ended with ``code``: its exit status, or a signal's number below zero."""
        if code >= 0:
            made = cls(stage, f"process {pid} ended with status {code}")
        else:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            made = cls(stage, f"process {pid} was ended by {name}")
            made.signal = -code
        made.pid = pid
        if made.signal == signal.SIGKILL:
            made.next_step = "if memory ran out, use fewer workers or smaller batches; then run it again"
        if made.signal in CRASHES:
            made.exit_code, made.retryable = 1, False
            made.next_step = "a decoder or transform crashed: the traceback above says where"
        return made
