"""Makes tables, figures and reports from the files of studies: `python analyze.py --help`."""

import gc
import sys

from sqzlab.analysis.cli import main

if __name__ == "__main__":
    gc.disable()  # a short life: looking for cycles among the records of many runs takes a fifth of it
    sys.exit(main())
