"""What a step of a network has to compute and to move, counted from the operators that it calls.

The network runs once on the meta device, where nothing is computed or allocated, and every operator that passes by is
noted with the tensors that it reads and writes. A batch normalisation is two operators here: sums over its input, then
its application; its backward likewise. A convolution's backward is two: the gradient of its input and that of its
weight. What a step moves follows by one of two rules:

- `eager`: each operator reads its inputs and writes its outputs once.
- `fused`: what a fusing compiler can do, with convolutions, products and pooling left as they are. Elementwise
  operators run within the kernel that needs their values; sums read what their values are made of. A value is written
  where such an operator must read it, or where writing it once moves less than computing it again for every reader.
  Max-pooling notes a place in its window in one byte.

Launches, caches and the elementwise arithmetic count nothing, so times that follow are bounds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from sqzlab.bench.plan import TRAINING

Kind = Literal["elementwise", "sum", "opaque"]


@dataclass(frozen=True)
class Value:
    """What a tensor holds between two writes to it; `compact_bytes` is its size under the rule `fused`."""

    number: int
    bytes: int
    compact_bytes: int


@dataclass(frozen=True)
class Op:
    kind: Kind
    reads: tuple[Value, ...]
    writes: tuple[Value, ...]
    flops: int = 0


@dataclass(frozen=True)
class Work:
    """One kernel, or several that only move bytes: 2 FLOP a multiply-accumulate, bytes read plus bytes written."""

    flops: int
    bytes: int


def step_work(model: nn.Module, images: Tensor, kind: str) -> dict[str, list[Work]]:
    """One step by either rule, of a network and images (N, 3, H, W) on the meta device, in the type it computes in.

    A training step has the forward, cross entropy, the backward and SGD with momentum on float32 parameters, which
    reads three values a parameter and writes two. An inference step is a forward in evaluation mode.
    """
    seen = _Operators()
    model.train(kind == TRAINING)
    if kind == TRAINING:
        labels = torch.empty(len(images), dtype=torch.int64, device="meta")
        with seen:
            F.cross_entropy(model(images).float(), labels).backward()  # type: ignore[no-untyped-call]
    else:
        with seen, torch.no_grad():
            model(images)
    updated = [Work(0, 5 * 4 * sum(p.numel() for p in model.parameters()))] if kind == TRAINING else []
    return {"eager": _eager(seen.ops) + updated, "fused": _fused(seen.ops) + updated}


def bound_s(work: Iterable[Work], flops_per_s: float, bytes_per_s: float) -> float:
    """Seconds that a machine of these ceilings needs at least: the roofline, kernel by kernel."""
    return sum(max(part.flops / flops_per_s, part.bytes / bytes_per_s) for part in work)


# ---- the two rules -----------------------------------------------------------------------------


def _eager(ops: Sequence[Op]) -> list[Work]:
    return [Work(op.flops, sum(value.bytes for value in (*op.reads, *op.writes))) for op in ops]


def _fused(ops: Sequence[Op]) -> list[Work]:
    readers = Counter(value for op in ops for value in op.reads)
    demanded = {value for op in ops if op.kind == "opaque" for value in op.reads}
    made_of: dict[Value, frozenset[Value]] = {}  # of values that are not written
    work: list[Work] = []
    for op in ops:
        sources = frozenset[Value]().union(*(made_of.get(value, {value}) for value in op.reads))
        read = _compact(sources)
        written = _compact(op.writes)
        if op.kind != "elementwise" or not demanded.isdisjoint(op.writes):
            work.append(Work(op.flops, read + written))
            continue
        times = max((readers[value] for value in op.writes), default=0)
        if times * read > read + times * written:
            work.append(Work(0, read))  # the first reader writes it and need not read it: as many bytes
        else:
            made_of |= dict.fromkeys(op.writes, sources)
    return work


def _compact(values: Iterable[Value]) -> int:
    return sum(value.compact_bytes for value in values)


# ---- what passes by ----------------------------------------------------------------------------


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operator. A tensor's storage tells which value it holds, so views are what they look at."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ops: list[Op] = []
        self.held: dict[int, tuple[Value, Any]] = {}  # by storage, which is kept so that no other gets its id
        self.values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = _tensors((args, kwargs))
        read = [self._held(tensor) for tensor in given]
        out = func(*args, **kwargs)
        if func._schema.is_mutable:
            made = _tensors(out)
        else:
            storages = {tensor.untyped_storage()._cdata for tensor in given}
            made = [tensor for tensor in _tensors(out) if tensor.untyped_storage()._cdata not in storages]
        name = func.overloadpacket.__name__
        if not made or name.startswith("empty"):
            return out
        if name == "convolution_backward":
            self._convolution_backward(func, args, out, read)
        elif name == "native_batch_norm":
            if args[5]:  # in training
                self._note("sum", read[:1], [])
            self._note("elementwise", read[:3], made[:1])
        elif name == "native_batch_norm_backward":
            self._note("sum", read[:2], [])
            self._note("elementwise", read[:3], made[:1])
        else:
            formula = flop_registry.get(func.overloadpacket)
            flops = formula(*args, **kwargs, out_val=out) if formula else 0
            self._note(_kind(func), read, made, flops, places=name.startswith("max_pool"))
        return out

    def _convolution_backward(self, func: Any, args: Any, out: Any, read: Sequence[Value]) -> None:
        """Two operators, each of which reads the output's gradient and the other factor."""
        gradient, images, weight = read[:3]
        for place, factor in ((0, weight), (1, images)):
            if args[-1][place]:
                only = [i == place for i in range(3)]
                kept = tuple(value if i == place else None for i, value in enumerate(out))
                flops = flop_registry[func.overloadpacket](*args[:-1], only, out_val=kept)
                self._note("opaque", [gradient, factor], [out[place]], flops)

    def _note(
        self, kind: Kind, reads: Iterable[Value], made: Iterable[Tensor], flops: int = 0, *, places: bool = False
    ) -> None:
        writes = [self._new(tensor, place=places and tensor.dtype == torch.int64) for tensor in made]
        self.ops.append(Op(kind, tuple(dict.fromkeys(reads)), tuple(writes), flops))

    def _held(self, tensor: Tensor) -> Value:
        found = self.held.get(tensor.untyped_storage()._cdata)
        return found[0] if found else self._new(tensor)

    def _new(self, tensor: Tensor, *, place: bool = False) -> Value:
        storage = tensor.untyped_storage()
        size = min(tensor.numel() * tensor.element_size(), storage.nbytes())  # an expanded one is small
        value = Value(self.values, size, tensor.numel() if place else size)
        self.values += 1
        self.held[storage._cdata] = value, storage
        return value


def _kind(func: Any) -> Kind:
    if torch.Tag.pointwise in func.tags:
        return "elementwise"
    return "sum" if func.overloadpacket.__name__ in ("mean", "sum") else "opaque"


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in torch.utils._pytree.tree_leaves(values) if isinstance(value, Tensor)]
