"""`python -m ladder_training`, `accelerate launch -m ladder_training` and the `ladder` script."""

import sys

from .cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
