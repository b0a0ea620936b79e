"""The features document: every word in it is one that the reader and the plan take, and no word is missing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stockade.errors import UsageError
from stockade.sandbox.linux import seccomp
from stockade.sandbox.oci import read
from stockade.sandbox.plan_mount_options import Flags
from stockade.sandbox.runtime import feature_document

DOCUMENT = feature_document.document()
LINUX: dict[str, Any] = DOCUMENT["linux"]


def taken(linux: dict[str, Any] | None = None, **rest: object) -> bool:
    data = {"ociVersion": "1.0.0", "linux": linux or {}} | rest
    try:
        read.bundle(json.dumps(data).encode(), "config.json", [])
    except UsageError:
        return False
    return True


def filtered(**changes: object) -> dict[str, Any]:
    return {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", **changes}}


def test_both_ends_of_the_versions_are_read() -> None:
    for name in ("ociVersionMin", "ociVersionMax"):
        assert taken(ociVersion=DOCUMENT[name])


def test_each_hook_is_one_that_the_reader_knows() -> None:
    for name in DOCUMENT["hooks"]:
        assert not taken(hooks={name: [{"path": "relative"}]})  # an unknown name would be ignored
        assert taken(hooks={name: [{"path": "/a"}]})
    assert len(DOCUMENT["hooks"]) == 6


def test_each_namespace_is_one_that_the_reader_knows() -> None:
    maps = {"uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]}
    maps["gidMappings"] = maps["uidMappings"]
    for name in LINUX["namespaces"]:
        assert taken({"namespaces": [{"type": name}]} | (maps if name == "user" else {}))
    assert len(LINUX["namespaces"]) == 8


@pytest.mark.parametrize(
    ("key", "section"),
    [
        ("actions", lambda word: filtered(syscalls=[{"names": ["mkdir"], "action": word}])),
        ("archs", lambda word: filtered(architectures=[word])),
        ("knownFlags", lambda word: filtered(flags=[word])),
        (
            "operators",
            lambda word: filtered(
                syscalls=[
                    {"names": ["mkdir"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 1, "op": word}]}
                ]
            ),
        ),
    ],
)
def test_each_word_of_seccomp_is_one_that_the_reader_knows(key: str, section: Any) -> None:
    words = LINUX["seccomp"][key]

    assert words == sorted(words)
    assert [word for word in words if not taken(section(word))] == []
    assert not taken(section("OTHER"))


def test_the_kernel_here_takes_every_flag_that_is_called_supported() -> None:
    assert set(LINUX["seccomp"]["supportedFlags"]) <= set(LINUX["seccomp"]["knownFlags"])
    assert "SECCOMP_FILTER_FLAG_LOG" in LINUX["seccomp"]["supportedFlags"]  # Linux 4.14


def test_a_flag_that_the_kernel_refuses_is_not_called_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(seccomp.FLAGS, "SECCOMP_FILTER_FLAG_LOG", 1 << 30)

    assert "SECCOMP_FILTER_FLAG_LOG" not in feature_document.document()["linux"]["seccomp"]["supportedFlags"]


def test_mount_options_are_those_that_the_plan_keeps_from_the_file_system() -> None:
    listed = DOCUMENT["mountOptions"]

    assert listed == sorted(listed)
    assert listed == feature_document.MOUNT_OPTIONS.split()  # all that runtimes know
    assert [option for option in listed if Flags((option,)).data] == []
    assert "mode" not in listed


def test_capabilities_are_all_that_a_process_can_be_given() -> None:
    warnings: list[str] = []
    process = {"cwd": "/", "args": ["a"], "capabilities": {"bounding": LINUX["capabilities"]}}

    read.read_process(json.dumps(process).encode(), "process.json", warnings)

    assert warnings == []
    assert len(LINUX["capabilities"]) == 41


def test_what_is_refused_is_not_called_enabled() -> None:
    assert LINUX["intelRdt"] == {"enabled": False}
    assert not taken({"intelRdt": {}})
    assert DOCUMENT["annotations"]["org.opencontainers.runc.checkpoint.enabled"] == "false"
