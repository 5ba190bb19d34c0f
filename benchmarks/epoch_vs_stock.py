"""Seconds of a training epoch: RecBole's stock KSR and ours, one after the other.

    python benchmarks/epoch_vs_stock.py [--dataset=ml-100k] [--data_path=FOLDER] [--epochs=3]

Both train on the same atomic files with the same sizes (items 256, GRU 256, KB 50), softmax
loss (``CE``) and the same pretrained KB vectors; stock KSR reads prefixes of at most 50 items,
as RecBole cuts them, ours reads whole sequences.  Run nothing else on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ksr_recbole.compat import check_versions, silence_upstream_warnings

check_versions()
silence_upstream_warnings()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from recbole.config import Config as RecBoleConfig  # noqa: E402
from recbole.data import create_dataset  # noqa: E402
from recbole.data import data_preparation as recbole_data_preparation  # noqa: E402
from recbole.model.sequential_recommender.ksr import KSR as StockKSR  # noqa: E402
from recbole.trainer import Trainer  # noqa: E402
from recbole.utils import init_seed  # noqa: E402

from ksr_recbole.config import Config  # noqa: E402
from ksr_recbole.dataset.dataloader import data_preparation  # noqa: E402
from ksr_recbole.dataset.kg_sequence_dataset import KGSequenceDataset  # noqa: E402
from ksr_recbole.quick_start.data import prepare_atomic_files  # noqa: E402
from ksr_recbole.quick_start.run import make_trainer  # noqa: E402
from ksr_recbole.quick_start.stages import peak_memory_mib  # noqa: E402

SIZES = {"embedding_size": 256, "hidden_size": 256, "kg_embedding_size": 50, "loss_type": "CE"}
COMMON = {**SIZES, "train_neg_sample_args": None, "show_progress": False, "gpu_id": ""}


def ours(options: argparse.Namespace, export: Path) -> list[float]:
    """Seconds of each of our epochs; writes the KB vectors for stock KSR into ``export``."""
    values = {**COMMON, "pretrain_export_path": str(export), "checkpoint_dir": str(export)}
    if options.data_path:
        values["data_path"] = options.data_path
    config = Config("KSR", options.dataset, None, values)
    print(prepare_atomic_files(config))
    dataset = KGSequenceDataset(config)
    train_data, *_ = data_preparation(config, dataset)
    trainer = make_trainer(config, dataset)
    for suffix in ("inter", "kg", "link"):
        shutil.copy(Path(config["data_path"]) / f"{options.dataset}.{suffix}", export)
    seconds = []
    for epoch in range(options.epochs + 1):
        start = perf_counter()
        trainer._train_epoch(train_data, epoch)
        seconds.append(perf_counter() - start)
    return seconds[1:]  # the first one compiles the kernels


def stock(options: argparse.Namespace, folder: Path) -> float:
    """Seconds of one epoch of RecBole's KSR on the files in ``folder``."""
    # RecBole sends the name ml-100k to its own files, whose link is wrong.
    name = f"{options.dataset}-linked"
    target = folder / name
    target.mkdir()
    for file in folder.glob(f"{options.dataset}.*"):
        shutil.copy(file, target / f"{name}{file.suffix}")
    link = target / f"{name}.link"
    header, *links = link.read_text(encoding="utf-8").splitlines()
    one_each = {line.split("\t")[1]: line for line in reversed(links)}
    # It crashes on two items of one entity, so it does without the second of each pair.
    link.write_text("\n".join([header, *one_each.values()]) + "\n", encoding="utf-8")
    columns = {
        "inter": ["user_id", "item_id", "timestamp"],
        "kg": ["head_id", "relation_id", "tail_id"],
        "link": ["item_id", "entity_id"],
        "ent": ["ent_id", "ent_emb"],
        "rel": ["rel_id", "rel_emb"],
    }
    values = {
        **COMMON,
        "data_path": str(folder),
        "checkpoint_dir": str(folder),
        "load_col": columns,
        "additional_feat_suffix": ["ent", "rel"],
        "alias_of_item_id": ["ent_id"],
        "alias_of_relation_id": ["rel_id"],
        "preload_weight": {"ent_id": "ent_emb", "rel_id": "rel_emb"},
        "freeze_kg": True,
        "MAX_ITEM_LIST_LENGTH": 50,
        "eval_args": {
            "split": {"LS": "valid_and_test"},
            "order": "TO",
            "group_by": "user",
            "mode": "full",
        },
    }
    sys.argv = sys.argv[:1]  # RecBole reads it
    config = RecBoleConfig(StockKSR, name, None, values)
    init_seed(config["seed"], True)
    dataset = create_dataset(config)
    for field, matrix in dataset._preloaded_weight.items():
        dataset._preloaded_weight[field] = matrix.astype(np.float32)  # it crashes on float64
    train_data, *_ = recbole_data_preparation(config, dataset)
    trainer = Trainer(config, StockKSR(config, train_data.dataset))
    print(f"stock KSR: {len(train_data.dataset):,} prefixes in {len(train_data)} batches")
    start = perf_counter()
    trainer._train_epoch(train_data, 0)
    return perf_counter() - start


def main() -> None:
    """Print both figures and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--data_path")
    parser.add_argument("--epochs", type=int, default=3, help="our epochs, of which the median")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        mine = ours(options, Path(folder))
        print(f"ours: {', '.join(f'{s:.2f}' for s in mine)} s; peak {peak_memory_mib():.0f} MiB")
        theirs = stock(options, Path(folder))
    print(f"threads: {torch.get_num_threads()}")
    print(f"RecBole's stock KSR: {theirs:.1f} s an epoch; peak {peak_memory_mib():.0f} MiB")
    print(f"ours:                {median(mine):.2f} s an epoch (median of {len(mine)})")
    print(f"ratio:               {theirs / median(mine):.1f}")


if __name__ == "__main__":
    main()
