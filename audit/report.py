"""What an audit says: immutable values that the renderers in reports/ turn into text, JSON and HTML."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

from stockade.audit.facts import Target, Where

#: of the JSON report; grows when a field changes its meaning or goes
SCHEMA_VERSION = "1"


class Severity(IntEnum):
    """How bad a finding is, in the words of CVSS and SARIF viewers. Ordered: CRITICAL is greatest."""

    INFO = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4

    @property
    def label(self) -> str:
        """The word that every format and `--fail-on` uses: "info", "low", "medium", "high", "critical"."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Standards:
    """What others call a condition: sections of the CIS benchmarks, ATT&CK techniques, CWE numbers, CVEs.

    `cis` are sections of the CIS Docker Benchmark 1.6.0 ("5.4"), or with "K8S " before them of the CIS Kubernetes
    Benchmark 1.8 ("K8S 5.2.2").
    """

    cis: tuple[str, ...] = ()
    attack: tuple[str, ...] = ()
    cwe: tuple[int, ...] = ()
    cve: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that a target breaks at one place. `title` is one sentence about this target, `why` is the rule's text.

    `evidence` is what was read, one line each. `fingerprint` is stable between audits of the same target: it hashes
    rule, target and what was found, not line numbers or pids.
    """

    rule: str
    conditions: tuple[str, ...]
    severity: Severity
    target: str
    title: str
    why: str
    fix: str
    evidence: tuple[str, ...]
    location: Where
    references: tuple[str, ...] = ()
    fingerprint: str = ""
    standards: Standards = Standards()


@dataclass(frozen=True, slots=True)
class Path:
    """An attack path: measured facts that together end on the host.

    `id` is "AP-CORE" ...; `effect` is what the attacker gets; `evidence` are the facts, in the order in which they
    are used; `proof` says how it was shown without harm; `fix` is the single cheapest change that breaks the path,
    and `breaks` is the piece of evidence that it removes. `rests_on` are the ids of rules with findings on the same
    target that it builds on. `basis` is "measured" on what runs, "declared" where a file says so and nothing ran.
    """

    id: str
    target: str
    severity: Severity
    title: str
    effect: str
    evidence: tuple[str, ...]
    proof: str
    fix: str
    breaks: str
    location: Where
    rests_on: tuple[str, ...] = ()
    fingerprint: str = ""
    basis: Literal["measured", "declared"] = "measured"


@dataclass(frozen=True, slots=True)
class Unknown:
    """A rule or path that could not be judged for a target: which facts are missing and why."""

    rule: str
    conditions: tuple[str, ...]
    target: str
    reason: str
    location: Where | None = None


@dataclass(frozen=True, slots=True)
class NotApplicable:
    """A rule that has no meaning for a target (the kernel lacks the knob, the procfs is a guest's). Not a pass."""

    rule: str
    conditions: tuple[str, ...]
    target: str
    reason: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the rules say of one target. `passed` counts the rules that were judged and held."""

    target: Target
    findings: tuple[Finding, ...]
    paths: tuple[Path, ...]
    unknown: tuple[Unknown, ...]
    not_applicable: tuple[NotApplicable, ...]
    passed: int


@dataclass(frozen=True, slots=True)
class ExposureLine:
    """One line of a score: how many points it adds, for which rule or path, and why so many."""

    points: float
    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Exposure:
    """How exposed the host is to a target: 0 to 100, the sum of the lines, worst first."""

    score: float
    lines: tuple[ExposureLine, ...] = ()


Level = Literal["baseline", "restricted"]


@dataclass(frozen=True, slots=True)
class Violation:
    """What keeps a container from a Pod Security Standard: the check's name in Kubernetes, one sentence, the place.

    `level` is the first that forbids it.
    """

    level: Level
    control: str
    title: str
    location: Where


@dataclass(frozen=True, slots=True)
class PodStandards:
    """What the Pod Security Standards say of a container of the pod `pod`."""

    pod: str
    violations: tuple[Violation, ...] = ()


@dataclass(frozen=True, slots=True)
class PodVerdict:
    """Whether a pod, by its name in a report, keeps a policy."""

    pod: str
    passed: bool
    violations: int


@dataclass(frozen=True, slots=True)
class PolicyVerdict:
    """The policy that was applied; `pods` has an entry for each pod where it is a Pod Security Standard."""

    name: str
    pods: tuple[PodVerdict, ...] | None = None


@dataclass(frozen=True, slots=True)
class CapabilityNames:
    """The five sets by name, in the kernel's order; "ALL" where every known capability is in."""

    bounding: tuple[str, ...]
    effective: tuple[str, ...]
    inheritable: tuple[str, ...]
    permitted: tuple[str, ...]
    ambient: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TargetSummary:
    """One column of the table of targets side by side: what it is and what it may do. None is not known.

    `uid` and `host_uid` are effective ids; the maps are lines "container:host:size"; `namespaces` maps a kind to
    "own", "host", "shared" or "unknown"; `seccomp` is "none", "strict", "filter" with a few words; `limits` maps a
    name to text ("512 MiB", "unlimited"). `control_files` are those of the host's kernel that opened for writing,
    `dangerous_calls` those that no program in a container needs and that its filter lets through (all of them without a
    filter). `counts` has a number for each severity label. `passed` is the number of rules that held.
    """

    id: str
    name: str
    kind: str
    mode: str
    command: str
    pids: tuple[int, ...]
    engine: str | None
    uid: int | None
    gid: int | None
    host_uid: int | None
    host_gid: int | None
    uid_map: tuple[str, ...] | None
    gid_map: tuple[str, ...] | None
    capabilities: CapabilityNames | None
    no_new_privs: bool | None
    seccomp: str | None
    lsm: str | None
    namespaces: dict[str, str]
    limits: dict[str, str]
    host_mounts: tuple[str, ...] | None
    control_files: tuple[str, ...] | None
    dangerous_calls: tuple[str, ...] | None
    counts: dict[str, int]
    paths: int
    passed: int
    unknown: int
    not_applicable: int
    exposure: Exposure = Exposure(0.0)
    pod: PodStandards | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """What is reported of one target: an Evaluation without its facts, small enough to pass between processes."""

    summary: TargetSummary
    findings: tuple[Finding, ...] = ()
    paths: tuple[Path, ...] = ()
    unknown: tuple[Unknown, ...] = ()
    not_applicable: tuple[NotApplicable, ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """A file, or a part of one, that could not be read, so that nothing is known of what it declares."""

    location: Where
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Files:
    """How many files were looked at: `audited` declare containers, `passed_over` don't, `failed` could not be read."""

    audited: int = 0
    passed_over: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `--fail-on` decided. `failed` counts findings and paths at or above `threshold`; None never fails."""

    threshold: Severity | None
    failed: int

    @property
    def passed(self) -> bool:
        """Whether the policy holds."""
        return self.failed == 0


@dataclass(frozen=True, slots=True)
class Report:
    """The whole result, sorted: paths and findings by severity (worst first), target, rule, place.

    `generated` is an RFC 3339 time in UTC, or empty where the output has to be reproducible. `host` is rows of text
    about the machine ("kernel" → "6.1.0"). `problems` are files that could not be read; `files` is None where no file
    was asked for.
    """

    targets: tuple[TargetSummary, ...]
    findings: tuple[Finding, ...]
    paths: tuple[Path, ...] = ()
    unknown: tuple[Unknown, ...] = ()
    not_applicable: tuple[NotApplicable, ...] = ()
    verdict: Verdict = Verdict(None, 0)
    tool: str = "stockade"
    version: str = ""
    generated: str = ""
    host: dict[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    files: Files | None = None
    policy: PolicyVerdict | None = None

    def count(self, severity: Severity) -> int:
        """Count the findings of one severity."""
        return sum(finding.severity is severity for finding in self.findings)
