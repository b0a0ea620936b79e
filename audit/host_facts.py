"""What the host offers to whoever shares something with it. `audit/facts.py` gives these kinds on with all others."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from stockade.audit.fact import Fact


@dataclass(frozen=True, slots=True)
class HostService(Fact):
    """What listens for the host alone: an abstract Unix socket or a loopback port; `owner` is its host uid."""

    many: ClassVar[bool] = True

    name: str
    kind: Literal["abstract", "loopback"]
    owner: int | None = None
