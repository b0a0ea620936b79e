"""What a pod decides for all of its containers: namespaces, ids on the node, kernel settings, the token."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from stockade.audit.documents.tree import Map
from stockade.audit.facts import Fact, Gap, ServiceAccountToken
from stockade.audit.static import building
from stockade.audit.static.kubernetes.confinement import sysctls
from stockade.audit.static.kubernetes.contexts import Container
from stockade.audit.static.kubernetes.index import Index
from stockade.audit.static.kubernetes.objects import Pod
from stockade.audit.static.kubernetes.volumes import Mounted, Volume, mounted

if TYPE_CHECKING:
    from stockade.audit.facts import NamespaceKind

_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path


def namespaces(pod: Pod, others: Sequence[str]) -> Iterator[Fact]:
    """Give the namespaces; `others` are the ids of the pod's other containers, whose processes it may see."""
    switches: tuple[tuple[NamespaceKind, str], ...] = (
        ("pid", "hostPID"),
        ("net", "hostNetwork"),
        ("ipc", "hostIPC"),
        ("uts", "hostNetwork"),  # CRI runtimes leave a pod of the host's network in its UTS namespace as well
    )
    processes = pod.reader.flag(pod.spec, "shareProcessNamespace") is True
    for kind, key in switches:
        host = pod.reader.flag(pod.spec, key) is True
        shares = kind == "pid" and processes and not host
        where = pod.spec.at("shareProcessNamespace" if shares else key)
        yield building.namespace(kind, where, host=host, shared_with=others if shares else ())
    yield building.namespace("mnt", pod.spec.where, host=False)
    # private with cgroup v2 and the host's with v1, which containerd and CRI-O decide
    yield building.namespace("cgroup", pod.spec.where, host=None)
    yield from user_namespace(pod)


def user_namespace(pod: Pod) -> Iterator[Fact]:
    """Give the user namespace. Without `hostUsers: false` it is the host's.

    https://kubernetes.io/docs/concepts/workloads/pods/user-namespaces/: each pod gets a range of ids of its own from
    65,536 on, so that host root and the host's accounts have no name inside.
    """
    own, where = pod.reader.flag(pod.spec, "hostUsers") is False, pod.spec.at("hostUsers")
    yield building.user_namespace(where, host=not own)
    yield building.namespace("user", where, host=not own)


def kernel_settings(pod: Pod) -> Iterator[Fact]:
    """Give the sysctls of the pod."""
    for where, name, value in sysctls(pod):
        yield building.sysctl(where, name, value)


def token(container: Container, index: Index, known: Mapping[str, Volume]) -> Iterator[Fact | Gap]:
    """Give whether a token of the service account is mounted: the pod decides, else the account, else it is.

    The admission plugin leaves a container alone that mounts something at the token's place; in what `kubectl get`
    prints that is the token.
    """
    pod, key = container.pod, "automountServiceAccountToken"
    where, asked = pod.spec.at(key), pod.reader.flag(pod.spec, key)
    mounts = tuple(mounted(container, known))
    given = next((each for each in mounts if _is_token(each)), None)
    if given is not None or any(each.destination == _TOKEN for each in mounts):
        place = given.volume.where if given is not None else container.node.at("volumeMounts")
        yield ServiceAccountToken(where=place, mounted=given is not None)
        return
    if asked is not None:
        yield ServiceAccountToken(where=where, mounted=asked)
        return
    name = pod.reader.text(pod.spec, "serviceAccountName") or pod.reader.text(pod.spec, "serviceAccount") or "default"
    account = index.account(pod.object.namespace, name)
    yield building.unset(where, "service_account_token")
    if account is None:
        yield Gap(ServiceAccountToken, f"the service account {name} decides, which isn't in these files", where)
        return
    asked = account.reader.flag(account.node, key)
    if asked is not None:
        where = account.node.at(key)
    yield ServiceAccountToken(where=where, mounted=asked is not False, declared=asked is not None)


def _is_token(mount: Mounted) -> bool:
    """Say whether a mount is a token for the API server: one that the pod asks for, or that the API server added."""
    volume = mount.volume
    if volume.kind == "secret":
        return mount.destination == _TOKEN
    sources = volume.source.seq("sources") if volume.source is not None and volume.kind == "projected" else None
    tokens = [each.map("serviceAccountToken") for each in sources or () if isinstance(each, Map)]
    # a token for another audience is of no use at the API server
    return any(each is not None and not each.get("audience") for each in tokens)
