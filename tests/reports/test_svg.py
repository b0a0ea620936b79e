"""The drawing of an attack path."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from stockade.audit.facts import Where
from stockade.audit.report import Path, Severity
from stockade.reports import svg

HOSTILE = '"><script>alert(1)</script>\x1b[31m\u202e'


def path(*evidence: str, breaks: str = "") -> Path:
    return Path(
        id="AP-TEST",
        target="container:web",
        severity=Severity.HIGH,
        title="A way out",
        effect="root on the host",
        evidence=evidence,
        proof="read",
        fix="close it",
        breaks=breaks or evidence[0],
        location=Where("/proc/1/status"),
    )


def boxes(drawing: str) -> list[ET.Element]:
    return [each for each in ET.fromstring(drawing).iter() if each.tag.endswith("rect")]  # noqa: S314 -- our own


def test_a_path_has_a_box_for_each_fact_the_step_and_the_effect() -> None:
    drawing = svg.draw(path("one", "two"))

    assert len(boxes(drawing)) == 4
    assert "A way out" in drawing
    assert "root on the host" in drawing


def test_what_the_fix_takes_away_is_dashed_and_nothing_else() -> None:
    dashed = [box for box in boxes(svg.draw(path("one", "two", breaks="two"))) if "stroke-dasharray" in box.attrib]

    assert len(dashed) == 1


def test_of_many_facts_the_one_that_the_fix_takes_away_is_drawn() -> None:
    facts = [f"fact {number}" for number in range(40)]
    drawing = svg.draw(path(*facts, breaks="fact 39"))

    assert "fact 39" in drawing
    assert "and 32 more" in drawing
    assert len(boxes(drawing)) == 8 + 1 + 2


def test_no_box_lies_on_another_or_outside() -> None:
    drawing = svg.draw(path(*["a fact " * 30] * 5))
    height = int(ET.fromstring(drawing).attrib["height"])  # noqa: S314 -- our own
    areas = [tuple(int(box.attrib[key]) for key in ("x", "y", "width", "height")) for box in boxes(drawing)]

    for number, (x, y, width, tall) in enumerate(areas):
        assert x >= 0
        assert x + width <= 760
        assert y + tall <= height
        for other_x, other_y, other_width, other_tall in areas[number + 1 :]:
            apart = x + width <= other_x or other_x + other_width <= x
            assert apart or y + tall <= other_y or other_y + other_tall <= y


def test_text_that_a_container_chose_stays_text() -> None:
    drawing = svg.draw(path(HOSTILE))

    assert "<script" not in drawing
    assert "\x1b" not in drawing
    assert "\u202e" not in drawing
    assert len(boxes(drawing)) == 3
