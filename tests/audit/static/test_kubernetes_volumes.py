"""What a container mounts and which devices it gets."""

from __future__ import annotations

import pytest

from stockade.audit.facts import DeviceNode, EngineSocket, Mount, VolumeType
from tests.audit.static.kubernetes_help import app, only, pod, read

HOST = "volumes: [{name: data, hostPath: {path: %s}}]"


def mount(spec: str, options: str = "") -> Mount:
    more = f", {options}" if options else ""
    return only(app(spec, f"volumeMounts: [{{name: data, mountPath: /data{more}}}]"), Mount)


def test_a_host_path_is_mounted_writable_unless_the_mount_says_otherwise() -> None:
    assert mount(HOST % "/srv").host_path == "/srv"
    assert mount(HOST % "/srv").writable
    assert not mount(HOST % "/srv", "readOnly: true").writable
    assert mount(HOST % "/srv", "readOnly: true, recursiveReadOnly: Enabled").options == ("ro", "rro")


def test_the_place_of_a_host_path_is_that_of_the_path() -> None:
    assert (
        str(mount("volumes:\n- name: data\n  hostPath:\n    type: Directory\n    path: /etc").where) == "pod.yaml:10:7"
    )


@pytest.mark.parametrize(
    ("options", "path"),
    [("subPath: ssl/certs", "/etc/ssl/certs"), ("subPathExpr: $(NAME)", "/etc"), ("subPathExpr: pod/$(NAME)", "/etc")],
)
def test_a_sub_path_narrows_what_is_mounted_where_it_is_known(options: str, path: str) -> None:
    assert mount(HOST % "/etc", options).host_path == path
    assert mount(HOST % "/etc", options).subpath


@pytest.mark.parametrize(
    ("word", "propagation"),
    [("Bidirectional", "shared"), ("HostToContainer", "slave"), ("None", "private")],
)
def test_propagation_is_told_in_the_kernel_s_words(word: str, propagation: str) -> None:
    assert mount(HOST % "/srv", f"mountPropagation: {word}").propagation == propagation


@pytest.mark.parametrize("path", ["/var/run/docker.sock", "/run/docker.sock", "/var/run/", "/run/../run/containerd"])
def test_an_engine_s_socket_is_seen_however_it_is_spelt(path: str) -> None:
    target = app(HOST % path, "volumeMounts: [{name: data, mountPath: /data, readOnly: true}]")

    assert only(target, EngineSocket).engine in {"docker", "containerd"}


def test_volumes_of_the_cluster_have_no_path_on_the_host() -> None:
    target = app(
        "volumes: [{name: a, emptyDir: {}}, {name: b, secret: {secretName: s}}, {name: c}, {name: d, nfs: {}}]",
        "volumeMounts: [{name: a, mountPath: /a}, {name: b, mountPath: /b}]",
    )

    assert [(each.destination, each.host_path, each.writable) for each in target.all(Mount)] == [
        ("/a", None, True),
        ("/b", None, False),
    ]
    assert {each.name: each.kind for each in target.all(VolumeType)} == {"a": "emptyDir", "b": "secret"}


def test_the_kind_of_a_volume_that_no_container_mounts_is_told_of_the_pod() -> None:
    found = read(pod("volumes: [{name: a, nfs: {server: files}}, {name: b}]"))

    assert {each.name: each.kind for each in found["Pod/web"].all(VolumeType)} == {"a": "nfs", "b": "emptyDir"}
    assert found["Pod/web:app"].all(VolumeType) == ()


def test_a_stateful_set_mounts_what_it_claims() -> None:
    found = read(
        """
        apiVersion: apps/v1
        kind: StatefulSet
        metadata: {name: db}
        spec:
          template: {spec: {containers: [{name: app, volumeMounts: [{name: data, mountPath: /data}]}]}}
          volumeClaimTemplates: [{metadata: {name: data}, spec: {}}]
        """
    )

    assert only(found["StatefulSet/db:app"], Mount).host_path is None
    assert only(found["StatefulSet/db:app"], VolumeType).kind == "persistentVolumeClaim"


CLAIMED = """
apiVersion: v1
kind: PersistentVolume
metadata: {name: disk}
spec: {%s}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: mine}
spec: {%s}
---
"""
POD = pod(
    "volumes: [{name: data, persistentVolumeClaim: {claimName: mine}}]",
    "volumeMounts: [{name: data, mountPath: /data}]",
)


@pytest.mark.parametrize(
    ("volume", "claim"),
    [
        ("hostPath: {path: /etc}", "volumeName: disk"),
        ("local: {path: /etc}", "volumeName: disk"),
        ("hostPath: {path: /etc}, claimRef: {name: mine, namespace: default}", ""),
    ],
)
def test_the_host_path_behind_a_claim_is_found_in_the_same_file(volume: str, claim: str) -> None:
    target = read(CLAIMED % (volume, claim) + POD)["Pod/web:app"]

    assert only(target, Mount).host_path == "/etc"


def test_a_persistent_volume_of_the_host_is_told_of_for_itself() -> None:
    found = read(CLAIMED % ("hostPath: {path: /etc}", ""))

    assert list(found) == ["PersistentVolume/disk"]
    assert only(found["PersistentVolume/disk"], Mount).host_path == "/etc"
    assert read(CLAIMED % ("nfs: {server: a, path: /etc}", "")) == {}


def test_a_host_path_that_no_container_mounts_is_told_of_the_pod() -> None:
    found = read(pod(HOST % "/var/run/docker.sock"))

    assert found["Pod/web:app"].all(EngineSocket) == ()
    assert only(found["Pod/web"], EngineSocket).engine == "docker"


def test_block_volumes_are_devices() -> None:
    target = app(
        "volumes: [{name: data, persistentVolumeClaim: {claimName: mine}}]",
        "volumeDevices: [{name: data, devicePath: /dev/xvda}]",
    )

    assert (only(target, DeviceNode).kind, only(target, DeviceNode).path) == ("block", "/dev/xvda")
