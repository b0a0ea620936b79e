"""Keywords of `Sandbox`: text means what it means on the command line, other values are fields of the Request."""

from __future__ import annotations

from typing import Any

import pytest

from stockade import Sandbox
from stockade.errors import UsageError
from stockade.sandbox import arguments

ARGV = ("true",)


@pytest.mark.parametrize(
    ("keywords", "line"),
    [
        ({"memory": "64m"}, "--memory 64m"),
        ({"memory": 64 << 20}, "--memory 64m"),
        ({"volume": ["/a:/b:ro", "/c:/d"], "tmpfs": "/t"}, "-v /a:/b:ro -v /c:/d --tmpfs /t"),
        ({"mounts": ["/a:/b"], "ulimits": ("nofile=9",)}, "-v /a:/b --ulimit nofile=9"),
        ({"env": ["A=1", "B="]}, "-e A=1 -e B="),
        ({"env": (("A", "1"),)}, "-e A=1"),
        ({"cap_add": "CHOWN", "cap_bounding": "none"}, "--cap-add CHOWN --cap-bounding none"),
        ({"cap_bounding": ()}, "--cap-bounding none"),
        ({"uidmap": ["0:5:1"], "user": "7", "timeout": "2s"}, "--uidmap 0:5:1 --user 7 --timeout 2"),
        ({"security_opt": ["no-new-privileges"], "init": True}, "--security-opt no-new-privileges --init"),
    ],
)
def test_a_keyword_means_what_the_option_means(keywords: dict[str, Any], line: str) -> None:
    expected = arguments.parse(["--host", *line.split(), "true"])

    assert expected is not None
    assert arguments.from_keywords(ARGV, {"host_root": True, **keywords}) == expected


def test_a_wrong_value_names_its_keyword() -> None:
    with pytest.raises(UsageError, match=r"^memory='64q': expected a size"):
        Sandbox(memory="64q")


def test_a_line_is_no_argv() -> None:
    with pytest.raises(TypeError, match="sequence of words"):
        Sandbox().run("ls -l")
