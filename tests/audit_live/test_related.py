"""What shows only when targets are compared, and what a configuration declares of one."""

from __future__ import annotations

from stockade.audit import facts
from stockade.audit.facts import Target, Where
from stockade.audit.targets import declared, live, mounts
from stockade.audit.targets.controls import owner_of
from stockade.sandbox.linux import capabilities
from stockade.sandbox.linux.idmap import Mapping

HERE = Where("/proc/7/status")
EMPTY = mounts.view((), "/proc/7/mountinfo")


def mapped(name: str, owner: int, *extents: str) -> Target:
    maps = tuple([Mapping(*map(int, extent.split(":"))) for extent in extents])
    space = facts.UserNamespace(where=HERE, initial=False, uid_map=maps, gid_map=maps, owner_uid=owner)
    return Target(name, name, "container", (space,))


def shared(*targets: Target) -> set[tuple[str, str]]:
    return {(target.id, each.other) for target in live.related(targets) for each in target.all(facts.SharedIds)}


def test_host_ids_of_two_owners_that_overlap_are_told_to_both() -> None:
    first, second = mapped("a", 1000, "0:1000:1", "1:100000:65536"), mapped("b", 1001, "0:1001:1", "1:165535:65536")

    assert shared(first, second) == {("a", "b"), ("b", "a")}


def test_maps_that_only_touch_or_have_one_owner_are_no_overlap() -> None:
    assert shared(mapped("a", 1000, "1:100000:65536"), mapped("b", 1001, "1:165536:65536")) == set()
    assert shared(mapped("a", 1000, "0:100000:65536"), mapped("b", 1000, "0:100000:65536")) == set()


def test_a_namespace_of_two_targets_names_the_other_and_the_hosts_names_nobody() -> None:
    def target(name: str, inode: int, *, host: bool) -> Target:
        return Target(name, name, "container", (facts.Namespace(where=HERE, kind="net", host=host, inode=inode),))

    def others(*, host: bool) -> list[tuple[str, ...]]:
        both = [target("a", 5, host=host), target("b", 5, host=host)]
        return [each.all(facts.Namespace)[0].shared_with for each in live.related(both)]

    own, hosts = others(host=False), others(host=True)

    assert own == [("b",), ("a",)]
    assert hosts == [(), ()]


def test_the_owner_of_a_sysctl_is_the_namespace_that_its_handler_takes() -> None:
    owners = {
        "net/ipv4/ip_forward": "net", "kernel/shmmax": "ipc", "kernel/msgmnb": "ipc", "kernel/sem": "ipc",
        "fs/mqueue/msg_max": "ipc", "user/max_user_namespaces": "user", "kernel/hostname": "uts",
        "kernel/pid_max": "pid", "kernel/core_pattern": None, "kernel/sched_rt_period_us": None,
        "vm/panic_on_oom": None, "fs/suid_dumpable": None,
    }  # fmt: skip
    assert {name: owner_of(f"/proc/sys/{name}") for name in owners} == owners
    assert owner_of("/sys/kernel/uevent_helper") is None


def drift(spec: dict[str, object], *known: facts.Fact) -> dict[str, tuple[str, str]]:
    found = declared.compare(spec, "/b/config.json", known, EMPTY)
    return {
        each.subject: (each.declared, each.effective)
        for each in found
        if isinstance(each, facts.Declared) and each.declared != each.effective
    }


def test_more_than_was_declared_is_drift_and_less_is_not() -> None:
    spec: dict[str, object] = {
        "process": {"capabilities": {"bounding": ["CAP_KILL", "CAP_CHOWN"]}, "noNewPrivileges": True},
        "linux": {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}, "namespaces": [{"type": "network"}, {"type": "pid"}]},
    }
    less = facts.CapabilitySets(where=HERE, bounding=0, effective=0, inheritable=0, permitted=0, ambient=0)
    more = facts.CapabilitySets(
        where=HERE,
        bounding=capabilities.mask(["KILL", "SYS_ADMIN"]),
        effective=0,
        inheritable=0,
        permitted=0,
        ambient=0,
    )

    assert drift(spec, less, facts.NoNewPrivs(where=HERE, value=True)) == {}
    assert drift(
        spec,
        more,
        facts.NoNewPrivs(where=HERE, value=False),
        facts.SeccompState(where=HERE, mode="disabled"),
        facts.Namespace(where=HERE, kind="net", host=True),
        facts.Namespace(where=HERE, kind="pid", host=False),
    ) == {
        "capabilities.bounding": ("CAP_CHOWN CAP_KILL", "CAP_KILL CAP_SYS_ADMIN"),
        "noNewPrivileges": ("true", "false"),
        "seccomp": ("filter", "disabled"),
        "namespaces.net": ("own", "host"),
    }


def test_a_configuration_of_the_wrong_types_is_passed_over() -> None:
    spec: dict[str, object] = {
        "process": 5,
        "linux": {"maskedPaths": [1, None], "namespaces": {"type": []}, "seccomp": 1},
    }

    assert drift(spec, facts.NoNewPrivs(where=HERE, value=False), facts.SeccompState(where=HERE, mode="disabled")) == {}
