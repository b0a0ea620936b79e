"""Reads the words of a `docker run` line into a request: docker, podman and nerdctl, `run` and `create`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stockade.audit.static.docker import table, words
from stockade.audit.static.docker.request import Mounted, Passed, Set, Switch, Word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stockade.audit.static.docker.request import Request

ENGINES = frozenset({"docker", "podman", "nerdctl", "finch"})
_NO = frozenset({"false", "0", "f", "no"})
_SOCKET = "/var/run/docker.sock"


def begins(line: Sequence[Word]) -> tuple[str, int] | None:
    """Give the engine of a line and where the options of `run` begin; None where it runs no container."""
    engine = line[0].text.rpartition("/")[2] if line else ""
    if engine not in ENGINES:
        return None
    at = 1
    while at < len(line):
        text = line[at].text
        if text.startswith("-"):
            name, equals, _ = text.lstrip("-").partition("=")
            name = table.LETTERS.get(name, name) if not text.startswith("--") else name
            at += 1 if equals or name not in table.GLOBAL else 2
        elif text in {"run", "create"}:
            return ("podman" if engine == "podman" else "docker"), at + 1
        elif text == "container":
            at += 1
        else:
            return None
    return None


def read(line: Sequence[Word], request: Request, *, image: bool = True) -> None:
    """Take options up to the image and put them into the request. Without `image` all words are options."""
    at = 0
    while at < len(line):
        word = line[at]
        if word.text == "--":
            at += 1
            break
        if not word.text.startswith("-") or word.text == "-":
            if image:
                break
            at += 1
        elif word.text.startswith("--"):
            at = _long(line, at, request)
        else:
            at = _letters(line, at, request)
    if image and at < len(line):
        request.image = line[at]
        request.command = " ".join(each.text for each in line[at + 1 :])


def _long(line: Sequence[Word], at: int, request: Request) -> int:
    """Take one option with two dashes; give where the next one begins."""
    word = line[at]
    name, equals, value = word.text[2:].partition("=")
    name = table.ALIASES.get(name, name)
    if name in table.SWITCHES:
        take(request, name, Word(value or "true", word.where))
        return at + 1
    if equals:
        take(request, name, Word(value, word.where))
        return at + 1
    if at + 1 < len(line):
        take(request, name, Word(line[at + 1].text, word.where))
    return at + 2


def _letters(line: Sequence[Word], at: int, request: Request) -> int:
    """Take letters in one word: -it, -v/a:/b, -p 80:80."""
    word, rest = line[at], line[at].text[1:]
    while rest:
        name, rest = table.LETTERS.get(rest[0], ""), rest[1:]
        if name in table.SWITCHES:
            value, equals, _ = rest.partition("=") if rest.startswith("=") else ("", "", "")
            take(request, name, Word(rest[1:] if equals else value or "true", word.where))
            if equals:
                return at + 1
            continue
        if rest:
            take(request, name, Word(rest.removeprefix("="), word.where))
            return at + 1
        if at + 1 < len(line):
            take(request, name, Word(line[at + 1].text, word.where))
        return at + 2
    return at + 1


def take(request: Request, name: str, word: Word) -> None:
    """Put one option into the request; what says nothing of privilege is passed over."""
    if name in {"privileged", "read-only", "oom-kill-disable"}:
        request.switches[name] = Switch(word.text.lower() not in _NO, word.where)
    elif name in table.ONE:
        request.one[name] = word
    elif name in table.MANY:
        request.many.setdefault(name, []).append(word)
    elif name in {"env", "e"}:
        variable, equals, value = word.text.partition("=")
        alone = equals and words.UNKNOWN.match(value) and value.rstrip("}").lstrip("${").isidentifier()
        literal = value if equals and not alone else None
        request.variables.append(Set(word.where, variable, literal, "" if literal is not None else "host"))
    elif name == "rootfs" and word.text.lower() not in _NO:
        request.local = True
    else:
        _files(request, name, word)


def _files(request: Request, name: str, word: Word) -> None:
    if name == "volume":
        request.mounts.append(words.volume(word.text, word.where))
    elif name == "mount":
        mount = words.mount(word.text, word.where)
        if mount is not None:
            request.mounts.append(mount)
    elif name == "use-api-socket" and word.text.lower() not in _NO:
        request.mounts.append(Mounted(word.where, "bind", _SOCKET, _SOCKET))
    elif name in {"publish", "expose"}:
        port = words.published(word.text, word.where) if name == "publish" else words.exposed(word.text, word.where)
        if port is not None:
            request.ports.append(port)
    elif name == "device":
        request.devices.append(words.device(word.text, word.where))
    elif name == "gpus":
        request.devices.append(Passed(word.where, "nvidia.com/gpu=all"))
    elif name == "health-cmd":
        request.health = Switch(word.text.strip().lower() != "none", word.where)
    elif name == "no-healthcheck":
        request.health = Switch(value=False, where=word.where)
