"""The rules' documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from stockade.audit.explain import explain, page
from stockade.audit.rules import RULES
from stockade.errors import UsageError

PAGE = Path(__file__).resolve().parents[2] / "docs/rules.md"


def test_the_page_of_rules_is_what_the_rules_say() -> None:
    assert PAGE.read_text() == page(), "run: python -m stockade.audit.explain > docs/rules.md"


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_explains_itself(rule: str) -> None:
    text = explain(rule)

    assert RULES[rule].text.fix in text
    assert RULES[rule].text.why in text


def test_a_condition_explains_the_rules_that_look_for_it() -> None:
    assert "### engine_socket" in explain("MNT-SOCK")
    assert "### AP-CORE" in explain("AP-CORE")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UsageError, match="no rule, condition or path 'nothing'"):
        explain("nothing")


def test_a_name_is_found_in_any_case() -> None:
    assert explain("ap-core") == explain("AP-CORE")
    assert explain("Block_Device") == explain("block_device")
