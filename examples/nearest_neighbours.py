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
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ksr_recbole.cli import file_list, parse_arguments, run_command, say_loading
from ksr_recbole.errors import UserError

K = 10
LINKS = 16
"""Neighbours that each item is linked to in the HNSW graph."""
EFFORTS = (10, 20, 40, 80)
"""Items that the search keeps in view: more find more and take longer."""
QUICK = Path(__file__).with_name("quick.yaml")


def main(arguments: Sequence[str]) -> int:
    """Run the example and return its exit status."""
    return run_command(_run, __doc__, "examples/nearest_neighbours.py", arguments)


def _run(arguments: Sequence[str]) -> int:
    values = parse_arguments(arguments)
    try:
        import faiss
    except ImportError as error:
        raise UserError("This example needs faiss; run `pip install faiss-cpu`.") from error
    say_loading(f"Nearest neighbours of {values.get('directory', 'a KSR trained now')}")
    from ksr_recbole import Recommender

    rec = Recommender.load(values.pop("directory", None) or _trained(values))
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


def _trained(values: dict[str, str]) -> Path:
    """The directory of a small KSR, trained now."""
    from ksr_recbole import save_model
    from ksr_recbole.quick_start import run

    output = Path("saved/nearest_neighbours")
    folders = {"checkpoint_dir": str(output), "results_dir": str(output / "results")}
    dataset = values.pop("dataset", None)
    files = [str(QUICK), *file_list(values.pop("config_files", ""))]
    result = run("KSR", dataset, files, folders | values)
    return save_model(result, output / "model")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
