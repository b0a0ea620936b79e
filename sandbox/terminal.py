"""The caller's terminal while a container has one of its own: raw, and of the same size."""

from __future__ import annotations

import fcntl
import os
import termios

from stockade.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_SIZE = bytes(8)


class Raw:
    """Puts the terminal on our stdin into raw mode, and back."""

    def __init__(self) -> None:
        """Raise UsageError where stdin is no terminal, as docker run -it does."""
        if not os.isatty(0):
            raise UsageError(
                "the input device is not a terminal", hint="leave -t out when input comes from a pipe or file"
            )
        self.saved = termios.tcgetattr(0)

    def __enter__(self) -> Self:
        """Switch to raw mode, as cfmakeraw(3) does."""
        iflag, oflag, cflag, lflag, ispeed, ospeed, cc = termios.tcgetattr(0)
        iflag &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR | termios.IGNCR
            | termios.ICRNL | termios.IXON
        )  # fmt: skip
        oflag &= ~termios.OPOST
        lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        cc[termios.VMIN], cc[termios.VTIME] = 1, 0
        termios.tcsetattr(0, termios.TCSANOW, [iflag, oflag, cflag, lflag, ispeed, ospeed, cc])
        return self

    def __exit__(self, *_: object) -> None:
        """Put the terminal back as it was."""
        termios.tcsetattr(0, termios.TCSADRAIN, self.saved)


def copy_size(master: int) -> None:
    """Give the container's terminal the size of ours; without one of ours it stays as it is."""
    for descriptor in (0, 1, 2):
        try:
            size = fcntl.ioctl(descriptor, termios.TIOCGWINSZ, _SIZE)
        except OSError:
            continue
        fcntl.ioctl(master, termios.TIOCSWINSZ, size)
        return
