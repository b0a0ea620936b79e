"""`create`: make a container that waits for `start`."""

from __future__ import annotations

from stockade.sandbox.runtime import creating

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.runtime.arguments import Invocation


def run(invocation: Invocation) -> int:
    """Create the container and leave it alone."""
    creating.create(invocation).launcher.leave()
    return 0
