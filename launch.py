"""Runs what is missing of a study: `python launch.py experiments/squeeze_ablation.yaml`."""

import sys

from sqzlab.launching.cli import main

if __name__ == "__main__":
    sys.exit(main())
