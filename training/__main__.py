"""`python -m ladder_training`, `accelerate launch -m ladder_training` and the `ladder` script."""

import sys

from ladder_training.cli import main

if __name__ == "__main__":
    sys.exit(main())
