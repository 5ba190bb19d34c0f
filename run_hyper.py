"""Tune a model: ``python run_hyper.py --model=KSR --dataset=ml-100k``."""

import sys

from ksr_recbole.tuning.cli import main

if __name__ == "__main__":
    sys.exit(main())
