"""`restore`: understood and refused."""

from __future__ import annotations

from stockade.sandbox.runtime.commands.checkpoint import refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.runtime.arguments import Invocation


def run(invocation: Invocation) -> int:
    """Refuse, and say why."""
    raise refusal("restore", invocation.criu)
