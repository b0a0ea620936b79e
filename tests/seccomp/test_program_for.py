from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stockade.errors import UsageError
from stockade.sandbox import cache, filters
from stockade.sandbox.linux import bpf, seccomp

ROOT = Path(__file__).resolve().parents[2]
WARM = """
import sys, time
sys.path.insert(0, sys.argv[1])
before = set(sys.modules)
from stockade.sandbox import filters
filters.cache.directory = lambda: sys.argv[2]
times = []
for _ in range(20):
    started = time.perf_counter()
    filters.program_for("default", ("CAP_CHOWN",))
    times.append(time.perf_counter() - started)
print(min(times), *sorted(set(sys.modules) - before))
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cache, "directory", lambda: str(tmp_path / "cache"))
    return tmp_path / "cache"


def profile(path: Path, **changes: object) -> str:
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ERRNO", **changes}))
    return str(path)


def test_with_a_warm_cache_a_filter_costs_under_a_millisecond_and_no_heavy_import(directory: Path) -> None:
    filters.program_for("default", ("CAP_CHOWN",))

    command = [sys.executable, "-I", "-S", "-c", WARM, str(ROOT), str(directory)]
    time, *modules = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert float(time) < 0.001
    heavy = {
        "json",
        "re",
        "typing",
        "ctypes",
        "enum",
        "hashlib",
        "dataclasses",
        "subprocess",
        "pathlib",
        "socket",
        "_hashlib",
    }
    assert not heavy & set(modules)
    assert not {name for name in modules if name.startswith("stockade.sandbox.filters_")}


def test_a_cached_filter_equals_a_fresh_one(directory: Path) -> None:
    fresh = filters.program_for("default", ("CAP_KILL", "CAP_CHOWN"))
    stored = list((directory / "seccomp").iterdir())

    assert filters.program_for("default", ("CAP_CHOWN", "CAP_KILL", "CAP_KILL")) == fresh
    assert list((directory / "seccomp").iterdir()) == stored
    assert fresh.compiler == "range"
    assert len(fresh) == len(bpf.unpack(fresh.program))


@pytest.mark.usefixtures("directory")
def test_the_filter_follows_profile_capabilities_and_architecture(tmp_path: Path) -> None:
    path = profile(tmp_path / "p.json")
    first = filters.program_for(path, ())
    profile(tmp_path / "p.json", defaultErrnoRet=38)

    programs = {
        first.program,
        filters.program_for(path, ()).program,
        filters.program_for("default", ()).program,
        filters.program_for("default", ("CAP_SYS_ADMIN",)).program,
        filters.program_for("default", (), "aarch64").program,
    }

    assert len(programs) == 5


@pytest.mark.usefixtures("directory")
def test_flags_of_a_profile_come_with_the_filter(tmp_path: Path) -> None:
    path = profile(tmp_path / "p.json", flags=["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"])

    assert [filters.program_for(path, ()).flags for _ in range(2)] == [6, 6]


def test_a_spoilt_cache_entry_is_compiled_again(directory: Path) -> None:
    fresh = filters.program_for("default", ())
    (entry,) = (directory / "seccomp").iterdir()
    entry.write_bytes(entry.read_bytes()[:-8])

    assert filters.program_for("default", ()) == fresh


@pytest.mark.usefixtures("directory")
def test_a_configuration_is_compiled_from_its_record_or_its_json() -> None:
    resolved = filters.resolve("default", ("CAP_CHOWN",), "x86_64")

    made = filters.compile_filter(resolved, "x86_64")

    assert made.program == filters.compile_filter(filters.default_profile(("CAP_CHOWN",), "x86_64"), "x86_64").program
    assert made.program == filters.program_for("default", ("CAP_CHOWN",), "x86_64").program


@pytest.mark.usefixtures("directory")
def test_capabilities_may_be_spelt_any_way_in_a_profile(tmp_path: Path) -> None:
    rule = {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["sys_admin"]}}
    path = profile(tmp_path / "p.json", syscalls=[rule])
    program = bpf.unpack(filters.program_for(path, ("CAP_SYS_ADMIN",), "x86_64").program)

    assert bpf.run(program, 165, 0xC000003E) == seccomp.RET_ALLOW


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), ("", "empty"), ("{", "not JSON"), ("[]", "a JSON object"), ('{"syscalls": 1}', "array")],
)
def test_a_profile_that_cannot_be_read_is_refused_by_its_name(
    tmp_path: Path, content: str | None, message: str
) -> None:
    path = tmp_path / "p.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(UsageError, match=message):
        filters.program_for(str(path), ())


@pytest.mark.usefixtures("directory")
def test_an_unknown_profile_of_ours_is_refused() -> None:
    with pytest.raises(UsageError, match=r"nosuch\.json: No such file"):
        filters.program_for("nosuch", ())
