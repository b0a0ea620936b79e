"""What the auditor says of the host itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stockade.audit import facts
from stockade.audit.engine import audit, evaluate
from stockade.audit.facts import Target, Where
from stockade.audit.targets import host as hosts
from stockade.audit.targets import host_settings
from stockade.audit.targets.host import HostView
from stockade.sandbox.linux import namespaces

if TYPE_CHECKING:
    from stockade.audit.facts import Fact

HERE = Where("/etc/subuid", 1)
INITIAL: dict[str, int | None] = {**namespaces.INITIAL}


def host(*known: Fact) -> Target:
    return Target("host", "here", "host", known)


def found(*known: Fact) -> set[str]:
    return {finding.title for finding in evaluate(host(*known)).findings}


def test_settings_are_those_that_sysctl_shows() -> None:
    told = {
        each.name: each.value for each in host_settings.settings(hosts.probe()) if isinstance(each, facts.HostSetting)
    }

    assert told["kernel.randomize_va_space"] == Path("/proc/sys/kernel/randomize_va_space").read_text().strip()
    assert told["fs.protected_hardlinks"] == Path("/proc/sys/fs/protected_hardlinks").read_text().strip()
    assert any(name.startswith("cpu.") for name in told)


def test_subordinate_ids_keep_their_line_and_name_the_accounts_inside(tmp_path: Path) -> None:
    (tmp_path / "subuid").write_text("# none\nann:1000:65536\n1001:100000:65536\nbroken:1:x\n")
    view = HostView(INITIAL, {**namespaces.INITIAL}, ())
    view.__dict__["users"] = {0: "root", 1001: "bob"}

    rows = [each for each in host_settings.subordinate(view, str(tmp_path)) if isinstance(each, facts.SubordinateIds)]

    assert [(row.user, row.first, row.where.line, row.accounts) for row in rows] == [
        ("ann", 1000, 2, ("bob",)),
        ("bob", 100000, 3, ()),
    ]


def test_ranges_of_several_users_are_compared_over_one_in_between() -> None:
    def row(user: str, first: int, count: int) -> facts.SubordinateIds:
        return facts.SubordinateIds(where=HERE, user=user, kind="uid", first=first, count=count)

    assert found(row("ann", 100000, 300000), row("bob", 100010, 5), row("cid", 200000, 5)) == {
        "subordinate uids of ann and bob overlap from 100010 on",
        "subordinate uids of ann and cid overlap from 200000 on",
    }
    assert found(row("ann", 100000, 10), row("ann", 100005, 10)) == set()


def test_addresses_count_for_more_where_users_measure_the_kernel() -> None:
    def setting(name: str, value: str) -> facts.HostSetting:
        return facts.HostSetting(where=HERE, name=name, value=value)

    shown, kept = setting("kernel.perf_event_paranoid", "1"), setting("kernel.perf_event_paranoid", "2")
    kptr = setting("kernel.kptr_restrict", "0")

    assert "users may read the kernel's addresses" in found(kptr, shown)
    assert "users may read the kernel's addresses" not in found(kptr, kept)


def test_an_audit_of_containers_does_not_ask_the_host_for_its_engines() -> None:
    report = audit([Target("a", "a", "container", (hosts.probe().fact,))])

    told = {each.rule for each in report.unknown} | {each.rule for each in report.not_applicable}
    assert not told & {"shared_subordinate_ids", "kernel_log_for_everyone"}
