"""A small generated dataset with something to learn: users follow genres and directors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ksr_recbole.quick_start import run

RELATIONS = ("film.genre", "film.director", "film.country")
SMALL = {
    "embedding_size": 8,
    "hidden_size": 8,
    "kg_embedding_size": 4,
    "train_batch_size": 64,
    "epochs": 2,
    "kge_epochs": 2,
    "bpr_epochs": 2,
    "eval_args": {"mode": "uni5pop5"},
    "report_modes": ["uni5pop5", "full"],
    "show_progress": False,
    "gpu_id": "",
}
"""Config values under which a toy run takes a second or two."""


def write_toy(
    folder: Path,
    name: str = "toy",
    n_users: int = 30,
    n_items: int = 60,
    seed: int = 0,
    cycle: bool = False,
) -> Path:
    """Write ``<folder>/<name>/<name>.{inter,kg,link,item}`` and return ``<folder>``.

    Items ``i1`` and ``i2`` share one entity.  Timestamps have ties.  With ``cycle`` every user
    goes through the items one after the other, so that the next item is certain.
    """
    rng = np.random.default_rng(seed)
    n_genres, n_directors = 4, 12
    genre = rng.integers(0, n_genres, n_items)
    director = rng.integers(0, n_directors, n_items)
    inter, kg, link = [], [], []
    for user in range(n_users):
        favourite = user % n_genres
        chosen = rng.permutation(n_items)
        liked = [i for i in chosen if genre[i] == favourite or rng.random() < 0.25]
        if cycle:
            liked = (rng.integers(n_items) + np.arange(n_items)) % n_items
        for step, item in enumerate(liked[: rng.integers(6, 25)]):
            inter.append(f"u{user}\ti{item + 1}\t{1_000_000 + step // 2 * 3600}")
    for item in range(n_items):
        entity = "e1" if item < 2 else f"e{item}"
        link.append(f"i{item + 1}\t{entity}")
        if item == 0:
            continue
        kg += [
            f"{entity}\tfilm.genre\tg{genre[item]}",
            f"g{genre[item]}\tgenre.films\t{entity}",
            f"{entity}\tfilm.director\td{director[item]}",
            f"{entity}\tfilm.country\tc{item % 3}",
        ]
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    files = {
        "inter": ("user_id:token\titem_id:token\ttimestamp:float", inter),
        "kg": ("head_id:token\trelation_id:token\ttail_id:token", kg),
        "link": ("item_id:token\tentity_id:token", link),
    }
    for suffix, (header, lines) in files.items():
        text = "\n".join([header, *lines]) + "\n"
        (target / f"{name}.{suffix}").write_text(text, encoding="utf-8")
    return folder


def toy_values(folder: Path, **changes: Any) -> dict[str, Any]:
    """Config values of a small run on the toy data in ``folder``, all output below it."""
    return {
        **SMALL,
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        "results_dir": str(folder / "results"),
        "pretrain_dir": str(folder / "pretrained"),
        "data_cache_dir": str(folder / "cache"),
        **changes,
    }


def toy_run(folder: Path, model: str = "KSR", **changes: Any) -> dict[str, Any]:
    """The result of a small run on the toy data in ``folder``."""
    return run(model, "toy", None, toy_values(folder, **changes))
