"""What a request says of privileges: the switch, capabilities, security options, device rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stockade.audit import facts
from stockade.audit.facts import Gap
from stockade.audit.static import building
from stockade.audit.static.docker import words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockade.audit.facts import Fact, Where
    from stockade.audit.static.docker.request import Request, Word

_NO = frozenset({"false", "0", "f", "no"})


def options(request: Request) -> Iterator[tuple[str, str, Where]]:
    """Give the security options as name, value and place; both `name=value` and the old `name:value` are taken."""
    for word in request.many.get("security-opt", ()):
        text = word.text.strip()
        equals, colon = text.find("="), text.find(":")
        # "label=type:spc_t" and "label:type:spc_t" alike: the first of the two separates
        first = min([at for at in (equals, colon) if at >= 0], default=len(text))
        yield text[:first].strip().lower(), text[first + 1 :].strip(), word.where


def confinement(request: Request) -> Iterator[Fact | Gap]:
    """Give capabilities, filter, modules, masks, devices, or in their place what `privileged` makes of them."""
    switch = request.switches.get("privileged")
    unknown = request.one.get("privileged")
    if unknown is not None:
        yield Gap(facts.Privileged, f"it depends on {unknown.text}", unknown.where)
    else:
        yield from building.privileged(request.at("privileged"), value=switch is not None and switch.value)
    given = tuple(options(request))
    if switch is None or not switch.value:
        yield from _capabilities(request)
        yield from _seccomp(request, given)
        yield from _apparmor(request, given)
        yield from _masks(request, given)
        rules = request.many.get("device-cgroup-rule", ())
        if rules:
            yield building.device_policy(rules[0].where, [word.text for word in rules])
    yield from _selinux(request, given)
    yield from _no_new_privs(request, given)
    written = request.texts("security-opt")
    if written:
        yield facts.SecurityOptions(where=request.at("security-opt"), values=written)
    else:
        yield building.unset(request.where, "security_options")


def _capabilities(request: Request) -> Iterator[Fact | Gap]:
    added = [name for word in request.many.get("cap-add", ()) for name in _names(word)]
    dropped = [name for word in request.many.get("cap-drop", ()) for name in _names(word)]
    for name in (*added, *dropped):
        if words.UNKNOWN.search(name):
            yield Gap(facts.CapabilityChange, f"capabilities depend on {name}", request.at("cap-add"))
    user = request.text("user").partition(":")[0].strip()
    root = None if not user else user in {"0", "root"} if user in {"0", "root"} or user.isdigit() else None
    yield from building.capabilities(
        request.at("cap-add"), added, dropped, engine=request.engine, root=root, drop_where=request.at("cap-drop")
    )
    if not added and not dropped:
        yield building.unset(request.where, "capabilities")


def _names(word: Word) -> list[str]:
    return [name for name in word.text.replace(",", " ").split() if name]


def _seccomp(request: Request, given: tuple[tuple[str, str, Where], ...]) -> Iterator[Fact | Gap]:
    found = [(value, where) for name, value, where in given if name == "seccomp"]
    if not found:
        # the engine's own filter, which docker and podman apply without being asked
        yield building.seccomp(request.where, "default")
        return
    value, where = found[-1]
    if words.UNKNOWN.search(value):
        yield Gap(facts.SeccompState, f"it depends on {value}", where)
        return
    yield building.seccomp(where, value)


def _apparmor(request: Request, given: tuple[tuple[str, str, Where], ...]) -> Iterator[Fact | Gap]:
    found = [(value, where) for name, value, where in given if name == "apparmor"]
    value, where = found[-1] if found else (None, request.where)
    if value is not None and words.UNKNOWN.search(value):
        yield Gap(facts.LsmLabel, f"it depends on {value}", where)
        return
    yield building.apparmor(where, value)


def _masks(request: Request, given: tuple[tuple[str, str, Where], ...]) -> Iterator[Fact | Gap]:
    opened: list[str] = []
    for name, value, where in given:
        if (name == "systempaths" and value.lower() == "unconfined") or (name == "unmask" and value.upper() == "ALL"):
            yield from building.masks(where, unmasked=True)
            return
        if name == "unmask":
            opened += [path for path in value.split(":") if path]
        if name == "writable-cgroups" and value.lower() not in _NO:
            yield facts.Mount(
                where=where, destination="/sys/fs/cgroup", fstype="cgroup2", host_path=None, writable=True,
                options=("rw",),
            )  # fmt: skip
    place = next((where for name, _, where in given if name == "unmask"), request.where)
    yield from building.masks(place, unmasked=opened)


def _selinux(request: Request, given: tuple[tuple[str, str, Where], ...]) -> Iterator[Fact | Gap]:
    parts: dict[str, str] = {}
    place = request.where
    for name, value, where in given:
        if name != "label":
            continue
        if value.lower() == "disable":
            yield building.selinux_disabled(where)
            return
        key, _, rest = value.partition(":")
        if key in {"user", "role", "type", "level"}:
            parts[key] = rest
            place = where if key == "type" or not parts else place if place != request.where else where
    if parts:
        yield building.selinux(
            place, user=parts.get("user", ""), role=parts.get("role", ""), type_=parts.get("type", ""),
            level=parts.get("level", ""),
        )  # fmt: skip
    else:
        yield building.unset(request.where, "selinux")


def _no_new_privs(request: Request, given: tuple[tuple[str, str, Where], ...]) -> Iterator[Fact | Gap]:
    found = [(value, where) for name, value, where in given if name == "no-new-privileges"]
    if not found:
        yield building.no_new_privs(request.at("security-opt"), value=False)
        yield building.unset(request.where, "no_new_privs")
        return
    value, where = found[-1]
    if words.UNKNOWN.search(value):
        yield Gap(facts.NoNewPrivs, f"it depends on {value}", where)
        return
    yield building.no_new_privs(where, value=value.lower() not in _NO)
