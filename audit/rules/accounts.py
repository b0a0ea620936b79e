"""Which accounts and groups of the host the container shares ids with."""

from collections.abc import Iterator

from stockade.audit import gates
from stockade.audit.facts import Identity, SharedIds, UserNamespace
from stockade.audit.report import Severity
from stockade.audit.rule import CannotTell, Found, Outcome, rule, said, seen
from stockade.audit.rules.identity import listed

# group -> what its members can do
_ROOT_GROUPS = {
    "docker": "start a privileged container",
    "podman": "start a privileged container",
    "lxd": "start a privileged container",
    "incus": "start a privileged container",
    "incus-admin": "start a privileged container",
    "libvirt": "start a virtual machine on any disk",
    "disk": "read and write the host's disks",
    "kmem": "read kernel memory",
}


_LESSER_GROUPS = {
    "shadow": "read password hashes",
    "adm": "read the host's logs",
    "systemd-journal": "read the host's logs",
    "kvm": "use the hypervisor",
    "root": "use files of the group root",
}


@rule(
    Severity.HIGH,
    "https://docs.docker.com/engine/install/linux-postinstall/",
    "https://wiki.debian.org/SystemGroups",
    conditions=("PRV-GROUP",),
    attack=("T1611",),
    cwe=(250,),
)
def sensitive_group(identity: Identity, userns: UserNamespace | None) -> Iterator[Outcome]:
    """The process belongs to a group that owns the host's sockets or devices.

    Group membership is checked by the host's number. A process in the host's group docker or disk is root as soon
    as the engine's socket or a disk's node is in its view.

    Severity: high for groups that amount to root (docker, lxd, disk, ...), low for others; none for host root itself.

    Fix: leave the group out (--group-add, supplementalGroups), or map the groups to a subordinate range.

    ```toml bad
    [Identity]
    host_groups = [101000, 998]
    host_group_names = ["docker"]
    ```

    ```toml good
    [Identity]
    host_groups = [101000]
    host_group_names = ["users"]
    ```
    """
    if gates.host_root(identity, userns):
        return
    if identity.host_groups is None and not identity.host_group_names:
        yield CannotTell("the groups of the host are not known", identity.where)
    for name in sorted({*identity.host_group_names, *identity.group_names}):
        if name in _ROOT_GROUPS or name in _LESSER_GROUPS:
            can = _ROOT_GROUPS.get(name) or _LESSER_GROUPS[name]
            title = f"the process is in the host's group {name}, whose members can {can}"
            evidence = (said(identity, f"host groups {listed(identity.host_groups)}", f"group {name}"),)
            severity = None if name in _ROOT_GROUPS else Severity.LOW
            yield Found(title, identity.where, evidence, severity, key=name)


@rule(Severity.LOW, "https://avd.aquasec.com/misconfig/ksv020", conditions=("PRV-LOWUID",), cwe=(282,))
def host_account(identity: Identity, userns: UserNamespace | None) -> Iterator[Outcome]:
    """The process has the uid of an account of the host.

    Two programs with one uid can signal and trace each other and own each other's files wherever they meet: in a shared
    pid namespace, on a shared volume, and after an escape.

    Severity: none where the account started the container itself, as rootless engines do.

    Fix: map the ids to a subordinate range, or choose an id that no account has (10000 and above).

    ```toml bad
    [Identity]
    uids = [33, 33, 33, 33]
    host_uids = [33, 33, 33, 33]
    host_user = "www-data"
    ```

    ```toml good
    [Identity]
    uids = [1000, 1000, 1000, 1000]
    host_uids = [1000, 1000, 1000, 1000]
    host_user = "ada"

    [UserNamespace]
    uid_map = ["1000:1000:1"]
    owner_uid = 1000
    ```
    """
    if identity.host_uids is None:
        yield CannotTell("the host's ids of the process are not known", identity.where)
        return
    if not identity.host_user or gates.host_root(identity, userns):
        return
    uid = identity.host_uids[1]
    if userns and not userns.initial and userns.owner_uid == uid:
        return
    title = f"the process has the uid of the host's account {identity.host_user}"
    yield Found(title, identity.where, (seen(identity, f"host uid {uid} is {identity.host_user}"),))


@rule(
    Severity.LOW,
    "https://man7.org/linux/man-pages/man5/subuid.5.html",
    conditions=("PRV-MAPOVER",),
    attack=("T1080",),
    cwe=(653,),
)
def shared_ids(shared: SharedIds) -> Iterator[Outcome]:
    """Two containers of different owners have the same ids on the host.

    The kernel can't tell their processes and files apart: where they meet, on a shared volume or after an escape, each
    can read, signal and trace the other.

    Fix: give each owner, and each tenant, a range of its own in /etc/subuid and /etc/subgid.

    ```toml bad
    [[SharedIds]]
    other = "container:db"
    ids = "0:100000:65536"
    ```

    ```toml good
    [UserNamespace]
    uid_map = ["0:165536:65536"]
    ```
    """
    ids = f"{shared.ids.host} to {shared.ids.host + shared.ids.size - 1}"
    yield Found(
        f"{shared.other} has the same host ids", shared.where, (seen(shared, f"both map {ids}"),), key=shared.other
    )
