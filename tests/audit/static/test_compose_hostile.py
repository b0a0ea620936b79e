"""Compose files that are wrong in any part, or built to hurt."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest

from stockade.audit.documents.load import Broken
from stockade.audit.documents.walk import Source
from stockade.audit.engine import judge
from stockade.audit.facts import Target
from stockade.audit.static.compose import targets

#: a service with all keys that are looked at, each in a form that is right
FULL: dict[str, Any] = {
    "include": [{"path": ["a.yml"]}],
    "services": {
        "a": {
            "image": "a", "build": {"context": ".", "args": {"A": "1"}}, "extends": {"service": "b", "file": "c.yml"},
            "privileged": True, "cap_add": ["ALL"], "cap_drop": ["A"], "security_opt": ["seccomp:unconfined"],
            "userns_mode": "host", "pid": "host", "network_mode": "host", "networks": {"n": None}, "user": "0:0",
            "group_add": [1, "docker"], "tmpfs": ["/t"], "device_cgroup_rules": ["a"], "expose": [1],
            "volumes": [
                "/:/x:ro",
                {
                    "type": "bind", "source": "/a", "target": "/b", "bind": {"propagation": "shared"},
                    "volume": {"subpath": "x"}, "tmpfs": {"size": 1},
                },
            ],
            "devices": ["/dev/sda", {"source": "/dev/kvm", "permissions": "r"}], "gpus": "all", "profiles": ["p"],
            "ports": ["80:80", {"target": 80, "published": "1-2", "host_ip": "::"}], "read_only": True,
            "sysctls": {"a": 1}, "ulimits": {"nofile": {"soft": 1, "hard": 2}}, "mem_limit": "1g", "memswap_limit": 1,
            "pids_limit": 1, "cpus": 1, "cpu_quota": 1, "cpu_period": 0, "oom_score_adj": 1, "oom_kill_disable": True,
            "deploy": {
                "resources": {
                    "limits": {"memory": "1g", "cpus": "1"},
                    "reservations": {"devices": [{"driver": "nvidia", "capabilities": ["gpu"]}]},
                },
                "restart_policy": {"condition": "any", "max_attempts": 3},
            },
            "restart": "always", "healthcheck": {"test": ["NONE"], "disable": False}, "environment": ["A=b"],
            "command": ["x"], "secrets": ["s", {"source": "t", "target": "u"}], "configs": ["c"],
            "use_api_socket": True, "provider": {"type": "x"},
        },
        "b": {"image": "b", "environment": {"A": None}, "depends_on": ["a"]},
    },
    "networks": {"n": {"external": {"name": "host"}, "driver": "host", "name": "x"}},
    "volumes": {"v": {"driver_opts": {"type": "none", "o": "bind", "device": "/x", "mountpoint": "/y"}}},
    "secrets": {"s": {"file": "x"}}, "configs": {"c": {"file": "x"}},
}  # fmt: skip
ODD: list[Any] = [
    None, True, 0, -1, 3.5, 1e300, "", "x", "$", "${", "$${A}", "${A}", "${A:-b}", ":", ":::", "-", "/", "..", "=",
    "a=b", [], {}, [[]], [{}], [None], {"": None}, {"a": {"b": [1]}}, "9" * 400, "host:", "container:", "service:a",
    "ns:/x", "\u202e", "0-1:5-2", "80/", "/tcp", "NONE", "unlimited", [5], {"soft": {}}, "inf", "nan",
]  # fmt: skip


def paths(node: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [*([above] if above else []), *(each for key, value in inner for each in paths(value, (*above, key)))]


def with_odd(random_: random.Random) -> str:
    document = copy.deepcopy(FULL)
    place = random_.choice(paths(FULL))
    node: Any = document
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = copy.deepcopy(random_.choice(ODD))
    return json.dumps(document)


@pytest.mark.parametrize("seed", range(6))
def test_no_part_of_any_type_stops_the_audit_of_the_others(seed: int) -> None:
    random_ = random.Random(seed)
    for _ in range(120):
        text = with_odd(random_)
        try:
            found = list(targets(Source("stdin", text.encode())))
        except Broken:
            pytest.fail(f"the whole file was refused: {text}")
        kept = [each for each in found if isinstance(each, Target)]
        assert kept or '"services": {' not in text, text
        for each in kept:
            judge(each)


def test_services_that_alias_each_other_many_times_are_refused() -> None:
    lines = ["x0: &x0 {image: a}"]
    lines += [f"x{level}: &x{level} [{', '.join([f'*x{level - 1}'] * 10)}]" for level in range(1, 8)]
    with pytest.raises(Broken, match="aliases stand for more than"):
        list(targets(Source("stdin", ("\n".join(lines) + "\nservices: {a: {image: a}}").encode())))


def test_files_that_include_ever_more_files_come_to_an_end(tmp_path: Any) -> None:
    for number in range(150):
        names = ", ".join(f"{each}.yml" for each in range(number + 1, min(number + 100, 150)))
        (tmp_path / f"{number}.yml").write_text(f"include: [{names}]\nservices: {{s{number}: {{image: x}}}}\n")
    path = str(tmp_path / "0.yml")
    found = list(targets(Source(path, (tmp_path / "0.yml").read_bytes())))
    assert 50 < sum(isinstance(each, Target) for each in found) <= 101
    assert any(isinstance(each, Broken) and "levels deep" in each.text for each in found)


def test_an_error_in_a_file_that_is_named_shows_nothing_of_what_is_in_it(tmp_path: Any) -> None:
    (tmp_path / "secret").write_text("password hunter22\n\t: [\n")
    text = b"services: {a: {image: a, extends: {file: secret, service: x}}}"
    found = list(targets(Source(str(tmp_path / "compose.yml"), text)))
    assert "hunter22" not in " ".join(str(each) for each in found if isinstance(each, Broken))
