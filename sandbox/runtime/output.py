"""What a command prints on standard output: whole, as UTF-8 whatever the locale says, at once."""

from __future__ import annotations

import os


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`; write(2) may take a part. Raises OSError, BrokenPipeError where the reader has gone."""
    while data:
        data = data[os.write(descriptor, data) :]


def show(text: str) -> None:
    """Print `text` on standard output, with a newline at its end."""
    write_all(1, (text if text.endswith("\n") else text + "\n").encode("utf-8", "surrogateescape"))
