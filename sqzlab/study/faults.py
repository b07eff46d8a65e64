"""Everything that is wrong with a study file, collected so that all of it is told at once."""

from __future__ import annotations

from collections.abc import Mapping

from sqzlab.errors import ConfigError
from sqzlab.study.yamlfile import Mark, Node, printable

Place = Mark | str
"""Where a fault stands: a line and column of the file, or the option that the value came from."""
FILE = ""  # the file as a whole


class Faults:
    """The faults of one file. The same fault in many arms is told once; one that only some profiles have names them."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.profile: str | None = None  # whose expansion the next faults come from
        self._found: dict[tuple[Place, str, str], set[str | None]] = {}
        self._idle: dict[tuple[Place, str], str] = {}
        self._used: set[tuple[Place, str]] = set()

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, place: Place, key: str, text: str) -> None:
        self._found.setdefault((place, key, text), set()).add(self.profile)

    def idle(self, place: Place, key: str, text: str) -> None:
        """Something without effect in this profile: a fault unless it is `used` in another."""
        self._idle.setdefault((place, key), text)

    def used(self, place: Place, key: str) -> None:
        self._used.add((place, key))

    def raise_any(self, expanded: list[str | None], profiles: Mapping[str, Node]) -> None:
        """Raises ConfigError, a line a fault in the file's order, if there is any.

        `expanded` are the profiles that were tried, `profiles` their nodes.
        """
        self.profile = None
        for (place, key), text in self._idle.items():
            if (place, key) not in self._used:
                self.add(place, key, text)
        if self._found:
            found = sorted(
                self._found.items(),
                key=lambda item: ((0, 0) if isinstance(item[0][0], str) else item[0][0], item[0][1:]),
            )
            raise ConfigError(self._line(*where, self._only(where[0], by, expanded, profiles)) for where, by in found)

    def _line(self, place: Place, key: str, text: str, only: str) -> str:
        lead = f"{self.file}:{place[0]}:{place[1]}: " if isinstance(place, tuple) else f"{place or self.file + ':'} "
        return lead + (f"{printable(key)}: " if key else "") + printable(text) + only

    def _only(self, place: Place, by: set[str | None], expanded: list[str | None], profiles: Mapping[str, Node]) -> str:
        """` (profile 'laptop')` where the place does not show that only some profiles have the fault."""
        names = [name for name in expanded if name in by and name is not None]
        if None in by or len(names) == len(expanded) or isinstance(place, str):
            return ""
        if all(profiles[name].mark <= place <= profiles[name].end for name in names):
            return ""
        return f" (profile {', '.join(map(repr, names))})"
