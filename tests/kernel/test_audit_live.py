"""The live collector against real processes: what it says is compared with what the kernel lets them do."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from stockade.audit import facts, probe
from stockade.audit.targets import controls, live, own
from stockade.audit.targets import host as hosts
from stockade.audit.targets.shared import Options
from stockade.sandbox.linux import bpf, calls, capabilities, process, ptrace
from stockade.sandbox.linux.seccomp import RET_ALLOW, RET_ERRNO
from stockade.sandbox.linux.syscalls import I386, X86_64, numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from stockade.audit.facts import Target

pytestmark = pytest.mark.kernel

CORE = "/proc/sys/kernel/core_pattern"
_SPACES = calls.CLONE_NEWUSER | calls.CLONE_NEWNS | calls.CLONE_NEWNET | calls.CLONE_NEWIPC | calls.CLONE_NEWUTS


@contextmanager
def running(setup: Callable[[], object]) -> Generator[int]:
    """Fork a process that does `setup` and sleeps; give its pid once it is ready."""
    reader, writer = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            setup()
            os.write(writer, b"ready")
            os.close(writer)
            while os.getppid() == parent:
                time.sleep(0.1)
        except BaseException as error:  # noqa: BLE001 - told by the parent
            os.write(writer, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    told = os.read(reader, 4096).decode()
    os.close(reader)
    try:
        assert told == "ready", told
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def audited(pid: int, **options: bool) -> Target:
    (target,) = live.audit_targets([f"pid:{pid}"], Options(**options)).targets
    return target


def control(target: Target, path: str) -> facts.ControlFile:
    (found,) = [each for each in target.all(facts.ControlFile) if each.path == path and each.access == "write"]
    return found


def opened(target: Target) -> set[str]:
    return {each.path for each in target.all(facts.ControlFile) if each.outcome == "opened" and each.access == "write"}


def mapped(first: int, spaces: int = _SPACES) -> Callable[[], None]:
    """Give a set-up that unshares and maps id 0 to `first` on the host."""

    def setup() -> None:
        # The maps are written by a child that stays outside: mapping other ids needs privilege in the parent namespace.
        inside, outside = os.pipe(), os.pipe()
        me = os.getpid()
        if os.fork() == 0:
            os.read(inside[0], 1)
            for kind in ("uid", "gid"):
                with open(f"/proc/{me}/{kind}_map", "w") as file:
                    file.write(f"0 {first} 65536" if first else "0 0 1")
            os.write(outside[1], b"x")
            os._exit(0)
        calls.unshare(spaces)
        os.write(inside[1], b"x")
        os.read(outside[0], 1)
        os.wait()
        os.setresgid(0, 0, 0)
        os.setgroups([])
        os.setresuid(0, 0, 0)
        for descriptor in (*inside, *outside):
            os.close(descriptor)

    return setup


def bind(source: str, target: str, flags: int = 0) -> None:
    calls.mount(source, target, None, calls.MS_BIND | calls.MS_REC)
    if flags:
        calls.mount(None, target, None, calls.MS_BIND | calls.MS_REMOUNT | flags)


def private() -> None:
    calls.unshare(calls.CLONE_NEWNS)
    calls.mount(None, "/", None, calls.MS_REC | calls.MS_PRIVATE)


# --- control files, with exactly the target's credentials


def test_a_user_namespace_that_maps_0_to_0_opens_core_pattern() -> None:
    with running(mapped(0)) as pid:
        target = audited(pid)

    space = target.one(facts.UserNamespace)
    assert space is not None
    assert not space.initial
    assert [str(each) for each in space.uid_map or ()] == ["0:0:1"]
    assert control(target, CORE).outcome == "opened"
    assert not control(target, CORE).own_namespace


def test_a_root_that_is_mapped_to_an_unprivileged_id_is_refused_core_pattern() -> None:
    with running(mapped(100000)) as pid:
        target = audited(pid)

    who = target.one(facts.Identity)
    assert who is not None
    assert (who.uids, who.host_uids) == ((0, 0, 0, 0), (100000,) * 4)
    assert (control(target, CORE).outcome, control(target, CORE).error) == ("refused", "EACCES")
    assert {path for path in opened(target) if not path.startswith("/proc/sys/")} == set()


def test_what_opens_of_its_own_namespaces_is_marked_as_its_own() -> None:
    with running(mapped(0)) as pid:
        found = [
            each for each in audited(pid).all(facts.ControlFile) if each.outcome == "opened" and each.access == "write"
        ]

    own = {each.path for each in found if each.own_namespace}
    assert {"/proc/sys/kernel/sem", "/proc/sys/kernel/shmmax"} <= own
    assert any(path.startswith("/proc/sys/net/") for path in own)
    assert own.isdisjoint({CORE, "/proc/sys/vm/panic_on_oom", "/proc/sys/fs/suid_dumpable"})


def test_what_the_sweep_leaves_out_would_not_open_either(forked: Callable[..., Any]) -> None:
    """A root that is mapped to another id opens no file of /proc/sys but those of its own namespaces: all are tried."""

    def inside() -> list[str]:
        names = [name for name in hosts.probe().sysctls if controls.owner_of(f"/proc/sys/{name}") is None]
        mapped(100000)()
        return [name for name in names if os.access(f"/proc/sys/{name}", os.W_OK, effective_ids=True)]

    assert forked(inside) == []


def test_uid_0_without_any_capability_still_opens_core_pattern() -> None:
    def setup() -> None:
        calls.prctl(38, 1)  # PR_SET_NO_NEW_PRIVS
        calls.capset(0, 0, 0)

    with running(setup) as pid:
        target = audited(pid)

    sets, locked = target.one(facts.CapabilitySets), target.one(facts.NoNewPrivs)
    assert sets is not None
    assert (sets.effective, sets.permitted) == (0, 0)
    assert locked is not None
    assert locked.value
    assert control(target, CORE).outcome == "opened"
    # Without CAP_SYS_ADMIN the cgroup and other files of the host are root's all the same; the sweep finds the rest.
    assert "/proc/sys/vm/panic_on_oom" in opened(target)
    assert len([path for path in opened(target) if path.startswith("/proc/sys/kernel/")]) > 30


def test_an_ordinary_user_in_the_hosts_namespaces_opens_nothing_of_the_kernels() -> None:
    def setup() -> None:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)

    with running(setup) as pid:
        target = audited(pid)

    assert control(target, CORE).outcome == "refused"
    everyones = {path for path in opened(target) if not os.stat(path).st_mode & stat.S_IWOTH}
    assert everyones == set()


def test_a_supplementary_group_is_taken_on_too() -> None:
    usable = []
    for groups in ([], [4242]):

        def setup(groups: list[int] = groups) -> None:
            private()
            calls.mount("dev", "/dev", "tmpfs", 0, "mode=755")
            os.mknod("/dev/disk", stat.S_IFBLK | 0o640, os.makedev(7, 0))
            os.chown("/dev/disk", 0, 4242)
            os.setgroups(groups)
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)

        with running(setup) as pid:
            (node,) = audited(pid).all(facts.DeviceNode)
        usable.append(node.usable)

    assert usable == [False, True]


def test_a_read_only_proc_sys_refuses_everything_below() -> None:
    def setup() -> None:
        private()
        bind("/proc/sys", "/proc/sys", calls.MS_RDONLY)

    with running(setup) as pid:
        target = audited(pid)

    assert control(target, CORE).error == "EROFS"
    assert [path for path in opened(target) if path.startswith("/proc/sys/")] == []
    (mask,) = [mask for mask in target.all(facts.Mask) if mask.path == "/proc/sys"]
    assert mask.state == "read-only"


def test_a_writable_hole_in_a_read_only_proc_sys_is_found() -> None:
    def setup() -> None:
        private()
        bind("/proc/sys", "/proc/sys", calls.MS_RDONLY)
        bind("/proc/sys/vm", "/proc/sys/vm")  # takes over the flag of the mount it is made from

    def hole() -> None:
        private()
        bind("/proc/sys", "/tmp", 0)
        bind("/proc/sys", "/proc/sys", calls.MS_RDONLY)
        bind("/tmp/vm", "/proc/sys/vm")

    with running(setup) as shut, running(hole) as open_:
        closed, found = audited(shut), audited(open_)

    assert [path for path in opened(closed) if path.startswith("/proc/sys/")] == []
    assert "/proc/sys/vm/panic_on_oom" in opened(found)
    assert CORE not in opened(found)


@pytest.mark.parametrize("kind", ["fifo", "null", "file", "socket"])
def test_what_a_hostile_container_plants_over_a_control_file_is_not_opened(kind: str, public_tmp: Path) -> None:
    planted = public_tmp / "planted"
    read_end = -1
    if kind == "fifo":
        os.mkfifo(planted)
        # with a reader an open for writing would succeed at once
        read_end = os.open(planted, os.O_RDONLY | os.O_NONBLOCK)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(planted))
    elif kind == "file":
        planted.touch()

    def setup() -> None:
        private()
        bind("/dev/null" if kind == "null" else str(planted), CORE)

    began = time.monotonic()
    with running(setup) as pid:
        target = audited(pid)

    assert (control(target, CORE).outcome, control(target, CORE).error) == ("refused", "EXDEV")
    assert control(target, "/proc/sys/vm/panic_on_oom").outcome == "opened"
    assert time.monotonic() - began < 1.5
    if read_end >= 0:
        os.close(read_end)


def test_symbolic_links_of_a_hostile_container_are_not_followed(public_tmp: Path) -> None:
    (public_tmp / "proc").mkdir()
    (public_tmp / "proc/sys").symlink_to("/elsewhere")
    (public_tmp / "elsewhere/kernel").mkdir(parents=True)
    (public_tmp / "elsewhere/kernel/core_pattern").touch()

    with running(lambda: os.chroot(public_tmp)) as pid:
        target = audited(pid)

    assert control(target, CORE).outcome != "opened"
    assert opened(target) == set()


def test_a_container_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "TIMEOUT", 0.5)

    def setup() -> None:
        private()
        fuse = os.open("/dev/fuse", os.O_RDWR)  # a server that reads no request: whoever looks up a name there waits
        calls.mount("hang", "/dev", "fuse", 0, f"fd={fuse},rootmode=40000,user_id=0,group_id=0,allow_other")

    began = time.monotonic()
    with running(setup) as pid:
        target = audited(pid)

    assert time.monotonic() - began < 3
    gap = target.gap(facts.ControlFile)
    assert gap is not None
    assert "did not answer" in gap.reason
    assert not target.knows(facts.ControlFile)
    assert target.one(facts.CapabilitySets) is not None


def test_the_probe_changes_no_control_file() -> None:
    names = [CORE, "/proc/sys/kernel/poweroff_cmd", "/proc/sys/vm/panic_on_oom", "/proc/sys/fs/suid_dumpable"]

    def content() -> list[str]:
        texts = []
        for name in names:
            with open(name) as file:
                texts.append(file.read())
        return texts

    before = content()
    with running(lambda: None) as pid:
        assert set(names) <= opened(audited(pid))
    assert content() == before


# --- identity, sets, namespaces


def test_five_sets_and_who_owns_each_namespace() -> None:
    raw = 1 << capabilities.number("NET_RAW")

    def setup() -> None:
        calls.unshare(calls.CLONE_NEWNET | calls.CLONE_NEWNS)
        calls.prctl(24, capabilities.number("SYS_MODULE"))  # PR_CAPBSET_DROP
        calls.capset(raw, raw, raw)
        calls.cap_ambient(2, capabilities.number("NET_RAW"))  # PR_CAP_AMBIENT_RAISE

    with running(setup) as pid:
        target = audited(pid)

    sets = target.one(facts.CapabilitySets)
    assert sets is not None
    assert [sets.effective, sets.permitted, sets.inheritable, sets.ambient] == [raw] * 4
    assert not sets.bounding >> capabilities.number("SYS_MODULE") & 1
    spaces = {space.kind: space for space in target.all(facts.Namespace)}
    assert {kind for kind, space in spaces.items() if space.host is False} == {"net", "mnt"}
    assert {space.owner_initial for space in spaces.values()} == {True}


def test_a_remapped_process_in_the_hosts_network_is_told_from_one_in_its_own() -> None:
    both = {}
    for name, spaces in (("host", calls.CLONE_NEWUSER | calls.CLONE_NEWNS), ("own", _SPACES)):
        with running(mapped(100000, spaces)) as pid:
            both[name] = {space.kind: space for space in audited(pid).all(facts.Namespace)}["net"]

    assert (both["host"].host, both["host"].owner_initial) == (True, True)
    assert (both["own"].host, both["own"].owner_initial) == (False, False)


def test_a_later_process_with_more_than_the_first_is_listed() -> None:
    def setup() -> None:
        calls.unshare(calls.CLONE_NEWPID | calls.CLONE_NEWNS)
        first = os.fork()
        if first == 0:
            calls.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: the namespace ends with its init
            if os.fork() == 0:
                time.sleep(60)
            calls.prctl(38, 1)
            calls.capset(0, 0, 0)
            time.sleep(60)
        time.sleep(0.2)

    with running(setup) as pid, open(f"/proc/{pid}/task/{pid}/children") as file:
        target = audited(int(file.read().split()[0]))

    (other,) = target.all(facts.Process)
    assert other.capabilities
    assert other.no_new_privs is False
    assert len(target.pids) == 2


# --- seccomp


def _filter(*denied: str, check_arch: bool = True) -> bytes:
    table = numbers("x86_64")
    program: list[tuple[int, int, int, int]] = [(bpf.LD_ABS, 0, 0, 4)]
    # anything of another architecture is allowed, which is the hole that `foreign` tells of
    program.append((bpf.JEQ, 1, 0, X86_64.audit))
    program.append((bpf.RET_K, 0, 0, RET_ALLOW if not check_arch else RET_ERRNO | 1))
    program.append((bpf.LD_ABS, 0, 0, 0))
    for name in denied:
        program += [(bpf.JEQ, 0, 1, table[name]), (bpf.RET_K, 0, 0, RET_ERRNO | 1)]
    program.append((bpf.RET_K, 0, 0, RET_ALLOW))
    return bpf.pack(program)


def _load(*programs: bytes) -> Callable[[], None]:
    def setup() -> None:
        calls.prctl(38, 1)
        for program in programs:
            calls.seccomp(calls.SECCOMP_SET_MODE_FILTER, 0, program)

    return setup


def test_the_real_filters_are_read_and_judged_together() -> None:
    first, second = _filter("mount", "setns"), _filter("unshare")
    with running(_load(first, second)) as pid:
        target = audited(pid, seccomp_filters=True)
        still_running = process.status(pid).state in "SR"

    (found,) = target.all(facts.SeccompFilter)
    assert found.programs == (first, second)
    assert found.allowed.isdisjoint({"mount", "setns", "unshare"})
    assert {"read", "bpf", "keyctl"} <= found.allowed
    assert not found.notifies
    assert still_running


def test_a_filter_that_leaves_another_entry_open_is_told() -> None:
    foreign = []
    for check in (True, False):
        with running(_load(_filter("mount", check_arch=check))) as pid:
            (found,) = audited(pid, seccomp_filters=True).all(facts.SeccompFilter)
        foreign.append(found.foreign)

    assert I386.name not in foreign[0]
    assert I386.name in foreign[1]


def test_an_argument_that_decides_makes_a_call_conditional() -> None:
    clone = numbers("x86_64")["clone"]
    program = bpf.pack(
        [
            (bpf.LD_ABS, 0, 0, 0),
            (bpf.JEQ, 0, 3, clone),
            (bpf.LD_ABS, 0, 0, 16),
            (bpf.JSET, 0, 1, calls.CLONE_NEWUSER),
            (bpf.RET_K, 0, 0, RET_ERRNO | 1),
            (bpf.RET_K, 0, 0, RET_ALLOW),
        ]
    )
    with running(_load(program)) as pid:
        (found,) = audited(pid, seccomp_filters=True).all(facts.SeccompFilter)

    assert "clone" in found.conditional
    assert "clone" not in found.allowed


def test_no_process_is_stopped_without_being_asked_for() -> None:
    with running(_load(_filter("mount"))) as pid:
        target = audited(pid)

    gap = target.gap(facts.SeccompFilter)
    assert gap is not None
    assert "--seccomp-filters" in gap.reason
    state = target.one(facts.SeccompState)
    assert state is not None
    assert (state.mode, state.filters) == ("filter", 1)


def test_reading_a_filter_loses_no_signal() -> None:
    reader, writer = os.pipe()

    def setup() -> None:
        signal.signal(signal.SIGUSR1, lambda *_: os.write(writer, b"x"))
        _load(_filter("mount"))()

    with running(setup) as pid:
        for _ in range(50):
            os.kill(pid, signal.SIGUSR1)
            assert len(ptrace.seccomp_filters(pid)) == 1
            assert os.read(reader, 1) == b"x"


def test_an_auditor_with_a_filter_of_its_own_says_that_it_cannot_read_others(forked: Callable[..., Any]) -> None:
    with running(_load(_filter("mount"))) as pid:

        def filtered() -> str:
            _load(_filter("swapon"))()
            gap = audited(pid, seccomp_filters=True).gap(facts.SeccompFilter)
            return gap.reason if gap else ""

        assert "can't be read" in forked(filtered)


# --- mounts, sockets, devices, descriptors


def test_host_paths_are_told_whatever_they_are_called_inside(public_tmp: Path) -> None:
    (public_tmp / "inside").mkdir()

    def setup() -> None:
        private()
        bind("/etc", str(public_tmp / "inside"), calls.MS_RDONLY)

    with running(setup) as pid:
        mounts = {mount.destination: mount for mount in audited(pid).all(facts.Mount)}

    found = mounts[str(public_tmp / "inside")]
    assert (found.host_path, found.writable, found.directory) == ("/etc", False, True)


def test_a_fresh_file_system_has_no_host_path_and_what_it_covers_is_not_listed(public_tmp: Path) -> None:
    (public_tmp / "a").mkdir()

    def setup() -> None:
        private()
        bind("/etc", str(public_tmp / "a"))
        calls.mount("fresh", str(public_tmp), "tmpfs", 0)

    with running(setup) as pid:
        mounts = {mount.destination: mount for mount in audited(pid).all(facts.Mount)}

    assert mounts[str(public_tmp)].host_path is None
    assert str(public_tmp / "a") not in mounts


@pytest.mark.parametrize("through", ["renamed", "parent"])
def test_an_engines_socket_is_found_under_another_name_and_through_its_directory(
    through: str, public_tmp: Path
) -> None:
    (public_tmp / "run").mkdir()
    (public_tmp / "else").touch()
    (public_tmp / "elsewhere").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(public_tmp / "run/docker.sock"))
        server.listen()
        os.chmod(public_tmp / "run/docker.sock", 0o660)

        def setup() -> None:
            private()
            if through == "renamed":
                bind(str(public_tmp / "run/docker.sock"), str(public_tmp / "else"), calls.MS_RDONLY)
            else:
                bind(str(public_tmp / "run"), str(public_tmp / "elsewhere"), calls.MS_RDONLY)

        with running(setup) as pid:
            found = audited(pid).all(facts.EngineSocket)

    place = str(public_tmp / ("else" if through == "renamed" else "elsewhere/docker.sock"))
    (seen,) = [each for each in found if each.path == place]
    # A read-only mount does not help: connecting writes to no file.
    assert (seen.engine, seen.permitted, seen.host_path) == ("docker", True, str(public_tmp / "run/docker.sock"))


@pytest.mark.parametrize("own_network", [True, False])
def test_a_connection_to_an_engine_is_found_without_a_mount(*, own_network: bool, public_tmp: Path) -> None:
    path = str(public_tmp / "containerd.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        accepted, _ = server.accept()

        def setup() -> None:
            server.close()
            accepted.close()
            if own_network:
                calls.unshare(calls.CLONE_NEWNET)

        def apart() -> None:
            setup()
            client.close()

        with running(setup) as pid, running(apart) as without:
            found = [each for each in audited(pid).all(facts.EngineSocket) if each.via == "descriptor"]
            none = [each for each in audited(without).all(facts.EngineSocket) if each.via == "descriptor"]
        client.close()
        accepted.close()

    assert [(each.path, each.engine) for each in found] == [(path, "containerd")]
    assert none == []


def test_a_node_on_a_nodev_mount_is_not_usable() -> None:
    usable = []
    for flags in (calls.MS_NODEV, 0):

        def setup(flags: int = flags) -> None:
            private()
            calls.mount("dev", "/dev", "tmpfs", flags)
            os.mknod("/dev/disk", stat.S_IFBLK | 0o600, os.makedev(7, 0))

        with running(setup) as pid:
            (node,) = audited(pid).all(facts.DeviceNode)
        assert (node.path, node.kind, node.major, node.minor) == ("/dev/disk", "block", 7, 0)
        usable.append(node.usable)

    assert usable == [False, True]


def test_a_node_that_is_bound_over_a_plain_file_is_found() -> None:
    # Engines without privilege make /dev/null so; a listing of the directory tells of a plain file.
    def setup() -> None:
        private()
        node = os.open("/dev/full", os.O_PATH)
        calls.mount("dev", "/dev", "tmpfs", calls.MS_NODEV)
        os.close(os.open("/dev/full", os.O_CREAT))
        bind(f"/proc/self/fd/{node}", "/dev/full")

    with running(setup) as pid:
        (node,) = audited(pid).all(facts.DeviceNode)

    assert (node.path, node.kind, node.major, node.minor, node.usable) == ("/dev/full", "char", 1, 7, True)


def test_without_its_program_the_probe_is_a_gap_and_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "PROGRAM", "/nonexistent/probe")

    target = audited(os.getpid())

    assert not target.all(facts.ControlFile)
    gap = target.gap(facts.ControlFile)
    assert gap is not None
    assert gap.reason == "the probe can't start: No such file or directory"


def test_a_leaked_directory_and_a_working_directory_outside_are_found() -> None:
    def leaky() -> None:
        directory = os.open("/etc", os.O_RDONLY | os.O_DIRECTORY)
        private()
        os.fchdir(directory)

    with running(leaky) as pid:
        target = audited(pid)

    (found,) = [each for each in target.all(facts.OpenDescriptor) if each.kind == "directory" and each.outside]
    assert found.target == "/etc"
    cwd = target.one(facts.WorkingDirectory)
    assert cwd is not None
    assert cwd.outside


def test_what_was_opened_inside_and_memfds_are_not_outside() -> None:
    def clean() -> None:
        private()
        for number in os.listdir("/proc/self/fd"):  # those of whoever runs the tests
            path = f"/proc/self/fd/{number}"
            if os.path.lexists(path) and os.readlink(path).startswith("/"):
                os.close(int(number))
        os.chdir("/")
        os.open("/etc", os.O_RDONLY | os.O_DIRECTORY)
        os.memfd_create("data")
        os.open("/dev/null", os.O_RDWR)

    with running(clean) as pid:
        target = audited(pid)

    assert [each for each in target.all(facts.OpenDescriptor) if each.outside and each.kind != "other"] == []
    cwd = target.one(facts.WorkingDirectory)
    assert cwd is not None
    assert not cwd.outside


def test_a_descriptor_of_the_hosts_namespace_is_found() -> None:
    def setup() -> None:
        os.open("/proc/self/ns/net", os.O_RDONLY)
        calls.unshare(calls.CLONE_NEWNET)

    with running(setup) as pid:
        spaces = [each for each in audited(pid).all(facts.OpenDescriptor) if each.kind == "namespace"]

    assert [each.outside for each in spaces] == [True]


# --- discovery


def test_all_lists_containers_and_neither_plain_processes_nor_private_tmp_services() -> None:
    def service() -> None:
        private()  # what PrivateTmp= does: a mount namespace on the host's own root

    def pivoted() -> None:
        private()
        os.chroot("/usr")

    with (
        running(lambda: None) as plain,
        running(service) as unit,
        running(mapped(100000)) as remapped,
        running(pivoted) as other_root,
    ):
        found = {pid for target in live.audit_targets(["all"]).targets for pid in target.pids}

    assert {remapped, other_root} <= found
    assert not {plain, unit} & found


def test_a_process_that_ends_meanwhile_is_told_and_not_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    real = controls.to_write
    with running(lambda: None) as pid:

        def vanish(mounts: Any) -> Any:
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            return real(mounts)

        monkeypatch.setattr(controls, "to_write", vanish)
        collected = live.audit_targets([f"pid:{pid}"])

    assert collected.targets == ()
    assert any("ended" in note for note in collected.notes)


def test_stockades_own_state_gives_a_name_and_a_stale_one_gives_none() -> None:
    directory = "/run/stockade/feedc0ffee00"
    os.makedirs("/run/stockade", mode=0o700, exist_ok=True)
    os.mkdir(directory, mode=0o700)
    try:
        with running(mapped(100000)) as pid:
            state: dict[str, object] = {
                "id": "feedc0ffee00",
                "name": "web-test",
                "pid": pid,
                "startTime": process.start_time(pid),
            }
            for change, expected in (({}, [pid]), ({"startTime": 1}, [])):
                with open(f"{directory}/state.json", "w") as file:
                    json.dump(state | change, file)
                assert [each.pid for each in own.states() if each.name == "web-test"] == expected
                if expected:
                    (target,) = live.audit_targets(["container:web-test"]).targets
                    runtime = target.one(facts.Runtime)
                    assert target.id == "container:web-test"
                    assert runtime is not None
                    assert runtime.engine == "stockade"
    finally:
        os.unlink(f"{directory}/state.json")
        os.rmdir(directory)


@pytest.fixture
def runc(public_tmp: Path, rootfs: Path) -> Iterator[str]:
    """Give the name of a container that runc runs: it has what runc declares by default."""
    name = f"stockade-test-{os.getpid()}"
    subprocess.run(["runc", "spec"], cwd=public_tmp, check=True)
    spec = json.loads((public_tmp / "config.json").read_text())
    spec["process"] |= {"terminal": False, "args": ["/bin/sleep", "60"]}
    spec["root"]["path"] = str(rootfs)
    (public_tmp / "config.json").write_text(json.dumps(spec))
    null = subprocess.DEVNULL
    argv = ["runc", "run", "-d", name]
    subprocess.run(argv, cwd=public_tmp, check=True, stdin=null, stdout=null, stderr=null, timeout=20)
    yield name
    subprocess.run(["runc", "delete", "-f", name], check=True, timeout=20)


def test_a_container_of_runcs_is_known_by_name_and_compared_with_its_configuration(runc: str, public_tmp: Path) -> None:
    (target,) = live.audit_targets([f"container:{runc}"]).targets

    drift = {each.subject for each in target.all(facts.Declared) if each.declared != each.effective}
    masks = {mask.path: (mask.state, mask.declared) for mask in target.all(facts.Mask)}
    assert drift == set()
    assert masks["/proc/sys"] == ("read-only", "read-only")
    assert masks["/proc/keys"] == ("masked", "masked")

    spec = json.loads((public_tmp / "config.json").read_text())
    spec["linux"]["maskedPaths"].append("/proc/kallsyms")
    spec["process"]["capabilities"]["bounding"] = ["CAP_KILL"]
    (public_tmp / "config.json").write_text(json.dumps(spec))
    (target,) = live.audit_targets([f"container:{runc}"]).targets

    drift = {each.subject for each in target.all(facts.Declared) if each.declared != each.effective}
    masks = {mask.path: (mask.state, mask.declared) for mask in target.all(facts.Mask)}
    assert "capabilities.bounding" in drift
    assert masks["/proc/kallsyms"] == ("open", "masked")


def test_a_users_state_is_not_believed_for_anothers_process_and_a_fifo_there_does_not_hang(unprivileged: Any) -> None:
    top = f"/tmp/stockade-{unprivileged.pw_uid}"
    existed = os.path.isdir(top)
    places = [f"{top}/{name}" for name in ("liar00", "fifo00")]
    for place in places:
        os.makedirs(place)
    os.mkfifo(f"{places[1]}/state.json")
    with open(f"{places[0]}/state.json", "w") as file:
        json.dump({"id": "liar00", "name": "liar", "pid": os.getpid()}, file)
    for path in (top, *places, *[f"{place}/state.json" for place in places]):
        os.chown(path, unprivileged.pw_uid, unprivileged.pw_gid)
    try:
        assert [state for state in own.states() if state.name == "liar"] == []
    finally:
        for place in places:
            os.unlink(f"{place}/state.json")
            os.rmdir(place)
        if not existed:
            os.rmdir(top)


def test_the_host_is_recognised_without_asking_init() -> None:
    host = hosts.probe()

    assert host.trusted
    assert host.inodes == host.own


def test_an_auditor_inside_a_container_calls_nothing_the_hosts(forked: Callable[..., Any]) -> None:
    def inside() -> tuple[bool, set[bool | None], bool]:
        calls.unshare(calls.CLONE_NEWUSER)
        target = audited(os.getppid())
        spaces = {space.host for space in target.all(facts.Namespace)}
        return hosts.probe().trusted, spaces, target.knows(facts.Namespace)

    trusted, spaces, known = forked(inside)

    assert not trusted
    assert spaces <= {None}
    assert not known


# --- the command


def test_the_exit_code_says_what_came_out(stockade: Callable[..., Any], public_tmp: Path) -> None:
    report = public_tmp / "report.json"
    with running(mapped(0)) as pid:
        target = f"pid:{pid}"
        assert stockade("audit", target).returncode == 0
        assert stockade("audit", target, "--fail-on", "critical").returncode == 1
        done = stockade("audit", target, "--format", "json", "--output", str(report), "--fail-on", "critical")
    assert done.returncode == 1
    assert done.stdout == ""
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    data = json.loads(report.read_text())
    assert "AP-CORE" in {path["id"] for path in data["paths"]}
    assert stockade("audit", "nonsense").returncode == 2
    assert stockade("audit", "pid:4194304").returncode == 3
    assert stockade("audit", "--output", "/nonexistent/x", "self").returncode == 4
    assert stockade("audit", "--output", "", "self").returncode == 2
    assert stockade("audit", "--explain", "MNT-SOCK").returncode == 0
    assert os.listdir(public_tmp) == ["report.json"]


@pytest.mark.parametrize("kind", ["device", "link", "fifo"])
def test_an_output_that_is_a_device_or_a_link_is_written_to_and_not_replaced(
    stockade: Callable[..., Any], public_tmp: Path, kind: str
) -> None:
    """`--output /dev/null` as root made the null device of the host a file."""
    output, target = public_tmp / "output", public_tmp / "target"
    target.touch()
    reader = -1
    if kind == "device":
        os.mknod(output, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    elif kind == "fifo":
        os.mkfifo(output)
        reader = os.open(output, os.O_RDWR)
    else:
        output.symlink_to(target)
    before = output.lstat()

    with running(mapped(0)) as pid:
        done = stockade("audit", f"pid:{pid}", "--output", str(output))
        assert done.returncode == 0, done.stderr

    after = output.lstat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert kind != "link" or target.read_text()
    assert kind != "fifo" or os.read(reader, 10)
    assert sorted(os.listdir(public_tmp)) == ["output", "target"]
    if reader >= 0:
        os.close(reader)


def test_a_user_audits_a_rootless_container_of_their_own(as_user: Callable[..., Any]) -> None:
    script = (
        "import subprocess, sys, json, time\n"
        "box = subprocess.Popen(['unshare', '-Urmnipf', '--mount-proc', '--kill-child', 'sleep', '20'],\n"
        "    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "time.sleep(0.5)\n"
        "argv = [sys.executable, '-m', 'stockade', 'audit', 'all', '--format', 'json']\n"
        "done = subprocess.run(argv, capture_output=True)\n"
        "box.kill()\n"
        "sys.stdout.buffer.write(done.stdout); sys.stderr.buffer.write(done.stderr)\n"
    )
    import sys

    done = as_user([sys.executable, "-c", script])

    data = json.loads(done.stdout)
    mine = [target for target in data["targets"] if target["command"] == "sleep 20"]
    assert len(mine) == 1, done.stderr
    assert (mine[0]["uid"], mine[0]["namespaces"]["pid"]) == (0, "own")
    unknown = {each["rule"] for each in data["unknown"] if each["target"] == mine[0]["id"]}
    assert "helper_program" not in unknown
