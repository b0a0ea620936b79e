"""`features`: what this runtime can do, in the form of the runtime-spec's features document."""

from __future__ import annotations

import json

from stockade.sandbox.runtime.feature_document import document
from stockade.sandbox.runtime.output import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.runtime.arguments import Invocation


def run(invocation: Invocation) -> int:  # noqa: ARG001
    """Print the document."""
    show(json.dumps(document(), indent=2))
    return 0
