from __future__ import annotations

import errno
import os
import re
import signal
import struct
import subprocess
from pathlib import Path

import pytest

from stockade.sandbox.linux import calls, calls_base, calls_constants, capabilities

HEADERS = ("mount", "openat2", "sched", "prctl", "seccomp", "keyctl", "nsfs", "close_range", "capability", "fcntl")


def evaluated(names: list[str]) -> dict[str, int]:
    """Let the C compiler say what the constants are; those that its headers do not know are left out."""
    source = (
        "".join(f"#include <linux/{header}.h>\n" for header in HEADERS) + "#include <fcntl.h>\n#include <stdio.h>\n"
    )
    source = source.replace("#include <linux/fcntl.h>\n#include <fcntl.h>\n", "#include <linux/fcntl.h>\n")
    body = "".join(f'#ifdef {name}\nprintf("{name} %lld\\n", (long long){name});\n#endif\n' for name in names)
    enums = [name for name in names if name.startswith("FSCONFIG_")]
    body += "".join(f'printf("{name} %lld\\n", (long long){name});\n' for name in enums if "EXCL" not in name)
    program = f"{source}int main(void) {{\n{body}return 0;\n}}\n"
    binary = f"/tmp/stockade-constants.{os.getpid()}"
    try:
        subprocess.run(["cc", "-xc", "-o", binary, "-"], input=program, text=True, check=True)
        told = subprocess.run([binary], capture_output=True, text=True, check=True).stdout
    finally:
        Path(binary).unlink(missing_ok=True)
    return {line.split()[0]: int(line.split()[1]) for line in told.splitlines()}


def test_the_constants_are_those_of_the_kernels_headers() -> None:
    ours = {name: value for name, value in vars(calls_constants).items() if re.fullmatch(r"[A-Z][A-Z0-9_]+", name)}

    kernels = evaluated(list(ours))

    assert {name: ours[name] for name in kernels} == kernels
    # Debian 12's headers lack a handful of newer ones; the rest must have been compared.
    assert len(kernels) > 0.85 * len(ours)


def test_the_numbers_are_those_of_the_kernels_headers() -> None:
    text = subprocess.run(
        ["cc", "-E", "-dM", "-"], input="#include <asm/unistd.h>\n", capture_output=True, text=True, check=True
    ).stdout
    kernels = dict(re.findall(r"#define __NR_(\w+) (\d+)", text))

    for name, numbers in calls_base._NUMBERS.items():
        column = 0 if calls_base.MACHINE == "x86_64" else 1
        assert int(kernels[name]) == numbers[column], name


def test_an_error_names_the_path_and_the_cause() -> None:
    with pytest.raises(FileNotFoundError) as error:
        calls.openat2(calls.AT_FDCWD, "/no/such/file", os.O_PATH)

    assert error.value.filename == "/no/such/file"


def test_a_number_that_the_kernel_does_not_know_is_enosys() -> None:
    with pytest.raises(OSError, match="not implemented") as error:
        calls.syscall(100_000)

    assert error.value.errno == errno.ENOSYS


def test_arguments_keep_their_64_bits() -> None:
    # lseek beyond 4 GiB: cut to 32 bits the offset would be 5.
    lseek = 8 if calls_base.MACHINE == "x86_64" else 62
    descriptor = os.memfd_create("far")
    try:
        assert calls.syscall(lseek, descriptor, (7 << 32) + 5, 0) == (7 << 32) + 5
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("path", "resolve", "expected"),
    [
        ("../etc", calls.RESOLVE_BENEATH, "EXDEV"),
        ("/etc", calls.RESOLVE_BENEATH, "EXDEV"),
        ("self/root", calls.RESOLVE_NO_MAGICLINKS, "ELOOP"),
        ("self/status", calls.RESOLVE_NO_SYMLINKS, "ELOOP"),
        ("self/root", 0, None),
        ("self/status", calls.RESOLVE_BENEATH, None),
    ],
)
def test_openat2_resolves_no_further_than_it_may(path: str, resolve: int, expected: str | None) -> None:
    directory = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    outcome = None
    try:
        os.close(calls.openat2(directory, path, os.O_PATH, 0, resolve))
    except OSError as error:
        outcome = errno.errorcode[error.errno or 0]
    finally:
        os.close(directory)

    assert outcome == expected


def test_openat2_closes_its_descriptor_on_exec() -> None:
    descriptor = calls.openat2(calls.AT_FDCWD, "/", os.O_PATH)

    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


def test_a_pidfd_signals_its_process_and_no_later_one() -> None:
    child = subprocess.Popen(["sleep", "60"])
    descriptor = calls.pidfd_open(child.pid)

    calls.pidfd_send_signal(descriptor, signal.SIGTERM)

    assert child.wait(10) == -signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        calls.pidfd_send_signal(descriptor, 0)
    with pytest.raises(ProcessLookupError):
        calls.pidfd_open(child.pid)
    os.close(descriptor)


def test_a_pidfd_gives_a_copy_of_a_descriptor() -> None:
    child = subprocess.Popen(["sleep", "60"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    process = calls.pidfd_open(child.pid)
    copy = calls.pidfd_getfd(process, 1)

    assert os.fstat(copy).st_ino == os.fstat(child.stdout.fileno()).st_ino
    assert not os.get_inheritable(copy)

    os.close(copy)
    os.close(process)
    child.kill()
    child.communicate()


def test_capget_says_what_proc_says() -> None:
    own = capabilities.own()

    assert calls.capget() == (own.effective, own.permitted, own.inheritable)


def test_the_last_capability_can_be_asked_for_without_proc() -> None:
    assert calls.last_cap() == capabilities.last_cap()


def test_close_range_closes_a_range(forked: object) -> None:
    assert callable(forked)

    def child() -> list[bool]:
        numbers = [os.dup(0) for _ in range(3)]
        calls.close_range(numbers[1], numbers[1])
        return [os.path.exists(f"/proc/self/fd/{number}") for number in numbers]

    assert forked(child) == [True, False, True]


def test_seccomp_knows_its_actions_and_refuses_what_is_no_filter() -> None:
    assert calls.seccomp(calls.SECCOMP_GET_ACTION_AVAIL, 0, struct.pack("I", 0x7FFF0000)) == 0
    with pytest.raises(OSError, match=r"."):
        calls.seccomp(calls.SECCOMP_GET_ACTION_AVAIL, 0, struct.pack("I", 0x12345678))
    for program in (b"", b"1234567", bytes(8 * 4097)):
        with pytest.raises(ValueError, match="filter has"):
            calls.seccomp(calls.SECCOMP_SET_MODE_FILTER, 0, program)


def test_a_filter_that_is_loaded_holds(forked: object) -> None:
    assert callable(forked)

    def child() -> tuple[int, str]:
        calls.prctl(calls.PR_SET_NO_NEW_PRIVS, 1)
        getppid = 110 if calls_base.MACHINE == "x86_64" else 173
        refuse = 0x00050000 | errno.ENOTUNIQ
        program = struct.pack("HBBI", 0x20, 0, 0, 0) + struct.pack("HBBI", 0x15, 0, 1, getppid)
        program += struct.pack("HBBI", 0x06, 0, 0, refuse) + struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)
        before = calls.syscall(getppid)
        calls.seccomp(calls.SECCOMP_SET_MODE_FILTER, 0, program)
        try:
            calls.syscall(getppid)
        except OSError as error:
            return before, errno.errorcode[error.errno or 0]
        return before, "allowed"

    assert forked(child) == (os.getpid(), "ENOTUNIQ")
