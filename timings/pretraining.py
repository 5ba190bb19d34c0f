"""Minutes and memory of TransE and BPR at ml-20m's shape, from an epoch of a part.

    python timings/pretraining.py

The graph has 1,125,100 entities and 3,000,000 triples, the interactions are 5,868,015 of 61,583
users and 19,533 items, all drawn at random.  One epoch of TransE runs over 562,550 triples in which
every entity occurs, and one of BPR over all interactions; the minutes of the default's epochs are
computed from them.
"""

from __future__ import annotations

import argparse

import common
import numpy as np

from ksr_recbole.config.shared import PretrainingOptions
from ksr_recbole.pretraining.bpr import train_bpr
from ksr_recbole.pretraining.kge import train_kge
from ksr_recbole.pretraining.pretrain import bpr_settings, kge_settings

N_ENTITIES, N_RELATIONS, N_TRIPLES = 1_125_100, 81, 3_000_000
N_USERS, N_ITEMS, N_INTERACTIONS = 61_583, 19_533, 5_868_015


def main() -> None:
    """Print both."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print(common.machine())
    rng, given = np.random.default_rng(0), PretrainingOptions.defaults()
    one = {**given, "kge_epochs": 1, "bpr_epochs": 1}
    one |= {"kg_embedding_size": 50, "embedding_size": 256}
    kge, bpr = kge_settings(one), bpr_settings(one)
    # Every entity occurs once as a head or a tail of what is trained on, so none is left out.
    every = rng.permutation(N_ENTITIES)
    every = np.concatenate([every, every[: len(every) % 2]]).reshape(2, -1)
    relations = rng.integers(0, N_RELATIONS, every.shape[1])
    triples = np.stack([every[0], relations, every[1]], axis=1)
    n = len(triples)
    seconds = common.seconds_of(
        lambda: train_kge(triples, N_ENTITIES, N_RELATIONS, kge, 0, show_progress=False)
    )
    whole = seconds / n * N_TRIPLES * given["kge_epochs"]
    print(f"TransE: {n:,} triples {seconds:.1f} s; {given['kge_epochs']} epochs of {N_TRIPLES:,}")
    print(f"  would take {whole / 60:.1f} min; peak memory {common.peak_memory_mib():,.0f} MiB")
    users = rng.integers(1, N_USERS + 1, N_INTERACTIONS)
    items = rng.integers(1, N_ITEMS + 1, N_INTERACTIONS)
    seconds = common.seconds_of(
        lambda: train_bpr(users, items, N_USERS + 1, N_ITEMS + 1, bpr, 0, show_progress=False)
    )
    whole = seconds * given["bpr_epochs"] / 60
    print(f"BPR: an epoch {seconds:.1f} s; {given['bpr_epochs']} epochs would take {whole:.1f} min")
    print(f"peak memory {common.peak_memory_mib():,.0f} MiB")


if __name__ == "__main__":
    common.start(main)
