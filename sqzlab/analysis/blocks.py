"""What the blocks of an arm are like: from its axes, the config.json of one of its runs, and the records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqzlab.analysis.arms import Arm
from sqzlab.analysis.records import Records
from sqzlab.catalog import SQUEEZES

KEYS = ("reduction", "width_rule", "fc_bias", "gate", "placement", "stages")


def block_of(records: Records, arm: Arm) -> dict[str, Any]:
    """`reduction, width_rule, fc_bias, gate, placement, stages`; None where it is unknown, "" where it does not apply.

    Of the runs of an arm, which differ in the seed alone, the config.json of one is read.
    """
    row = (arm.done or arm.rows)[0]
    model = records.model(row["run_id"])
    squeeze = SQUEEZES.get(str(arm.cell.get("model.squeeze") or row["squeeze"]))
    found: dict[str, Any] = {}
    for key in KEYS:
        value = arm.cell.get(f"model.{key}")
        if value is None:
            value = row.get(key) if model is None else getattr(model, key)
        if value is None:
            value = "" if squeeze and key not in squeeze.arguments else None
        found[key] = value
    return found


def block_text(block: Mapping[str, Any]) -> tuple[str, str, str]:
    """Width rule, bias and placement: ("floor C/16", "no", "standard, conv5")."""
    shown = {key: "n/a" if block[key] is None else str(block[key]) for key in KEYS}
    width = " ".join([*filter(None, [block["width_rule"]]), f"C/{shown['reduction']}"]) if block["reduction"] else ""
    if block["reduction"] is None:
        width = "n/a"
    bias = {True: "yes", False: "no"}.get(block["fc_bias"], shown["fc_bias"])
    stages = f", {shown['stages']}" if block["stages"] not in ("", "all", None) else ""
    return width, bias, shown["placement"] + stages
