"""Compare all methods as in Table 3: ``python run_benchmark.py --dataset=ml-100k --seeds=3``."""

from ksr_recbole.interruptions import start

if __name__ == "__main__":
    start("ksr_recbole.comparison.cli")
