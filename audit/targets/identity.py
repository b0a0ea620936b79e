"""Who a process is: ids inside and on the host, maps, the owner of its user namespace, its security label."""

import os
from collections.abc import Iterator
from typing import Literal

from stockade.audit import facts, probe
from stockade.audit.facts import Where
from stockade.audit.targets.host import HostView
from stockade.sandbox.linux import capabilities, idmap, namespaces, procfs
from stockade.sandbox.linux.process import Status

_OVERFLOW = 65534
_Four = tuple[int, int, int, int]


def last_cap() -> int:
    """Give the highest capability of this kernel."""
    return capabilities.last_cap()


class Identifier:
    """Reads the maps of a process once, for the facts and for the probe's credentials."""

    def __init__(self, pid: int, status: Status, host: HostView) -> None:
        """Read the maps. Raises ProcessLookupError."""
        self.pid = pid
        self.status = status
        self.host = host
        self.uid_map = idmap.of(pid, "uid")
        self.gid_map = idmap.of(pid, "gid")

    def facts(self, *, initial: bool, known: bool) -> Iterator[facts.Fact]:
        """Give the identity and, where the namespace is `known`, the user namespace."""
        status, host = self.status, self.host
        host_uids, host_gids = _four(status.uids), _four(status.gids)
        trusted = host.trusted
        names = [host.group_names[gid] for gid in {host_gids[1], *status.groups} if gid in host.group_names]
        yield facts.Identity(
            where=Where(f"/proc/{self.pid}/status"),
            uids=_four([_inside(self.uid_map, uid) for uid in host_uids]),
            gids=_four([_inside(self.gid_map, gid) for gid in host_gids]),
            groups=tuple([_inside(self.gid_map, gid) for gid in status.groups]),
            host_uids=host_uids if trusted else None,
            host_gids=host_gids if trusted else None,
            host_groups=status.groups if trusted else None,
            host_user=host.users.get(host_uids[1]) if trusted else None,
            host_group_names=tuple(sorted(names)) if trusted else (),
        )
        if known:
            yield facts.UserNamespace(
                where=Where(f"/proc/{self.pid}/uid_map"),
                initial=initial,
                uid_map=self.uid_map,
                gid_map=self.gid_map,
                owner_uid=0 if initial else self._owner_uid(),
                depth=0 if initial else self._depth(),
            )

    def _owner_uid(self) -> int | None:
        descriptor = self._open()
        if descriptor is None:
            return None
        try:
            return namespaces.owner_uid(descriptor)
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def _depth(self) -> int | None:
        """Count the user namespaces above; None when one of them lies outside the auditor's own."""
        descriptor = self._open()
        if descriptor is None:
            return None
        depth = 0
        while os.fstat(descriptor).st_ino != namespaces.INITIAL["user"]:
            depth += 1
            try:
                outer = namespaces.parent(descriptor)
            except OSError:
                return None
            finally:
                os.close(descriptor)
            descriptor = outer
        os.close(descriptor)
        return depth

    def _open(self) -> int | None:
        try:
            return namespaces.open(self.pid, "user")
        except PermissionError:
            return None

    def credentials(self, caps: capabilities.Sets, *, no_new_privs: bool) -> probe.Credentials:
        """Give what a probe takes on to be this process."""
        status = self.status
        uids = [idmap.to_container(self.uid_map, uid) for uid in status.uids]
        gids = [idmap.to_container(self.gid_map, gid) for gid in status.gids]
        groups = [idmap.to_container(self.gid_map, gid) for gid in status.groups]
        complete = None not in uids + gids + groups
        return probe.Credentials(
            uids=status.uids,
            gids=status.gids,
            groups=status.groups,
            inside=(_known(uids), _known(gids), _known(groups)) if complete else None,
            bounding=caps.bounding,
            effective=caps.effective,
            inheritable=caps.inheritable,
            permitted=caps.permitted,
            ambient=caps.ambient,
            no_new_privs=no_new_privs,
            label=_profile(label(self.pid, self.host)) if self.host.fact.apparmor else "",
        )


def _four(ids: tuple[int, ...] | list[int]) -> _Four:
    real, effective, saved, file_system = ids
    return real, effective, saved, file_system


def _known(ids: list[int | None]) -> tuple[int, ...]:
    return tuple([each for each in ids if each is not None])


def _inside(mappings: tuple[idmap.Mapping, ...], host: int) -> int:
    found = idmap.to_container(mappings, host)
    return _OVERFLOW if found is None else found


def label(pid: int | str, host: HostView) -> str | None:
    """Give the current label of whatever security module fills attr/current, None without one.

    `pid` may be "12/task/13".
    """
    if not host.labels:
        return None
    for name in ("attr/apparmor/current", "attr/current"):
        try:
            return procfs.read(pid, name).decode("utf-8", "replace").strip("\0\n ") or None
        except OSError:
            continue  # EINVAL: no module answers
    return None


def _profile(text: str | None) -> str:
    """Give the AppArmor profile to change to; empty when unconfined."""
    return "" if not text or text == "unconfined" else text.rpartition(" (")[0] or text


def labels(pid: int, host: HostView) -> Iterator[facts.LsmLabel]:
    """Give the label, with the mode where AppArmor tells one."""
    text = label(pid, host)
    if not text:
        return
    module = "apparmor" if host.fact.apparmor else "selinux" if host.fact.selinux else "lsm"
    mode: Literal["enforce", "complain", "unconfined"] | None = None
    if text == "unconfined":
        mode = "unconfined"
    elif text.endswith("(complain)"):
        mode = "complain"
    elif text.endswith("(enforce)"):
        mode = "enforce"
    yield facts.LsmLabel(where=Where(f"/proc/{pid}/attr/current"), module=module, label=text, mode=mode)
