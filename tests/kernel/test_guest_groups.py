"""The tests of an engine's control groups once more, on a machine with cgroup2 alone and on its systemd."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.kernel import guest

pytestmark = pytest.mark.kernel
ROOT = Path(__file__).resolve().parent.parent.parent
FILES = ("test_cgroup_engine.py", "test_runtime_groups.py", "test_runtime_systemd.py")
#: words of the command line are refused alike everywhere, and each costs a third of a second there
CHOSEN = "not one_clear and not as_runc_does"
SCRIPT = """
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmp /tmp
export PYTHONDONTWRITEBYTECODE=1 HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis
cd {directory}
exec </dev/null
{python} -m pytest -v --tb=short --color=no -p no:cacheprovider -p no:xdist -k '{chosen}' {files} >/tmp/out 2>&1
cat /tmp/out
"""
RESULT = re.compile(r"^(tests/\S+::.*\S) (PASSED|FAILED|ERROR|SKIPPED)", re.MULTILINE)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest says in the guest; one for all, as it takes half a minute there."""
    place = tmp_path_factory.mktemp("guest")
    files = " ".join(f"tests/kernel/{file}" for file in FILES)
    words = {"directory": shlex.quote(str(ROOT)), "python": shlex.quote(sys.executable), "chosen": CHOSEN}
    return guest.run(SCRIPT.format(files=files, **words), place, timeout=240)


@pytest.mark.parametrize("file", FILES)
def test_what_holds_on_this_machine_holds_on_cgroup2(told: str, file: str) -> None:
    results = [(name, result) for name, result in RESULT.findall(told) if f"/{file}::" in name]

    assert results, told
    failed = [name for name, result in results if result in {"FAILED", "ERROR"}]
    assert not failed, told
    # what is left out there is about files of cgroup v1, and says so
    skipped = [name for name, result in results if result == "SKIPPED"]
    assert len(skipped) == (3 if file == "test_cgroup_engine.py" else 0), told
