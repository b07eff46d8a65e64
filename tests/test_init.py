"""What `import sqzlab` gives: its names before they are imported, and none of them sooner than it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sqzlab

ROOT = Path(__file__).parents[1]
FUNCTIONS = [name for name in sqzlab.__all__ if name != "__version__"]
WITH_TORCH = {"create_model", "extract_features", "predict"}


def run(code: str) -> str:
    said = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (said.returncode, said.stderr) == (0, "")
    return said.stdout.strip()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_name_is_a_function_of_that_name(name: str) -> None:
    function = getattr(sqzlab, name)
    assert callable(function)
    assert function.__name__ == name
    assert function.__doc__


def test_all_is_sorted_and_what_type_checkers_read_is_the_same() -> None:
    assert sqzlab.__all__ == sorted(sqzlab.__all__)
    tree = ast.parse(Path(sqzlab.__file__).read_text(encoding="utf-8"))
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = [alias.asname for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(str(name) for name in imported) == FUNCTIONS


def test_completion_shows_the_names_before_they_are_imported() -> None:
    shown, imported = run("import sys, sqzlab; print(*dir(sqzlab)); print(*sys.modules)").splitlines()
    assert set(sqzlab.__all__) <= set(shown.split())
    assert not {"torch", "pandas", "matplotlib", "scipy"} & set(imported.split())


def test_reading_comparing_and_plotting_import_no_torch() -> None:
    names = [name for name in FUNCTIONS if name not in WITH_TORCH]
    imported = run(f"import sys, sqzlab; [getattr(sqzlab, name) for name in {names!r}]; print(*sys.modules)").split()
    assert "matplotlib.figure" in imported
    assert not {"torch", "torchvision", "matplotlib.pyplot"} & set(imported)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'sqzlab' has no attribute 'plot_nothing'"):
        _ = sqzlab.plot_nothing
