"""Roles, bindings and namespaces, which are targets of their own."""

from __future__ import annotations

from stockade.audit.engine import evaluate
from stockade.audit.facts import CapabilitySets, PodSecurity, RoleGrant, RoleRule
from tests.audit.static.kubernetes_help import only, read, wrong

ROLE = """
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules:
- {apiGroups: [""], resources: [secrets, pods/exec], verbs: [get, create], resourceNames: [a]}
- {nonResourceURLs: [/metrics], verbs: [get]}
"""


def test_the_rules_of_a_role_are_told_with_their_places() -> None:
    target = read(ROLE)["ClusterRole/reader"]
    first, second = target.all(RoleRule)

    assert (first.resources, first.verbs, first.names, first.cluster) == (
        ("secrets", "pods/exec"),
        ("get", "create"),
        ("a",),
        True,
    )
    assert second.resources == ("/metrics",)
    assert (first.where.line, second.where.line) == (6, 7)


def test_a_role_that_a_controller_fills_is_known_in_part() -> None:
    found = read(
        "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: a}, aggregationRule: {}}"
    )
    gap = found["ClusterRole/a"].gap(RoleRule)

    assert gap is not None
    assert "a controller fills it" in gap.reason


def test_a_binding_tells_to_whom_which_role_is_given() -> None:
    found = read(
        """
        apiVersion: rbac.authorization.k8s.io/v1
        kind: ClusterRoleBinding
        metadata: {name: all}
        roleRef: {kind: ClusterRole, name: cluster-admin}
        subjects:
        - {kind: Group, name: 'system:authenticated'}
        - {kind: ServiceAccount, name: default, namespace: shop}
        """
    )

    assert [(each.role, each.subject, each.cluster) for each in found["ClusterRoleBinding/all"].all(RoleGrant)] == [
        ("cluster-admin", "Group:system:authenticated", True),
        ("cluster-admin", "ServiceAccount:shop/default", True),
    ]


def test_a_binding_without_a_role_is_told() -> None:
    assert (
        "roleRef must be a mapping"
        in wrong("{apiVersion: v1, kind: RoleBinding, metadata: {name: a}, subjects: []}")[0]
    )


def test_a_namespace_tells_which_pods_it_refuses() -> None:
    found = read(
        """
        {apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {pod-security.kubernetes.io/enforce: privileged}}}
        ---
        {apiVersion: v1, kind: Namespace, metadata: {name: b}}
        """
    )

    assert [only(target, PodSecurity).enforce for target in found.values()] == ["privileged", None]


def test_rules_about_containers_do_not_apply_to_other_objects() -> None:
    target = read(ROLE)["ClusterRole/reader"]
    judged = evaluate(target)

    gap = target.gap(CapabilitySets)
    assert gap is not None
    assert not gap.applicable
    assert [each for each in judged.unknown if "is not known" in each.reason] == []
