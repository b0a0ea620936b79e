"""What a service of a compose file asks for: privileges, namespaces, limits."""

from __future__ import annotations

import pytest

from stockade.audit import facts
from stockade.audit.facts import Target
from stockade.sandbox.linux import capabilities as caps
from tests.audit.static.compose_help import app, everything, file, namespace, only, place, read, wrong


def limits(target: Target) -> dict[str, int | None]:
    return {each.name: each.value for each in target.all(facts.CgroupLimit)}


def masked(target: Target, state: str) -> set[str]:
    return {each.path for each in target.all(facts.Mask) if each.state == state}


def unset(target: Target) -> set[str]:
    return {each.subject for each in target.all(facts.Unset)}


class TestPrivileges:
    @pytest.mark.parametrize("word", ["true", "'true'", "yes", "on", "1", "'1'", "${NEVER_SET:-true}"])
    def test_every_way_to_write_privileged_is_taken(self, word: str) -> None:
        target = app(f"privileged: {word}")
        assert only(target, facts.Privileged).value
        assert place(only(target, facts.Privileged)) == (4, 5)
        assert only(target, facts.CapabilitySets).effective == caps.ALL

    @pytest.mark.parametrize("word", ["false", "'no'", "off", "0", "${NEVER_SET:-false}"])
    def test_what_turns_privileged_off_is_taken(self, word: str) -> None:
        assert not only(app(f"privileged: {word}"), facts.Privileged).value

    def test_an_unknown_variable_leaves_privileged_open(self) -> None:
        target = app("privileged: ${NEVER_SET}")
        assert target.one(facts.Privileged) is None
        gap = target.gap(facts.Privileged)
        assert gap is not None
        assert "NEVER_SET" in gap.reason

    def test_a_service_without_a_word_has_dockers_defaults_at_its_own_place(self) -> None:
        target = app("init: true")
        assert not only(target, facts.Privileged).value
        assert only(target, facts.CapabilitySets).bounding == 0xA80425FB
        assert only(target, facts.SeccompState).mode == "filter"
        assert place(only(target, facts.SeccompState)) == (2, 3)
        assert {"user", "memory", "pids", "security_options", "healthcheck", "capabilities"} <= unset(target)

    def test_capabilities_are_added_and_dropped_in_any_spelling(self) -> None:
        target = app("""
            cap_add: [cap_sys_admin, Net_Admin]
            cap_drop:
            - ALL
        """)
        change = only(target, facts.CapabilityChange)
        assert change.added == ("SYS_ADMIN", "NET_ADMIN")
        assert change.dropped == ("ALL",)
        assert change.drop_where is not None
        assert change.drop_where.line == 6
        assert place(change) == (4, 15)
        assert only(target, facts.CapabilitySets).effective == caps.mask(("SYS_ADMIN", "NET_ADMIN"))

    @pytest.mark.parametrize("between", [":", "="])
    def test_security_options_are_read_with_a_colon_and_an_equals_sign(self, between: str) -> None:
        target = app(f"""
            security_opt:
            - seccomp{between}unconfined
            - apparmor{between}unconfined
            - label{between}disable
            - no-new-privileges{between}true
            - systempaths{between}unconfined
        """)
        assert only(target, facts.SeccompState).mode == "disabled"
        assert place(only(target, facts.SeccompState)) == (5, 7)
        modes = {label.module: (label.mode, label.where.line) for label in target.all(facts.LsmLabel)}
        assert modes == {"apparmor": ("unconfined", 6), "selinux": ("unconfined", 7)}
        assert only(target, facts.NoNewPrivs).value
        assert masked(target, "masked") == set()
        assert "/proc/sys" in masked(target, "open")

    def test_no_new_privileges_alone_is_on_and_false_is_off(self) -> None:
        assert only(app("security_opt: [no-new-privileges]"), facts.NoNewPrivs).value
        assert not only(app('security_opt: ["no-new-privileges:false"]'), facts.NoNewPrivs).value
        assert not only(app("security_opt: []"), facts.NoNewPrivs).value

    def test_profiles_of_their_own_are_filters_and_types_of_selinux_are_labels(self) -> None:
        target = app("security_opt: ['seccomp:./own.json', 'label:type:spc_t', 'label:level:s0:c1']")
        assert only(target, facts.SeccompState).profile == "./own.json"
        (label,) = target.all(facts.LsmLabel)
        assert label.label == "::spc_t:s0:c1"

    def test_writable_cgroups_are_a_writable_mount(self) -> None:
        mount = only(app("security_opt: ['writable-cgroups=true']"), facts.Mount)
        assert (mount.destination, mount.fstype, mount.writable) == ("/sys/fs/cgroup", "cgroup2", True)

    @pytest.mark.parametrize(("user", "uid"), [("root", 0), ("'0:0'", 0), ("1000", 1000), ("'1000:50'", 1000)])
    def test_the_user_is_read_with_its_group(self, user: str, uid: int) -> None:
        assert only(app(f"user: {user}"), facts.Identity).uids == (uid,) * 4

    def test_groups_by_name_and_number_are_kept(self) -> None:
        identity = only(app("user: app\ngroup_add: [docker, 999]"), facts.Identity)
        assert identity.uids is None
        assert identity.groups == (999,)
        assert identity.group_names == ("docker",)


class TestNamespaces:
    @pytest.mark.parametrize(
        ("line", "kind"),
        [("pid: host", "pid"), ("network_mode: host", "net"), ("ipc: host", "ipc"), ("uts: host", "uts"),
         ("cgroup: host", "cgroup"), ("userns_mode: host", "user"), ("net: host", "net")],
    )  # fmt: skip
    def test_the_hosts_namespaces_are_told_at_their_key(self, line: str, kind: str) -> None:
        found = namespace(app(line), kind)
        assert found.host is True
        assert place(found) == (4, 5)

    def test_what_the_daemon_decides_is_not_known(self) -> None:
        target = app("init: true")
        assert namespace(target, "pid").host is False
        assert namespace(target, "cgroup").host is None
        assert target.gap(facts.UserNamespace) is not None

    def test_another_services_and_containers_namespaces_are_shared(self) -> None:
        target = app('pid: "service:db"\nipc: "container:other"')
        assert namespace(target, "pid").shared_with == ("stdin:db",)
        assert namespace(target, "ipc").shared_with == ("container:other",)

    def test_a_network_that_is_the_hosts_is_the_hosts_namespace(self) -> None:
        target = app("networks: [outer]", top="networks: {outer: {external: true, name: host}}\n")
        assert namespace(target, "net").host is True
        assert place(namespace(target, "net")) == (4, 16)


class TestResources:
    def test_old_keys_and_deploys_limits_are_the_same_and_deploy_wins(self) -> None:
        target = app("""
            mem_limit: 1g
            pids_limit: 100
            cpus: 0.5
            deploy: {resources: {limits: {memory: 512M, pids: 50, cpus: '1.5'}}}
        """)
        assert limits(target) == {"memory": 512 << 20, "swap": 1 << 30, "pids": 50, "cpu": 1500}

    def test_no_limit_and_minus_one_are_unlimited(self) -> None:
        target = app("pids_limit: -1\nmemswap_limit: -1")
        assert limits(target) == {"memory": None, "swap": None, "pids": None, "cpu": None}
        assert {"memory", "pids", "cpu"} <= unset(target)

    def test_quota_and_period_are_processors(self) -> None:
        assert limits(app("cpu_quota: 50000\ncpu_period: 25000"))["cpu"] == 2000

    def test_protection_from_the_oom_killer_is_told(self) -> None:
        assert only(app("oom_score_adj: -500"), facts.OomScoreAdj).value == -500
        assert only(app("oom_kill_disable: true"), facts.OomScoreAdj).value == -1000

    def test_ulimits_are_read_short_and_long(self) -> None:
        found = app("ulimits: {nproc: 65535, nofile: {soft: 1000, hard: -1}}").all(facts.ResourceLimit)
        assert [(each.name, each.soft, each.hard) for each in found] == [
            ("nproc", 65535, 65535),
            ("nofile", 1000, None),
        ]

    @pytest.mark.parametrize(
        ("lines", "value", "limit"),
        [("restart: always", "always", None), ("restart: on-failure:3", "on-failure", 3), ("restart: 'no'", "no", None),
         ("deploy: {restart_policy: {condition: on-failure, max_attempts: 4}}", "on-failure", 4),
         ("deploy: {restart_policy: {delay: 5s}}", "always", None)],
    )  # fmt: skip
    def test_restart_policies_are_read_in_both_forms(self, lines: str, value: str, limit: int | None) -> None:
        policy = only(app(lines), facts.RestartPolicy)
        assert (policy.value, policy.limit) == (value, limit)

    def test_health_checks_are_there_turned_off_or_left_out(self) -> None:
        assert only(app("healthcheck: {test: [CMD, 'true']}"), facts.HealthCheck).present
        assert not only(app("healthcheck: {disable: true}"), facts.HealthCheck).present
        assert not only(app("healthcheck: {test: [NONE]}"), facts.HealthCheck).present
        assert app("init: true").one(facts.HealthCheck) is None

    def test_sysctls_and_the_cgroup_parent_are_told(self) -> None:
        target = app("sysctls: [net.core.somaxconn=1024, kernel/core_pattern=x]\ncgroup_parent: /outer")
        names = [(each.name, each.value) for each in target.all(facts.SysctlSetting)]
        assert names == [("net.core.somaxconn", "1024"), ("kernel.core_pattern", "x")]
        assert only(target, facts.CgroupParent).path == "/outer"


class TestWrongTypes:
    @pytest.mark.parametrize(
        ("line", "message"),
        [("privileged: maybe", "privileged must be true or false and is 'maybe'"),
         ("privileged: {a: 1}", "privileged must be true or false and is a mapping"),
         ("cap_add: SYS_ADMIN", "cap_add must be a list and is 'SYS_ADMIN'"),
         ("cap_add: [{a: b}]", "cap_add[0] must be text and is a mapping"),
         ("volumes: {a: b}", "volumes must be a list and is a mapping"),
         ("ports: ['many']", "ports: 'many' is no port"),
         ("mem_limit: lots", "mem_limit must be a size such as 512m and is 'lots'"),
         ("pids_limit: many", "pids_limit must be a number and is 'many'"),
         ("cpus: .inf", "cpus must be a number and is 'inf'"),
         ("security_opt: ['no-new-privilege:true']", "there is no option 'no-new-privilege'"),
         ("environment: 5", "environment must be a list and is a number"),
         ("user: [1]", "user must be text and is a list"),
         ("deploy: []", "deploy must be a mapping and is a list"),
         ("extends: nobody", "there is no service 'nobody' to extend in stdin")],
    )  # fmt: skip
    def test_a_part_of_a_wrong_type_is_one_message_with_its_place(self, line: str, message: str) -> None:
        (found,) = wrong(file(line))
        assert message in found
        assert found.startswith("stdin:4:")

    def test_the_other_services_and_settings_are_judged_all_the_same(self) -> None:
        found = everything("services:\n  a: 5\n  b: {image: b, cap_add: no, pid: host}\n", "stdin")
        (target,) = [each for each in found if isinstance(each, Target)]
        assert namespace(target, "pid").host is True
        assert len(found) == 3


def test_old_files_have_their_services_at_the_top() -> None:
    assert set(read("web:\n  image: web\n  privileged: true\ndb:\n  build: .\n")) == {"web", "db"}


def test_a_service_of_a_profile_is_audited_and_says_which() -> None:
    assert read("services: {x: {image: x, profiles: [debug]}}")["x"].name == "service x (profile debug)"


def test_a_part_of_a_service_says_nothing_of_what_it_leaves_out() -> None:
    target = read("services:\n  web:\n    cap_add: [SYS_ADMIN]\n")["web"]
    assert target.all(facts.Unset) == ()
    assert target.one(facts.Privileged) is None
    assert only(target, facts.CapabilityChange).added == ("SYS_ADMIN",)
