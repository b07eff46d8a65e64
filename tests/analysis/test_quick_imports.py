"""What makes the report comes without imports that take longer than the report."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_report_needs_neither_scipys_statistics_nor_matplotlib() -> None:
    code = """
import sys
import sqzlab.analysis.report, sqzlab.analysis.page, sqzlab.analysis.precision
sys.exit(", ".join({"scipy.stats", "matplotlib"} & sys.modules.keys()))
"""
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert said.stderr == "\n"
