"""Where --output of `stockade audit` writes, and what --list-rules and --explain give as JSON."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

from stockade import output
from stockade.audit import explain
from stockade.audit.paths import PATHS
from stockade.audit.rules import RULES
from stockade.errors import StockadeError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_dangling_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "second").symlink_to("reports/there")
    (tmp_path / "first").symlink_to("second")

    output.check(str(tmp_path / "first"))
    output.write("text", str(tmp_path / "first"))

    assert (tmp_path / "first").is_symlink()
    assert (tmp_path / "reports" / "there").read_text() == "text"
    assert stat.S_IMODE((tmp_path / "reports" / "there").stat().st_mode) == 0o600


def test_the_target_of_a_link_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "there"
    target.write_text("a report before this one, and a longer one")
    (tmp_path / "link").symlink_to(target)
    with target.open() as reader:
        output.write("new", str(tmp_path / "link"))

        assert reader.read() == "a report before this one, and a longer one"
    assert target.read_text() == "new"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link", "there"]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        output.check(pipe)
        output.write("text", pipe)

        assert os.read(reader, 100) == b"text"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(os.stat(pipe).st_mode)


def test_a_link_of_procfs_is_opened_and_not_taken_for_a_name(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    (tmp_path / "link").symlink_to(f"/proc/self/fd/{writer}")
    try:
        output.write("text", str(tmp_path / "link"))

        assert os.read(reader, 100) == b"text"
    finally:
        os.close(reader)
        os.close(writer)


def test_a_circle_of_links_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")

    with pytest.raises(StockadeError, match="too many links"):
        output.check(str(tmp_path / "a"))


@pytest.mark.parametrize("name", ["missing/file", "file/below"])
def test_a_place_without_a_directory_is_refused_before_the_work(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StockadeError, match="no file can be made in"):
        output.check(str(tmp_path / name))


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(UsageError, match="empty"):
        output.check("")


def test_the_list_of_rules_as_json_has_each_rule_and_path_once() -> None:
    told = json.loads(explain.as_json())

    assert [rule["id"] for rule in told["rules"]] == list(RULES)
    assert [path["id"] for path in told["paths"]] == [path.id for path in PATHS]
    assert {rule["severity"] for rule in told["rules"]} <= {"info", "low", "medium", "high", "critical"}
    assert all(rule["title"] and rule["why"] and rule["fix"] for rule in told["rules"])


def test_a_condition_as_json_has_its_rules_alone() -> None:
    told = json.loads(explain.as_json("mnt-sock"))

    assert told["rules"]
    assert all("MNT-SOCK" in rule["conditions"] for rule in told["rules"])
    with pytest.raises(UsageError, match="there is no rule"):
        explain.as_json("NO-SUCH")
