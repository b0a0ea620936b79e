"""The exposure score: a sum of lines that weights explain, and that no number of small findings makes large."""

from __future__ import annotations

import pytest

from stockade.audit import exposure, recorded
from stockade.audit.engine import evaluate
from stockade.audit.report import Exposure

SOCKET = '[[EngineSocket]]\npath = "/run/docker.sock"\nengine = "docker"\npermitted = true\n'
SMALL = '[[CgroupLimit]]\nname = "cpu"\nvalue = "max"\n[OomScoreAdj]\nvalue = -500\n[NoNewPrivs]\nvalue = false\n'


def score(text: str, kind: str = "container") -> Exposure:
    return exposure.of(evaluate(recorded.load(text, kind=kind)))


def test_a_confined_container_exposes_nothing() -> None:
    assert score("") == Exposure(0.0)


def test_the_lines_add_up_to_the_score_and_the_worst_stands_first() -> None:
    found = score(SOCKET + SMALL)

    assert round(sum(line.points for line in found.lines), 1) == found.score
    assert [line.points for line in found.lines] == sorted((line.points for line in found.lines), reverse=True)
    assert found.lines[0].source == "AP-SOCK"
    assert found.lines[0].reason == "critical way out, measured"


def test_what_a_way_out_rests_on_is_not_counted_twice() -> None:
    assert "engine_socket" not in {line.source for line in score(SOCKET).lines}


def test_one_way_out_weighs_more_than_many_small_findings() -> None:
    assert score(SOCKET).score > 80
    assert score(SMALL).score < 30
    assert score(SOCKET + SMALL).score <= 100


def test_what_a_file_declares_weighs_less_than_what_was_measured() -> None:
    assert score(SOCKET, "compose").score < score(SOCKET).score


def test_a_weight_moves_the_score() -> None:
    judged = evaluate(recorded.load(SMALL))
    usual = exposure.weights()
    none = exposure.Weights(usual.path, dict.fromkeys(usual.finding, 0.0), {})

    assert exposure.of(judged, none).score == 0
    assert exposure.of(judged, usual).score > 0


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_shares_at_the_ends_are_taken(share: float) -> None:
    judged = evaluate(recorded.load(SMALL))
    usual = exposure.weights()
    weights = exposure.Weights(usual.path, dict.fromkeys(usual.finding, share), {})

    assert exposure.of(judged, weights).score == 100 * share
