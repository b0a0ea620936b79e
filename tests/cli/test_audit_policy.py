"""`stockade audit --policy` as a whole command: what counts, which pods pass, which exit code it gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

STOCKADE = os.path.join(os.path.dirname(sys.executable), "stockade")
# keeps baseline; of restricted it lacks the dropped capabilities
POD = """apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec:
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: app
      image: nginx:latest
      securityContext: {allowPrivilegeEscalation: false}
"""


def audit(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [STOCKADE, "audit", str(path), *arguments]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)


def report(path: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = audit(path, "--format", "json", *arguments)
    return done.returncode, json.loads(done.stdout)


@pytest.fixture
def pod(tmp_path: Path) -> Path:
    file = tmp_path / "pod.yml"
    file.write_text(POD)
    return file


def test_a_pod_keeps_baseline_and_fails_restricted_for_one_check(pod: Path) -> None:
    kept, baseline = report(pod, "--policy", "pss-baseline")
    failed, restricted = report(pod, "--policy", "pss-restricted")

    assert (kept, failed) == (0, 1)
    assert baseline["summary"]["policy"]["pods"] == [{"pod": f"{pod}:Pod/shop/web", "passed": True, "violations": 0}]
    assert [finding["rule"] for finding in restricted["findings"]] == ["capabilities_restricted"]
    assert restricted["findings"][0]["location"]["line"] == 9


def test_style_counts_under_all_and_not_by_default(pod: Path) -> None:
    everything, _ = report(pod, "--policy", "all", "--fail-on", "low")
    _, usual = report(pod)

    severities = {finding["rule"]: finding["severity"] for finding in usual["findings"]}
    assert everything == 1
    assert usual["summary"]["policy"]["name"] == "default"
    assert severities["latest_tag"] == severities["memory_limit"] == "info"


def test_a_policy_of_the_house_is_read_from_its_path(pod: Path, tmp_path: Path) -> None:
    house = tmp_path / "house.toml"
    house.write_text('name = "house"\nfail_on = "medium"\n[[change]]\nconditions = ["*"]\nseverity = "low"\n')

    code, document = report(pod, "--policy", str(house))

    assert code == 0
    assert document["summary"]["policy"]["name"] == "house"
    assert {finding["severity"] for finding in document["findings"]} <= {"low", "info"}


def test_an_unknown_policy_is_a_fault_of_usage_that_names_those_there_are(pod: Path) -> None:
    done = audit(pod, "--policy", "strict")

    assert done.returncode == 2
    assert "pss-restricted" in done.stderr


def test_the_text_report_explains_the_score_and_tells_of_each_pod(pod: Path) -> None:
    text = audit(pod, "--policy", "pss-restricted").stdout

    assert "EXPOSURE, 0 TO 100" in text
    assert "memory_limit (RES-MEM)" in text
    assert f"failed  {pod}:Pod/shop/web: 1 violation" in text
