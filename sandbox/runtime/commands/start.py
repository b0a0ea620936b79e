"""`start`: let the program of a created container begin."""

from __future__ import annotations

from stockade.sandbox.runtime import starting, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.runtime.arguments import Invocation


def run(invocation: Invocation) -> int:
    """Start it; a hook that fails afterwards is only told of (runtime-spec, poststart)."""
    container = state.load(invocation.root, invocation.arguments[0], lock=True)
    starting.start(container)
    if container.data.get("hooks"):
        starting.poststart(container)
    return 0
