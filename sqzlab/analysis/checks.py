"""What a reader must know before trusting the tables: one line for each thing, in order of weight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqzlab.analysis.arms import Group
from sqzlab.analysis.records import Records, Row


def find_warnings(records: Records, groups: Sequence[Group]) -> tuple[str, ...]:
    """Two ways of computing, what forbids a verdict, absent cells, arms that did not start alike, mixed origins, the
    rest: in this order.

    Origins (commit, code, torch, GPU, ...) are compared between runs, and between the segments of a resumed run.
    """
    done = records.done
    found = [*_two_ways(done), *_without_verdict(groups, done), *_twice(groups), *_absent(records, groups, done)]
    found += [*_left_out(groups), *_unequal_starts(groups)]
    found += [f"mixed {name}: {told}" for key, name in ALIKE.items() if (told := _mixed(records, done, key))]
    found += _changed_within(records, done)
    if dirty := [row["run_id"] for row in done if _was_dirty(records, row)]:
        found.append(f"made with uncommitted changes in the code: {_runs(dirty)}")
    others = [row["run_id"] for row in records.rows if not row["planned"]]
    if records.plan is not None and others:
        found.append(f"{len(others):,} runs are not in the plan and not counted: {_some(others)}")
    return (*found, *records.warnings)


def _two_ways(done: Sequence[Row]) -> list[str]:
    """Networks that were computed in different ways, whether or not an axis says so: their sums differ, and so results.

    Results older than these columns are of plain blocks; whether they were compiled they do not say.
    """
    found = []
    for key, shown in WAYS.items():
        of: dict[str, list[str]] = {}
        for row in done:
            if row[key] in shown:
                of.setdefault(shown[row[key]], []).append(row["run_id"])
        if len(of) > 1:
            found.append(f"not all computed alike, so differences may come from that: {_counted(of)}")
    return found


def _without_verdict(groups: Sequence[Group], done: Sequence[Row]) -> list[str]:
    """Why no difference, or none of some groups, can be told at all."""
    if not done:
        return []
    found = []
    if without := [group.title for group in groups if group.baseline is None or group.baseline.n == 0]:
        found.append(f"no finished baseline, so no improvement is given: {_some(without)}")
    if all(arm.n < 2 for group in groups for arm in group.arms):
        found.append("one seed an arm: there is no spread, and no difference can be told from the luck of a seed")
    return found


def _twice(groups: Sequence[Group]) -> list[str]:
    """Seeds of an arm with more than one finished run, of which one counts."""
    found = []
    for group, arm in ((g, arm) for g in groups for arm in g.arms if len(arm.finished) > arm.n):
        counted = {row["seed"]: row["run_id"] for row in arm.done}
        more = [row for row in arm.finished if counted[row["seed"]] != row["run_id"]]
        for row in more[:MOST]:
            first = counted[row["seed"]]
            which = f"seed {row['seed']} of {arm.label} is there twice ({first} and {row['run_id']})"
            found.append(f"{group.title}: {which}: only {first} counts")
    return found


def _left_out(groups: Sequence[Group]) -> list[str]:
    """Verdicts that rest on what is left of an arm of which runs failed."""
    found = []
    for group in groups:
        separated = [arm for arm in group.arms if (one := group.compared(arm)) is not None and one.separated]
        if failed := [f"{arm.label} ({arm.note()})" for arm in separated if arm.states["failed"]]:
            why = "leaving out runs that diverged favours unstable arms"
            found.append(f"{group.title}: separated with failed runs left out ({why}): {_some(failed)}")
    return found


def _absent(records: Records, groups: Sequence[Group], done: Sequence[Row]) -> list[str]:
    """Planned runs without a result, and what became of those that failed."""
    found = []
    if len(done) < len(records.counted):
        absent = [f"{g.title} {arm.label} ({arm.note()})" for g in groups for arm in g.arms if arm.note()]
        found.append(f"{len(done):,} of {len(records.counted):,} runs are done; not complete: {_some(absent)}")
    unusable = [row for row in records.rows if row["state"] in ("failed", "damaged")]
    unfit = [f"{row['run_id']} {row['state']}: {row['error']}" for row in unusable]
    found += unfit[:MOST]
    if len(unfit) > MOST:
        found.append(f"{len(unfit) - MOST:,} more runs failed or are damaged")
    return found


def _mixed(records: Records, done: Sequence[Row], key: str) -> str | None:
    """ "abc (12 runs, such as x) and def (4 runs, such as y)" where finished runs differ in what no axis names."""
    if any(axis.rpartition(".")[2] in (key, *AXES_BEHIND.get(key, ())) for axis in records.axes):
        return None
    if len({row[key] for row in done}) < 2:
        return None
    of: dict[str, list[str]] = {}
    for row in done:
        of.setdefault(_shown(key, row[key]), []).append(row["run_id"])
    codes = {row["code"] for row in done}
    if len(of) < 2 or (key == "code" and _told_by_commits(done)):
        return None
    same = key == "git_commit" and len(codes) == 1 and None not in codes
    return _counted(of) + ("; the package is the same in all of them" if same else "")


def _changed_within(records: Records, done: Sequence[Row]) -> list[str]:
    """Runs whose result comes from segments of different origins."""
    counted = {row["run_id"] for row in done}
    found = []
    for key, name in CHANGING.items():
        of: dict[str, list[str]] = {}
        for run_id, segments in records.resumed.items():
            values = [_shown(key, segment.get(key)) for segment in segments]
            if run_id not in counted or len(set(values)) < 2:
                continue
            if key == "code" and _told_by_commits(segments):
                continue
            of.setdefault(" then ".join(dict.fromkeys(values)), []).append(run_id)
        if of:
            found.append(f"mixed {name} within a run: {_counted(of)}")
    return found


def _told_by_commits(origins: Iterable[Row]) -> bool:
    """Whether every commit is known and stands for one code: then a mixture of code is one of commits."""
    pairs = {(_shown("git_commit", one.get("git_commit")), _shown("code", one.get("code"))) for one in origins}
    known = {commit for commit, _ in pairs}
    return "unknown" not in known and len(known) == len(pairs)


def _was_dirty(records: Records, row: Row) -> bool:
    segments = records.resumed.get(row["run_id"], ())
    return row["git_dirty"] is True or any(segment.get("git_dirty") is True for segment in segments)


def _shown(key: str, value: object) -> str:
    if value is None or value != value:
        return "unknown"
    return str(value)[: 10 if key == "git_commit" else 80]


def _counted(of: Mapping[str, Sequence[str]]) -> str:
    """Each value with the number of its runs and one of them."""
    parts = [f"{value} ({_runs(run_ids)})" for value, run_ids in sorted(of.items())]
    more = [f"{len(parts) - MOST:,} more"] if len(parts) > MOST else []
    return " and ".join([*parts[:MOST], *more])


def _runs(run_ids: Sequence[str]) -> str:
    return f"{len(run_ids):,} run{'s' * (len(run_ids) != 1)}, such as {run_ids[0]}"


def _unequal_starts(groups: Sequence[Group]) -> list[str]:
    """Arms of one group that, with one seed, did not share initial weights or data order."""
    found = []
    for key, name in (("initial_weights", "shared initial weights"), ("data_order", "data order")):
        for group in groups:
            seen: dict[int, set[str]] = {}
            for row in (row for arm in group.arms for row in arm.done if row[key] is not None):
                seen.setdefault(int(row["seed"]), set()).add(str(row[key]))
            seeds = [str(seed) for seed, values in sorted(seen.items()) if len(values) > 1]
            if seeds:
                found.append(f"{group.title}: {name} differ between arms with the same seed (seeds {', '.join(seeds)})")
    return found


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST:,} more" if len(names) > MOST else ""
    return ", ".join(names[:MOST]) + more


MOST = 8
WAYS: dict[str, dict[Any, str]] = {
    "compile": {True: "compiled", False: "not compiled"},
    "block_form": {"folded": "in folded blocks", "plain": "in plain blocks", None: "in plain blocks"},
}
ALIKE = {  # in order of weight: what is trained on what for how long, then with which machine and code
    "data": "data sets",
    "classes": "numbers of classes",
    "train_images": "numbers of training images",
    "val_images": "numbers of validation images",
    "epochs": "numbers of epochs",
    "recipe": "recipes",
    "precision": "precisions",
    "device": "devices",
    "gpu": "GPU types",
    "git_commit": "commits",
    "code": "code (digests of the package)",
    "torch": "versions of torch",
}
CHANGING = {key: ALIKE[key] for key in ("git_commit", "code", "torch", "gpu")}  # between the segments of one run
AXES_BEHIND = {
    "data": ("name",),
    "classes": ("name",),
    "train_images": ("name",),
    "val_images": ("name",),
    "epochs": ("recipe",),
}
