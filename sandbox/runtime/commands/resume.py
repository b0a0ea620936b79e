"""`resume`: let the processes of a paused container go on."""

from __future__ import annotations

from stockade.errors import StockadeError
from stockade.sandbox.runtime import state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.runtime.arguments import Invocation


def run(invocation: Invocation) -> int:
    """Thaw the container's groups and wait until they are."""
    container = state.load(invocation.root, invocation.arguments[0], lock=True)
    try:
        if container.status() != state.PAUSED:
            raise StockadeError("container not paused", hint=f"it is {container.status()}")
        cgroup = container.cgroup()
        try:
            cgroup.thaw()
        finally:
            cgroup.close()
    finally:
        container.close()
    return 0
