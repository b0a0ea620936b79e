"""What files say, as facts: the same for compose, Kubernetes, inspect output and units."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stockade.audit import facts, gates
from stockade.audit.facts import Where
from stockade.audit.static import building
from stockade.audit.static.credentials import credential
from stockade.sandbox.linux import capabilities as caps

if TYPE_CHECKING:
    from collections.abc import Iterable

HERE = Where("file.yml", 3, 5)


def one(found: Iterable[facts.Fact], kind: type[facts.F]) -> facts.F:
    (fact,) = [each for each in found if isinstance(each, kind)]
    return fact


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ((), (), gates.USUAL),
        (("NET_ADMIN",), (), gates.USUAL | caps.mask(["NET_ADMIN"])),
        (("cap_net_admin",), ("all",), caps.mask(["NET_ADMIN"])),
        ((), ("CAP_CHOWN", "chown"), gates.USUAL & ~caps.mask(["CHOWN"])),
        (("ALL",), ("SYS_ADMIN",), caps.ALL & ~caps.mask(["SYS_ADMIN"])),
        (("no_such_thing",), ("ALL",), 0),
    ],
)
def test_capabilities_are_the_engines_own_with_what_is_added_and_dropped(
    add: tuple[str, ...], drop: tuple[str, ...], expected: int
) -> None:
    sets = one(building.capabilities(HERE, add, drop), facts.CapabilitySets)

    assert sets.bounding == sets.effective == expected


def test_who_is_not_root_holds_no_capability_and_can_still_gain_them() -> None:
    sets = one(building.capabilities(HERE, ["SYS_ADMIN"], root=False), facts.CapabilitySets)

    assert sets.effective == sets.permitted == 0
    assert sets.bounding & caps.mask(["SYS_ADMIN"])


def test_podman_leaves_less_than_docker() -> None:
    docker = one(building.capabilities(HERE), facts.CapabilitySets)
    podman = one(building.capabilities(HERE, engine="podman"), facts.CapabilitySets)

    assert caps.names(docker.bounding & ~podman.bounding) == ("CAP_NET_RAW", "CAP_MKNOD", "CAP_AUDIT_WRITE")


def test_privileged_brings_everything_at_once() -> None:
    found = list(building.privileged(HERE))

    assert one(found, facts.CapabilitySets).effective == caps.ALL
    assert one(found, facts.SeccompState).mode == "disabled"
    assert one(found, facts.DevicePolicy).default == "allow"
    assert {each.state for each in found if isinstance(each, facts.Mask)} == {"open"}
    assert [type(each) for each in building.privileged(HERE, value=False)] == [facts.Privileged]


@pytest.mark.parametrize(
    ("path", "engine", "inside"),
    [
        ("/var/run/docker.sock", "docker", "/s"),
        ("/run/docker.sock", "docker", "/s"),
        ("/var/run/../run//docker.sock/", "docker", "/s"),
        ("/tmp/../var/run/docker.sock", "docker", "/s"),
        ("/var/run", "docker", "/s/docker.sock"),
        ("/run/", "docker", "/s/docker.sock"),
        ("/run/containerd/containerd.sock", "containerd", "/s"),
        ("/run/containerd", "containerd", "/s/containerd.sock"),
        ("/run/k3s/containerd/containerd.sock", "containerd", "/s"),
        ("/var/run/crio/crio.sock", "cri-o", "/s"),
        ("/run/user/1000/podman/podman.sock", "podman", "/s"),
        ("~/.docker/run/docker.sock", "docker", "/s"),
        ("/run/systemd/private", "systemd", "/s"),
        ("/var/run/dbus/system_bus_socket", "systemd", "/s"),
    ],
)
def test_an_engines_socket_is_found_behind_any_spelling_and_in_its_directory(
    path: str, engine: str, inside: str
) -> None:
    socket = one(building.bind(HERE, "/s", path), facts.EngineSocket)

    assert (socket.engine, socket.path) == (engine, inside)


@pytest.mark.parametrize("path", ["/srv/app/web.sock", "/data", "./run", "../run", "/run/mysqld/mysqld.sock", "/var"])
def test_what_is_no_engines_socket_gives_a_mount_alone(path: str) -> None:
    assert [type(each) for each in building.bind(HERE, "/s", path)] == [facts.Mount]


@pytest.mark.parametrize(
    ("path", "fstype"), [("/proc", "proc"), ("/sys/", "sysfs"), ("/dev", "devtmpfs"), ("/a", None)]
)
def test_a_file_system_of_the_kernels_is_told_by_its_path(path: str, fstype: str | None) -> None:
    assert one(building.bind(HERE, "/host", path), facts.Mount).fstype == fstype


@pytest.mark.parametrize(("word", "expected"), [("rshared", "shared"), ("slave", "slave"), ("rw", None), (None, None)])
def test_propagation_is_taken_as_mount_spells_it(word: str | None, expected: str | None) -> None:
    assert one(building.bind(HERE, "/a", "/b", propagation=word), facts.Mount).propagation == expected


def test_a_disk_that_is_bound_is_a_device_as_well() -> None:
    device = one(building.bind(HERE, "/dev/x", "/dev/nvme0n1p2"), facts.DeviceNode)

    assert (device.kind, device.path, device.major) == ("block", "/dev/x", -1)


@pytest.mark.parametrize(
    ("profile", "mode", "name"),
    [
        ("unconfined", "disabled", "unconfined"),
        ("Unconfined", "disabled", "unconfined"),
        ("RuntimeDefault", "filter", "default"),
        ("runtime/default", "filter", "default"),
        ("localhost/web.json", "filter", "localhost/web.json"),
    ],
)
def test_a_profiles_name_tells_whether_there_is_a_filter(profile: str, mode: str, name: str) -> None:
    state = building.seccomp(HERE, profile)

    assert isinstance(state, facts.SeccompState)
    assert (state.mode, state.profile) == (mode, name)


def test_what_is_left_to_the_engine_is_unset() -> None:
    assert building.seccomp(HERE, None) == facts.Unset(where=HERE, subject="seccomp")
    assert building.apparmor(HERE, None) == facts.Unset(where=HERE, subject="apparmor")
    assert list(building.identity(HERE, None)) == [facts.Unset(where=HERE, subject="user")]
    assert list(building.identity(HERE, "")) == [facts.Unset(where=HERE, subject="user")]


@pytest.mark.parametrize(
    ("user", "group", "uid", "gid"),
    [
        ("0", None, 0, None),
        ("root", None, 0, None),
        (1000, 50, 1000, 50),
        ("1000:50", None, 1000, 50),
        ("app", None, None, None),
        ("app:app", None, None, None),
        ("1000:root", None, 1000, 0),
    ],
)
def test_a_user_is_an_id_or_a_name_of_the_image(
    user: str | int, group: int | None, uid: int | None, gid: int | None
) -> None:
    identity = one(building.identity(HERE, user, group), facts.Identity)

    assert (identity.uids and identity.uids[1], identity.gids and identity.gids[1]) == (uid, gid)
    assert identity.host_uids is None


@pytest.mark.parametrize(
    ("reference", "registry", "tag", "digest"),
    [
        ("nginx", None, None, None),
        ("nginx:1.27", None, "1.27", None),
        ("library/nginx:1.27", None, "1.27", None),
        ("localhost:5000/web", "localhost:5000", None, None),
        ("registry.example:5000/a/b:2@sha256:ab", "registry.example:5000", "2", "sha256:ab"),
        ("nginx@sha256:ab", None, None, "sha256:ab"),
    ],
)
def test_an_images_reference_is_taken_apart(
    reference: str, registry: str | None, tag: str | None, digest: str | None
) -> None:
    image = building.image(HERE, reference)

    assert (image.registry, image.tag, image.digest, image.local) == (registry, tag, digest, False)


@pytest.mark.parametrize("reference", ["${IMAGE}", "nginx:$TAG", "{{ .Values.image }}", ""])
def test_an_image_with_a_variable_is_known_only_when_it_is_used(reference: str) -> None:
    assert building.image(HERE, reference).local


def test_masks_are_open_below_what_is_named() -> None:
    opened = {each.path for each in building.masks(HERE, unmasked=["/proc/acpi", "/sys"]) if each.state == "open"}

    assert opened == {"/proc/acpi", "/sys/devices/virtual/powercap", "/sys/firmware"}


def test_a_sysctl_has_dots_whatever_the_file_has() -> None:
    assert building.sysctl(HERE, "net/ipv4/ip_forward", "1").name == "net.ipv4.ip_forward"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DB_PASSWORD", "hunter2"),
        ("dbPassword", "hunter2"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("API_TOKEN", "abc"),
        ("STUFF", "-----BEGIN RSA PRIVATE KEY-----\nx"),
        ("STUFF", "AKIAABCDEFGHIJKLMNOP"),
        ("DATABASE_URL", "postgres://ada:hunter2@db/web"),
    ],
)
def test_a_credential_is_known_by_its_name_or_its_value(name: str, value: str) -> None:
    variable = building.variable(HERE, name, value)

    assert variable.secret
    assert value not in repr(variable)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENIZER", "fast"),
        ("COMPASS", "north"),
        ("PASSENGERS", "4"),
        ("DB_PASSWORD_FILE", "/run/secrets/db"),
        ("DB_PASSWORD", "/run/secrets/db"),
        ("DB_PASSWORD", "${DB_PASSWORD}"),
        ("DB_PASSWORD", ""),
        ("MYSQL_ALLOW_EMPTY_PASSWORD", "yes"),
        ("PASSWORD_MIN_LENGTH", "12"),
        ("DATABASE_URL", "postgres://db/web"),
        ("DATABASE_URL", "postgres://ada:${PW}@db/web"),
        ("GREETING", "hello"),
    ],
)
def test_what_only_sounds_like_a_credential_is_none(name: str, value: str) -> None:
    assert credential(name, value) is None


def test_a_variable_that_stands_elsewhere_is_not_literal() -> None:
    variable = building.variable(HERE, "DB_PASSWORD", None, "secret")

    assert not variable.literal
    assert variable.secret is None
