"""Values of options, in Docker's syntax."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockade.errors import UsageError
from stockade.sandbox import mount_values, options, values
from stockade.sandbox.request import DeviceRequest, MountRequest, UlimitRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stockade.sandbox.options import Option


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (values.size, "0", 0),
        (values.size, "64", 64),
        (values.size, "64b", 64),
        (values.size, "64k", 65536),
        (values.size, "64M", 64 << 20),
        (values.size, "64mb", 64 << 20),
        (values.size, "64MiB", 64 << 20),
        (values.size, "1.5g", 3 << 29),
        (values.size, "1 g", 1 << 30),
        (values.memory_swap, "-1", -1),
        (values.cpus, "1.5", 1.5),
        (values.cpus, ".5", 0.5),
        (values.pids_limit, "0", -1),
        (values.pids_limit, "-1", -1),
        (values.seconds, "2.5", 2.5),
        (values.seconds, "500ms", 0.5),
        (values.seconds, "2m", 120.0),
        (values.signal, "TERM", 15),
        (values.signal, "sigkill", 9),
        (values.signal, "10", 10),
        (values.signal, "RTMIN+3", 37),
        (values.user, "1000:100", "1000:100"),
        (values.user, "app", "app"),
        (values.cpus_list, "0-3,5", "0-3,5"),
        (values.directory, "/a/../b//c/", "/b/c"),
        (values.directory, "//", "/"),
        (values.ulimit, "nofile=1024:2048", UlimitRequest("nofile", 1024, 2048)),
        (values.ulimit, "core=-1", UlimitRequest("core", -1, -1)),
        (values.ulimit, "stack=8:-1", UlimitRequest("stack", 8, -1)),
        (values.capability_list, "net_admin,CAP_CHOWN,all", ("CAP_NET_ADMIN", "CAP_CHOWN", "ALL")),
        (values.capability_set, "None", ()),
        (values.pair, "a=b=c", ("a", "b=c")),
        (values.pair, "a", ("a", "")),
        (values.security, "seccomp=/p.json", ("seccomp", "/p.json")),
        (values.security, "seccomp:unconfined", ("seccomp", "unconfined")),
        (values.security, "seccomp=builtin", ("seccomp", "default")),
        (values.security, "no-new-privileges=false", ("no_new_privileges", False)),
        (values.security, "label=disable", ("", None)),
        (mount_values.volume, "/a:/b", MountRequest("bind", "/a", "/b")),
        (mount_values.volume, "/a:/b:ro,z,rslave", MountRequest("bind", "/a", "/b", True, (), "rslave")),
        (mount_values.volume, "/a:/b/:noexec,nosuid", MountRequest("bind", "/a", "/b", False, ("noexec", "nosuid"))),
        (
            mount_values.tmpfs,
            "/t:size=1m,mode=1777,exec",
            MountRequest("tmpfs", "tmpfs", "/t", False, ("nosuid", "nodev", "exec", "size=1048576", "mode=1777")),
        ),
        (mount_values.tmpfs, "/t:ro", MountRequest("tmpfs", "tmpfs", "/t", True, ("nosuid", "nodev", "noexec"))),
        (mount_values.device, "/dev/fuse", DeviceRequest("/dev/fuse", "/dev/fuse", "rwm")),
        (mount_values.device, "/dev/a:r", DeviceRequest("/dev/a", "/dev/a", "r")),
        (mount_values.device, "/dev/a:/dev/b:rw", DeviceRequest("/dev/a", "/dev/b", "rw")),
        (mount_values.mount, "type=bind,source=/a,target=/b,readonly", MountRequest("bind", "/a", "/b", True)),
        (mount_values.mount, "type=bind,src=/a,dst=/b,ro=0", MountRequest("bind", "/a", "/b")),
        (
            mount_values.mount,
            'type=bind,"src=/a,""b""",dst=/c,bind-propagation=rshared,bind-nonrecursive',
            MountRequest("bind", '/a,"b"', "/c", False, (), "rshared", False),
        ),
        (
            mount_values.mount,
            "type=tmpfs,destination=/t,tmpfs-size=1k,tmpfs-mode=700",
            MountRequest("tmpfs", "tmpfs", "/t", False, ("nosuid", "nodev", "noexec", "size=1024", "mode=700")),
        ),
    ],
)
def test_a_value_is_read_as_docker_reads_it(read: Callable[[str], object], text: str, value: object) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text"),
    [
        *((values.size, text) for text in ("", "m", "64q", "-1", "1.2.3", "1e3", "٣", "64 mb b", "9999999999g")),
        (values.memory, "0"),
        *((values.cpus, text) for text in ("0", "0.001", "-1", "nan", "inf", "1,5", "")),
        *((values.pids_limit, text) for text in ("-2", "many", "1.5", "")),
        *((values.cpu_shares, text) for text in ("1", "262145")),
        *((values.cpus_list, text) for text in ("", "3-1", "1-", "-1", "a", "1,,2", "0-3 ")),
        *((values.seconds, text) for text in ("0", "-1", "1d", "ms", "", "1e99", "1s2")),
        *((values.signal, text) for text in ("0", "65", "NOPE", "", "SIG", "INT+1", "_DFL", "RTMIN+99", "99999")),
        *((values.user, text) for text in ("", ":1", "1:", "1:2:3", "4294967295", "0:99999999999")),
        *((values.name, text) for text in ("", "a", "-ab", "a b", "a/b", "../x", "ä" * 3, "a" * 129)),
        *((values.hostname, text) for text in ("", "-x", "a b", "a" * 65, "a\n")),
        *((values.directory, text) for text in ("", "a", "./a")),
        *((values.ulimit, text) for text in ("nofile", "nofile=", "files=1", "nofile=2:1", "nofile=-2", "nofile=-1:5")),
        *((values.capability_list, text) for text in ("", "NETADMIN", "chown,", "CAP_99", "chown kill")),
        *((values.env, text) for text in ("", "=1")),
        (values.annotation, "org.stockade.root=tmpfs"),
        *((values.extent, text) for text in ("0:1", "0:1:0", "a:b:c", "0:-1:1", "0:4294967295:1", "0:1:2:3")),
        *((values.security, text) for text in ("", "seccomp", "seccomp=", "apparmor=x", "systempaths=masked")),
        *(
            (mount_values.volume, text)
            for text in ("/a", "a:/b", ":/b", "/a:b", "/a:/", "/a:/b:ro,rw", "/a:/b:x", "/a:/b:")
        ),
        *((mount_values.tmpfs, text) for text in ("t", "/t:size=x", "/t:mode=9", "/t:huge", "/")),
        *((mount_values.device, text) for text in ("", "a", "/dev/a:b", "/dev/a:/dev/b:x", "/dev/a:rr", "/a:/b:r:w")),
        *(
            (mount_values.mount, text)
            for text in ("", "dst=/b", "type=bind,dst=/b", "type=bind,src=/a", "type=x,dst=/b")
        ),
        (mount_values.mount, "type=bind,src=/a,dst=/b,tmpfs-size=1m"),
        (mount_values.mount, 'type=bind,"src=/a,dst=/b'),
        (mount_values.mount, "type=bind,src=/a,dst=/b,bind-recursive=writable"),
    ],
)
def test_a_malformed_value_is_refused(read: Callable[[str], object], text: str) -> None:
    with pytest.raises(UsageError):
        read(text)


@pytest.mark.parametrize("option", options.OPTIONS, ids=lambda option: option.name)
@settings(max_examples=40, deadline=None)
@given(text=st.text(max_size=20))
def test_no_text_makes_a_value_fail_otherwise_than_by_a_refusal(option: Option, text: str) -> None:
    try:
        option.parse(text)
    except UsageError as error:
        assert "\n" not in error.message  # noqa: PT017 -- most texts are refused, some are fine


def test_a_relative_volume_is_below_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert mount_values.volume("./x:/y").source == f"{tmp_path}/./x"
    assert mount_values.mount("type=bind,src=.,dst=/y").source == f"{tmp_path}/."


def test_a_variable_without_a_value_takes_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKADE_A", "1=2")
    monkeypatch.delenv("STOCKADE_B", raising=False)

    assert values.env("STOCKADE_A") == (("STOCKADE_A", "1=2"),)
    assert values.env("STOCKADE_B") == ()


def test_an_env_file_is_read_by_dockers_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKADE_A", "here")
    file = tmp_path / "env"
    file.write_text('\ufeffA=1\n\n# B=2\n  C= "3" # no comment\nSTOCKADE_A\nSTOCKADE_NONE\nD=x=y\r\nE=', "utf-8")

    assert values.env_file(str(file)) == (
        ("A", "1"),
        ("C", ' "3" # no comment'),
        ("STOCKADE_A", "here"),
        ("D", "x=y"),
        ("E", ""),
    )


@pytest.mark.parametrize("content", [b"=1\n", b"A B=1\n", b"A=\xff\n", b"A=\0\n"])
def test_a_malformed_env_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "env"
    file.write_bytes(content)

    with pytest.raises(UsageError):
        values.env_file(str(file))


def test_an_env_file_that_is_missing_a_directory_or_endless_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path, "/dev/zero"):
        with pytest.raises(UsageError):
            values.env_file(str(path))
