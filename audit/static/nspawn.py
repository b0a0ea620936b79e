"""Reads the options of systemd-nspawn(1) into a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stockade.audit.static.docker.request import Mounted, Switch, Word
from stockade.audit.static.docker.words import split_volume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stockade.audit.static.docker.request import Request

_LETTERS = {"D": "directory", "i": "image", "M": "machine", "u": "user", "b": "boot", "x": "ephemeral", "n": "veth",
            "p": "port", "U": "users", "q": "quiet", "a": "pid2", "E": "setenv"}  # fmt: skip
_VALUES = frozenset({"directory", "image", "machine", "user", "port", "setenv"})
_NO = frozenset({"no", "false", "0", "off", "n", "f"})


def read(line: Sequence[Word], request: Request) -> None:
    """Put the options into the request. Without a network option the container has the host's network."""
    request.engine = "nspawn"
    request.one["network"] = Word("host", request.where)
    at = 0
    while at < len(line):
        word = line[at]
        text = word.text
        at += 1
        if not text.startswith("-"):
            break
        if text.startswith("--"):
            name, equals, value = text[2:].partition("=")
            if not equals and name in _VALUES and at < len(line):
                value, at = line[at].text, at + 1
            _take(request, name, Word(value, word.where))
            continue
        for index, letter in enumerate(text[1:], 2):
            name = _LETTERS.get(letter, "")
            if name in _VALUES:
                value = text[index:]
                if not value and at < len(line):
                    value, at = line[at].text, at + 1
                _take(request, name, Word(value, word.where))
                break
            _take(request, name, Word("", word.where))


def _take(request: Request, name: str, word: Word) -> None:
    if name == "machine":
        request.one["name"] = word
    elif name in {"capability", "drop-capability"}:
        request.many.setdefault("cap-add" if name == "capability" else "cap-drop", []).append(word)
    elif name in {"bind", "bind-ro", "overlay"}:
        parts = split_volume(word.text.lstrip("+"))
        destination = parts[1] if len(parts) > 1 and parts[1] else parts[0]
        writable = name != "bind-ro"
        request.mounts.append(Mounted(word.where, "bind", parts[0], destination, writable))
    elif name in {"private-network", "veth", "network-veth", "network-bridge", "network-zone", "network-macvlan",
                  "network-ipvlan", "network-interface", "network-namespace-path"}:  # fmt: skip
        if word.text.lower() not in _NO:
            request.one["network"] = Word("private", word.where)
    elif name in {"private-users", "users"}:
        own = word.text.lower() not in {*_NO, "identity", "managed-no"}
        request.one["userns"] = Word("private" if own else "host", word.where)
    elif name == "no-new-privileges" and word.text.lower() not in _NO:
        request.many.setdefault("security-opt", []).append(Word("no-new-privileges", word.where))
    elif name == "read-only":
        request.switches["read-only"] = Switch(value=True, where=word.where)
    elif name == "user":
        request.one["user"] = word
