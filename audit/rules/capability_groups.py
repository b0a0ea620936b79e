"""Capabilities that mean much the same for the host: one rule for several of them."""

from collections.abc import Iterator

from stockade.audit import gates
from stockade.audit.facts import CapabilitySets, UserNamespace
from stockade.audit.report import Severity
from stockade.audit.rule import Found, Outcome, rule
from stockade.audit.rules.capabilities import line_of
from stockade.sandbox.linux import capabilities as caps

_MAN = "https://man7.org/linux/man-pages/man7/capabilities.7.html"

_KERNEL_VIEW = caps.mask(["BPF", "PERFMON", "SYSLOG"])


_POLICY = caps.mask(["AUDIT_CONTROL", "AUDIT_READ", "MAC_ADMIN", "MAC_OVERRIDE"])


_MACHINE = caps.mask(["SYS_BOOT", "SYS_TIME", "WAKE_ALARM", "BLOCK_SUSPEND", "CHECKPOINT_RESTORE"])


def _several(sets: CapabilitySets, userns: UserNamespace | None, mask: int, what: str) -> Iterator[Found]:
    held = gates.counting(sets, userns) & mask
    if held:
        names = ", ".join(caps.names(held))
        conditions = tuple(["CAP-" + name.removeprefix("CAP_") for name in caps.names(held)])
        yield Found(f"{names}: {what}", sets.where, (line_of(sets, held),), conditions=conditions)


@rule(
    Severity.HIGH,
    _MAN,
    conditions=("CAP-BPF", "CAP-PERFMON", "CAP-SYSLOG"),
    covers=("added_capabilities",),
    cis=("5.4", "K8S 5.2.9"),
    attack=("T1082",),
    cwe=(250,),
)
def kernel_view_capability(sets: CapabilitySets, userns: UserNamespace | None) -> Iterator[Outcome]:
    """The container can look into the kernel.

    CAP_BPF and CAP_PERFMON load programs that read kernel memory and watch every process; CAP_SYSLOG shows kernel
    addresses, with which an exploit defeats address randomisation.

    Fix: drop them; run the tracing agent on the host.

    ```toml bad
    [UserNamespace]
    initial = true

    [CapabilitySets]
    effective = ["CAP_BPF", "CAP_PERFMON"]
    permitted = ["CAP_BPF", "CAP_PERFMON"]
    ```

    ```toml good
    [UserNamespace]
    initial = true
    ```
    """
    yield from _several(sets, userns, _KERNEL_VIEW, "the container can look into the kernel")


@rule(
    Severity.HIGH,
    _MAN,
    conditions=("CAP-AUDIT_CONTROL", "CAP-AUDIT_READ", "CAP-MAC_ADMIN", "CAP-MAC_OVERRIDE"),
    covers=("added_capabilities",),
    cis=("5.4", "K8S 5.2.9"),
    attack=("T1562.001",),
    cwe=(250,),
)
def policy_capability(sets: CapabilitySets, userns: UserNamespace | None) -> Iterator[Outcome]:
    """The container can change or read the host's security policy.

    CAP_MAC_ADMIN loads policy for the security module that is meant to confine it; CAP_AUDIT_CONTROL turns the
    host's audit trail off, CAP_AUDIT_READ reads it.

    Fix: drop them.

    ```toml bad
    [UserNamespace]
    initial = true

    [CapabilitySets]
    effective = ["CAP_MAC_ADMIN"]
    permitted = ["CAP_MAC_ADMIN"]
    ```

    ```toml good
    [UserNamespace]
    initial = true
    ```
    """
    yield from _several(sets, userns, _POLICY, "the container can change or read the host's security policy")


@rule(
    Severity.MEDIUM,
    _MAN,
    conditions=("CAP-SYS_BOOT", "CAP-SYS_TIME", "CAP-WAKE_ALARM", "CAP-BLOCK_SUSPEND", "CAP-CHECKPOINT_RESTORE"),
    covers=("added_capabilities",),
    cis=("5.4", "K8S 5.2.9"),
    attack=("T1529",),
    cwe=(250,),
)
def machine_capability(sets: CapabilitySets, userns: UserNamespace | None) -> Iterator[Outcome]:
    """The container has a hand on the machine itself.

    Its clock, its sleep, a new kernel by kexec, the next process id: they belong to all containers alike.

    Fix: drop them; set the time on the host.

    ```toml bad
    [UserNamespace]
    initial = true

    [CapabilitySets]
    effective = ["CAP_SYS_TIME"]
    permitted = ["CAP_SYS_TIME"]
    ```

    ```toml good
    [UserNamespace]
    initial = true
    ```
    """
    yield from _several(sets, userns, _MACHINE, "the container has a hand on the machine itself")
