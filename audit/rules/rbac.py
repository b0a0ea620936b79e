"""Roles of Kubernetes that amount to more than they say."""

from collections.abc import Iterator

from stockade.audit.facts import RoleGrant, RoleRule
from stockade.audit.report import Severity
from stockade.audit.rule import Found, Outcome, rule, seen

_GOOD = "https://kubernetes.io/docs/concepts/security/rbac-good-practices/"

# what a verb on a resource amounts to; "*" stands for each
_ESCALATES = (
    ({"escalate", "bind"}, {"roles", "clusterroles"}, "give itself any right", Severity.CRITICAL),
    ({"impersonate"}, {"users", "groups", "serviceaccounts", "userextras"}, "act as anyone else", Severity.CRITICAL),
    ({"create"}, {"serviceaccounts/token"}, "make tokens of any service account", Severity.HIGH),
    ({"create", "get"}, {"pods/exec", "pods/attach"}, "run commands in any pod", Severity.HIGH),
    ({"get", "create"}, {"nodes/proxy"}, "reach the kubelet past admission and audit", Severity.HIGH),
    ({"get", "list", "watch"}, {"secrets"}, "read secrets", Severity.HIGH),
    (
        {"create", "update", "patch"},
        {"pods", "deployments", "daemonsets", "statefulsets", "replicasets", "jobs", "cronjobs",
         "replicationcontrollers", "pods/ephemeralcontainers"},
        "start pods, with any volume and any service account of the namespace",
        Severity.HIGH,
    ),
    ({"create", "update", "patch"}, {"rolebindings", "clusterrolebindings"}, "bind roles", Severity.HIGH),
    ({"create", "update", "patch"}, {"validatingwebhookconfigurations", "mutatingwebhookconfigurations"},
     "see and change what the API server admits", Severity.HIGH),
    ({"create"}, {"persistentvolumes"}, "mount any path of a node", Severity.HIGH),
    ({"approve", "sign"}, {"signers"}, "make certificates for anyone", Severity.HIGH),
)  # fmt: skip


def _fits(asked: set[str], has: tuple[str, ...]) -> bool:
    return "*" in has or bool(asked & set(has))


@rule(
    Severity.HIGH,
    _GOOD,
    conditions=("K8S-RBAC",),
    cis=("K8S 5.1.2", "K8S 5.1.3", "K8S 5.1.4", "K8S 5.1.8", "K8S 5.1.9", "K8S 5.1.10", "K8S 5.1.12", "K8S 5.1.13"),
    attack=("T1078", "T1098"),
    cwe=(269,),
)
def escalating_role(role: RoleRule) -> Iterator[Outcome]:
    """A role amounts to more than it says.

    Some rights give others: who may create pods runs as any service account of the namespace, who may bind or escalate
    roles has all of them, who may reach nodes/proxy is past admission control.

    Severity: critical for rights to give oneself any right and for everything; one step lower where names are given.

    Fix: name the resources, verbs and objects that are needed, and no "*".

    ```toml bad
    [[RoleRule]]
    verbs = ["create"]
    resources = ["pods/exec"]
    groups = [""]
    ```

    ```toml good
    [[RoleRule]]
    verbs = ["get", "list"]
    resources = ["configmaps"]
    groups = [""]
    ```
    """
    words = f"{', '.join(role.verbs)} on {', '.join(role.resources)}"
    if "*" in role.verbs and "*" in role.resources:
        title = "the role may do everything" + (" in the whole cluster" if role.cluster else " in its namespace")
        yield Found(title, role.where, (seen(role, words),), Severity.CRITICAL, key="everything")
        return
    found = [
        (severity, what)
        for verbs, resources, what, severity in _ESCALATES
        if _fits(verbs, role.verbs) and _fits(resources, role.resources)
    ]
    if found:
        severity = max(severity for severity, _ in found)
        if role.names:
            severity = Severity(severity - 1)
        title = f"the role may {found[0][1]}" + (f", and {len(found) - 1} more such rights" if found[1:] else "")
        evidence = tuple([seen(role, f"{words}: may {what}") for _, what in found])
        yield Found(title, role.where, evidence, severity, key=words)


@rule(Severity.HIGH, _GOOD, conditions=("K8S-RBAC",), cis=("K8S 5.1.1", "K8S 5.1.7"), attack=("T1078",), cwe=(269,))
def powerful_grant(grant: RoleGrant) -> Iterator[Outcome]:
    """A role is given that amounts to the whole cluster, or is given to everybody.

    cluster-admin is root on every node. The groups system:unauthenticated and system:authenticated are everybody who
    reaches the API server, with or without a name; system:serviceaccounts is every pod.

    Severity: critical for a right given to everybody without a name, and for the whole cluster given to everybody.

    Fix: bind a role with the rights that are needed, to the account that needs them.

    ```toml bad
    [[RoleGrant]]
    role = "cluster-admin"
    subject = "ServiceAccount:shop/web"
    cluster = true
    ```

    ```toml good
    [[RoleGrant]]
    role = "view"
    subject = "ServiceAccount:shop/web"
    ```
    """
    name = grant.subject.partition(":")[2]
    nobody = name in {"system:anonymous", "system:unauthenticated"}
    everybody = name in {"system:authenticated", "system:serviceaccounts"}
    admin = grant.role in {"cluster-admin", "admin", "system:masters"} and (grant.cluster or grant.role != "admin")
    # what Kubernetes itself gives to everybody: the API's version and its own health
    public = grant.role.startswith(("system:public-info-viewer", "system:discovery", "system:basic-user"))
    if (admin or nobody or everybody) and not public:
        severity = Severity.CRITICAL if nobody or (admin and everybody) else None
        title = f"the role {grant.role} is given to {grant.subject}"
        yield Found(title, grant.where, (seen(grant, title),), severity, key=f"{grant.role} {grant.subject}")
