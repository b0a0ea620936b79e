"""Programs and kernels whose version has a known way out. Less sure than what is measured: distributions backport."""

from collections.abc import Iterator

from stockade.audit.facts import InstalledVersion
from stockade.audit.report import Severity
from stockade.audit.rule import CannotTell, Found, Outcome, rule, seen
from stockade.audit.rules.advisories import ADVISORIES, Advisory

_CONDITIONS = tuple(advisory.condition for advisory in ADVISORIES)
_CVES = tuple(advisory.cve for advisory in ADVISORIES)


@rule(
    Severity.MEDIUM,
    "https://github.com/opencontainers/runc/blob/main/CHANGELOG.md",
    "https://www.debian.org/security/faq#oldversion",
    conditions=_CONDITIONS,
    scope="host",
    attack=("T1611", "T1068"),
    cwe=(1395,),
    cve=_CVES,
)
def known_escape(installed: InstalledVersion) -> Iterator[Outcome]:
    """A program or the kernel has a version with a known way out of containers.

    The version alone says so. Distributions fix such faults in the version that they have, without a new number: where
    the package's own changelog names the CVE it counts as fixed. What it doesn't name may be fixed all the same.

    Severity: never more than medium, for nothing was measured; low where the way is narrow, or where a distribution's
    package has no changelog to ask.

    Fix: install the updates of your distribution, or the version named.

    ```toml bad
    [[InstalledVersion]]
    name = "runc"
    version = "1.1.11"
    ```

    ```toml good
    [[InstalledVersion]]
    name = "runc"
    version = "1.4.3"
    ```
    """
    for advisory in ADVISORIES:
        if advisory.program != installed.name or advisory.cve in installed.fixed:
            continue
        affected = advisory.affects(installed.version)
        if affected and installed.name == "kernel" and ".el" in (installed.package or ""):
            # Red Hat's kernels keep the number of the release they began with for ten years
            yield CannotTell(f"{advisory.cve}: {installed.package} is a distribution's own kernel", installed.where)
        elif affected:
            yield _found(advisory, installed)


def _found(advisory: Advisory, installed: InstalledVersion) -> Found:
    fixed = " and ".join((", ".join(advisory.fixed[:-1]), advisory.fixed[-1]) if advisory.fixed[1:] else advisory.fixed)
    lines = [seen(installed, f"{installed.name} {installed.version}; {advisory.cve} is fixed in {fixed}")]
    severity = advisory.severity
    if installed.package:
        asked = "its changelog doesn't name it" if installed.fixed else "no changelog was found"
        lines.append(f"package version {installed.package}: distributions backport fixes; {asked}")
        severity = severity if installed.fixed else Severity.LOW
    return Found(
        f"{installed.name} {installed.version} is below the fix of {advisory.cve}: {advisory.what}",
        installed.where,
        tuple(lines),
        severity=severity,
        conditions=(advisory.condition,),
        fix=f"install {installed.name} {fixed} or your distribution's fix ({advisory.source})",
        key=advisory.cve,
    )
