"""Start `stockade-runtime` without the site module: `python -I -S …/stockade/sandbox/runtime/boot.py ARGUMENTS`.

Nothing but Python's own library and this package is needed, so the package's place is all that sys.path lacks. It is
the directory that holds `stockade/`: above it as installed; beside `sandbox/` in a source tree, where stockade/sandbox
is a link.
"""

from __future__ import annotations

import gc
import sys


def home(path: str) -> str:
    """Give the directory that holds the package `stockade`, of the absolute path of this file."""
    from posix import access

    above = path.rsplit("/", 3)[0]
    # a source tree may itself be called "stockade": names alone don't tell
    return above if access(above + "/stockade/errors.py", 4) else above.rsplit("/", 1)[0]


def fill_standard_streams() -> None:
    """Open /dev/null for those that are closed, before any file of ours gets the number and becomes a container's."""
    from posix import O_RDWR, fstat, open

    for descriptor in (0, 1, 2):
        try:
            fstat(descriptor)
        except OSError:
            open("/dev/null", O_RDWR)  # open(2) gives the lowest


if __name__ == "__main__":
    gc.disable()  # modules are made to stay: looking for garbage among them takes a millisecond
    fill_standard_streams()
    sys.path.insert(0, home(__file__))
    from stockade.sandbox.runtime import modules

    modules.install()
    from stockade.sandbox.runtime.main import main

    main()
