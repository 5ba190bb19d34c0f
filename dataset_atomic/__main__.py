"""``python -m dataset_atomic``."""

import sys

from dataset_atomic.cli import main

if __name__ == "__main__":
    sys.exit(main())
