"""`state`: what a container is, in OCI's JSON."""

from __future__ import annotations

from stockade.sandbox.oci import lean_json
from stockade.sandbox.runtime import state
from stockade.sandbox.runtime.output import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.runtime.arguments import Invocation


def run(invocation: Invocation) -> int:
    """Print the state of runtime-spec runtime.md, with rootfs, created and owner as runc has them."""
    container = state.load(invocation.root, invocation.arguments[0])
    status, data = container.status(), container.data
    show(
        lean_json.dumps(
            {
                "ociVersion": data.get("ociVersion", state.OCI_VERSION),
                "id": container.identity,
                "pid": 0 if status == state.STOPPED else container.pid,
                "status": status,
                "bundle": data.get("bundle", ""),
                "rootfs": data.get("rootfs", ""),
                "created": data.get("created", ""),
                "owner": "",
                "annotations": data.get("annotations") or {},
            }
        )
    )
    return 0
