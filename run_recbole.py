"""Train and test a model: ``python run_recbole.py --model=KSR --dataset=ml-100k``."""

from ksr_recbole.interruptions import start

if __name__ == "__main__":
    start("ksr_recbole.cli")
