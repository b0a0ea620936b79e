"""What `pip install` gives: sdist and wheel are built once, installed into a fresh environment, and used from there."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import stockade

ROOT = Path(__file__).resolve().parent.parent
LAUNCHER = "stockade/sandbox/native/launcher"
FRONT = f"stockade-{stockade.__version__}.data/scripts/stockade-runtime"
PROGRAMS = (LAUNCHER, "stockade/audit/native/probe", FRONT)
SOURCES = [path.relative_to(ROOT) for path in ROOT.glob("*/native/*.[ch]")]
SCRIPT_SOURCES = [path.relative_to(ROOT) for path in ROOT.glob("sandbox/front/*.[ch]")]
DATA = ("profiles/modes", "profiles/seccomp", "reports/templates")


def succeed(*argv: str | Path) -> str:
    """Run a command away from the tree, without its path, and give what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(argv, env=environment, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist and, from the sdist, the wheel."""
    folder = tmp_path_factory.mktemp("dist")
    succeed(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("*.whl")
    return found


@pytest.fixture(scope="module", params=PROGRAMS)
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(request.param, tmp_path_factory.mktemp("program")))


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel with its dependencies into an environment of its own and give where its programs are."""
    folder = tmp_path_factory.mktemp("venv")
    succeed(sys.executable, "-m", "venv", folder)
    succeed(folder / "bin/pip", "install", "--quiet", wheel)
    return folder / "bin"


def test_the_wheel_is_for_this_platform_and_any_python_3(wheel: Path) -> None:
    assert re.fullmatch(rf"stockade-{re.escape(stockade.__version__)}-py3-none-linux_\w+\.whl", wheel.name)


def test_the_sdist_holds_each_part_once_as_a_folder_and_nothing_built(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        members = {member.name.partition("/")[2]: member for member in archive}

    assert {f"{each}.c" for each in PROGRAMS if each != FRONT} <= {f"stockade/{path}" for path in SOURCES}
    assert Path("sandbox/front/front.h") in SCRIPT_SOURCES
    assert not [name for name, member in members.items() if member.issym() or member.islnk()]
    assert {
        "stockade/sandbox/__init__.py",
        *[f"stockade/{path}" for path in [*SOURCES, *SCRIPT_SOURCES]],
        "LICENSE",
        "CHANGELOG.md",
    } <= members.keys()
    assert not {"sandbox/__init__.py", *PROGRAMS} & members.keys()


def test_the_wheel_holds_the_data_that_the_tree_holds(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    data = {f"stockade/{folder}/{path.name}" for folder in DATA for path in (ROOT / folder).iterdir() if path.is_file()}
    data |= {f"stockade/{path}" for path in SOURCES}

    assert data
    assert data - names == set()
    assert {name for name in names if name.startswith(("tests", "bench"))} == set()


def test_the_programs_in_the_wheel_are_executable_by_everyone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        modes = [archive.getinfo(name).external_attr >> 16 for name in PROGRAMS]

    assert {stat.filemode(mode) for mode in modes} == {"-rwxr-xr-x"}


def test_the_programs_are_static_stripped_and_hardened(program: Path) -> None:
    segments = succeed("readelf", "--program-headers", "--wide", program)
    sections = succeed("readelf", "--sections", "--wide", program)
    dynamic = succeed("readelf", "--dynamic", "--wide", program)

    assert "INTERP" not in segments  # no dynamic loader
    assert "NEEDED" not in dynamic  # no shared library
    assert re.search(r"GNU_STACK .* RW +0x", segments)  # a stack that can't be executed
    assert "GNU_RELRO" in segments
    assert not re.search(r"LOAD .* RWE", segments)  # nothing both writable and executable
    assert ".symtab" not in sections
    if "Elf file type is DYN" in segments:
        assert re.search(r"\(FLAGS_1\).*\bNOW\b.*\bPIE\b", dynamic)


def test_the_installed_command_says_its_version(programs: Path) -> None:
    assert stockade.__version__ in succeed(programs / "stockade", "--version")


def test_the_installed_runtime_says_its_version_as_engines_read_it(programs: Path) -> None:
    assert f"stockade-runtime version {stockade.__version__}\n" in succeed(programs / "stockade-runtime", "--version")


def test_the_installed_runtime_is_found_through_a_link(programs: Path, tmp_path: Path) -> None:
    (tmp_path / "stockade-runtime").symlink_to(programs / "stockade-runtime")

    assert "stockade-runtime version" in succeed(tmp_path / "stockade-runtime", "--version")


def test_the_installed_runtime_starts_python_without_site(programs: Path, tmp_path: Path) -> None:
    boot = next(programs.parent.glob("lib/*/site-packages/stockade/sandbox/runtime/boot.py"))
    python = tmp_path / "bin" / boot.relative_to(programs.parent).parts[1]  # tells its words; named as this one is
    (tmp_path / "lib").symlink_to(programs.parent / "lib")
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "bin/stockade").write_text(f"#!{python}\n")
    shutil.copy(programs / "stockade-runtime", python.parent)
    for program in python, tmp_path / "bin/stockade":
        program.chmod(0o755)

    found = tmp_path / boot.relative_to(programs.parent)
    assert succeed(python.parent / "stockade-runtime", "features") == f"-I -S {found} features\n"


def test_the_installed_package_serves_without_site(programs: Path) -> None:
    boot = next(programs.parent.glob("lib/*/site-packages/stockade/sandbox/runtime/boot.py"))

    assert "stockade-runtime version" in succeed(programs / "python", "-I", "-S", boot, "--version")


def test_the_installed_package_is_the_wheels_own(programs: Path) -> None:
    file = succeed(programs / "python", "-c", "import stockade.sandbox.oci.spec as s; print(s.__file__)")

    assert file.startswith(str(programs.parent))


@pytest.mark.kernel
def test_the_installed_command_runs_a_container(programs: Path) -> None:
    output = succeed(programs / "stockade", "run", "--host", "--", "sh", "-c", "echo $$; cat /proc/self/uid_map")

    pid, _, maps = output.partition("\n")
    assert pid == "1"
    assert maps.split()[1] != "0"  # root inside is nobody outside


@pytest.mark.kernel
def test_the_installed_package_serves_as_a_library(programs: Path) -> None:
    program = "from stockade import Sandbox; print(Sandbox().run(['echo', 'inside']).stdout)"

    assert "inside" in succeed(programs / "python", "-c", program)
