"""`python -m rnngan`, the same as `rnngan`."""

import sys

from rnngan.cli import main

if __name__ == "__main__":
    sys.exit(main())
