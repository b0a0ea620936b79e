"""Compile one filter with libseccomp, in a process of its own: rules on standard input as JSON, BPF on standard output.

seccomp_rule_add(3) can run for ever on some rules, so whoever starts this sets a time limit. It imports nothing of
Stockade's, so that it runs by its path under any interpreter that has a binding.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from typing import Any

try:
    import seccomp  # pyright: ignore[reportMissingImports]
except ImportError:
    import pyseccomp as seccomp


def main() -> None:
    """Read the request, write the program."""
    request: dict[str, Any] = json.load(sys.stdin)
    made = _filter(request, "NATIVE")
    for name in request["architectures"]:
        made.merge(_filter(request, name))
    with tempfile.TemporaryFile() as file:
        made.export_bpf(file)
        file.seek(0)
        os.write(1, file.read())


def _filter(request: dict[str, Any], architecture: str) -> Any:
    """Give the filter of one architecture."""
    native = architecture == "NATIVE"
    made = seccomp.SyscallFilter(request["default"])
    made.set_attr(seccomp.Attr.ACT_BADARCH, request["bad_arch"])
    # Level 2 is a binary tree over the numbers, libseccomp 2.5.
    made.set_attr(seccomp.Attr.CTL_OPTIMIZE, 2)
    if not native:
        made.add_arch(getattr(seccomp.Arch, architecture))
        made.remove_arch(seccomp.Arch.NATIVE)
    for action, name, number, conditions in request["rules"]:
        # A call that the library has never heard of can be given by its number, but on its own architecture only.
        call = _resolve(name)
        if call is None and native:
            call = number
        if call is None:
            continue
        try:
            made.add_rule(action, call, *[_argument(*condition) for condition in conditions])
        except OSError as error:
            raise SystemExit(f"{name} on {architecture}: {error.strerror}") from None
    return made


def _argument(index: int, operator: str, value: int, second: int) -> Any:
    return seccomp.Arg(index, getattr(seccomp, operator), value, second)


def _resolve(name: str) -> int | None:
    try:
        number = seccomp.resolve_syscall(seccomp.Arch.NATIVE, name)
    except ValueError:  # the official binding
        return None
    return None if number == -1 else int(number)  # pyseccomp gives __NR_SCMP_ERROR


if __name__ == "__main__":
    main()
