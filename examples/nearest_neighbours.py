"""Finds KSR's recommendations with an approximate index (faiss, HNSW) and measures its recall.

    pip install faiss-cpu
    python examples/nearest_neighbours.py [--directory=MODEL] [--dataset=ml-100k] [--KEY=VALUE ...]

A score is the inner product of a user vector and an item vector (Eq. 10), so the best items are
the user vector's nearest neighbours in that sense.  Without --directory, the directory of a saved
model, it first trains a small KSR on the dataset.  Printed is recall@10: the share of the exact
ten best items (of all items, none excluded) that the index finds, averaged over all users.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ksr_recbole.arguments import Parser
from ksr_recbole.commands import run_command, say_loading
from ksr_recbole.errors import UserError

K = 10
LINKS = 16
"""Neighbours that each item is linked to in the HNSW graph."""
EFFORTS = (10, 20, 40, 80)
"""Items that the search keeps in view: more find more and take longer."""
QUICK = Path(__file__).with_name("quick.yaml")


def main(arguments: Sequence[str]) -> int:
    """Run the example and return its exit status."""
    parser = Parser("examples/nearest_neighbours.py", description=__doc__, keys="of the model")
    parser.add_names(model=False)
    parser.add_argument("--directory", metavar="MODEL", help="of a saved model")
    return run_command(_run, parser, arguments)


def _run(given: Namespace) -> int:
    try:
        import faiss
    except ImportError as error:
        raise UserError("This example needs faiss; run `pip install faiss-cpu`.") from error
    say_loading(f"Nearest neighbours of {given.directory or 'a KSR trained now'}")
    from ksr_recbole import Recommender

    rec = Recommender.load(given.directory or _trained(given))
    tokens, items = rec.item_vectors()
    users = rec.user_vectors(rec.users)
    exact = rec.recommend_batch(rec.users, K, exclude_history=False)

    index = faiss.IndexHNSWFlat(items.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
    index.add(items)
    print(f"{len(items):,} items and {len(users):,} users in {items.shape[1]} dimensions")
    for effort in EFFORTS:
        index.hnsw.efSearch = effort
        _, found = index.search(users, K)  # rows of items, -1 where there are none
        print(f"HNSW, efSearch {effort:>3}: recall@{K} {_recall(found, exact, tokens):.4f}")
    return 0


def _recall(found: np.ndarray, exact: list[list[tuple[str, float]]], tokens: list[str]) -> float:
    """Share of the exact items that were found, averaged over users."""
    shares = []
    for rows, best in zip(found.tolist(), exact, strict=True):
        wanted = {item for item, _ in best}
        shares.append(len(wanted & {tokens[row] for row in rows if row >= 0}) / len(wanted))
    return float(np.mean(shares))


def _trained(given: Namespace) -> Path:
    """The directory of a small KSR, trained now."""
    from ksr_recbole import save_model
    from ksr_recbole.quick_start import run

    output = Path("saved/nearest_neighbours")
    folders = {"checkpoint_dir": str(output), "results_dir": str(output / "results")}
    result = run("KSR", given.dataset, [str(QUICK), *given.config_files], folders | given.values)
    return save_model(result, output / "model")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
