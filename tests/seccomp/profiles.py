"""Random seccomp configurations for property tests, kept near the values where compilers go wrong."""

from __future__ import annotations

from hypothesis import strategies as st

from stockade.sandbox.oci.spec import LinuxSeccomp, LinuxSeccompArg, LinuxSyscall

VALUES = (0, 1, 5, 0x5412, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**33 - 1, 2**33, 2**63, 2**64 - 1)
OPERATORS = ("EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ")
ACTIONS = ("ALLOW", "ERRNO", "KILL_PROCESS", "KILL_THREAD", "TRAP", "LOG", "TRACE", "NOTIFY")

conditions = st.builds(
    LinuxSeccompArg,
    index=st.integers(0, 2),
    value=st.one_of(st.sampled_from(VALUES), st.integers(0, 2**64 - 1)),
    op=st.sampled_from(OPERATORS).map("SCMP_CMP_".__add__),
    value_two=st.sampled_from(VALUES),
)


def entries(actions: tuple[str, ...] = ACTIONS, *, most_conditions: int = 2) -> st.SearchStrategy[LinuxSyscall]:
    return st.builds(
        LinuxSyscall,
        names=st.lists(st.sampled_from(("read", "lseek", "ioctl", "mseal", "socketcall")), min_size=1, max_size=2).map(
            tuple
        ),
        action=st.sampled_from(actions).map("SCMP_ACT_".__add__),
        errno_ret=st.one_of(st.none(), st.integers(0, 4095)),
        args=st.lists(conditions, max_size=most_conditions).map(tuple),
    )


configurations = st.builds(
    LinuxSeccomp,
    default_action=st.sampled_from(("SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_KILL_PROCESS")),
    default_errno_ret=st.sampled_from((None, 38)),
    architectures=st.sampled_from(((), ("SCMP_ARCH_X86",), ("SCMP_ARCH_X86", "SCMP_ARCH_X32"), ("SCMP_ARCH_AARCH64",))),
    syscalls=st.lists(entries(), max_size=3).map(tuple),
)
