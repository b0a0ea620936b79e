"""Puts values in the place of ${VARIABLES}, as compose does (compose-spec, 12-interpolation.md).

Values come from the .env file beside and from defaults in the file. The environment of whoever audits isn't that of
whoever deploys: a variable that neither sets stays as it is written, and what depends on it is not known.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stockade.audit.documents.tree import Map, Seq

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DEEPEST = 20
#: mappings whose values are told apart by where they come from: what .env says isn't in the file
_ENVIRONMENT = frozenset({"environment", "args"})
#: what a shell that deploys has set: the home directory, the directory of the project
_SHELL = {"HOME": "~", "PWD": "."}


class Malformed(ValueError):
    """A `${` without its end, or without a name."""


def substitute(text: str, values: Mapping[str, str], depth: int = 0) -> str:
    """Give the text with what is known put in. Raises Malformed for what compose refuses."""
    if "$" not in text:
        return text
    if depth > _DEEPEST:
        raise Malformed
    parts: list[str] = []
    at = 0
    while True:
        dollar = text.find("$", at)
        if dollar < 0:
            return "".join([*parts, text[at:]])
        parts.append(text[at:dollar])
        if text.startswith("$$", dollar):
            parts.append("$")
            at = dollar + 2
            continue
        part, at = _one(text, dollar, values, depth)
        parts.append(part)


def _one(text: str, dollar: int, values: Mapping[str, str], depth: int) -> tuple[str, int]:
    """Give the value of the variable at a place, and where the text goes on."""
    if not text.startswith("{", dollar + 1):
        match = _NAME.match(text, dollar + 1)
        if match is None:
            return "$", dollar + 1  # compose refuses it; shells and templates write it
        return values.get(match[0], _SHELL.get(match[0], match[0] and f"${match[0]}")), match.end()
    end = _end(text, dollar + 2)
    match = _NAME.match(text, dollar + 2)
    if match is None or match.end() > end:
        raise Malformed
    name, rest = match[0], text[match.end() : end]
    return _expanded(name, rest, text[dollar : end + 1], values, depth), end + 1


def _end(text: str, start: int) -> int:
    depth, at = 1, start
    while at < len(text):
        if text.startswith("${", at):
            depth += 1
        elif text[at] == "}":
            depth -= 1
            if not depth:
                return at
        at += 1
    raise Malformed


def _expanded(name: str, rest: str, written: str, values: Mapping[str, str], depth: int) -> str:
    value = values.get(name)
    operator = rest[:2] if rest[:1] == ":" else rest[:1]
    word = rest[len(operator) :]
    there = value is not None and (value != "" or not operator.startswith(":"))
    if operator in {"-", ":-"}:
        return value if there and value is not None else substitute(word, values, depth + 1)
    if operator in {"+", ":+"}:
        return substitute(word, values, depth + 1) if there else ""
    if operator not in {"", "?", ":?"}:
        raise Malformed
    return value if there and value is not None else _SHELL.get(name, written)


def tree(root: Any, values: Mapping[str, str]) -> list[tuple[Map | Seq, Any]]:
    """Put values in all through a document, in place. Gives the parts (parent, key or index) that are malformed."""
    wrong: list[tuple[Map | Seq, Any]] = []
    done: set[int] = set()
    left: list[tuple[Any, Mapping[str, str]]] = [(root, values)]
    while left:
        node, known = left.pop()
        if id(node) in done or not isinstance(node, Map | Seq):
            continue
        done.add(id(node))
        for key, value in list(node.items()) if isinstance(node, Map) else list(enumerate(node)):
            if isinstance(value, str):
                if "$" in value:
                    _put(node, key, value, known, wrong)
            elif isinstance(value, Map | Seq):
                left.append((value, {} if isinstance(node, Map) and key in _ENVIRONMENT else known))
    return wrong


def _put(node: Any, key: Any, value: str, known: Mapping[str, str], wrong: list[tuple[Map | Seq, Any]]) -> None:
    try:
        node[key] = substitute(value, known)
    except Malformed:
        wrong.append((node, key))


_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)\s*[=:]\s*(.*?)\s*$")


def env_file(data: bytes) -> dict[str, str]:
    """Read the NAME=VALUE lines of a .env file; what is no such line is passed over."""
    values: dict[str, str] = {}
    for line in data.decode("utf-8", "replace").splitlines():
        match = _LINE.match(line)
        if match is None or line.lstrip().startswith("#"):
            continue
        name, value = match[1], match[2]
        if value[:1] in {"'", '"'} and value.find(value[0], 1) > 0:
            quote = value[0]
            value = value[1 : value.find(quote, 1)]
            values[name] = value if quote == "'" else _known(value, values)
        else:
            values[name] = _known(value.split(" #", 1)[0].rstrip(), values)
    return values


def _known(value: str, values: Mapping[str, str]) -> str:
    try:
        return substitute(value, values)
    except Malformed:
        return value
