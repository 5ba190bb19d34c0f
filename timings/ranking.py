"""Seconds and memory of exact recommendations among many items, 1,000 users at a time.

    python timings/ranking.py [--items=1000000] [--users=1000] [--size=256]

A GRU with random weights recommends 10 items to lists of 20 items each (``recommend_batch``, which
scores users in blocks of bounded size).  Then the same inner products by faiss's exact index, if
``faiss`` can be imported (``pip install faiss-cpu``, in an environment of its own).
"""

from __future__ import annotations

import argparse
from typing import Any

import common
import numpy as np
import torch

from ksr_recbole.config.keys import model_options
from ksr_recbole.dataset.item_values import Facts
from ksr_recbole.inference.content import Histories, SavedModel
from ksr_recbole.inference.recommender import Recommender


def recommender(n_items: int, size: int) -> Recommender:
    """A GRU over ``n_items`` items with vectors of ``size`` columns, its weights random."""
    options = {**model_options("GRU"), "embedding_size": size, "hidden_size": size}
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) / size**0.5

    weights = {
        "item_embedding.weight": drawn(n_items + 1, size),
        "gru.weight_ih_l0": drawn(3 * size, size),
        "gru.weight_hh_l0": drawn(3 * size, size),
        "gru.bias_ih_l0": drawn(3 * size),
        "gru.bias_hh_l0": drawn(3 * size),
    }
    tokens = {"item": ["[PAD]", *map(str, range(1, n_items + 1))], "user": ["[PAD]", "u"]}
    nobody = Histories(np.zeros(0, np.int32), np.zeros(3, np.int64), np.zeros(2, np.int32))
    names = {"item": tokens["item"], "entity": [], "attribute": []}
    nothing = Facts(*(np.zeros(0, np.int32) for _ in range(3)))
    fields = {"USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "LIST_SUFFIX": "_list"}
    fields["ITEM_LIST_LENGTH_FIELD"] = "item_length"
    settings: dict[str, Any] = {**options, **fields, "NEG_PREFIX": "neg_"}
    settings["MAX_ITEM_LIST_LENGTH"] = 50
    saved = SavedModel("GRU", {}, settings, tokens, weights, nobody, names, nothing)
    return Recommender(saved)


def by_faiss(model: Recommender, queries: list[list[str]]) -> None:
    """Print the same for faiss, and whether it finds the same items."""
    try:
        import faiss
    except ImportError:
        print("faiss is not installed")
        return
    tokens, vectors = model.item_vectors()
    index = faiss.IndexFlatIP(vectors.shape[1])
    adding = common.seconds_of(lambda: index.add(vectors))
    found: list[Any] = []
    users = model.user_vectors(queries)
    searching = common.seconds_of(lambda: found.append(index.search(users, 10)[1]))
    ours = model.recommend_batch(queries, 10, exclude_history=False)
    theirs = [[tokens[k] for k in row] for row in found[0]]
    same = sum([token for token, _ in a] == b for a, b in zip(ours, theirs, strict=True))
    print(f"faiss IndexFlatIP: {searching:.2f} s, after {adding:.2f} s for its index;", end=" ")
    print(f"the same 10 items in the same order for {same} of {len(queries)} users")


def main() -> None:
    """Print seconds and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=common.count, default=1_000_000)
    parser.add_argument("--users", type=common.count, default=1_000)
    parser.add_argument("--size", type=common.count, default=256)
    options = parser.parse_args()
    print(common.machine())
    model = recommender(options.items, options.size)
    rng = np.random.default_rng(0)
    drawn = rng.integers(1, options.items + 1, (options.users, 20))
    queries = [[str(item) for item in row] for row in drawn]
    model.recommend_batch(queries[:1])
    before = common.peak_memory_mib()
    seconds = [common.seconds_of(lambda: model.recommend_batch(queries)) for _ in range(3)]
    print(f"ours: {common.in_words(seconds)}; {options.items:,} items, {options.users:,} users")
    print(f"peak memory {before:,.0f} MiB before, {common.peak_memory_mib():,.0f} MiB after")
    by_faiss(model, queries)


if __name__ == "__main__":
    common.start(main)
