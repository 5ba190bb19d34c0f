"""RecBole datasets with users' whole sequences: with a knowledge graph, or without one."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from logging import getLogger
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction

from dataset_atomic.atomic_files import columns_of, steady_dataset
from dataset_atomic.attributes import attribute_relations, repeated_relations
from dataset_atomic.layout import Layout
from dataset_atomic.raw.interactions import DAY
from dataset_atomic.raw.timestamps import UNITS, unit_of
from dataset_atomic.table1 import Table1, has_graph
from ksr_recbole import digests
from ksr_recbole.choices import nearest
from ksr_recbole.compat import recbole_stops
from ksr_recbole.config.options import refused
from ksr_recbole.config.shared import DataOptions
from ksr_recbole.config_types import Configuration
from ksr_recbole.dataset.funnel import DataFunnel, WithFunnel
from ksr_recbole.dataset.item_values import ItemValues
from ksr_recbole.dataset.linked_dataset import LinkedDataset
from ksr_recbole.dataset.loading import SETTINGS, AtomicReading
from ksr_recbole.dataset.mixin import DatasetMixin
from ksr_recbole.dataset.pretrained import PretrainedVectors
from ksr_recbole.dataset.repaired_loading import RepairedLoading
from ksr_recbole.dataset.sequences import (
    EvalPhase,
    Phase,
    Split,
    UserSequences,
    leave_one_out,
    leave_one_session_out,
    split_of_parts,
)
from ksr_recbole.distributed.sharding import rows_of
from ksr_recbole.errors import UserError, shown
from ksr_recbole.registry import needs_kg
from ksr_recbole.text import counted


class WithSequences(DatasetMixin):
    """Mixin over a RecBole dataset: sequences instead of prefixes.

    RecBole loads, filters and maps ids.  This class adds, once built,

    - users' whole sequences in time order, kept once as flat arrays (:attr:`sequences`);
    - the split of each sequence into training, validation and test (:attr:`split`).

    Attributes:
        sequences: every user's whole sequence.
        split: how far a sequence belongs to training and to validation.
        funnel: how many rows of the files are used, and why the others are not.
        pretrained: the vectors that models of this dataset start from, once there are any.
        phase: what a view is for, ``"train"``, ``"valid"`` or ``"test"``.
    """

    phase: Phase = "train"
    of_sequences = True
    sequences: UserSequences
    split: Split
    funnel: DataFunnel
    pretrained: PretrainedVectors | None = None

    def _load_inter_feat(self, token: str, dataset_path: str) -> None:
        if self.benchmark_filename_list is not None:
            check_single_interactions(self.config, Path(dataset_path), token)
        super()._load_inter_feat(token, dataset_path)

    def _load_additional_feat(self, token: str, dataset_path: str) -> None:
        """Nothing: vectors are read when they are wanted, and decide no ids."""

    def _set_alias(self, alias_name: str, default_value: list[str]) -> None:
        """The id's own columns; others would give ids to what has no interaction."""
        self.alias[alias_name] = np.array(default_value)

    def _preload_weight_matrix(self) -> None:
        """Nothing; see :meth:`_load_additional_feat`."""

    def _set_label_by_threshold(self) -> None:
        """Nothing: every interaction is a positive one."""

    def _normalize(self) -> None:
        """Nothing: times keep their unit, and nothing else is read."""

    def _discretization(self) -> None:
        """Nothing, as in :meth:`_normalize`."""

    def _data_filtering(self) -> None:
        self._count_unused_items()
        super()._data_filtering()
        self._keep_used_sides()

    def _filter_given_files(self) -> None:
        self._count_unused_items()
        super()._filter_given_files()
        self._keep_used_sides()

    def _count_unused_items(self) -> None:
        if self.item_feat is not None:
            items = self.item_feat[self.iid_field].dropna()
            unused = items[~items.isin(self.inter_feat[self.iid_field])]
            self.funnel.unused_items = unused.nunique()

    def _keep_used_sides(self) -> None:
        for side, column in self._sides():  # only what has an interaction gets an id
            feat = getattr(self, side)
            used = feat[feat[column].isin(self.inter_feat[column])]
            setattr(self, side, used.reset_index(drop=True))

    def build(self) -> list[WithSequences]:
        """Order and split the sequences.

        Returns:
            Three views, training, validation and test; each has the interactions of its phase
            in ``inter_feat`` and shares :attr:`sequences` and :attr:`split`.
        """
        parts = self._given_parts()
        self.sequences = UserSequences.from_interactions(
            users=self.inter_feat[self.uid_field].to_numpy(),
            items=self.inter_feat[self.iid_field].to_numpy(),
            timestamps=self.inter_feat[self.time_field].to_numpy(),
            n_users=self.user_num,
            n_items=self.item_num,
            parts=parts,
        )
        self.split = self._make_split(parts)
        self._log_what_is_used()
        split, lengths = self.split, self.sequences.lengths
        # RecBole turns timestamps into float32, which cannot tell seconds apart, so the order
        # is taken from the frame above and only then is the frame given up.
        self.inter_feat = self.inter_feat.iloc[self.sequences.order]
        self._change_feat_format()
        users = np.arange(self.sequences.n_users)
        bounds = (split.train_start, split.train_end, split.valid_end, lengths)
        views = [
            self.copy(rows_of(self.inter_feat, self.sequences.spans(users, start, end)))
            for start, end in pairwise(bounds)
        ]
        for view, phase in zip(views, get_args(Phase), strict=True):
            view.phase = phase
        return views

    @property
    def avg_actions_of_users(self) -> float:
        """Interactions of a user, on average; RecBole counts in a loop over all of them."""
        return _mean_count(self.inter_feat[self.uid_field])

    @property
    def avg_actions_of_items(self) -> float:
        """Interactions of an item, on average."""
        return _mean_count(self.inter_feat[self.iid_field])

    def table1(self) -> Table1:
        """The row of Table 1 of the data used: what filters left out does not count."""
        used = self.sequences
        return Table1(
            self.dataset_name,
            interactions=len(used.items),
            items=_n_distinct(used.items),
            users=int((used.lengths > 0).sum()),
        )

    def training_items(self) -> np.ndarray:
        """Item ids of all users' training interactions by time, ``int64 [n_interactions]``."""
        indices, _ = self.split.training_interactions(self.sequences)
        indices = indices[np.argsort(self.sequences.timestamps[indices], kind="stable")]
        return self.sequences.items[indices]

    def _log_what_is_used(self) -> None:
        logger = getLogger()
        told = logger.info if self.funnel.complete else logger.warning
        told(self.funnel.line())
        logger.info(self.split.line(self.sequences))

    def join(self, df: Interaction) -> Interaction:
        """As RecBole's; once built, with the items that a model reads in this view's phase.

        This is how RecBole's own functions (``full_sort_scores``, ``get_flops``) get
        histories: from a view's rows, or from user ids alone.

        Raises:
            UserError: a user without a history, such as the padding user.
        """
        joined = super().join(df)
        if not hasattr(self, "sequences") or self.uid_field not in joined:
            return joined
        users = joined[self.uid_field].cpu().numpy()
        items, lengths = self.sequences.padded(
            users, self.split.train_start[users], self.split.history_end(self.phase)[users]
        )
        if not lengths.all():
            user = users[lengths == 0][0]
            raise UserError(f"User id {user} of {self.dataset_name} has no history to read.")
        history = {
            self.iid_field + self.config["LIST_SUFFIX"]: torch.from_numpy(items),
            self.config["ITEM_LIST_LENGTH_FIELD"]: torch.from_numpy(lengths),
        }
        joined.update(Interaction(history))
        return joined

    def _given_parts(self) -> np.ndarray | None:
        """Of each interaction the file of ``benchmark_filename`` it stands in, ``int64 [n]``."""
        names = self.benchmark_filename_list
        if names is None:
            return None
        if len(names) != len(get_args(Phase)):
            raise UserError(
                f"Config key benchmark_filename is {shown(names)}; it must name three files: those "
                "of training, validation and test, in this order."
            )
        if len(set(names)) < len(names):
            raise UserError(
                f"Config key benchmark_filename is {shown(names)}; it must name three different "
                "files, since test data must not be used in training or validation."
            )
        return np.repeat(np.arange(len(names)), self.file_size_list)

    def _make_split(self, parts: np.ndarray | None) -> Split:
        split = self._split_by_task() if parts is None else self._given_split(parts)
        ratio = DataOptions.of(self.config).train_ratio
        return split if ratio == 1 else split.keep_latest(ratio)

    def _given_split(self, parts: np.ndarray) -> Split:
        """The split of the user's own files.

        Raises:
            UserError: a user to be validated or tested has nothing before that.
        """
        users = self.inter_feat[self.uid_field].to_numpy()
        split = split_of_parts(users, parts, self.user_num)
        names = self.benchmark_filename_list or []
        phases: tuple[tuple[EvalPhase, np.ndarray, str], ...] = (
            ("valid", split.train_end, names[1]),
            ("test", split.valid_end, names[2]),
        )
        for phase, before, file in phases:
            start, end = split.target_range(phase, self.sequences)
            lost = np.flatnonzero((end > start) & (before == 0))
            if len(lost):
                user = self.field2id_token[self.uid_field][lost[0]]
                after = "".join(
                    f" once {counted(counts.interactions, 'interaction')} are left out ({why})"
                    for why, counts in self.funnel.dropped.items()
                )
                raise UserError(
                    f"{self.dataset_name}.{file}.inter has {counted(len(lost), 'user')} without "
                    f"any interaction in the files before it{after} (benchmark_filename: "
                    f"{', '.join(names)}), such as {shown(str(user))}; the models need a history, "
                    "so add some or remove these users."
                )
        return split

    def _split_by_task(self) -> Split:
        given = self.config["eval_args"]
        if given["split"] != {"LS": "valid_and_test"} or given["order"] != "TO":
            raise UserError(
                f"Config key eval_args has split {given['split']} and order {given['order']}; "
                f"under the paper's protocol, in which {self.config['model']} runs here, they are "
                "{'LS': 'valid_and_test'} and 'TO', so leave them out (for another split use "
                "benchmark_filename)."
            )
        if self.config["task"] != "next-session":
            return leave_one_out(self.sequences)
        length = DataOptions.of(self.config).session_length
        if length is None:
            raise refused("session_length", None, "above 0 for the task next-session")
        self._check_times(length)
        return leave_one_session_out(self.sequences, length)

    def _check_times(self, length: float) -> None:
        """Refuse times that sessions of this length cannot be made of.

        Raises:
            UserError: naming what the times seem to be.
        """
        for key in ("normalize_all", "normalize_field"):
            given = self.config[key]
            if given is True or (isinstance(given, list) and self.time_field in given):
                raise UserError(
                    f"Config key {key} is {shown(given)}, which makes numbers from 0 to 1 of the "
                    "times. Sessions need the original times. Leave the key out, or use "
                    "--task=next-item."
                )
        times = self.sequences.timestamps
        first, last = float(times.min()), float(times.max())
        where = f"The times of {self.dataset_name} ({self.time_field}, {first:.10g} to {last:.10g})"
        unit = unit_of(times)
        if unit != "seconds" and length == DAY:
            raise UserError(
                f"{where} cannot be seconds since 1970. They look like {unit}: give "
                f"--session_length={DAY * UNITS[unit]} for days, or convert the times."
            )
        if last - first < length:
            raise UserError(
                f"{where} are all within one session of session_length {length:g}; a session is "
                "counted in the unit of the times, so give a shorter one or times in seconds."
            )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of ids, sequences and split (and graph): equal only for equal data."""
        parts = (np.ascontiguousarray(part).reshape(-1) for part in self._content())
        return digests.of_bytes(*(part.view(np.uint8).data for part in parts))

    def _content(self) -> Iterator[np.ndarray]:
        for field in (self.uid_field, self.iid_field):
            yield self._tokens(field)
        yield from (self.sequences.items, self.sequences.timestamps, self.sequences.offsets)
        yield from (self.split.train_start, self.split.train_end, self.split.valid_end)

    def _tokens(self, field: str) -> np.ndarray:
        text = "\n".join(np.asarray(self.field2id_token[field]).tolist())
        return np.frombuffer(text.encode(), dtype=np.uint8)


def _mean_count(ids: Any) -> float:
    """How often an id occurs, on average over those that do."""
    counts = np.bincount(np.asarray(ids))
    return float(np.mean(counts[counts > 0]))


def check_single_interactions(config: Configuration, folder: Path, name: str) -> None:
    """Refuse given files with a history in every row, as RecBole's sequential models read.

    Raises:
        UserError: naming the first of them.
    """
    layout = Layout.of(config)
    histories = layout.item + config["LIST_SUFFIX"]
    for path in layout.inter_paths(folder, name):
        if histories in columns_of(path, layout):
            otherwise = "run a model of RecBole that reads it, such as --model=GRU4Rec"
            if config["protocol"] == "paper":
                otherwise = "leave out --protocol=paper"
            raise UserError(
                f"{path} has the column {shown(histories)}, a history in every row; give every "
                f"interaction a row of its own, or {otherwise}."
            )


def _n_distinct(*columns: np.ndarray) -> int:
    """How many different ids some columns have together."""
    there = np.zeros(1 + max(int(column.max(initial=-1)) for column in columns), dtype=bool)
    for column in columns:
        there[column] = True
    return int(np.count_nonzero(there))


class SequenceDataset(WithSequences, RepairedLoading, WithFunnel, AtomicReading, Dataset):
    """Interactions alone, for models that read no knowledge graph where there is none.

    Raises:
        UserError: a missing, empty or malformed ``.inter`` file.
    """

    def _from_scratch(self) -> None:
        parts = self.config["benchmark_filename"] or ()
        with steady_dataset(self.config["data_path"], self.dataset_name, parts):
            super()._from_scratch()


class KGSequenceDataset(WithSequences, LinkedDataset):
    """Interactions, knowledge graph and item-entity link, with sequences instead of prefixes.

    To :class:`WithSequences` it adds the relations that are attributes of items
    (:attr:`attributes`, Sec. 4.2.1).
    """

    @cached_property
    def triples(self) -> np.ndarray:
        """Head, relation and tail ids, ``int64 [n_triples, 3]``."""
        fields = (self.head_entity_field, self.relation_field, self.tail_entity_field)
        return np.stack([np.asarray(self.kg_feat[f], dtype=np.int64) for f in fields], axis=1)

    def table1(self) -> Table1:
        """As without a knowledge graph, and what there is of the graph."""
        row = super().table1()
        return replace(
            row,
            linked_items=row.items,
            entities=_n_distinct(self.triples[:, 0], self.triples[:, 2]),
            relations=_n_distinct(self.triples[:, 1]),
            triples=len(self.triples),
        )

    @cached_property
    def attributes(self) -> np.ndarray:
        """Relation ids of the attributes A (Sec. 4.2.1), ``int64 [A]``.

        They are the relations in which items are heads, or those that ``attributes`` names.

        Raises:
            UserError: ``attributes`` names a relation that is not there, or no relation is left.
        """
        tokens = self.field2token_id[self.relation_field]
        named = DataOptions.of(self.config).attributes
        if named is None:
            heads, relations, tails = self.triples.T
            found = attribute_relations(
                heads, relations, tails, self.relation_num, np.unique(self.item_entities[1:])
            )
            if self.config["kg_reverse_r"]:
                names = self.field2id_token[self.relation_field].tolist()
                found = np.setdiff1d(found, repeated_relations(heads, relations, tails, names))
        else:
            if twice := [name for name in named if list(named).count(name) > 1]:
                raise UserError(f"Config key attributes names '{twice[0]}' twice; name it once.")
            stated = set(np.unique(self.triples[:, 1]).tolist())  # not RecBole's own tokens
            for name in named:
                if tokens.get(name) not in stated:
                    raise UserError(
                        f"Config key attributes names the relation '{name}', which "
                        f"{self.dataset_name}.kg does not have{nearest(str(name), tokens)}"
                    )
            found = np.array([tokens[name] for name in named], dtype=np.int64)
        if len(found) == 0:
            raise UserError(
                f"{self._why_no_attribute(named)}, so the memory would have no attribute; name "
                "relations with the config key attributes."
            )
        return found

    def _why_no_attribute(self, named: Collection[str] | None) -> str:
        if named is not None:
            return "Config key attributes is an empty list"
        items = np.unique(self.item_entities[1:])
        if not np.isin(self.triples[:, 0], items).any():
            return f"{self.dataset_name}.kg has no relation with items as heads"
        return (
            f"In {self.dataset_name}.kg items are heads of less than a tenth of each relation's "
            "triples, or of reverse sides of relations"
        )

    @cached_property
    def item_values(self) -> ItemValues:
        """The values of every item under :attr:`attributes`."""
        return ItemValues.of(self.triples, self.attributes, self.item_entities)

    def _content(self) -> Iterator[np.ndarray]:
        yield from super()._content()
        for field in (self.entity_field, self.relation_field):
            yield self._tokens(field)
        yield from (self.item_entities, self.triples)


def load_dataset(config: Configuration) -> SequenceDataset | KGSequenceDataset:
    """The dataset of a configuration, not built yet.

    Every model reads the same one, so that all are compared on the same interactions: with the
    knowledge graph (and so with linked items only) where its files are there.

    Raises:
        UserError: the model needs a knowledge graph and there is none, or files are malformed.
    """
    name, folder = config["dataset"], Path(config["data_path"])
    if has_graph(folder, name):
        with data_keys_named(config):
            return KGSequenceDataset(config)
    if needs_kg(config["model"]):
        raise no_graph(config)
    with data_keys_named(config):
        return SequenceDataset(config)


def no_graph(config: Configuration) -> UserError:
    """The sentence for a model that needs a knowledge graph where there is none."""
    name = config["dataset"]
    return UserError(
        f"The model {config['model']} needs a knowledge graph, but {config['data_path']} has "
        f"neither {name}.kg nor {name}.link. Make them from a table of your items with `python -m "
        "dataset_atomic convert csv --items=items.csv ...`, or use a model without a graph, for "
        "example --model=GRU."
    )


def data_keys_named(config: Configuration) -> AbstractContextManager[None]:
    """Where RecBole stops on the data, say why, and which keys of the data were given.

    Raises:
        UserError: inside, in place of RecBole's error.
    """
    on_data = {*SETTINGS, "eval_args", "train_neg_sample_args"}
    return recbole_stops(
        (ValueError, TypeError, LookupError, AttributeError, NotImplementedError),
        lambda: sorted(set(config.external_config_dict) & on_data),
        f"RecBole cannot use the dataset {config['dataset']} for {config['model']} "
        "({error}); correct its files, or choose another model.",
        f"The dataset {config['dataset']} cannot be loaded with the values of "
        "{keys} ({error}); correct or leave out what does not fit its files.",
    )
