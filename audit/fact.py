"""The base of all facts and the place where one was read."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True, order=True)
class Where:
    """The place of a fact: a file with a line and column from 1 on, or a path under /proc, /sys with line 0.

    A line of a /proc file, such as mountinfo, counts too.
    """

    path: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        parts = [self.path, *(str(number) for number in (self.line, self.column) if number)]
        return ":".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Base of all kinds. `many` says whether a target can have several facts of the kind."""

    many: ClassVar[bool] = False

    where: Where
