"""Volumes, devices, ports and variables of a service, in their short and long forms."""

from __future__ import annotations

import pytest

from stockade.audit import facts
from stockade.audit.facts import Where
from stockade.audit.static.docker import words
from tests.audit.static.compose_help import app, only, place, read, wrong

HERE = Where("x")


class TestVolumes:
    @pytest.mark.parametrize(
        ("text", "kind", "source", "destination", "writable"),
        [("/a:/b", "bind", "/a", "/b", True), ("./a:/b:ro", "bind", "./a", "/b", False),
         ("~/a:/b:rw,z", "bind", "~/a", "/b", True), ("data:/b", "volume", "data", "/b", True),
         ("/b", "volume", "", "/b", True), (r"C:\a:D:\b:ro", "bind", r"C:\a", r"D:\b", False),
         ("${A:-/x}:/b", "bind", "${A:-/x}", "/b", True), ("../..:/b:ro,Z", "bind", "../..", "/b", False)],
    )  # fmt: skip
    def test_the_short_form_is_taken_apart(
        self,
        text: str,
        kind: str,
        source: str,
        destination: str,
        writable: bool,  # noqa: FBT001 - a parameter
    ) -> None:
        mount = words.volume(text, HERE)
        assert (mount.kind, mount.source, mount.destination, mount.writable) == (kind, source, destination, writable)

    def test_the_long_form_says_the_same(self) -> None:
        target = app("""
            volumes:
            - type: bind
              source: /etc
              target: /host
              read_only: true
              bind: {propagation: rshared}
            - {type: tmpfs, target: /tmp, tmpfs: {size: 64m}}
        """)
        first, second = target.all(facts.Mount)
        assert (first.host_path, first.destination, first.writable, first.propagation) == (
            "/etc",
            "/host",
            False,
            "shared",
        )
        assert place(first) == (6, 7)
        assert (second.fstype, second.host_path) == ("tmpfs", None)
        assert "size=64m" in second.super_options

    @pytest.mark.parametrize(
        "source",
        ["/var/run/docker.sock", "/run/docker.sock", "/var/run/../run//docker.sock", "${DOCKER_SOCK:-/run/docker.sock}",
         "${DIR}/docker.sock", "$XDG_RUNTIME_DIR/docker.sock", "/var/run", "/run/", "//./pipe/docker_engine"],
    )  # fmt: skip
    def test_the_engines_socket_is_seen_under_every_name(self, source: str) -> None:
        kind = "npipe" if "pipe" in source else "bind"
        long = app(f"volumes: [{{type: {kind}, source: '{source}', target: /x}}]")
        assert [each.engine for each in long.all(facts.EngineSocket)] == ["docker"]
        if kind == "bind":
            short = app(f"volumes: ['{source}:/x:ro']")
            assert [each.engine for each in short.all(facts.EngineSocket)] == ["docker"]

    def test_the_switch_for_the_engines_socket_mounts_it(self) -> None:
        assert only(app("use_api_socket: true"), facts.EngineSocket).engine == "docker"

    def test_a_named_volume_that_is_a_directory_of_the_host_is_a_bind_at_its_device(self) -> None:
        top = "volumes:\n  data:\n    driver_opts: {type: none, o: 'bind,ro', device: /etc}\n"
        mount = only(app("volumes: ['data:/data']", top=top), facts.Mount)
        assert (mount.host_path, mount.writable, mount.where.line) == ("/etc", False, 7)

    def test_a_volume_of_another_machine_is_no_path_of_the_host(self) -> None:
        top = "volumes: {data: {driver_opts: {type: nfs, o: 'addr=10.0.0.1', device: ':/etc'}}}\n"
        mount = only(app("volumes: ['data:/data']", top=top), facts.Mount)
        assert (mount.host_path, mount.fstype) == (None, "nfs")

    def test_a_volume_of_the_host_that_no_service_mounts_is_told_as_well(self) -> None:
        found = read(
            "services: {a: {image: a}}\nvolumes: {x: {driver_opts: {o: bind, type: none, device: /}}, y: {}}\n"
        )
        assert only(found["volumes"], facts.Mount).host_path == "/"

    def test_a_path_that_nobody_knows_is_a_mount_and_a_gap(self) -> None:
        target = app("volumes: ['${DATA}/x:/x']")
        assert only(target, facts.Mount).host_path == "${DATA}/x"
        assert target.gap(facts.Mount) is not None
        assert facts.Mount not in target.complete

    def test_volumes_and_directories_that_two_services_have_are_shared(self) -> None:
        found = read(
            "services:\n  a: {image: a, volumes: ['data:/d', './l/:/l:ro', 'other:/o', '/run/docker.sock:/s']}\n"
            "  b: {image: b, volumes: ['data:/d:ro', './l:/x', '/run/docker.sock:/s']}\n"
        )
        assert [(each.name, each.others) for each in found["a"].all(facts.SharedVolume)] == [("data", ("b",))]
        assert [(each.name, each.others) for each in found["b"].all(facts.SharedVolume)] == [("./l", ("a",))]

    def test_secrets_and_configs_are_mounts_that_cannot_be_written(self) -> None:
        target = app(
            "secrets: [s, {source: t, target: /t}]\nconfigs: [c]",
            top="secrets: {s: {file: ./s}, t: {environment: T}}\nconfigs: {c: {file: /etc/passwd}}\n",
        )
        found = {each.destination: (each.host_path, each.writable) for each in target.all(facts.Mount)}
        assert found == {"/run/secrets/s": (None, False), "/t": (None, False), "/c": ("/etc/passwd", False)}

    def test_a_volume_without_a_target_is_told(self) -> None:
        assert wrong("services: {a: {image: a, volumes: [{type: bind, source: /}]}}") == [
            "stdin:1:36: a volume without a target"
        ]


class TestDevices:
    def test_devices_are_read_in_all_forms(self) -> None:
        target = app("""
            devices:
            - /dev/sda:/dev/x:r
            - {source: /dev/kvm, target: /dev/kvm, permissions: rw}
            - vendor.com/class=name
        """)
        found = {each.path: (each.kind, each.where.line) for each in target.all(facts.DeviceNode)}
        assert found["/dev/x"] == ("block", 5)
        assert found["/dev/kvm"] == ("char", 6)
        assert found["/dev/vendor.com/class"][0] == "char"

    def test_rules_of_the_device_cgroup_are_a_policy(self) -> None:
        assert only(app("device_cgroup_rules: ['a *:* rwm']"), facts.DevicePolicy).default == "allow"
        assert only(app("device_cgroup_rules: ['c 1:3 mr']"), facts.DevicePolicy).default == "deny"

    def test_gpus_are_devices(self) -> None:
        assert app("gpus: all").all(facts.DeviceNode)
        reserved = "deploy: {resources: {reservations: {devices: [{driver: nvidia, capabilities: [gpu]}]}}}"
        assert app(reserved).all(facts.DeviceNode)


class TestPorts:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [("80", ("", 0, 80, "tcp", 1)), ("8080:80", ("", 8080, 80, "tcp", 1)),
         ("127.0.0.1:8080:80", ("127.0.0.1", 8080, 80, "tcp", 1)), ("127.0.0.1::80", ("127.0.0.1", 0, 80, "tcp", 1)),
         ("8000-8010:80-90", ("", 8000, 80, "tcp", 11)), ("8000-8010:80", ("", 8000, 80, "tcp", 1)),
         ("53:53/udp", ("", 53, 53, "udp", 1)), ("[::1]:80:80", ("::1", 80, 80, "tcp", 1)),
         ("3000-3005", ("", 0, 3000, "tcp", 6))],
    )  # fmt: skip
    def test_the_short_form_is_taken_apart(self, text: str, expected: tuple[object, ...]) -> None:
        port = only(app(f"ports: ['{text}']"), facts.Port)
        assert (port.host_ip, port.host_port, port.container_port, port.protocol, port.count) == expected

    def test_the_long_form_says_the_same(self) -> None:
        port = only(app("ports: [{target: 80, published: '8080-8081', host_ip: 127.0.0.1, mode: host}]"), facts.Port)
        assert (port.host_ip, port.host_port, port.container_port) == ("127.0.0.1", 8080, 80)

    def test_an_address_before_the_published_port_counts(self) -> None:
        port = only(app("ports: [{target: 80, published: 127.0.0.1:8080}]"), facts.Port)
        assert (port.host_ip, port.host_port) == ("127.0.0.1", 8080)

    def test_exposed_ports_are_not_published(self) -> None:
        port = only(app("expose: [3000]"), facts.Port)
        assert (port.container_port, port.host_port) == (3000, None)


@pytest.mark.parametrize(
    ("text", "size"),
    [("512m", 512 << 20), ("1.5GiB", 3 << 29), ("1gb", 1 << 30), ("100", 100), ("-1", -1), ("0", -1), ("2 G", 2 << 30),
     ("x", None), ("", None)],
)  # fmt: skip
def test_sizes_are_bytes(text: str, size: int | None) -> None:
    assert words.size(text) == size


def test_literal_secrets_and_values_from_outside_are_told_apart_and_values_are_not_kept() -> None:
    target = app("environment: {API_TOKEN: abcdef123456, OTHER_TOKEN: '${OTHER_TOKEN}', EMPTY: }")
    found = {each.name: (each.literal, bool(each.secret), each.source) for each in target.all(facts.Variable)}
    assert found["API_TOKEN"] == (True, True, "")
    assert found["OTHER_TOKEN"] == (False, False, "host")
    assert found["EMPTY"] == (False, False, "host")
    assert "abcdef123456" not in repr(target)
