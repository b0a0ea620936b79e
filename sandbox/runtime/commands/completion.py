"""`completion`: a script for the shell."""

from __future__ import annotations

from stockade.errors import UsageError
from stockade.sandbox.runtime import completion
from stockade.sandbox.runtime.output import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.runtime.arguments import Invocation


def run(invocation: Invocation) -> int:
    """Print the script."""
    shell = invocation.arguments[0]
    if shell not in completion.SHELLS:
        raise UsageError(f"there is no completion for {shell!r}", hint=f"there is for {', '.join(completion.SHELLS)}")
    show(completion.script(shell))
    return 0
