"""What a container may use and what it offers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stockade.audit.facts import CgroupLimit, Image, Port, Probe, Unset, Variable
from stockade.audit.static.kubernetes.quantity import quantity
from tests.audit.static.kubernetes_help import app, only, pod, read, wrong

if TYPE_CHECKING:
    from stockade.audit.facts import Target


@pytest.mark.parametrize(
    ("text", "scale", "number"),
    [
        ("128Mi", 1, 128 << 20),
        ("1G", 1, 10**9),
        ("1e3", 1, 1000),
        ("0.5", 1000, 500),
        ("250m", 1000, 250),
        ("1n", 1000, 1),
        (2, 1000, 2000),
        (0.1, 1000, 100),
        (".5", 1000, 500),
        ("1.", 1, 1),
        ("12E", 1, 12 * 10**18),
        ("a lot", 1, None),
        ("1e999", 1, None),
        ("", 1, None),
        (True, 1, None),
        (float("nan"), 1, None),
    ],
)
def test_a_quantity_is_read_as_the_api_does(text: object, scale: int, number: int | None) -> None:
    assert quantity(text, scale) == number


def limits(target: Target) -> dict[str, int | None]:
    return {each.name: each.value for each in target.all(CgroupLimit)}


def unset(target: Target) -> set[str]:
    return {each.subject for each in target.all(Unset)} & {"memory", "cpu", "memory_request", "cpu_request"}


def test_limits_are_those_of_the_container_and_of_the_pod_the_lesser_first() -> None:
    assert limits(app()) == {"memory": None, "cpu": None}
    assert limits(app(container="resources: {limits: {memory: 64Mi, cpu: 1}}")) == {"memory": 64 << 20, "cpu": 1000}
    assert (
        limits(app("resources: {limits: {memory: 32Mi}}", "resources: {limits: {memory: 64Mi}}"))["memory"] == 32 << 20
    )
    assert limits(app("resources: {limits: {cpu: 500m}}"))["cpu"] == 500


def test_a_limit_stands_for_a_missing_request() -> None:
    assert unset(app()) == {"memory", "cpu", "memory_request", "cpu_request"}
    assert unset(app(container="resources: {requests: {memory: 64Mi, cpu: 1}}")) == {"memory", "cpu"}
    assert unset(app(container="resources: {limits: {memory: 64Mi, cpu: 1}}")) == set()


def test_what_is_no_quantity_is_told() -> None:
    assert "memory must be a quantity and is text" in wrong(pod(container="resources: {limits: {memory: plenty}}"))[0]


def test_ports_of_the_node_are_told_from_the_pod_s_own() -> None:
    target = app(
        container="ports: [{containerPort: 80}, {containerPort: 53, hostPort: 53, hostIP: 10.0.0.1, protocol: UDP}]"
    )

    assert [(each.container_port, each.host_port, each.host_ip, each.protocol) for each in target.all(Port)] == [
        (80, None, "", "tcp"),
        (53, 53, "10.0.0.1", "udp"),
    ]


def test_variables_are_literal_or_read_from_elsewhere_and_no_value_is_kept() -> None:
    target = app(
        container="""
        env:
        - {name: DB_PASSWORD, value: correct-horse}
        - {name: API_TOKEN, valueFrom: {secretKeyRef: {name: api, key: token}}}
        - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        - {name: EMPTY}
        """
    )

    assert [(each.name, each.literal, bool(each.secret), each.source) for each in target.all(Variable)] == [
        ("DB_PASSWORD", True, True, ""),
        ("API_TOKEN", False, False, "secret"),
        ("NODE", False, False, "field"),
        ("EMPTY", True, False, ""),
    ]
    assert "correct-horse" not in repr(target)


def test_probes_name_the_host_that_the_kubelet_calls() -> None:
    target = app(
        container="""
        livenessProbe: {httpGet: {path: /, port: 80, host: 169.254.169.254}}
        readinessProbe: {exec: {command: [true_]}}
        lifecycle: {postStart: {tcpSocket: {port: 1, host: db}}}
        """
    )

    assert [(each.name, each.host) for each in target.all(Probe)] == [
        ("livenessProbe", "169.254.169.254"),
        ("readinessProbe", None),
        ("postStart", "db"),
    ]


def test_the_image_is_taken_apart() -> None:
    image = only(app(), Image)

    assert (image.reference, image.tag, str(image.where)) == ("web:1", "1", "pod.yaml:8:5")


KEEPERS = """
---
apiVersion: v1
kind: Secret
metadata: {name: api}
data: {password: Y29ycmVjdC1ob3JzZQ==, blob: /w==, user: d2Vi}
stringData: {token: battery-staple}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: usual}
data: {LEVEL: debug}
"""


def test_a_secret_of_the_same_file_is_no_secret() -> None:
    one = "env: [{name: DB_PASSWORD, valueFrom: {secretKeyRef: {name: api, key: password}}}]"
    every = (
        "envFrom: [{prefix: API_, secretRef: {name: api}}, {configMapRef: {name: usual}}, {secretRef: {name: other}}]"
    )
    target = read(pod(container=f"{one}\n{every}") + KEEPERS)["Pod/web:app"]

    assert [(each.name, each.literal, bool(each.secret), each.source) for each in target.all(Variable)] == [
        ("DB_PASSWORD", True, True, "secret"),
        ("API_password", True, True, "secret"),
        ("API_user", True, False, "secret"),
        ("API_token", True, True, "secret"),
        ("LEVEL", True, False, "configMap"),
    ]
    assert {each.where.line for each in target.all(Variable)} == {15, 16, 21}
    assert "correct-horse" not in repr(target)
    assert "battery-staple" not in repr(target)
