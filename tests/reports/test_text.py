"""The text report."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stockade.audit import recorded
from stockade.audit.engine import audit
from stockade.audit.report import Severity
from stockade.reports.text import render

if TYPE_CHECKING:
    from stockade.audit.report import Report

SOCKET = """
absent = ["SeccompFilter"]

[[EngineSocket]]
path = "/run/docker.sock"
engine = "docker"
permitted = true
"""
PLAIN = """\
1 attack path, 1 critical in 1 target, 3 not checked

ATTACK PATHS
critical AP-SOCK container:web: The container engine does the container's bidding
         1. web.toml: docker's socket at /run/docker.sock, may connect
         effect: the engine starts a privileged container with the host's root for whoever asks: root on the host
         break it: take the socket's mount away, or put a filtering proxy there
         shown by: the socket's permissions were compared with the container's ids; nobody connected

TARGETS
"""


def report(text: str = SOCKET) -> Report:
    return audit([recorded.load(text, "web")], fail_on=Severity.HIGH)


def test_attack_paths_come_first_then_targets_then_findings() -> None:
    text = render(report())

    assert text.startswith(PLAIN)
    assert text.index("\nTARGETS\n") < text.index("\nFINDINGS\n") < text.index("\nNOT CHECKED\n")
    assert text.endswith("\nFAILED: 2 of severity high or worse\n")


def test_a_pipe_gets_no_colour_and_a_terminal_does() -> None:
    assert "\x1b" not in render(report())
    assert "\x1b[" in render(report(), colour=True)


def test_a_pipe_gets_each_piece_of_evidence_on_one_line() -> None:
    long = "/very" * 60
    text = render(report(SOCKET.replace("/run/docker.sock", long + "/docker.sock")))

    assert f"         web.toml: {long}/docker.sock: the ids may connect\n" in text


def test_a_terminal_gets_lines_that_fit() -> None:
    text = render(report(SOCKET.replace("/run", "/very" * 60)), colour=True, width=80)
    plain = [part.partition("m")[2] if n else part for n, part in enumerate(text.split("\x1b["))]

    assert max(map(len, "".join(plain).split("\n"))) <= 80


def test_evidence_cannot_send_escapes_or_markup_to_the_terminal() -> None:
    (finding, *rest) = report().findings
    forged = replace(finding, title="[bold]x[/bold] \x1b]0;owned\x07", evidence=("a\nFAILED: forged",))
    text = render(replace(report(), findings=(forged, *rest)))

    assert "[bold]x[/bold] \\x1b]0;owned\\x07" in text
    assert "\nFAILED: forged" not in text


def test_a_container_without_fault_says_so_in_a_few_lines() -> None:
    text = render(report(""))

    assert text.startswith("no attack paths in 1 target, 0 not checked\n")
    assert "FINDINGS" not in text
    assert text.endswith("\nPASSED: nothing of severity high or worse\n")
