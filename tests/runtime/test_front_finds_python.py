"""How the command stockade-runtime finds the interpreter and the package, wherever both were installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import stockade

COMMAND = Path(sys.executable).with_name("stockade-runtime")
#: an interpreter that tells what it was started with instead of doing it
TELLING = '#!/bin/sh\nfor word; do echo "$word"; done\n'
FORMS = (
    "#!{python}\n",
    "#! {python}\n",
    "#!{python} -I\n",
    "#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"\n' '''\n",
    "#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n",
    "#!/bin/sh\n'''exec' '{python}' \"$0\" \"$@\"\n' '''\n",
    "#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")\"/'python' \"$0\" \"$@\"\n' '''\n",
)


def install(
    prefix: Path, *, form: str = FORMS[0], version: str = "python3.11", interpreter: Path | None = None
) -> Path:
    """Install the command and `stockade` below a prefix, with an interpreter that has the version in its name."""
    scripts = prefix / "bin"
    scripts.mkdir(parents=True)
    shutil.copy(COMMAND, scripts)
    python = interpreter or scripts / version
    if interpreter is None:
        python.write_text(TELLING)
        python.chmod(0o755)
        (scripts / "python").symlink_to(version)
        python = scripts / "python"
    (scripts / "stockade").write_text(form.format(python=python))
    return scripts / "stockade-runtime"


def package(packages: Path) -> str:
    """Put what the command looks for into a directory of packages, and give its path."""
    boot = packages / "stockade/sandbox/runtime/boot.py"
    boot.parent.mkdir(parents=True)
    boot.touch()
    return str(boot)


def told(command: Path, *words: str) -> list[str]:
    """Give the words that the interpreter was started with."""
    done = subprocess.run([command, *words], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_scripts_first_line_is_read(tmp_path: Path, form: str) -> None:
    command = install(tmp_path / "there", form=form)
    boot = package(tmp_path / "there/lib/python3.11/site-packages")
    assert told(command, "list", "--format=json", "") == ["-I", "-S", boot, "list", "--format=json", ""]


@pytest.mark.parametrize("form", FORMS[4:])
def test_a_path_may_hold_blanks(tmp_path: Path, form: str) -> None:
    command = install(tmp_path / "over there", form=form)
    boot = package(tmp_path / "over there/lib/python3.11/site-packages")
    assert told(command, "list") == ["-I", "-S", boot, "list"]


@pytest.mark.parametrize("place", ["lib/python3.11/site-packages", "lib64/python3.11/site-packages"])
@pytest.mark.parametrize("whose", ["scripts", "interpreter"])
def test_the_package_is_below_the_prefix_of_the_scripts_or_of_the_interpreter(
    tmp_path: Path, place: str, whose: str
) -> None:
    install(tmp_path / "interpreter")
    command = install(tmp_path / "scripts", interpreter=tmp_path / "interpreter/bin/python")
    boot = package(tmp_path / whose / place)
    assert told(command, "list") == ["-I", "-S", boot, "list"]


def test_debians_directory_is_known(tmp_path: Path) -> None:
    command = install(tmp_path / "local")
    boot = package(tmp_path / "local/lib/python3.11/dist-packages")
    assert told(command, "list") == ["-I", "-S", boot, "list"]


def test_the_package_of_another_version_is_not_taken(tmp_path: Path) -> None:
    command = install(tmp_path, version="python3.12")
    package(tmp_path / "lib/python3.11/site-packages")
    assert told(command, "list") == ["-I", "-m", "stockade.sandbox.runtime", "list"]


def test_an_interpreter_without_a_version_in_its_name_looks_for_the_package_itself(tmp_path: Path) -> None:
    command = install(tmp_path, version="python3")
    package(tmp_path / "lib/python3.11/site-packages")
    assert told(command, "list") == ["-I", "-m", "stockade.sandbox.runtime", "list"]


def test_an_editable_installation_is_followed(tmp_path: Path) -> None:
    command = install(tmp_path / "environment")
    boot = package(tmp_path / "tree")
    packages = tmp_path / "environment/lib/python3.11/site-packages"
    packages.mkdir(parents=True)
    (packages / "another.pth").write_text("/nowhere\n")
    (packages / f"__editable__.stockade-{stockade.__version__}.pth").write_text(f"{tmp_path}/tree\n")
    assert told(command, "list") == ["-I", "-S", boot, "list"]


def test_links_to_the_command_lead_to_its_environment(tmp_path: Path) -> None:
    command = install(tmp_path / "environment")
    boot = package(tmp_path / "environment/lib/python3.11/site-packages")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/stockade-runtime").symlink_to(command)
    assert told(tmp_path / "bin/stockade-runtime", "list") == ["-I", "-S", boot, "list"]


def test_the_environment_variables_reach_python_save_the_one_that_is_ours(tmp_path: Path) -> None:
    command = install(tmp_path)
    (tmp_path / "bin/python3.11").write_text('#!/bin/sh\necho "$ONE$STOCKADE_RUNTIME_ANSWER"\n')
    environment = {"ONE": "1", "STOCKADE_RUNTIME_ANSWER": "2"}
    done = subprocess.run([command, "list"], check=True, capture_output=True, text=True, env=environment)
    assert done.stdout == "1\n"


@pytest.mark.parametrize("text", ["", "#!", "#!python\n", "print()\n", "#!/nowhere/python\n", "#!" + "/x" * 4000, "\0"])
def test_a_script_that_names_no_interpreter_is_told_of_in_one_line(tmp_path: Path, text: str) -> None:
    command = install(tmp_path)
    (tmp_path / "bin/stockade").write_text(text)
    done = subprocess.run([command, "list"], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        f"stockade-runtime: its Python can't be found: {tmp_path}/bin/stockade should name it in its first line\n"
    )


def test_an_interpreter_that_cannot_be_started_is_told_of(tmp_path: Path) -> None:
    command = install(tmp_path)
    (tmp_path / "bin/python3.11").write_text("no program\n")
    done = subprocess.run([command, "list"], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"stockade-runtime: {tmp_path}/bin/python: Exec format error\n"


def test_as_installed_here_python_hears_nothing_of_its_own_variables() -> None:
    environment = {**os.environ, "PYTHONPATH": "/nowhere", "PYTHONVERBOSE": "1"}  # -I ignores both
    done = subprocess.run([COMMAND, "--version"], check=True, capture_output=True, text=True, env=environment)
    assert stockade.__version__ in done.stdout
    assert done.stderr == ""
