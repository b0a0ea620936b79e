"""`checkpoint`: understood and refused."""

from __future__ import annotations

from stockade.errors import StockadeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.runtime.arguments import Invocation


def run(invocation: Invocation) -> int:
    """Refuse, and say why."""
    raise refusal("checkpoint", invocation.criu)


def refusal(command: str, criu: str) -> StockadeError:
    """Give the reason for which a process can't be saved or restored: nothing is accepted and then ignored."""
    from shutil import which

    why = "criu is not installed" if which(criu) is None else "criu is installed, but Stockade doesn't drive it"
    return StockadeError(
        f"{command} is not supported by this runtime ({why})",
        hint="run containers that must be saved and restored with runc or crun and criu",
    )
