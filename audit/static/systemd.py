"""Collects the containers that a systemd unit starts by hand: `docker run`, `podman run`, `nerdctl run`, nspawn."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from stockade.audit.documents.kinds import NotOne
from stockade.audit.static import nspawn, units
from stockade.audit.static.docker import run
from stockade.audit.static.docker.declare import target
from stockade.audit.static.docker.request import Request, Word

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockade.audit.documents.walk import Source
    from stockade.audit.facts import Target, Where

_STARTS = frozenset({"ExecStart", "ExecStartPre", "ExecStartPost", "ExecReload"})
_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh"})
#: programs that run another one, with as many words of their own as follow
_BEFORE = frozenset({"sudo", "env", "exec", "nice", "ionice", "nohup", "setsid", "systemd-cat", "flock", "timeout"})
_SEPARATORS = frozenset({";", "&&", "||", "|", "&", "(", ")", "{", "}", "then", "do", "else", "if", "!"})


def targets(source: Source) -> Iterator[Target]:
    """Give a target for each container that the unit starts. Raises NotOne where it starts none."""
    taken: dict[str, int] = {}
    for entry in units.entries(source.data, source.path):
        if entry.section != "Service" or entry.key not in _STARTS:
            continue
        for line in _commands(units.words(entry)):
            made = _request(line, source.path, taken)
            if made is not None:
                yield target(made)
    if not taken:
        raise NotOne


def _request(line: list[Word], path: str, taken: dict[str, int]) -> Request | None:
    program = line[0].text.rpartition("/")[2]
    made = Request(path, os.path.basename(path), "systemd", line[0].where)
    if program == "systemd-nspawn":
        nspawn.read(line[1:], made)
    else:
        found = run.begins(line)
        if found is None:
            return None
        made.engine = found[0]
        run.read(line[found[1] :], made)
    name = made.text("name") or program
    taken[name] = taken.get(name, 0) + 1
    made.id = f"{path}:{name}" + ("" if taken[name] == 1 else f"#{taken[name]}")
    made.name = f"{os.path.basename(path)} {name}"
    return made


def _commands(line: list[Word]) -> Iterator[list[Word]]:
    """Give the commands of a line: parts between ";", those in a shell's -c, those behind sudo and its like."""
    if line:
        line = [Word(line[0].text.lstrip("@-:+!|"), line[0].where), *line[1:]]
    for each in _split(line):
        part = each
        program = part[0].text.rpartition("/")[2]
        if program in _SHELLS:
            script = _script(part)
            if script is not None:
                yield from _split(_shell_words(script))
            continue
        while program in _BEFORE and len(part) > 1:
            part = _behind(part)
            program = part[0].text.rpartition("/")[2] if part else ""
        if part:
            yield part


def _split(line: list[Word]) -> Iterator[list[Word]]:
    part: list[Word] = []
    for word in line:
        if word.text in _SEPARATORS:
            if part:
                yield part
            part = []
        else:
            part.append(word)
    if part:
        yield part


def _behind(part: list[Word]) -> list[Word]:
    """Give what another program runs: from the first word on that names one."""
    for at, word in enumerate(part[1:], 1):
        if word.text.rpartition("/")[2] in run.ENGINES | {"systemd-nspawn"}:
            return part[at:]
    return []


def _script(part: list[Word]) -> Word | None:
    for at, word in enumerate(part[1:], 1):
        if word.text.startswith("-") and "c" in word.text and not word.text.startswith("--"):
            return part[at + 1] if at + 1 < len(part) else None
    return None


def _shell_words(script: Word) -> list[Word]:
    """Split a shell's script into words; all have the place where the script begins."""
    where: Where = script.where
    lexer = shlex.shlex(script.text.replace("\n", " ; "), posix=True, punctuation_chars=";&|()")
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        found = list(lexer)
    except ValueError:  # an open quote: systemd or the shell refuses it
        found = script.text.split()
    return [Word(each, where) for each in found if each != "exec"]
