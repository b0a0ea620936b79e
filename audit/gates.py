"""The questions that come before most rules: whose privilege it is, and against what it counts.

Measured on Linux 6.18: a user namespace that maps 0 to 0 is host root with another name; /proc/sys is guarded by uid
and mode, so that uid 0 without any capability opens core_pattern for writing; a capability counts only against what
its user namespace owns.

An unknown gate is None and leaves a rule's usual severity as it is.
"""

from stockade.audit.facts import CapabilitySets, Identity, NoNewPrivs, UserNamespace
from stockade.audit.report import Severity
from stockade.sandbox.linux import capabilities as caps
from stockade.sandbox.linux import idmap

#: what docker and podman give to a container that asks for nothing: the list of the Pod Security Standards' baseline
USUAL = caps.mask(
    (
        "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
        "NET_BIND_SERVICE", "NET_RAW", "SYS_CHROOT", "MKNOD", "AUDIT_WRITE", "SETFCAP",
    )
)  # fmt: skip


def host_root(identity: Identity | None, userns: UserNamespace | None = None) -> bool | None:
    """Say whether the process is uid 0 of the host, by any of its four ids."""
    if identity is None:
        return None
    if identity.host_uids is not None:
        return 0 in identity.host_uids
    if identity.uids is None:
        return None
    if userns is None:  # no engine maps another id of the container to host root
        return None if 0 in identity.uids else False
    if userns.initial:
        return 0 in identity.uids
    if userns.uid_map is None:
        return None
    return 0 in {idmap.to_host(userns.uid_map, uid) for uid in identity.uids}


def may_be_host_root(identity: Identity | None, userns: UserNamespace | None) -> bool:
    """Say whether a rule has to count with host root: it is, or what would tell is not known."""
    return host_root(identity, userns) is not False


def reaches_host_root(userns: UserNamespace | None) -> bool | None:
    """Say whether the namespace has a name for host uid 0: the initial one, or a map such as 0 to 0."""
    if userns is None:
        return None
    if userns.initial:
        return True
    if userns.uid_map is None:
        return None
    return idmap.to_container(userns.uid_map, 0) is not None


def held(sets: CapabilitySets) -> int:
    """Give what the process can use at once: effective, and permitted, which it can raise."""
    return sets.effective | sets.permitted


def counting(sets: CapabilitySets, userns: UserNamespace | None) -> int:
    """Give what it holds against the host: nothing when its user namespace is known not to be the initial one."""
    return held(sets) if userns is None or userns.initial else 0


def gainable(sets: CapabilitySets, userns: UserNamespace | None, no_new_privs: NoNewPrivs | None) -> int:
    """Give what it lacks and a program with file capabilities or setuid root could bring it, against the host."""
    if (userns is not None and not userns.initial) or (no_new_privs is not None and no_new_privs.value):
        return 0
    return sets.bounding & ~held(sets)


def lower(severity: Severity, steps: int = 1) -> Severity:
    """Give a severity that is so many steps below."""
    return Severity(max(Severity.INFO, severity - steps))
