"""What a study may cost."""

from __future__ import annotations

from collections.abc import Mapping

from sqzlab.errors import choices
from sqzlab.study.faults import Faults
from sqzlab.study.yamlfile import Node

BUDGET = {"gpu_hours": "GPU-hours of all runs together; a launch that would need more is refused"}


def read_budget(given: Mapping[str, Node], faults: Faults) -> float | None:
    """The GPU-hours that the `budget` section allows; None where it names none or wrong ones, which are faults."""
    hours = None
    for key, node in given.items():
        value = node.value
        if key not in BUDGET:
            faults.add(node.key_mark, f"budget.{key}", f"unknown key; {choices(BUDGET, key)}")
        elif isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            hours = float(value)
        else:
            faults.add(node.mark, f"budget.{key}", f"{node.plain!r}; valid: a number above 0, such as 500")
    return hours
