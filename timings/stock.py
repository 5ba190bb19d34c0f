"""RecBole's own KSR, trained on the same files with the same KB vectors."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from recbole.data import create_dataset
from recbole.data import data_preparation as recbole_data_preparation
from recbole.data.interaction import Interaction
from recbole.trainer import Trainer
from recbole_sequential import RecBoleScorer

from ksr_recbole.compat import keeping_anomaly_mode

with keeping_anomaly_mode():
    from recbole.model.sequential_recommender.ksr import KSR as StockKSR

NEGATIVES = {
    "distribution": "uniform",
    "sample_num": 1,
    "alpha": 1.0,
    "dynamic": False,
    "candidate_num": 0,
}
"""One negative a target, as in our default."""

_COLUMNS = {
    "inter": ["user_id", "item_id", "timestamp"],
    "kg": ["head_id", "relation_id", "tail_id"],
    "link": ["item_id", "entity_id"],
    "ent": ["ent_id", "ent_emb"],
    "rel": ["rel_id", "rel_emb"],
}


def copy_files(bench: common.Bench, export: Path) -> str:
    """Put the files that stock KSR reads into ``export`` and return its dataset's name.

    ``export`` already has the KB vectors, which ``pretrain_export_path`` wrote there.
    """
    name = bench.config["dataset"]
    # RecBole sends the name ml-100k to its own files, whose link is wrong.
    copy = f"{name}-linked"
    target = export / copy
    target.mkdir(exist_ok=True)
    for suffix in ("inter", "kg", "link"):
        shutil.copy(Path(bench.config["data_path"]) / f"{name}.{suffix}", export)
    for file in export.glob(f"{name}.*"):
        shutil.copy(file, target / f"{copy}{file.suffix}")
    link = target / f"{copy}.link"
    header, *links = link.read_text(encoding="utf-8").splitlines()
    one_each = {line.split("\t")[1]: line for line in reversed(links)}
    # It crashes on two items of one entity, so it does without the second of each pair.
    link.write_text("\n".join([header, *one_each.values()]) + "\n", encoding="utf-8")
    return copy


class RememberingKSR(StockKSR):
    """Stock KSR that computes the memory of each training row once.

    Its memory holds sums of fixed vectors (``freeze_kg``), so that it is the same in every epoch;
    this one writes the same numbers to one large matrix, :meth:`remember`, before the first.
    """

    _rows: torch.Tensor | None = None

    @torch.no_grad()
    def remember(self, rows: Any) -> None:
        """Compute the memory of all training rows and number them.

        Args:
            rows: the interactions that are trained on; they get a column ``row``.
        """
        items, lengths = rows[self.ITEM_SEQ], rows[self.ITEM_SEQ_LEN]
        rows.update(Interaction({"row": torch.arange(len(items))}))
        size = (len(items), self.n_relations, self.kg_embedding_size)
        self._memories = torch.empty(size)
        for start in range(0, len(items), 64):  # small enough for the processor's cache
            chunk = slice(start, start + 64)
            self._memories[chunk] = self.memory_update(items[chunk], lengths[chunk])

    def calculate_loss(self, interaction: Any) -> torch.Tensor:
        self._rows = interaction["row"]
        loss: torch.Tensor = super().calculate_loss(interaction)
        self._rows = None
        return loss

    def memory_update(self, item_seq: torch.Tensor, item_seq_len: torch.Tensor) -> Any:
        if self._rows is not None:
            return self._memories[self._rows]
        return super().memory_update(item_seq, item_seq_len)


class Stock:
    """Stock KSR ready to train.

    Args:
        bench: our run, whose files and vectors it gets.
        export: folder with the exported vectors.
        sizes: the config values both sides share.
        remember: make it a :class:`RememberingKSR`.
    """

    def __init__(
        self, bench: common.Bench, export: Path, sizes: dict[str, Any], remember: bool = False
    ) -> None:
        name = copy_files(bench, export)
        values = {
            **sizes,
            "train_neg_sample_args": NEGATIVES if sizes["loss_type"] == "BPR" else None,
            "load_col": _COLUMNS,
            "additional_feat_suffix": ["ent", "rel"],
            "alias_of_item_id": ["ent_id"],
            "alias_of_relation_id": ["rel_id"],
            "preload_weight": {"ent_id": "ent_emb", "rel_id": "rel_emb"},
            "freeze_kg": True,
        }
        self.config = common.recbole_config(StockKSR, name, export, values)
        dataset = create_dataset(self.config)
        for field, matrix in dataset._preloaded_weight.items():
            dataset._preloaded_weight[field] = matrix.astype(np.float32)  # it crashes on float64
        self.train, self.valid, self.test = recbole_data_preparation(self.config, dataset)
        self.model = (RememberingKSR if remember else StockKSR)(self.config, self.train.dataset)
        self.trainer = Trainer(self.config, self.model)
        self.score_all = RecBoleScorer(self.model, self.train.dataset, bench).score_all
