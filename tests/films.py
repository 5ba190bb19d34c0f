"""A dataset of a few films with names, and a KSR on it whose numbers are the same everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ksr_recbole.config import Config
from ksr_recbole.dataset.sequence_datasets import KGSequenceDataset
from ksr_recbole.model.ksr import KSR
from tests.models import make_model
from tests.toy import toy_values

FILMS = {
    "1": ("Alien", "1979", "m.alien", ("scott", "horror", "usa")),
    "2": ("Blade Runner", "1982", "m.runner", ("scott", "scifi", "usa")),
    "3": ("Aliens", "1986", "m.aliens", ("cameron", "scifi", "usa")),
    "4": ("Terminator, The", "1984", "m.term", ("cameron", "scifi", "usa")),
    "5": ("Amélie (2001)", "2001", "m.amelie", ("jeunet", "comedy", "france")),
    "6": ("Alien: Resurrection", "1997", "m.alien4", ("jeunet", "horror", "usa")),
    "7": ("Psycho", "1960", "m.psycho", ("hitchcock", "horror", "usa")),
    "8": ("Rear Window", "1954", "m.rear", ("hitchcock", "thriller", "usa")),
    "9": ("七人の侍", "1954", "m.samurai", ("kurosawa", "action", "japan")),
    "10": ("Ran", "1985", "m.ran", ("kurosawa", "drama", "japan")),
}
"""Item to title, year, entity and its director, genre and country."""

NAMES = {
    "scott": "Ridley Scott", "cameron": "James Cameron", "jeunet": "Jean-Pierre Jeunet",
    "hitchcock": "Alfred Hitchcock", "kurosawa": "黒澤 明", "horror": "Horror",
    "scifi": "Science fiction", "comedy": "Comedy", "thriller": "Thriller", "action": "Action",
    "drama": "Drama", "usa": "United States", "france": "France",
}  # fmt: skip
"""Entity to name; Japan has none."""

RELATIONS = ("film.film.directed_by", "dbo:filmGenre", "<http://example.org/ontology/country>")
SEQUENCES = {"anna": "1 2 3 4 6", "ben": "5 9 10 7 8 2", "cy": "7 8 1 3", "dee": "4"}


def write_films(folder: Path, names: bool = True, name: str = "films") -> Path:
    """Write ``<folder>/films/films.*`` and return ``<folder>``; user ``dee`` has one film."""
    entity_of = {item: entity for item, (_, _, entity, _) in FILMS.items()}
    files = {
        "inter": ["user_id:token\titem_id:token\ttimestamp:float"]
        + [
            f"{user}\t{item}\t{946_684_800 + 86_400 * day}"
            for user, items in SEQUENCES.items()
            for day, item in enumerate(items.split())
        ],
        "link": ["item_id:token\tentity_id:token", *map("\t".join, entity_of.items())],
        "kg": ["head_id:token\trelation_id:token\ttail_id:token"]
        + [
            f"{entity}\t{relation}\t{tail}"
            for _, _, entity, tails in FILMS.values()
            for relation, tail in zip(RELATIONS, tails, strict=True)
        ]
        + ["m.aliens\tfilm.film.prequel\tm.alien", "m.alien4\tfilm.film.prequel\tm.aliens"],
    }
    if names:
        columns = (
            "item_id:token",
            "class:token_seq",
            "movie_title:token_seq",
            "release_year:token",
        )
        files["item"] = ["\t".join(columns)]
        files["item"] += [f"{i}\tFilm\t{title}\t{year}" for i, (title, year, *_) in FILMS.items()]
        files["entity"] = ["entity_id:token\tname:token_seq", *map("\t".join, NAMES.items())]
    (folder / name).mkdir(parents=True)
    for suffix, lines in files.items():
        path = folder / name / f"{name}.{suffix}"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def films_model(folder: Path, **changes: object) -> tuple[KSR, KGSequenceDataset]:
    """A float64 KSR with parameters from NumPy's generator, on the films in ``folder``."""
    values = toy_values(folder, memory_backend="torch", gamma=1.0, **changes)
    config = Config("KSR-paper", "films", None, values)
    dataset = KGSequenceDataset(config)
    dataset.build()
    model = make_model(config, dataset)
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            if parameter.requires_grad:
                parameter.copy_(torch.from_numpy(rng.normal(0, 0.5, parameter.shape)))
    return model, dataset
