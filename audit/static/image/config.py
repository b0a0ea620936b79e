"""What an image's configuration and its history say: the user, the environment, ports, and how it was built."""

import json
import re
from collections.abc import Iterator

from stockade.audit import facts
from stockade.audit.documents.tree import Map
from stockade.audit.facts import Fact, Gap, Where
from stockade.audit.static import building
from stockade.audit.static.credentials import credential
from stockade.audit.static.dockerfile_words import shell_words
from stockade.audit.static.oci.process import DESCRIPTOR
from stockade.audit.static.reading import Reader

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(\w+))?$")
_NOP = re.compile(r"/bin/sh -c #\(nop\)\s+")
_ARGUMENTS = re.compile(r"(?:RUN )?\|(\d{1,3}) ")
_SHELL = re.compile(r"(?:RUN )?(?:/bin/(?:ba|a|da)?sh|cmd|powershell) (?:-\w+ )*-?-?[cC] ?|RUN ")
_TOLD = frozenset({"RUN", "VOLUME", "WORKDIR"})
#: lines of one history, and characters of one of them
_LINES, _LONGEST = 2000, 100_000
DEFAULT_PATH: tuple[str, ...] = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def config(document: Map, reader: Reader) -> Iterator[Fact | Gap]:
    """Give what a container of this image gets where nobody asks for anything else."""
    section = reader.mapping(document, "config") or Map(document.path, document.place)
    where = section.at("User") if "User" in section else document.at("config")
    if reader.text(document, "os") == "windows":
        yield Gap(facts.Identity, "the image is one of Windows", document.at("os"), applicable=False)
    else:
        yield from building.identity(where, reader.text(section, "User"))
    for text, place in reader.texts(section, "Env"):
        name, _, value = text.partition("=")
        yield building.variable(place, name, value, "image")
    yield from _ports(reader.mapping(section, "ExposedPorts"))
    volumes = reader.mapping(section, "Volumes")
    for key in volumes or ():
        if volumes is not None:
            yield facts.BuildStep(where=volumes.at(key), instruction="VOLUME", arguments=(key,))
    yield from _life(section, document.at("config"), reader)


def _ports(ports: Map | None) -> Iterator[Fact]:
    for key in ports or ():
        match = _PORT.match(key)
        if match and ports is not None:
            first, last = int(match[1]), int(match[2] or match[1])
            kind = (match[3] or "tcp").lower()
            yield building.port(ports.at(key), first, protocol=kind, count=max(last - first + 1, 1))


def _life(section: Map, where: Where, reader: Reader) -> Iterator[Fact]:
    directory = reader.text(section, "WorkingDir")
    if directory is not None:
        outside = bool(DESCRIPTOR.search(directory))
        yield facts.WorkingDirectory(where=section.at("WorkingDir"), path=directory, outside=outside)
        yield facts.BuildStep(where=section.at("WorkingDir"), instruction="WORKDIR", arguments=(directory,))
    health = reader.mapping(section, "Healthcheck")
    test = [value for value, _ in reader.texts(health, "Test")] if health is not None else []
    if test:
        yield facts.HealthCheck(where=section.at("Healthcheck"), present=test[0] != "NONE")
    else:
        yield building.unset(where, "healthcheck")


def command(document: Map) -> str:
    """Give what the image starts."""
    section = document.map("config")
    words = [*(section.seq("Entrypoint") or ()), *(section.seq("Cmd") or ())] if section is not None else []
    return " ".join([each for each in words if isinstance(each, str)])


def path(document: Map) -> tuple[str, ...]:
    """Give the directories in which programs are looked for."""
    section = document.map("config")
    for each in (section.seq("Env") or ()) if section is not None else ():
        if isinstance(each, str) and each.startswith("PATH="):
            return tuple(dict.fromkeys([*each[5:].split(":"), *DEFAULT_PATH]))
    return DEFAULT_PATH


def history(document: Map, reader: Reader) -> Iterator[Fact]:
    """Give the steps that built the image, and the credentials that stand in them."""
    for number, entry in enumerate(reader.mappings(document, "history")):
        line = reader.text(entry, "created_by")
        if line is None or number >= _LINES:
            continue
        yield from _line(line[:_LONGEST], entry.at("created_by"))


def _line(line: str, where: Where) -> Iterator[Fact]:
    text = _NOP.sub("", line).removesuffix(" # buildkit").strip()
    arguments = _ARGUMENTS.match(text)
    if arguments:
        # "|2 A=1 B=2 /bin/sh -c command": the arguments of the build with their values
        count = int(arguments[1])
        words = [word for word, _ in shell_words(text[arguments.end() :])]
        for word in words[:count]:
            name, _, value = word.partition("=")
            yield building.variable(where, name, value, "argument")
        shell = re.search(r"/\w+/\w*sh -\w*c ", text)
        text = f"RUN {text[shell.end() :]}" if shell else ""
    name, _, rest = text.partition(" ")
    if name == "ENV":
        yield from _environment(rest, where)
        return
    match = _SHELL.match(text)
    if match:
        name, rest = "RUN", text[match.end() :]
    if name not in _TOLD:
        return
    words = [word for word, _ in shell_words(rest)] if name == "RUN" else _listed(rest)
    yield facts.BuildStep(where=where, instruction=name, arguments=tuple(words), shell=name == "RUN")


def _environment(rest: str, where: Where) -> Iterator[Fact]:
    """Give variables of ENV that hold a credential, which a later step may have taken away again."""
    for word, _ in shell_words(rest):
        name, equals, value = word.partition("=")
        if equals and credential(name, value):
            yield building.variable(where, name, value, "image")


def _listed(rest: str) -> list[str]:
    try:
        found = json.loads(rest)
    except ValueError:
        found = rest.strip("[]").split()
    return [str(each) for each in found] if isinstance(found, list) else [rest]
