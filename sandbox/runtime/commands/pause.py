"""`pause`: stop every process of a container until `resume`."""

from __future__ import annotations

from stockade.errors import StockadeError
from stockade.sandbox.runtime import state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.runtime.arguments import Invocation


def run(invocation: Invocation) -> int:
    """Freeze the container's groups and wait until they are; a frozen process takes signals only when it goes on."""
    container = state.load(invocation.root, invocation.arguments[0], lock=True)
    try:
        if container.status() not in {state.CREATED, state.RUNNING}:
            raise StockadeError("container not running", hint=f"it is {container.status()}")
        cgroup = container.cgroup()
        try:
            cgroup.freeze()
        except StockadeError:
            if cgroup.groups:
                cgroup.thaw()  # half a pause is none
            raise
        finally:
            cgroup.close()
    finally:
        container.close()
    return 0
