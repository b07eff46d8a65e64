"""Real Slurm clusters for the tests marked `slurm`: skipped with the reason where none can start, but not in CI."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from cluster import Cluster
from slurm_conf import LABS
from slurm_packages import why_unavailable


def _require(accounting: bool) -> None:
    if reason := why_unavailable(accounting):
        if os.environ.get("CI"):
            pytest.fail(f"no Slurm in CI: {reason}")
        pytest.skip(reason)


def _started(cluster: Cluster) -> Iterator[Cluster]:
    _require(cluster.accounting)
    with cluster:
        yield cluster


@pytest.fixture(scope="session")
def any_lab_can_start() -> None:
    """For tests that start clusters of their own, in all the ways of `LABS`."""
    _require(accounting=True)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One for the session, nodes n1 and n2. A test that breaks something repairs it."""
    yield from _started(Cluster(nodes=2, gpus=2, grace_s=2))


@pytest.fixture(scope="session")
def slurm(cluster: Cluster) -> dict[str, str]:
    """The environment variables of its clients."""
    return cluster.env


@pytest.fixture(scope="module", params=LABS)
def lab(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster of four nodes in each of the ways of `LABS`, one after another."""
    yield from _started(Cluster(nodes=4, gpus=2, grace_s=5, **LABS[request.param]))
