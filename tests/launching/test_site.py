"""What a Slurm cluster says of itself, from settings as `scontrol` prints them."""

from __future__ import annotations

import pytest

from sqzlab.launching.site import Site

ON = {"PreemptType": "preempt/partition_prio", "PreemptMode": "REQUEUE", "KillWait": "30 sec", "JobRequeue": "1"}
GPU = {"PartitionName": "gpu", "PreemptMode": "REQUEUE", "GraceTime": "60", "MaxTime": "2-00:00:00"}


def site(partition: dict[str, str], why_no_accounting: str | None = None, **config: str) -> Site:
    return Site({**ON, **config}, partition, 1001, why_no_accounting)


@pytest.mark.parametrize(
    ("config", "partition", "there", "told"),
    [
        ({"PreemptType": "preempt/none"}, GPU, True, "off: no job is taken from you"),
        ({}, {**GPU, "PreemptMode": "OFF"}, True, "off: no job is taken from you"),
        ({}, GPU, True, "REQUEUE; SIGTERM, then 60 s to save, which the runs do"),
        (
            {"SlurmctldParameters": "enable_configless,preempt_send_user_signal"},
            GPU,
            True,
            "REQUEUE; SIGUSR2, then 60 s to save, which the runs do",
        ),
        (
            {},
            {**GPU, "PreemptMode": "CANCEL"},
            True,
            "CANCEL; SIGTERM, then 60 s to save, which the runs do; launch again to go on",
        ),
        (
            {},
            {**GPU, "GraceTime": "0"},
            False,
            "REQUEUE; no grace time is set: a run repeats what it did since its last checkpoint (5 min at most)",
        ),
    ],
)
def test_preemption_is_told_by_what_it_costs(
    config: dict[str, str], partition: dict[str, str], there: bool, told: str
) -> None:
    assert (there, "preemption", told) in site(partition, **config).told()


def test_what_is_not_there_is_told_as_that() -> None:
    told = {what: there for there, what, _ in site({}, "Slurm accounting storage is disabled").told()}
    assert told == {"cluster": True, "accounting": False, "preemption": False, "jobs": True, "time": False}


@pytest.mark.parametrize(("given", "seconds"), [("socket=/run/munge,cred_expire=5", 5), ("(null)", 120)])
def test_the_delay_after_a_requeue_is_that_of_the_credentials(given: str, seconds: int) -> None:
    assert site(GPU, AuthInfo=given).requeue_delay_s == seconds
