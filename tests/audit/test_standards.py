"""What rules say that others call them: numbers that exist, in the form that links need."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from stockade.audit.explain import explain
from stockade.audit.rules import RULES

if TYPE_CHECKING:
    from stockade.audit.rule import Rule

# the sections of the CIS Docker Benchmark 1.6.0 and the CIS Kubernetes Benchmark 1.8
DOCKER = {"1": 2, "2": 19, "3": 24, "4": 12, "5": 32, "6": 2, "7": 9}
KUBERNETES = {"5.1": 13, "5.2": 13, "5.3": 2, "5.4": 2, "5.5": 1, "5.7": 4}


def known(section: str) -> bool:
    table = KUBERNETES if section.startswith("K8S ") else DOCKER
    chapter, _, number = section.removeprefix("K8S ").rpartition(".")
    if table is DOCKER and chapter.startswith("1."):
        return True  # 1.1.1 to 1.1.18 and 1.2.1 to 1.2.2
    return 1 <= int(number) <= table.get(chapter, 0)


@pytest.mark.parametrize(
    "rule", [pytest.param(rule, id=rule.id) for rule in RULES.values() if rule.scope == "container"]
)
def test_a_rule_names_a_weakness_and_only_numbers_that_exist(rule: Rule) -> None:
    standards = rule.standards

    assert standards.cwe
    assert [each for each in standards.cis if not known(each)] == []
    assert [each for each in standards.attack if not re.fullmatch(r"T\d{4}(\.\d{3})?", each)] == []
    assert [each for each in standards.cve if not re.fullmatch(r"CVE-\d{4}-\d{4,}", each)] == []


def test_an_explanation_names_and_links_them() -> None:
    text = explain("MNT-SOCK")

    assert "CIS Docker Benchmark 1.6.0: 5.32" in text
    assert "https://attack.mitre.org/techniques/T1611/" in text
    assert "https://cwe.mitre.org/data/definitions/250.html" in text
