"""What makes the report comes without imports that take longer than the report."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_report_needs_neither_pandas_nor_scipys_statistics_nor_matplotlib(make_study: Callable[..., Path]) -> None:
    code = """
import sys
from sqzlab.analysis.cli import main
assert main([sys.argv[1], "--no-figures"]) == 0
sys.exit(", ".join({"pandas", "scipy.stats", "matplotlib"} & sys.modules.keys()))
"""
    said = subprocess.run([sys.executable, "-c", code, make_study()], cwd=ROOT, capture_output=True, text=True)
    assert said.stderr == "\n"
