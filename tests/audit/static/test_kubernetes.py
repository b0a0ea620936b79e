"""Which pods and containers a file declares, and what is said of a file that is wrong."""

from __future__ import annotations

import pytest

from stockade.audit.documents.load import Broken
from stockade.audit.facts import Image, Namespace, Privileged, Workload
from tests.audit.static.kubernetes_help import app, everything, only, pod, read, wrong

TEMPLATE = """
apiVersion: {api}
kind: {kind}
metadata: {{name: web, namespace: shop}}
spec: {{template: {{spec: {{hostPID: true, containers: [{{name: app, image: web}}]}}}}}}
"""
WITH_TEMPLATE = [
    ("apps/v1", "Deployment"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "ReplicaSet"),
    ("v1", "ReplicationController"),
    ("batch/v1", "Job"),
    ("apps.openshift.io/v1", "DeploymentConfig"),
    ("serving.knative.dev/v1", "Service"),
    ("serving.knative.dev/v1", "Configuration"),
    ("argoproj.io/v1alpha1", "Rollout"),
    ("example.org/v1", "Windmill"),
]


@pytest.mark.parametrize(("api", "kind"), WITH_TEMPLATE)
def test_each_kind_with_a_pod_template_gives_its_containers(api: str, kind: str) -> None:
    found = read(TEMPLATE.format(api=api, kind=kind))

    assert list(found) == [f"{kind}/shop/web:app"]
    (target,) = found.values()
    assert {space.kind for space in target.all(Namespace) if space.host} == {"pid", "user"}
    assert only(target, Workload).kind == kind


def test_pods_templates_and_cron_jobs_keep_their_spec_elsewhere() -> None:
    found = read(
        """
        {apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: app}]}}
        ---
        {apiVersion: v1, kind: PodTemplate, metadata: {name: b}, template: {spec: {containers: [{name: app}]}}}
        ---
        apiVersion: batch/v1
        kind: CronJob
        metadata: {generateName: c-}
        spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: app}]}}}}}
        """
    )

    assert list(found) == ["Pod/a:app", "PodTemplate/b:app", "CronJob/c-*:app"]


def test_lists_and_openshift_templates_are_taken_apart() -> None:
    found = read(
        """
        kind: List
        apiVersion: v1
        items:
        - {apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: app}]}}
        - kind: PodList
          items: [{apiVersion: v1, kind: Pod, metadata: {name: b}, spec: {containers: [{name: app}]}}]
        ---
        kind: Template
        apiVersion: template.openshift.io/v1
        objects:
        - {apiVersion: v1, kind: Pod, metadata: {name: "${NAME}"}, spec: {containers: [{name: app}]}}
        """
    )

    assert list(found) == ["Pod/a:app", "Pod/b:app", "Pod/${NAME}:app"]


def test_a_custom_resource_may_hold_several_pod_templates() -> None:
    found = read(
        """
        apiVersion: example.org/v1
        kind: Cluster
        metadata: {name: db}
        spec:
          replicas:
          - template: {spec: {containers: [{name: app}]}}
          - template: {spec: {initContainers: [{name: first}], containers: [{name: app}]}}
          schema: {properties: {spec: {containers: {type: array}}}}
        """
    )

    assert list(found) == [
        "Cluster/db:spec.replicas[0].template:app",
        "Cluster/db:spec.replicas[1].template:first",
        "Cluster/db:spec.replicas[1].template:app",
    ]


def test_a_kind_of_another_group_with_a_known_name_is_looked_through() -> None:
    found = read(
        """
        apiVersion: batch.example.org/v1
        kind: Job
        metadata: {name: mpi}
        spec: {tasks: [{name: worker, template: {spec: {containers: [{name: app}]}}}]}
        """
    )

    assert list(found) == ["Job/mpi:app"]


def test_objects_that_speak_of_pods_and_make_none_give_no_target() -> None:
    assert (
        read(
            """
            {apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 80}]}}
            ---
            {apiVersion: policy/v1beta1, kind: PodSecurityPolicy, metadata: {name: b}, spec: {privileged: true}}
            ---
            {kind: SecurityContextConstraints, apiVersion: security.openshift.io/v1, allowPrivilegedContainer: true}
            ---
            ---
            just text
            """
        )
        == {}
    )


def test_containers_of_every_list_are_told_apart_by_their_role() -> None:
    found = read(
        """
        apiVersion: v1
        kind: Pod
        metadata: {name: web}
        spec:
          containers: [{name: app}]
          initContainers:
          - {name: prepare}
          - {name: proxy, restartPolicy: Always}
          ephemeralContainers: [{name: debugger, securityContext: {privileged: true}}]
        """
    )

    assert {name: only(target, Workload).role for name, target in found.items()} == {
        "Pod/web:prepare": "init",
        "Pod/web:proxy": "sidecar",
        "Pod/web:app": "container",
        "Pod/web:debugger": "ephemeral",
    }
    assert [only(target, Privileged).value for target in found.values()] == [False, False, False, True]


def test_objects_and_containers_of_one_name_keep_ids_of_their_own() -> None:
    found = everything(f"{pod()}\n---\n{pod()}")

    assert [each.id for each in found if not isinstance(each, Broken)] == [
        "pod.yaml:Pod/web:app",
        "pod.yaml:Pod/web#2:app",
    ]


def test_containers_of_one_name_in_one_pod_are_both_told() -> None:
    found = read("{kind: Pod, metadata: {name: a}, spec: {containers: [{name: b}], initContainers: [{name: b}]}}")

    assert list(found) == ["Pod/a:b", "Pod/a:b#2"]


def test_a_pod_without_containers_is_told_of_for_itself() -> None:
    found = read(
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {template: {spec: {hostIPC: true}}}}"
    )

    assert [space.kind for space in found["Deployment/a"].all(Namespace) if space.host] == ["ipc", "user"]


def test_a_patch_without_a_template_is_passed_over() -> None:
    assert read("{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 3}}") == {}


def test_json_is_read_like_yaml() -> None:
    found = read(
        '{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "b"}]}}'
    )

    assert list(found) == ["Pod/a:b"]


@pytest.mark.parametrize(
    ("spec", "container", "text"),
    [
        ("hostPID: [yes]", "", "hostPID must be true or false and is a list"),
        ("securityContext: 'runAsUser:0'", "", "securityContext must be a mapping and is text"),
        ("volumes: {name: a}", "", "volumes must be a list and is a mapping"),
        ("", "securityContext: {runAsUser: web}", "runAsUser must be a whole number and is text"),
        ("", "securityContext: {capabilities: [ALL]}", "capabilities must be a mapping and is a list"),
        ("", "ports: [80]", "ports[0] must be a mapping and is a number"),
        ("", "env: {A: b}", "env must be a list and is a mapping"),
        ("", "volumeMounts: [{name: data, mountPath: /data}]", "name data must be the name of a volume of the pod"),
    ],
)
def test_a_part_of_a_wrong_type_is_told_with_its_place(spec: str, container: str, text: str) -> None:
    (said,) = wrong(pod(spec, container))

    assert f"Pod web: {text}" in said
    assert said.startswith("pod.yaml:")


def test_an_object_that_is_wrong_leaves_the_others_to_be_judged() -> None:
    found = everything(f"{{apiVersion: v1, kind: Pod, metadata: {{name: a}}, spec: [1]}}\n---\n{pod()}")

    assert [str(each) if isinstance(each, Broken) else each.id for each in found] == [
        "pod.yaml:Pod/web:app",
        "pod.yaml:1:50: Pod a: spec must be a mapping and is a list",
    ]


def test_quotes_do_not_hide_a_privilege() -> None:
    found = everything(pod(container='securityContext: {privileged: "true", runAsUser: "0"}'))

    assert [only(each, Privileged).value for each in found if not isinstance(each, Broken)] == [True]


def test_a_single_container_in_place_of_a_list_is_judged_and_told() -> None:
    found = everything("{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: {name: b, image: web}}}")

    assert [each.id for each in found if not isinstance(each, Broken)] == ["pod.yaml:Pod/a:b"]
    assert "containers must be a list" in str(found[-1])


def test_a_template_is_told_from_broken_yaml() -> None:
    with pytest.raises(Broken, match="a template, which isn't YAML") as raised:
        everything("kind: Pod\nspec:\n  {{- if .Values.pid }}\n  hostPID: true\n  {{- end }}\n")

    assert raised.value.where.line == 3
    assert "helm template" in raised.value.hint


def test_other_broken_yaml_says_where_it_breaks() -> None:
    with pytest.raises(Broken, match="not YAML"):
        everything("kind: Pod\n spec: [")


def test_many_mistakes_are_counted_and_not_listed() -> None:
    said = wrong(pod(container="\n".join(["ports:", *("- a" for _ in range(50))])))

    assert len(said) == 21
    assert said[-1].endswith("and 30 more parts of wrong types")


def test_a_value_that_a_template_fills_in_is_told_as_such() -> None:
    (said,) = wrong(pod(container="securityContext: {runAsUser: '{{ .Values.user }}'}"))

    assert "runAsUser must be a whole number and is only filled in by a template" in said


def test_a_pod_that_multiplies_its_settings_is_refused_and_not_unfolded() -> None:
    sysctls = "[" + ",".join("{name: kernel.shmmax}" for _ in range(2000)) + "]"
    containers = "[" + ",".join("{name: a}" for _ in range(1000)) + "]"

    found = everything(f"{{kind: Pod, spec: {{securityContext: {{sysctls: {sysctls}}}, containers: {containers}}}}}")

    assert [str(each) for each in found] == ["pod.yaml:1:19: Pod ?: 1000 containers are too many"]


def test_an_anchor_counts_where_the_key_was_written() -> None:
    target = app("x: &usual {privileged: true}", "securityContext: *usual")

    assert only(target, Privileged).where.line == 6
    assert only(target, Image).reference == "web:1"
