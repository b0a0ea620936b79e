"""Puts a project together: the file, the override beside it, what it includes, what its services extend.

Other files are read as they are named, relative to the file that names them. One that isn't there, is no regular
file, or lies at an address of the network is told as missing; the others are audited.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stockade.audit.documents import walk
from stockade.audit.documents.load import Broken, documents
from stockade.audit.documents.tree import Map, Seq, text
from stockade.audit.documents.walk import Entry, Source
from stockade.audit.facts import Where
from stockade.audit.static.compose import interpolate
from stockade.audit.static.compose.merge import merged, without_resets

if TYPE_CHECKING:
    from stockade.audit.static.compose.reading import Reader

#: files that one project may be made of
_MOST_FILES = 100
#: services that extend each other, files that include each other
_DEEPEST = 30
_BASE = re.compile(r"^((?:docker-)?compose)\.(ya?ml)$")
_OVERRIDE = re.compile(r"^((?:docker-)?compose)\.override\.(ya?ml)$")
#: keys of the top level of a file with services; any other one is a service of version 1
_TOP = frozenset({"version", "name", "services", "networks", "volumes", "secrets", "configs", "include", "models"})


@dataclass(slots=True)
class Service:
    """A service with all that it extends put into it. `path` is the file that its target is named after."""

    name: str
    node: Map
    path: str
    project: Project


@dataclass(slots=True)
class Project:
    """The merged files of one project, and the services in it. `env` are the values of its .env file."""

    path: str
    document: Map
    env: dict[str, str]
    services: dict[str, Service] = field(default_factory=dict)

    def top(self, key: str, name: str) -> Map | None:
        """Give an entry of the top level, such as a volume or network, by its name."""
        entries = self.document.get(key)
        return entries.map(name) if isinstance(entries, Map) else None


class Loader:
    """Loads the files of a project, each once."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.known: dict[str, Map] = {}
        self.projects: list[Project] = []
        self.circled: set[tuple[str, str]] = set()

    def load(self, sources: list[Source]) -> list[Project]:
        """Give the project of the sources, the later over the earlier ones, and those that it includes."""
        env = self._env(sources[0].path)
        document: Map | None = None
        for source in sources:
            more = self._parse(source, env)
            document = without_resets(more) if document is None else merged(document, more)
        if document is not None:
            self._project(sources[0].path, document, env, ())
        return self.projects

    def with_override(self, source: Source) -> list[Source]:
        """Give the source with what compose reads beside it of its own accord: compose.override.yml and its like."""
        directory, name = os.path.split(source.path)
        if source.path in {"-", walk.STDIN}:
            return [source]
        base, over = _BASE.match(name), _OVERRIDE.match(name)
        if over is not None:
            below = self._beside(directory, over[1])
            return [below, source] if below is not None else [source]
        if base is not None:
            above = self._beside(directory, f"{base[1]}.override")
            return [source, above] if above is not None else [source]
        return [source]

    def _beside(self, directory: str, stem: str) -> Source | None:
        for ending in ("yml", "yaml"):
            path = os.path.join(directory, f"{stem}.{ending}")
            if os.path.isfile(path):
                found = walk.read(Entry(path, named=False))
                if isinstance(found, Broken):
                    self.reader.refuse(found.where, found.text, hint="")
                elif found is not None and found.whole:
                    return found
        return None

    def _env(self, path: str) -> dict[str, str]:
        if path in {"-", walk.STDIN}:
            return {}
        file = os.path.join(os.path.dirname(path), ".env")
        if not os.path.isfile(file):
            return {}
        found = walk.read(Entry(file, named=False))
        return interpolate.env_file(found.data) if isinstance(found, Source) and found.whole else {}

    def _parse(self, source: Source, env: dict[str, str]) -> Map:
        """Parse a file and put values in. Raises Broken for what is no compose file."""
        found = [each for each in documents(source.data, source.path) if each is not None]
        if not found:
            return Map(source.path, 0)
        document = found[0]
        if not isinstance(document, Map):
            raise Broken(Where(source.path, 1), "a compose file is a mapping")
        for more in found[1:]:  # compose merges the documents of a file
            document = merged(document, more) if isinstance(more, Map) else document
        for node, key in interpolate.tree(document, env):
            self.reader.refuse(node.at(key), "a ${ that has no name or no end", hint="write $$ for a dollar")
        return document

    def _project(self, path: str, document: Map, env: dict[str, str], above: tuple[str, ...]) -> None:
        project = Project(path, document, env)
        self.projects.append(project)
        for name, node in self._services(document).items():
            if name.startswith("x-"):
                continue
            if isinstance(node, Map):
                whole = self._extended(path, document, name, without_resets(node), ())
                project.services[name] = Service(name, whole, path, project)
            elif node is not None:
                self.reader.refuse(_services_at(document, name), f"the service {name} must be a mapping")
        self._include(project, (*above, os.path.normpath(path)))

    def _services(self, document: Map) -> Map:
        services = document.get("services")
        if isinstance(services, Map):
            return services
        if services is not None:
            self.reader.expect(document, "services", "a mapping")
        if "services" in document or "include" in document or "version" in document:
            return Map(document.path, document.place)
        found = Map(document.path, document.place)  # version 1: every key of the top is a service
        for name, node in document.items():
            if name not in _TOP and isinstance(node, Map) and {"image", "build", "extends"} & node.keys():
                found[name] = node
                found.places[name] = document.places.get(name, document.place)
        return found

    def _include(self, project: Project, above: tuple[str, ...]) -> None:
        entries = project.document.get("include")
        if entries is None:
            return
        if not isinstance(entries, Seq):
            self.reader.expect(project.document, "include", "a list")
            return
        for index, item in enumerate(entries):
            paths = item.get("path") if isinstance(item, Map) else item
            files = [str(text(each)) for each in (paths if isinstance(paths, Seq) else [paths]) if text(each)]
            if files:
                self._included(project, files, entries.at(index), above)
            else:
                self.reader.refuse(entries.at(index), f"include[{index}] names no path")

    def _included(self, project: Project, files: list[str], where: Where, above: tuple[str, ...]) -> None:
        document: Map | None = None
        first = ""
        for name in files:
            path = self._path(project.path, name, where)
            if path is None:
                return
            if os.path.normpath(path) in above or len(above) > _DEEPEST:
                circle = os.path.normpath(path) in above
                why = "includes itself" if circle else f"is included more than {_DEEPEST} levels deep"
                self.reader.refuse(where, f"{name} {why}", hint="")
                return
            first = first or path
            more = self._file(path, where, {**self._env(path), **project.env})
            if more is None:
                return
            document = without_resets(more) if document is None else merged(document, more)
        if document is not None and all(each.path != first for each in self.projects):
            self._project(first, document, {**self._env(first), **project.env}, above)

    def _path(self, beside: str, name: str, where: Where) -> str | None:
        if "://" in name or name.startswith(("git@", "oci:")) or "$" in name or beside in {"-", walk.STDIN}:
            self.reader.refuse(where, f"{name} isn't read: it lies elsewhere", hint="audit it by itself")
            return None
        return os.path.normpath(os.path.join(os.path.dirname(beside), name))

    def _file(self, path: str, where: Where, env: dict[str, str]) -> Map | None:
        if path in self.known:
            return self.known[path]
        if len(self.known) == _MOST_FILES:
            self.reader.refuse(where, f"more than {_MOST_FILES} files belong to the project", hint="")
            return None
        try:
            found = walk.read(Entry(path, named=False))
            if isinstance(found, Broken):
                raise found
            if found is None or not found.whole:
                raise Broken(Where(path), "no file")
            document = self._parse(found, env)
        except Broken as broken:
            self.reader.refuse(where, f"{path} can't be read: {broken.text}", hint="")
            return None
        self.known[path] = document
        return document

    def _extended(self, path: str, document: Map, name: str, node: Map, above: tuple[tuple[str, str], ...]) -> Map:
        """Give a service with what it extends put under it."""
        asked = node.get("extends")
        if asked is None:
            return node
        where = node.at("extends")
        base_name = text(asked) if not isinstance(asked, Map) else self.reader.text(asked, "service")
        file = self.reader.text(asked, "file") if isinstance(asked, Map) else None
        here = (*above, (os.path.normpath(path), name))
        if not base_name:
            self.reader.refuse(where, "extends names no service")
            return node
        base_path = self._path(path, file, where) if file else path
        other = document if not file else self._file(base_path, where, self._env(path)) if base_path else None
        if other is None or base_path is None:
            return node
        if (os.path.normpath(base_path), base_name) in here or len(here) > _DEEPEST:
            chain = " → ".join([each for _, each in here] + [base_name])
            members = set(here)
            if not members & self.circled:  # each of a circle's services finds it; it is told once
                self.reader.refuse(where, f"services extend each other in a circle: {chain}")
            self.circled |= members
            return node
        base = self._services(other).get(base_name)
        if not isinstance(base, Map):
            self.reader.refuse(where, f"there is no service {base_name!r} to extend in {base_path}")
            return node
        return merged(self._extended(base_path, other, base_name, without_resets(base), here), node)


def _services_at(document: Map, name: str) -> Where:
    services = document.get("services")
    return services.at(name) if isinstance(services, Map) else document.at(name)
