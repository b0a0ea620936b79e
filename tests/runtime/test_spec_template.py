"""The configuration that `spec` writes: what runc 1.1 and 1.2 write, and one that we take ourselves."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from stockade.sandbox.oci import lean_json, read
from stockade.sandbox.runtime import spec_template

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.kernel
@pytest.mark.parametrize("rootless", [False, True])
def test_the_template_says_what_runcs_says(tmp_path: Path, *, rootless: bool) -> None:
    runc = shutil.which("runc")
    assert runc is not None, "the tests of the runtime need runc: see ./dev setup"
    subprocess.run([runc, "spec", *(["--rootless"] if rootless else [])], cwd=tmp_path, check=True)
    theirs = json.loads((tmp_path / "config.json").read_text())

    ours = spec_template.template(rootless=rootless)

    for own in ("ociVersion", "hostname"):
        del theirs[own], ours[own]
    # no effect: none of these is inheritable, and the kernel takes no such ambient capability (capabilities(7))
    theirs["process"]["capabilities"].pop("ambient", None)
    assert ours == theirs


@pytest.mark.parametrize("rootless", [False, True])
def test_the_template_can_be_made_without_a_warning(*, rootless: bool) -> None:
    warnings: list[str] = []
    text = lean_json.dumps(spec_template.template(rootless=rootless))

    found = read.bundle(text.encode(), "config.json", warnings)

    assert warnings == []
    assert found.oci_version == spec_template.VERSION


def test_a_rootless_template_asks_for_nothing_that_only_root_may_have() -> None:
    found: dict[str, Any] = spec_template.template(rootless=True)

    assert {"type": "user"} in found["linux"]["namespaces"]
    assert {"type": "network"} not in found["linux"]["namespaces"]
    assert "resources" not in found["linux"]
    assert [mount["type"] for mount in found["mounts"] if mount["destination"] == "/sys"] == ["none"]
