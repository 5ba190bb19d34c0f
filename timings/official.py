"""The authors' own GRU4Rec and gSASRec, run on our split and ranked by our evaluation.

Both are read from a clone, as they are: github.com/hidasib/GRU4Rec_PyTorch_Official and
github.com/asash/gSASRec-pytorch (which needs ``pip install ir-measures torchinfo``).
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from shutil import copy
from time import perf_counter
from typing import Any

import common
import numpy as np
import pandas as pd
import torch
from time_to_quality import ndcg, told

Report = Callable[[Any], bool]
"""Takes a scorer after each epoch; whether training may end."""


class Stop(Exception):
    """Raised inside of the authors' training where it has trained long enough."""


@contextmanager
def imported_from(folder: Path) -> Iterator[None]:
    """Modules of a folder can be imported, and it is the working folder."""
    before = os.getcwd()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        sys.path.remove(str(folder))
        os.chdir(before)


class States:
    """Scores of all items from a GRU4Rec, fed with histories event by event."""

    def __init__(self, gru: Any, bench: common.Bench) -> None:
        self.gru, self.sequences = gru, bench.dataset.sequences
        self.known = torch.zeros(self.sequences.n_items, dtype=torch.int64)
        known = gru.data_iterator.itemidmap
        self.known[torch.from_numpy(known.index.to_numpy())] = torch.from_numpy(
            known.to_numpy().astype(np.int64)
        )
        self.items = torch.from_numpy(known.index.to_numpy())

    def score_all(self, users: np.ndarray, history_end: np.ndarray) -> torch.Tensor:
        """Scores of all our items, ``[B, n_items]``; those it was not trained on come last."""
        model = self.gru.model
        model.eval()
        items, lengths = self.sequences.padded(users, np.zeros_like(history_end), history_end)
        lengths, columns = torch.from_numpy(lengths), self.known[torch.from_numpy(items)].T
        states = [torch.zeros(len(users), size) for size in self.gru.layers]
        for step, column in enumerate(columns):
            before = [state.clone() for state in states]
            model.hidden_step(model.embed(column, states)[0], states)
            on = (step < lengths)[:, None]
            states = [torch.where(on, new, old) for new, old in zip(states, before, strict=True)]
        scores = torch.full((len(users), self.sequences.n_items), float("-inf"))
        scores[:, self.items] = model.score_items(states[-1], model.Wy.weight, model.By.weight)
        model.train()
        return scores


def gru4rec(folder: Path, bench: common.Bench, report: Report, size: int = 256) -> None:
    """Train the authors' GRU4Rec; its loss is a softmax over a sample of 2,048 items."""
    sequences, split = bench.dataset.sequences, bench.dataset.split
    rows, users = split.training_interactions(sequences)
    columns = {"SessionId": users, "ItemId": sequences.items[rows], "Time": rows}
    with imported_from(folder):
        import gru4rec_pytorch as module

        model = module.GRU4Rec(
            layers=[size], batch_size=64, learning_rate=0.05, dropout_p_hidden=0.3,
            n_epochs=10**6, device=torch.device("cpu"),
        )  # fmt: skip

        def said(text: str, *_: Any) -> None:
            if text.startswith("Epoch") and report(States(model, bench)):
                raise Stop

        module.print = said  # it prints a line after each epoch
        try:
            # Its other mode, which draws the first weights with NumPy, fails on today's PyTorch.
            model.fit(pd.DataFrame(columns), compatibility_mode=False)
        except Stop:
            return


class Windows:
    """Scores of all items from a gSASRec, which reads the last items of a history."""

    def __init__(self, model: Any, bench: common.Bench) -> None:
        self.model, self.sequences = model, bench.dataset.sequences

    def score_all(self, users: np.ndarray, history_end: np.ndarray) -> torch.Tensor:
        """Scores of all our items, ``[B, n_items]``."""
        longest = self.model.sequence_length
        start = np.maximum(history_end - longest, 0)
        items, lengths = self.sequences.padded(users, start, history_end)
        rows = np.full((len(users), longest), self.model.num_items + 1)  # padded in front
        for row, some, length in zip(rows, items, lengths, strict=True):
            row[longest - length :] = some[:length]
        states, _ = self.model(torch.from_numpy(rows))
        return states[:, -1] @ self.model.get_output_embeddings().weight[: self.sequences.n_items].T


def gsasrec(folder: Path, bench: common.Bench, report: Report) -> None:
    """Train the authors' gSASRec with their settings of ml-1m: 128 columns, two blocks."""
    sequences, split = bench.dataset.sequences, bench.dataset.split
    with tempfile.TemporaryDirectory() as scratch:
        for file in folder.glob("*.py"):
            copy(file, scratch)
        data = Path(scratch, "datasets", "ours")
        for part in ("train", "val"):
            (data / part).mkdir(parents=True)
        lines = [
            " ".join(map(str, sequences.items[start : start + length]))
            for start, length in zip(sequences.offsets, split.train_end, strict=False)
            if length > 1
        ]
        (data / "train" / "input.txt").write_text("\n".join(lines) + "\n")
        for name in ("input", "output"):  # not read: the ranking is ours
            (data / "val" / f"{name}.txt").write_text("1\n")
        (data / "dataset_stats.json").write_text(json.dumps({"num_items": sequences.n_items - 1}))
        settings = Path(scratch, "config_ml1m.py").read_text().replace("'ml1m'", "'ours'")
        Path(scratch, "config_ours.py").write_text(settings)
        with imported_from(Path(scratch)):
            import eval_utils

            def evaluate(model: Any, _: Any, metrics: Any, *__: Any, **___: Any) -> Any:
                model.eval()
                if report(Windows(model, bench)):
                    raise Stop
                return dict.fromkeys(metrics, 0.0)  # theirs only choose what is saved

            eval_utils.evaluate = evaluate
            arguments, sys.argv = sys.argv, ["train_gsasrec.py", "--config=config_ours.py"]
            try:
                runpy.run_path("train_gsasrec.py", run_name="__main__")
            except Stop:
                return
            finally:
                sys.argv = arguments


def course(
    train: Callable[[Report], None], bench: common.Bench, name: str, minutes: float
) -> list[tuple[float, float]]:
    """NDCG@10 on validation and training seconds so far after each epoch."""
    found: list[tuple[float, float]] = []
    clock = {"since": perf_counter(), "seconds": 0.0}

    def report(scorer: Any) -> bool:
        clock["seconds"] += perf_counter() - clock["since"]
        found.append((ndcg(bench, scorer), clock["seconds"]))
        line = told(name, len(found) - 1, *found[-1])
        print(line, file=sys.__stdout__, flush=True)  # theirs print too
        clock["since"] = perf_counter()
        return clock["seconds"] > 60 * minutes

    train(report)
    return found
