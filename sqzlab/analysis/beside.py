"""Our numbers with the published ones of the same backbone and squeeze beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqzlab.analysis.arms import Arm, Group
from sqzlab.analysis.published import MISLABELLED, PublishedRow, matching
from sqzlab.analysis.records import Records
from sqzlab.analysis.tables import Column, Entry, Section, Table, points


def beside_table(records: Records, groups: Sequence[Group], rows: Sequence[PublishedRow]) -> Table | None:
    """squeeze | ours | improved | source | published | improved, or None where nothing published matches."""
    names = sorted({str(name) for name in records.counted["data"].dropna()})
    same_data = names == ["imagenet"]
    ours = " and ".join(names) or "nothing yet"
    sections, data, marked = [], [], False
    for group in groups:
        lines = []
        for arm in group.arms:
            mean, improved = arm.mean("top1"), group.improved(arm)
            for found in matching(rows, group.backbone, _squeeze(arm)):
                marked |= bool(found["marks"])
                entries = (
                    *(Entry(arm.label), Entry(arm.note() if mean is None else f"{mean:.2f}")),
                    *(Entry("") if arm is group.baseline else points(improved), Entry(found["source"])),
                    *(Entry(f"{found['top1']:.2f}", marks=found["marks"]), _theirs(found)),
                )
                lines.append(entries)
                own = {"ours_data": ours, "ours_top1_percent": mean, "ours_improved_points": improved}
                theirs = {"top1_percent": round(found["top1"], 3), "improved_points": found["improved"]}
                data.append({"group": group.title, "arm": arm.label, **own, "source": found["source"], **theirs})
        if lines:
            where = "" if same_data else f" (ours: {ours}; published: ImageNet-1k, a different data set)"
            sections.append(Section(group.title + where, tuple(lines)))
    if not sections:
        return None
    columns = (
        *(Column("squeeze", False), Column("ours Top-1 %"), Column("improved %p")),
        *(Column("published by", False), Column("Top-1 %"), Column("improved %p")),
    )
    caption = "Ours beside published numbers. Each improvement is over the same source's own baseline."
    if not same_data:
        caption += (
            f" Ours are of {ours}, the published ones of ImageNet-1k with networks at full width: "
            "neither levels nor improvements are comparable."
        )
    notes = (("a", MISLABELLED),) if marked else ()
    return Table("published", caption, columns, tuple(sections), tuple(data), notes)


def _squeeze(arm: Arm) -> str:
    return str(arm.cell.get("model.squeeze") or next((row["squeeze"] for row in arm.done), arm.label))


def _theirs(found: Mapping[str, Any]) -> Entry:
    return Entry("") if found["is_baseline"] else points(found["improved"])
