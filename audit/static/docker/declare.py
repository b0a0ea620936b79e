"""From a request to its target: the facts, with what the engine does where nothing is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stockade.audit import facts
from stockade.audit.facts import Gap, Target
from stockade.audit.rules.known import normal
from stockade.audit.static import building
from stockade.audit.static.docker import words
from stockade.audit.static.docker.confinement import confinement
from stockade.audit.static.docker.joined import namespaces

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from stockade.audit.facts import Fact, LimitName
    from stockade.audit.static.docker.request import Mounted, Request, Word

#: kinds of many facts that a request tells all of
_COMPLETE = frozenset(
    {
        facts.Namespace, facts.Mount, facts.EngineSocket, facts.Mask, facts.Variable, facts.Port, facts.SysctlSetting,
        facts.Unset, facts.DeviceNode, facts.CgroupLimit, facts.SharedVolume,
    }
)  # fmt: skip
#: containers.conf(5): pids_limit
_PODMANS_PIDS = 2048


def target(request: Request) -> Target:
    """Give the target of a request."""
    found = [*_all(request)]
    gaps = [*request.gaps, *(each for each in found if isinstance(each, Gap))]
    stated = [each for each in found if not isinstance(each, Gap)]
    if not request.whole:
        stated = [each for each in stated if each.where != request.where]
    partial = {gap.kind for gap in gaps if gap.applicable}
    return Target(
        id=request.id,
        name=request.name,
        kind=request.kind,
        facts=tuple(stated),
        gaps=tuple(gaps),
        complete=_COMPLETE - partial if request.whole else frozenset(),
        command=request.command,
    )


def _all(request: Request) -> Iterator[Fact | Gap]:
    yield from confinement(request)
    yield from namespaces(request)
    yield from _identity(request)
    yield from _files(request)
    yield from _limits(request)
    yield from _ulimits(request)
    yield from _offered(request)
    yield from _life(request)


def _identity(request: Request) -> Iterator[Fact | Gap]:
    user, where = request.text("user"), request.at("user")
    if words.UNKNOWN.search(user):
        yield Gap(facts.Identity, f"the user depends on {user}", where)
        return
    yield from building.identity(where, user or None, None, request.texts("group-add"))


def _files(request: Request) -> Iterator[Fact | Gap]:
    root = request.switches.get("read-only")
    yield facts.ReadOnlyRoot(where=request.at("read-only"), value=root is not None and root.value)
    if root is None:
        yield building.unset(request.where, "read_only_root")
    for mount in request.mounts:
        yield from _mount(mount)
    for word in request.many.get("tmpfs", ()):
        destination, _, options = word.text.partition(":")
        listed = tuple([each for each in options.split(",") if each])
        yield facts.Mount(
            where=word.where, destination=destination, fstype="tmpfs", host_path=None, writable="ro" not in listed,
            options=listed, super_options=listed,
        )  # fmt: skip
    for passed in request.devices:
        if words.is_cdi(passed.source):
            # what the name stands for lies in /etc/cdi; those in use are GPUs and other accelerators
            name = f"/dev/{passed.source.partition('=')[0]}"
            yield (
                replace(building.device(passed.where, "/dev/nvidia0"), path=name)
                if "gpu" in passed.source
                else (building.device(passed.where, name))
            )
        else:
            yield building.device(passed.where, passed.source, passed.destination or None, passed.access)


def _mount(mount: Mounted) -> Iterator[Fact | Gap]:
    host_path = mount.source if mount.kind == "bind" else mount.device if mount.fstype == "bind" else ""
    if host_path:
        if words.UNKNOWN.match(host_path):
            yield Gap(facts.Mount, f"what is mounted at {mount.destination} depends on {host_path}", mount.where)
        yield from building.bind(
            mount.where,
            mount.destination,
            host_path,
            writable=mount.writable,
            options=mount.options,
            propagation=mount.propagation,
            subpath=mount.subpath,
        )
        return
    if mount.kind == "npipe":
        engine = "docker" if "docker_engine" in mount.source else "containerd" if "containerd" in mount.source else ""
        if engine:
            yield facts.EngineSocket(where=mount.where, path=mount.destination, engine=engine, host_path=mount.source)
        return
    listed = mount.options or ("rw" if mount.writable else "ro",)
    yield facts.Mount(
        where=mount.where,
        destination=mount.destination,
        fstype="tmpfs" if mount.kind == "tmpfs" else mount.fstype or None,
        host_path=None,
        writable=mount.writable,
        options=listed,
        super_options=listed if mount.kind == "tmpfs" else (),
        source=mount.device or mount.source or None,
        subpath=mount.subpath,
    )
    if normal(mount.device).startswith("/dev/"):
        yield building.device(mount.where, mount.device)


def _limits(request: Request) -> Iterator[Fact | Gap]:
    memory = yield from _size(request, "memory")
    swap = request.one.get("memory-swap")
    if swap is not None or memory is not None:
        asked = words.size(swap.text) if swap is not None else None
        # moby/daemon: without one swap is as large as memory; 0 is as good as none
        unlimited = swap is not None and swap.text.strip() == "-1"
        double = memory * 2 if memory is not None else None
        value = None if unlimited else asked if asked and asked > 0 else double
        yield building.limit(request.at("memory-swap" if swap is not None else "memory"), "swap", value)
    yield from _pids(request)
    yield from _cpu(request)


def _size(request: Request, name: LimitName) -> Generator[Fact | Gap, None, int | None]:
    word = request.one.get(name)
    if word is not None and words.UNKNOWN.search(word.text):
        yield Gap(facts.CgroupLimit, f"{name} depends on {word.text}", word.where)
        return None
    value = words.size(word.text) if word is not None else None
    value = None if value is None or value < 0 else value
    yield building.limit(request.at(name), name, value)
    if value is None:
        yield building.unset(request.at(name), name)
    return value


def _pids(request: Request) -> Iterator[Fact | Gap]:
    word, where = request.one.get("pids-limit"), request.at("pids-limit")
    if word is None and request.engine == "podman":
        yield building.limit(where, "pids", _PODMANS_PIDS)
        return
    if word is not None and words.UNKNOWN.search(word.text):
        yield Gap(facts.CgroupLimit, f"pids depends on {word.text}", where)
        return
    number = _number(word)
    value = int(number) if number is not None and number > 0 else None
    yield building.limit(where, "pids", value)
    if value is None:
        yield building.unset(where, "pids")


def _cpu(request: Request) -> Iterator[Fact | Gap]:
    name = "cpus" if "cpus" in request.one else "cpu-quota"
    word, where = request.one.get(name), request.at(name)
    if word is not None and words.UNKNOWN.search(word.text):
        yield Gap(facts.CgroupLimit, f"cpu depends on {word.text}", where)
        return
    number = _number(word)
    if number is not None and name == "cpu-quota":
        number = number / (_number(request.one.get("cpu-period")) or 100_000)
    value = int(number * 1000) if number is not None and number > 0 else None
    yield building.limit(where, "cpu", value)
    if value is None:
        yield building.unset(where, "cpu")


def _number(word: Word | None) -> float | None:
    return words.number(word.text) if word is not None else None


def _ulimits(request: Request) -> Iterator[Fact | Gap]:
    for word in request.many.get("ulimit", ()):
        name, _, value = word.text.partition("=")
        soft, _, hard = value.partition(":")
        numbers = [None if each in {"-1", "unlimited"} else each for each in (soft, hard or soft)]
        if all(each is None or each.isdigit() for each in numbers):
            low, high = [None if each is None else int(each) for each in numbers]
            yield facts.ResourceLimit(where=word.where, name=name.strip(), soft=low, hard=high)
    score = _number(request.one.get("oom-score-adj"))
    killer = request.switches.get("oom-kill-disable")
    if score is not None:
        yield facts.OomScoreAdj(where=request.at("oom-score-adj"), value=int(score))
    elif killer is not None and killer.value:
        # the switch of cgroup v1: as good as a score of which the kernel says "never"
        yield facts.OomScoreAdj(where=killer.where, value=-1000)
    parent = request.one.get("cgroup-parent")
    if parent is not None and parent.text:
        yield facts.CgroupParent(where=parent.where, path=parent.text)


def _offered(request: Request) -> Iterator[Fact | Gap]:
    if request.image is not None:
        yield building.image(request.image.where, request.image.text, local=request.local)
    for port in request.ports:
        yield building.port(
            port.where, port.container_port, host_port=port.host_port, host_ip=port.host_ip, protocol=port.protocol,
            count=port.count,
        )  # fmt: skip
    for variable in request.variables:
        yield building.variable(variable.where, variable.name, variable.value, variable.source)
    for word in request.many.get("sysctl", ()):
        name, _, value = word.text.partition("=")
        yield building.sysctl(word.where, name, value)


def _life(request: Request) -> Iterator[Fact | Gap]:
    if request.health is not None:
        yield facts.HealthCheck(where=request.health.where, present=request.health.value)
    else:
        yield building.unset(request.where, "healthcheck")
    word = request.one.get("restart")
    if word is None:
        yield building.unset(request.where, "restart")
        return
    if words.UNKNOWN.search(word.text):
        yield Gap(facts.RestartPolicy, f"it depends on {word.text}", word.where)
        return
    policy, _, limit = word.text.partition(":")
    number = int(limit) if limit.isdigit() else None
    yield facts.RestartPolicy(where=word.where, value=policy.strip() or "no", limit=number or None)
