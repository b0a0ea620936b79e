"""The id mapping of a container: who it is outside. Pure."""

from __future__ import annotations

from stockade.errors import StockadeError, UsageError
from stockade.sandbox.linux import idmap
from stockade.sandbox.linux.idmap import Mapping
from stockade.sandbox.linux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from stockade.sandbox.host import Host
    from stockade.sandbox.linux.idmap import Range
    from stockade.sandbox.modes import Mode
    from stockade.sandbox.request import Request
    from stockade.sandbox.users import Resolved


class Maps(Record):
    """The id mapping of a new user namespace; `deny_setgroups` is what a caller without privilege must write first."""

    uid: tuple[Mapping, ...]
    gid: tuple[Mapping, ...]
    deny_setgroups: bool = False

    @property
    def zero(self) -> bool:
        """Tell whether user and group 0 exist inside."""
        return all(idmap.to_host(maps, 0) is not None for maps in (self.uid, self.gid))


def id_maps(request: Request, mode: Mode, host: Host, user: Resolved | None) -> Maps | None:
    """Decide the user namespace: its maps, or None where the container stays in the caller's.

    `user` is whom the request names. Raises StockadeError with the reason and a remedy.
    """
    explicit = request.uidmap or request.gidmap
    if explicit and request.userns is not None:
        raise UsageError(f"--userns {request.userns} and --uidmap both decide the id mapping", hint="give one of them")
    uidmap, gidmap = (request.uidmap, request.gidmap) if explicit else (mode.uidmap, mode.gidmap)
    if explicit or (uidmap and request.userns is None):
        return _checked(uidmap or gidmap, gidmap or uidmap, host)
    kind = request.userns or ("host" if mode.namespaces["user"] == "host" and host.privileged else mode.userns)
    if kind == "host":
        _refuse_unprivileged_host(host)
        return None
    if host.no_userns:
        raise StockadeError(f"id mapping: {host.no_userns}", hint=_userns_remedy(host))
    return {"auto": _auto, "keep-id": _keep_id, "nomap": _nomap}[kind](host, user)


def _refuse_unprivileged_host(host: Host) -> None:
    if not host.privileged:
        raise StockadeError(
            "--userns host keeps the caller's ids and capabilities, and the caller lacks CAP_SYS_ADMIN",
            hint="use --userns auto or keep-id, or start it as root",
        )


def _userns_remedy(host: Host) -> str:
    if "max_user_namespaces" in host.no_userns:
        return "as root: sysctl user.max_user_namespaces=15000" + (", or --userns host" if host.privileged else "")
    if "clone" in host.no_userns:
        return "as root: sysctl kernel.unprivileged_userns_clone=1, or start it as root"
    return "use another kernel" + (", or --userns host" if host.privileged else "")


def _auto(host: Host, user: Resolved | None) -> Maps:
    if host.may_map:
        if host.subuid and host.subgid:
            return Maps(_stack(host.subuid, 0), _stack(host.subgid, 0))
        return _single(host, user)
    if host.subuid and host.newuidmap:
        return Maps(
            (Mapping(0, host.uid, 1), *_stack(host.subuid, 1)), (Mapping(0, host.gid, 1), *_stack(host.subgid, 1))
        )
    return _single(host, user)


def _single(host: Host, user: Resolved | None) -> Maps:
    """Map the caller alone, who needs no right for that, to the one id that the container's user has."""
    uid, gid = (user.uid, user.gid) if user else (0, 0)
    return Maps((Mapping(uid, host.uid, 1),), (Mapping(gid, host.gid, 1),), not host.may_map)


def _keep_id(host: Host, _: Resolved | None) -> Maps:
    if host.uid == 0:
        raise StockadeError(
            "--userns keep-id maps the caller to the same id inside, and the caller is root, host 0",
            hint="use --userns auto for a subordinate range, or --userns host where host 0 is meant",
        )
    if not (host.subuid and host.newuidmap):
        return Maps((Mapping(host.uid, host.uid, 1),), (Mapping(host.gid, host.gid, 1),), not host.may_map)
    return Maps(_around(host.subuid, host.uid), _around(host.subgid, host.gid))


def _nomap(host: Host, user: Resolved | None) -> Maps:
    if host.may_map and host.subuid:
        return _auto(host, user)  # root's range never has the caller in it
    if not host.subuid or not host.newuidmap:
        why = host.no_helper or f"/etc/subuid and /etc/subgid have no range for {host.user or host.uid}"
        raise StockadeError(
            f"--userns nomap leaves the caller out of the map and needs subordinate ids: {why}",
            hint=subid_remedy(host),
        )
    return Maps(_stack(host.subuid, 0), _stack(host.subgid, 0))


def subid_remedy(host: Host) -> str:
    """Say how this caller gets subordinate ids."""
    if "not installed" in host.no_helper:
        return "install newuidmap (Debian: apt install uidmap), or do without: --userns auto maps the caller alone"
    if "setuid" in host.no_helper:
        return "as root: chmod u+s /usr/bin/newuidmap /usr/bin/newgidmap; without, --userns auto maps the caller alone"
    if host.no_helper:
        return "start it from a session without no_new_privs, or do without: --userns auto maps the caller alone"
    name = host.user or host.uid
    return f"as root, with 65536 ids that nobody has: usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST {name}"


def _stack(ranges: Sequence[Range], first: int) -> tuple[Mapping, ...]:
    """Lay subordinate ranges one above the other, from `first` on inside, as far as the kernel takes extents."""
    found = []
    for each in ranges[: idmap.MAX_EXTENTS - 1]:
        count = min(each.count, idmap.ID_LIMIT - first)
        if count > 0:
            found.append(Mapping(first, each.start, count))
        first += count
    return tuple(found)


def _around(ranges: Sequence[Range], own: int) -> tuple[Mapping, ...]:
    """Lay ranges from 0 on inside, with the place `own` left to the same id outside."""
    found = [Mapping(own, own, 1)]
    first = 0
    for each in ranges[: idmap.MAX_EXTENTS // 2]:
        start, count = each.start, each.count
        if first <= own < first + count:
            below = own - first
            if below:
                found.append(Mapping(first, start, below))
            first, start, count = own + 1, start + below, count - below
        count = min(count, idmap.ID_LIMIT - first)
        if count > 0:
            found.append(Mapping(first, start, count))
            first += count
    return tuple(sorted(found, key=lambda mapping: mapping.container))


def _checked(uidmap: Sequence[Mapping], gidmap: Sequence[Mapping], host: Host) -> Maps:
    """Check maps that were given: well formed, and such that this caller may write them."""
    try:
        idmap.check(uidmap)
        idmap.check(gidmap)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if host.no_userns:
        raise StockadeError(f"id mapping: {host.no_userns}", hint=_userns_remedy(host))
    if host.may_map:
        for mapping, own in [*((each, host.uidmap) for each in uidmap), *((each, host.gidmap) for each in gidmap)]:
            if not any(
                extent.container <= mapping.host and _end(mapping) <= extent.container + extent.size for extent in own
            ):
                raise StockadeError(
                    f"id map {mapping}: this user namespace does not have all ids from {mapping.host} to "
                    f"{_end(mapping) - 1}",
                    hint="cat /proc/self/uid_map /proc/self/gid_map shows which it has",
                )
        return Maps(tuple(uidmap), tuple(gidmap))
    alone = [
        len(maps) == 1 and maps[0].host == own and maps[0].size == 1
        for maps, own in ((uidmap, host.uid), (gidmap, host.gid))
    ]
    if all(alone):
        return Maps(tuple(uidmap), tuple(gidmap), deny_setgroups=True)
    if host.no_helper:
        raise StockadeError(
            f"id map: a caller without privilege may map itself only, or needs newuidmap: {host.no_helper}",
            hint=subid_remedy(host),
        )
    _refuse_foreign(uidmap, host.uid, host.subuid, "uid", host)
    _refuse_foreign(gidmap, host.gid, host.subgid, "gid", host)
    return Maps(tuple(uidmap), tuple(gidmap))


def _end(mapping: Mapping) -> int:
    return mapping.host + mapping.size


def _refuse_foreign(maps: Sequence[Mapping], own: int, ranges: Sequence[Range], kind: str, host: Host) -> None:
    for mapping in maps:
        if mapping.host == own and mapping.size == 1:
            continue
        if not any(each.start <= mapping.host and _end(mapping) <= each.start + each.count for each in ranges):
            allowed = ", ".join(f"{each.start}-{each.start + each.count - 1}" for each in ranges) or "none"
            raise StockadeError(
                f"{kind} map {mapping}: {host.user or host.uid} may map {own} and its subordinate ids ({allowed}) only",
                hint=f"stay within them, or add a range as root to /etc/sub{kind}",
            )
