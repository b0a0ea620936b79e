"""Reads examples of Kubernetes files for the tests."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING, TypeVar

from stockade.audit.documents.load import Broken
from stockade.audit.documents.walk import Source
from stockade.audit.facts import Fact, Target
from stockade.audit.static.kubernetes import targets

if TYPE_CHECKING:
    from collections.abc import Iterator

F = TypeVar("F", bound=Fact)


def everything(text: str) -> tuple[Target | Broken, ...]:
    return tuple(targets(Source("pod.yaml", dedent(text).encode())))


def read(text: str) -> dict[str, Target]:
    """Give the targets of a file by id; nothing in it may be wrong."""
    found = everything(text)
    assert [each for each in found if isinstance(each, Broken)] == []
    return {each.id.removeprefix("pod.yaml:"): each for each in found if isinstance(each, Target)}


def wrong(text: str) -> list[str]:
    return [str(each) for each in everything(text) if isinstance(each, Broken)]


def pod(spec: str = "", container: str = "", annotations: str = "") -> str:
    """Give a pod with one container `app`, and with lines that belong into its spec, its container, its metadata."""
    return "\n".join(_pod(spec, container, annotations))


def _pod(spec: str, container: str, annotations: str) -> Iterator[str]:
    yield from ("apiVersion: v1", "kind: Pod", "metadata:", "  name: web")
    if annotations:
        yield "  annotations:"
        yield from _indented(annotations, 4)
    yield "spec:"
    yield from _indented(spec, 2)
    yield from ("  containers:", "  - name: app", "    image: web:1")
    yield from _indented(container, 4)


def _indented(text: str, by: int) -> Iterator[str]:
    yield from (" " * by + line for line in dedent(text).strip("\n").splitlines())


def app(spec: str = "", container: str = "", annotations: str = "") -> Target:
    """Give the target of the one container of such a pod."""
    return read(pod(spec, container, annotations))["Pod/web:app"]


def only(target: Target, kind: type[F]) -> F:
    """Give the one fact of a kind."""
    (fact,) = target.all(kind)
    return fact


def place(target: Target, kind: type[Fact]) -> tuple[int, int]:
    """Give line and column of the one fact of a kind."""
    where = only(target, kind).where
    return where.line, where.column
