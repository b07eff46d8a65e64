"""`python -m sqzlab COMMAND ...`: what is done with a single network rather than with a study."""

import sys

from sqzlab.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
