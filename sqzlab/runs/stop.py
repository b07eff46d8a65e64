"""How a run is told to stop: a flag that a signal sets and the training loop reads."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class StopFlag:
    """Set by a signal, read at the next step boundary: nothing is saved inside a signal handler."""

    def __init__(self, after_steps: int | None = None) -> None:
        self.after_steps = after_steps  # stops by itself after so many steps of this process
        self.why: str | None = None

    def set(self, why: str) -> None:
        self.why = self.why or why

    @contextmanager
    def on_signals(self, *numbers: signal.Signals) -> Iterator[StopFlag]:
        """Sets the flag on these signals; a second one acts as it did before."""
        before = {number: signal.getsignal(number) for number in numbers}

        def handle(number: int, _frame: object) -> None:
            self.set(signal.Signals(number).name)
            signal.signal(number, before[signal.Signals(number)])

        for number in numbers:
            signal.signal(number, handle)
        mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)  # a child of a fork server is born with them blocked
        try:
            yield self
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for number, handler in before.items():
                signal.signal(number, handler)
