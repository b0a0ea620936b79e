"""The house rules: linters are clean, import contracts hold, modules and functions stay small, docs keep up."""

from __future__ import annotations

import ast
import configparser
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
LINTERS = {
    "ruff": ["-m", "ruff", "check"],
    "mypy": ["-m", "mypy"],
    "pyright": ["-m", "pyright"],
    "import-linter": ["-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-logo"],
}
# What costs `stockade run` 3 to 15 ms each (measured; the whole command should take 20).
HEAVY = {
    *("click", "contextlib", "dataclasses", "enum", "functools", "inspect", "jinja2", "json", "logging", "pathlib"),
    *("re", "rich", "socket", "subprocess", "threading", "tomllib", "typing"),
}
MODULE_LINES = 450
FUNCTION_LINES = 40


def modules(*parts: str) -> Iterator[Path]:
    """Give the Python files of top-level folders, each once: links are not entered."""
    for part in parts:
        for folder, _, files in os.walk(ROOT / part):
            yield from (Path(folder, file) for file in sorted(files) if file.endswith(".py"))


def ours() -> Iterator[Path]:
    return modules("stockade", "sandbox", "audit", "reports", "profiles", "bench")


@pytest.mark.parametrize("linter", LINTERS)
def test_a_linter_has_nothing_to_say(linter: str) -> None:
    done = subprocess.run([sys.executable, *LINTERS[linter]], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_no_module_holds_more_than_one_can_read_at_a_sitting() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in ours()}

    assert {path: size for path, size in sizes.items() if size > MODULE_LINES} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    long: list[str] = []
    for path in ours():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) is not None else node.body
                size = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
                if size > FUNCTION_LINES:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {size} lines")

    assert long == []


@pytest.mark.kernel
def test_a_plain_run_imports_nothing_that_costs_milliseconds() -> None:
    program = "from stockade.cli import main; main()"  # as the installed command does; -m would import runpy's
    command = [sys.executable, "-I", "-X", "importtime", "-c", program, "run", "--host", "--", "true"]
    subprocess.run(command, capture_output=True, check=True)  # fills the caches
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {match[1] for match in re.finditer(r"\| +([\w.]+)$", done.stderr, re.MULTILINE)}

    assert {name for name in imported if name.partition(".")[0] in HEAVY} == set()
    assert "stockade.sandbox.launch" in imported


def test_each_dependency_has_its_reason_in_the_decisions() -> None:
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    wanted = setup["options"]["install_requires"] + "".join(setup["options.extras_require"].values())
    names = {match[1] for match in re.finditer(r"^\s*([a-z][\w-]*)", wanted, re.MULTILINE)}
    decisions = (ROOT / "docs/decisions.md").read_text()

    assert {name for name in names if f"**{name}**" not in decisions} == set()


def test_each_package_of_the_machine_has_its_reason_in_the_decisions() -> None:
    line = re.search(r'^packages="(.*)"$', (ROOT / "dev").read_text(), re.MULTILINE)
    assert line is not None
    decisions = (ROOT / "docs/decisions.md").read_text()

    assert {name for name in line[1].split() if f"`{name}`" not in decisions} == set()


def test_readme_names_both_commands_then_the_picture_then_what_the_tool_is() -> None:
    readme = (ROOT / "README.md").read_text()

    places = [readme.find(text) for text in ("./dev demo", "./dev test", "docs/report.png", "## What it is")]

    assert places == sorted(places)
    assert -1 not in places


def test_the_links_of_the_documentation_lead_somewhere() -> None:
    pages = (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md"))
    links = [(page, target) for page in pages for target in re.findall(r"\]\(([^)#\s]+)", page.read_text())]

    assert [(page, to) for page, to in links if "://" not in to and not (page.parent / to).exists()] == []


@pytest.mark.parametrize("script", ["dev", ".ci/run"])
def test_a_shell_script_parses(script: str) -> None:
    shell = (ROOT / script).read_text().splitlines()[0].split()[-1].rpartition("/")[2]

    assert subprocess.run([shell, "-n", script], cwd=ROOT, check=False).returncode == 0
    assert os.access(ROOT / script, os.X_OK)
