"""A Figure that needs no pyplot to be seen or saved well."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from sqzlab.analysis.figure_list import FORMATS
from sqzlab.analysis.figures.looks import in_style

SCREEN = 96  # pixels an inch


class ShownFigure(Figure):
    """Saved as the report's are whatever the settings of matplotlib, and shown by a notebook as a cell's value.

    A plain Figure is shown only after pyplot was imported in that notebook.
    """

    def savefig(self, fname: Any, **how: Any) -> None:
        kind = how.get("format") or Path(str(fname)).suffix[1:]
        undated = {"metadata": dict(FORMATS[kind])} if kind in FORMATS else {}
        with in_style():
            super().savefig(fname, **undated | how)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """The image, twice as fine as its size on the screen says."""
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=2 * SCREEN)
        width, height = (round(inches * SCREEN) for inches in self.get_size_inches())
        return file.getvalue(), {"width": width, "height": height}
