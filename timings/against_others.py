"""Training seconds until the same NDCG@10: our models, RecBole's, and those of the authors.

    python timings/against_others.py [--dataset=ml-100k] [--data_path=FOLDER] [--epochs=30]
        [--models GRU KSR GRU4Rec SASRec] [--minutes=10] [--gru4rec=FOLDER] [--gsasrec=FOLDER]

All are evaluated under the paper's protocol, all items ranked, on validation after every epoch.
RecBole's models run as in RecBole, with softmax loss, 256 columns and its default optimizer.
``--gru4rec`` and ``--gsasrec`` are clones of the authors' own code (``official.py``), which stop
after ``--minutes`` alone.  Each other stops after ``--epochs`` or ``--minutes``.  The table has a
row for each model's best value, and how long every model took to reach it; pretraining is not
counted.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import common
import official
from tabulate import tabulate
from time_to_quality import epochs

OFFICIAL = {"gru4rec": official.gru4rec, "gsasrec": official.gsasrec}
RECBOLES = {
    "GRU4Rec": {"embedding_size": 256, "hidden_size": 256},
    "SASRec": {"hidden_size": 256, "inner_size": 256},
}


def course(options: argparse.Namespace, model: str) -> list[tuple[float, float]]:
    """NDCG@10 and training seconds so far after each epoch."""
    values = {}
    if model in RECBOLES:
        values = {"protocol": "paper", "loss_type": "CE", "train_neg_sample_args": None}
        values |= RECBOLES[model]
    bench = common.prepare(options, model=model, **values)

    def quality() -> float:
        with bench.trainer.averaged():
            return bench.trainer.rank(bench.valid, "full").metrics["ndcg@10"]

    found = []
    for value, seconds in epochs(bench.train_epoch, quality, model, options.epochs):
        found.append((value, seconds))
        if seconds > 60 * options.minutes:
            break
    return found


Courses = dict[str, list[tuple[float, float]]]


def seconds_to(goal: float, found: list[tuple[float, float]]) -> str:
    """Training seconds after the first epoch that reaches a value; a dash where none does."""
    return next((f"{at:.1f} s" for value, at in found if value >= goal), "-")


def table(courses: Courses) -> str:
    """A row for the best NDCG@10 of each model: the seconds in which every model reaches it."""
    rows = []
    for model, found in courses.items():
        best = max(value for value, _ in found)
        rows.append(
            [model, f"{best:.4f}", *(seconds_to(best, other) for other in courses.values())]
        )
    heads = ["best NDCG@10 of", "", *courses]
    return tabulate(rows, heads, tablefmt="plain", stralign="right", disable_numparse=True)


def main() -> None:
    """Print the courses and the seconds to each model's best value."""
    parser = common.parser(__doc__)
    parser.add_argument("--models", nargs="+", default=["GRU", "KSR", "GRU4Rec", "SASRec"])
    parser.add_argument("--epochs", type=common.count, default=30)
    parser.add_argument("--minutes", type=common.amount, default=10)
    for name in OFFICIAL:
        parser.add_argument(f"--{name}", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    print(common.machine())
    courses = {model: course(options, model) for model in options.models}
    for name, train in OFFICIAL.items():
        if folder := getattr(options, name):
            bench = common.load(options, model="GRU")
            one = partial(train, folder.resolve(), bench)
            courses[f"official {name}"] = official.course(
                one, bench, f"official {name}", options.minutes
            )
    print(table(courses))


if __name__ == "__main__":
    common.start(main)
