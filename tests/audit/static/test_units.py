"""Quadlet's units, and systemd's units that start containers by hand."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from stockade.audit import facts
from stockade.audit.documents.kinds import NotOne
from stockade.audit.documents.load import Broken
from stockade.audit.documents.walk import Source
from stockade.audit.facts import Target, Where
from stockade.audit.static import quadlet, systemd, units
from stockade.audit.static.docker import run
from stockade.audit.static.docker.request import Request, Word
from stockade.sandbox.linux import capabilities as caps
from tests.audit.static.compose_help import namespace, only, place

if TYPE_CHECKING:
    from pathlib import Path


def container(lines: str, path: str = "web.container") -> Target:
    """Give the target of a [Container] with these lines, of which the first is line 3."""
    text = f"[Container]\nImage=web:1\n{dedent(lines).strip()}\n"
    found = list(quadlet.targets(Source(path, text.encode())))
    assert [str(each) for each in found if isinstance(each, Broken)] == []
    (target,) = found
    assert isinstance(target, Target)
    return target


def service(line: str, *more: str) -> list[Target]:
    text = "\n".join(["[Service]", f"ExecStart={line}", *more])
    return list(systemd.targets(Source("web.service", text.encode())))


class TestQuadlet:
    def test_keys_are_told_at_their_places(self) -> None:
        target = container("""
            AddCapability=CAP_SYS_ADMIN net_admin
            DropCapability=all
            NoNewPrivileges=true
            ReadOnly=yes
            User=1000
            Group=50
            SeccompProfile=unconfined
            AppArmor=unconfined
            PidsLimit=10
            HealthCmd=none
        """)
        change = only(target, facts.CapabilityChange)
        assert (change.added, change.dropped, change.where.line) == (("SYS_ADMIN", "NET_ADMIN"), ("ALL",), 3)
        assert only(target, facts.NoNewPrivs).value
        assert only(target, facts.ReadOnlyRoot).value
        assert only(target, facts.Identity).uids == (1000,) * 4
        assert only(target, facts.Identity).gids == (50,) * 4
        assert place(only(target, facts.SeccompState)) == (9, 1)
        assert {each.name: each.value for each in target.all(facts.CgroupLimit)}["pids"] == 10
        assert not only(target, facts.HealthCheck).present

    def test_podmans_defaults_hold_where_nothing_is_said(self) -> None:
        target = container("ContainerName=web")
        assert not only(target, facts.CapabilitySets).bounding & caps.mask(("NET_RAW", "MKNOD"))
        assert {each.name: each.value for each in target.all(facts.CgroupLimit)}["pids"] == 2048
        assert target.gap(facts.UserNamespace) is not None

    def test_arguments_of_podman_count_like_keys(self) -> None:
        target = container("PodmanArgs=--privileged --pid=host \\\n  --ipc host -v /:/host -it")
        assert only(target, facts.Privileged).value
        assert namespace(target, "pid").host is True
        assert place(namespace(target, "ipc")) == (4, 3)
        assert only(target, facts.Mount).host_path == "/"

    def test_labels_masks_devices_ports_and_networks_are_read(self) -> None:
        target = container("""
            SecurityLabelDisable=true
            Unmask=/proc/acpi
            AddDevice=-/dev/kvm
            PublishPort=127.0.0.1:80:80
            Network=host
            Tmpfs=/tmp:size=1m
            Sysctl=net.a=1 net.b=2
        """)
        assert only(target, facts.LsmLabel).mode == "unconfined"
        assert [each.path for each in target.all(facts.Mask) if each.state == "open"] == ["/proc/acpi"]
        assert only(target, facts.DeviceNode).path == "/dev/kvm"
        assert only(target, facts.Port).host_ip == "127.0.0.1"
        assert namespace(target, "net").host is True
        assert [each.name for each in target.all(facts.SysctlSetting)] == ["net.a", "net.b"]

    @pytest.mark.parametrize(
        ("path", "initial"),
        [
            ("/home/a/.config/containers/systemd/w.container", False),
            ("/etc/containers/systemd/users/w.container", False),
        ],
    )
    def test_units_of_users_are_rootless(self, path: str, initial: bool) -> None:  # noqa: FBT001 - a parameter
        assert only(container("PodName=x", path), facts.UserNamespace).initial is initial

    def test_a_map_of_ids_is_known(self) -> None:
        userns = only(container("UIDMap=0:100000:1000\nGIDMap=0:0:1"), facts.UserNamespace)
        assert userns.uid_map is not None
        assert userns.gid_map is not None
        assert (userns.uid_map[0].host, userns.gid_map[0].host) == (100000, 0)

    def test_the_volume_and_the_pod_beside_are_looked_into(self, tmp_path: Path) -> None:
        (tmp_path / "data.volume").write_text("[Volume]\nDevice=/etc\nOptions=bind\n")
        (tmp_path / "p.pod").write_text("[Pod]\nNetwork=host\n")
        target = container("Volume=data.volume:/d\nPod=p.pod", str(tmp_path / "web.container"))
        mount = only(target, facts.Mount)
        assert (mount.host_path, mount.where) == ("/etc", Where(str(tmp_path / "data.volume"), 2, 1))
        assert namespace(target, "net").where.path == str(tmp_path / "p.pod")

    def test_variables_and_secrets_are_told_apart(self) -> None:
        target = container('Environment="DB_PASSWORD=hunter 22" A=b\nSecret=s,type=env,target=TOKEN\nSecret=f')
        found = {each.name: (each.literal, bool(each.secret)) for each in target.all(facts.Variable)}
        assert found == {"DB_PASSWORD": (True, True), "A": (True, False), "TOKEN": (False, False)}
        assert only(target, facts.Mount).destination == "/run/secrets/f"

    def test_a_wrong_value_and_a_missing_image_are_told_and_the_rest_is_judged(self) -> None:
        text = b"[Container]\nNoNewPrivileges=maybe\nPodmanArgs=--privileged\n"
        target, *wrong = quadlet.targets(Source("x.container", text))
        assert isinstance(target, Target)
        assert only(target, facts.Privileged).value
        assert [str(each) for each in wrong] == [
            "x.container:2:1: NoNewPrivileges must be true or false and is 'maybe'",
            "x.container:1:1: there is neither Image= nor Rootfs=",
        ]

    def test_a_pod_and_a_kube_unit_tell_what_they_decide(self) -> None:
        (pod,) = quadlet.targets(Source("x.pod", b"[Pod]\nPublishPort=80:80\nUserNS=host\n"))
        assert isinstance(pod, Target)
        assert only(pod, facts.Port).host_port == 80
        assert namespace(pod, "user").host is True
        assert pod.all(facts.Unset) == ()

    def test_a_unit_of_an_image_has_no_container(self) -> None:
        assert list(quadlet.targets(Source("x.image", b"[Image]\nImage=x\n"))) == []


class TestSystemd:
    def test_a_docker_run_over_several_lines_is_read_with_its_places(self) -> None:
        (target,) = service(
            "-/usr/bin/docker run --rm \\", "  # a comment", "  --name 'web one' --net=host -v/:/host:ro \\",
            "  --security-opt seccomp=unconfined -dp 80:80 \\", "  -e A=b ghcr.io/a/b:1 --privileged",
        )  # fmt: skip
        assert target.id == "web.service:web one"
        assert not only(target, facts.Privileged).value
        assert namespace(target, "net").host is True
        assert place(only(target, facts.Mount)) == (4, 31)
        assert only(target, facts.Mount).host_path == "/"
        assert place(only(target, facts.SeccompState)) == (5, 3)
        assert only(target, facts.Port).host_port == 80
        assert only(target, facts.Image).reference == "ghcr.io/a/b:1"
        assert target.command == "--privileged"

    @pytest.mark.parametrize(
        "line",
        ["docker run --privileged x", "/usr/bin/docker --log-level debug container run --privileged=true x",
         "/bin/sh -c 'docker pull x && exec docker run --privileged x'", "sudo -u root nerdctl run --privileged x",
         "/usr/bin/podman --root /x create --privileged x", "/usr/bin/env A=b docker run --privileged x",
         '/bin/bash -ec "docker rm x; docker run --privileged x"', "docker -H tcp://x run --privileged x"],
    )  # fmt: skip
    def test_the_run_is_found_wherever_it_stands(self, line: str) -> None:
        (target,) = service(line)
        assert only(target, facts.Privileged).value

    def test_each_run_of_a_unit_is_a_target_of_its_own(self) -> None:
        found = service("docker run a", "ExecStartPre=docker run --pid host b", "ExecStop=docker run c")
        assert [each.id for each in found] == ["web.service:docker", "web.service:docker#2"]

    @pytest.mark.parametrize(
        "line", ["/usr/bin/dockerd", "docker start -a web", "docker compose up", "docker", "", "docker --host", "'"]
    )
    def test_a_unit_without_a_container_is_passed_over(self, line: str) -> None:
        with pytest.raises(NotOne):
            service(line)

    def test_nspawn_has_its_own_defaults(self) -> None:
        (target,) = service(
            "systemd-nspawn -bD /srv/x --bind=/etc --bind-ro=/usr:/u --capability=CAP_SYS_MODULE,CAP_BPF"
        )
        assert only(target, facts.CapabilityChange).added == ("SYS_MODULE", "BPF")
        assert only(target, facts.CapabilitySets).effective & caps.mask(("SYS_ADMIN", "BPF"))
        assert namespace(target, "net").host is True
        assert only(target, facts.UserNamespace).initial
        mounts = [(each.host_path, each.destination, each.writable) for each in target.all(facts.Mount)]
        assert mounts == [("/etc", "/etc", True), ("/usr", "/u", False)]
        (target,) = service("systemd-nspawn -M x -D /srv/x -U -n")
        assert namespace(target, "net").host is False
        assert not only(target, facts.UserNamespace).initial


class TestOptions:
    def request(self, *line: str) -> Request:
        made = Request("x", "x", "systemd", Where("x"))
        run.read([Word(each, Where("x", 1, number)) for number, each in enumerate(line)], made)
        return made

    @pytest.mark.parametrize(
        "line",
        [("-v", "/a:/b"), ("-v/a:/b",), ("-itv", "/a:/b"), ("--volume", "/a:/b"), ("--volume=/a:/b",),
         ("--mount", "type=bind,src=/a,dst=/b"), ("--mount=type=bind,source=/a,target=/b",)],
    )  # fmt: skip
    def test_each_way_to_write_a_mount_is_the_same(self, line: tuple[str, ...]) -> None:
        made = self.request(*line, "image", "-v", "/c:/d")
        assert [(each.source, each.destination, each.writable) for each in made.mounts] == [("/a", "/b", True)]
        assert made.image is not None
        assert made.image.text == "image"

    @pytest.mark.parametrize("word", ["readonly", "ro", "readonly=true", "ro=1"])
    def test_a_mount_is_read_only_when_it_says_so(self, word: str) -> None:
        assert not self.request("--mount", f"type=bind,src=/a,dst=/b,{word}").mounts[0].writable
        assert self.request("--mount", "type=bind,src=/a,dst=/b,readonly=false").mounts[0].writable

    def test_switches_take_a_value_behind_an_equals_sign_only(self) -> None:
        made = self.request("--privileged=false", "--read-only", "true")
        assert (made.switches["privileged"].value, made.switches["read-only"].value) == (False, True)
        assert made.image is not None
        assert made.image.text == "true"

    @pytest.mark.parametrize("line", [("-v",), ("--volume",), ("--",), ("-",), ("--mount", "x"), ("-p", "x"), ("-=",)])
    def test_lines_that_end_too_early_are_no_error(self, line: tuple[str, ...]) -> None:
        assert self.request(*line).mounts == []


class TestUnits:
    def test_words_are_split_as_systemd_splits_them(self) -> None:
        (entry,) = units.entries(b'[S]\nK=a \'b c\' "d\\"e" f\\sg h%%i %t/x\n', "u")
        assert [word.text for word in units.words(entry)] == ["a", "b c", 'd"e', "f g", "h%i", "/run/x"]

    def test_what_is_no_unit_is_refused_with_its_place(self) -> None:
        with pytest.raises(Broken, match=r"^u:2:1: neither a section"):
            list(units.entries(b"[S]\nnonsense\n", "u"))

    def test_a_value_that_goes_on_at_the_end_of_the_file_is_taken(self) -> None:
        (entry,) = units.entries(b"[S]\nK=a \\", "u")
        assert entry.value == "a"
