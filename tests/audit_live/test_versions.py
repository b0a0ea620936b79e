"""Which versions are installed, and what their numbers tell."""

from __future__ import annotations

import gzip
import os
from typing import TYPE_CHECKING

import pytest

from stockade.audit import facts
from stockade.audit.engine import evaluate
from stockade.audit.facts import Gap, Target, Where
from stockade.audit.rules.advisories import ADVISORIES, parsed
from stockade.audit.targets import versions

if TYPE_CHECKING:
    from pathlib import Path

HERE = Where("/usr/sbin/runc")


def cves(name: str, version: str, package: str | None = None, fixed: tuple[str, ...] = ()) -> dict[str, str]:
    """Give CVE → severity of what is found in an installed version."""
    fact = facts.InstalledVersion(where=HERE, name=name, version=version, package=package, fixed=fixed)
    found = evaluate(Target("host", "here", "host", (fact,))).findings
    named = {advisory.condition: advisory.cve for advisory in ADVISORIES}
    return {named[each.conditions[0]]: each.severity.label for each in found}


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ("1.1.11", {"CVE-2024-21626", "CVE-2024-45310", "CVE-2025-31133"}),
        ("1.1.15", {"CVE-2025-31133"}),
        ("1.2.0-rc.1", {"CVE-2024-45310", "CVE-2025-31133"}),
        ("1.2.0-rc.3", {"CVE-2025-31133"}),
        ("1.2.8", set()),
        ("1.3.2", {"CVE-2025-31133"}),
        ("1.4.0-rc.2", {"CVE-2025-31133"}),
        ("1.4.0", set()),
        ("1.0.0-rc94", {"CVE-2021-30465", "CVE-2024-21626", "CVE-2024-45310", "CVE-2025-31133"}),
        ("1.0.0-rc92", {"CVE-2021-30465", "CVE-2024-45310", "CVE-2025-31133"}),
    ],
)
def test_a_version_is_compared_with_the_fix_of_its_own_branch(version: str, affected: set[str]) -> None:
    asked = {"CVE-2021-30465", "CVE-2024-21626", "CVE-2024-45310", "CVE-2025-31133"}

    assert cves("runc", version).keys() & asked == affected


def test_a_kernel_between_two_fixed_branches_is_affected_and_one_after_them_is_not() -> None:
    assert cves("kernel", "5.12.1").keys() == {"CVE-2022-0847"}
    assert cves("kernel", "5.10.102").keys() == set()
    assert cves("kernel", "5.4.300").keys() == set()
    assert cves("kernel", "6.1.0").keys() == set()
    assert cves("kernel", "4.18.0").keys() == set()


def test_what_the_packages_changelog_names_is_fixed_and_without_one_it_is_less_sure() -> None:
    named = cves("runc", "1.1.5", "1.1.5+ds1-1+deb12u1", ("CVE-2024-21626",))
    silent = cves("runc", "1.1.5", "1.1.5-2.el9")

    assert "CVE-2024-21626" not in named
    assert named["CVE-2025-31133"] == "medium"
    assert silent["CVE-2024-21626"] == "low"


def test_release_candidates_stand_below_their_release() -> None:
    order = ["1.0.0-rc92", "1.0.0-rc.95", "1.0.0", "1.1.5+ds1", "v1.2.0-rc.3", "1.2.0"]

    assert sorted(order, key=lambda text: parsed(text) or (0, 0, 0, 0)) == order


def program(directory: Path, text: str, mode: int = 0o755) -> Path:
    directory.mkdir(exist_ok=True)
    file = directory / "runc"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(mode)
    return file


def test_a_program_that_others_may_write_is_not_started(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    program(tmp_path / "bin", f"touch {ran}; echo runc version 1.1.5", 0o777)

    (told,) = versions.programs((str(tmp_path / "bin"),), str(tmp_path))

    assert isinstance(told, Gap)
    assert not ran.exists()


def test_a_program_below_a_directory_of_others_is_not_trusted(tmp_path: Path) -> None:
    file = program(tmp_path / "open", "true")
    (tmp_path / "open").chmod(0o777)

    assert not versions.trusted(str(file))
    assert versions.trusted(os.path.realpath("/usr/bin/env"))


def test_a_package_tells_the_version_without_starting_the_program(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    file = program(tmp_path / "bin", f"touch {ran}")
    (tmp_path / "dpkg/info").mkdir(parents=True)
    (tmp_path / "dpkg/info/runc.list").write_text(f"/.\n{file}\n")
    status = "Package: other\nVersion: 9\n\nPackage: runc\nStatus: install ok installed\nVersion: 1.1.12+ds1-5.1\n\n"
    (tmp_path / "dpkg/status").write_text(status)
    (tmp_path / "doc/runc").mkdir(parents=True)
    changes = gzip.compress(b"runc (1.1.12+ds1-5.1)\n  * Fix CVE-2024-45310 and CVE-2024-45310\n")
    (tmp_path / "doc/runc/changelog.Debian.gz").write_bytes(changes)

    (told,) = versions.programs((str(tmp_path / "bin"),), str(tmp_path / "dpkg"), str(tmp_path / "doc"))

    assert isinstance(told, facts.InstalledVersion)
    assert (told.version, told.package, told.fixed) == ("1.1.12", "1.1.12+ds1-5.1", ("CVE-2024-45310",))
    assert not ran.exists()
