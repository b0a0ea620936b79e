"""Many files in one audit: each is judged by itself, in several processes as in one, and none takes others with it."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
import types
from typing import TYPE_CHECKING

import pytest

from stockade.audit.documents.kinds import NotOne
from stockade.audit.documents.load import Broken
from stockade.audit.facts import Target, Where
from stockade.audit.static import COLLECTORS, building, files, workers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stockade.audit.documents.walk import Source

POD = """apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  containers:
    - name: app
      image: nginx:1
      securityContext: {{privileged: {privileged}}}
"""
HOSTILE = {
    "deep.yaml": "apiVersion: v1\nkind: Pod\na: " + "[" * 100_000,
    "deeper.yaml": "apiVersion: v1\nkind: Pod\na:\n" + "- " * 100_000,
    "deep.json": '{"apiVersion": "v1", "kind": "Pod", "a": ' + "[" * 100_000,
    "bomb.yaml": "apiVersion: v1\nkind: Pod\nb0: &b0 [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"b{n}: &b{n} [{','.join([f'*b{n - 1}'] * 9)}]\n" for n in range(1, 12)),
    "twice.yaml": "apiVersion: v1\nkind: Pod\nspec: {}\nspec: {}\n",
    "nul.yaml": "apiVersion: v1\nkind: Pod\na: \0\n",
    "types.yaml": "apiVersion: v1\nkind: Pod\nmetadata: 3\nspec: [1, 2]\n",
    "Dockerfile": "FROM a\nNOPE\n",
    "Dockerfile.nothing": "# nothing\n",
}


def odd(source: Source) -> Iterator[Target]:
    """Stand for a collector that a file breaks in any way there is."""
    if b"crash" in source.data:
        faulthandler.disable()  # pytest's, which would print where
        os.kill(os.getpid(), signal.SIGSEGV)
    if b"hang" in source.data:
        signal.pause()
    if b"leave" in source.data:
        os._exit(7)
    if b"bug" in source.data:
        raise ZeroDivisionError("a bug")
    if b"other" in source.data:
        raise NotOne
    found = tuple(building.privileged(Where(source.path, 1, 1)))
    yield Target(f"{source.path}:a", "a", "compose", found)
    if b"twice" in source.data:
        yield Target(f"{source.path}:a", "a", "compose", found)
    if b"half" in source.data:
        raise Broken(Where(source.path, 2, 1), "the rest is gone")


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Dockerfiles be read by `odd`."""
    module = types.ModuleType("odd_collector")
    vars(module)["targets"] = odd
    monkeypatch.setitem(sys.modules, "odd_collector", module)
    monkeypatch.setitem(COLLECTORS, "dockerfile", "odd_collector")


def write(root: Path, contents: dict[str, str]) -> None:
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def messages(collected: files.Collected, root: Path) -> dict[str, str]:
    return {os.path.relpath(each.location.path, root): each.message for each in collected.problems}


def test_several_processes_find_what_one_finds(tmp_path: Path) -> None:
    write(tmp_path, {f"{n % 7}/p{n}.yaml": POD.format(name=f"p{n}", privileged=n % 3 == 0) for n in range(90)})
    write(tmp_path, {"values.yaml": "a: 1\n", "b/Dockerfile": "FROM a\n", **HOSTILE})

    alone, together = (files.audit_files([str(tmp_path)], jobs=jobs) for jobs in (1, 3))

    ids = [one.summary.id for one in together.judged]
    assert len(ids) == 91
    assert ids == [one.summary.id for one in alone.judged]
    assert [one.findings for one in together.judged] == [one.findings for one in alone.judged]
    assert together.problems == alone.problems
    assert together.files == alone.files
    assert together.files.passed_over == 1


@pytest.mark.parametrize("jobs", [1, 2])
def test_each_hostile_file_is_told_and_the_others_are_audited(tmp_path: Path, jobs: int) -> None:
    write(tmp_path, {**HOSTILE, **{f"good{n}.yaml": POD.format(name=f"g{n}", privileged=True) for n in range(30)}})
    (tmp_path / "bytes.yaml").write_bytes(b"apiVersion: v1\nkind: Pod\na: \xff\n")
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.truncate(1 << 30)
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "loop").symlink_to(tmp_path)

    collected = files.audit_files([str(tmp_path)], jobs=jobs)

    assert set(messages(collected, tmp_path)) == {*HOSTILE, "bytes.yaml", "huge.yaml"}
    assert not [text for text in messages(collected, tmp_path).values() if "\n" in text or "internal error" in text]
    assert collected.files.failed == len(HOSTILE) + 2
    assert sum("good" in one.summary.id for one in collected.judged) == 30
    assert all(one.findings for one in collected.judged if "good" in one.summary.id)


@pytest.mark.usefixtures("collector")
def test_a_file_that_ends_the_process_is_named_and_the_process_is_replaced(tmp_path: Path) -> None:
    write(tmp_path, {f"{n:02}.Dockerfile": "FROM a\n" for n in range(60)})
    write(tmp_path, {"03.Dockerfile": "FROM crash\n", "04.Dockerfile": "FROM crash\n", "40.Dockerfile": "FROM leave\n"})

    collected = files.audit_files([str(tmp_path)], jobs=2)

    assert messages(collected, tmp_path) == {
        "03.Dockerfile": "reading it ended the process with signal SIGSEGV",
        "04.Dockerfile": "reading it ended the process with signal SIGSEGV",
        "40.Dockerfile": "reading it ended the process with exit code 7",
    }
    assert len(collected.judged) == 57


@pytest.mark.usefixtures("collector")
def test_a_file_that_takes_for_ever_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PATIENCE", 1.0)
    write(tmp_path, {f"{n:02}.Dockerfile": "FROM a\n" for n in range(40)} | {"20.Dockerfile": "FROM hang\n"})
    before = time.monotonic()

    collected = files.audit_files([str(tmp_path)], jobs=2)

    assert messages(collected, tmp_path) == {"20.Dockerfile": "not done after 1 s"}
    assert len(collected.judged) == 39
    assert time.monotonic() - before < 10


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_bug_of_a_collector_is_the_problem_of_one_file(tmp_path: Path, jobs: int) -> None:
    write(tmp_path, {f"{n:02}.Dockerfile": "FROM a\n" for n in range(30)})
    write(tmp_path, {"05.Dockerfile": "FROM bug\n", "06.Dockerfile": "FROM half\n", "07.Dockerfile": "FROM other\n"})

    collected = files.audit_files([str(tmp_path)], jobs=jobs)

    said = messages(collected, tmp_path)
    assert said["05.Dockerfile"].startswith("internal error: ZeroDivisionError: a bug (test_files.py:")
    assert said["06.Dockerfile"] == "the rest is gone"
    assert len(said) == 2
    assert [os.path.basename(path) for path in collected.passed_over] == ["07.Dockerfile"]
    assert len(collected.judged) == 28


def test_no_process_and_no_descriptor_is_left(tmp_path: Path) -> None:
    write(tmp_path, {f"p{n}.yaml": POD.format(name=f"p{n}", privileged=True) for n in range(40)})
    before = set(os.listdir("/proc/self/fd"))

    files.audit_files([str(tmp_path)], jobs=3)

    assert set(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_file_that_is_asked_for_by_name_and_declares_nothing_is_a_problem(tmp_path: Path) -> None:
    write(tmp_path, {"a.yml": "a: 1\n", "d/b.yml": "b: 1\n"})

    collected = files.audit_files([str(tmp_path / "a.yml"), str(tmp_path / "d"), str(tmp_path / "gone.yml")])

    assert messages(collected, tmp_path) == {
        "a.yml": "this declares no container that is known here",
        "gone.yml": "no such file or directory",
    }
    assert (collected.files.failed, collected.files.passed_over) == (2, 1)


def test_progress_is_told_for_each_file(tmp_path: Path) -> None:
    write(tmp_path, {f"p{n}.yaml": POD.format(name=f"p{n}", privileged=True) for n in range(40)})
    told: list[tuple[int, int]] = []

    files.audit_files([str(tmp_path)], jobs=2, progress=lambda done, of: told.append((done, of)))

    assert told == [(number, 40) for number in range(1, 41)]


@pytest.mark.usefixtures("collector")
def test_what_is_declared_twice_counts_twice(tmp_path: Path) -> None:
    write(tmp_path, {"Dockerfile": "FROM twice\n"})

    first, second = files.audit_files([str(tmp_path)]).judged

    assert second.summary.id == f"{first.summary.id}#2"
    assert {each.target for each in second.findings} == {second.summary.id}
    assert len(first.findings) == len(second.findings) > 0
