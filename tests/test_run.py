"""Whole runs: what they return and leave, resuming, determinism, and every bad input."""

from __future__ import annotations

import errno
import json
import logging
import os
import pickle
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from datetime import datetime
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from recbole.trainer import KGTrainer, Trainer
from safetensors import safe_open
from tensorboard.summary.writer.record_writer import RecordWriter

from ksr_recbole import cli
from ksr_recbole.config import Config
from ksr_recbole.errors import UserError, cannot_write
from ksr_recbole.paths import name_of_new
from ksr_recbole.quick_start import run
from ksr_recbole.quick_start.logs import logging_of
from ksr_recbole.quick_start.prepare import find_vectors, load_data, make_trainer
from ksr_recbole.quick_start.result import environment
from ksr_recbole.trainer import checkpoint
from ksr_recbole.trainer.recbole_trainer import RecBoleTrainer
from ksr_recbole.trainer.sequence_trainer import SequenceTrainer
from ksr_recbole.versions import INSTALL_RECBOLE, RECBOLE_NEEDS, WANTED, check_versions
from tests import forked
from tests.toy import toy_run, toy_values, write_toy

ROOT = Path(__file__).resolve().parents[1]


def toy_command(folder: Path, *extra: str) -> list[str]:
    values = toy_values(folder)
    values["eval_args.mode"] = values.pop("eval_args")["mode"]
    return ["--dataset=toy", *(f"--{key}={value}" for key, value in values.items()), *extra]


def failure(capsys, arguments: list[str]) -> str:
    """Run the command line, expect one sentence on stderr and a non-zero status; return it."""
    status = cli.main(arguments)
    error = capsys.readouterr().err.strip().splitlines()
    assert status != 0
    errors = [line for line in error if line.startswith("error: ")]
    assert len(errors) == 1, error
    assert not any("Traceback" in line for line in error)
    return errors[0]


# What a run leaves --------------------------------------------------------------------------


def test_a_run_leaves_a_result_that_can_be_reproduced(toy_folder, capsys):
    result = toy_run(toy_folder)
    stored = json.loads(Path(result["result_file"]).read_text())
    assert stored["metrics"] == result["metrics"]
    assert set(stored["metrics"]) == {"uni5pop5", "full"}
    for phases in stored["metrics"].values():
        for phase in ("valid", "test"):
            assert {"map", "mrr", "hit@10", "ndcg@10"} <= set(phases[phase])
    assert stored["seed"] == 2020 and stored["environment"]["packages"]["torch"]
    assert set(stored["seconds"]) == {"data", "pretraining", "training", "test"}
    assert stored["config"]["gamma"] == 10.0
    shown = capsys.readouterr().err
    assert "toy: 436 interactions, 60 linked items, 30 users" in shown
    assert "peak memory" in shown and result["result_file"] in shown
    # RecBole's result dict, for its users
    assert result["test_result"] == stored["metrics"]["uni5pop5"]["test"]
    assert result["best_valid_result"]["mrr"] == pytest.approx(result["best_valid_score"])


def test_the_same_seed_gives_the_same_metrics_and_another_one_others(toy_folder, tmp_path):
    first = toy_run(toy_folder)
    again = toy_run(toy_folder, pretrain_dir=str(tmp_path / "anew"))
    other = toy_run(toy_folder, seed=7)
    assert first["metrics"] == again["metrics"]
    assert first["candidates"] == again["candidates"]
    assert first["metrics"] != other["metrics"]
    assert first["candidates"] != other["candidates"]


def test_training_learns_what_can_be_learnt(tmp_path):
    folder = write_toy(tmp_path / "cycle", n_users=100, cycle=True)
    values = {"bpr_epochs": 60, "learner": "adam", "epochs": 40, "eval_step": 20}
    values |= {"train_batch_size": 256, "learning_rate": 0.02, "stopping_step": 40}
    result = toy_run(folder, **values)
    # Chance is an MRR of 0.27 among 11 candidates.
    assert result["test_result"]["mrr"] > 0.9
    assert result["metrics"]["full"]["test"]["mrr"] > 0.8


def test_the_second_run_finds_the_vectors_in_the_cache(toy_folder):
    first, second = toy_run(toy_folder), toy_run(toy_folder)
    assert all("trained" in note for note in first["pretraining"])
    assert all("cache" in note for note in second["pretraining"])


def test_a_damaged_cache_is_rebuilt_with_a_line_saying_why(toy_folder, caplog):
    first = toy_run(toy_folder)
    for file in (toy_folder / "pretrained").glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-7])
    second = toy_run(toy_folder)
    assert all("trained" in note for note in second["pretraining"])
    assert first["metrics"] == second["metrics"]


@pytest.mark.parametrize(
    "changes",
    [
        {"value_matrix": "shared"},
        {"freeze_item": False, "freeze_kg": False},
        {"project_entities": True},
        {"loss_type": "CE", "train_neg_sample_args": None},
        {"freeze_kg": False, "train_kg_step": 1, "epochs": 4},
        {"eval_args": {"mode": "full"}},
        {"eval_args": {"mode": {"valid": "uni10", "test": "pop5"}}},
        {"chunk_length": 3},
        {"num_layers": 2, "dropout_prob": 0.3, "learner": "adam"},
        {"kge_method": "TransH"},
        {"valid_metric": "NDCG@10", "metrics": ["NDCG", "Recall", "Precision"]},
    ],
)
def test_every_option_runs(toy_folder, changes):
    assert 0 <= toy_run(toy_folder, **changes)["best_valid_score"] <= 1


def test_repeated_triples_weigh_again_and_are_counted(toy_folder, capsys):
    toy_run(toy_folder)
    assert "repeat earlier" not in capsys.readouterr().err  # as `convert` writes none
    path = toy_folder / "toy" / "toy.kg"
    header, *triples = path.read_text().splitlines()
    path.write_text("\n".join([header, *triples, *triples[:3], triples[0]]) + "\n")
    toy_run(toy_folder)
    assert "4 triples of toy.kg repeat earlier ones" in " ".join(capsys.readouterr().err.split())


def test_exported_vectors_can_be_given_back(toy_folder, tmp_path):
    out = tmp_path / "vectors"
    first = toy_run(toy_folder, pretrain_export_path=str(out))
    second = toy_run(toy_folder, pretrain_path=str(out), pretrain_dir=str(tmp_path / "unused"))
    assert all("read from" in note for note in second["pretraining"])
    assert first["metrics"] == second["metrics"]


def test_a_recbole_model_runs_on_the_same_files(toy_folder, tmp_path):
    values = toy_values(toy_folder, eval_args={"mode": "full"}, metrics=["MRR"], topk=[10])
    values["valid_metric"] = "MRR@10"
    for model in ("LINE", "CFKG"):
        result = run(model, "toy", None, dict(values))
        assert 0 <= result["test_result"]["mrr@10"] <= 1


# No leak ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["KSR", "KSR-paper"])
def test_held_out_interactions_change_neither_pretraining_nor_training(tmp_path, model):
    """Replace all held-out items of most users: everything learnt must stay the same."""
    models = []
    for number, replace in enumerate((False, True)):
        folder = write_toy(tmp_path / str(number))
        _rewrite(folder / "toy" / "toy.inter", replace)
        result = toy_run(folder, model=model, epochs=2)
        models.append({**checkpoint.load(result["checkpoint"]), "test": result["test_result"]})
    trained = models[0]["last"]["state_dict"]
    for name, tensor in trained.items():
        assert torch.equal(tensor, models[1]["last"]["state_dict"][name]), name
    frozen = {"item_embedding.weight", "entity_embedding.weight"} - set(trained)
    for name in frozen:
        assert torch.equal(models[0]["state_dict"][name], models[1]["state_dict"][name]), name
    assert models[0]["test"] != models[1]["test"]


def _rewrite(path: Path, replace: bool) -> None:
    """Let two new users name all items first, so that item ids stay; maybe replace held-out items.

    RecBole numbers items as they first occur in the file, held out or not.
    """
    header, *lines = path.read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    for user in {row[0] for row in rows} if replace else ():
        mine = [k for k, row in enumerate(rows) if row[0] == user]
        seen = {rows[k][1] for k in mine}
        unseen = [f"i{n}" for n in range(1, 61) if f"i{n}" not in seen]
        for index, item in zip(mine[-2:], unseen, strict=False):
            rows[index][1] = item
    first = [[f"a{n // 30}", f"i{n + 1}", str(n)] for n in range(60)]
    path.write_text("\n".join([header, *("\t".join(row) for row in first + rows)]) + "\n")


# Resuming -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("KSR", {"dropout_prob": 0.0}),
        ("KSR", {"dropout_prob": 0.4}),
        ("KSR", {"dropout_prob": 0.4, "ema_decay": 0.9}),
        ("KSR", {"freeze_kg": False, "train_kg_step": 1}),
        ("CKE", {}),
    ],
)
def test_resuming_gives_exactly_the_uninterrupted_run(
    toy_folder, tmp_path, monkeypatch, model, changes
):
    common = {"epochs": 5, "learner": "adam", **changes}
    whole = toy_run(toy_folder, model, **common, checkpoint_dir=str(tmp_path / "whole"))
    train_epoch = SequenceTrainer._train_epoch

    def interrupted(self, data, epoch, *rest, **named):
        if epoch == 3:
            train_epoch(self, data, epoch, *rest, **named)  # work of the epoch that is lost
            raise KeyboardInterrupt
        return train_epoch(self, data, epoch, *rest, **named)

    monkeypatch.setattr(SequenceTrainer, "_train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt) as stopped:
        toy_run(toy_folder, model, **common)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert Path(stopped.value.checkpoint).is_file()
    resumed = toy_run(toy_folder, model, **common, resume=True)
    assert resumed["metrics"] == whole["metrics"]
    assert resumed["best_epoch"] == whole["best_epoch"]
    final = [checkpoint.load(r["checkpoint"])["last"] for r in (whole, resumed)]
    assert bool(final[0]["average"]) == ("ema_decay" in changes)
    for kind in ("state_dict", "average"):
        for name, tensor in final[0][kind].items():
            assert torch.equal(tensor, final[1][kind][name]), name


def test_an_interrupted_first_epoch_can_be_resumed(toy_folder, monkeypatch, tmp_path):
    whole = toy_run(toy_folder)

    def stop(*_args, **_named):
        raise KeyboardInterrupt

    monkeypatch.setattr(SequenceTrainer, "_train_epoch", stop)
    with pytest.raises(KeyboardInterrupt) as stopped:
        toy_run(toy_folder)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    resumed = toy_run(toy_folder, resume=stopped.value.checkpoint)
    assert resumed["metrics"] == whole["metrics"]


def test_more_epochs_can_be_added_to_a_finished_run(toy_folder, tmp_path):
    whole = toy_run(toy_folder, epochs=4, checkpoint_dir=str(tmp_path / "whole"))
    toy_run(toy_folder, epochs=2)
    longer = toy_run(toy_folder, epochs=4, resume=True)
    assert longer["metrics"] == whole["metrics"]
    assert longer["epochs_trained"] == 4


def test_a_run_that_was_killed_when_it_had_stopped_early_is_finished(toy_folder):
    """Early stopping is decided before the last checkpoint says that the run is finished."""
    first = toy_run(toy_folder, epochs=30, stopping_step=0)
    assert first["epochs_trained"] < 30
    path = first["checkpoint"]
    checkpoint.save(path, {**checkpoint.load(path), "finished": False})
    again = toy_run(toy_folder, epochs=30, stopping_step=0, resume=path)
    assert again["epochs_trained"] == first["epochs_trained"]
    assert again["metrics"] == first["metrics"]


def test_early_stopping_is_resumed_where_it_was(toy_folder):
    values = toy_values(toy_folder, item_init="random", stopping_step=1, epochs=9)
    config = Config("GRU", "toy", None, values)
    dataset = load_data(config).dataset
    for worse, finished in ((1, False), (2, True)):  # it stops after more than stopping_step
        trainer = make_trainer(config, dataset)
        trainer.best_epoch, trainer.cur_step = 0, worse
        trainer._write(2)
        resumed = make_trainer(config, dataset)
        resumed.resume_checkpoint(trainer.saved_model_file)
        assert (resumed.finished, resumed.cur_step, resumed.start_epoch) == (finished, worse, 3)


def test_other_modes_can_be_reported_of_a_finished_run(toy_folder):
    first = toy_run(toy_folder)
    again = toy_run(toy_folder, report_modes=["uni3"], resume=True)
    assert again["epochs_trained"] == first["epochs_trained"] and "uni3" in again["metrics"]


@pytest.mark.parametrize(
    ("part", "key", "sentence"),
    [
        ("settings", "kge_method", "does not say with which kge_method it was trained"),
        ("last", "numpy_rng", "last has no numpy_rng"),
    ],
)
def test_a_checkpoint_that_lacks_a_part_is_not_resumed(toy_folder, part, key, sentence):
    path = toy_run(toy_folder)["checkpoint"]
    content = checkpoint.load(path)
    del content[part][key]
    checkpoint.save(path, content)
    with pytest.raises(UserError, match=sentence):
        toy_run(toy_folder, epochs=3, resume=path)


@pytest.mark.parametrize("name", ["KSR", "LightGCN"])
def test_two_runs_of_one_moment_keep_files_of_their_own(toy_folder, name, monkeypatch):
    moment = mock.Mock(now=lambda: datetime(2026, 11, 29))
    for module in ("ksr_recbole.paths", "ksr_recbole.quick_start.result"):
        monkeypatch.setattr(f"{module}.datetime", moment)
    monkeypatch.setattr("recbole.utils.logger.get_local_time", lambda: "Nov-29-2026_00-00-00")
    values = {} if name == "KSR" else {"eval_args": {"mode": "full"}}
    values = toy_values(toy_folder, epochs=1, **values)
    for _ in range(2):
        run(name, "toy", None, values)
    left = [f"data/saved/{name}-*.pth", f"log/{name}/*.log", "log_tensorboard/*"]
    if name == "KSR":  # others are evaluated by RecBole, which leaves no result
        left.append("data/results/*.json")
    assert {pattern: len(list(Path().glob(pattern))) for pattern in left} == dict.fromkeys(left, 2)


def test_the_folders_of_events_of_a_dataset_with_a_dot_are_its_own(toy_folder):
    found = set()
    for dataset in ("a.b", "a.c"):
        config = Config("KSR", "toy", None, toy_values(toy_folder))
        config["dataset"] = dataset
        with logging_of(config):
            handlers = logging.getLogger().handlers
            [name] = [h.baseFilename for h in handlers if isinstance(h, logging.FileHandler)]
            found.add(Path(name).name.split(".")[0])  # as RecBole names them
    assert len(found) == 2 and all("a_" in name for name in found)
    assert len(list(Path("log/KSR").glob("KSR-a.[bc]-*.log"))) == 2


def test_the_newest_checkpoint_is_of_the_dataset_asked_for(tmp_path):
    names = ("KSR-book", "KSR-book-small")
    for name, dataset in zip(names, ("book", "book-small"), strict=True):
        path = checkpoint.path_of_new(tmp_path, "KSR", dataset)
        assert path.name.startswith(f"{name}-")
        path.write_text("")
    assert checkpoint.newest(tmp_path, "KSR", "book", "").name.startswith("KSR-book-")
    assert "small" not in checkpoint.newest(tmp_path, "KSR", "book", "").name
    assert "small" in checkpoint.newest(tmp_path, "KSR", "book-small", "").name


def test_a_link_to_nothing_is_no_checkpoint(tmp_path):
    link = tmp_path / "KSR-book-Jan-01-2026_10-00-00.pth"
    link.symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match=r"There is no checkpoint KSR-book-\*"):
        checkpoint.newest(tmp_path, "KSR", "book", "")
    path = checkpoint.path_of_new(tmp_path, "KSR", "book")
    path.write_text("")
    assert checkpoint.newest(tmp_path, "KSR", "book", "") == path


@pytest.mark.parametrize(
    ("key", "value"),
    [("task", "next-item"), ("session_length", 7_200), ("matmul_precision", "medium")],
)
def test_a_checkpoint_of_other_settings_is_refused_by_their_name(toy_folder, key, value):
    sessions = {"task": "next-session", "session_length": 10_800}
    path = toy_run(toy_folder, **sessions)["checkpoint"]
    with pytest.raises(UserError, match=f"was trained with {key} = "):
        toy_run(toy_folder, resume=path, **{**sessions, key: value})


def test_checkpoints_load_without_pickle(toy_folder, monkeypatch):
    path = toy_run(toy_folder)["checkpoint"]
    monkeypatch.setattr(torch, "load", None)
    monkeypatch.setattr(pickle, "Unpickler", None)
    assert checkpoint.load(path)["model"] == "KSR"
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["kind"] == "ksr_recbole checkpoint"


def test_ctrl_c_on_the_command_line_says_how_to_go_on(toy_folder, monkeypatch, capsys):
    def stop(*_args, **_named):
        raise KeyboardInterrupt

    monkeypatch.setattr(SequenceTrainer, "_train_epoch", stop)
    assert cli.main(toy_command(toy_folder)) == 130
    hint = capsys.readouterr().err.strip().splitlines()[-1]
    assert "--resume=" in hint and str(toy_folder / "saved") in hint


def stop(*_args, **_named):
    raise KeyboardInterrupt


def continued_with(capsys, folder, *extra: str) -> list[str]:
    """The words of the command that is printed when a run is interrupted."""
    assert cli.main(toy_command(folder, *extra)) == 130
    hint = capsys.readouterr().err.strip().splitlines()[-1]
    return shlex.split(hint.partition("Continue with: ")[2])


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (checkpoint, "check_exists"),  # while data are read
        (sys.modules[run.__module__], "find_vectors"),
        (SequenceTrainer, "__init__"),
        (SequenceTrainer, "_checked_last"),
    ],
)
def test_a_given_checkpoint_is_named_again_as_long_as_there_is_no_newer_one(
    toy_folder, monkeypatch, capsys, place, name
):
    path = toy_run(toy_folder, epochs=1)["checkpoint"]
    monkeypatch.setattr(place, name, stop)
    words = continued_with(capsys, toy_folder, f"--resume={path}")
    assert [word for word in words if word.startswith("--resume")] == [f"--resume={path}"]


def test_an_interruption_in_a_librarys_words_names_the_checkpoint_too(
    toy_folder, monkeypatch, capsys, not_ignored
):
    """The same command was named without --resume, and it begins anew."""

    def stop_as_a_library(*_args, **_named):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as interruption:
            raise TypeError("a library's own") from interruption

    monkeypatch.setattr(SequenceTrainer, "_train_epoch", stop_as_a_library)
    words = continued_with(capsys, toy_folder)
    [path] = (toy_folder / "saved").glob("*.pth")
    assert words[-1] == f"--resume={path}"


def test_a_full_disk_after_the_training_does_not_lose_it(toy_folder, monkeypatch, capsys):
    """The same command was all that was left to type, and it trained anew."""

    def full(*_args):
        raise cannot_write("a.json", OSError()) from OSError(errno.ENOSPC, "No space left")

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[run.__module__], "write_result", full)
        error = failure(capsys, toy_command(toy_folder))
    assert error.startswith("error: Cannot write a.json")
    words = shlex.split(error.partition("What was trained is kept; then continue with: ")[2])
    assert words[-1].startswith("--resume=")
    monkeypatch.setattr(SequenceTrainer, "_train_epoch", None)
    assert cli.main(words[2:]) == 0


def test_a_full_disk_before_the_training_leaves_nothing_to_continue(
    toy_folder, monkeypatch, capsys
):
    def full(*_args, **_named):
        raise cannot_write("a.pth", OSError()) from OSError(errno.ENOSPC, "No space left")

    monkeypatch.setattr(SequenceTrainer, "_write", full)
    assert "kept" not in failure(capsys, toy_command(toy_folder))


@pytest.mark.parametrize("protocol", ["recbole", "paper"])
def test_what_cannot_be_resumed_is_not_said_to_continue(toy_folder, monkeypatch, capsys, protocol):
    """Of RecBole's own evaluation, and of training that a checkpoint does not hold."""
    monkeypatch.setattr(Trainer, "_train_epoch", stop)
    monkeypatch.setattr(RecBoleTrainer, "_can_resume", lambda _: False)
    words = ["--model=GRU4Rec", f"--protocol={protocol}", *toy_command(toy_folder)]
    words = [word for word in words if not word.startswith(("--eval_args", "--report_modes"))]
    assert cli.main(words) == 130
    hint = capsys.readouterr().err.strip().splitlines()[-1]
    assert hint.startswith("Interrupted; there is nothing to resume from. Start anew with: ")
    assert "--resume" not in hint


@pytest.mark.parametrize(
    ("place", "name"),
    [(SequenceTrainer, "load_best"), (sys.modules[run.__module__], "write_result")],
)
@pytest.mark.parametrize("resumed", [False, True])
def test_an_interruption_after_the_training_does_not_lose_it(
    toy_folder, monkeypatch, capsys, place, name, resumed
):
    given = [f"--resume={toy_run(toy_folder, epochs=1)['checkpoint']}"] if resumed else []
    with monkeypatch.context() as patch:
        patch.setattr(place, name, stop)
        words = continued_with(capsys, toy_folder, *given)
    [path] = [word.removeprefix("--resume=") for word in words if word.startswith("--resume")]
    assert checkpoint.load(path)["finished"]
    monkeypatch.setattr(SequenceTrainer, "_train_epoch", None)
    assert cli.main(words[2:]) == 0


def test_a_checkpoint_that_was_not_written_yet_is_not_named(toy_folder, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint, "save", stop)
    assert not [word for word in continued_with(capsys, toy_folder) if "--resume" in word]


def made_trainer(folder, model="KSR", **changes):
    """A trainer, with data of training and validation, as a notebook has them."""
    config = Config(model, "toy", None, toy_values(folder, **changes))
    data = load_data(config)
    find_vectors(config, data.dataset)
    return make_trainer(config, data.dataset), data.train, data.valid


@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_fit_called_again_after_an_interruption_continues(toy_folder, monkeypatch, epoch):
    """The result is that of one call; the work since the last checkpoint is done again."""
    common = {"epochs": 4, "learner": "adam", "dropout_prob": 0.3, "ema_decay": 0.9}
    whole, *data = made_trainer(toy_folder, **common)
    whole.fit(*data)
    trainer, *data = made_trainer(toy_folder, **common)
    train_epoch = SequenceTrainer._train_epoch

    def interrupted(self, data, number, *rest, **named):
        loss = train_epoch(self, data, number, *rest, **named)
        return stop() if number == epoch else loss

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(SequenceTrainer, "_train_epoch", interrupted)
            with pytest.raises(KeyboardInterrupt):
                trainer.fit(*data)
        assert checkpoint.load(trainer.saved_model_file)["epoch"] == epoch - 1
    assert trainer.fit(*data) == (whole.best_valid_score, whole.best_valid_result)
    found, expected = (checkpoint.load(t.saved_model_file) for t in (trainer, whole))
    assert found["best_epoch"] == expected["best_epoch"]
    for name, tensor in expected["last"]["state_dict"].items():
        assert torch.equal(tensor, found["last"]["state_dict"][name]), name


def test_fit_called_again_without_a_checkpoint_is_refused(toy_folder, monkeypatch):
    trainer, *data = made_trainer(toy_folder, epochs=3)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(*data, saved=False, callback_fn=stop)
    for saved in (True, False):
        with pytest.raises(UserError, match="interrupted and left no checkpoint"):
            trainer.fit(*data, saved=saved)
    assert not Path(trainer.saved_model_file).exists()


def longer_command(capsys) -> list[str]:
    """The words of the command that trains longer, of those that are printed after a run."""
    return shlex.split(capsys.readouterr().err.strip().splitlines()[-1])


def test_the_command_that_trains_longer_does_so_where_both_limits_are_reached(toy_folder, capsys):
    """Early stopping ends the training in the last epoch allowed."""
    command = ["--dropout_prob=0.0", "--stopping_step=0", *toy_command(toy_folder)]
    command = [word for word in command if not word.startswith("--epochs")]
    assert cli.main([*command, "--epochs=30"]) == 0
    words = longer_command(capsys)
    assert "--stopping_step=1" in words and "--epochs=30" in words
    first = checkpoint.load(words[-1].removeprefix("--resume="))["epoch"]
    assert first < 29
    assert cli.main([*command, f"--epochs={first + 1}"]) == 0
    words = longer_command(capsys)
    assert words[-3:-1] == [f"--epochs={2 * (first + 1)}", "--stopping_step=1"]
    assert cli.main(words[2:]) == 0
    assert checkpoint.load(words[-1].removeprefix("--resume="))["epoch"] > first


def test_what_has_no_effect_on_a_resumed_run_is_said(toy_folder, capsys):
    path = toy_run(toy_folder, epochs=3)["checkpoint"]
    elsewhere = toy_folder / "elsewhere"
    command = [f"--checkpoint_dir={elsewhere}", "--epochs=1", f"--resume={path}"]
    given = {word.split("=")[0] for word in command}
    rest = [word for word in toy_command(toy_folder) if word.split("=")[0] not in given]
    assert cli.main([*rest, *command]) == 0
    said = capsys.readouterr().err
    assert "epochs is 1, but the checkpoint has 3 epochs already" in said
    assert f"checkpoint_dir is {elsewhere}, but a run that is resumed keeps" in said
    assert "to train longer, resume with --epochs=4;" in said
    assert "--epochs=4" in said.strip().splitlines()[-1]
    assert not list(elsewhere.glob("*.pth"))


def test_an_ordinary_resumed_run_says_nothing_more(toy_folder, capsys):
    toy_run(toy_folder, epochs=2)
    capsys.readouterr()
    toy_run(toy_folder, epochs=3, resume=True)
    said = capsys.readouterr().err
    assert "Resuming from" in said and "WARNING" not in said


def test_a_validation_that_the_uninterrupted_run_does_not_have_is_said(toy_folder, capsys):
    """RecBole validates the last epoch of a run of fewer epochs than eval_step."""
    toy_run(toy_folder, epochs=2, eval_step=4)
    capsys.readouterr()
    toy_run(toy_folder, epochs=3, eval_step=4, resume=True)
    assert "Epoch 1 was validated as the last one" in capsys.readouterr().err


def test_sigterm_ends_a_run_as_ctrl_c_does(toy_folder):
    command = [*toy_command(toy_folder), "--epochs=100000", "--stopping_step=100000"]
    command.remove("--epochs=2")
    with forked.Command([ROOT / "run_recbole.py", *command], toy_folder) as process:
        while "epoch 1 training" not in process.said():
            assert process.returncode is None, process.said()
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate()
    assert process.returncode == 130, said
    go_on = shlex.split(said.splitlines()[-1].partition("Continue with: ")[2])
    assert Path(str(shutil.which(go_on[0]))).parent == Path(sys.executable).parent
    assert go_on[1] == str(ROOT / "run_recbole.py")  # works in this folder too
    assert go_on[-1].startswith("--resume=")


def test_what_may_not_be_read_is_not_said_to_be_damaged_or_missing(tmp_path, monkeypatch):
    """It was "delete it and train again" for a file of another user."""

    def refuse(*_args, **_named):
        raise PermissionError(errno.EACCES, "Permission denied")

    path = tmp_path / f"{name_of_new('KSR-toy')}.pth"
    path.touch()
    monkeypatch.setattr(checkpoint, "read", refuse)
    with pytest.raises(UserError, match=rf"{path} cannot be read \(Permission denied\); give"):
        checkpoint.load(path)
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=rf"folder {tmp_path} cannot be read \(Permission denied\)"):
        checkpoint.newest(tmp_path, "KSR", "toy", "train it")


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
@pytest.mark.parametrize("text", ["a", "b"])
def test_the_revision_is_read_without_a_lock(tmp_path, monkeypatch, text):
    """A run that was killed while git looked for changes left index.lock, and no commit worked."""

    def git(*words: str) -> str:
        own = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
        done = subprocess.run([*own, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    (tmp_path / "file").write_text("a")
    git("init")
    git("add", "file")
    git("commit", "-m", "one")
    commit = git("rev-parse", "HEAD")
    (tmp_path / "file").write_text(text)
    os.utime(tmp_path / "file", (1, 1))  # git would write down that the content is the same
    before = (tmp_path / ".git" / "index").read_bytes()
    monkeypatch.setattr("ksr_recbole.quick_start.result.CHECKOUT", tmp_path)
    assert environment(torch.device("cpu"))["git_revision"] == (
        commit if text == "a" else f"{commit}-dirty"
    )
    assert (tmp_path / ".git" / "index").read_bytes() == before


def test_a_checkpoint_is_found_whatever_language_months_have(tmp_path, monkeypatch):
    """A program that calls setlocale in French had KSR-toy-déc.-01-..., which no --resume found."""

    class French(datetime):
        def __format__(self, form: str) -> str:
            return super().__format__(form.replace("%b", "déc."))

    monkeypatch.setattr("ksr_recbole.paths.datetime", French)
    path = tmp_path / f"{name_of_new('KSR-toy')}.pth"
    path.touch()
    assert checkpoint.newest(tmp_path, "KSR", "toy", "") == path
    assert datetime.now().strftime("%Y_") in path.name


# Bad input ----------------------------------------------------------------------------------


def test_unknown_model_lists_the_known_ones(capsys):
    error = failure(capsys, ["--model=KRS"])
    assert "'KRS'" in error and "did you mean KSR?" in error and "GRU4Rec" in error


def test_unknown_dataset_lists_the_known_ones(capsys):
    error = failure(capsys, ["--dataset=ml-100"])
    assert "'ml-100'" in error and "did you mean ml-100k?" in error


def test_misspelt_key_suggests_the_nearest(capsys, tmp_path):
    error = failure(capsys, ["--learnign_rate=0.1"])
    assert "'learnign_rate'" in error and "did you mean learning_rate?" in error
    file = tmp_path / "mine.yaml"
    file.write_text("gama: 5\n")
    error = failure(capsys, [f"--config_files={file}"])
    assert "'gama'" in error and str(file) in error and "gamma" in error


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["KSR"], "'KSR'"),
        (["--epochs"], "--epochs"),
        (["--seed=1", "--seed=2"], "twice"),
        (["--config_files=absent.yaml"], "absent.yaml"),
        (["--task=next-song"], "next-item"),
        (["--dataset="], "--dataset is empty"),
        (["--task=builtin"], "the tasks are: next-item, next-session"),
        (["--model=LightGCN", "--task=next-session"], "task is next-session, but it has no"),
        (["--model=LightGCN", "--train_ratio=0.5"], "train_ratio is 0.5, but it has no effect"),
        (["--model=LightGCN", "--ema_decay=0.9"], "ema_decay"),
        (["--model=LightGCN", "--matmul_precision=medium"], "matmul_precision"),
        (["--model=LightGCN", "--resume"], "resume is True, but it has no effect on LightGCN"),
    ],
)
def test_malformed_command_line(capsys, arguments, part):
    assert part in failure(capsys, arguments)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ("--kge_method=TransX", "kge_method"),
        ("--learner=5", "learner"),
        ("--resume=no.pth", "no.pth does not exist"),
        ("--gamma=much", "gamma"),
        ("--memory_backend=triton", "memory_backend"),
        ("--score_mlp_layers=0 --hidden_size=5", "score_mlp_layers"),
        ("--ema_decay=1.5", "ema_decay"),
        ("--matmul_precision=fast", "matmul_precision"),
        ("--eval_batch_size=0", "eval_batch_size"),
        ("--loss_type=BPR --train_neg_sample_args.dynamic=True", "train_neg_sample_args.dynamic"),
        ("--item_init=random --freeze_item=True", "freeze_item"),
        ("--model=RUM_I --loss_type=BPR --memory_slots=0", "memory_slots"),
    ],
)
def test_what_can_be_seen_before_pretraining_is_seen_before_it(capsys, toy_folder, changes, part):
    given = {change.split("=")[0] for change in changes.split()}
    command = [a for a in toy_command(toy_folder) if a.split("=")[0] not in given]
    assert part in failure(capsys, [*command, *changes.split()])
    assert not list((toy_folder / "pretrained").glob("*"))


@pytest.mark.parametrize("model", ["GRU++", "RUM_I", "CKE", "BPR"])
def test_models_without_epochs_on_the_graph_are_asked_for_none(toy_folder, model):
    with pytest.raises(UserError, match=r"train_kg_step is 1, but .* has no epochs of its own"):
        toy_run(toy_folder, model, train_kg_step=1, freeze_kg=False)


def test_an_option_of_another_model_is_told(toy_folder, capsys):
    toy_run(toy_folder, "GRU", gamma=5.0, learning_rate=0.01)
    lines = [line for line in capsys.readouterr().err.splitlines() if "has no effect" in line]
    told = [line.partition("Config key ")[2] for line in lines]
    assert told == [
        "gamma has no effect on GRU: it is no option of it.",
        "kg_embedding_size has no effect on GRU: it is no option of it.",
        "bpr_epochs has no effect on GRU: it starts from no vectors of BPR.",
        "kge_epochs has no effect on GRU: it starts from no vectors of a knowledge graph.",
    ]


@pytest.mark.parametrize("content", ["a: [1\n", "- 1\n- 2\n", "\ttab: 1\n"])
def test_broken_config_file(capsys, tmp_path, content):
    file = tmp_path / "broken.yaml"
    file.write_text(content)
    assert "broken.yaml" in failure(capsys, [f"--config_files={file}"])


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ("--gamma=much", "gamma"),
        ("--embedding_size=0", "embedding_size"),
        ("--value_matrix=public", "private, shared"),
        ("--eval_args.mode=uni", "uni50pop50"),
        ("--metrics=['MRR','Hitt']", "did you mean hit?"),
        ("--topk=[0]", "topk"),
        ("--train_batch_size=-1", "train_batch_size"),
        ("--kge_method=TransX", "TransE, TransH, TransR"),
        ("--train_kg_step=1", "freeze_kg"),
        ("--seed=-3", "seed"),
        ("--valid_metric=Recall", "valid_metric"),
        ("--loss_type=hinge", "loss_type"),
        ("--learner=5", "learner"),
        ("--report_modes=3", "report_modes"),
        ("--report_modes=['foo']", "'foo' is not a mode"),
        ("--eval_step=often", "eval_step"),
        ("--stopping_step=never", "stopping_step"),
        ("--weight_decay=some", "weight_decay"),
        ("--clip_grad_norm=5", "clip_grad_norm"),
        ("--metric_decimal_place=many", "metric_decimal_place"),
        ("--eval_args.mod=full", "'eval_args.mod' in the command line or config_dict; did you"),
        ("--train_neg_sample_args={'sample_nmu':3}", "did you mean sample_num?"),
    ],
)
def test_bad_value(capsys, toy_folder, change, part):
    command = [a for a in toy_command(toy_folder) if a.split("=")[0] != change.split("=")[0]]
    assert part in failure(capsys, [*command, change])


@pytest.mark.parametrize("suffix", ["inter", "kg", "link"])
@pytest.mark.parametrize("how", ["missing", "empty", "header only", "columns", "no header"])
def test_bad_atomic_file(capsys, toy_folder, suffix, how):
    path = toy_folder / "toy" / f"toy.{suffix}"
    lines = path.read_text().splitlines()
    if how == "missing":
        path.unlink()
    else:
        changed = {
            "empty": [],
            "header only": lines[:1],
            "columns": [*lines[:4], "one\ttwo\tthree\tfour\tfive", *lines[4:]],
            "no header": lines[1:],
        }[how]
        path.write_text("".join(f"{line}\n" for line in changed))
    error = failure(capsys, toy_command(toy_folder))
    assert f"toy.{suffix}" in error
    if how == "columns":
        assert "line 5" in error
    assert not list((toy_folder / "results").glob("*"))


def test_timestamp_that_is_no_number(capsys, toy_folder):
    path = toy_folder / "toy" / "toy.inter"
    lines = path.read_text().splitlines()
    lines[6] = lines[6].rsplit("\t", 1)[0] + "\tyesterday"
    path.write_text("\n".join(lines) + "\n")
    error = failure(capsys, toy_command(toy_folder))
    assert "toy.inter" in error and "line 7" in error and "yesterday" in error


def test_no_linked_item_left(capsys, toy_folder):
    path = toy_folder / "toy" / "toy.link"
    path.write_text(path.read_text().replace("\te", "\tother").replace("other", "e", 1))
    assert "linked item" in failure(capsys, toy_command(toy_folder))


@pytest.mark.parametrize("key", ["embedding_size", "kg_embedding_size"])
def test_size_that_does_not_fit_given_vectors(capsys, toy_folder, tmp_path, key):
    toy_run(toy_folder, pretrain_export_path=str(tmp_path / "vectors"))
    command = [a for a in toy_command(toy_folder) if not a.startswith(f"--{key}=")]
    extra = [f"--pretrain_path={tmp_path / 'vectors'}", f"--{key}=6"]
    error = failure(capsys, [*command, *extra])
    assert key in error and "6" in error


FOLDERS = [
    "checkpoint_dir",
    "results_dir",
    "pretrain_dir",
    "pretrain_export_path",
    "data_cache_dir",
]


@pytest.mark.parametrize("key", [*FOLDERS, "pretrain_export_path"])
def test_output_folder_that_cannot_be_written(capsys, toy_folder, tmp_path, key):
    blocked = tmp_path / "a-file"
    blocked.write_text("")
    command = [a for a in toy_command(toy_folder) if not a.startswith(f"--{key}=")]
    error = failure(capsys, [*command, f"--{key}={blocked / 'below'}"])
    assert f"Cannot write in the folder {blocked / 'below'} ({key})" in error  # before any work
    assert "a part of the path is no folder" in error


def test_current_folder_that_cannot_hold_a_log(capsys, toy_folder):
    Path("log").write_text("in the way of RecBole's log folder")
    assert "log" in failure(capsys, toy_command(toy_folder))


def test_disk_that_fills_up_while_a_checkpoint_is_written(toy_folder, monkeypatch):
    before = toy_run(toy_folder)
    content = Path(before["checkpoint"]).read_bytes()

    def full(_content):
        yield b"half"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "to_bytes", full)
    with pytest.raises(UserError, match="No space left"):
        toy_run(toy_folder, resume=True, epochs=9)
    assert Path(before["checkpoint"]).read_bytes() == content
    assert not list((toy_folder / "saved").glob(".*"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_disk_that_is_full_for_logs_is_told_once(toy_folder, monkeypatch, capfd):
    """Each line of the log was a traceback; the thread of the events had one and ended the run."""
    monkeypatch.setattr(logging.FileHandler, "_open", lambda _: open("/dev/full", "w"))  # noqa: SIM115
    write, begun = RecordWriter.write, []

    def full(writer: RecordWriter, data: bytes) -> None:
        if not begun:  # the file's version, while the writer is made
            begun.append(writer)
            return write(writer, data)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RecordWriter, "write", full)
    hook = threading.excepthook
    result = toy_run(toy_folder, "GRU", epochs=2)
    assert Path(result["checkpoint"]).is_file() and Path(result["result_file"]).is_file()
    told = capfd.readouterr().err
    assert "Traceback" not in told and "Logging error" not in told
    for what in ("The log file ", "TensorBoard's events in "):
        (line,) = [each for each in told.splitlines() if what in each]
        assert "WARNING" in line and "cannot be written (No space left on device)" in line
    assert threading.excepthook is hook


def test_a_disk_that_is_full_when_events_begin(capsys, toy_folder, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RecordWriter, "write", full)
    assert "./log_tensorboard of TensorBoard's events" in failure(capsys, toy_command(toy_folder))


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "missing", "foreign"])
def test_damaged_checkpoint(capsys, toy_folder, tmp_path, damage):
    path = Path(toy_run(toy_folder)["checkpoint"])
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "foreign":
        torch.save({"weights": torch.zeros(3)}, path)
    else:
        damaged = {"truncated": content[:1000], "garbage": b"no" * 999, "empty": b""}
        path.write_bytes(damaged[damage])
    assert path.name in failure(capsys, [*toy_command(toy_folder), f"--resume={path}"])


def test_checkpoint_of_other_settings_or_data(capsys, toy_folder):
    path = toy_run(toy_folder)["checkpoint"]
    command = [*toy_command(toy_folder), f"--resume={path}"]
    assert "gamma" in failure(capsys, [*command, "--gamma=3"])
    assert "ema_decay" in failure(capsys, [*command, "--ema_decay=0.9"])
    assert "kge_method" in failure(capsys, [*command, "--kge_method=TransH"])
    assert "weight_decay" in failure(capsys, [*command, "--weight_decay=0.1"])
    inter = toy_folder / "toy" / "toy.inter"
    inter.write_text("".join(inter.read_text().splitlines(keepends=True)[:-1]))
    assert "other toy files" in failure(capsys, command)


def test_resume_without_a_checkpoint(capsys, toy_folder):
    assert "no checkpoint" in failure(capsys, [*toy_command(toy_folder), "--resume"])


def test_a_folder_in_which_recbole_cannot_log(capsys, toy_folder, monkeypatch):
    def refuse(config: object) -> None:
        raise OSError(30, "Read-only file system", "./log")

    monkeypatch.setattr("recbole.utils.logger.init_logger", refuse)
    told = failure(capsys, toy_command(toy_folder))
    assert "./log of RecBole's log files cannot be written (Read-only file system)" in told


def test_a_pickled_checkpoint_is_loaded_only_when_trusted(toy_folder, tmp_path):
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_trainer

    from ksr_recbole.compat import with_checkpoint_rule
    from ksr_recbole.registry import model_class

    values = toy_values(toy_folder, eval_args={"mode": "full"}, metrics=["MRR"], epochs=1)
    values["valid_metric"] = "MRR@10"
    config = Config("LINE", "toy", None, values)
    train, valid, test = data_preparation(config, create_dataset(config))
    model = model_class("LINE")(config, train._dataset)
    trainer_class = with_checkpoint_rule(get_trainer(config["MODEL_TYPE"], "LINE"))
    trainer = trainer_class(config, model)
    trainer.fit(train, valid)
    assert trainer.evaluate(test)  # written by this process
    strange = shutil.copy(trainer.saved_model_file, tmp_path / "strange.pth")
    with pytest.raises(UserError, match="trust_checkpoint"):
        trainer.evaluate(test, model_file=strange)
    with pytest.raises(UserError, match=r"gone\.pth .*\(No such file or directory\)"):
        trainer.evaluate(test, model_file=tmp_path / "gone.pth")
    shutil.copy(strange, trainer.saved_model_file)
    assert trainer.evaluate(test)  # the same bytes
    with open(trainer.saved_model_file, "ab") as file:
        file.write(b"\0")
    with pytest.raises(UserError, match="trust_checkpoint"):
        trainer.evaluate(test)
    config["trust_checkpoint"] = True
    assert trainer.evaluate(test, model_file=strange)


def test_wrong_version_is_one_sentence(monkeypatch, capsys):
    from importlib import metadata

    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda p: "4.0.1" if p == "pandas" else real(p))
    with pytest.raises(UserError, match=r"pandas 4\.0\.1 was found, but pandas.*is wanted"):
        check_versions()
    assert "pandas 4.0.1" in failure(capsys, ["--model=KSR"])


def test_requirements_satisfy_the_start_up_check():
    pinned = dict(
        line.split("==")
        for line in (ROOT / "requirements.txt").read_text().split("\n")
        if "==" in line and not line.startswith("#")
    )
    pinned["recbole"] = INSTALL_RECBOLE.rpartition("==")[2]
    for package, wanted in WANTED.items():
        assert wanted.contains(pinned[package]), package
    assert set(RECBOLE_NEEDS) <= set(pinned)


def test_the_script_itself(toy_folder, tmp_path):
    """``run_recbole.py`` in a process of its own, from another folder."""
    command = [sys.executable, str(ROOT / "run_recbole.py"), *toy_command(toy_folder)]
    environment = {**os.environ, "PYTHONWARNINGS": ""}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert done.stdout == "KSR on toy: loading PyTorch and RecBole ...\n"
    refused = forked.run([*command[1:], "--nonsense=1"], tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: Unknown config key 'nonsense'")


def test_without_a_checkpoint_the_best_epoch_is_tested_too(toy_folder):
    common = {"epochs": 8, "learning_rate": 0.5, "learner": "adam"}
    kept = toy_run(toy_folder, **common)
    assert kept["best_epoch"] < kept["epochs_trained"] - 1
    values = toy_values(toy_folder, **common, checkpoint_dir=str(toy_folder / "none"))
    unsaved = run("KSR", "toy", None, values, saved=False)
    assert unsaved["metrics"] == kept["metrics"]
    assert unsaved["best_epoch"] == kept["best_epoch"] and unsaved["checkpoint"] is None
    assert not list((toy_folder / "none").glob("*.pth"))


def test_a_result_without_validation_is_json_too(toy_folder):
    result = toy_run(toy_folder, eval_step=0)

    def refuse(constant: str):
        raise ValueError(constant)

    stored = json.loads(Path(result["result_file"]).read_text(), parse_constant=refuse)
    assert stored["best_valid_score"] is None and stored["epochs_trained"] == 2


def test_numbers_in_results_are_not_rounded(toy_folder):
    metrics = toy_run(toy_folder)["test_result"]
    assert any(round(value, 4) != value for value in metrics.values())
    assert all(np.isfinite(value) for value in metrics.values())


def test_epochs_are_chosen_by_the_exact_score_and_shown_rounded(toy_folder, monkeypatch):
    values = toy_values(toy_folder, item_init="random", metric_decimal_place=2)
    config = Config("GRU", "toy", None, values)
    trainer = make_trainer(config, load_data(config).dataset)
    found = OrderedDict({trainer.valid_metric: 0.12345})
    monkeypatch.setattr(trainer, "evaluate", lambda *given, **named: found)
    assert trainer._valid_epoch(None) == (0.12345, {trainer.valid_metric: 0.12})


def test_half_precision_through_recboles_key_trains(toy_folder):
    plain = toy_run(toy_folder)
    mixed = toy_run(toy_folder, enable_amp=True)
    assert mixed["epochs_trained"] == plain["epochs_trained"]
    for name, value in plain["test_result"].items():
        assert mixed["test_result"][name] == pytest.approx(value, abs=0.1)


def test_matrix_products_are_as_precise_as_told_in_training_alone(toy_folder, monkeypatch):
    seen = set()
    train_epoch = KGTrainer._train_epoch

    def watched(*arguments):
        seen.add(torch.get_float32_matmul_precision())
        return train_epoch(*arguments)

    monkeypatch.setattr(KGTrainer, "_train_epoch", watched)
    before = torch.get_float32_matmul_precision()
    toy_run(toy_folder)
    assert seen == {before}
    seen.clear()
    toy_run(toy_folder, matmul_precision="medium")
    assert seen == {"medium"}
    assert torch.get_float32_matmul_precision() == before
    with pytest.raises(UserError, match="matmul_precision"):
        toy_run(toy_folder, matmul_precision="low")


def test_without_validation_and_files_the_last_epoch_is_the_best(toy_folder):
    values = toy_values(toy_folder, epochs=2, eval_step=0)
    assert run("KSR", "toy", config_dict=values, saved=False)["best_epoch"] == 1


def test_weights_and_biases_gets_a_run_with_the_metrics_of_the_test(toy_folder, monkeypatch):
    fake, runs = ModuleType("wandb"), []

    def begin(**_: object) -> None:
        fake.run = SimpleNamespace(summary={})
        runs.append(fake.run.summary)

    def finish() -> None:
        fake.run = None

    fake.__spec__ = ModuleSpec("wandb", None, origin="a test")
    vars(fake).update(init=begin, finish=finish, run=None, log=lambda *_, **__: None,
                      define_metric=lambda *_, **__: None)  # fmt: skip
    monkeypatch.setitem(sys.modules, "wandb", fake)
    values = toy_values(toy_folder, epochs=1, log_wandb=True, report_modes=["full", "uni5"])
    for _ in range(2):
        found = run("KSR", "toy", config_dict=values, saved=False)
    assert len(runs) == 2 and fake.run is None
    for mode, metrics in found["metrics"].items():
        head = "eval" if mode == found["eval_mode"] else mode
        assert runs[1][f"{head}/mrr"] == metrics["test"]["mrr"]
    assert {"eval/mrr", "full/mrr"} <= runs[1].keys()
    begin()
    run("KSR", "toy", config_dict=values, saved=False)
    assert fake.run is not None  # the user's own
