"""`spec`: a config.json to begin with."""

from __future__ import annotations

import json
import os

from stockade.errors import StockadeError
from stockade.sandbox.runtime.output import write_all
from stockade.sandbox.runtime.spec_template import template

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.runtime.arguments import Invocation


def run(invocation: Invocation) -> int:
    """Write the configuration into the bundle; one that is there is never replaced."""
    path = os.path.join(invocation.options["bundle"], "config.json")
    text = json.dumps(template(rootless=invocation.options["rootless"]), indent="\t") + "\n"
    try:
        # O_EXCL follows no link either
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise StockadeError(f"{path} exists", hint="remove it first, or choose another --bundle") from None
    try:
        write_all(descriptor, text.encode())
    except OSError:
        os.unlink(path)  # half a configuration is none
        raise
    finally:
        os.close(descriptor)
    return 0
