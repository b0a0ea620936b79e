"""Policies: which findings count, how much, and the verdict on pods."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stockade import profiles
from stockade.audit import policy, recorded
from stockade.audit.engine import audit
from stockade.audit.report import Severity
from stockade.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from stockade.audit.report import Report

LATEST = '[Image]\nreference = "nginx:latest"\ntag = "latest"\n[RestartPolicy]\nvalue = "always"\n'
UNLIMITED = '[[CgroupLimit]]\nname = "pids"\nvalue = "max"\n'


def report(text: str, kind: str = "compose", fail_on: Severity | None = None) -> Report:
    return audit([recorded.load(text, "web", kind)], fail_on=fail_on)


def severities(report: Report) -> dict[str, str]:
    return {finding.rule: finding.severity.label for finding in report.findings}


def written(path: Path, text: str) -> str:
    file = path / "house.toml"
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize("name", profiles.names("policy"))
def test_a_policy_that_comes_along_can_be_loaded_under_its_name(name: str) -> None:
    assert policy.load(name).name == name
    assert policy.load(name).description


def test_all_changes_no_finding() -> None:
    before = report(LATEST)

    after = policy.load("all").apply(before)

    assert after.findings == before.findings
    assert after.policy is not None
    assert after.policy.name == "all"


def test_matters_of_style_are_info_by_default_and_fail_nothing() -> None:
    before = report(LATEST, fail_on=Severity.LOW)

    after = policy.load("default").apply(before)

    assert severities(before)["latest_tag"] == "low"
    assert severities(after)["latest_tag"] == "info"
    assert not before.verdict.passed
    assert after.verdict.passed
    assert after.targets[0].counts["low"] == 0


def test_a_limit_that_a_file_leaves_out_is_info_and_one_that_runs_without_keeps_its_severity() -> None:
    default = policy.load("default")

    assert severities(default.apply(report(UNLIMITED, "compose")))["process_limit"] == "info"
    assert severities(default.apply(report(UNLIMITED, "container")))["process_limit"] == "medium"


def test_a_policy_of_the_house_takes_findings_out_and_sets_the_threshold(tmp_path: Path) -> None:
    text = 'name = "house"\nfail_on = "info"\n[[change]]\nrules = ["latest_tag"]\nseverity = "off"\n'
    house = policy.load(written(tmp_path, text))

    after = house.apply(report(LATEST))

    assert "latest_tag" not in severities(after)
    assert after.verdict.threshold is Severity.INFO
    assert not after.verdict.passed


def test_the_severity_of_the_command_line_comes_before_that_of_the_policy(tmp_path: Path) -> None:
    house = policy.load(written(tmp_path, 'name = "house"\nfail_on = "info"\n'))

    assert house.apply(report(LATEST, fail_on=Severity.CRITICAL)).verdict.passed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "name is missing"),
        ("name = 1", "name is a text"),
        ('name = "x"\nfoo = 1', "unknown key 'foo'"),
        ('name = "x"\nstandard = "privileged"', "standard is baseline or restricted"),
        ('name = "x"\nfail_on = "bad"', "'bad' is no severity"),
        ('name = "x"\nchange = 1', "change is written [[change]]"),
        ('name = "x"\n[[change]]\nseverity = "info"', "names conditions or rules"),
        ('name = "x"\n[[change]]\nrules = "a"\nseverity = "info"', "rules is a list of texts"),
        ('name = "x"\n[[change]]\nrules = ["a"]\nseverity = "info"\ntargets = "some"', "targets is one of"),
        ("name = ", "Invalid value"),
    ],
)
def test_what_is_no_policy_is_refused_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        policy.load(written(tmp_path, text))

    assert message in caught.value.message


def test_an_unknown_name_is_told_with_those_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        policy.load("nope")

    assert "pss-baseline" in str(caught.value.hint)


POD = '[Workload]\nkind = "Pod"\nname = "web"\nnamespace = "shop"\n[Privileged]\nvalue = false\n'
PORT = POD + "[[Port]]\ncontainer_port = 8080\nhost_port = 8080\n"


def test_a_pod_fails_a_standard_by_its_violations_and_nothing_else() -> None:
    after = policy.load("pss-baseline").apply(report(PORT + LATEST, "kubernetes"))

    assert [finding.rule for finding in after.findings] == ["hostPorts"]
    assert after.policy is not None
    assert after.policy.pods is not None
    (pod,) = after.policy.pods
    assert (pod.pod.rpartition(":")[2], pod.passed, pod.violations) == ("Pod/shop/web", False, 1)
    assert not after.verdict.passed


def test_a_pod_without_violations_passes_and_what_is_no_pod_has_no_verdict() -> None:
    baseline = policy.load("pss-baseline")

    passed = baseline.apply(report(POD + LATEST, "kubernetes"))
    other = baseline.apply(report(LATEST, "compose"))

    assert passed.policy is not None
    assert [pod.passed for pod in passed.policy.pods or ()] == [True]
    assert passed.verdict.passed
    assert other.policy is not None
    assert other.policy.pods == ()
