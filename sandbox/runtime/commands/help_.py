"""`--help`, `help [COMMAND]`."""

from __future__ import annotations

from stockade.errors import UsageError
from stockade.sandbox.runtime import usage
from stockade.sandbox.runtime.arguments import COMMANDS, PROGRAM
from stockade.sandbox.runtime.output import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.runtime.arguments import Invocation


def run(invocation: Invocation) -> int:
    """Print how the command, or the one that is named, is used."""
    command = invocation.arguments[0] if invocation.arguments else ""
    if command and command not in COMMANDS:
        raise UsageError(f"there is no command {command!r}", hint=f"see '{PROGRAM} --help'")
    show(usage.text(command))
    if command in ("checkpoint", "restore"):
        # Podman takes an exit code of 0 for the promise that checkpoints work
        from stockade.sandbox.runtime.commands.checkpoint import refusal

        raise refusal(command, invocation.criu)
    return 0
