"""The sets that build promises are those that the kernel shows once the program runs, capabilities(7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stockade.sandbox.linux import capabilities

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.kernel

NNP_OFF = "--security-opt=no-new-privileges=false"


def sets(stockade: Callable[..., Any], *options: str) -> capabilities.Sets:
    done = stockade("run", "--host", *options, "--", "cat", "/proc/self/status")
    assert done.returncode == 0, done.stderr
    return capabilities.parse(done.stdout)


@pytest.mark.parametrize("userns", ["auto", "host"])
@pytest.mark.parametrize("no_new_privileges", [True, False])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--cap-drop", "ALL"], ("", "", "", "", "")),
        (["--cap-bounding", "KILL"], ("KILL", "KILL", "", "KILL", "")),
        (["--cap-inheritable", "KILL"], ("KILL", "KILL", "KILL", "KILL", "")),
        (["--user", "1000", "--cap-ambient", "KILL"], ("KILL",) * 5),
        (["--user", "1000", "--cap-drop", "ALL", "--cap-add", "CHOWN"], ("CHOWN",) * 5),
        (["--user", "1000", "--cap-bounding", "KILL,CHOWN", "--cap-ambient", "none"], ("KILL CHOWN", "", "", "", "")),
        # by a securebit, SECBIT_NOROOT
        (
            ["--cap-bounding", "KILL,CHOWN", "--cap-ambient", "KILL"],
            ("KILL CHOWN", "KILL CHOWN", "KILL", "KILL CHOWN", "KILL"),
        ),
        (
            ["--cap-bounding", "KILL,CHOWN", "--cap-ambient", "KILL", "--cap-permitted", "KILL"],
            ("KILL CHOWN", "KILL", "KILL", "KILL", "KILL"),
        ),
    ],
)
def test_the_sets_after_execve_are_the_promised_ones(
    stockade: Callable[..., Any],
    options: list[str],
    expected: tuple[str, ...],
    userns: str,
    no_new_privileges: bool,  # noqa: FBT001 - a truth of the file
) -> None:
    found = sets(stockade, "--userns", userns, *([] if no_new_privileges else [NNP_OFF]), *options)

    assert found == capabilities.Sets(*[capabilities.mask(names.split()) for names in expected])


def test_root_keeps_a_part_of_its_bounding_set_only_with_no_new_privileges(stockade: Callable[..., Any]) -> None:
    asked = ("--cap-bounding", "KILL,CHOWN", "--cap-permitted", "KILL")

    found = sets(stockade, *asked)

    assert (found.permitted, found.bounding) == (capabilities.mask(["KILL"]), capabilities.mask(["KILL", "CHOWN"]))
    refused = stockade("run", "--host", NNP_OFF, *asked, "--", "true")
    assert refused.returncode == 125
    assert "uid 0 has all of its bounding set" in refused.stderr
