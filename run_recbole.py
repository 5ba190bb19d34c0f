"""Train and test a model: ``python run_recbole.py --model=KSR --dataset=ml-100k``."""

import sys

from ksr_recbole.cli import main

if __name__ == "__main__":
    sys.exit(main())
