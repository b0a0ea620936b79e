"""AppArmor and what CAP_SYS_RESOURCE allows, in a guest that has both: a profile confines the program, and it alone."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import guest

pytestmark = pytest.mark.kernel

BOOT = Path(__file__).resolve().parents[2] / "sandbox/runtime/boot.py"
PROFILE = """profile stockade-test flags=(attach_disconnected,mediate_deleted) {
  file,
  capability,
  deny /denied r,
}
"""
CAPABILITIES = ["CAP_CHOWN", "CAP_DAC_OVERRIDE"]
#: name → what runs, and what the process asks for
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "confined": (
        "cat /proc/self/attr/current; grep NoNewPrivs /proc/self/status; cat /denied || echo refused",
        {"apparmorProfile": "stockade-test", "noNewPrivileges": True},
    ),
    "unconfined": ("cat /proc/self/attr/current /denied", {"apparmorProfile": "unconfined"}),
    "missing": ("true", {"apparmorProfile": "not-loaded"}),
    "lower": ("cat /proc/self/oom_score_adj", {"oomScoreAdj": -700}),
    "more": ("ulimit -Hn; ulimit -Sn", {"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 3000, "hard": 4000}]}),
}


def config(root: str, script: str, *, user: bool, **process: Any) -> dict[str, Any]:
    sets = dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES)
    kinds = ("mount", "pid", "ipc", "uts", "network", *(["user"] if user else []))
    linux: dict[str, Any] = {"namespaces": [{"type": kind} for kind in kinds]}
    if user:
        linux |= {key: [{"containerID": 0, "hostID": 100000, "size": 65536}] for key in ("uidMappings", "gidMappings")}
    return {
        "ociVersion": "1.2.0",
        "process": {"cwd": "/", "env": [], "args": ["/bin/sh", "-c", script], "capabilities": sets} | process,
        "root": {"path": root},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        ],
        "linux": linux,
    }


def script_of(place: Path, rootfs: Path) -> str:
    """Give the guest's script: each case in a container of its own, its output between two marks."""
    command = f"{sys.executable} -I -S {BOOT} --root /run/state"
    lines = [
        f"apparmor_parser --base /etc/apparmor.d -r -K {place}/profile",
        f"mkdir /run/root /run/root/proc /run/root/dev; cp -a {rootfs}/bin /run/root/; echo secret > /run/root/denied",
        "ulimit -n 1000",
    ]
    for name in (*CASES, *(f"{name}-user" for name in CASES)):
        script, process = CASES[name.removesuffix("-user")]
        bundle = place / name
        bundle.mkdir()
        document = config("/run/root", script, user=name.endswith("-user"), **process)
        (bundle / "config.json").write_text(json.dumps(document))
        lines += [
            f"echo; echo '<{name}>'",
            f"if {command} create --bundle {bundle} {name}; then",
            f"  pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/' /run/state/{name}/state.json)",
            '  echo "ready: $(cat /proc/$pid/attr/current)"',
            f"  {command} start {name}",
            "  while grep -q '^State:.[RSD]' /proc/$pid/status; do sleep 0.01; done 2> /dev/null",
            f"  {command} delete {name}",
            "fi",
            f"echo; echo '</{name}>'",
        ]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Give what the guest said of each case, as lines."""
    if shutil.which("apparmor_parser", path="/usr/sbin:/sbin") is None:
        pytest.fail("apparmor is not installed: run ./dev setup as root", pytrace=False)
    place = tmp_path_factory.mktemp("guest")
    rootfs = place / "rootfs"
    (rootfs / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", rootfs / "bin/busybox")
    for applet in ("sh", "cat", "grep", "true"):
        (rootfs / "bin" / applet).symlink_to("busybox")
    (place / "profile").write_text(PROFILE)
    text = guest.run(script_of(place, rootfs), place)
    found = re.findall(r"<([\w-]+)>\n(.*?)\n</\1>", text, re.DOTALL)
    assert len(found) == 2 * len(CASES), text
    return {name: [line for line in body.split("\n") if line] for name, body in found}


@pytest.mark.parametrize("user", ["", "-user"])
def test_the_profile_confines_the_program_and_not_what_sets_it_up(said: dict[str, list[str]], user: str) -> None:
    assert said[f"confined{user}"] == [
        "ready: unconfined",
        "stockade-test (enforce)",
        "NoNewPrivs:\t1",
        "cat: can't open '/denied': Permission denied",
        "refused",
    ]


@pytest.mark.parametrize("user", ["", "-user"])
def test_unconfined_is_a_profile_too(said: dict[str, list[str]], user: str) -> None:
    assert said[f"unconfined{user}"] == ["ready: unconfined", "unconfined", "secret"]


@pytest.mark.parametrize("user", ["", "-user"])
def test_a_profile_that_is_not_loaded_is_refused_by_name(said: dict[str, list[str]], user: str) -> None:
    text = "\n".join(said[f"missing{user}"])

    assert "label the program: exec not-loaded" in text
    assert "no such profile is loaded" in text


@pytest.mark.parametrize("user", ["", "-user"])
def test_root_of_the_host_lowers_the_oom_score_of_any_container(said: dict[str, list[str]], user: str) -> None:
    assert said[f"lower{user}"] == ["ready: unconfined", "-700"]


@pytest.mark.parametrize("user", ["", "-user"])
def test_root_of_the_host_raises_a_hard_limit_of_any_container(said: dict[str, list[str]], user: str) -> None:
    assert said[f"more{user}"] == ["ready: unconfined", "4000", "3000"]
