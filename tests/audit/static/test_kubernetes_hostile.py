"""Whatever a file holds, it gives targets and Broken, and no other error."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stockade.audit.documents.load import Broken
from stockade.audit.documents.walk import Source
from stockade.audit.engine import evaluate
from stockade.audit.facts import Target
from stockade.audit.static.kubernetes import targets

KEYS = (
    "kind", "apiVersion", "metadata", "name", "namespace", "annotations", "labels", "spec", "template", "jobTemplate",
    "containers", "initContainers", "ephemeralContainers", "securityContext", "capabilities", "add", "drop",
    "volumes", "hostPath", "path", "projected", "sources", "serviceAccountToken", "volumeMounts", "volumeDevices",
    "mountPath", "subPath", "env", "envFrom", "valueFrom", "secretKeyRef", "secretRef", "value", "ports", "hostPort",
    "resources", "limits", "memory", "seccompProfile", "appArmorProfile", "type", "seLinuxOptions", "windowsOptions",
    "sysctls", "livenessProbe", "httpGet", "host", "lifecycle", "preStop", "image", "command", "rules", "verbs",
    "subjects", "persistentVolumeClaim", "roleRef", "items", "data", "hostUsers", "hostPID", "privileged",
    "runAsUser", "supplementalGroups", "volumeClaimTemplates", "claimName", "claimRef", "volumeName",
    "automountServiceAccountToken", "procMount",
)  # fmt: skip
KINDS = (
    "Pod", "Deployment", "CronJob", "List", "Windmill", "Role", "ClusterRoleBinding", "Namespace", "PersistentVolume",
    "ServiceAccount", "Secret", "PodTemplate", "StatefulSet",
)  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=4),
    st.sampled_from((*KINDS, "a", "/", "/etc", "ALL", "Unmasked", "Localhost", "128Mi", "{{ .x }}")),
)  # fmt: skip
PARTS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(KEYS), inner, max_size=6)),
    max_leaves=30,
)
OBJECTS = st.fixed_dictionaries(
    {"kind": st.sampled_from(KINDS), "apiVersion": LEAVES, "metadata": PARTS, "spec": PARTS},
    optional={"rules": PARTS, "items": PARTS, "data": PARTS, "template": PARTS, "roleRef": PARTS, "subjects": PARTS},
)
# the same parts where they belong, so that the readers of containers are reached
CONTAINERS = st.lists(st.one_of(PARTS, st.dictionaries(st.sampled_from(KEYS), PARTS, max_size=8)), max_size=3)
PODS = st.fixed_dictionaries(
    {
        "kind": st.just("Pod"),
        "metadata": st.just({"name": "a"}),
        "spec": st.fixed_dictionaries(
            {"containers": CONTAINERS},
            optional=dict.fromkeys(("securityContext", "volumes", "hostPID", "hostUsers", "resources"), PARTS),
        ),
    }
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(PODS, OBJECTS), min_size=1, max_size=3))
def test_no_object_is_so_strange_that_reading_it_fails(items: list[Any]) -> None:
    data = "\n---\n".join(json.dumps(item) for item in items).encode()
    try:
        found = tuple(targets(Source("strange.yaml", data)))
    except Broken:
        return
    for each in found:
        assert isinstance(each, Target | Broken)
        if isinstance(each, Target):
            evaluate(each)
