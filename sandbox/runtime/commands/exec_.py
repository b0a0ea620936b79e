"""`exec`: one more process in a container that runs."""

from __future__ import annotations

from stockade.sandbox.runtime import joining, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.runtime.arguments import Invocation


def run(invocation: Invocation) -> int:
    """Give the program's exit code, or 0 when it detaches."""
    container = state.load(invocation.root, invocation.arguments[0])
    launcher, child = joining.join(invocation, container)
    if invocation.options["detach"]:
        launcher.leave()
        return 0
    from stockade.sandbox.runtime import foreground

    try:
        return foreground.follow(child)
    finally:
        launcher.close()
