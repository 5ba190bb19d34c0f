"""Compare all methods as in Table 3: ``python run_benchmark.py --dataset=ml-100k --seeds=3``."""

import sys

from ksr_recbole.comparison.cli import main

if __name__ == "__main__":
    sys.exit(main())
