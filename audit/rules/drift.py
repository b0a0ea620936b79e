"""Where a configuration and the kernel disagree."""

from collections.abc import Iterator

from stockade.audit.facts import Declared
from stockade.audit.report import Severity
from stockade.audit.rule import Found, Outcome, rule, seen

_CONDITIONS = {
    "capabilities": "DRF-CAPS",
    "noNewPrivileges": "DRF-CAPS",
    "seccomp": "DRF-SECCOMP",
    "apparmorProfile": "DRF-LSM",
    "selinuxLabel": "DRF-LSM",
    "namespaces": "DRF-NS",
    "resources": "DRF-LIMITS",
}


@rule(
    Severity.MEDIUM,
    "https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md",
    conditions=("DRF-CAPS", "DRF-SECCOMP", "DRF-LSM", "DRF-MOUNT", "DRF-NS", "DRF-LIMITS"),
    attack=("T1562.001",),
    cwe=(693,),
)
def declared_otherwise(declared: Declared) -> Iterator[Outcome]:
    """The kernel's state differs from the declaration.

    What was asked for isn't what holds. Whoever reviewed the configuration reviewed something else; the other rules
    judge the kernel's state.

    Fix: start the container again from its configuration, and find out what changed it.

    ```toml bad
    [[Declared]]
    subject = "noNewPrivileges"
    declared = "true"
    effective = "false"
    ```

    ```toml good
    [[Declared]]
    subject = "seccomp"
    declared = "filter"
    effective = "filter"
    ```
    """
    if declared.declared == declared.effective:
        return
    condition = _CONDITIONS.get(declared.subject.split(".")[0], "DRF-MOUNT")
    title = f"{declared.subject} is declared {declared.declared} and is {declared.effective}"
    yield Found(title, declared.where, (seen(declared, title),), conditions=(condition,), key=declared.subject)
