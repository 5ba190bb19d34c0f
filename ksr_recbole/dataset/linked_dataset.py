"""A knowledge-based RecBole dataset in which several items may share one entity."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from recbole.data.dataset import KnowledgeBasedDataset
from recbole.utils import FeatureType

from dataset_atomic.atomic_files import PADDING, steady_dataset
from dataset_atomic.layout import Layout
from ksr_recbole import digests
from ksr_recbole.cache import ArrayCache
from ksr_recbole.dataset import stored
from ksr_recbole.dataset.funnel import WithFunnel, any_count, check_present
from ksr_recbole.dataset.loading import AtomicReading, say_repeated, warn_of_absent_columns
from ksr_recbole.dataset.repaired_loading import RepairedLoading
from ksr_recbole.dataset.tokens import TokenIds, first_items, found_in, joint_codes
from ksr_recbole.errors import DamagedFileError, UserError, shown

NO_LINK = "item without a link to an entity with triples"
"""Why an interaction is left out of a dataset with a knowledge graph."""


class LinkedDataset(RepairedLoading, WithFunnel, AtomicReading, KnowledgeBasedDataset):
    """RecBole's knowledge-based dataset with checked files and many-to-one links.

    RecBole's item-entity map is one to one and gives a linked item and its entity one id.
    Here :attr:`item_entities` tells the entity of every item, so that two items (a film listed
    twice, a book's editions) can share one.

    Attributes:
        item_entities: entity id of every item id, ``int64 [n_items]``.

    Raises:
        UserError: a missing, empty or malformed atomic file, or nothing left after filtering.
    """

    file_size_list: list[int]
    kg_feat: Any
    item2entity: dict[str, str]
    entity2item: dict[str, str]
    _n_links: int  # lines of the file of links

    def _from_scratch(self) -> None:
        """Load the atomic files, or what was made of the same files with the same settings."""
        parts = self.config["benchmark_filename"] or ()
        with steady_dataset(self.config["data_path"], self.dataset_name, parts) as check:
            self._load_or_restore(check)

    def _load_or_restore(self, check: Callable[[], None]) -> None:
        folder = self.config["data_cache_dir"]
        plain = not self.config["additional_feat_suffix"] and not self.config["benchmark_filename"]
        if folder is None or not plain:
            super()._from_scratch()
            return
        cache, kind = ArrayCache(folder), f"{self.dataset_name}-data"
        try:
            parts = stored.cache_parts(self.config, self.dataset_name, self.of_sequences)
        except OSError:  # a file is missing or unreadable; loading says which in a sentence
            super()._from_scratch()
            return
        key = digests.of_values(parts)
        arrays = cache.load(kind, key)
        if arrays is not None and self._restored(arrays, cache.path(kind, key)):
            return
        super()._from_scratch()
        if stored.is_plain(self):
            check()  # or other files' content would be kept under the key of those before
            cache.keep_data(kind, key, stored.to_arrays(self), {"settings": parts["settings"]})

    def _restored(self, arrays: Mapping[str, np.ndarray], path: Path) -> bool:
        """Whether the arrays of a cache file are those of a dataset, which this then holds."""
        self._get_preset()
        self._get_field_from_config()
        try:
            stored.restore(self, arrays, self.time_is_needed)
        except DamagedFileError as error:
            getLogger(__name__).warning(f"Making {path} again: {error}.")
            return False
        self._n_links = self.funnel.links[0]
        warn_of_absent_columns(self.config, self.dataset_name)
        return True

    def _get_preset(self) -> None:
        super()._get_preset()
        self.field2token_id = TokenIds(self.field2id_token)

    def _needed(self, suffix: str) -> dict[str, str]:
        graph = {
            "kg": (self.head_entity_field, self.relation_field, self.tail_entity_field),
            "link": (self.iid_field, self.entity_field),
        }
        return dict.fromkeys(graph.get(suffix, ()), "token") or super()._needed(suffix)

    def _kinds_of_id(self, suffix: str) -> Sequence[Sequence[str]]:
        return Layout.of(self.config).kinds_of_id.get(suffix, ())

    def _load_data(self, token: str, dataset_path: str) -> None:
        check_present(self.config, self.dataset_name, "kg", "link")
        super()._load_data(token, dataset_path)

    def _load_link(self, token: str, dataset_path: str) -> tuple[dict[str, str], dict[str, str]]:
        """As RecBole's, but of several entities of an item the first counts, as in ``convert``."""
        frame = self._load_feat(str(Path(dataset_path, f"{token}.link")), "link")
        assert frame is not None  # a file of links is always read
        repeated = say_repeated(frame, self.iid_field, "item", f"{token}.link", "links")
        self._n_links = len(frame)
        first = frame[~repeated]
        item2entity = dict(zip(first[self.iid_field], first[self.entity_field], strict=True))
        return item2entity, first_items(item2entity)

    def _data_filtering(self) -> None:
        n_triples = len(self.kg_feat)
        self.funnel.triples = (n_triples, n_triples)
        super()._data_filtering()
        self.funnel.links = (self._n_links, len(self.item2entity))

    def _filter_given_files(self) -> None:
        sizes = self.file_size_list
        self.funnel.triples = (len(self.kg_feat), len(self.kg_feat))
        if self.of_sequences:  # RecBole filters nothing then
            self._filter_kg_by_triple_num()
            self._filter_link()
        else:
            self._keep_valid_links()
        part = np.repeat(np.arange(len(sizes)), sizes)[self.inter_feat.index.to_numpy()]
        self._reset_index()
        self.funnel.links = (self._n_links, len(self.item2entity))
        self.file_size_list = np.bincount(part, minlength=len(sizes)).tolist()

    def _filter_by_field_value(self) -> None:
        super()._filter_by_field_value()
        self._filter_kg_by_triple_num()  # as in RecBole, of the triples that are left

    def _filter_once(self) -> None:
        if self.of_sequences:
            self._filter_link()
            super()._filter_once()
        else:  # RecBole's order, once
            super()._filter_once()
            self._filter_link()

    def _reset_index(self) -> None:
        if len(self.inter_feat) == 0:
            raise UserError(self._why_nothing_is_left())
        super()._reset_index()

    def _why_nothing_is_left(self) -> str:
        name, n_triples = self.dataset_name, self.funnel.triples[0]
        if n_triples and len(self.kg_feat) == 0:
            given = " and ".join(f"{key}: {value}" for key, value in self._filters_of_triples())
            return (
                f"No triple of {name}.kg is left of {n_triples:,}, so no item has a link; "
                f"the configuration has {given}, so widen the interval."
            )
        if NO_LINK not in self.funnel.dropped and self.funnel.dropped:
            return (
                f"No interaction of {name} is left after filtering; change the filters of the "
                f"configuration. {self.funnel.line()}"
            )
        return (
            f"No interaction with a linked item is left in {self.dataset_path} after "
            f"filtering; check that the item ids of {name}.link are those of "
            f"{name}.inter and its entities occur in {name}.kg. {self.funnel.line()}"
        )

    def _filters_of_triples(self) -> Iterator[tuple[str, Any]]:
        """The config keys that leave out triples, with their values."""
        for key in ("entity_kg_num_interval", "relation_kg_num_interval"):
            if not any_count(self._parse_intervals_str(self.config[key])):
                yield key, self.config[key]
        by_value = {} if self.benchmark_filename_list else self.config["val_interval"] or {}
        for field, wanted in by_value.items():
            if field in self.kg_feat:
                yield f"val_interval.{shown(field)}", shown(wanted)

    def _filter_kg_by_triple_num(self) -> None:
        """As RecBole's, by numbers instead of a Python object for every triple."""
        keys = ("entity_kg_num_interval", "relation_kg_num_interval")
        entity, relation = (self._parse_intervals_str(self.config[key]) for key in keys)
        ends = [self.head_entity_field, self.tail_entity_field]
        groups = [(ends, entity), ([self.relation_field], relation)]
        kept = self._within_counts(self.kg_feat, groups)
        self.funnel.triples = (self.funnel.triples[0], int(kept.sum()))
        self.kg_feat = self.kg_feat[kept]

    def _filter_link(self) -> None:
        """Keep valid links, and the interactions and items that have one."""
        self._keep_valid_links()
        linked = self.inter_feat[self.iid_field].isin(self.item2entity.keys())
        with self._counted(NO_LINK):
            self.inter_feat = self.inter_feat[linked]
        if self.item_feat is not None:  # no item without a link gets an id
            self.item_feat = self.item_feat[self.item_feat[self.iid_field].isin(self.item2entity)]

    def _keep_valid_links(self) -> None:
        """Keep links between an item with interactions and an entity with triples.

        Unlike RecBole's, an entity stays linked as long as one of its items does, and an item
        of ``.item`` without interactions has no link.
        """
        items = found_in([self.inter_feat[self.iid_field]], self.item2entity)
        ends = [self.kg_feat[end] for end in (self.head_entity_field, self.tail_entity_field)]
        entities = found_in(ends, self.item2entity.values())
        self.item2entity = {
            item: entity
            for item, entity in self.item2entity.items()
            if item in items and entity in entities
        }
        self.entity2item = first_items(self.item2entity)

    def _remap(self, remap_list: list[tuple[Any, str, FeatureType]]) -> None:
        """As RecBole's, without an object of NumPy for every token."""
        if not remap_list or any(kind != FeatureType.TOKEN for _, _, kind in remap_list):
            super()._remap(remap_list)
            return
        codes, found = joint_codes([feat[field] for feat, field, _ in remap_list])
        ends = np.cumsum([len(feat) for feat, _, _ in remap_list])[:-1]
        tokens = np.array([PADDING, *found])
        for (feat, field, _), new in zip(remap_list, np.split(codes + 1, ends), strict=True):
            self.field2id_token.setdefault(field, tokens)
            feat[field] = _column(new, feat)

    def _merge_item_and_entity(self) -> None:
        """Map ids as RecBole does, and remember the entity of every item.

        Items without a link come first, then linked ones, whose entities have their ids; the
        other entities follow.  The other items of a shared entity count as items without a link
        (their entity slot is one of RecBole's "virtual" entities), and :attr:`item_entities`
        points them to the entity they share.  RecBole does the same with loops over all tokens.
        """
        items, entities = (
            self.field2id_token[field] for field in (self.iid_field, self.head_entity_field)
        )
        first = set(self.entity2item.values())
        linked = np.fromiter((token in first for token in items.tolist()), bool, len(items))
        order = np.argsort(linked, kind="stable")
        item_map = np.empty_like(order)
        item_map[order] = np.arange(len(items))
        self._give_ids(self.alias["item_id"], item_map, items[order])
        item_id = self.field2token_id[self.iid_field]
        # A table of the few linked entities, in which the many others are not found.
        at = np.flatnonzero(pd.Index(entities).isin([*self.entity2item]))
        old_id = dict(zip(entities[at], at, strict=True))
        new_id = {entity: item_id[item] for entity, item in self.entity2item.items()}
        old = np.array([old_id[entity] for entity in new_id], np.int64)
        new = np.array([*new_id.values()], np.int64)
        others = np.ones(len(entities), bool)
        others[0] = others[old] = False
        entity_map = np.zeros(len(entities), np.int64)
        entity_map[old] = new
        entity_map[others] = np.arange(len(items), len(items) + np.count_nonzero(others))
        tokens = np.concatenate([items[order], entities[others]])
        tokens[new] = entities[old]
        self._give_ids(self.alias["entity_id"], entity_map, tokens)
        self.field2id_token[self.entity_field] = tokens
        self.item_entities = np.arange(len(items))
        for item, entity in self.item2entity.items():
            self.item_entities[item_id[item]] = new_id[entity]

    def _give_ids(self, fields: Iterable[str], id_map: np.ndarray, tokens: np.ndarray) -> None:
        """Other ids for the tokens of some fields."""
        for field in fields:
            if self.field2type[field] != FeatureType.TOKEN:
                self._reset_ent_remapID(field, id_map, tokens, {})  # which TokenIds makes
                continue
            self.field2id_token[field] = tokens
            for feat in self.field2feats(field):
                feat[field] = _column(id_map[feat[field].to_numpy()], feat)


def _column(numbers: np.ndarray, feat: pd.DataFrame) -> pd.Series:
    """Numbers as a column of a frame, which would copy an array."""
    return pd.Series(numbers, index=feat.index, copy=False)
