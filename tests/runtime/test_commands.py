"""`list`, `ps`, `spec` and `features`: what they print, and what they leave alone."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stockade.errors import StockadeError
from stockade.sandbox.runtime import main, state
from stockade.sandbox.runtime.commands import list_, ps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Capture = pytest.CaptureFixture[str]
    Make = Callable[..., state.Container]


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "root")


@pytest.fixture
def make(root: str) -> Iterator[Make]:
    """Give a function that makes the state of a container, of this process unless another pid is given."""
    made: list[state.Container] = []

    def container(identity: str, pid: int | None = None, **data: object) -> state.Container:
        pid = os.getpid() if pid is None else pid
        found = state.stat_of(pid) if pid else None
        start = found[1] if found else 0
        made.append(state.make(root, identity, {"pid": pid, "start": start, **data}, b"{}"))
        made[-1].write()
        made[-1].close()
        return made[-1]

    yield container
    for each in made:
        each.close()


def output(capfd: Capture, *words: str) -> str:
    assert main.main(words) == 0
    return capfd.readouterr().out


def listed(capfd: Capture, *words: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(output(capfd, *words))
    return rows


def test_nothing_is_listed_where_there_is_no_state(root: str, capfd: Capture) -> None:
    assert output(capfd, "--root", root, "list").split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert listed(capfd, "--root", root, "list", "--format", "json") == []
    assert output(capfd, "--root", root, "list", "--quiet") == ""
    assert not os.path.exists(root)


def test_the_list_for_programs_is_what_runc_gives(root: str, capfd: Capture, make: Make) -> None:
    told = {"bundle": "/b", "rootfs": "/b/rootfs", "created": "2026-11-24T14:18:18.5Z", "ociVersion": "1.2.0"}
    make("web", **told, annotations={"a": "b"})
    make("gone", pid=0, **told)

    gone, web = listed(capfd, "--root", root, "list", "-f", "json")

    owner = pwd.getpwuid(os.getuid()).pw_name
    assert web == told | {
        "id": "web",
        "pid": os.getpid(),
        "status": "running",
        "owner": owner,
        "annotations": {"a": "b"},
    }
    assert (gone["id"], gone["pid"], gone["status"]) == ("gone", 0, "stopped")


def test_a_pid_that_another_process_has_got_is_not_shown(root: str, capfd: Capture, make: Make) -> None:
    make("old").write(start=1)

    (row,) = listed(capfd, "--root", root, "list", "-f", "json")

    assert (row["pid"], row["status"]) == (0, "stopped")


def test_the_table_keeps_its_columns_below_their_titles(root: str, capfd: Capture, make: Make) -> None:
    make("a-name-longer-than-a-column", bundle="/b")
    make("b", bundle="/another/bundle")

    title, *rows = output(capfd, "--root", root, "list").splitlines()

    assert [row[title.index("BUNDLE") :].split()[0] for row in rows] == ["/b", "/another/bundle"]
    assert [row[: title.index("PID")].strip() for row in rows] == ["a-name-longer-than-a-column", "b"]


def test_quiet_gives_the_names_alone_in_order(root: str, capfd: Capture, make: Make) -> None:
    for name in ("b", "a", "c"):
        make(name)

    assert output(capfd, "--root", root, "list", "-q") == "a\nb\nc\n"


def test_one_unreadable_container_does_not_hide_the_others(root: str, capfd: Capture, make: Make) -> None:
    make("good")
    make("torn")
    with open(f"{root}/torn/{state.STATE}", "w", encoding="ascii") as file:
        file.write("{")

    assert main.main(["--root", root, "list", "-f", "json"]) == 0
    told = capfd.readouterr()

    assert [row["id"] for row in json.loads(told.out)] == ["good"]
    assert "warning: container 'torn': " in told.err


def test_the_processes_of_a_container_without_groups_are_those_of_its_pid_namespace(
    root: str, capfd: Capture, make: Make
) -> None:
    make("web")  # in the host's namespace, where only the first process can be told

    assert json.loads(output(capfd, "--root", root, "ps", "--format", "json", "web")) == [os.getpid()]


@pytest.mark.kernel
def test_the_processes_of_a_pid_namespace_are_found(root: str, capfd: Capture, make: Make) -> None:
    script = "sleep 60 & echo up; read line"
    command = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as unshare:
        assert unshare.stdout is not None
        assert unshare.stdout.readline() == b"up\n"
        with open(f"/proc/{unshare.pid}/task/{unshare.pid}/children", encoding="ascii") as children:
            first = int(children.read())
        with open(f"/proc/{first}/task/{first}/children", encoding="ascii") as children:
            second = int(children.read())
        while Path(f"/proc/{second}/comm").read_text() != "sleep\n":
            time.sleep(0.01)  # the shell has forked, and executes it soon
        make("web", pid=first)

        found = json.loads(output(capfd, "--root", root, "ps", "--format", "json", "web"))
        table = output(capfd, "--root", root, "ps", "web", "-e", "-o", "args,pid").splitlines()
        unshare.communicate(b"\n")

    assert found == sorted([first, second])
    assert [line.split()[0] for line in table] == ["COMMAND", "sh", "sleep"]


def test_a_stopped_container_has_no_processes(root: str, capfd: Capture, make: Make) -> None:
    make("web", pid=0)

    assert json.loads(output(capfd, "--root", root, "ps", "--format", "json", "web")) == []


def test_a_container_that_is_not_there_has_no_processes_to_list(root: str, capfd: Capture) -> None:
    assert main.main(["--root", root, "ps", "nobody"]) == 1
    assert 'container "nobody" does not exist' in capfd.readouterr().err


def test_lines_are_chosen_by_the_column_of_the_pid() -> None:
    table = "USER  PID %CPU COMMAND\nroot   12  0.0 a 13\nroot   13  0.0 b\nroot    1  0.0 12 12\n"

    assert ps.select(table, {12}) == "USER  PID %CPU COMMAND\nroot   12  0.0 a 13"


def test_lines_are_chosen_where_columns_before_the_pid_hold_spaces_or_are_too_narrow() -> None:
    table = "COMMAND     PID\nsh -c 7      12\nsh -c 12     13\n"
    shifted = "USER  PID COMMAND\naverylongname   12 sh\naverylongname   13 sh\n"

    assert ps.select(table, {12}) == "COMMAND     PID\nsh -c 7      12"
    assert ps.select(shifted, {12}) == "USER  PID COMMAND\naverylongname   12 sh"


def test_options_of_ps_that_print_no_pid_are_refused() -> None:
    with pytest.raises(StockadeError, match="no column PID"):
        ps.select("COMMAND\nsh\n", {1})


def test_what_ps_says_of_its_options_is_told(root: str, capfd: Capture, make: Make) -> None:
    make("web")

    assert main.main(["--root", root, "ps", "web", "--no-such-option"]) == 1
    assert "no-such-option" in capfd.readouterr().err


@pytest.mark.parametrize("options", [(), ("--rootless",)])
def test_spec_writes_a_configuration_that_can_be_read(tmp_path: Path, options: tuple[str, ...]) -> None:
    assert main.main(["spec", "--bundle", str(tmp_path), *options]) == 0

    written = json.loads((tmp_path / "config.json").read_text())
    kinds = {each["type"] for each in written["linux"]["namespaces"]}
    assert written["process"]["args"] == ["sh"]
    assert ("user" in kinds) is bool(options)


def test_spec_replaces_nothing_and_follows_no_link(tmp_path: Path, capfd: Capture) -> None:
    (tmp_path / "config.json").symlink_to(tmp_path / "elsewhere")

    assert main.main(["spec", "--bundle", str(tmp_path)]) == 1
    assert f"{tmp_path}/config.json exists\n  remedy: " in capfd.readouterr().err
    assert not (tmp_path / "elsewhere").exists()


def test_spec_names_a_bundle_that_is_not_there(tmp_path: Path, capfd: Capture) -> None:
    assert main.main(["spec", "-b", str(tmp_path / "none")]) == 1
    assert capfd.readouterr().err.startswith(f"stockade-runtime: {tmp_path}/none/config.json: No such file")


def test_the_features_are_a_document_that_says_what_engines_ask(capfd: Capture) -> None:
    document = json.loads(output(capfd, "features"))

    assert {"ociVersionMin", "ociVersionMax", "hooks", "mountOptions", "linux"} <= document.keys()


def test_columns_are_as_wide_as_their_widest_word() -> None:
    assert list_.table([["A", "B"], ["x" * 20, "y"]]) == f"A{' ' * 22}B\n{'x' * 20}   y"
