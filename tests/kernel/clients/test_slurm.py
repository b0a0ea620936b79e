"""Slurm: steps of jobs in bundles, on three hosts, by the runtime that oci.conf names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel.clients.world import eventually

if TYPE_CHECKING:
    from tests.kernel.clients.slurm import Slurm

pytestmark = pytest.mark.kernel
SRUN = ("srun", "--container", "/tmp/bundle")


def test_a_step_runs_in_the_bundle_on_every_host(slurm: Slurm) -> None:
    script = "echo $(cat /etc/host) $(hostname) $(wc -l </proc/net/route)"

    done = slurm(*SRUN, "--nodes", "3", "--ntasks", "3", "sh", "-c", script)

    assert done.returncode == 0, done
    assert sorted(done.stdout.splitlines()) == [f"host{number} inside 1" for number in (1, 2, 3)]
    assert all(states.is_dir() for states in slurm.states().values())


def test_an_exit_code_and_both_streams_come_through(slurm: Slurm) -> None:
    done = slurm(*SRUN, "sh", "-c", "echo out; echo err >&2; exit 7")

    assert (done.returncode, done.stdout) == (7, "out\n")
    assert "err\n" in done.stderr


def test_standard_input_comes_through(slurm: Slurm) -> None:
    assert slurm(*SRUN, "tr", "a-z", "A-Z", input="typed\n").stdout == "TYPED\n"


def test_a_user_without_privilege_is_root_in_a_bundle_of_their_own(slurm: Slurm) -> None:
    script = "echo $(cat /etc/host) $(id -u) $(cat /proc/self/uid_map); exit 5"

    done = slurm("srun", "--container", "/tmp/user-bundle", "--nodes", "3", "sh", "-c", script, user=slurm.user)

    assert done.returncode == 5, done
    assert sorted(done.stdout.splitlines()) == [f"host{number} 0 0 {slurm.user.pw_uid} 1" for number in (1, 2, 3)]
    assert all(states.is_dir() for states in slurm.states(slurm.user.pw_name).values())


def test_a_cancelled_job_leaves_no_process_and_no_state(slurm: Slurm) -> None:
    step = slurm.first.start([*SRUN, "sleep", "12345"])
    eventually(lambda: slurm("pgrep", "-f", "^sleep 12345").returncode == 0, what="the step to run")

    slurm("scancel", "--name", "sleep", check=True)

    step.wait()
    eventually(lambda: slurm("pgrep", "-f", "^sleep 12345").returncode == 1, what="the step to end")
    eventually(lambda: not any(list(states.iterdir()) for states in slurm.states().values() if states.exists()))
