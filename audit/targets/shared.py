"""What the targets of one audit share: what the caller permits, and what was found out for one and holds for others."""

from dataclasses import dataclass, field

from stockade.audit import facts, probe
from stockade.sandbox.linux.cgroup_devices import DevicePolicy


@dataclass
class Cache:
    """What several targets of one audit share: owners of namespaces, limits by cgroup, answers of probes."""

    owners: dict[tuple[str, int], bool | None] = field(default_factory=dict)
    limits: dict[str, tuple[tuple[facts.CgroupLimit, ...], dict[str, str]]] = field(default_factory=dict)
    policies: dict[str, DevicePolicy] = field(default_factory=dict)
    answers: dict[object, probe.Answer | str] = field(default_factory=dict)
    # of answers that are kept above, or by the prober, by their identity: they hold dictionaries
    controls: dict[object, tuple[facts.ControlFile, ...]] = field(default_factory=dict)
    permitted: dict[object, tuple[bool | None, ...]] = field(default_factory=dict)
    host_cgroups: frozenset[tuple[str, str]] | None = None


@dataclass(frozen=True)
class Options:
    """What the caller permits: `seccomp_filters` stops each target for a fraction of a millisecond."""

    seccomp_filters: bool = False
    probe: bool = True
