"""The launcher's reader of packets: malformed ones, truncated steps, lengths of any size, under gcc's sanitizers.

Whoever holds the control socket is trusted, but a fault here would be a fault of every supervisor, and what is relayed
to the socket by mistake must not be more than an end. All of it runs as nobody in the launcher's own namespaces.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import socket
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stockade.sandbox import plan, steps
from stockade.sandbox.launch import sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Forked = Callable[[Callable[[], Any]], Any]

pytestmark = pytest.mark.kernel

NATIVE = Path(__file__).resolve().parents[2] / "sandbox/native"
NOBODY = 65534
#: user, mount, pid, network, ipc, uts: nothing that a mutated step does is of the host
NAMESPACES = 0x10000000 | 0x20000 | 0x20000000 | 0x40000000 | 0x8000000 | 0x4000000
CRASHES = {signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP}
CLONE = steps.Clone(NAMESPACES, "").encode()
OPERATIONS = len(steps.OPERATIONS)
#: a random filter or limit ends a process as a fault would
DEADLY = {steps.Seccomp.op, steps.Rlimit.op, steps.DeathSignal.op}


def compiled(directory: Path, sources: dict[str, str]) -> Path:
    """Compile these files, names and texts, into a launcher with sanitizers."""
    for name, text in sources.items():
        (directory / name).write_text(text)
    files = [str(directory / name) for name in sources if name.endswith(".c")]
    sanitized = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
    command = ["gcc", "-std=gnu11", "-O1", "-g", *sanitized, "-o", str(directory / "launcher"), *files]
    subprocess.run(command, check=True, capture_output=True)
    directory.chmod(0o755)
    return directory / "launcher"


def sources() -> dict[str, str]:
    return {path.name: path.read_text() for path in NATIVE.glob("*.[ch]")}


@pytest.fixture(scope="module")
def launcher() -> Iterator[Path]:
    """Give the launcher with sanitizers, where nobody can execute it."""
    with tempfile.TemporaryDirectory(prefix="stockade-packets-") as directory:
        yield compiled(Path(directory), sources())


class Launcher:
    """One run of it: send packets, then see how it and what it made have ended."""

    def __init__(self, program: Path) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.log = os.memfd_create("log")
        options = {
            "ASAN_OPTIONS": "abort_on_error=1:detect_leaks=0",
            "UBSAN_OPTIONS": "abort_on_error=1:print_stacktrace=1",
        }
        actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0), (os.POSIX_SPAWN_DUP2, self.log, 2)]
        self.pid = os.posix_spawn(program, ["launcher"], options, file_actions=actions)
        theirs.close()
        self.crashed: list[str] = []
        self.ended = False

    def send(self, packet: bytes, given: int = 1, *, wait: float = 0.05, go: bytes = b"") -> list[tuple[int, ...]]:
        """Send a packet with a socket and `given` - 1 null devices; give the answers, for `wait` seconds at most."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        null = os.open("/dev/null", os.O_RDWR)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self.control, [packet], [theirs.fileno(), *[null] * (given - 1)][:given])
        theirs.close()
        os.close(null)
        answers = []
        with ours:
            while select.select([ours], [], [], wait)[0]:
                try:
                    data, descriptors, _, _ = socket.recv_fds(ours, 64, 4)
                except ConnectionResetError:
                    break
                for descriptor in descriptors:
                    os.close(descriptor)
                if not data:
                    break
                answers.append(struct.unpack("<IIiI", data))
                if go and answers[-1][0] == 2:
                    ours.send(go)
        self.reap()
        return answers

    def reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                self.ended |= found[0] == self.pid
                if os.WIFSIGNALED(found[1]) and os.WTERMSIG(found[1]) in CRASHES:
                    self.crashed.append(os.pread(self.log, 1 << 16, 0).decode(errors="replace"))

    def finish(self) -> list[str]:
        """Close the socket, wait for all; give what the sanitizers have said."""
        self.control.close()
        with contextlib.suppress(ChildProcessError):
            while True:
                _, status = os.waitpid(-1, 0)
                if os.WIFSIGNALED(status) and os.WTERMSIG(status) in CRASHES:
                    self.crashed.append(os.pread(self.log, 1 << 16, 0).decode(errors="replace"))
        os.close(self.log)
        return self.crashed


def packet(parent: bytes, child: bytes, **header: int) -> bytes:
    """Give a packet with a correct header but for the fields given."""
    fields = {
        "magic": plan.MAGIC, "in_memfd": 0, "descriptors": 0, "parent_steps": len(parent), "child_steps": 1,
        "length": len(parent) + len(child),
    }  # fmt: skip
    return struct.pack("<6I", *(fields | header).values()) + parent + child


def as_nobody(function: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        return function()

    return run


FAILS = steps.WaitMaps().encode() + steps.Open(steps.Slot(0, ""), "/nonexistent", 0).encode()


def test_a_well_formed_packet_is_walked_to_the_step_that_fails(launcher: Path, forked: Forked) -> None:
    def run() -> tuple[list[tuple[int, ...]], list[str]]:
        it = Launcher(launcher)
        return it.send(packet(CLONE, FAILS), wait=5), it.finish()

    answers, crashed = forked(as_nobody(run))

    assert crashed == []
    assert [answer[:3] for answer in answers] == [(1, 1, 0), (3, 2, 2)]  # cloned; step 2 of 0 to 2: ENOENT


HEADERS = [
    *({"magic": value} for value in (0, 1, 0xFFFFFFFF)),
    *({"descriptors": value} for value in (1, 2, 252, 253, 512, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)),
    *({"in_memfd": 1, "descriptors": value} for value in (0, 1, 0xFFFFFFFE, 0xFFFFFFFF)),
    *({"length": value} for value in (0, 8, 0x7FFFFFFF, 0xFFFFFFFF)),
    *({"parent_steps": value} for value in (8, 9, 0x7FFFFFFF, 0xFFFFFFFF)),
    *({"child_steps": value} for value in (0, 0x7FFFFFFF, 0xFFFFFFFF)),
]


@pytest.mark.parametrize("given", [0, 1, 2, 3, 253])
def test_a_header_that_contradicts_its_packet_is_the_end(launcher: Path, forked: Forked, given: int) -> None:
    """2**32 - 1 descriptors were as many as none, and 16 GB of them were copied."""

    def run() -> list[tuple[dict[str, int], list[str]]]:
        found = []
        for header in HEADERS:
            it = Launcher(launcher)
            it.send(packet(CLONE, FAILS, **header), given, wait=0.3)
            found.append((header, it.finish()))
        return found

    assert [header for header, crashed in forked(as_nobody(run)) if crashed] == []


@pytest.mark.parametrize("data", [b"", b"\0", b"STCK", b"\xff" * 23, b"\xff" * 24, b"\xff" * 4096, b"\0" * 200_000])
def test_bytes_that_are_no_packet_are_the_end(launcher: Path, forked: Forked, data: bytes) -> None:
    def run() -> list[str]:
        it = Launcher(launcher)
        for given in (0, 1):
            it.send(data or b"\0", given)
        return it.finish()

    assert forked(as_nobody(run)) == []


def sweep(launcher: Path, packets: list[bytes], given: int = 1, go: bytes = b"") -> Callable[[], list[str]]:
    """Give a function that sends all of these, to new launchers where one has ended, and gives what crashed."""

    def run() -> list[str]:
        crashed: list[str] = []
        it = Launcher(launcher)
        for data in packets:
            it.send(data, given, go=go)
            if it.ended or it.crashed:
                crashed += it.finish()
                it = Launcher(launcher)
        return crashed + it.finish()

    return as_nobody(run)


#: one of each kind of field: numbers, slots, texts, bytes, tuples of pairs, lists
SAMPLES = [
    steps.WriteMaps("0 0 1\n", "0 0 1\n", deny_setgroups=True),
    steps.SetIds(0, 0, set_groups=True, keep_capabilities=True, groups=(1, 2, 3)),
    steps.Filesystem(steps.Slot(3, ""), "tmpfs", 0, (("mode", "0755"), ("size", "1m"))),
    steps.Ensure(steps.Slot(3, ""), steps.Slot(0, ""), "/a/b", directory=True, mode=0o755),
    steps.Init(0, b"\6\0\0\0\0\0\xff\x7f", 0, 0, 0),
    steps.Execute(("/nonexistent",), ("a", "b"), ("C=d",)),
]


def test_steps_that_end_too_early_fail(launcher: Path, forked: Forked) -> None:
    packets = []
    for step in SAMPLES:
        whole = steps.WaitMaps().encode() + step.encode()
        packets += [packet(CLONE, whole[:length]) for length in range(0, len(whole), 4)]
        packets += [packet(CLONE + step.encode()[:length], FAILS) for length in range(0, len(step.encode()), 8)]
        for length in range(8, len(step.encode()) - 8, 8):  # of a shorter length by its own word
            cut = struct.pack("<II", step.op, length) + step.encode()[8 : 8 + length]
            packets.append(packet(CLONE, steps.WaitMaps().encode() + cut))

    assert forked(sweep(launcher, packets, given=1)) == []


SIZES = [
    0,
    1,
    7,
    8,
    511,
    512,
    513,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 8,
    2**32 - 1,
    2**32,
    2**63 - 8,
    2**63,
    2**64 - 8,
    2**64 - 1,
]


def test_numbers_and_lengths_of_any_size_fail(launcher: Path, forked: Forked) -> None:
    packets = []
    for step in SAMPLES:
        data = step.encode()
        for at in range(8, len(data), 8):
            for size in SIZES:
                changed = data[:at] + struct.pack("<Q", size) + data[at + 8 :]
                packets.append(packet(CLONE, steps.WaitMaps().encode() + changed, descriptors=1))

    assert forked(sweep(launcher, packets, given=2)) == []


def test_random_steps_do_no_harm(launcher: Path, forked: Forked) -> None:
    chance = random.Random(20240131)
    packets = []
    for _ in range(25):
        for operation in [*range(OPERATIONS), OPERATIONS, 255, 0xFFFFFFFF]:
            if operation in DEADLY:
                continue
            words = [
                chance.choice([0, 1, 2, 3, 500, chance.choice(SIZES), chance.getrandbits(64)])
                for _ in range(chance.randrange(9))
            ]
            payload = b"".join(struct.pack("<Q", word) for word in words) + bytes(8 * chance.randrange(3))
            step = struct.pack("<II", operation, len(payload)) + payload
            if chance.random() < 0.8:
                packets.append(packet(CLONE, steps.WaitMaps().encode() + step, descriptors=2))
            else:
                packets.append(packet(CLONE + step, FAILS, descriptors=2))

    assert forked(sweep(launcher, packets, given=3)) == []


@pytest.mark.parametrize(
    "word", [b"g", struct.pack("<4I", 0, 0, 0, 0), *(struct.pack("<4I", plan.MAGIC, *rest) for rest in
    [(0, 0xFFFFFFFF, 0), (1, 0xFFFFFFFF, 8), (1, 0, 8), (0, 0, 0xFFFFFFFF), (0, 3, 0), (0, 0, 0)])],
)  # fmt: skip
def test_a_malformed_word_to_a_process_that_stands_ready_fails(launcher: Path, forked: Forked, word: bytes) -> None:
    ready = packet(CLONE, steps.WaitMaps().encode() + steps.Ready(504).encode())

    assert forked(sweep(launcher, [ready], go=word)) == []


def test_a_plan_in_a_memfd_that_is_too_short_is_the_end(launcher: Path, forked: Forked) -> None:
    """Its pages that aren't there would be SIGBUS."""

    def run() -> list[str]:
        it = Launcher(launcher)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        memfd = sealed("plan", CLONE + FAILS)
        header = struct.pack("<6I", plan.MAGIC, 1, 0, len(CLONE), 1, 1 << 20)
        socket.send_fds(it.control, [header], [theirs.fileno(), memfd])
        theirs.close()
        with ours:
            assert ours.recv(64) == b""
        return it.finish()

    assert forked(as_nobody(run)) == []


def test_a_filter_longer_than_the_kernel_takes_is_not_cut_to_its_start(launcher: Path, forked: Forked) -> None:
    """struct sock_fprog has 16 bits for the length: of 65537 instructions it would have loaded the first, "allow"."""
    program = struct.pack("<HBBI", 6, 0, 0, 0x7FFF0000) * 65537
    tail = steps.WaitMaps().encode() + steps.NoNewPrivs().encode() + steps.Seccomp(0, program).encode()
    data = CLONE + tail

    def run() -> tuple[list[tuple[int, ...]], list[str]]:
        it = Launcher(launcher)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        header = struct.pack("<6I", plan.MAGIC, 1, 0, len(CLONE), 1, len(data))
        socket.send_fds(it.control, [header], [theirs.fileno(), sealed("plan", data)])
        theirs.close()
        answers = []
        with ours:
            while answer := ours.recv(64):
                answers.append(struct.unpack("<IIiI", answer))
        return answers, it.finish()

    answers, crashed = forked(as_nobody(run))

    assert crashed == []
    assert answers[-1][:3] == (3, 3, 22)  # EINVAL, in the step Seccomp


def test_a_launcher_that_trusts_its_packets_is_found_out(forked: Forked) -> None:
    """The proof that these tests can fail: without the check of the count the sanitizers speak up."""
    files = sources()
    check = "(uint64_t)count != expected"
    assert check in files["launcher.c"]
    files["launcher.c"] = files["launcher.c"].replace(check, "0")

    with tempfile.TemporaryDirectory(prefix="stockade-packets-") as directory:
        weak = compiled(Path(directory), files)
        crashed = forked(sweep(weak, [packet(CLONE, FAILS, descriptors=600)]))

    assert any("AddressSanitizer" in text or "runtime error" in text for text in crashed)
