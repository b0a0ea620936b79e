"""`delete`: remove a container and all that belongs to it."""

from __future__ import annotations

from stockade.errors import StockadeError
from stockade.sandbox.runtime import ending, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.runtime.arguments import Invocation


def run(invocation: Invocation) -> int:
    """Remove it. With --force one that runs is killed first, and one that is not there is no error."""
    force = bool(invocation.options["force"])
    try:
        container = state.load(invocation.root, invocation.arguments[0], lock=True)
    except StockadeError as error:
        if force and "does not exist" in error.message:
            return 0
        raise
    ending.delete(container, force=force)
    return 0
