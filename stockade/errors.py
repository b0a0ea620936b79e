"""Errors that reach the user: one sentence, and what to do about it."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO


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


def coloured(stream: TextIO | None) -> bool:
    """Whether to colour what goes to `stream`: a terminal that can, and no NO_COLOR (https://no-color.org).

    None is a standard stream that was closed when Python started.
    """
    if stream is None or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def printable(text: str) -> str:
    """Give `text` with everything escaped that could move the cursor, start a line or hide a part of it.

    Names in messages come from command lines, files and other people's containers. Tabs and newlines are escaped too.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )


def describe(error: StockadeError, *, colour: bool = False, program: str = "stockade") -> str:
    """Give the lines that tell the user of an error of the command `program`, without the last newline."""
    red, bold, plain = ("\033[1;31m", "\033[1m", "\033[0m") if colour else ("", "", "")
    lines = [f"{red}{program}:{plain} {printable(error.message)}"]
    lines += [f"  {bold}remedy:{plain} {printable(line)}" for line in error.hint.splitlines()]
    return "\n".join(lines)


def show(error: StockadeError) -> None:
    """Print an error on standard error; one that is closed or full loses it."""
    if sys.stderr is None:  # descriptor 2 was closed when Python started
        return
    try:
        sys.stderr.write(describe(error, colour=coloured(sys.stderr)) + "\n")
        sys.stderr.flush()
    except OSError:
        pass
