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


if __name__ == "__main__":
    gc.disable()  # modules are made to stay: looking for garbage among them takes a millisecond
    sys.path.insert(0, home(__file__))
    from stockade.sandbox.runtime import modules

    modules.install()
    from stockade.sandbox.runtime.main import main

    main()
