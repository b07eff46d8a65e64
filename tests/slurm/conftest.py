"""A real Slurm cluster for the tests marked `slurm`: skipped with the reason where none can start, but not in CI."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from cluster import Cluster, why_unavailable


@pytest.fixture(scope="session")
def slurm() -> Iterator[dict[str, str]]:
    """The environment variables of a cluster's client; one cluster for the session, nodes n1 and n2."""
    if reason := why_unavailable():
        if os.environ.get("CI"):
            pytest.fail(f"no Slurm in CI: {reason}")
        pytest.skip(reason)
    with Cluster(nodes=2, gpus=2, grace_s=2) as cluster:
        yield cluster.env
