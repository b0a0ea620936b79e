"""What the targets of one audit share: what the caller permits, and what was found out for one and holds for others."""

from dataclasses import dataclass, field, replace

from stockade.audit import facts, probe
from stockade.audit.targets import members, mounts
from stockade.audit.targets.descriptors import Place
from stockade.audit.targets.host import HostView
from stockade.audit.targets.members import Member
from stockade.audit.targets.snapshot import Entry
from stockade.sandbox.linux import mountinfo
from stockade.sandbox.linux.cgroup_devices import DevicePolicy


@dataclass
class Cache:
    """What several targets of one audit share: owners of namespaces, limits by cgroup, answers of probes, processes.

    It lives as long as one audit. What is in it was true when that audit read it, which is what an audit tells.
    """

    owners: dict[tuple[str, int], bool | None] = field(default_factory=dict)
    limits: dict[str, tuple[tuple[facts.CgroupLimit, ...], dict[str, str]]] = field(default_factory=dict)
    policies: dict[str, DevicePolicy] = field(default_factory=dict)
    answers: dict[object, probe.Answer | str] = field(default_factory=dict)
    # of answers that are kept above, or by the prober, by their identity: they hold dictionaries
    controls: dict[object, tuple[facts.ControlFile, ...]] = field(default_factory=dict)
    permitted: dict[object, tuple[bool | None, ...]] = field(default_factory=dict)
    # by the text of mountinfo, and by that and the namespaces: a container with other mounts is another place
    views: dict[str, mounts.View] = field(default_factory=dict)
    places: dict[object, Place] = field(default_factory=dict)
    # by pid, start time, and the identity of a place that is kept above
    members: dict[tuple[int, int, int], Member] = field(default_factory=dict)
    host_cgroups: frozenset[tuple[str, str]] | None = None

    def view(self, text: str, path: str) -> mounts.View:
        """Sort out the mounts of `text`, which was read from `path`. Raises ValueError."""
        if text not in self.views:
            self.views[text] = mounts.view(mountinfo.parse(text), path)
        return replace(self.views[text], path=path)

    def place(self, text: str, inodes: dict[str, int]) -> Place:
        """Give where a target stands that sees the mounts of `text`, one object for all that stand there."""
        key = text, *inodes.items()
        if key not in self.places:
            known = self.view(text, "").all
            self.places[key] = Place(
                frozenset(mount.id for mount in known), frozenset((mount.major, mount.minor) for mount in known), inodes
            )
        return self.places[key]

    def member(self, entry: Entry, place: Place, host: HostView) -> Member:
        """Look at a process of the container that stands in `place`, once; `place` comes from the method above."""
        key = entry.pid, entry.start, id(place)
        if key not in self.members:
            self.members[key] = members.read(entry, place, host)
        return self.members[key]


@dataclass(frozen=True)
class Options:
    """What the caller permits: `seccomp_filters` stops each target for a fraction of a millisecond."""

    seccomp_filters: bool = False
    probe: bool = True
