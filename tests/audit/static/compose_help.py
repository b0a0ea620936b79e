"""Reads examples of compose files and units for the tests."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING, TypeVar

from stockade.audit.documents.load import Broken
from stockade.audit.documents.walk import Source
from stockade.audit.facts import Fact, Namespace, Target
from stockade.audit.static.compose import targets

if TYPE_CHECKING:
    from pathlib import Path

F = TypeVar("F", bound=Fact)


def everything(text: str, path: str = "compose.yml") -> tuple[Target | Broken, ...]:
    return tuple(targets(Source(path, dedent(text).encode())))


def read(text: str, path: str = "stdin") -> dict[str, Target]:
    """Give the targets of a file by service; nothing in it may be wrong."""
    found = everything(text, path)
    assert [str(each) for each in found if isinstance(each, Broken)] == []
    return {each.id.rpartition(":")[2]: each for each in found if isinstance(each, Target)}


def wrong(text: str, path: str = "stdin") -> list[str]:
    return [str(each) for each in everything(text, path) if isinstance(each, Broken)]


def app(lines: str, *, top: str = "") -> Target:
    """Give the target of the one service `app` with these lines; `top` is put below the services."""
    return read(file(lines, top=top))["app"]


def file(lines: str, *, top: str = "") -> str:
    """Give a file with one service `app`: its lines begin with line 4."""
    inside = "".join(f"    {line}\n" for line in dedent(lines).strip("\n").splitlines())
    return f"services:\n  app:\n    image: app:1\n{inside}{dedent(top)}"


def only(target: Target, kind: type[F]) -> F:
    (fact,) = target.all(kind)
    return fact


def place(fact: Fact) -> tuple[int, int]:
    return fact.where.line, fact.where.column


def namespace(target: Target, kind: str) -> Namespace:
    (found,) = [each for each in target.all(Namespace) if each.kind == kind]
    return found


def on_disk(directory: Path, **files: str) -> dict[str, Target | Broken]:
    """Write files (`compose_yml` is compose.yml) and read compose.yml; what is wrong is named by its text."""
    for name, text in files.items():
        path = directory / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    base = directory / "compose.yml"
    found = targets(Source(str(base), base.read_bytes()))
    return {each.id.rpartition(":")[2] if isinstance(each, Target) else each.text: each for each in found}
