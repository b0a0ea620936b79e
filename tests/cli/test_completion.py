"""The completion functions, evaluated in the shells themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Complete = Callable[[str, list[str]], list[str]]

ROOT = Path(__file__).resolve().parent.parent.parent

BASH = """
eval "$(stockade completion bash)"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_stockade_completion stockade 2>/dev/null # compopt works under readline only
printf '%s\\n' "${COMPREPLY[@]}"
complete -p stockade >&2
"""

ZSH = """
compdef() { : }
_describe() { print -rl -- ${(P)3} }
compadd() { print -rl -- ${(P)${@[-1]}} }
_path_files() { print FILES }
eval "$(stockade completion zsh)"
words=("$@")
CURRENT=$#
_stockade_completion
"""

FISH = """
stockade completion fish | source
complete -C "$argv"
"""


@pytest.fixture
def complete(tmp_path: Path) -> Complete:
    """Give a function of shell and words that gives what that shell would offer for the last word."""
    script = tmp_path / "stockade"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m stockade "$@"\n', "ascii")
    script.chmod(0o755)
    env = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
    }

    def offered(shell: str, words: list[str]) -> list[str]:
        commands = {
            "bash": ["bash", "--norc", "-c", BASH, "bash", *words],
            "zsh": ["zsh", "-f", "-c", ZSH, "zsh", *words],
            "fish": ["fish", "--no-config", "-c", FISH, " ".join(words)],
        }
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not installed here")
        done = subprocess.run(
            commands[shell], env=env, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
        )
        assert "rror" not in done.stderr, done.stderr
        return [line.split(":")[0].split("\t")[0] for line in done.stdout.splitlines() if line]

    return offered


SHELLS = pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])


@SHELLS
def test_commands_are_offered(complete: Complete, shell: str) -> None:
    assert {"run", "audit", "gc", "info", "completion"} <= set(complete(shell, ["stockade", ""]))


@SHELLS
def test_options_are_offered(complete: Complete, shell: str) -> None:
    assert complete(shell, ["stockade", "run", "--mem"]) == ["--memory", "--memory-swap"]


@SHELLS
def test_values_are_offered(complete: Complete, shell: str) -> None:
    assert set(complete(shell, ["stockade", "run", "--network", ""])) == {"none", "host"}
    assert "rootless" in complete(shell, ["stockade", "run", "--host", "--mode", "root"])


@pytest.mark.parametrize(
    ("words", "offer"),
    [
        (["--cap-add", "NET_A"], "NET_ADMIN"),
        (["--cap-add", "KILL,NET_A"], "KILL,NET_ADMIN"),
        (["--cap-ambient", "no"], "none"),
        (["--ulimit", "nof"], "nofile="),
        (["--stop-signal", "QU"], "QUIT"),
        (["--security-opt", "no"], "no-new-privileges"),
        (["--user", "roo"], "root"),
        (["--env", "HOM"], "HOME"),
        (["--host", "stock"], "stockade"),
        (["--init=false", "--host", "-it", "--", "stock"], "stockade"),
        (["--init", "=", "false", "-e", "A", "=", "1", "--host", "stock"], "stockade"),
        (["--cap-add", "=", "NET_A"], "NET_ADMIN"),
        (["--init=maybe", "--netw"], "--network"),
    ],
)
def test_what_an_option_may_be_is_offered(complete: Complete, words: list[str], offer: str) -> None:
    assert offer in complete("bash", ["stockade", "run", *words])


def test_no_offer_names_what_only_the_parser_uses(complete: Complete) -> None:
    offered = complete("bash", ["stockade", "run", "--"])

    assert "--init" in offered
    assert not [name for name in offered if "\0" in name or name.endswith("off")]
