"""Whatever happens to a study on a cluster: no run is lost, none is done twice, little is repeated.

A fixed sample: every fault once, each way in which clusters differ in turn. All of it: `benchmarks/slurm_faults.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle

import pytest
from faults import FAULTS, attempt
from slurm_conf import LABS
from trial import CannotBeMadeError, Outcome, clean_results

pytestmark = pytest.mark.slurm

AT_ONCE = 3  # a trial mostly waits for Slurm
SAMPLE = dict(zip(FAULTS, cycle(LABS), strict=False))  # fault: its cluster


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, any_lab_can_start: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Outcome]]]:
    """The selected faults, each on a cluster of its own, a few at a time."""
    wanted = [item.callspec.params["fault"] for item in request.session.items if item.module is request.module]
    folder = tmp_path_factory.mktemp("faults")
    clean = clean_results(folder / "clean")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            yield {
                fault: pool.submit(attempt, fault, folder / fault.replace(" ", "-"), clean, **LABS[SAMPLE[fault]])
                for fault in wanted
            }
        finally:
            pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("fault", SAMPLE)
def test_no_run_is_lost_or_done_twice_and_little_is_repeated(fault: str, outcomes: dict[str, Future[Outcome]]) -> None:
    try:
        outcome = outcomes[fault].result()
    except CannotBeMadeError as error:
        pytest.skip(str(error))
    assert outcome.flawless, outcome
