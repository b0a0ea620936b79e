"""`stockade audit` of files as a whole command: what it reads, says and returns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from stockade.cli_audit import complete_target

STOCKADE = os.path.join(os.path.dirname(sys.executable), "stockade")
BAD = """apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
    - name: app
      image: nginx:1
      securityContext:
        privileged: true
"""
SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "reports" / "schema.json").read_text())


def audit(*arguments: str, cwd: Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [STOCKADE, "audit", *arguments], cwd=cwd, input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip


def report(*arguments: str, cwd: Path, stdin: bytes | None = None) -> dict[str, Any]:
    done = audit(*arguments, "--format", "json", cwd=cwd, stdin=stdin)
    document: dict[str, Any] = json.loads(done.stdout)
    jsonschema.validate(document, SCHEMA)
    return document


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "k8s").mkdir()
    (tmp_path / "k8s" / "web.yaml").write_text(BAD)
    (tmp_path / "Dockerfile").write_text("FROM alpine:3\nRUN curl -k https://x | sh\n")
    (tmp_path / "values.yml").write_text("a: 1\n")
    (tmp_path / ".gitignore").write_text("out/\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "web.yaml").write_text(BAD)
    return tmp_path


def test_a_directory_is_searched_and_findings_have_the_places_of_the_keys(project: Path) -> None:
    found = report(".", cwd=project)

    assert [target["id"] for target in found["targets"]] == ["./Dockerfile:0", "./k8s/web.yaml:Pod/web:app"]
    assert found["summary"]["files"] == {"audited": 2, "passed_over": 1, "failed": 0}
    (privileged,) = [each for each in found["findings"] if "PRV-PRIVILEGED" in each["conditions"]]
    assert privileged["location"] == {"path": "./k8s/web.yaml", "line": 9, "column": 9}
    assert found["host"] == {}


def test_verbose_names_what_was_passed_over(project: Path) -> None:
    quiet, verbose = audit(".", cwd=project), audit("-v", ".", cwd=project)

    assert quiet.stderr == b""
    assert verbose.stderr == b"stockade: ./values.yml: passed over, it declares no container\n"
    assert b"2 files, 1 passed over" in quiet.stdout


def test_standard_input_is_audited(project: Path) -> None:
    found = report("-", cwd=project, stdin=BAD.encode())

    assert [target["id"] for target in found["targets"]] == ["stdin:Pod/web:app"]
    assert found["findings"][0]["location"]["path"] == "stdin"


def test_a_pipe_of_the_shell_is_audited(project: Path) -> None:
    command = f"{STOCKADE} audit <(cat k8s/web.yaml)"

    done = subprocess.run(["bash", "-c", command], cwd=project, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert "Pod/web:app" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["k8s"], 0, ""),
        (["k8s", "--fail-on", "critical"], 1, ""),
        (["Dockerfile", "--fail-on", "critical"], 0, ""),
        (["k8s", "--fail-on", "nothing"], 2, "invalid value"),
        (["out/nothing"], 4, "out/nothing: no such file or directory"),
        (["empty"], 3, "no file there declares a container"),
        (["broken.yaml"], 4, "broken.yaml:4:1: the key 'kind' is there twice, first in line 2"),
        (["broken.yaml", "k8s", "--fail-on", "high"], 1, "broken.yaml:4:1"),
        (["broken.yaml", "k8s"], 4, "broken.yaml:4:1"),
        (["values.yml"], 4, "this declares no container that is known here"),
        (["nonsense"], 2, "'nonsense' is no target"),
        (["pid:0", "k8s"], 2, "'pid:0' is no target"),
    ],
)
def test_exit_codes_say_what_happened(project: Path, arguments: list[str], code: int, said: str) -> None:
    (project / "empty").mkdir()
    (project / "broken.yaml").write_text("apiVersion: v1\nkind: Pod\nspec: {}\nkind: Pod\n")

    done = audit(*arguments, cwd=project)

    assert (done.returncode, said in done.stderr.decode()) == (code, True), done.stderr


def test_a_file_that_can_not_be_read_is_in_every_format(project: Path) -> None:
    (project / "k8s" / "broken.yaml").write_bytes(b"apiVersion: v1\nkind: Pod\nname: \xff\n")

    found = report("k8s", cwd=project)
    texts = [audit("k8s", "--format", style, cwd=project).stdout.decode() for style in ("text", "html")]

    assert found["errors"] == [
        {
            "location": {"path": "k8s/broken.yaml", "line": 3, "column": 7},
            "message": "not UTF-8: byte 0xff",
            "hint": "",
        }
    ]
    assert all("k8s/broken.yaml:3:7" in text and "Pod/web:app" in text for text in texts)


def test_files_and_running_processes_are_audited_together(project: Path) -> None:
    found = report(f"pid:{os.getpid()}", "k8s/web.yaml", cwd=project)

    kinds = [target["kind"] for target in found["targets"]]
    assert kinds.count("process") == 1
    assert kinds[-1] == "kubernetes"
    assert "kernel" in found["host"]


def test_a_file_that_is_called_like_a_target_is_named_by_its_path(project: Path) -> None:
    (project / "self").write_text(BAD)

    found = report("./self", cwd=project)

    assert [target["id"] for target in found["targets"]] == ["./self:Pod/web:app"]


def test_the_report_on_many_files_is_the_same_document_in_lines(tmp_path: Path) -> None:
    for number in range(520):
        (tmp_path / f"p{number}.yaml").write_text(BAD.replace("name: web", f"name: web{number}"))

    done = audit(".", "--format", "json", cwd=tmp_path)

    found = json.loads(done.stdout)
    jsonschema.validate(found, SCHEMA)
    assert len(found["targets"]) == 520
    assert (
        len(done.stdout.splitlines())
        < sum(len(found[name]) for name in ("targets", "findings", "paths", "unknown")) + 60
    )


def test_of_very_many_targets_the_table_has_the_worst(tmp_path: Path) -> None:
    for number in range(130):
        harmless = BAD.replace("true", "false") if number != 77 else BAD
        (tmp_path / f"p{number}.yaml").write_text(harmless.replace("name: web", f"name: web{number}"))

    said = audit(".", cwd=tmp_path).stdout.decode()

    table = said[said.index("TARGETS") : said.index("FINDINGS")]
    assert "and 30 more with less to say" in table
    assert "web77" in table.replace("\n", "")


def test_paths_are_completed_by_the_shell() -> None:
    offered = [(item.value, item.type) for item in complete_target(None, None, "./k8s/we")]  # type: ignore[arg-type]

    assert offered == [("./k8s/we", "file")]
    assert "self" in {item.value for item in complete_target(None, None, "se")}  # type: ignore[arg-type]
