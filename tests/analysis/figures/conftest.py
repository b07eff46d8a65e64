"""Every test of a figure: in the figures' own style, in which fonts have the sizes that rooms are measured for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sqzlab.analysis.figures.looks import in_style


@pytest.fixture(autouse=True)
def own_style() -> Iterator[None]:
    with in_style():
        yield
