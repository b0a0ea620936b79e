"""System calls, devices, IPC and other processes: nothing reaches out of a container.

Each attempt is also made where nothing stands in its way, and succeeds there or fails otherwise.
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from stockade.sandbox.linux import syscalls
from tests.kernel import probes
from tests.kernel.probes import CONFINED, MODES, Ways

if TYPE_CHECKING:
    import pwd
    from collections.abc import Iterator, Sequence

    from tests.kernel.probes import Run

pytestmark = pytest.mark.kernel

UNCONFINED = ("--security-opt", "seccomp=unconfined")
NUMBERS = syscalls.numbers(platform.machine())
BAD = hex(2**64 - 1)  # as a descriptor EBADF, as a pointer EFAULT
NEWUSER, NEWUTS = hex(0x10000000), hex(0x04000000)

#: (name, arguments, what the filter answers). The kernel's own answers to these differ, or the attempt has succeeded
CALLS = [
    ("io_uring_setup", ("1", BAD), "EPERM"),
    ("userfaultfd", ("1",), "EPERM"),
    ("bpf", ("0", BAD, "4"), "EPERM"),
    ("perf_event_open", (BAD, "0", BAD, BAD, "0"), "EPERM"),
    ("unshare", (NEWUSER,), "EPERM"),
    ("unshare", (hex(1 << 32 | 0x04000000),), "EPERM"),
    ("setns", (BAD, "0"), "EPERM"),
    ("mount", (BAD, BAD, BAD, "0", "0"), "EPERM"),
    ("keyctl", ("0", hex(2**64 - 3), "1"), "EPERM"),
    ("add_key", (BAD, BAD, "0", "0", "0"), "EPERM"),
    ("request_key", (BAD, BAD, "0", "0"), "EPERM"),
    ("clone3", (BAD, "88"), "ENOSYS"),
    ("pidfd_getfd", (BAD, "0", "0"), "EPERM"),
    ("kcmp", ("1", "1", "0x63", "0", "0"), "EPERM"),
]


@pytest.fixture
def ways(stockade: Run, as_user: Run, unprivileged: pwd.struct_passwd) -> Ways:
    return Ways(stockade, as_user, unprivileged)


def tries(calls: Sequence[tuple[str, tuple[str, ...], str]], way: str = "call") -> list[str]:
    """Give the arguments of probe that make these calls, under the names 0, 1, 2 and so on."""
    numbers = NUMBERS if way == "call" else syscalls.numbers("i386")
    words: list[str] = []
    for index, (name, args, _) in enumerate(calls):
        words += [way, str(index), str(numbers.get(name, name)), *args, "--"]
    return words[:-1]


@pytest.mark.parametrize("mode", CONFINED)
@pytest.mark.parametrize("init", [(), ("--init",)], ids=["plain", "init"])
def test_calls_that_reach_into_the_kernel_are_off(ways: Ways, mode: str, init: tuple[str, ...]) -> None:
    found = ways.probe(mode, *tries(CALLS), options=init)
    free = ways.probe("privileged", *tries(CALLS))

    for index, (name, _, answer) in enumerate(CALLS):
        assert found[str(index)] == answer, name
        assert free[str(index)] != answer, name


FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_NETLINK": 16, "AF_PACKET": 17, "AF_ALG": 38, "AF_VSOCK": 40}


@pytest.mark.parametrize("mode", CONFINED)
@pytest.mark.parametrize("high", [0, 1 << 32], ids=["plain", "high bits"])
def test_of_socket_families_only_the_ordinary_ones_are_there(ways: Ways, mode: str, high: int) -> None:
    kinds = {"AF_ALG": 5, "AF_PACKET": 3, "AF_NETLINK": 3}
    calls = [("socket", (hex(number | high), str(kinds.get(name, 1)), "0"), "") for name, number in FAMILIES.items()]

    found = dict(zip(FAMILIES, ways.probe(mode, *tries(calls)).values(), strict=True))
    free = dict(zip(FAMILIES, ways.probe("privileged", *tries(calls)).values(), strict=True))

    assert {found[name] for name in ("AF_UNIX", "AF_INET", "AF_NETLINK")} == {"ok"}
    assert (found["AF_PACKET"], found["AF_ALG"], found["AF_VSOCK"]) == ("EPERM", "EAFNOSUPPORT", "EAFNOSUPPORT")
    assert free["AF_PACKET"] == "ok"
    assert free["AF_ALG"] in {"ok", "EAFNOSUPPORT"}  # as this kernel has it
    assert free["AF_VSOCK"] in {"ok", "EAFNOSUPPORT"}


UNKNOWN = [(str(number), (), "ENOSYS") for number in (500, 511, 600, 1000, 4095, 0x3FFFFFFF)]


@pytest.mark.parametrize("mode", CONFINED)
def test_unknown_calls_are_enosys_never_eperm(ways: Ways, mode: str) -> None:
    """C libraries fall back on ENOSYS only (moby #42871). With a filter whose default is EPERM they'd break."""
    assert set(ways.probe(mode, *tries(UNKNOWN)).values()) == {"ENOSYS"}


x86_64_only = pytest.mark.skipif(platform.machine() != "x86_64", reason="int 0x80 and x32 are x86-64's")


@x86_64_only
@pytest.mark.parametrize("mode", CONFINED)
def test_the_i386_entry_is_filtered_too(ways: Ways, mode: str) -> None:
    calls = [
        *(call for call in CALLS if call[0] not in {"unshare", "keyctl"}),
        ("unshare", (NEWUSER,), "EPERM"),
        ("socketcall", ("1", BAD), "EPERM"),  # SYS_SOCKET, whose family is in memory
        ("700", (), "ENOSYS"),
    ]

    found = ways.probe(mode, *tries(calls, "call32"))
    free = ways.probe("privileged", *tries(calls, "call32"))

    for index, (name, _, answer) in enumerate(calls):
        assert found[str(index)] == answer, name
        assert free[str(index)] != answer or name == "700", name


@x86_64_only
@pytest.mark.parametrize("mode", CONFINED)
@pytest.mark.parametrize("name", ["getpid", "unshare", "bpf"])
def test_the_x32_entry_ends_the_program(ways: Ways, mode: str, name: str) -> None:
    """No program of ours has it; without the filter a kernel that lacks it says ENOSYS."""
    number = str(0x40000000 | NUMBERS[name])

    done = ways.run(mode, [f"{probes.INSIDE}/probe", "call", "x32", number])

    assert done.returncode == 128 + 31  # SIGSYS
    assert ways.probe("privileged", "call", "x32", number)["x32"] in {"ok", "ENOSYS", "EFAULT"}


@pytest.mark.parametrize("filtered", [(), UNCONFINED], ids=["filtered", "unfiltered"])
@pytest.mark.parametrize("mode", CONFINED)
def test_device_nodes_can_not_be_made(ways: Ways, mode: str, filtered: tuple[str, ...]) -> None:
    for path in ("/tmp/disk", "/dev/disk", "/dev/shm/disk"):
        assert ways.probe(mode, "mknod", path, "b", "254", "0", options=filtered)["mknod"] in {"EPERM", "EACCES"}


def test_a_device_node_that_can_be_made_opens_the_disk(ways: Ways) -> None:
    disk = ["mknod", "/dev/disk", "b", "7", "0", "--", "open", "/dev/disk"]  # loop0, which every kernel has with us

    made = ways.probe("privileged", *disk)
    capable = ways.probe("normal", *disk, options=("--userns", "host", "--cap-add", "MKNOD"))

    assert (made["mknod"], made["read /dev/disk"]) == ("ok", "ok")
    assert capable["mknod"] == "ok"
    assert (capable["read /dev/disk"], capable["write /dev/disk"]) == ("EPERM", "EPERM")  # the control group's devices


@pytest.mark.parametrize("filtered", [(), UNCONFINED], ids=["filtered", "unfiltered"])
@pytest.mark.parametrize("options", [(), ("--userns", "host")], ids=["mapped", "host"])
def test_shocker_files_are_not_opened_by_handle(
    ways: Ways, options: tuple[str, ...], filtered: tuple[str, ...]
) -> None:
    found = ways.probe("normal", "handle", "/etc/passwd", options=(*options, *filtered))

    assert found["open_by_handle"] == "EPERM"
    assert probes.on_host("handle", "/etc/passwd")["open_by_handle"] == "ok"


@pytest.fixture
def outsider(unprivileged: pwd.struct_passwd, request: pytest.FixtureRequest) -> Iterator[int]:
    """Give the pid of a process of the host; with the parameter "user" it is the test user's."""
    identity = {}
    if getattr(request, "param", "") == "user":
        identity = {"user": unprivileged.pw_uid, "group": unprivileged.pw_gid, "extra_groups": []}
    with subprocess.Popen([probes.probe(), "stand"], stdout=subprocess.PIPE, **identity) as process:  # type: ignore[call-overload]
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


@pytest.mark.parametrize("mode", MODES)
def test_processes_outside_are_not_there(ways: Ways, outsider: int, mode: str) -> None:
    found = ways.probe(mode, "outsider", str(outsider), options=UNCONFINED)

    assert {found[name] for name in ("kill", "ptrace", "vm_read", "pidfd")} == {"ESRCH"}
    assert {found[name] for name in ("mem", "environ", "root/")} == {"ENOENT"}


def test_a_shared_pid_namespace_shows_them_and_root_may_do_everything_to_them(ways: Ways, outsider: int) -> None:
    found = ways.probe("privileged", "outsider", str(outsider), options=("--pid", "host"))

    assert set(found.values()) == {"ok"}


@pytest.mark.parametrize("filtered", [(), UNCONFINED], ids=["filtered", "unfiltered"])
@pytest.mark.parametrize(
    ("mode", "outsider", "options"),
    [("normal", "", ()), ("normal", "", ("--userns", "host")), ("rootless", "user", ("--best-effort",))],
    indirect=["outsider"],
)
def test_in_a_shared_pid_namespace_outsiders_can_not_be_entered(
    *, ways: Ways, outsider: int, mode: str, options: tuple[str, ...], filtered: tuple[str, ...]
) -> None:
    """Not by root of the host with the mode's capabilities, and not by the very user who started the container."""
    found = ways.probe(mode, "outsider", str(outsider), options=("--pid", "host", *options, *filtered))

    assert {found[name] for name in ("ptrace", "vm_read", "getfd")} == {"EPERM"}
    assert {found[name] for name in ("mem", "environ", "fd/0", "root/")} == {"EACCES"}


@pytest.mark.parametrize("mode", MODES)
def test_abstract_sockets_of_the_host_are_not_reached(ways: Ways, mode: str) -> None:
    name = f"stockade-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        found = ways.probe(mode, "abstract", name)
        shared = ways.probe(mode, "abstract", name, options=("--network", "host"))

    assert (found["abstract"], shared["abstract"]) == ("ECONNREFUSED", "ok")


@pytest.mark.parametrize("mode", MODES)
def test_the_network_of_the_host_is_not_reached(ways: Ways, mode: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        script = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2)"
        apart = ways.run(mode, ["python3", "-c", script])
        shared = ways.run(mode, ["python3", "-c", script], ("--network", "host"))

    assert "ConnectionRefusedError" in apart.stderr
    assert shared.returncode == 0, shared.stderr


@pytest.fixture
def of_the_host() -> Iterator[tuple[str, str]]:
    """Make a System V segment and a POSIX queue that everyone may open; give the key and the name."""
    libc = ctypes.CDLL(None, use_errno=True)
    key, name = 0x57000000 + os.getpid(), f"/stockade-{os.getpid()}"
    before = os.umask(0)
    segment = libc.shmget(key, 4096, 0o1666)
    queue = libc.mq_open(name.encode(), os.O_CREAT | os.O_RDWR, 0o666, None)
    os.umask(before)
    assert segment >= 0
    assert queue >= 0
    yield str(key), name
    libc.shmctl(segment, 0, None)
    libc.mq_unlink(name.encode())
    os.close(queue)


@pytest.mark.parametrize("mode", MODES)
def test_ipc_of_the_host_is_not_reached(ways: Ways, of_the_host: tuple[str, str], mode: str) -> None:
    apart = ways.probe(mode, "ipc", *of_the_host)
    shared = ways.probe(mode, "ipc", *of_the_host, options=("--ipc", "host"))

    assert (apart["shm"], apart["mqueue"]) == ("ENOENT", "ENOENT")
    assert (shared["shm"], shared["mqueue"]) == ("ok", "ok")


@pytest.mark.parametrize("mode", MODES)
def test_shared_memory_files_of_the_host_are_not_there(ways: Ways, mode: str) -> None:
    path = f"/dev/shm/stockade-{os.getpid()}"
    with open(path, "w", encoding="ascii"):
        apart, shared = ways.probe(mode, "open", path), ways.probe(mode, "open", path, options=("--ipc", "host"))
    os.unlink(path)

    assert (apart[f"read {path}"], shared[f"read {path}"]) == ("ENOENT", "ok")


@pytest.mark.parametrize("init", [(), ("--init",)], ids=["plain", "init"])
@pytest.mark.parametrize("mode", CONFINED)
def test_process_1_and_the_program_have_the_same_filter_and_sets(ways: Ways, mode: str, init: tuple[str, ...]) -> None:
    found = ways.run(mode, [f"{probes.INSIDE}/probe", "status", "1", "--", "status", "self"], init).stdout

    first = [line.removeprefix("1 ") for line in found.splitlines() if line.startswith("1 ")]
    own = [line.removeprefix("self ") for line in found.splitlines() if line.startswith("self ")]
    assert first == own
    assert "Seccomp:\t2" in own
    assert "NoNewPrivs:\t1" in own


def test_names_of_the_host_are_kept(ways: Ways) -> None:
    """sethostname in a shared UTS namespace is the host's; the capability for it is never in a set by default."""
    before = os.uname().nodename

    done = ways.run("normal", ["hostname", "taken"], ("--uts", "host", "--userns", "host", *UNCONFINED))

    assert done.returncode != 0
    assert os.uname().nodename == before
    own = ways.run("privileged", ["sh", "-c", "hostname taken; hostname"])
    assert own.stdout == "taken\n"


@pytest.mark.parametrize("mode", CONFINED)
def test_cve_2020_15257_no_socket_of_the_runtime_is_reached(ways: Ways, mode: str) -> None:
    """containerd's shim listened on an abstract socket. Ours has no name at all, on either side of --network host."""
    done = ways.run(mode, ["cat", "/proc/net/unix"], ("--network", "host"))

    assert done.returncode == 0, done.stderr
    # a name that begins with @ needs no file system to be reached; the others are files below /run, or of other tests
    assert not [line for line in done.stdout.splitlines() if "@" in line and "stockade" in line]
