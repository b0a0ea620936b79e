"""Attributes of the process as steps: names become the kernel's numbers, and a name that nobody knows is refused."""

from __future__ import annotations

from typing import Any

import pytest

from stockade.errors import StockadeError
from stockade.sandbox import plan_process, steps
from stockade.sandbox.oci import spec as oci
from stockade.sandbox.plan import Options, plan

SETS = oci.LinuxCapabilities()


def a_spec(*kinds: str, **process: Any) -> oci.Spec:
    maps = (oci.LinuxIDMapping(0, 100000, 65536),) if "user" in kinds else ()
    return oci.Spec(
        process=oci.Process(cwd="/", args=("/prog",), capabilities=SETS).replace(**process),
        root=oci.Root("/srv/root"),
        mounts=(oci.Mount("/proc", "proc", "proc"),),
        linux=oci.Linux(
            namespaces=tuple(oci.LinuxNamespace(kind) for kind in (*kinds, "mount", "pid")),
            uid_mappings=maps,
            gid_mappings=maps,
        ),
    )


@pytest.mark.parametrize(
    ("numbers", "mask"),
    [
        ("0", b"\1" + b"\0" * 7),
        ("0-3,8", b"\x0f\1" + b"\0" * 6),
        ("63", b"\0" * 7 + b"\x80"),
        ("64", b"\0" * 8 + b"\1" + b"\0" * 7),
        ("1, 2", b"\6" + b"\0" * 7),
    ],
)
def test_a_list_of_numbers_is_a_mask_in_words_of_eight_bytes(numbers: str, mask: bytes) -> None:
    assert plan_process.mask_of(numbers, "list") == mask


@pytest.mark.parametrize("numbers", ["", "a", "3-1", "-1", "1-", "65536", "0-99999999999", "²"])
def test_what_is_no_list_of_numbers_is_refused(numbers: str) -> None:
    with pytest.raises(StockadeError, match="list '"):
        plan_process.mask_of(numbers, "list")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/conf/eth0.1/rp_filter", "net/ipv4/conf/eth0.1/rp_filter"),
        ("net.ipv4.conf.eth0/1.rp_filter", "net/ipv4/conf/eth0.1/rp_filter"),
        ("single", "single"),
    ],
)
def test_the_first_separator_of_a_sysctl_decides_what_the_other_means(name: str, path: str) -> None:
    assert plan_process.sysctl_path(name) == path


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("scheduler", oci.Scheduler("SCHED_ISO"), "unknown scheduling policy SCHED_ISO"),
        ("scheduler", oci.Scheduler("SCHED_OTHER", flags=("X",)), "unknown flag of the scheduler X"),
        ("io_priority", oci.LinuxIOPriority("X"), "unknown class of I/O priority X"),
        ("io_priority", oci.LinuxIOPriority("IOPRIO_CLASS_BE", 8), "I/O priority 8 is not from 0 to 7"),
        ("rlimits", (oci.POSIXRlimit("RLIMIT_X", 1, 1),), "unknown resource limit"),
    ],
)
@pytest.mark.parametrize("kinds", [(), ("user",)])
def test_a_name_that_the_kernel_does_not_know_is_refused(
    field: str, value: object, message: str, kinds: tuple[str, ...]
) -> None:
    with pytest.raises(StockadeError, match=message):
        plan(a_spec(*kinds, **{field: value}), Options())


def test_what_only_the_host_may_raise_is_done_by_the_launcher() -> None:
    limit = oci.POSIXRlimit("RLIMIT_NOFILE", hard=9, soft=8)
    spec = a_spec("user", rlimits=(limit,), oom_score_adj=5, scheduler=oci.Scheduler("SCHED_IDLE"))

    parent = [type(step) for step in plan(spec, Options()).parent]

    assert parent[-3:] == [steps.OomScore, steps.RlimitRoom, steps.Scheduler]
    assert parent.index(steps.WriteMaps) < parent.index(steps.OomScore)


def test_the_launcher_does_it_to_itself_before_it_joins_a_user_namespace() -> None:
    spec = a_spec(oom_score_adj=5)
    joined = oci.LinuxNamespace("user", "/proc/1/ns/user")

    parent = plan(spec.replace(linux=spec.linux.replace(namespaces=(joined, *spec.linux.namespaces))), Options()).parent

    assert [type(step) for step in parent[:3]] == [steps.OomScore, steps.JoinFirst, steps.Clone]


def test_a_time_namespace_with_offsets_is_not_made_by_clone() -> None:
    spec = a_spec("time")
    offset = spec.replace(linux=spec.linux.replace(time_offsets={"boottime": oci.LinuxTimeOffset(5)}))

    assert [s.flags & 0x80 for s in plan(spec, Options()).parent if isinstance(s, steps.Clone)] == [0x80]
    assert [s.flags & 0x80 for s in plan(offset, Options()).parent if isinstance(s, steps.Clone)] == [0]
    assert [s.offsets for s in plan(offset, Options()).child if isinstance(s, steps.TimeOffsets)] == ["boottime 5 0\n"]


def test_the_hosts_procfs_is_open_only_where_it_is_needed_and_no_longer() -> None:
    spec = a_spec(apparmor_profile="box")
    names = [type(step) for step in plan(spec, Options()).child]

    assert names.index(steps.HostProc) < names.index(steps.Pivot) < names.index(steps.Label)
    assert names[names.index(steps.Label) + 1] is steps.Close
    assert steps.HostProc not in [type(step) for step in plan(a_spec(), Options()).child]


def test_a_hooks_filter_has_no_listener() -> None:
    hooks = oci.Hooks(start_container=(oci.Hook("/hook", timeout=3),))
    spec = a_spec().replace(hooks=hooks)

    made = plan(spec, Options(start_later=True, filter_program=b"\0" * 8, filter_flags=8 | 4))

    (hook,) = [step for step in made.child if isinstance(step, steps.Hook)]
    (seccomp,) = [step for step in made.child if isinstance(step, steps.Seccomp)]
    assert (hook.flags, seccomp.flags, hook.program, hook.timeout) == (4, 12, seccomp.program, 3)
    assert list(made.child).index(hook) < list(made.child).index(seccomp)
