"""`--version`: in runc's form, which dockerd (`docker info`) and Podman (`podman info`) read line by line."""

from __future__ import annotations

from stockade import __version__
from stockade.sandbox.runtime.output import show
from stockade.sandbox.runtime.state import OCI_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.runtime.arguments import Invocation


def run(invocation: Invocation) -> int:  # noqa: ARG001
    """Print name, version, the tag it was built from and the runtime-spec."""
    # dockerd shows what follows "commit:" as the runtime's identity; a wheel knows its tag only
    show(f"stockade-runtime version {__version__}\ncommit: v{__version__}\nspec: {OCI_VERSION}")
    return 0
