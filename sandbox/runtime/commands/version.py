"""`--version`: in runc's form, which dockerd (`docker info`) and Podman (`podman info`) read line by line."""

from __future__ import annotations

from stockade import __version__
from stockade.sandbox.runtime.output import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.runtime.arguments import Invocation

#: the runtime-spec that is implemented
SPEC_VERSION = "1.2.0"


def run(invocation: Invocation) -> int:  # noqa: ARG001
    """Print name, version, the tag it was built from and the runtime-spec."""
    # dockerd shows what follows "commit:" as the runtime's identity; a wheel knows its tag only
    show(f"stockade-runtime version {__version__}\ncommit: v{__version__}\nspec: {SPEC_VERSION}")
    return 0
