"""What a Spec says about the process beside its ids, seen from inside: limits, scheduling, clocks, sysctls, namespaces.

The same plan serves `stockade run` and the OCI runtime. A container is launched here as directly as both do it.
"""

from __future__ import annotations

import contextlib
import os
import resource
from typing import TYPE_CHECKING

import pytest

from stockade.errors import StockadeError
from stockade.sandbox import inputs, launch, steps, verify
from stockade.sandbox.linux import calls, capabilities
from stockade.sandbox.oci import spec as oci
from stockade.sandbox.plan import Options, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

    from stockade.sandbox.plan import Plan

pytestmark = pytest.mark.kernel

NAMESPACES = ("mount", "pid", "network", "ipc", "uts")
PR_CAPBSET_DROP = 24
FIRST_ID, IDS = 400000, 65536


@pytest.fixture
def launcher() -> Iterator[launch.Launcher]:
    made = launch.Launcher()
    yield made
    made.close()


def a_spec(
    root: Path, script: str, *, new: tuple[str, ...] = NAMESPACES, user: bool = False, **process: Any
) -> oci.Spec:
    """Give a Spec that runs `script` in the busybox root; with `user` in a user namespace of 65536 ids."""
    maps = (oci.LinuxIDMapping(0, FIRST_ID, IDS),) if user else ()
    held = capabilities.names(capabilities.own().bounding)
    sets = oci.LinuxCapabilities(bounding=held, permitted=held, effective=held)
    return oci.Spec(
        process=oci.Process(cwd="/", args=("/bin/sh", "-c", script), capabilities=sets).replace(**process),
        root=oci.Root(str(root)),
        mounts=(oci.Mount("/proc", "proc", "proc"), oci.Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "mode=755"))),
        linux=oci.Linux(
            namespaces=tuple(oci.LinuxNamespace(kind) for kind in (*(("user",) if user else ()), *new)),
            uid_mappings=maps,
            gid_mappings=maps,
        ),
    )


def started(launcher: launch.Launcher, made: Plan) -> tuple[launch.Child, int]:
    """Launch; give the child and where its output is read."""
    reader, writer = os.pipe()
    null = os.open("/dev/null", os.O_RDONLY)
    given, opened = inputs.inputs(made, (null, writer, writer), None)
    try:
        return launch.launch(launcher, launch.encode(made), given), reader
    except BaseException:
        os.close(reader)
        raise
    finally:
        inputs.close([*opened, writer, null])


def output(launcher: launch.Launcher, spec: oci.Spec, **options: Any) -> list[str]:
    """Launch and give the lines that the program wrote."""
    child, reader = started(launcher, plan(spec, Options(privileged=True, undumpable=True, oci=True, **options)))
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child.pid, 0)
    os.close(child.pidfd)
    return text.split("\n")[:-1]


def with_linux(spec: oci.Spec, **changes: Any) -> oci.Spec:
    return spec.replace(linux=spec.linux.replace(**changes))


# ---- limits and priorities ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", [False, True])
def test_a_limit_is_what_was_asked_for(launcher: launch.Launcher, rootfs: Path, user: bool) -> None:  # noqa: FBT001
    limits = (oci.POSIXRlimit("RLIMIT_NOFILE", hard=321, soft=123), oci.POSIXRlimit("RLIMIT_CORE", hard=0, soft=0))
    spec = a_spec(rootfs, "ulimit -n; ulimit -Hn; ulimit -c", user=user, rlimits=limits)

    assert output(launcher, spec) == ["123", "321", "0"]


def test_a_program_without_limits_has_the_callers_soft_limit_of_files(launcher: launch.Launcher, rootfs: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    assert output(launcher, a_spec(rootfs, "ulimit -n; ulimit -Hn")) == [str(soft), str(hard)]


@pytest.mark.parametrize("user", [False, True])
def test_a_limit_that_is_so_already_needs_no_privilege(launcher: launch.Launcher, rootfs: Path, user: bool) -> None:  # noqa: FBT001
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spec = a_spec(rootfs, "ulimit -n", user=user, rlimits=(oci.POSIXRlimit("RLIMIT_NOFILE", hard=hard, soft=soft),))

    assert output(launcher, spec) == [str(soft)]


@pytest.mark.parametrize("user", [False, True])
def test_a_limit_that_cannot_be_had_is_named_with_value_and_remedy(
    rootfs: Path,
    forked: Callable[[Callable[[], Any]], Any],
    user: bool,  # noqa: FBT001 - a truth of the file
) -> None:
    def refused() -> StockadeError:
        calls.prctl(PR_CAPBSET_DROP, capabilities.number("CAP_SYS_RESOURCE"))  # gone for the launcher after its execve
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))
        made = launch.Launcher()
        limit = oci.POSIXRlimit("RLIMIT_NOFILE", hard=1024, soft=600)
        try:
            found = output(made, a_spec(rootfs, "ulimit -Hn", user=user, rlimits=(limit,)))
        except StockadeError as error:
            return error
        finally:
            made.close()
        return StockadeError(f"not refused: {found}")

    error = forked(refused)

    assert "nofile" in error.message
    assert "1024" in error.message
    assert "512" in error.hint
    assert "CAP_SYS_RESOURCE" in error.hint


@pytest.mark.parametrize("user", [False, True])
def test_oom_score_adj_is_what_was_asked_for(launcher: launch.Launcher, rootfs: Path, user: bool) -> None:  # noqa: FBT001
    spec = a_spec(rootfs, "cat /proc/self/oom_score_adj", user=user, oom_score_adj=345)

    assert output(launcher, spec) == ["345"]


def test_an_oom_score_that_is_so_already_needs_no_privilege(launcher: launch.Launcher, rootfs: Path) -> None:
    with open("/proc/self/oom_score_adj") as file:
        own = file.read().strip()

    spec = a_spec(rootfs, "cat /proc/self/oom_score_adj", user=True, oom_score_adj=int(own))

    assert output(launcher, spec) == [own]


def test_scheduling_policy_and_nice_value_are_what_was_asked_for(launcher: launch.Launcher, rootfs: Path) -> None:
    wanted = oci.Scheduler("SCHED_BATCH", nice=7, flags=("SCHED_FLAG_RESET_ON_FORK",))
    spec = a_spec(rootfs, "exec cat /proc/self/stat", scheduler=wanted)

    fields = output(launcher, spec)[0].rpartition(")")[2].split()

    assert fields[16] == "7"  # nice, proc(5)
    assert fields[38] == "3"  # SCHED_BATCH


@pytest.mark.parametrize(("policy", "number"), [("SCHED_FIFO", "1"), ("SCHED_DEADLINE", "6"), ("SCHED_IDLE", "5")])
def test_a_policy_of_the_privileged_is_set_in_a_user_namespace_too(
    launcher: launch.Launcher, rootfs: Path, policy: str, number: str
) -> None:
    wanted = oci.Scheduler(policy, priority=9 if number == "1" else 0)
    if policy == "SCHED_DEADLINE":
        wanted = wanted.replace(runtime=1_000_000, deadline=50_000_000, period=60_000_000)
    spec = a_spec(rootfs, "exec cat /proc/self/stat", user=True, scheduler=wanted)

    fields = output(launcher, spec)[0].rpartition(")")[2].split()

    assert (fields[37], fields[38]) == (str(wanted.priority), number)


def test_io_priority_is_what_was_asked_for(launcher: launch.Launcher, rootfs: Path) -> None:
    spec = a_spec(rootfs, "ionice -p $$", io_priority=oci.LinuxIOPriority("IOPRIO_CLASS_BE", 6))

    assert output(launcher, spec) == ["best-effort: prio 6"]


def test_a_32_bit_personality_is_seen_by_uname(launcher: launch.Launcher, rootfs: Path) -> None:
    spec = with_linux(a_spec(rootfs, "uname -m"), personality=oci.LinuxPersonality("LINUX32"))

    assert output(launcher, spec) == ["i686"]


def test_a_memory_policy_is_what_was_asked_for(launcher: launch.Launcher, rootfs: Path) -> None:
    policy = oci.LinuxMemoryPolicy("MPOL_BIND", "0", ("MPOL_F_STATIC_NODES",))
    spec = with_linux(a_spec(rootfs, "cat /proc/self/numa_maps | head -n 1 | cut -d ' ' -f 2"), memory_policy=policy)

    assert output(launcher, spec) == ["bind=static:0"]


def test_more_than_256_groups_are_joined(launcher: launch.Launcher, rootfs: Path) -> None:
    groups = tuple(range(1000, 1700))
    spec = a_spec(rootfs, "grep Groups: /proc/self/status", user=True)
    spec = spec.replace(process=spec.process.replace(user=oci.User(5, 6, additional_gids=groups)))  # type: ignore[union-attr]

    (line,) = output(launcher, spec)

    assert tuple(map(int, line.split()[1:])) == groups


def test_the_umask_is_what_was_asked_for(launcher: launch.Launcher, rootfs: Path) -> None:
    assert output(launcher, a_spec(rootfs, "umask", user=False).replace()) == ["0022"]
    spec = a_spec(rootfs, "umask")
    spec = spec.replace(process=spec.process.replace(user=oci.User(umask=0o077)))  # type: ignore[union-attr]
    assert output(launcher, spec) == ["0077"]


# ---- clocks, sysctls, labels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", [False, True])
def test_the_clocks_of_a_time_namespace_have_their_offsets(launcher: launch.Launcher, rootfs: Path, user: bool) -> None:  # noqa: FBT001
    spec = a_spec(
        rootfs, "cat /proc/self/timens_offsets; cut -d . -f 1 /proc/uptime", new=(*NAMESPACES, "time"), user=user
    )
    offsets = {"boottime": oci.LinuxTimeOffset(1_000_000_000, 5), "monotonic": oci.LinuxTimeOffset(-1, 0)}

    lines = output(launcher, with_linux(spec, time_offsets=offsets))

    assert [line.split() for line in lines[:2]] == [["monotonic", "-1", "0"], ["boottime", "1000000000", "5"]]
    assert int(lines[2]) > 1_000_000_000


def test_a_time_namespace_without_offsets_is_a_new_one(launcher: launch.Launcher, rootfs: Path) -> None:
    (inside,) = output(launcher, a_spec(rootfs, "readlink /proc/self/ns/time", new=(*NAMESPACES, "time")))

    assert inside != os.readlink("/proc/self/ns/time")


@pytest.mark.parametrize("user", [False, True])
def test_sysctls_are_written_in_the_containers_namespaces(launcher: launch.Launcher, rootfs: Path, user: bool) -> None:  # noqa: FBT001
    with open("/proc/sys/kernel/msgmax") as file:
        before = file.read()
    spec = a_spec(
        rootfs,
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax /proc/sys/net/ipv4/conf/lo/rp_filter",
        user=user,
    )
    wanted = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "12345", "net/ipv4/conf/lo/rp_filter": "2"}

    assert output(launcher, with_linux(spec, sysctl=wanted, readonly_paths=("/proc/sys",))) == ["1", "12345", "2"]
    with open("/proc/sys/kernel/msgmax") as file:
        assert file.read() == before


def test_a_sysctl_goes_to_the_kernel_whatever_the_root_brings_as_proc(launcher: launch.Launcher, rootfs: Path) -> None:
    bait = rootfs / "proc/sys/kernel/msgmax"
    bait.parent.mkdir(parents=True)
    bait.write_text("bait")
    spec = a_spec(rootfs, "cat /proc/sys/kernel/msgmax; mount -t proc proc /proc; cat /proc/sys/kernel/msgmax")
    spec = spec.replace(mounts=spec.mounts[1:])

    lines = output(launcher, with_linux(spec, sysctl={"kernel.msgmax": "777"}))

    assert lines == ["bait777"]


def test_sysctls_are_written_where_the_hosts_own_are_read_only(
    rootfs: Path, forked: Callable[[Callable[[], Any]], Any]
) -> None:
    def in_a_container() -> list[str]:
        from tests.kernel import arena

        arena.private_mounts()
        arena.mount("/proc/sys", "/proc/sys", "", 1 << 12)  # MS_BIND
        arena.mount("", "/proc/sys", "", 1 << 12 | 1 << 5 | 1)  # MS_REMOUNT, MS_RDONLY
        with contextlib.suppress(OSError), open("/proc/sys/kernel/msgmax", "w"):
            raise AssertionError("it is not read-only")
        made = launch.Launcher()
        try:
            spec = a_spec(rootfs, "cat /proc/sys/kernel/msgmax")
            return output(made, with_linux(spec, sysctl={"kernel.msgmax": "4321"}))
        finally:
            made.close()

    assert forked(in_a_container) == ["4321"]


def test_a_proc_that_is_no_procfs_is_refused(rootfs: Path, forked: Callable[[Callable[[], Any]], Any]) -> None:
    def with_a_fake() -> str:
        from tests.kernel import arena

        spec = with_linux(a_spec(rootfs, "true"), sysctl={"kernel.msgmax": "1"})
        arena.private_mounts()
        made = launch.Launcher()  # with the mounts of now
        arena.mount("none", "/proc", "tmpfs")
        try:
            output(made, spec)
        except StockadeError as error:
            return f"{error.message} {error.hint}"
        finally:
            made.close()
        return "accepted"

    assert "not a procfs" in forked(with_a_fake)


def test_the_label_is_written_by_the_process_itself_just_before_no_new_privs(
    launcher: launch.Launcher, rootfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No security module is here to take it: another file of the process shows that it is written, and by whom."""
    monkeypatch.setattr(
        "stockade.sandbox.plan_process.APPARMOR_FILES", ("self/attr/missing/exec", "self/coredump_filter")
    )
    monkeypatch.setattr("stockade.sandbox.plan_process.labels", _labels_of_numbers)
    spec = a_spec(rootfs, "cat /proc/self/coredump_filter; ls /proc/1/fd | wc -l", apparmor_profile="11")

    lines = output(launcher, spec)

    assert lines[0] == "00000011"


def _labels_of_numbers(process: oci.Process) -> Iterator[steps.Step]:
    from stockade.sandbox import plan_process

    yield steps.Label(plan_process.PROC, b"0x" + process.apparmor_profile.encode(), plan_process.APPARMOR_FILES)
    yield steps.Close(plan_process.PROC)


def test_a_profile_comes_before_no_new_privs_and_the_procfs_is_closed_after_it(rootfs: Path) -> None:
    spec = a_spec(rootfs, "true", apparmor_profile="box", selinux_label="u:r:t:s0", no_new_privileges=True)

    names = [str(step) for step in plan(spec, Options()).child]
    place = names.index("label the program: exec box")

    assert names[place + 1 : place + 4] == ["label the program: u:r:t:s0", "close [host /proc]", "set no_new_privs"]


def test_a_label_that_no_module_takes_ends_the_launch_with_a_reason(launcher: launch.Launcher, rootfs: Path) -> None:
    if os.path.exists("/sys/module/apparmor"):
        pytest.fail("this host has AppArmor: the test wants a profile that is not loaded")

    with pytest.raises(StockadeError, match="label the program: exec no-such-profile"):
        output(launcher, a_spec(rootfs, "true", apparmor_profile="no-such-profile"))


# ---- namespaces by path, and none ---------------------------------------------------------------------------------


@pytest.fixture
def other(launcher: launch.Launcher, rootfs: Path, request: pytest.FixtureRequest) -> Iterator[int]:
    """Give the pid of a container that stands still, in a user namespace if the test asks for one."""
    spec = a_spec(rootfs, "echo up; exec sleep 1000", user=getattr(request, "param", False), new=(*NAMESPACES, "time"))
    child, reader = started(launcher, plan(spec, Options(privileged=True, oci=True)))
    assert os.read(reader, 3) == b"up\n"
    yield child.pid
    launch.kill(child.pidfd)
    os.waitpid(child.pid, 0)
    os.close(child.pidfd)
    os.close(reader)


KINDS = {"user": "user", "mount": "mnt", "pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts", "time": "time"}


def joining(pid: int, root: Path, script: str, *kinds: str, **process: Any) -> oci.Spec:
    names = tuple(oci.LinuxNamespace(kind, f"/proc/{pid}/ns/{KINDS[kind]}") for kind in kinds)
    made = tuple(oci.LinuxNamespace(kind) for kind in NAMESPACES if kind not in kinds)
    return with_linux(a_spec(root, script, **process), namespaces=(*names, *made))


@pytest.mark.parametrize("other", [False, True], indirect=True)
@pytest.mark.parametrize("kind", ["network", "ipc", "uts", "pid", "time"])
def test_a_namespace_is_joined_by_path(own: launch.Launcher, rootfs: Path, other: int, kind: str) -> None:
    owner = ("user",) if os.stat(f"/proc/{other}/ns/user").st_ino != os.stat("/proc/self/ns/user").st_ino else ()
    spec = joining(other, rootfs, f"readlink /proc/self/ns/{KINDS[kind]}; id -u", *owner, kind)

    lines = output(own, spec)

    assert lines == [os.readlink(f"/proc/{other}/ns/{KINDS[kind]}"), "0"]


@pytest.fixture
def own() -> Iterator[launch.Launcher]:
    """Give another launcher: one that has joined a user or PID namespace serves one launch."""
    made = launch.Launcher()
    yield made
    made.close()


@pytest.mark.parametrize("other", [True], indirect=True)
def test_limits_of_a_process_that_joins_a_user_namespace_come_from_outside(
    own: launch.Launcher, rootfs: Path, other: int
) -> None:
    limit = oci.POSIXRlimit("RLIMIT_NOFILE", hard=99, soft=98)
    spec = joining(other, rootfs, "ulimit -n; cat /proc/self/oom_score_adj", "user", rlimits=(limit,), oom_score_adj=77)

    assert output(own, spec) == ["98", "77"]


def test_another_namespace_than_the_one_named_is_a_difference(rootfs: Path, other: int) -> None:
    spec = joining(other, rootfs, "true", "network")
    spec = with_linux(spec, namespaces=spec.linux.namespaces[:1])
    caps = capabilities.own()
    check = verify.Check(plan(spec, Options()).expected.replace(before=caps, after=caps))

    with pytest.raises(StockadeError, match="the network namespace should be"):
        check.before(os.getpid())


def test_what_was_opened_counts_and_not_where_the_path_leads_by_now(rootfs: Path, other: int) -> None:
    spec = with_linux(joining(other, rootfs, "true", "network"), namespaces=(oci.LinuxNamespace("network", "/gone"),))
    caps = capabilities.own()
    check = verify.Check(plan(spec, Options()).expected.replace(before=caps, after=caps))
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY)

    check.before(os.getpid(), [namespace])

    os.close(namespace)


def test_a_new_namespace_that_is_ours_is_a_difference(rootfs: Path) -> None:
    caps = capabilities.own()
    spec = with_linux(a_spec(rootfs, "true"), namespaces=(oci.LinuxNamespace("ipc"),))
    check = verify.Check(plan(spec, Options()).expected.replace(before=caps, after=caps))

    with pytest.raises(StockadeError, match="the ipc namespace should be new"):
        check.before(os.getpid())


@pytest.mark.parametrize("missing", [*NAMESPACES[1:], ()])
def test_a_container_shares_the_namespaces_that_its_spec_leaves_out(
    launcher: launch.Launcher, rootfs: Path, missing: str
) -> None:
    kinds = [kind for kind in ("pid", "network", "ipc", "uts") if kind == missing]
    spec = a_spec(rootfs, " ".join(["true;", *[f"readlink /proc/self/ns/{KINDS[kind]};" for kind in kinds]]))
    namespaces = tuple(n for n in spec.linux.namespaces if n.type != missing)

    lines = output(launcher, with_linux(spec, namespaces=namespaces))

    assert lines == [os.readlink(f"/proc/self/ns/{KINDS[kind]}") for kind in kinds]
