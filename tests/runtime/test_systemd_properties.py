"""From OCI resources to what systemd is asked for."""

from __future__ import annotations

from typing import Any

import pytest

from stockade.errors import StockadeError
from stockade.sandbox.oci import spec as oci
from stockade.sandbox.runtime import systemd_properties as properties
from stockade.sandbox.runtime.systemd import Name

RESOURCES = oci.LinuxResources(
    memory=oci.LinuxMemory(limit=1 << 20, swap=3 << 20, reservation=1 << 19),
    cpu=oci.LinuxCPU(shares=1024, quota=25500, period=50000, cpus="0-1,9", mems="0"),
    pids=oci.LinuxPids(-1),
    block_io=oci.LinuxBlockIO(weight=1000),
    unified={"memory.high": "80M", "cpu.max": "max", "io.max": "8:0 rbps=1"},
)


def of(resources: oci.LinuxResources, version: int, **options: Any) -> dict[str, Any]:
    return {name: value for name, (_, value) in properties.of_resources(resources, version, **options)}


def test_each_limit_has_systemds_name_and_unit_on_v2() -> None:
    assert of(RESOURCES.replace(unified={}), 2, devices=False) == {
        "MemoryMax": 1 << 20,
        "MemoryLow": 1 << 19,
        "MemorySwapMax": 2 << 20,
        "CPUWeight": 100,
        "CPUQuotaPeriodUSec": 50000,
        "CPUQuotaPerSecUSec": 510_000,
        "AllowedCPUs": b"\x03\x02",
        "AllowedMemoryNodes": b"\x01",
        "TasksMax": properties.INFINITY,
        "IOWeight": 10000,
    }


def test_v1_has_other_names_and_no_cpusets() -> None:
    assert of(RESOURCES.replace(unified={}), 1, devices=False) == {
        "MemoryLimit": 1 << 20,
        "CPUShares": 1024,
        "CPUQuotaPeriodUSec": 50000,
        "CPUQuotaPerSecUSec": 510_000,
        "TasksMax": properties.INFINITY,
        "BlockIOWeight": 1000,
    }


def test_files_of_cgroup2_are_told_to_systemd_or_a_reload_would_take_them_back() -> None:
    assert of(RESOURCES.replace(memory=None, cpu=None, pids=None, block_io=None), 2, devices=False) == {
        "MemoryHigh": 80 << 20,
        "CPUQuotaPeriodUSec": 100_000,
        "CPUQuotaPerSecUSec": properties.INFINITY,
    }


def test_a_quota_is_rounded_up_to_a_percent_for_the_group_to_have_all_of_it() -> None:
    cpu = oci.LinuxCPU(quota=33333, period=100_000)
    assert of(oci.LinuxResources(cpu=cpu), 2, devices=False)["CPUQuotaPerSecUSec"] == 340_000


def test_swap_of_an_update_counts_from_the_limit_that_holds() -> None:
    resources = oci.LinuxResources(memory=oci.LinuxMemory(swap=96 << 20))
    assert of(resources, 2, devices=False, current=(64 << 20, 0)) == {"MemorySwapMax": 32 << 20}


def test_device_rules_become_a_strict_list_and_allowing_everything_becomes_none() -> None:
    rule = oci.LinuxDeviceCgroup(allow=True, type="c", major=10, minor=229, access="rw")
    found = properties.of_resources(oci.LinuxResources(devices=(rule,)), 2)
    assert found[0] == ("DevicePolicy", ("s", "strict"))
    assert found[1] == ("DeviceAllow", ("a(ss)", []))
    allowed = dict(found[2][1][1])
    assert allowed["/dev/char/10:229"] == "rw"
    assert allowed["/dev/char/1:3"] == "rwm"
    assert allowed["char-*"] == "m"
    assert allowed["char-pts"] == "rwm"

    everything = oci.LinuxDeviceCgroup(allow=True, access="rwm")
    assert properties.of_resources(oci.LinuxResources(devices=(everything,)), 2) == [
        ("DevicePolicy", ("s", "auto")),
        ("DeviceAllow", ("a(ss)", [])),
    ]
    assert properties.of_resources(oci.LinuxResources(devices=(rule,)), 2, user=True) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", ("b", True)),
        ("'inactive-or-failed'", ("s", "inactive-or-failed")),
        ("['a.service', 'b.service']", ("as", ["a.service", "b.service"])),
        ("uint64 5000000", ("t", 5_000_000)),
        ("-3", ("i", -3)),
    ],
)
def test_an_annotation_sets_a_property(text: str, value: object) -> None:
    assert properties.of_annotations({"org.systemd.property.SomeName": text, "other": "x"}) == [("SomeName", value)]


def test_seconds_become_microseconds() -> None:
    assert properties.of_annotations({"org.systemd.property.TimeoutStopSec": "5"}) == [
        ("TimeoutStopUSec", ("t", 5_000_000))
    ]


@pytest.mark.parametrize(
    ("key", "text"),
    [("Name", "what"), ("Name", "uint64 x"), ("Na-me", "1"), ("TimeoutStopSec", "'5'"), ("TimeoutStopSec", "-1")],
)
def test_an_annotation_that_is_not_understood_is_refused(key: str, text: str) -> None:
    with pytest.raises(StockadeError, match=f"org.systemd.property.{key}"):
        properties.of_annotations({f"org.systemd.property.{key}": text})


@pytest.mark.parametrize(
    ("path", "slice_name", "unit"),
    [
        ("machine.slice:libpod:abc", "machine.slice", "libpod-abc.scope"),
        ("system.slice:docker:abc", "system.slice", "docker-abc.scope"),
        ("", "system.slice", "stockade-abc.scope"),
        (":x:abc", "system.slice", "x-abc.scope"),
        ("a.slice::abc", "a.slice", "abc.scope"),
        ("a.slice:x:a-b.slice", "a.slice", "a-b.slice"),
    ],
)
def test_a_cgroups_path_of_this_driver_is_slice_prefix_and_name(path: str, slice_name: str, unit: str) -> None:
    name = Name(path, "abc", user=False)
    assert (name.slice, name.unit) == (slice_name, unit)


def test_the_default_slice_of_a_users_systemd_is_another() -> None:
    assert Name("", "abc", user=True).slice == "user.slice"


@pytest.mark.parametrize("path", ["/docker/abc", "a:b", "a:b:c:d", "a.slice:x:", "a.slice:x/y:z"])
def test_a_path_of_the_other_driver_is_refused(path: str) -> None:
    with pytest.raises(StockadeError, match="cgroupsPath"):
        Name(path, "abc", user=False)
