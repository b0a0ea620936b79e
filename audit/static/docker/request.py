"""A container as an engine like Docker or Podman is asked for it, whatever file does the asking."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stockade.audit.facts import Gap, Where


@dataclass(frozen=True, slots=True)
class Word:
    """A setting as text, and the place of the key or argument that decides it."""

    text: str
    where: Where


@dataclass(frozen=True, slots=True)
class Switch:
    """A setting that is on or off."""

    value: bool
    where: Where


@dataclass(frozen=True, slots=True)
class Mounted:
    """A mount: `kind` is "bind", "volume", "tmpfs", "image", "npipe" or "cluster"; `source` is "" for a nameless one.

    `device` and `fstype` are those of a volume whose driver mounts something of the host.
    """

    where: Where
    kind: str
    source: str
    destination: str
    writable: bool = True
    options: tuple[str, ...] = ()
    propagation: str | None = None
    subpath: str | None = None
    device: str = ""
    fstype: str = ""


@dataclass(frozen=True, slots=True)
class Published:
    """A port; the fields are those of facts.Port."""

    where: Where
    container_port: int | None
    host_port: int | None = None
    host_ip: str = ""
    protocol: str = "tcp"
    count: int = 1


@dataclass(frozen=True, slots=True)
class Passed:
    """A device that is passed on; `source` can be a CDI name such as "nvidia.com/gpu=all"."""

    where: Where
    source: str
    destination: str = ""
    access: str = "rwm"


@dataclass(frozen=True, slots=True)
class Set:
    """A variable of the environment; `value` None stands elsewhere, of which `source` tells (facts.Variable)."""

    where: Where
    name: str
    value: str | None
    source: str = ""


@dataclass(slots=True)
class Request:
    """All that is asked for. Settings go by the names of `docker run`'s options ("cap-add", "userns", "memory").

    `where` is the parent of all settings, where one that is absent would stand. `whole` is False for a part of a
    service that another file completes: then what it leaves out says nothing.
    """

    id: str
    name: str
    kind: str
    where: Where
    engine: str = "docker"
    switches: dict[str, Switch] = field(default_factory=dict)
    one: dict[str, Word] = field(default_factory=dict)
    many: dict[str, list[Word]] = field(default_factory=dict)
    mounts: list[Mounted] = field(default_factory=list)
    ports: list[Published] = field(default_factory=list)
    devices: list[Passed] = field(default_factory=list)
    variables: list[Set] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    image: Word | None = None
    local: bool = False
    health: Switch | None = None
    command: str = ""
    whole: bool = True
    rootless: bool | None = None

    def text(self, name: str) -> str:
        """Give a setting as text, "" where it is absent."""
        word = self.one.get(name)
        return word.text if word is not None else ""

    def at(self, name: str) -> Where:
        """Give the place of a setting, of the parent where it is absent."""
        if name in self.one:
            return self.one[name].where
        if name in self.switches:
            return self.switches[name].where
        return self.many[name][0].where if self.many.get(name) else self.where

    def texts(self, name: str) -> tuple[str, ...]:
        """Give the values of a setting that may be given several times."""
        return tuple([word.text for word in self.many.get(name, ())])
