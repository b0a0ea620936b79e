"""`kill`: send a signal to a container."""

from __future__ import annotations

from stockade.errors import UsageError
from stockade.sandbox.runtime import ending, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.runtime.arguments import Invocation

DEFAULT = "SIGTERM"


def run(invocation: Invocation) -> int:
    """Send the signal, SIGTERM unless another is named; with --all to every process."""
    identity, *rest = invocation.arguments
    container = state.load(invocation.root, identity)
    ending.signal(container, number(rest[0] if rest else DEFAULT), everyone=bool(invocation.options["all"]))
    return 0


def number(text: str) -> int:
    """Give the number of a signal: 15, TERM, SIGTERM, RTMIN+3. Raises UsageError."""
    if text.isdecimal():
        if 0 < int(text) < 65:
            return int(text)
    else:
        from stockade.sandbox import values

        try:
            return values.signal(text)
        except (UsageError, ValueError):
            pass
    raise UsageError(f"unknown signal {text!r}", hint="see `kill -l`")
