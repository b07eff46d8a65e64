"""sqzlab: what should a Squeeze-and-Excitation block squeeze, and is it worth it?"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqzlab.analysis.records import load_records as load_records
    from sqzlab.inference.features import extract_features as extract_features
    from sqzlab.inference.predict import predict as predict
    from sqzlab.networks.resnet import create_model as create_model
    from sqzlab.study.study import load_study as load_study

__all__ = ["__version__", "create_model", "extract_features", "load_records", "load_study", "predict"]
__version__ = "0.1.0"

_HOMES = {
    "create_model": "sqzlab.networks.resnet",
    "extract_features": "sqzlab.inference.features",
    "load_records": "sqzlab.analysis.records",
    "load_study": "sqzlab.study.study",
    "predict": "sqzlab.inference.predict",
}


def __getattr__(name: str) -> Any:
    """Each public function is imported at its first use: planning must not import torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sqzlab' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
