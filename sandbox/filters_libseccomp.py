"""libseccomp as a compiler of filters, held at arm's length: in a child process with a time limit.

Known of 2.5.4 to 2.6.1: several rules on one call with NE, LT, LE, GT or GE may compile to a program that lets through
what no rule allows, and some never come back from seccomp_rule_add(3). Its answer is worth nothing until verified.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from stockade.errors import StockadeError
from stockade.sandbox import filters_policy
from stockade.sandbox.linux import bpf, seccomp, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.oci.spec import LinuxSeccomp

TIME_LIMIT = 10.0  # seconds; a profile of 500 calls takes 0.1
_WORKER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "filters_libseccomp_worker.py")


def compile_config(config: LinuxSeccomp, machine: str, *, time_limit: float = TIME_LIMIT) -> bpf.Program:
    """Give libseccomp's program for a configuration, unverified.

    Raises StockadeError when there is no binding, when libseccomp refuses a rule, and when it takes too long.
    """
    request = json.dumps(_request(config, machine)).encode()
    # -I keeps the caller's directory and PYTHON* variables from choosing what is imported.
    command = [sys.executable, "-I", _WORKER]
    try:
        done = subprocess.run(command, input=request, capture_output=True, timeout=time_limit, check=False)
    except subprocess.TimeoutExpired:
        raise StockadeError(f"libseccomp did not finish within {time_limit:g} seconds") from None
    except OSError as error:
        raise StockadeError(f"libseccomp's helper did not start: {error.strerror}") from None
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {done.returncode}"]
        raise StockadeError(f"libseccomp refused the profile: {lines[-1]}")
    try:
        return bpf.unpack(done.stdout)
    except ValueError as error:
        raise StockadeError(f"libseccomp: {error}") from None


def _request(config: LinuxSeccomp, machine: str) -> dict[str, object]:
    """Say what to compile in libseccomp's terms: one rule for each name and each set of conditions."""
    policy = filters_policy.policy(config, machine)
    default = policy.tables[0].other
    numbers = syscalls.numbers(machine)
    rules = [
        (rule.value, name, numbers.get(name), rule.conditions)
        for position, call in enumerate(config.syscalls)
        for rule in filters_policy.rules_of(call, position)
        for name in call.names
        if rule.value != default  # libseccomp refuses rules that say what the default says
    ]
    own = syscalls.ACCEPTED[machine]
    listed = [each.oci.removeprefix("SCMP_ARCH_") for each in own[1:] if each.oci in config.architectures]
    return {"default": default, "bad_arch": seccomp.RET_KILL_PROCESS, "architectures": listed, "rules": rules}
