"""Pretrains what a run needs and does not have: KB embeddings and item embeddings.

Results are cached under a key made of the data they come from, the settings and the seed, so a
second run, another model or another trial of a search finds them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from logging import getLogger
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np
import pandas as pd

from dataset_atomic.atomic_files import check_atomic_file, columns_of
from dataset_atomic.layout import Layout
from ksr_recbole import digests
from ksr_recbole.cache import ArrayCache
from ksr_recbole.config.options import Value
from ksr_recbole.config.shared import GIVEN_VECTORS, PretrainingOptions
from ksr_recbole.config_types import Configuration
from ksr_recbole.dataset.pretrained import PretrainedVectors
from ksr_recbole.dataset.sequence_datasets import KGSequenceDataset, WithSequences
from ksr_recbole.errors import UserError, shown
from ksr_recbole.locks import locked
from ksr_recbole.one_step import finish_steps
from ksr_recbole.pretraining.bpr import BPRSettings, train_bpr
from ksr_recbole.pretraining.kge import KGESettings, train_kge
from ksr_recbole.pretraining.vectors import (
    VectorTable,
    read_vectors,
    tokens_in,
    write_vectors,
)
from ksr_recbole.text import counted


def pretrained_vectors(config: Configuration, dataset: WithSequences) -> PretrainedVectors:
    """The vectors that the configured model starts from; what it does not use is not made.

    They are kept with the dataset, for the models that are made of it.

    Args:
        config: the run's configuration; ``configs/pretraining.yaml`` documents the keys.
        dataset: a built dataset; of its interactions only the training part is read.

    Raises:
        UserError: given vectors do not fit, or the cache folder cannot be written.
    """
    for_items = config["item_init"] == "bpr"
    for_graph = config["kb_input"] or config["kb_score"]
    # All settings are checked before anything is trained.
    if for_items:
        bpr_settings(config)
    if for_graph:
        kge_settings(config)
    vectors = dataset.pretrained = PretrainedVectors()
    given = _given_kb(config, cast(KGSequenceDataset, dataset)) if for_graph else {}

    def add_items() -> None:
        vectors.items = _item_embeddings(config, dataset, vectors.notes)

    def add_kb() -> None:
        graph = cast(KGSequenceDataset, dataset)
        vectors.entities, vectors.relations = _kb_embeddings(config, graph, given, vectors.notes)

    steps = [*([add_items] if for_items else []), *([add_kb] if for_graph else [])]
    for step in reversed(steps) if given else steps:  # what is read before what is trained
        step()
        getLogger().info(f"Pretrained: {vectors.notes[-1]}")
    if config["pretrain_export_path"] is not None:
        _export(config, cast(KGSequenceDataset, dataset), vectors)
    return vectors


def _kb_tokens(dataset: KGSequenceDataset) -> dict[str, np.ndarray]:
    return {
        "ent": dataset.field2id_token[dataset.entity_field],
        "rel": dataset.field2id_token[dataset.relation_field],
    }


def _given_kb(config: Configuration, dataset: KGSequenceDataset) -> dict[str, Path]:
    """The files of the vectors of entities (``ent``) and relations (``rel``), if they are given."""
    found = {suffix: _given(config, suffix) for suffix in ("ent", "rel")}
    if not any(found.values()):
        found = _preloaded(config, dataset)
    given = {suffix: path for suffix, path in found.items() if path is not None}
    if len(given) == 1:
        (path,) = given.values()
        raise UserError(
            f"Only one of entity vectors and relation vectors is given ({path}); give "
            "both or neither, with pretrain_path or with preload_weight."
        )
    return given


def _kb_embeddings(
    config: Configuration, dataset: KGSequenceDataset, given: Mapping[str, Path], notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    size = _size(config, "kg_embedding_size")
    if given:
        notes.append(f"KB embeddings read from {given['ent']} and {given['rel']}")
        return _read_kb(given, _kb_tokens(dataset), dataset, size)
    _say_repeated_triples(dataset)
    settings = kge_settings(config)
    shapes = {"entity": (dataset.entity_num, size), "relation": (dataset.relation_num, size)}

    def train(checkpoint: Path) -> dict[str, np.ndarray]:
        embeddings = train_kge(
            dataset.triples,
            dataset.entity_num,
            dataset.relation_num,
            settings,
            config["seed"],
            device=str(config["device"]),
            show_progress=config["show_progress"],
            checkpoint=checkpoint,
        )
        return {"entity": embeddings.entity, "relation": embeddings.relation}

    parts = {"triples": dataset.triples, "settings": asdict(settings), "seed": config["seed"]}
    if config["device"].type == "cuda":
        parts["device"] = "cuda"  # its generator draws other numbers
    made = _cached(config, f"{dataset.dataset_name}-{settings.method}", parts, shapes, train, notes)
    return made["entity"], made["relation"]


def _say_repeated_triples(dataset: KGSequenceDataset) -> None:
    """Say how many triples weigh again; `convert` writes none, so the files are from elsewhere."""
    if repeated := int(pd.DataFrame(dataset.triples).duplicated().sum()):
        getLogger().warning(
            f"{counted(repeated, 'triple')} of {dataset.dataset_name}.kg repeat earlier ones, and "
            "each weighs again in the training of KB embeddings; remove these lines if that is not "
            "meant."
        )


def _size(config: Configuration, key: str) -> int:
    # The options of RecBole's own models are not checked before.
    return Value(int, 1)(key, config[key])


def kge_settings(config: Configuration) -> KGESettings:
    """How the KB embeddings are trained, from the config keys ``kge_*``."""
    options = PretrainingOptions.of(config)
    return KGESettings(
        method=options.kge_method,
        dim=_size(config, "kg_embedding_size"),
        epochs=options.kge_epochs,
        batch_size=options.kge_batch_size,
        learning_rate=options.kge_learning_rate,
        loss=options.kge_loss,
        margin=options.kge_margin,
        negatives=options.kge_negatives,
        norm=options.kge_norm,
    )


def bpr_settings(config: Configuration) -> BPRSettings:
    """How the item embeddings are trained, from the config keys ``bpr_*``."""
    options = PretrainingOptions.of(config)
    return BPRSettings(
        dim=_size(config, "embedding_size"),
        epochs=options.bpr_epochs,
        learning_rate=options.bpr_learning_rate,
        regularization=options.bpr_regularization,
    )


def _read_kb(
    given: Mapping[str, Path],
    tokens: dict[str, np.ndarray],
    dataset: KGSequenceDataset,
    size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Read .ent and .rel; .ent is keyed by entities or, as RecBole's KSR wants it, by items.

    Args:
        given: the files, by suffix.
        tokens: of the entities and of the relations by id, by suffix.
        dataset: a built dataset.
        size: numbers of a vector.

    Returns:
        ``float32 [n_entities, size]`` and ``float32 [n_relations, size]``.
    """
    key, path = "kg_embedding_size", given["ent"]
    layout = Layout.of(dataset.config)
    used = np.unique(dataset.triples[:, [0, 2]])
    if _is_keyed_by_items(path, dataset):
        of_items = read_vectors(path, _item_tokens(dataset), size, key, layout)
        entities = _of_items_entities(path, of_items, dataset)
    else:
        needed = tokens["ent"][np.unique(dataset.item_entities[1:])]
        entities = np.zeros((dataset.entity_num, size), np.float32)
        entities[used] = read_vectors(path, tokens["ent"][used], size, key, layout, needed)
    if without := int((~entities[used].any(axis=1)).sum()):
        getLogger().warning(
            f"{path} has no vectors of {without:,} of the {len(used):,} entities, none "
            "of them an item's; theirs are zeros."
        )
    relations = np.zeros((dataset.relation_num, size), np.float32)
    used = np.unique(dataset.triples[:, 1])
    relations[used] = read_vectors(given["rel"], tokens["rel"][used], size, key, layout)
    return entities, relations


def _item_tokens(dataset: KGSequenceDataset) -> np.ndarray:
    return dataset.field2id_token[dataset.iid_field][1:]


def _tokens_of_items_entities(dataset: KGSequenceDataset) -> np.ndarray:
    """The token of every item's entity, in the order of the items."""
    return dataset.field2id_token[dataset.entity_field][dataset.item_entities[1:]]


def _of_items_entities(path: Path, of_items: np.ndarray, dataset: KGSequenceDataset) -> np.ndarray:
    """Vectors by entity, ``float32 [n_entities, E]``, from those of items ``[n_items - 1, E]``."""
    entities = np.zeros((dataset.entity_num, of_items.shape[1]), np.float32)
    entities[dataset.item_entities[1:]] = of_items
    others = (entities[dataset.item_entities[1:]] != of_items).any(axis=1)
    if others.any():
        getLogger().warning(
            f"In {path} the vector of {counted(int(others.sum()), 'item')} is not that of a later "
            "item of the same entity; the later item's is used for both."
        )
    return entities


def _is_keyed_by_items(path: Path, dataset: KGSequenceDataset) -> bool:
    """Whether a file of entities' vectors has the tokens of items, and not of their entities.

    Raises:
        UserError: the tokens fit both, and nothing says which they are.
    """
    layout = Layout.of(dataset.config)
    column = _id_column(path, layout)
    if kind := _aliased(dataset.config, column):
        return kind == "item"
    items, entities = _item_tokens(dataset), _tokens_of_items_entities(dataset)
    if np.array_equal(items, entities):  # by entities it gives the other entities' vectors too
        return False
    found, of_items, needed = tokens_in(path, layout), set(items), set(entities)
    if not of_items <= found:
        # Nothing fits, or entities do; if nothing does, the sentence is about what fits better.
        return len(of_items - found) * len(needed) < len(needed - found) * len(of_items)
    if needed <= found or found & (needed - of_items):
        raise UserError(
            f"The ids in {path} may be those of items or of entities; say which with "
            f"--alias_of_item_id=['{column}'] or --alias_of_entity_id=['{column}']."
        )
    return True


def _id_column(path: Path, layout: Layout) -> str | None:
    """Name of the column of ids in a file of vectors, if there is one."""
    return next((name for name, kind in columns_of(path, layout).items() if kind == "token"), None)


def _aliased(config: Configuration, column: str | None) -> str | None:
    """What a column of ids holds (``item``, ``entity`` or ``relation``), if an alias says so."""
    kinds = ("relation", "entity", "item")
    return next((kind for kind in kinds if column in (config[f"alias_of_{kind}_id"] or ())), None)


def _item_embeddings(config: Configuration, dataset: WithSequences, notes: list[str]) -> np.ndarray:
    size = _size(config, "embedding_size")
    tokens = dataset.field2id_token[dataset.iid_field]
    given = _given(config, "bpr")
    if given:
        notes.append(f"item embeddings read from {given}")
        layout = Layout.of(config)
        read = read_vectors(given, tokens[1:], size, "embedding_size", layout)
        return np.concatenate([np.zeros((1, size), np.float32), read])
    settings = bpr_settings(config)
    sequences = dataset.sequences
    indices, users = dataset.split.training_interactions(sequences)
    items = sequences.items[indices]

    def train(checkpoint: Path) -> dict[str, np.ndarray]:
        vectors = train_bpr(
            users,
            items,
            sequences.n_users,
            sequences.n_items,
            settings,
            config["seed"],
            show_progress=config["show_progress"],
            checkpoint=checkpoint,
        )
        return {"item": vectors.item}

    parts = {
        "users": users,
        "items": items,
        "n_items": sequences.n_items,
        "split": dataset.split.name,
        "settings": asdict(settings),
        "seed": config["seed"],
    }
    shapes = {"item": (sequences.n_items, size)}
    return _cached(config, f"{dataset.dataset_name}-BPR", parts, shapes, train, notes)["item"]


def _cached(
    config: Configuration,
    kind: str,
    parts: dict[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    train: Callable[[Path], dict[str, np.ndarray]],
    notes: list[str],
) -> dict[str, np.ndarray]:
    """Vectors from the cache, or trained and put there; of runs side by side one trains them."""
    cache = ArrayCache(config["pretrain_dir"])
    key = digests.of_values(parts)
    path = cache.path(kind, key)
    from_cache = f"{kind} from the cache {path}"
    lock, damaged = path.with_suffix(".lock"), path.exists()
    found = cache.load(kind, key, shapes)
    if found is not None:
        notes.append(from_cache)
        with suppress(OSError):  # left by a run that was killed once it had the vectors
            cache.partial_path(kind, key).unlink(missing_ok=True)
        return found
    with locked(lock):
        # Another run may have made it meanwhile; a damaged file gives one warning.
        found = None if damaged else cache.load(kind, key, shapes)
        if found is not None:
            notes.append(from_cache)
        else:
            start = perf_counter()
            getLogger().info(f"Pretraining {kind}")
            found = train(cache.partial_path(kind, key))
            readable = {name: v for name, v in parts.items() if not isinstance(v, np.ndarray)}
            cache.save(kind, key, found, readable)
            notes.append(f"{kind} trained in {perf_counter() - start:.1f} s, kept in {path}")
    return found


def _given(config: Configuration, suffix: str) -> Path | None:
    """``<pretrain_path>/<dataset>.<suffix>`` if the user gave it."""
    folder = config["pretrain_path"]
    if folder is None:
        return None
    if not os.path.isdir(folder):  # Path.is_dir raises where a name is too long
        raise UserError(f"The folder {folder} (pretrain_path) does not exist.")
    finish_steps(folder, lambda name: name.startswith(f"{config['dataset']}."))
    files = [Path(folder) / f"{config['dataset']}.{each}" for each in GIVEN_VECTORS]
    if not any(map(os.path.lexists, files)):
        names = ", ".join(file.name for file in files)
        raise UserError(
            f"The folder {folder} (pretrain_path) has none of {names}; put the vectors there, or "
            "leave pretrain_path out to have them trained."
        )
    path = files[GIVEN_VECTORS.index(suffix)]
    return path if os.path.lexists(path) else None  # reading it tells whether it is a file


def _preloaded(config: Configuration, dataset: KGSequenceDataset) -> dict[str, Path | None]:
    """The files of entities' and relations' vectors that RecBole's ``preload_weight`` asks for.

    Raises:
        UserError: a file is missing, no file has the two columns, or it is not clear what a file
            holds.
    """
    found: dict[str, Path | None] = dict.fromkeys(("ent", "rel"))
    folder, layout = Path(config["data_path"]), Layout.of(config)
    paths = [
        folder / f"{dataset.dataset_name}.{suffix}"
        for suffix in config["additional_feat_suffix"] or ()
    ]
    for ids, values in (config["preload_weight"] or {}).items():
        wanted = {ids: "token", values: "float_seq"}
        path = next((p for p in paths if wanted.keys() <= columns_of(p, layout).keys()), None)
        if path is None:
            raise UserError(
                f"Config key preload_weight names the columns {shown(ids)} and {shown(values)}, "
                "which no file of additional_feat_suffix has "
                f"({', '.join(p.name for p in paths) or 'none is named'}); correct the names."
            )
        check_atomic_file(path, wanted, layout.separator, layout.encoding)
        kind = _kind_of(dataset, ids, path)
        if found[kind] is not None:
            names = {"ent": "entities", "rel": "relations"}
            raise UserError(
                f"{found[kind]} and {path} both seem to hold vectors of {names[kind]}; say what "
                "each holds with alias_of_entity_id, alias_of_item_id and alias_of_relation_id."
            )
        found[kind] = path
    return found


def _kind_of(dataset: KGSequenceDataset, ids: str, path: Path) -> str:
    """Whether a column of ids holds relations (``rel``) or entities or their items (``ent``).

    Raises:
        UserError: the tokens fit both, and nothing says which they are.
    """
    if kind := _aliased(dataset.config, ids):
        return "rel" if kind == "relation" else "ent"
    found = tokens_in(path, Layout.of(dataset.config))
    known = set(dataset.field2id_token[dataset.relation_field][1:])
    used = set(dataset.field2id_token[dataset.relation_field][np.unique(dataset.triples[:, 1])])
    fits_relations = used <= found
    fits_entities = any(
        set(needed) <= found
        for needed in (_item_tokens(dataset), _tokens_of_items_entities(dataset))
    )
    if fits_relations != fits_entities:
        return "rel" if fits_relations else "ent"
    if fits_relations and found <= known:
        raise UserError(
            f"The ids in {path} may be those of relations or of entities; say which with "
            f"--alias_of_relation_id=['{ids}'] or --alias_of_entity_id=['{ids}']."
        )
    return "rel" if found <= known else "ent"


def _export(config: Configuration, dataset: KGSequenceDataset, vectors: PretrainedVectors) -> None:
    """Write atomic files for RecBole's KSR and GRU4RecKG, which key entities by their items."""
    if vectors.items is None or vectors.entities is None or vectors.relations is None:
        raise UserError(
            f"Config key pretrain_export_path cannot be used with {config['model']}, which "
            "starts from no vectors or from one kind only; run KSR instead."
        )
    folder, name = Path(config["pretrain_export_path"]), dataset.dataset_name
    items = _item_tokens(dataset)
    relations = dataset.field2id_token[dataset.relation_field][1:]
    entity_of_item = vectors.entities[dataset.item_entities[1:]]
    of_no_item = np.setdiff1d(dataset.triples[:, [0, 2]], dataset.item_entities[1:])
    tables = {
        "ent": VectorTable("ent_id", "ent_emb", items, entity_of_item),
        "rel": VectorTable("rel_id", "rel_emb", relations, vectors.relations[1:]),
        "bpr": VectorTable("bpr_id", "bpr_emb", items, vectors.items[1:]),
    }
    write_vectors(folder, name, tables, Layout.of(config))
    getLogger().info(f"Vectors written to {folder / name}.ent, .rel and .bpr")
    if without := len(of_no_item):
        getLogger().warning(
            f"{folder / name}.ent holds only entities of items, as RecBole requires. {without:,} "
            "other entities are missing, and a run that reads the file sets them to zero."
        )
