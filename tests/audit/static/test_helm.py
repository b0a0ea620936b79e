"""Charts are audited as helm fills them in; a program in its place stands for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stockade.audit.documents.kinds import NotOne
from stockade.audit.documents.load import Broken
from stockade.audit.documents.walk import Source
from stockade.audit.facts import Target
from stockade.audit.static.files import audit_files
from stockade.audit.static.helm import targets

if TYPE_CHECKING:
    from pathlib import Path

CHART = "apiVersion: v2\nname: web\nversion: 1.0.0\n"
TEMPLATE = "{{- if .Values.on }}\napiVersion: v1\nkind: Pod\n{{- end }}\n"
POD = "{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {containers: [{name: app}]}}"


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """Make a chart with one template."""
    (tmp_path / "web/templates").mkdir(parents=True)
    (tmp_path / "web/Chart.yaml").write_text(CHART)
    (tmp_path / "web/templates/pod.yaml").write_text(TEMPLATE)
    return tmp_path / "web"


def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a program called helm at the one place that PATH names."""
    place = tmp_path / "bin"
    place.mkdir()
    if script:
        (place / "helm").write_text(f"#!/bin/sh\n{script}\n")
        (place / "helm").chmod(0o755)
    monkeypatch.setenv("PATH", str(place))


def read(chart: Path) -> list[str]:
    path = chart / "Chart.yaml"
    return [each.id for each in targets(Source(str(path), path.read_bytes())) if isinstance(each, Target)]


def test_a_chart_is_read_as_helm_fills_it_in(chart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, f'[ "$*" = "template release {chart}" ] && echo "{POD}"')

    assert read(chart) == [f"{chart}/Chart.yaml (helm template):Pod/web:app"]


def test_without_helm_the_chart_is_told_and_not_passed_over(
    chart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "")

    with pytest.raises(Broken, match="helm isn't installed"):
        read(chart)


def test_what_helm_says_of_a_chart_is_told(chart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "echo 'Error: found in Chart.yaml, but missing dependencies: db' >&2; exit 1")

    with pytest.raises(Broken, match="helm template: Error: found in") as raised:
        read(chart)
    assert "helm dependency build" in raised.value.hint


def test_a_chart_within_another_and_a_library_are_left_to_those_that_use_them(chart: Path) -> None:
    inner = chart / "charts/db"
    inner.mkdir(parents=True)
    (inner / "Chart.yaml").write_text(CHART)
    with pytest.raises(NotOne):
        read(inner)
    (chart / "Chart.yaml").write_text(CHART + "type: library\n")
    with pytest.raises(NotOne):
        read(chart)


def test_a_directory_gives_each_chart_once_and_no_error_for_its_templates(
    chart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, f"echo '{POD}'")

    collected = audit_files([str(chart)], jobs=1)

    assert [str(problem) for problem in collected.problems] == []
    assert [one.summary.id for one in collected.judged] == [f"{chart}/Chart.yaml (helm template):Pod/web:app"]


def test_a_template_that_was_asked_for_by_name_says_what_to_do(chart: Path) -> None:
    (problem,) = audit_files([str(chart / "templates/pod.yaml")], jobs=1).problems

    assert "a template, which isn't YAML" in problem.message
    assert "helm template" in problem.hint
