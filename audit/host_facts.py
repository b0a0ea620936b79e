"""What the host offers to whoever shares something with it. `audit/facts.py` gives these kinds on with all others."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from stockade.audit.fact import Fact


@dataclass(frozen=True, slots=True)
class HostService(Fact):
    """What listens for the host alone: an abstract Unix socket or a loopback port; `owner` is its host uid."""

    many: ClassVar[bool] = True

    name: str
    kind: Literal["abstract", "loopback"]
    owner: int | None = None


@dataclass(frozen=True, slots=True)
class HostSetting(Fact):
    """A setting of the kernel, in its own words: "kernel.dmesg_restrict", "cpu.meltdown". None: it has no such knob."""

    many: ClassVar[bool] = True

    name: str
    value: str | None


@dataclass(frozen=True, slots=True)
class SubordinateIds(Fact):
    """A row of /etc/subuid or /etc/subgid; `accounts` are the host's own users or groups with an id in it."""

    many: ClassVar[bool] = True

    user: str
    kind: Literal["uid", "gid"]
    first: int
    count: int
    accounts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DaemonSetting(Fact):
    """A setting of an engine, () where it is left to the engine's default. `rootless`: a user runs it as such.

    `name` is daemon.json's for Docker, "section.key" for the others. `where` is the place that decides.
    """

    many: ClassVar[bool] = True

    name: str
    engine: Literal["docker", "containerd", "podman"]
    values: tuple[str, ...]
    rootless: bool = False


@dataclass(frozen=True, slots=True)
class DaemonListener(Fact):
    """Where an engine takes orders: a tcp address, or a Unix socket with its mode, owner and group."""

    many: ClassVar[bool] = True

    address: str
    engine: str
    tls: Literal["verified", "encrypted", "none"] | None = None
    mode: int | None = None
    owner: int | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class EngineMember(Fact):
    """A user who may use an engine's socket by being in its group."""

    many: ClassVar[bool] = True

    user: str
    group: str
    socket: str


@dataclass(frozen=True, slots=True)
class HostFile(Fact):
    """A file that decides about an engine. `key`: it holds a private key."""

    many: ClassVar[bool] = True

    path: str
    mode: int
    owner: int
    group: int
    key: bool = False


@dataclass(frozen=True, slots=True)
class InstalledVersion(Fact):
    """The version of a program as it says itself or as its package does.

    `package` is the distribution's version of the package, `fixed` the CVE numbers that its changelog names.
    """

    many: ClassVar[bool] = True

    name: str
    version: str
    package: str | None = None
    fixed: tuple[str, ...] = ()
