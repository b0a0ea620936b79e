"""Errors that reach the user: one sentence, and what to do about it."""

from __future__ import annotations


class StockadeError(Exception):
    """A failure that is told to the user as `stockade: MESSAGE` and, on a second line, the remedy.

    `message` is one line that names the step, the object and the cause. `hint` is the remedy, or empty.
    `exit_code` is what the command returns: 125 for a failure of ours, 126 and 127 as docker-run(1) has them.
    """

    exit_code = 125

    def __init__(self, message: str, *, hint: str = "", exit_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code


class UsageError(StockadeError):
    """The command line or a file that it names can't be understood."""


class CannotExecute(StockadeError):
    """The program exists and the kernel refuses to execute it (exit code 126)."""

    exit_code = 126


class ProgramNotFound(StockadeError):
    """There is no such program in the container (exit code 127)."""

    exit_code = 127
