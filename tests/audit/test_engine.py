"""The engine: missing facts, gates, folding, order, verdicts."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockade.audit import facts, recorded
from stockade.audit.engine import audit, evaluate, exit_code
from stockade.audit.facts import KINDS, Gap, Target, Where
from stockade.audit.report import Severity
from stockade.audit.rules import RULES
from stockade.reports import text
from stockade.reports.json_ import render
from stockade.sandbox.linux.idmap import Mapping

if TYPE_CHECKING:
    from stockade.audit.facts import Fact

# what the three modes leave behind, as facts
NORMAL = """
[Identity]
uids = [0, 0, 0, 0]
gids = [0, 0, 0, 0]
host_uids = [100000, 100000, 100000, 100000]
host_gids = [100000, 100000, 100000, 100000]

[CapabilitySets]
bounding = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID", "NET_BIND_SERVICE", "KILL"]
effective = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID", "NET_BIND_SERVICE", "KILL"]
permitted = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID", "NET_BIND_SERVICE", "KILL"]

[[Mount]]
destination = "/"
writable = true

[[Mount]]
destination = "/usr"
fstype = "ext4"
host_path = "/usr"
writable = false
options = ["ro", "nosuid", "nodev"]

[[Mount]]
destination = "/etc/passwd"
fstype = "ext4"
host_path = "/etc/passwd"
writable = false
options = ["ro", "nosuid", "nodev"]

[[Mount]]
destination = "/proc/kcore"
fstype = "devtmpfs"
host_path = "/dev/null"
writable = true
"""
ROOTLESS = """
[Identity]
uids = [0, 0, 0, 0]
gids = [0, 0, 0, 0]
host_uids = [1000, 1000, 1000, 1000]
host_gids = [1000, 1000, 1000, 1000]
host_user = "ada"

[UserNamespace]
uid_map = ["0:1000:1"]
owner_uid = 1000

[DevicePolicy]
default = "allow"
rules = []
source = "none"

[CgroupMembership]
path = "/user.slice/user-1000.slice"
shared_with_host = true

[[CgroupLimit]]
name = "pids"
value = "max"

[[CgroupLimit]]
name = "memory"
value = "max"

[[Mount]]
destination = "/sys"
fstype = "sysfs"
host_path = "/sys"
writable = false
options = ["ro", "nosuid", "nodev", "noexec"]
"""
PRIVILEGED = """
[Identity]
uids = [0, 0, 0, 0]
host_uids = [0, 0, 0, 0]

[UserNamespace]
initial = true
uid_map = ["0:0:4294967295"]

[CapabilitySets]
bounding = "ALL"
effective = "ALL"
permitted = "ALL"

[NoNewPrivs]
value = false

[SeccompState]
mode = "disabled"

[DevicePolicy]
default = "allow"
rules = []

[[Mask]]
path = "/proc/sys"
state = "open"
declared = "open"

[[ControlFile]]
path = "/proc/sys/kernel/core_pattern"
access = "write"
outcome = "opened"
"""


@pytest.mark.parametrize("text", [NORMAL, ROOTLESS], ids=["normal", "rootless"])
def test_a_confined_container_gives_nothing_high(text: str) -> None:
    judged = evaluate(recorded.load(text))

    assert [finding.title for finding in judged.findings if finding.severity >= Severity.HIGH] == []
    assert judged.paths == ()


def test_a_privileged_container_is_critical_once_and_not_ten_times() -> None:
    judged = evaluate(recorded.load(PRIVILEGED))

    assert {finding.rule for finding in judged.findings} == {"privileged", "helper_program", "host_root"}
    (privileged,) = [finding for finding in judged.findings if finding.rule == "privileged"]
    assert privileged.severity is Severity.CRITICAL
    assert "CAP_SYS_ADMIN counts against the host" in privileged.evidence
    assert {"AP-CORE", "AP-DISK", "AP-MODULE"} <= {path.id for path in judged.paths}


def test_a_user_namespace_that_maps_zero_to_zero_is_host_root() -> None:
    text = '[Identity]\nuids = [0, 0, 0, 0]\nhost_uids = [0, 0, 0, 0]\n[UserNamespace]\nuid_map = ["0:0:1"]\n'

    (finding,) = evaluate(recorded.load(text)).findings

    assert finding.rule == "host_root"
    assert "uid_map 0:0:1" in finding.evidence[1]


def test_capabilities_of_an_own_user_namespace_do_not_count_against_the_host() -> None:
    every = '[CapabilitySets]\nbounding = "ALL"\neffective = "ALL"\npermitted = "ALL"\n'

    assert [finding.severity for finding in evaluate(recorded.load(every)).findings] == [Severity.MEDIUM]
    initial = evaluate(recorded.load(every + "[UserNamespace]\ninitial = true\n")).findings
    assert [finding.severity for finding in initial] == [Severity.CRITICAL]


def test_a_sandbox_kernel_makes_rules_about_the_kernel_not_applicable() -> None:
    text = '[Runtime]\nsandbox = "gvisor"\n[SeccompState]\nmode = "disabled"\n[NoNewPrivs]\nvalue = false\n'

    judged = evaluate(recorded.load(text))

    assert judged.findings == ()
    assert {"no_seccomp", "new_privileges"} <= {each.rule for each in judged.not_applicable}


def test_a_knob_that_the_kernel_lacks_is_not_applicable_and_not_passed() -> None:
    text = '[[ControlFile]]\npath = "/proc/sys/kernel/hotplug"\naccess = "write"\noutcome = "absent"\n'

    judged = evaluate(recorded.load(text))

    assert [each.reason for each in judged.not_applicable if each.rule == "helper_program"] == [
        "this kernel has no /proc/sys/kernel/hotplug"
    ]
    assert judged.passed == evaluate(recorded.load("")).passed - 1


def test_a_missing_fact_is_unknown_with_the_collectors_reason() -> None:
    target = recorded.load('absent = ["SeccompFilter"]')
    where = Where("/proc/7/status")
    target = replace(target, gaps=(Gap(facts.SeccompFilter, "EPERM: ptrace was refused", where),))

    unknown = {each.rule: each for each in evaluate(target).unknown}

    assert unknown["weak_seccomp"].reason == "SeccompFilter is not known: EPERM: ptrace was refused"
    assert unknown["weak_seccomp"].location == where


@pytest.mark.parametrize(
    ("rule", "unknown"),
    [
        ("host_root", '[Identity]\nhost_uids = "unknown"\nuids = "unknown"\n'),
        ("sensitive_group", '[Identity]\nhost_groups = "unknown"\n'),
        ("host_pid_namespace", '[[Namespace]]\nkind = "pid"\nhost = "unknown"\n'),
        ("outside_descriptor", '[[OpenDescriptor]]\nfd = 5\ntarget = "/x"\nkind = "directory"\n'),
        ("leaked_handle", '[[OpenDescriptor]]\nfd = 5\ntarget = "net:[4]"\nkind = "namespace"\n'),
        ("outside_program", '[[Executable]]\npath = "/x"\n'),
        ("host_cgroup", '[CgroupMembership]\nshared_with_host = "unknown"\n'),
        ("process_exceeds_first", '[[Process]]\npid = 9\nname = "sh"\n'),
    ],
)
def test_a_part_of_a_fact_that_is_not_known_never_passes(rule: str, unknown: str) -> None:
    judged = evaluate(recorded.load(unknown))

    assert rule in {each.rule for each in judged.unknown}
    assert rule not in {each.rule for each in evaluate(recorded.load("")).unknown}


def test_a_kind_without_meaning_for_the_target_is_not_applicable() -> None:
    target = recorded.load('absent = ["Declared"]')
    target = replace(target, gaps=(Gap(facts.Declared, "nothing was declared", applicable=False),))

    judged = evaluate(target)

    assert "declared_otherwise" in {each.rule for each in judged.not_applicable}
    assert "declared_otherwise" not in {each.rule for each in judged.unknown}


def test_what_is_known_in_part_is_judged_and_the_rest_is_unknown() -> None:
    text = '[[OpenDescriptor]]\nfd = 7\ntarget = "/etc"\nkind = "directory"\noutside = true\n'
    target = recorded.load(text)
    target = replace(target, complete=target.complete - {facts.OpenDescriptor})

    judged = evaluate(target)

    assert [finding.rule for finding in judged.findings] == ["outside_descriptor"]
    assert {"outside_descriptor", "leaked_handle"} <= {each.rule for each in judged.unknown}


def test_a_file_is_silent_on_what_only_a_kernel_tells() -> None:
    judged = evaluate(Target("web", "web", "compose", ()))

    assert (judged.findings, judged.unknown, judged.not_applicable) == ((), (), ())
    assert judged.passed == 0


def test_a_gap_of_a_file_is_told_once_and_of_what_runs_by_each_rule() -> None:
    gap = Gap(facts.Identity, "the image decides", Where("compose.yml", 3, 5))
    declared = evaluate(Target("web", "web", "compose", (), (gap,)))
    running = evaluate(Target("web", "web", "container", (), (gap,)))

    assert [each.reason for each in declared.unknown] == ["the image decides"]
    assert sum("the image decides" in each.reason for each in running.unknown) > 3


def test_what_is_folded_leaves_its_conditions_and_its_severity() -> None:
    (bad, *_) = [example.text for example in RULES["privileged"].text.examples if example.bad]
    masks = '[[Mask]]\npath = "/proc/sys"\nstate = "open"\n'

    (found,) = [each for each in evaluate(recorded.load(bad + masks)).findings if each.rule == "privileged"]

    assert {"PRV-PRIVILEGED", "CAP-SYS_ADMIN", "SEC-SECCOMP", "PROC-UNMASK"} <= set(found.conditions)
    assert len(found.conditions) == len(set(found.conditions))


DECLARED_ONLY = {kind for kind in KINDS if kind.__module__ == facts.Unset.__module__}
KNOWN = [recorded.load(text) for text in (NORMAL, ROOTLESS, PRIVILEGED, "")] + [
    recorded.load(example.text) for rule in RULES.values() for example in rule.text.examples
]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(KNOWN),
    st.sets(st.sampled_from(KINDS)),
    st.sets(st.sampled_from(KINDS)),
    st.sampled_from([None, "gvisor"]),
)
def test_evaluation_never_raises_whatever_is_missing(
    target: Target, absent: set[type[Fact]], incomplete: set[type[Fact]], engine: str | None
) -> None:
    extra = (facts.Runtime("docker", engine, where=Where("x")),)
    left = tuple(fact for fact in target.facts if type(fact) not in absent)
    target = replace(target, facts=extra + left, complete=target.complete - absent - incomplete)

    judged = evaluate(target)

    silent = {each.rule for each in judged.unknown} | {each.rule for each in judged.not_applicable}
    # a rule all of whose facts are missing never passes in silence, unless only files tell of them
    for rule in RULES.values():
        missing = {need.kind for need in rule.needs if not need.optional and need.kind in absent}
        if rule.scope == "container" and missing and not any(kind in DECLARED_ONLY for kind in missing):
            assert rule.id in silent


st.register_type_strategy(Mapping, st.builds(Mapping, *[st.integers(0, 2**32 - 1)] * 3))
# paths as containers choose them, mixed with those that rules know
PATHS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["", "/", "//", "/..", "/etc", "/var/run/../run/docker.sock", "/home", "/home/a/.ssh", "/dev", "/proc", "/sys"]
    ),
)
st.register_type_strategy(str, PATHS)
st.register_type_strategy(int, st.integers(-1, 2**64))
ANY_FACT = st.one_of([st.from_type(kind) for kind in KINDS])


@settings(max_examples=300, deadline=None)
@given(st.lists(ANY_FACT, max_size=12), st.sets(st.sampled_from(KINDS)))
def test_evaluation_never_raises_whatever_the_facts_say(known: list[Fact], complete: set[type[Fact]]) -> None:
    target = Target("container:any", "any", "container", tuple(known), complete=frozenset(complete))

    report = audit([target])

    assert json.loads(render(report))["findings"] is not None
    assert "\x1b" not in text.render(report)


@given(st.permutations(list(KNOWN[2].facts)))
def test_the_order_of_facts_does_not_change_the_report(shuffled: list[Fact]) -> None:
    again = evaluate(replace(KNOWN[2], facts=tuple(shuffled)))

    assert [finding.fingerprint for finding in again.findings] == [
        finding.fingerprint for finding in evaluate(KNOWN[2]).findings
    ]


def test_a_fingerprint_survives_another_pid_and_tells_targets_apart() -> None:
    text = '[[OpenDescriptor]]\nfd = 7\ntarget = "/etc"\nkind = "directory"\noutside = true\npid = 4\n'

    first, second, other = (
        evaluate(recorded.load(each, name)).findings[0].fingerprint
        for each, name in (
            (text, "web"),
            (text.replace("pid = 4", "pid = 9").replace("fd = 7", "fd = 8"), "web"),
            (text, "db"),
        )
    )

    assert first == second
    assert first != other


def test_the_host_is_judged_once_for_all_containers() -> None:
    text = "[Host]\napparmor = false\nselinux = false\n"

    report = audit([recorded.load(text, "one"), recorded.load(text, "two")])

    assert [(finding.rule, finding.target) for finding in report.findings] == [("no_security_module", "host")]
    assert [target.id for target in report.targets] == ["container:one", "container:two", "host"]


@pytest.mark.parametrize(
    ("text", "fail_on", "code"),
    [
        (PRIVILEGED, None, 0),
        (PRIVILEGED, Severity.CRITICAL, 1),
        (NORMAL, Severity.HIGH, 0),
        (NORMAL, Severity.LOW, 1),
        ("", Severity.INFO, 0),
    ],
)
def test_the_exit_code_is_the_policys(text: str, fail_on: Severity | None, code: int) -> None:
    assert exit_code(audit([recorded.load(text)], fail_on=fail_on)) == code


def test_an_audit_of_nothing_has_its_own_exit_code() -> None:
    assert exit_code(audit([])) == 3


def test_findings_come_worst_first() -> None:
    report = audit([recorded.load(NORMAL, "a"), recorded.load(PRIVILEGED, "b")])
    severities = [finding.severity for finding in report.findings]

    assert severities == sorted(severities, reverse=True)


def test_what_a_container_names_itself_cannot_forge_the_report() -> None:
    target = replace(recorded.load(PRIVILEGED), name="web\n\x1b[2J", command="app --password=hunter2")

    (summary, _) = audit([target]).targets

    assert summary.name == "web\\x0a\\x1b[2J"
    assert summary.command == "app --password=[redacted]"
