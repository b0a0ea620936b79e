"""Each rule against its own examples, as its documentation shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stockade.audit import recorded
from stockade.audit.engine import evaluate
from stockade.audit.rules import RULES

if TYPE_CHECKING:
    from stockade.audit.rule import Example, Rule

EXAMPLES = [
    pytest.param(rule, example, id=f"{rule.id}-{'bad' if example.bad else 'good'}{number}")
    for rule in RULES.values()
    for number, example in enumerate(rule.text.examples, 1)
]


def broken(text: str, kind: str = "container") -> set[str]:
    return {finding.rule for finding in evaluate(recorded.load(text, kind=kind), RULES.values()).findings}


@pytest.mark.parametrize(("rule", "example"), EXAMPLES)
def test_an_example_breaks_its_own_rule_and_no_other(rule: Rule, example: Example) -> None:
    kind = "host" if rule.scope == "host" else "container"

    assert broken(example.text, kind) == ({rule.id} if example.bad else set())


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.id) for rule in RULES.values()])
def test_a_rule_shows_a_bad_and_a_good_example(rule: Rule) -> None:
    assert {example.bad for example in rule.text.examples} == {True, False}


def test_the_confined_container_breaks_no_rule_and_leaves_nothing_unknown() -> None:
    judged = evaluate(recorded.load(""))

    assert judged.findings == ()
    assert judged.paths == ()
    assert judged.unknown == ()
