"""Programs that are measured: C programs that time themselves, and commands that are started and waited for."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = os.path.dirname(os.path.abspath(__file__))


def compiled(name: str, scratch: str) -> str:
    """Compile bench/NAME.c into the scratch directory and give the program's path."""
    program = os.path.join(scratch, name)
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-o", program, os.path.join(HERE, f"{name}.c")], check=True)
    return program


class Timed:
    """A program that does what a number on its stdin asks for, and answers with as many lines of nanoseconds."""

    def __init__(self, *argv: str) -> None:
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def batch(self, count: int) -> list[float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        times = [self.process.stdout.readline() for _ in range(count)]
        if not all(times):
            raise SystemExit(f"{self.process.args!r} ended with {self.process.wait()}")
        return [int(line) / 1e9 for line in times]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def command(argv: Sequence[str], *, allowed: tuple[int, ...] = (0,), cpu: list[float] | None = None) -> float:
    """Run a command with its output thrown away; give the seconds. Ends the benchmark when its exit code is another.

    `cpu` gets the seconds of processor time that it and what it waited for took: those a busy machine doesn't stretch.
    """
    # Not the null device: runc and crun give their standard streams to the container's root, and crun 1.8 the host's
    # /dev/null as well. An empty pipe and a file in memory do as well.
    stdin, writer = os.pipe2(os.O_CLOEXEC)
    os.close(writer)
    stdout = os.memfd_create("output")
    actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)]
    before = time.perf_counter()
    pid = os.posix_spawnp(argv[0], list(argv), os.environ, file_actions=actions)
    _, status, usage = os.wait4(pid, 0)
    took = time.perf_counter() - before
    os.close(stdin)
    os.close(stdout)
    if cpu is not None:
        cpu.append(usage.ru_utime + usage.ru_stime)
    if os.waitstatus_to_exitcode(status) not in allowed:
        raise SystemExit(f"{' '.join(argv)} ended with {os.waitstatus_to_exitcode(status)}")
    return took


def captured(argv: Sequence[str], descriptors: Sequence[int] = ()) -> float:
    """Run a command as Sandbox.run does, its output read from two pipes; `descriptors` are inherited, rewound."""
    before = time.perf_counter()
    for descriptor in descriptors:
        os.lseek(descriptor, 0, os.SEEK_SET)
    out, err = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, out[1], 1),
        (os.POSIX_SPAWN_DUP2, err[1], 2),
    ]
    pid = os.posix_spawnp(argv[0], list(argv), os.environ, file_actions=actions)
    os.close(out[1])
    os.close(err[1])
    said = b""
    for reader in (out[0], err[0]):
        while chunk := os.read(reader, 65536):
            said += chunk
        os.close(reader)
    _, status = os.waitpid(pid, 0)
    took = time.perf_counter() - before
    if status != 0 or said:
        raise SystemExit(f"{argv[0]} ended with {os.waitstatus_to_exitcode(status)}: {said.decode(errors='replace')}")
    return took


def memfd(data: bytes) -> int:
    """Give an inheritable descriptor with the data."""
    descriptor = os.memfd_create("bench", 0)
    os.write(descriptor, data)
    os.set_inheritable(descriptor, True)
    return descriptor
