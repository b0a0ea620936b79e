"""The completion of stockade-runtime, evaluated in the shells themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Complete = Callable[..., list[str]]

ROOT = Path(__file__).resolve().parent.parent.parent

BASH = """
eval "$(stockade-runtime completion bash)"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_stockade_runtime
printf '%s\\n' "${COMPREPLY[@]}"
complete -p stockade-runtime >&2
"""

# As zsh's _bash_complete calls it; what doesn't begin with the word is dropped by compadd, here by the caller.
ZSH = """
compdef() { : }
eval "$(stockade-runtime completion zsh)"
COMP_WORDS=("$@")
COMP_CWORD=$(( $# - 1 ))
compgen -F _stockade_runtime -- "${@[-1]}"
"""

FISH = """
stockade-runtime completion fish | source
complete -C "$argv"
"""


@pytest.fixture
def complete(tmp_path: Path) -> Complete:
    """Give a function of shell and words that gives what that shell would offer for the last word."""
    script = tmp_path / "stockade-runtime"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{ROOT}/sandbox/runtime/boot.py" "$@"\n', "ascii")
    script.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path), "LANG": "C.UTF-8"}

    def offered(shell: str, *words: str) -> list[str]:
        commands = {
            "bash": ["bash", "--norc", "-c", BASH, "bash", "stockade-runtime", *words],
            "zsh": ["zsh", "-f", "-c", ZSH, "zsh", "stockade-runtime", *words],
            "fish": ["fish", "--no-config", "-c", FISH, " ".join(("stockade-runtime", *words))],
        }
        done = subprocess.run(
            commands[shell], env=env, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
        )
        assert "rror" not in done.stderr, done.stderr
        found = [line.split("\t")[0] for line in done.stdout.splitlines() if line]
        return [word for word in found if word.startswith(words[-1])]

    return offered


SHELLS = pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])


@SHELLS
def test_commands_are_offered(complete: Complete, shell: str) -> None:
    assert set(complete(shell, "s")) == {"start", "state", "spec"}
    assert set(complete(shell, "--log", "/tmp/x", "st")) == {"start", "state"}


@SHELLS
def test_options_of_a_command_are_offered(complete: Complete, shell: str) -> None:
    assert set(complete(shell, "create", "--no-")) == {"--no-pivot", "--no-new-keyring", "--no-subreaper"}
    assert "--systemd-cgroup" in complete(shell, "--sys")


@SHELLS
@pytest.mark.parametrize("words", [("--log-format", "j"), ("list", "--format", "j"), ("ps", "-f", "j")])
def test_words_that_an_option_may_be_are_offered(complete: Complete, shell: str, words: tuple[str, ...]) -> None:
    assert complete(shell, *words) == ["json"]


@SHELLS
def test_containers_are_offered_of_the_root_that_the_line_names(complete: Complete, shell: str, tmp_path: Path) -> None:
    for name in ("web1", "web2", "db"):
        (tmp_path / "root" / name).mkdir(parents=True)

    assert set(complete(shell, "--root", str(tmp_path / "root"), "kill", "w")) == {"web1", "web2"}


@SHELLS
def test_an_option_joined_with_its_value_is_completed_too(complete: Complete, shell: str) -> None:
    words = ("list", "--format", "=", "j") if shell == "bash" else ("list", "--format=j")  # bash splits at =

    assert [word.rpartition("=")[2] for word in complete(shell, *words)] == ["json"]


def test_directories_are_offered_for_a_bundle(complete: Complete, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()

    assert complete("bash", "create", "--bundle", "bu") == ["bundle"]


def test_signals_are_offered_after_the_container(complete: Complete) -> None:
    assert complete("bash", "kill", "web1", "KI") == ["KILL"]


def test_a_shell_that_is_not_known_is_refused() -> None:
    boot = ROOT / "sandbox/runtime/boot.py"
    done = subprocess.run(
        [sys.executable, "-I", "-S", boot, "completion", "tcsh"], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr.splitlines()[1]) == (1, "  remedy: there is for bash, zsh, fish")
