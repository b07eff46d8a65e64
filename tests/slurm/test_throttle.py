"""At most N jobs of a study at once over all its arrays: the shares, against a model of what Slurm may do with them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from sqzlab.slurm.throttle import Array, place, restrict, share_out


@dataclass
class Model:
    """Arrays in a queue of which Slurm starts jobs in any order, within each array's slots and dependency."""

    most: int
    waiting: dict[str, int] = field(default_factory=dict)
    running: dict[str, int] = field(default_factory=dict)
    slots: dict[str, int] = field(default_factory=dict)
    after: dict[str, str | None] = field(default_factory=dict)

    def submit(self, sizes: list[int]) -> None:
        names = [f"a{len(self.slots) + number}" for number in range(len(sizes))]
        for name, size, (slots, parent) in zip(names, sizes, place(self.most, self.seen(), sizes), strict=True):
            assert slots >= 1
            self.waiting[name], self.running[name], self.slots[name] = size, 0, slots
            self.after[name] = names[parent] if isinstance(parent, int) else parent

    def seen(self) -> list[Array]:
        return [
            Array(name, self.left(name), self.slots[name], self.after[name], self.running[name])
            for name in self.slots
            if self.left(name)
        ]

    def left(self, name: str) -> int:
        return self.waiting[name] + self.running[name]

    def ready(self) -> list[str]:
        """Arrays of which Slurm may start a job now."""
        return [
            name
            for name, parent in self.after.items()
            if self.waiting[name]
            and self.running[name] < self.slots[name]
            and (parent is None or not self.left(parent))
        ]

    def busy(self) -> list[str]:
        return [name for name in self.running if self.running[name]]

    def start(self, name: str) -> None:
        self.waiting[name] -= 1
        self.running[name] += 1

    def set(self, new: dict[str, int]) -> None:
        assert all(slots >= 1 for slots in new.values()), "Slurm takes 0 for no limit"
        self.slots |= new


sizes = st.lists(st.integers(1, 6), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), most=st.integers(1, 6))
def test_no_order_of_events_runs_more_jobs_than_allowed_and_all_of_them_run(data: st.DataObject, most: int) -> None:
    model = Model(most)
    model.submit(data.draw(sizes))
    old = model.seen()
    launches = 2
    while any(map(model.left, model.slots)):
        acts = ["start"] * bool(model.ready()) + ["end", "requeue"] * bool(model.busy())
        acts += ["look", "share out"] + ["launch"] * (launches > 0)
        act = data.draw(st.sampled_from(acts))
        if act == "start":
            model.start(data.draw(st.sampled_from(model.ready())))
        elif act == "end":
            model.running[data.draw(st.sampled_from(model.busy()))] -= 1
        elif act == "requeue":
            name = data.draw(st.sampled_from(model.busy()))
            model.running[name] -= 1
            model.waiting[name] += 1
        elif act == "look":
            old = model.seen()
        elif act == "share out":  # by an answer that may be old: only the written slots are today's
            model.set(share_out(most, [replace(array, slots=model.slots[array.name]) for array in old]))
        else:
            launches -= 1
            model.submit(data.draw(sizes))
            old = model.seen()
        assert sum(model.running.values()) <= most
        if not model.busy():
            assert model.ready() or not any(map(model.left, model.slots)), "nothing runs and nothing may start"


@given(most=st.integers(1, 9), lefts=sizes, slots=st.lists(st.integers(1, 6), min_size=5, max_size=5))
def test_after_sharing_out_no_slot_is_idle_while_a_job_could_use_it(
    most: int, lefts: list[int], slots: list[int]
) -> None:
    arrays = [Array(f"a{i}", left, slots[i]) for i, left in enumerate(lefts)]
    used = sum(array.bound for array in arrays)
    new = share_out(most, arrays)
    after = sum(min(array.left, new.get(array.name, array.slots)) for array in arrays)
    assert after == max(used, min(most, sum(lefts)))


@given(most=st.integers(1, 9), lefts=sizes, slots=st.lists(st.integers(1, 6), min_size=5, max_size=5))
def test_a_lower_limit_takes_slots_and_gives_none(most: int, lefts: list[int], slots: list[int]) -> None:
    arrays = [Array(f"a{i}", left, slots[i]) for i, left in enumerate(lefts)]
    new = restrict(most, arrays)
    assert all(1 <= new[array.name] < array.slots for array in arrays if array.name in new)
    after = [replace(array, slots=new.get(array.name, array.slots)) for array in arrays]
    assert sum(array.bound for array in after) <= max(most, len(arrays))


def test_slots_go_to_arrays_by_how_many_jobs_they_have() -> None:
    assert place(8, [], [60, 20]) == [(6, None), (2, None)]
    assert place(8, [], [3, 1]) == [(3, None), (1, None)]


def test_an_array_that_finds_no_slot_comes_after_another() -> None:
    assert place(2, [], [5, 5, 5]) == [(1, None), (1, None), (1, 0)]
    assert place(4, [Array("old", 9, 4)], [5, 5]) == [(4, "old"), (4, 0)]
