"""sqzlab: what should a Squeeze-and-Excitation block squeeze, and is it worth it?"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqzlab.analysis.compare import compare as compare
    from sqzlab.analysis.figures import plot_curves as plot_curves
    from sqzlab.analysis.figures import plot_differences as plot_differences
    from sqzlab.analysis.figures import plot_excitation as plot_excitation
    from sqzlab.analysis.figures import plot_pareto as plot_pareto
    from sqzlab.analysis.figures import plot_seeds as plot_seeds
    from sqzlab.analysis.figures import plot_sweep as plot_sweep
    from sqzlab.analysis.records import load_records as load_records
    from sqzlab.inference.features import extract_features as extract_features
    from sqzlab.inference.predict import predict as predict
    from sqzlab.networks.resnet import create_model as create_model
    from sqzlab.study.study import load_study as load_study

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "compare",
    "create_model",
    "extract_features",
    "load_records",
    "load_study",
    "plot_curves",
    "plot_differences",
    "plot_excitation",
    "plot_pareto",
    "plot_seeds",
    "plot_sweep",
    "predict",
]

_HOMES = {
    "compare": "sqzlab.analysis.compare",
    "create_model": "sqzlab.networks.resnet",
    "extract_features": "sqzlab.inference.features",
    "load_records": "sqzlab.analysis.records",
    "load_study": "sqzlab.study.study",
    "plot_curves": "sqzlab.analysis.figures",
    "plot_differences": "sqzlab.analysis.figures",
    "plot_excitation": "sqzlab.analysis.figures",
    "plot_pareto": "sqzlab.analysis.figures",
    "plot_seeds": "sqzlab.analysis.figures",
    "plot_sweep": "sqzlab.analysis.figures",
    "predict": "sqzlab.inference.predict",
}


def __getattr__(name: str) -> Any:
    """Each public function is imported at its first use: planning must not import torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sqzlab' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """With the names that are not imported yet, for the completion of a notebook."""
    return sorted({*globals(), *__all__})
