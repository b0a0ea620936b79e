"""What a container's config.json declares, beside what the kernel has: a difference is drift.

Only what can be compared in the same words is. A program may give up more than was declared: that is no drift.
"""

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

from stockade.audit import facts
from stockade.audit.facts import Fact, Where
from stockade.audit.targets.mounts import View
from stockade.sandbox.linux import capabilities, namespaces
from stockade.sandbox.linux.mountinfo import covering

_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")


def compare(spec: Mapping[str, Any], path: str, known: Iterable[Fact], view: View) -> Iterator[Fact]:
    """Give `known` facts with what `spec` declares of masks, then what it declares of the rest.

    `spec` is the object of the config.json at `path`; parts that are not of the specification's types are passed over.
    """
    where = Where(path)
    process, linux = _object(spec.get("process")), _object(spec.get("linux"))
    masks = {
        **dict.fromkeys(_texts(linux.get("readonlyPaths")), "read-only"),
        **dict.fromkeys(_texts(linux.get("maskedPaths")), "masked"),
    }
    by_kind: dict[type[Fact], list[Fact]] = {}
    for fact in known:
        by_kind.setdefault(type(fact), []).append(fact)
        yield _mask(fact, masks) if isinstance(fact, facts.Mask) else fact
    seen = {fact.path for fact in by_kind.get(facts.Mask, ()) if isinstance(fact, facts.Mask)}
    yield from _other_masks(masks, seen, view)
    yield from _sets(_object(process.get("capabilities")), by_kind.get(facts.CapabilitySets, ()), where)
    yield from _switches(process, linux, by_kind, where)
    yield from _namespaces(linux, by_kind.get(facts.Namespace, ()), where)
    yield from _limits(_object(linux.get("resources")), by_kind.get(facts.CgroupLimit, ()), where)
    yield from _read_only(spec, by_kind.get(facts.Mount, ()), where)


def _mask(fact: facts.Mask, masks: Mapping[str, str]) -> facts.Mask:
    declared: Literal["masked", "read-only", "open"] = "open"
    if fact.path in masks:
        declared = "masked" if masks[fact.path] == "masked" else "read-only"
    return replace(fact, declared=declared)


def _other_masks(masks: Mapping[str, str], seen: set[str], view: View) -> Iterator[facts.Mask]:
    """Tell of declared paths that are not among those that every container is asked for."""
    for path, declared in masks.items():
        if path in seen or not path.startswith(("/proc/", "/sys/")):
            continue
        mount = covering(view.visible, path)
        # Runtimes pass over what doesn't exist, and only a mount of its own says that it does.
        if mount is not None and mount.mount_point == path:
            masked = mount.fstype not in {"proc", "sysfs"}
            state: Literal["masked", "read-only", "open"] = "read-only" if mount.read_only else "open"
            yield facts.Mask(
                where=view.where(mount),
                path=path,
                state="masked" if masked else state,
                declared="masked" if declared == "masked" else "read-only",
            )


def _sets(declared: Mapping[str, Any], sets: Iterable[Fact], where: Where) -> Iterator[facts.Declared]:
    for fact in sets:
        if not isinstance(fact, facts.CapabilitySets):
            continue
        for name in _SETS:
            wanted, has = _known(_texts(declared.get(name))), int(getattr(fact, name))
            # execve(2) gives root what bounding and inheritable allow, whatever the other sets were
            allowed = (
                wanted if name in {"bounding", "inheritable"} else wanted | _known(_texts(declared.get("bounding")))
            )
            if has & ~allowed:
                yield _declared(where, f"capabilities.{name}", _words(wanted), _words(has))
            else:
                yield _declared(where, f"capabilities.{name}", _words(wanted), _words(wanted))


def _switches(
    process: Mapping[str, Any], linux: Mapping[str, Any], by_kind: Mapping[type[Fact], list[Fact]], where: Where
) -> Iterator[facts.Declared]:
    for fact in by_kind.get(facts.NoNewPrivs, ()):
        if isinstance(fact, facts.NoNewPrivs) and process.get("noNewPrivileges") is True:
            yield _declared(where, "noNewPrivileges", "true", "true" if fact.value else "false")
    for fact in by_kind.get(facts.SeccompState, ()):
        if isinstance(fact, facts.SeccompState) and _object(linux.get("seccomp")):
            yield _declared(where, "seccomp", "filter", fact.mode)
    profile = process.get("apparmorProfile")
    for fact in by_kind.get(facts.LsmLabel, ()):
        if isinstance(fact, facts.LsmLabel) and fact.module == "apparmor" and isinstance(profile, str) and profile:
            yield _declared(where, "apparmorProfile", profile, fact.label.rpartition(" (")[0] or fact.label)


def _namespaces(linux: Mapping[str, Any], spaces: Iterable[Fact], where: Where) -> Iterator[facts.Declared]:
    listed = linux.get("namespaces")
    own = {
        namespaces.FROM_OCI.get(str(each.get("type")))
        for each in (listed if isinstance(listed, list) else ())
        if isinstance(each, dict) and not each.get("path")
    }
    for fact in spaces:
        if isinstance(fact, facts.Namespace) and fact.kind in own and fact.host is not None:
            yield _declared(where, f"namespaces.{fact.kind}", "own", "host" if fact.host else "own")


def _limits(resources: Mapping[str, Any], limits: Iterable[Fact], where: Where) -> Iterator[facts.Declared]:
    """Compare the limits of the cgroup. A group above may be tighter, so that less than was declared is no drift."""
    memory, pids, cpu = (_object(resources.get(name)) for name in ("memory", "pids", "cpu"))
    quota, period = _positive(cpu.get("quota")), _positive(cpu.get("period")) or 100_000
    wanted = {
        "memory": _positive(memory.get("limit")),
        "pids": _positive(pids.get("limit")),
        "cpu": quota * 1000 // period if quota else None,
    }
    for fact in limits:
        if isinstance(fact, facts.CgroupLimit) and (limit := wanted.get(fact.name)):
            # the kernel counts memory in pages, and rounds a share of a processor
            looser = fact.value is None or fact.value > limit + 4096
            effective = ("max" if fact.value is None else str(fact.value)) if looser else str(limit)
            yield _declared(where, f"resources.{fact.name}", str(limit), effective)


def _read_only(spec: Mapping[str, Any], mounts: Iterable[Fact], where: Where) -> Iterator[facts.Declared]:
    listed = spec.get("mounts")
    # of several mounts on one place the last is seen
    wanted = {"/": _object(spec.get("root")).get("readonly") is True}
    for each in listed if isinstance(listed, list) else ():
        # "cgroup" on v1 is a tmpfs with the hierarchies in it, and read-only concerns those (runc leaves the tmpfs so)
        if isinstance(each, dict) and isinstance(each.get("destination"), str) and each.get("type") != "cgroup":
            options = _texts(each.get("options"))
            wanted[posixpath.normpath(each["destination"])] = "ro" in options and "rw" not in options
    for fact in mounts:
        if isinstance(fact, facts.Mount) and wanted.get(fact.destination):
            writable = fact.writable and "ro" not in fact.super_options
            effective = "writable" if writable else "read-only"
            yield _declared(where, f"mounts.{fact.destination}", "read-only", effective)


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _declared(where: Where, subject: str, declared: str, effective: str) -> facts.Declared:
    return facts.Declared(where=where, subject=subject, declared=declared, effective=effective)


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _texts(value: Any) -> tuple[str, ...]:
    return tuple([each for each in value if isinstance(each, str)]) if isinstance(value, list) else ()


def _known(names: Iterable[str]) -> int:
    mask = 0
    for name in names:
        try:
            mask |= 1 << capabilities.number(name)
        except ValueError:
            continue  # a newer kernel's, which this one can't have
    return mask


def _words(mask: int) -> str:
    return " ".join(capabilities.names(mask)) or "none"
