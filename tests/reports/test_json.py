"""The JSON report and its published schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from stockade.audit import recorded
from stockade.audit.engine import audit
from stockade.audit.report import Severity
from stockade.reports.json_ import render

if TYPE_CHECKING:
    from stockade.audit.report import Report

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "reports/schema.json").read_text())
MIXED = """
absent = ["SeccompFilter"]

[[EngineSocket]]
path = "/run/docker.sock\\u001b[31m"
engine = "docker"
permitted = true

[[ControlFile]]
path = "/proc/sys/kernel/hotplug"
access = "write"
outcome = "absent"

[Host]
apparmor = false
selinux = false
"""


def report(text: str = MIXED) -> Report:
    return audit([recorded.load(text, "web")], fail_on=Severity.HIGH, version="1.0", generated="2026-01-02T03:04:05Z")


def validate(document: Any) -> None:
    validator = jsonschema.Draft202012Validator(SCHEMA, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    validator.validate(document)


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("text", [MIXED, "", 'absent = ["Identity", "CapabilitySets", "UserNamespace", "Mount"]'])
def test_a_report_follows_the_schema(text: str) -> None:
    validate(json.loads(render(report(text))))


@pytest.mark.parametrize("part", ["targets", "paths", "findings", "unknown", "not_applicable"])
def test_the_schema_refuses_a_field_it_does_not_know(part: str) -> None:
    document = json.loads(render(report()))
    document[part][0]["surprise"] = 1

    with pytest.raises(jsonschema.ValidationError, match="surprise"):
        validate(document)


def test_a_finding_has_the_published_shape() -> None:
    (finding, *_) = json.loads(render(report()))["findings"]

    assert finding["rule"] == "engine_socket"
    assert finding["conditions"] == ["MNT-SOCK"]
    assert finding["severity"] == "critical"
    assert finding["target"] == "container:web"
    assert finding["location"] == {"path": "web.toml", "line": None, "column": None}
    assert finding["evidence"] == ["web.toml: /run/docker.sock\\x1b[31m: the ids may connect"]
    assert {"title", "why", "fix"} <= finding.keys()


def test_escapes_do_not_reach_a_terminal_through_json() -> None:
    assert "\x1b" not in render(report())
    assert render(report()).isascii()


def test_the_same_report_gives_the_same_text() -> None:
    assert render(report()) == render(report())


def test_a_paths_graph_leads_from_the_target_over_its_facts_to_the_effect() -> None:
    (path,) = json.loads(render(report()))["paths"]
    nodes = {node["id"]: node for node in path["graph"]["nodes"]}
    edges = {(edge["from"], edge["to"]) for edge in path["graph"]["edges"]}
    facts = [node for node in nodes.values() if node["kind"] == "fact"]

    assert path["basis"] == "measured"
    assert [node["text"] for node in facts] == path["evidence"]
    assert [node["text"] for node in facts if node["breaks"]] == [path["breaks"]]
    assert edges == {
        ("step", "effect"),
        *(("target", each["id"]) for each in facts),
        *((each["id"], "step") for each in facts),
    }
    assert nodes["effect"]["text"] == path["effect"]


def test_a_finding_says_what_others_call_it() -> None:
    findings = {finding["rule"]: finding for finding in json.loads(render(report()))["findings"]}

    assert findings["engine_socket"]["standards"] == {
        "cis": ["5.32"],
        "attack": ["T1611", "T1610"],
        "cwe": [250],
        "cve": [],
    }


def test_the_lines_of_the_exposure_are_in_the_report() -> None:
    (web,) = [each for each in json.loads(render(report()))["targets"] if each["kind"] != "host"]

    assert web["exposure"]["lines"][0]["source"] == "AP-SOCK"
    assert round(sum(line["points"] for line in web["exposure"]["lines"]), 1) == web["exposure"]["score"]
