"""Imports go down only, and what plans, launches or reads results never imports torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = (  # lowest first; the parts of one layer do not import each other
    ("__init__",),
    ("errors",),
    ("catalog",),
    ("recipes",),
    ("config",),
    ("resolving",),
    ("run",),
    ("networks", "data", "study", "statistics"),
    ("analysis",),
    ("tracking",),
    ("training",),
    ("runs",),
    ("slurm", "inference", "bench"),
    ("launching",),
    ("commands",),
    ("__main__",),
)
HEIGHT = {part: height for height, parts in enumerate(LAYERS) for part in parts}
WITH_TORCH = ("networks", "data", "training", "runs", "inference", "bench")
FREE_AMONG_TORCH = {
    *("sqzlab.data.fingerprint", "sqzlab.data.class_folders", "sqzlab.data.image_list"),
    *("sqzlab.data.store.format", "sqzlab.data.store.reader", "sqzlab.data.store.listing"),
    *("sqzlab.data.order", "sqzlab.data.philox", "sqzlab.data.crop_boxes"),
    *("sqzlab.runs.files", "sqzlab.runs.lease", "sqzlab.runs.code", "sqzlab.runs.stop"),
    *("sqzlab.runs.graphs", "sqzlab.training.inductor"),
    *("sqzlab.bench.plan", "sqzlab.bench.outcome"),
}
TORCH = {"torch", "torchvision", "timm"}


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


MODULES = {_name(path): path for path in sorted((ROOT / "sqzlab").rglob("*.py"))}


def _part(module: str) -> str:
    """`networks` of `sqzlab.networks.resnet`."""
    return module.split(".")[1]


def _imports(module: str) -> Iterator[str]:
    """Dotted names of all modules that the file names in import statements, wherever they stand."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{module}: relative import in line {node.lineno}"
            if node.module == "sqzlab":  # `from sqzlab import catalog` names a module, `import __version__` does not
                names = [f"sqzlab.{alias.name}" for alias in node.names]
                yield from (n if n in MODULES or f"{n}.__init__" in MODULES else "sqzlab.__init__" for n in names)
            else:
                yield node.module


def _torch_free(module: str) -> bool:
    """Whether a module must come without torch: all but what computes, and every package's `__init__`."""
    if module in FREE_AMONG_TORCH or module.endswith("__init__"):
        return True
    return _part(module) not in WITH_TORCH and module not in ("sqzlab.launching.worker", "sqzlab.__main__")


FREE = [module for module in MODULES if _torch_free(module)]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_its_own_part_and_from_lower_layers(module: str) -> None:
    assert _part(module) in HEIGHT, f"{module} has no layer yet; add it to LAYERS"
    if module == "sqzlab.__init__":
        return  # its names are imported at their first use; that none is earlier, the last test says
    own = _part(module)
    for imported in _imports(module):
        if imported.startswith("sqzlab."):
            part = _part(imported)
            assert part == own or HEIGHT[part] < HEIGHT[own], f"{module} imports {imported}"


@pytest.mark.parametrize("module", FREE)
def test_a_module_that_computes_nothing_names_no_torch(module: str) -> None:
    assert not [name for name in _imports(module) if name.partition(".")[0] in TORCH]


def test_importing_all_that_computes_nothing_imports_no_torch() -> None:
    names = [module.removesuffix(".__init__") for module in FREE]
    code = f"""
import importlib, sys
for name in {names!r}:
    importlib.import_module(name)
    found = {TORCH!r} & sys.modules.keys()
    if found:
        sys.exit(f"{{name}} imports {{', '.join(sorted(found))}}")
"""
    said = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (said.returncode, said.stderr) == (0, "")


def test_the_packages_that_plan_and_read_exist() -> None:
    planned = {"sqzlab.study.study", "sqzlab.analysis.cli", "sqzlab.launching.cli", "sqzlab.data.fingerprint"}
    assert planned <= set(FREE)
