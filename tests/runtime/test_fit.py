"""What a configuration asks for against what the caller holds: the rules that sandbox/runtime/fit.py states."""

from __future__ import annotations

import os
from typing import Any

import pytest

from stockade.errors import StockadeError
from stockade.sandbox.linux import capabilities
from stockade.sandbox.oci import spec as oci
from stockade.sandbox.runtime import fit
from stockade.sandbox.runtime.caller import Caller

KNOWN = capabilities.supported()
RESOURCE = capabilities.mask(["CAP_SYS_RESOURCE"])
EVERY = capabilities.names(KNOWN)


def caller(held: int = KNOWN & ~RESOURCE, *, nested: bool = False) -> Caller:
    sets = capabilities.Sets(bounding=held, effective=held, inheritable=0, permitted=held, ambient=0)
    return Caller(0, 0, sets, nested, "x86_64")


def a_spec(*names: str, user: bool = False, **process: Any) -> oci.Spec:
    sets = oci.LinuxCapabilities(bounding=names, effective=names, permitted=names)
    namespaces = (oci.LinuxNamespace("user"),) if user else ()
    return oci.Spec(
        process=oci.Process(cwd="/", args=("true",), capabilities=sets).replace(**process),
        linux=oci.Linux(namespaces=namespaces),
    )


def sets_of(spec: oci.Spec) -> oci.LinuxCapabilities:
    assert spec.process is not None
    assert spec.process.capabilities is not None
    return spec.process.capabilities


def test_what_the_caller_holds_is_given_as_it_was_asked_for() -> None:
    spec = a_spec("CAP_CHOWN", "CAP_KILL")

    assert fit.fit(spec, caller()) == (spec, ())


def test_of_all_capabilities_those_that_the_caller_lacks_are_left_out_with_a_warning() -> None:
    spec, warnings = fit.fit(a_spec(*EVERY), caller())

    assert set(sets_of(spec).bounding) == set(EVERY) - {"CAP_SYS_RESOURCE"}
    assert sets_of(spec).bounding == sets_of(spec).effective == sets_of(spec).permitted
    assert len(warnings) == 1
    assert "CAP_SYS_RESOURCE" in warnings[0]


def test_an_older_engines_all_counts_as_all() -> None:
    spec, warnings = fit.fit(a_spec(*EVERY[:38]), caller())

    assert set(sets_of(spec).bounding) == set(EVERY[:38]) - {"CAP_SYS_RESOURCE"}
    assert len(warnings) == 1


@pytest.mark.parametrize(
    "asked", [("CAP_SYS_RESOURCE", "CAP_CHOWN"), tuple(name for name in EVERY if name != "CAP_NET_RAW")]
)
def test_one_that_was_named_and_that_the_caller_lacks_is_refused_by_name(asked: tuple[str, ...]) -> None:
    with pytest.raises(StockadeError, match=r"^CAP_SYS_RESOURCE can't be given: the caller does not hold it$"):
        fit.fit(a_spec(*asked), caller())


def test_in_a_user_namespace_of_its_own_a_container_lacks_nothing() -> None:
    spec = a_spec(*EVERY, user=True)

    assert fit.fit(spec, caller(0)) == (spec, ())


def test_one_that_the_kernel_lacks_is_left_out_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "supported", lambda: KNOWN & ~capabilities.mask(["CAP_BPF"]))
    old = caller(KNOWN & ~capabilities.mask(["CAP_BPF"]))

    spec, warnings = fit.fit(a_spec("CAP_BPF", "CAP_CHOWN"), old)

    assert sets_of(spec).bounding == ("CAP_CHOWN",)
    assert warnings == ("this kernel has no CAP_BPF: left out",)


def test_an_ambient_one_that_is_not_inheritable_is_left_out_with_a_warning() -> None:
    given = a_spec("CAP_CHOWN", "CAP_KILL")
    held = sets_of(given).replace(ambient=("CAP_CHOWN", "CAP_KILL"), inheritable=("CAP_KILL",))
    assert given.process is not None

    spec, warnings = fit.fit(given.replace(process=given.process.replace(capabilities=held)), caller())

    assert sets_of(spec).ambient == ("CAP_KILL",)
    assert len(warnings) == 1
    assert "CAP_CHOWN" in warnings[0]


@pytest.mark.parametrize(("field", "message"), [("effective", "permitted"), ("inheritable", "bounding")])
def test_sets_that_the_kernel_would_refuse_are_refused_by_name(field: str, message: str) -> None:
    given = a_spec("CAP_CHOWN")
    assert given.process is not None
    held = sets_of(given).replace(**{field: ("CAP_CHOWN", "CAP_KILL")})

    with pytest.raises(StockadeError, match=f"CAP_KILL can't be {field}: it is not in the {message} set"):
        fit.fit(given.replace(process=given.process.replace(capabilities=held)), caller())


def test_a_lower_oom_score_than_ones_own_is_left_out_in_a_user_namespace() -> None:
    with open("/proc/self/oom_score_adj") as file:
        own = int(file.read())
    if own <= -1000:
        pytest.fail("nothing is lower than this process's oom_score_adj")

    low, warnings = fit.fit(a_spec(oom_score_adj=own), caller(nested=True))

    assert low.process is not None
    assert low.process.oom_score_adj == own
    assert warnings == ()


def test_a_score_that_cannot_be_had_stays_for_the_host_to_refuse() -> None:
    spec = a_spec(oom_score_adj=-1000)

    assert fit.fit(spec, caller(nested=False))[0] == spec


def test_a_profile_without_apparmor_is_refused_and_none_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "APPARMOR", "/nonexistent/enabled")

    with pytest.raises(StockadeError, match="'docker-default' can't be enforced: AppArmor is not enabled here"):
        fit.fit(a_spec(apparmor_profile="docker-default"), caller())
    spec, warnings = fit.fit(a_spec(apparmor_profile="unconfined"), caller())
    assert spec.process is not None
    assert (spec.process.apparmor_profile, warnings) == ("", ())


def test_a_profile_stays_where_apparmor_is_enabled(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "enabled").write_text("Y\n")
    monkeypatch.setattr(fit, "APPARMOR", str(tmp_path / "enabled"))
    spec = a_spec(apparmor_profile="docker-default")

    assert fit.fit(spec, caller()) == (spec, ())


def test_labels_without_selinux_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "SELINUX", "/nonexistent/enforce")

    with pytest.raises(StockadeError, match="the SELinux label 'u:r:t:s0' can't be enforced"):
        fit.fit(a_spec(selinux_label="u:r:t:s0"), caller())
    with pytest.raises(StockadeError, match="the mount label 'u:r:t:s0' can't be enforced"):
        fit.fit(a_spec().replace(linux=oci.Linux(mount_label="u:r:t:s0")), caller())


def test_offsets_for_a_time_namespace_that_others_are_in_are_refused() -> None:
    linux = oci.Linux(
        namespaces=(oci.LinuxNamespace("time", "/proc/1/ns/time"),), time_offsets={"boottime": oci.LinuxTimeOffset(1)}
    )

    with pytest.raises(StockadeError, match="time offsets can't be set in the time namespace /proc/1/ns/time"):
        fit.fit(a_spec().replace(linux=linux), caller())


@pytest.mark.kernel
def test_in_a_user_namespace_nobody_lowers_the_score(forked: Any) -> None:
    def as_nobody() -> tuple[oci.Spec, tuple[str, ...]]:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("300")
        os.setresuid(65534, 65534, 65534)
        return fit.fit(a_spec(oom_score_adj=-900), caller(nested=True))

    spec, warnings = forked(as_nobody)

    assert spec.process.oom_score_adj is None
    assert warnings == ("oom_score_adj -900 is left out: nobody in a user namespace may lower the caller's",)
