"""What images declare, and what lies in their layers."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from typing import TYPE_CHECKING

import pytest

from stockade.audit.facts import BuildStep, HealthCheck, Identity, Port, Target, Unset, Variable, WorkingDirectory
from stockade.audit.static.files import audit_files
from tests.audit.static.image_help import (
    configuration,
    directory,
    everything,
    file,
    files,
    image,
    layer,
    layout,
    link,
    saved,
    wrong,
)

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE = b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n"
SETUID = layer(file("usr/bin/su", b"x", 0o4755))


def test_archives_and_layouts_of_one_image_tell_the_same(tmp_path: Path) -> None:
    archive, directory_ = image(saved(tmp_path / "a.tar", [SETUID])), image(layout(tmp_path / "l", [SETUID]))

    for target in (archive, directory_):
        assert files(target)["/usr/bin/su"].kind == "setuid"
        assert target.id.endswith(":web:1")


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_archive_is_read_as_well(tmp_path: Path, compress: object) -> None:
    path = saved(tmp_path / "a.tar", [SETUID])
    path.write_bytes(compress(path.read_bytes()))  # type: ignore[operator]

    assert files(image(path))["/usr/bin/su"].detail == "04755 root"


def test_a_layout_is_found_in_a_directory_and_judged_once(tmp_path: Path) -> None:
    layout(tmp_path / "l", [SETUID])
    found = audit_files([str(tmp_path)])

    assert found.problems == ()
    assert [one.summary.id for one in found.judged] == [f"{tmp_path}/l:web:1"]
    assert "IMG-SUID" in {each for one in found.judged for finding in one.findings for each in finding.conditions}


def test_an_archive_of_something_else_is_passed_over_unless_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(layer(file("a", b"b")))

    assert audit_files([str(tmp_path)]).problems == ()
    (problem,) = audit_files([str(path)]).problems
    assert "holds no image" in problem.message


def test_the_configuration_is_what_a_container_gets(tmp_path: Path) -> None:
    config = {
        "User": "7:8",
        "Env": ["PATH=/bin", "DB_PASSWORD=zq8Lr4vB"],
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/var/run/docker.sock": {}},
        "WorkingDir": "/proc/self/fd/9",
        "Healthcheck": {"Test": ["CMD", "true"]},
        "Cmd": ["app"],
    }
    target = image(saved(tmp_path / "a.tar", [], configuration(config)))
    (user,), (port,), (health,) = target.all(Identity), target.all(Port), target.all(HealthCheck)

    assert (user.uids, user.gids) == ((7, 7, 7, 7), (8, 8, 8, 8))
    assert (port.container_port, port.host_port) == (80, None)
    assert health.present
    assert [bool(each.secret) for each in target.all(Variable)] == [False, True]
    assert "zq8Lr4vB" not in repr(target)
    assert target.all(WorkingDirectory)[0].outside
    assert "/var/run/docker.sock" in target.all(BuildStep)[0].arguments
    assert target.command == "app"
    assert user.where.path.endswith("a.tar/c.json")


def test_without_a_user_it_may_be_root(tmp_path: Path) -> None:
    target = image(saved(tmp_path / "a.tar", []))

    assert {each.subject for each in target.all(Unset)} == {"user", "healthcheck"}


def test_credentials_in_the_history_are_found(tmp_path: Path) -> None:
    history = [
        {"created_by": "|1 API_TOKEN=zq8Lr4vB /bin/sh -c curl example.org | sh"},
        {"created_by": "/bin/sh -c #(nop)  ENV DB_PASSWORD=pw8Lr4vB"},
        {"created_by": "RUN /bin/sh -c apk add sudo # buildkit"},
        {"created_by": '/bin/sh -c #(nop)  VOLUME ["/data"]'},
    ]
    target = image(saved(tmp_path / "a.tar", [], configuration(history=history)))

    assert [(each.name, bool(each.secret)) for each in target.all(Variable)] == [
        ("API_TOKEN", True),
        ("DB_PASSWORD", True),
    ]
    steps = [(each.instruction, each.arguments) for each in target.all(BuildStep)]
    assert steps == [
        ("RUN", ("curl", "example.org", "|", "sh")),
        ("RUN", ("apk", "add", "sudo")),
        ("VOLUME", ("/data",)),
    ]
    assert "8Lr4vB" not in repr(target)


def capability() -> bytes:
    net_raw = 1 << 13
    return struct.pack("<IIIII", 0x02000001, net_raw, 0, 0, 0)


def test_programs_that_raise_privileges_are_found(tmp_path: Path) -> None:
    attribute = {"SCHILY.xattr.security.capability": capability().decode("latin-1")}
    content = layer(
        file("bin/a", b"x", 0o4755, uid=7),
        file("bin/b", b"x", 0o2755),
        file("bin/c", b"x", 0o755, pax_headers=attribute),
        file("bin/d", b"x", 0o4644),
        file("bin/e", b"x", 0o755),
    )
    found = files(image(saved(tmp_path / "a.tar", [content])))

    assert {path: (each.kind, each.detail) for path, each in found.items()} == {
        "/bin/a": ("setuid", "04755 7"),
        "/bin/b": ("setgid", "02755 root"),
        "/bin/c": ("capability", "CAP_NET_RAW+ep"),
    }


def test_directories_and_programs_that_anybody_writes_are_found_in_the_path_only(tmp_path: Path) -> None:
    content = layer(
        directory("usr/local/bin", 0o777),
        directory("opt/app/bin/", 0o1777),
        directory("tmp", 0o1777),
        file("usr/bin/x", b"x", 0o777),
        file("srv/x", b"x", 0o777),
    )
    config = configuration({"Env": ["PATH=/opt/app/bin:/usr/bin"]})

    assert set(files(image(saved(tmp_path / "a.tar", [content], config)))) == {
        "/usr/local/bin",
        "/opt/app/bin",
        "/usr/bin/x",
    }


@pytest.mark.parametrize(
    ("name", "to", "hard", "kind"),
    [
        ("dev", "/tmp/x", False, "device-link"),
        ("./dev/null", "../proc/sys/kernel/core_pattern", False, "device-link"),
        ("proc", "etc", True, "device-link"),
        ("a/b", "../../../etc/shadow", False, "hostile-link"),
        ("a", "/proc/1/root", False, "hostile-link"),
        ("a", "/etc/shadow", True, "hostile-link"),
        ("a", "../../etc/shadow", True, "hostile-link"),
        ("etc/mtab", "/proc/mounts", False, None),
        ("dev/fd", "/proc/self/fd", False, None),
        ("var/log/access.log", "/dev/stdout", False, None),
        ("usr/bin/vi", "../../etc/alternatives/vi", False, None),
        ("a", "bin/a", True, None),
    ],
)
def test_links_that_lead_out_or_to_where_runtimes_mount_are_found(
    tmp_path: Path,
    name: str,
    to: str,
    hard: bool,  # noqa: FBT001 - a truth of the file
    kind: str | None,
) -> None:
    found = image(saved(tmp_path / "a.tar", [layer(link(name, to, hard=hard))]))

    assert [each.kind for each in files(found).values()] == ([kind] if kind else [])


@pytest.mark.parametrize("name", ["../x", "a/../../x", "../../../../etc/cron.d/x"])
def test_names_that_lead_out_are_told_and_used_for_nothing(tmp_path: Path, name: str) -> None:
    found = image(saved(tmp_path / "a.tar", [layer(file(name, PRIVATE))]))

    assert [each.kind for each in files(found).values()] == ["hostile-link"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("root/.ssh/id_rsa", PRIVATE),
        ("etc/tls/server.key", b"-----BEGIN PRIVATE KEY-----\n"),
        ("root/.docker/config.json", b'{"auths": {"r.example": {"auth": "eA=="}}}'),
        ("home/a/.aws/credentials", b"[default]\naws_secret_access_key = x\n"),
        ("root/.git-credentials", b"https://a:b@example.org\n"),
        ("root/.netrc", b"machine example.org login a password b"),
        ("app/.npmrc", b"//r.example/:_authToken=x\n"),
        ("app/.env", b"# x\nexport DB_PASSWORD='zq8Lr4vB'\n"),
        ("root/.kube/config", b"users:\n- user:\n    token: x\n"),
        ("app/store.p12", b"\x30\x82"),
    ],
)
def test_credentials_are_known_by_name_and_content(tmp_path: Path, name: str, content: bytes) -> None:
    target = image(saved(tmp_path / "a.tar", [layer(file(name, content))]))

    assert files(target)[f"/{name}"].kind == "secret"
    assert "zq8Lr4vB" not in repr(target)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("root/.ssh/id_rsa.pub", b"ssh-rsa AAAA"),
        ("etc/ssl/cert.pem", b"-----BEGIN CERTIFICATE-----\n"),
        ("root/.docker/config.json", b'{"credsStore": "pass"}'),
        ("app/.npmrc", b"registry=https://r.example\n_authToken=${NPM_TOKEN}\n"),
        ("app/.env", b"PORT=80\nDB_PASSWORD=\n"),
        ("app/.env.example", b"DB_PASSWORD=zq8Lr4vB\n"),
        ("usr/lib/python3.11/test/key.pem", PRIVATE),
        ("app/node_modules/tls/test.key", PRIVATE),
        ("usr/share/app/demo.pfx", b"\x30\x82"),
        ("srv/public.key", b"-----BEGIN PUBLIC KEY-----"),
    ],
)
def test_what_only_looks_like_credentials_is_left_alone(tmp_path: Path, name: str, content: bytes) -> None:
    assert files(image(saved(tmp_path / "a.tar", [layer(file(name, content))]))) == {}


def test_accounts_without_a_password_are_found(tmp_path: Path) -> None:
    shadow = b"root::19000:0:::::\ndaemon:*:19000:0:::::\nada:$y$j9T$x:19000::::::\n"
    found = image(saved(tmp_path / "a.tar", [layer(file("etc/shadow", shadow))]))

    assert [(each.kind, each.detail) for each in files(found).values()] == [("account", "root")]


@pytest.mark.parametrize(
    "later",
    [
        file("root/.ssh/.wh.id_rsa"),
        file("root/.wh..ssh"),
        file("root/.ssh/.wh..wh..opq"),
        file("root/.ssh/id_rsa", b""),
        link("root/.ssh", "/srv"),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_what_a_later_layer_takes_away_is_still_told(
    tmp_path: Path,
    later: object,
    turned: bool,  # noqa: FBT001 - a truth of the file
) -> None:
    first, second = layer(file("root/.ssh/id_rsa", PRIVATE)), layer(later)  # type: ignore[arg-type]
    names = ["0/layer.tar", "1/layer.tar"]
    # the archive's order is not that of the layers
    layers, listed = ([second, first], names[::-1]) if turned else ([first, second], names)
    found = files(image(saved(tmp_path / "a.tar", layers, Layers=listed)))

    assert found["/root/.ssh/id_rsa"].removed


def test_what_a_later_layer_leaves_alone_is_not_removed(tmp_path: Path) -> None:
    layers = [layer(file("root/.ssh/id_rsa", PRIVATE)), layer(directory("root/.ssh"), file("root/x", b""))]

    assert not files(image(saved(tmp_path / "a.tar", layers)))["/root/.ssh/id_rsa"].removed


def test_each_image_of_an_archive_is_a_target(tmp_path: Path) -> None:
    two = [{"Config": "c.json", "RepoTags": [name], "Layers": ["a/layer.tar"]} for name in ("a:1", "b:1")]
    path = tmp_path / "a.tar"
    parts = (
        ("c.json", configuration()),
        ("a/layer.tar", SETUID),
        ("manifest.json", str(two).replace("'", '"').encode()),
    )
    path.write_bytes(layer(*[file(*part) for part in parts]))
    found = everything(path)

    assert wrong(found) == []
    assert [list(files(each)) for each in found if isinstance(each, Target)] == [["/usr/bin/su"]] * 2


def test_layers_that_are_linked_to_one_another_are_one(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    manifest = b'[{"Config": "c.json", "RepoTags": null, "Layers": ["a/layer.tar", "b/layer.tar"]}]'
    path.write_bytes(
        layer(
            file("c.json", configuration()),
            file("a/layer.tar", SETUID),
            link("b/layer.tar", "../a/layer.tar"),
            file("manifest.json", manifest),
        )
    )

    assert wrong(everything(path)) == []
