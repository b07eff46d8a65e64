"""Where compiled kernels are kept. This module needs no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INDUCTOR, TRITON = "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"
OF_TRITON = "triton"  # in the folder of the other one


def own_cache() -> bool:
    """Whether the user has set a folder. Torch sets its own default into the environment, which does not count.

    It may come from another process, and another temporary folder: a job inherits it from its launch.
    """
    given = [Path(value) for name in (INDUCTOR, TRITON) if (value := os.environ.get(name))]
    return not all(any(part.startswith("torchinductor_") for part in path.parts) for path in given)


@contextmanager
def kernels_in(folder: Path) -> Iterator[None]:
    """Within the block, torch's compiler keeps its kernels in `folder` and takes them from there.

    A user's own setting of either variable wins. Both are put back at the end: torch sets the second by itself.
    """
    before = {name: os.environ.get(name) for name in (INDUCTOR, TRITON)}
    if not own_cache():
        os.environ[INDUCTOR], os.environ[TRITON] = str(folder), str(folder / OF_TRITON)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
