"""Makes tables, figures and reports from the files of studies: `python analyze.py --help`."""

import sys

from sqzlab.analysis.cli import main

if __name__ == "__main__":
    sys.exit(main())
