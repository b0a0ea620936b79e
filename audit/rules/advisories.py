"""Known ways out of containers that a program's version tells of. Each with the place where its versions stand.

A row isn't here without a source that names the fixed versions; docs/audit.md lists those that are left out.
"""

import re
from dataclasses import dataclass

from stockade.audit.report import Severity

_RUNC = "https://github.com/opencontainers/runc/security/advisories/"
_Version = tuple[int, int, int, int]
_TEXT = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?:[-~.]?rc\.?(\d+))?")
_RELEASED = 1 << 30


@dataclass(frozen=True)
class Advisory:
    """One CVE: versions of the program from `since` on are affected below the first of `fixed` in their branch."""

    condition: str
    program: str
    cve: str
    fixed: tuple[str, ...]
    what: str
    source: str
    since: str = "0.0.0"
    severity: Severity = Severity.MEDIUM

    def affects(self, version: str) -> bool | None:
        """Say whether a version is affected, by number alone; None for what is no version."""
        mine, since = parsed(version), parsed(self.since)
        fixes = sorted(each for text in self.fixed if (each := parsed(text)))
        if mine is None or since is None:
            return None
        if mine < since:
            return False
        branch = [fix for fix in fixes if fix[:2] == mine[:2]]
        return mine < (branch or fixes)[-1]


def parsed(text: str) -> _Version | None:
    """Read "1.4.0-rc.3", "v0.12.5", "1.1.5+ds1": the release candidate is last and below its release."""
    found = _TEXT.match(text)
    if found is None:
        return None
    major, minor, patch, candidate = found.groups()
    return int(major), int(minor), int(patch or 0), int(candidate) if candidate else _RELEASED


ADVISORIES = (
    Advisory(
        "VER-RUNC-2019-5736", "runc", "CVE-2019-5736", ("1.0.0-rc7",),
        "a container may overwrite runc's own program", f"{_RUNC}GHSA-gxmr-w5mj-v8hh",
    ),
    Advisory(
        "VER-RUNC-2021-30465", "runc", "CVE-2021-30465", ("1.0.0-rc95",),
        "a link that is swapped in time leads a mount out of the container", f"{_RUNC}GHSA-c3xm-pvg7-gh7r",
    ),
    Advisory(
        "VER-RUNC-2023-25809", "runc", "CVE-2023-25809", ("1.1.5",),
        "rootless containers without a cgroup namespace may write their user's groups",
        f"{_RUNC}GHSA-m8cg-xc2p-r3fc", severity=Severity.LOW,
    ),
    Advisory(
        "VER-RUNC-2024-21626", "runc", "CVE-2024-21626", ("1.1.12",),
        "a descriptor of a directory of the host is left open to containers", f"{_RUNC}GHSA-xr7r-f8xq-vfvv",
        since="1.0.0-rc93",
    ),
    Advisory(
        "VER-RUNC-2024-45310", "runc", "CVE-2024-45310", ("1.1.14", "1.2.0-rc.3"),
        "empty files and directories can be made on the host", f"{_RUNC}GHSA-jfvp-7x6p-h2pv", severity=Severity.LOW,
    ),
    Advisory(
        "VER-RUNC-2025-31133", "runc", "CVE-2025-31133", ("1.2.8", "1.3.3", "1.4.0-rc.3"),
        "a link in the place of /dev/null lets masks become writable files of /proc", f"{_RUNC}GHSA-9493-h29p-rfm2",
    ),
    Advisory(
        "VER-RUNC-2025-52565", "runc", "CVE-2025-52565", ("1.2.8", "1.3.3", "1.4.0-rc.3"),
        "a link in the place of a terminal is mounted on /dev/console", f"{_RUNC}GHSA-qw9x-cqr3-wc7r",
        since="1.0.0-rc3",
    ),
    Advisory(
        "VER-RUNC-2025-52881", "runc", "CVE-2025-52881", ("1.2.8", "1.3.3", "1.4.0-rc.3"),
        "writes to /proc can be led elsewhere, so that labels aren't set", f"{_RUNC}GHSA-cgrx-mc8f-2prm",
    ),
    Advisory(
        "VER-RUNC-2026-41579", "runc", "CVE-2026-41579", ("1.3.6", "1.4.3", "1.5.0-rc.3"),
        "an image whose /dev is a link may have files of the host written", f"{_RUNC}GHSA-xjvp-4fhw-gc47",
        severity=Severity.LOW,
    ),
    Advisory(
        "VER-CONTAINERD-2020-15257", "containerd", "CVE-2020-15257", ("1.3.9", "1.4.3"),
        "containers in the host's network may give containerd's shims orders",
        "https://github.com/containerd/containerd/security/advisories/GHSA-36xw-fx78-c5r4",
    ),
    Advisory(
        "VER-CONTAINERD-2022-23648", "containerd", "CVE-2022-23648", ("1.4.13", "1.5.10", "1.6.1"),
        "an image's volumes may name files of the host",
        "https://github.com/containerd/containerd/security/advisories/GHSA-crp2-qrr5-8pq7",
    ),
    Advisory(
        "VER-BUILDKIT-2024-23651", "buildkit", "CVE-2024-23651", ("0.12.5",),
        "steps that share a cache may reach files of the host",
        "https://github.com/moby/buildkit/security/advisories/GHSA-m3r6-h7wv-7xxv",
    ),
    Advisory(
        "VER-BUILDKIT-2024-23652", "buildkit", "CVE-2024-23652", ("0.12.5",),
        "a build may have files of the host removed",
        "https://github.com/moby/buildkit/security/advisories/GHSA-4v98-7qmw-rqr8",
    ),
    Advisory(
        "VER-KERNEL-2016-5195", "kernel", "CVE-2016-5195", ("4.4.26", "4.7.9", "4.8.3"),
        "read-only files can be written, those of the host as well (Dirty COW)", "https://dirtycow.ninja/",
        since="4.4.0",  # older branches got the fix as well, in versions that the source doesn't name
    ),
    Advisory(
        "VER-KERNEL-2022-0847", "kernel", "CVE-2022-0847", ("5.10.102", "5.15.25", "5.16.11"),
        "read-only files can be written, those of the host as well (Dirty Pipe)", "https://dirtypipe.cm4all.com/",
        since="5.8.0",
    ),
)  # fmt: skip
