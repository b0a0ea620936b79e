"""What a file leaves to an object in another file of the same audit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stockade.audit.static.files import audit_files
from tests.audit.static.kubernetes_help import pod

if TYPE_CHECKING:
    from pathlib import Path

ACCOUNT = "{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: a}}, automountServiceAccountToken: {value}}}"


def tokens(*paths: Path) -> list[tuple[str, str]]:
    """Give what is said of tokens: file and line of findings, the reasons of what could not be told."""
    judged = audit_files([str(path) for path in paths], jobs=1).judged
    findings = [each for one in judged for each in one.findings if each.rule == "service_account_token"]
    unknown = [each for one in judged for each in one.unknown if each.rule == "service_account_token"]
    return [*(("found", str(each.location)) for each in findings), *(("unknown", each.reason) for each in unknown)]


def test_a_service_account_beside_the_pod_decides_about_its_token(tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_text(pod("serviceAccountName: a"))
    (tmp_path / "account.yaml").write_text(ACCOUNT.format(value="true"))

    assert tokens(tmp_path) == [("found", f"{tmp_path}/account.yaml:1:61")]

    (tmp_path / "account.yaml").write_text(ACCOUNT.format(value="false"))

    assert tokens(tmp_path) == []


def test_a_file_that_was_not_asked_for_decides_nothing(tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_text(pod("serviceAccountName: a"))
    (tmp_path / "account.yaml").write_text(ACCOUNT.format(value="false"))

    ((kind, reason),) = tokens(tmp_path / "pod.yaml")

    assert kind == "unknown"
    assert "the service account a decides, which isn't in these files" in reason


def test_accounts_that_contradict_each_other_decide_nothing(tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_text(pod("serviceAccountName: a"))
    (tmp_path / "one.yaml").write_text(ACCOUNT.format(value="false"))
    (tmp_path / "two.yaml").write_text(ACCOUNT.format(value="true"))

    assert [kind for kind, _ in tokens(tmp_path)] == ["unknown"]
