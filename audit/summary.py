"""What a target is and may do, in a few words: one column of the table of targets side by side."""

from collections.abc import Iterable

from stockade.audit import exposure, facts, pod_security
from stockade.audit.facts import Target
from stockade.audit.redact import clean
from stockade.audit.report import CapabilityNames, Evaluation, Severity, TargetSummary
from stockade.sandbox.linux import capabilities as caps
from stockade.sandbox.linux.idmap import Mapping

_UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def of(judged: Evaluation) -> TargetSummary:
    """Sum up a target and what was found."""
    target = judged.target
    identity = target.one(facts.Identity)
    userns = target.one(facts.UserNamespace)
    runtime = target.one(facts.Runtime)
    no_new_privs = target.one(facts.NoNewPrivs)
    return TargetSummary(
        id=target.id,
        name=clean(target.name),
        kind=target.kind,
        mode=clean(target.mode),
        command=clean(target.command),
        pids=target.pids,
        engine=clean(runtime.engine) if runtime and runtime.engine else None,
        uid=_effective(identity.uids if identity else None),
        gid=_effective(identity.gids if identity else None),
        host_uid=_effective(identity.host_uids if identity else None),
        host_gid=_effective(identity.host_gids if identity else None),
        uid_map=_map(userns.uid_map if userns else None),
        gid_map=_map(userns.gid_map if userns else None),
        capabilities=_capabilities(target),
        no_new_privs=no_new_privs.value if no_new_privs else None,
        seccomp=_seccomp(target),
        lsm=_lsm(target),
        namespaces=_namespaces(target),
        limits=_limits(target),
        host_mounts=_host_mounts(target),
        control_files=_control_files(target),
        dangerous_calls=_dangerous_calls(target),
        counts={
            each.label: sum(finding.severity is each for finding in judged.findings) for each in reversed(Severity)
        },
        paths=len(judged.paths),
        passed=judged.passed,
        unknown=len(judged.unknown),
        not_applicable=len(judged.not_applicable),
        exposure=exposure.of(judged),
        pod=pod_security.of(target),
    )


def _effective(ids: tuple[int, int, int, int] | None) -> int | None:
    return ids[1] if ids else None


def _map(extents: tuple[Mapping, ...] | None) -> tuple[str, ...] | None:
    return None if extents is None else tuple([str(extent) for extent in extents])


def _capabilities(target: Target) -> CapabilityNames | None:
    sets = target.one(facts.CapabilitySets)
    if sets is None:
        return None
    every = (1 << (min(max(sets.last, 0), 63) + 1)) - 1  # the kernel has 64 at most
    masks = (sets.bounding, sets.effective, sets.inheritable, sets.permitted, sets.ambient)
    return CapabilityNames(*[("ALL",) if mask & every == every else caps.names(mask) for mask in masks])


def _seccomp(target: Target) -> str | None:
    state, filter_ = target.one(facts.SeccompState), target.one(facts.SeccompFilter)
    if state is None:
        return None
    if state.mode != "filter":
        return {"disabled": "none", "strict": "strict"}[state.mode]
    words = []
    if state.profile:
        words.append(clean(state.profile))
    if state.filters and state.filters > 1:
        words.append(f"{state.filters} filters")
    if filter_:
        words.append(f"{len(filter_.allowed)} calls open, {len(filter_.conditional)} by argument")
    return "filter" + (f" ({', '.join(words)})" if words else "")


def _lsm(target: Target) -> str | None:
    labels = [f"{label.module}: {label.label}" for label in target.all(facts.LsmLabel)]
    if labels:
        return clean(", ".join(labels))
    return "none" if facts.LsmLabel in target.complete else None


def _namespaces(target: Target) -> dict[str, str]:
    return {namespace.kind: _sharing(namespace) for namespace in target.all(facts.Namespace)}


def _sharing(namespace: facts.Namespace) -> str:
    if namespace.host is None:
        return "unknown"
    return "host" if namespace.host else "shared" if namespace.shared_with else "own"


def _limits(target: Target) -> dict[str, str]:
    return {limit.name: _amount(limit) for limit in target.all(facts.CgroupLimit)}


def _amount(limit: facts.CgroupLimit) -> str:
    if limit.value is None:
        return "unlimited"
    if limit.name == "pids":
        return str(limit.value)
    if limit.name == "cpu":
        return f"{limit.value / 1000:g} CPU"
    return size(limit.value)


def size(number: int) -> str:
    """Write a number of bytes for people: 536870912 is "512 MiB"."""
    for unit, name in _UNITS:
        if number >= unit:
            return f"{number / unit:.4g} {name}"
    return f"{number} B"


def _host_mounts(target: Target) -> tuple[str, ...] | None:
    # imported here: rules.known reaches the package of rules, which is still being made when this module is imported
    from stockade.audit.rules.known import engine_made, host_files

    mounts = target.all(facts.Mount)
    if not mounts and not target.knows(facts.Mount):
        return None
    return tuple(
        [
            clean(f"{mount.host_path} → {mount.destination} ({'rw' if mount.writable else 'ro'})")
            for mount in host_files(mounts)
            if not engine_made(mount)
        ]
    )


def _control_files(target: Target) -> tuple[str, ...] | None:
    if not target.knows(facts.ControlFile):
        return None
    opened = [
        file.path
        for file in target.all(facts.ControlFile)
        if file.outcome == "opened" and file.access == "write" and not file.own_namespace
    ]
    return tuple([clean(path) for path in dict.fromkeys(opened)])


def _dangerous_calls(target: Target) -> tuple[str, ...] | None:
    from stockade.audit.rules.seccomp import DANGEROUS

    state, filter_ = target.one(facts.SeccompState), target.one(facts.SeccompFilter)
    if state and state.mode != "filter":
        return tuple(DANGEROUS) if state.mode == "disabled" else ()
    return None if filter_ is None else tuple([call for call in DANGEROUS if call in filter_.allowed])


def host(targets: Iterable[Target]) -> dict[str, str]:
    """Sum up the machine in rows of text, from the first target that knows it."""
    known = next((fact for target in targets if (fact := target.one(facts.Host))), None)
    if known is None:
        return {}
    rows = {
        "kernel": known.release,
        "security modules": None if known.lsms is None else ", ".join(known.lsms) or "none",
        "cgroups": known.cgroup,
        "lockdown": known.lockdown,
        "yama ptrace_scope": None if known.yama is None else str(known.yama),
        "modules": None if known.modules is None else _modules(known),
    }
    return {name: clean(value) for name, value in rows.items() if value is not None}


def _modules(known: facts.Host) -> str:
    if not known.modules:
        return "not supported"
    return "disabled" if known.modules_disabled else "loadable"
