"""The state of a container as an OCI runtime tells it, runtime-spec runtime.md "State"."""

from __future__ import annotations

from stockade.sandbox.linux.record import Record
from stockade.sandbox.oci.spec import OCI_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

CREATING, CREATED, RUNNING, STOPPED = "creating", "created", "running", "stopped"


class State(Record):
    """What `state ID` prints and hooks read; `pid` is the host's, 0 where there is no process. `to_json` writes it."""

    id: str
    status: str
    bundle: str
    pid: int = 0
    annotations: Mapping[str, str] = {}
    oci_version: str = OCI_VERSION
