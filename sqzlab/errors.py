"""What can go wrong outside this program, each with the exit code that a command ends with.

A message is one line, or one line a fault: lower case, no full stop, the value by `!r`, what is valid.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SqzlabError(Exception):
    """A fault that is told in one clear message, without a traceback."""

    exit_code = 1


class ConfigError(SqzlabError, ValueError):
    """What a user wrote is wrong. `faults` has one line for each thing to mend."""

    exit_code = 2

    def __init__(self, faults: str | Iterable[str]) -> None:
        self.faults = (faults,) if isinstance(faults, str) else tuple(faults)
        super().__init__("\n".join(self.faults))


class UnavailableError(SqzlabError):
    """The environment lacks something: a data set, Slurm, a GPU, a writable folder."""

    exit_code = 3


def choices(valid: Iterable[str], given: object = None) -> str:
    """`valid: a, b, c`, led by `did you mean 'b'?` where `given` is close to one of them."""
    names = list(valid)
    close = difflib.get_close_matches(str(given), names, n=1, cutoff=0.6) if given is not None else []
    hint = f"did you mean {close[0]!r}? " if close else ""
    shown = names if len(names) <= MOST_CHOICES else names[:MOST_CHOICES]
    quoted = [repr(name) for name in shown] if any("," in name for name in names) else shown
    more = f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else ""
    return f"{hint}valid: {', '.join(quoted)}{more}"


MOST_CHOICES = 40
