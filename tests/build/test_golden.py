"""The whole Spec of each mode as text: a change of what a container gets shows as a change of these files.

Renew them, and read the difference, with: STOCKADE_GOLDEN=write pytest tests/build/test_golden.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stockade.sandbox.oci.read import loads
from stockade.sandbox.oci.spec import to_json

if TYPE_CHECKING:
    from stockade.sandbox.host import Host

GOLDEN = Path(__file__).parent / "golden"

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "privileged-root": ("privileged", "root_host", {}),
    "privileged-user": ("privileged", "user_host", {}),
    "normal-root": ("normal", "root_host", {}),
    "normal-root-userns-host": ("normal", "root_host", {"rootfs": "/img", "userns": "host", "user": "app"}),
    "normal-root-rootfs-limits": (
        "normal",
        "root_host",
        {"rootfs": "/img", "memory": 64 << 20, "cpus": 0.5, "tty": True},
    ),
    "rootless-user": ("rootless", "user_host", {}),
    "rootless-alone": ("rootless", "lone_host", {"user": "1234", "init": True}),
    "rootless-user-shares-all": (
        "rootless",
        "user_host",
        {"network": "host", "pid": "host", "ipc": "host", "uts": "host", "cgroupns": "host", "userns": "keep-id"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_mode_gives_exactly_this_spec(name: str, built: Any, request: pytest.FixtureRequest) -> None:
    mode, host_name, asked = CASES[name]
    host: Host = request.getfixturevalue(host_name)

    spec = built(mode, host, **asked)

    text = json.dumps(to_json(spec), indent=2) + "\n"
    file = GOLDEN / f"{name}.json"
    if os.environ.get("STOCKADE_GOLDEN") == "write":
        file.write_text(text)
    assert text == file.read_text()


@pytest.mark.parametrize("name", [name for name in CASES if "rootfs" in CASES[name][2]])
def test_our_own_spec_passes_the_strict_reader_and_comes_back_equal(
    name: str, built: Any, request: pytest.FixtureRequest
) -> None:
    mode, host_name, asked = CASES[name]
    spec = built(mode, request.getfixturevalue(host_name), **asked)

    assert loads(json.dumps(to_json(spec)).encode()) == spec
