"""RecBole's models under the paper's protocol: their data, scores, selection, resuming and rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.config import Config as RecBoleConfig
from recbole.data.interaction import Interaction

from ksr_recbole.comparison.cli import main as run_benchmark
from ksr_recbole.comparison.cli import parser, request_of
from ksr_recbole.compat import keeping_anomaly_mode
from ksr_recbole.config import Config
from ksr_recbole.dataset.recbole_dataset import recbole_dataset
from ksr_recbole.dataset.recbole_views import load_views, recbole_loaders
from ksr_recbole.dataset.sequence_datasets import WithSequences, load_dataset
from ksr_recbole.errors import UnusableCheckpointError, UserError
from ksr_recbole.evaluation.recbole_scorer import RecBoleScorer
from ksr_recbole.evaluation.scorer import PairScorer
from ksr_recbole.quick_start import prepare, run
from ksr_recbole.registry import GROUPS, MODELS, comparable, group_of, model_class
from ksr_recbole.trainer.recbole_trainer import RecBoleTrainer
from tests.toy import toy_run, toy_values, write_toy

TINY = {"MAX_ITEM_LIST_LENGTH": 7, "train_batch_size": 128, "epochs": 1}
CUT = {"MAX_ITEM_LIST_LENGTH": 7, "eval_args": {"mode": "full"}, "train_neg_sample_args": None}
FAMILIES = ("GRU4Rec", "NARM", "LightGCN", "KGCN", "Pop", "StockKSR", "CFKG", "MultiVAE", "DIN")
"""One or two models of each kind of loader, trainer and score."""


@pytest.fixture(autouse=True)
def _anomaly_mode():
    with keeping_anomaly_mode():
        yield


def views_of(name, folder, **changes):
    config = Config(name, "toy", None, toy_values(folder, protocol="paper", **TINY, **changes))
    dataset = load_views(config)
    return config, dataset, *recbole_loaders(config, dataset)


def without_graph(folder):
    for suffix in ("kg", "link"):
        (folder / "toy" / f"toy.{suffix}").unlink()


def with_features(folder):
    """An ``.item`` file with a column that RecBole's models read."""
    lines = (f"i{item}\t{'a b' if item % 3 else 'c'}" for item in range(1, 61))
    text = "\n".join(["item_id:token\tclass:token_seq", *lines]) + "\n"
    (folder / "toy" / "toy.item").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", ["GRU4Rec", "BPR", "KGCN", "StockKSR"])
def test_every_model_has_the_interactions_ids_and_split_of_ours(name, toy_folder):
    ours = load_dataset(Config("KSR", "toy", None, toy_values(toy_folder)))
    ours.build()
    _, theirs, *_ = views_of(name if name != "BPR" else "LightGCN", toy_folder)
    assert theirs.fingerprint == ours.fingerprint


@pytest.mark.parametrize("task", ["next-item", "next-session"])
@pytest.mark.parametrize("graph", [True, False])
def test_training_rows_are_the_training_part_and_nothing_of_what_follows(task, graph, toy_folder):
    if not graph:
        without_graph(toy_folder)
    config, dataset, loader, *_ = views_of("GRU4Rec", toy_folder, task=task, session_length=10_000)
    sequences, split = dataset.sequences, dataset.split
    expected = []
    for user in range(1, sequences.n_users):
        items = sequences.items[sequences.offsets[user] :][: split.train_end[user]].tolist()
        expected += [(user, items[max(0, k - 7) : k], items[k]) for k in range(1, len(items))]
    rows = loader._dataset.inter_feat
    found = [
        (int(u), seq[:n].tolist(), int(i))
        for u, seq, n, i in zip(
            rows["user_id"], rows["item_id_list"], rows["item_length"], rows["item_id"], strict=True
        )
    ]
    assert sorted(found) == sorted(expected)
    assert rows["item_id_list"].shape[1] == config["MAX_ITEM_LIST_LENGTH"]
    assert sum(len(batch) for batch in loader) == len(expected)


@pytest.mark.parametrize("name", ["GRU4Rec", "StockKSR"])
def test_rows_are_those_of_recboles_augmentation(name, toy_folder):
    _, dataset, loader, *_ = views_of(name, toy_folder)
    ours = loader._dataset
    theirs = WithSequences.build(load_views(dataset.config))[0]
    theirs.data_augmentation()
    assert set(ours.inter_feat.columns) == set(theirs.inter_feat.columns)
    for field in theirs.inter_feat.columns:
        found, wanted = ours.inter_feat[field], theirs.inter_feat[field]
        assert found.dtype == wanted.dtype and torch.equal(found, wanted), field


def test_negatives_know_nothing_of_what_a_user_has_later(toy_folder):
    changes = {"train_neg_sample_args": {"distribution": "popularity", "sample_num": 1}}
    _, dataset, loader, *_ = views_of("LightGCN", toy_folder, **changes)
    sequences, split = dataset.sequences, dataset.split
    indices, users = split.training_interactions(sequences)
    seen = {(int(u), int(i)) for u, i in zip(users, sequences.items[indices], strict=True)}
    sampler = loader._sampler
    for user in range(1, sequences.n_users):
        assert sampler.used_ids[user] == {i for u, i in seen if u == user}
    drawn = set(sampler.sample_by_user_ids(np.repeat(users, 40), None, 1).tolist())
    assert drawn <= {i for _, i in seen}, "popularity is that of the training part"
    later = {
        (user, int(sequences.items[sequences.offsets[user + 1] - 1]))
        for user in range(1, sequences.n_users)
    }
    uniform = views_of("LightGCN", toy_folder)[2]._sampler
    again = np.repeat([u for u, _ in later], 300)
    pairs = set(
        zip(again.tolist(), uniform.sample_by_user_ids(again, None, 1).tolist(), strict=True)
    )
    assert pairs & (later - seen), "a test item can be drawn like any other"
    assert not pairs & seen


def test_a_model_reads_in_evaluation_what_recboles_own_loader_gives_it(toy_folder):
    config, dataset, *_ = views_of("GRU4Rec", toy_folder)
    scorer = RecBoleScorer(None, config, dataset)
    users = np.arange(1, dataset.sequences.n_users)
    history = scorer.history(users, dataset.split.history_end("test")[users])
    own = Config("GRU4Rec", "toy", None, toy_values(toy_folder, **CUT))
    rows = recbole_dataset(own).build()[2]
    tokens = {name: rows.field2id_token[name] for name in ("user_id", "item_id")}
    theirs = {
        tokens["user_id"][u]: tokens["item_id"][seq[:n]].tolist()
        for u, seq, n in zip(
            rows.inter_feat["user_id"],
            rows.inter_feat["item_id_list"],
            rows.inter_feat["item_length"],
            strict=True,
        )
    }
    ids = dataset.field2id_token
    ours = {
        ids["user_id"][u]: ids["item_id"][seq[:n]].tolist()
        for u, seq, n in zip(
            history["user_id"], history["item_id_list"], history["item_length"], strict=True
        )
    }
    assert ours == theirs and history["item_id_list"].shape[1] == 7


def test_a_model_reads_the_features_of_users(toy_folder):
    rows = "".join(f"u{user}\tg{user % 4}\n" for user in range(30))
    (toy_folder / "toy" / "toy.user").write_text(f"user_id:token\tgroup:token\n{rows}")
    columns = {"inter": ["user_id", "item_id", "timestamp"], "user": ["user_id", "group"]}
    config, dataset, *_ = views_of("GRU4Rec", toy_folder, load_col=columns)
    users = np.array([3, 1, 2])
    history = RecBoleScorer(None, config, dataset).history(users, np.array([4, 4, 4]))
    ids = dataset.field2id_token
    expected = [f"g{int(ids['user_id'][user][1:]) % 4}" for user in users]
    assert ids["group"][history["group"]].tolist() == expected


def test_what_train_ratio_leaves_out_is_read_by_no_model(toy_folder):
    config, dataset, *_ = views_of("GRU4Rec", toy_folder, train_ratio=0.2)
    users = np.arange(1, dataset.sequences.n_users)
    ends = dataset.split.history_end("test")[users]
    history = RecBoleScorer(None, config, dataset).history(users, ends)
    begin = dataset.split.train_start[users]
    for row, user in enumerate(users):
        whole = dataset.sequences.items[dataset.sequences.offsets[user] :]
        read = history["item_id_list"][row, : history["item_length"][row]]
        assert read.tolist() == whole[begin[row] : ends[row]][-7:].tolist()
    assert ((begin > 0) & (ends - begin < 7)).any(), "not for its length alone"


@pytest.mark.parametrize("name", ["GRU4Rec", "CFKG", "DIN", "DIEN", "SHAN", "LightGCN"])
def test_one_pass_a_user_scores_as_pairs_do(name, toy_folder):
    config, dataset, loader, *_ = views_of(name, toy_folder)
    torch.manual_seed(0)
    model = model_class(name)(config, loader._dataset).eval()
    scorer = RecBoleScorer(model, config, dataset)
    users = np.arange(1, 9)
    ends = dataset.split.history_end("test")[users]
    calls = []
    for method in ("full_sort_predict", "predict"):
        original = getattr(model, method)
        setattr(model, method, lambda batch, f=original: calls.append(len(batch)) or f(batch))
    candidates = torch.from_numpy(np.random.default_rng(0).integers(1, 60, (8, 11)))
    with torch.no_grad():
        found = scorer.score_candidates(users, ends, candidates)
        everything = scorer.score_all(users, ends)
        assert torch.allclose(everything.gather(1, candidates), found.to(everything), atol=1e-6)
        assert calls[0] == 8, "one row a user"
        pairs = scorer._pairs(users, ends, candidates)
    if name not in ("DIN", "DIEN", "CFKG"):  # those have no other way
        order = found.argsort(1), pairs.to(found).argsort(1)
        assert torch.equal(*order)


def test_models_without_a_full_sort_are_asked_for_many_pairs_at_a_time(toy_folder, monkeypatch):
    config, dataset, loader, *_ = views_of("CFKG", toy_folder)
    model = model_class("CFKG")(config, loader._dataset).eval()
    users = np.arange(1, 9)
    ends = dataset.split.history_end("test")[users]
    candidates = torch.from_numpy(np.random.default_rng(0).integers(1, 60, (8, 11)))
    candidates[3, 5:] = 0  # padding
    predict, asked, tried = model.predict, [], []
    full_sort = model.full_sort_predict
    monkeypatch.setattr(model, "full_sort_predict", lambda b: tried.append(b) or full_sort(b))
    with torch.no_grad():
        theirs = PairScorer(model, config, dataset.sequences, dataset.split)
        wanted = theirs.score_candidates(users, ends, candidates)
        monkeypatch.setattr("ksr_recbole.evaluation.recbole_scorer.PAIRS", 4 * 7)
        monkeypatch.setattr(model, "predict", lambda b: asked.append(b["item_id"]) or predict(b))
        scorer = RecBoleScorer(model, config, dataset)
        found = scorer.score_candidates(users, ends, candidates)
        assert torch.equal(scorer.score_candidates(users, ends, candidates), found)
    assert len(tried) == 1, "it is asked once whether it has one"
    assert torch.equal(found, wanted.masked_fill(candidates == 0, 0))
    assert max(map(len, asked)) == 4 and torch.cat(asked).all(), "padding is never asked for"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_of_every_kind_gives_a_result_as_ours_do(name, toy_folder):
    result = toy_run(toy_folder, name, protocol="paper", **TINY)
    ours = toy_run(toy_folder, "GRU", epochs=1)
    assert result["candidates"] == ours["candidates"]
    assert result["metrics"].keys() == ours["metrics"].keys()
    assert {*result} == {*ours}
    for mode, phases in result["eval_results"].items():
        for phase, ranked in phases.items():
            assert np.array_equal(ranked.users, ours["eval_results"][mode][phase].users)


def test_equal_scores_and_scores_that_are_no_numbers_never_help(toy_folder, monkeypatch):
    model = model_class("GRU4Rec")

    def constant(self, batch):
        return torch.zeros(len(batch), self.n_items)

    monkeypatch.setattr(model, "full_sort_predict", constant)
    result = toy_run(toy_folder, "GRU4Rec", protocol="paper", **TINY)
    assert set(result["eval_results"]["uni5pop5"]["test"].ranks) == {11}
    monkeypatch.setattr(model, "full_sort_predict", lambda s, b: constant(s, b) * float("nan"))
    with pytest.raises(UserError, match="NaN"):
        toy_run(toy_folder, "GRU4Rec", protocol="paper", **TINY)
    monkeypatch.setattr(model, "full_sort_predict", lambda s, b: constant(s, b)[:, 1:])
    with pytest.raises(UserError, match=r"gave \d+ scores for 30 users and 61 items.*be ranked"):
        toy_run(toy_folder, "GRU4Rec", protocol="paper", **TINY)


class Stopped(KeyboardInterrupt):
    """Ctrl-C."""


def stopped_after(monkeypatch, epoch):
    begin = RecBoleTrainer._begin_epoch

    def stopping(self, data, number):
        if number > epoch:
            raise Stopped
        begin(self, data, number)

    monkeypatch.setattr(RecBoleTrainer, "_begin_epoch", stopping)


def resumed_run(folder, name, monkeypatch, values):
    """The result of a run that was stopped after its second epoch and then resumed."""
    with monkeypatch.context() as patch:
        stopped_after(patch, 1)
        with pytest.raises(Stopped):
            toy_run(folder, name, **values)
    return toy_run(folder, name, resume=True, **values)


@pytest.mark.parametrize("name", ["GRU4Rec", "BERT4Rec", "LightGCN", "KGCN", "MultiDAE", "CORE"])
def test_a_resumed_run_is_the_uninterrupted_one(name, toy_folder, monkeypatch):
    values = {**TINY, "epochs": 4, "protocol": "paper"}
    whole = toy_run(toy_folder, name, **values)
    resumed = resumed_run(toy_folder, name, monkeypatch, values)
    assert resumed["metrics"] == whole["metrics"] and resumed["epochs_trained"] == 4


@pytest.mark.parametrize("name", ["LightGCN", "NGCF"])
def test_the_best_epoch_of_a_resumed_run_is_the_one_tested(name, toy_folder, monkeypatch):
    """Also where it was before the interruption, and the model keeps what it scores with."""
    values = {**TINY, "epochs": 4, "protocol": "paper", "learning_rate": 3.0}
    scores = iter([0.5, 0.1, 0.1, 0.1, 0.5, 0.1, 0.1, 0.1])
    valid_epoch = RecBoleTrainer._valid_epoch

    def worse_and_worse(self, *given, **more):
        return next(scores), valid_epoch(self, *given, **more)[1]

    monkeypatch.setattr(RecBoleTrainer, "_valid_epoch", worse_and_worse)
    whole = toy_run(toy_folder, name, **values)
    resumed = resumed_run(toy_folder, name, monkeypatch, values)
    assert whole["best_epoch"] == resumed["best_epoch"] == 0
    assert resumed["metrics"] == whole["metrics"]


@pytest.mark.parametrize(
    "other",
    [{"learning_rate": 0.05}, {"train_batch_size": 64}, {"learner": "sgd"}, {"loss_type": "BPR"},
     {"MAX_ITEM_LIST_LENGTH": 10}, {"weight_decay": 0.1}],
)  # fmt: skip
def test_other_settings_are_not_resumed(other, toy_folder):
    values = {**TINY, "epochs": 1, "protocol": "paper"}
    toy_run(toy_folder, "GRU4Rec", **values)
    with pytest.raises(UserError, match=next(iter(other))):
        toy_run(toy_folder, "GRU4Rec", resume=True, **{**values, "epochs": 2, **other})
    assert toy_run(toy_folder, "GRU4Rec", resume=True, **{**values, "epochs": 2})


@pytest.mark.parametrize("protocol", ["paper", "recbole"])
@pytest.mark.parametrize("name", ["Pop", "ItemKNN"])
def test_a_model_without_epochs_is_validated_whatever_eval_step_is(name, protocol, toy_folder):
    values = {**TINY, "epochs": 3, "protocol": protocol}
    if protocol == "recbole":
        values |= {"eval_args": {"mode": "full"}, "metrics": ["MRR"], "valid_metric": "MRR@10"}
    often, seldom = (toy_run(toy_folder, name, eval_step=n, **values) for n in (1, 2))
    assert seldom["best_valid_score"] == often["best_valid_score"]
    assert seldom["test_result"] == often["test_result"]
    assert not often.get("longer")  # nothing trains it longer


def test_what_a_checkpoint_does_not_hold_is_not_resumed(toy_folder, monkeypatch):
    values = {**TINY, "epochs": 3, "protocol": "paper"}
    with monkeypatch.context() as patch:
        stopped_after(patch, 1)
        with pytest.raises(Stopped) as stopped:
            toy_run(toy_folder, "RecVAE", **values)
    assert stopped.value.checkpoint is None  # no command with it is printed
    with pytest.raises(UnusableCheckpointError, match="optimizer_decoder"):
        toy_run(toy_folder, "RecVAE", resume=True, **values)
    assert toy_run(toy_folder, "RecVAE", **values)["longer"] == {}


def test_weights_are_averaged_whichever_optimizer_steps(toy_folder):
    values = {**TINY, "epochs": 2, "protocol": "paper"}
    plain, averaged = (
        toy_run(toy_folder, "RecVAE", ema_decay=decay, **values) for decay in (None, 0.9)
    )
    assert plain["best_valid_score"] != averaged["best_valid_score"]


def test_the_best_epoch_is_used_with_what_no_file_holds(toy_folder):
    # Pop's counts are no weights; ItemKNN's and LightGCN's matrices neither.
    for name in ("Pop", "ItemKNN", "LightGCN"):
        saved = toy_run(toy_folder, name, protocol="paper", **{**TINY, "epochs": 3})
        plain = run(
            name, "toy", None, toy_values(toy_folder, protocol="paper", **{**TINY, "epochs": 3}),
            saved=False,
        )  # fmt: skip
        assert saved["metrics"] == plain["metrics"]
        assert saved["best_valid_score"] == saved["best_valid_result"]["mrr"]


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("FM", {}, "scores rows of features"),
        ("KGAT", {}, "imports dgl"),
        ("KGIN", {}, "imports torch_scatter"),
        ("S3Rec", {}, "run of its own"),
        ("RaCT", {}, "runs of their own"),
        ("LDiffRec", {"n_cate": 2}, "kmeans_pytorch"),
        ("KSR", {"protocol": "recbole"}, "leave it out"),
        ("SASRec", {"protocol": "papers"}, "must be one of: paper, recbole"),
        ("SASRec", {"task": "next-year"}, "There is no task"),
        ("SASRec", {"hidden_size": 63}, "stopped"),
        ("FEARec", {"nproc": 2}, "--nproc=1"),
        ("GRU4RecF", {"selected_features": ["colour"]}, r"features colour .*name features that"),
        ("FDSA", {"kge_epochs": 2}, r"features class \(selected_features\), but .*toy.item has"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(name, changes, told, toy_folder):
    with pytest.raises(UserError, match=told) as refusal:
        toy_run(toy_folder, name, **{"protocol": "paper", **TINY, **changes})
    assert "\n" not in str(refusal.value)
    assert not list((toy_folder / "saved").glob("*.pth"))


def test_a_model_of_graphs_is_refused_where_there_is_none(toy_folder):
    without_graph(toy_folder)
    for name in ("KGCN", "GRU4RecKG", "StockKSR"):
        with pytest.raises(UserError, match="needs a knowledge graph"):
            toy_run(toy_folder, name, protocol="paper", **TINY)


@pytest.mark.parametrize("name", ["SASRecF", "GRU4RecF", "FDSA", "DIN", "DIEN"])
def test_a_model_that_is_kept_with_its_dataset_runs_as_in_recbole(name, toy_folder):
    """RecBole pickles the dataset's class with their weights."""
    with_features(toy_folder)
    values = {**TINY, "selected_features": ["class"]}
    columns = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "class"]}
    own = {**values, "eval_args": {"mode": "uni5"}, "load_col": columns}
    assert toy_run(toy_folder, name, **own)["test_result"]
    [file] = (toy_folder / "saved").glob("*.pth")
    if name in ("SASRecF", "GRU4RecF", "FDSA"):
        content = torch.load(file, weights_only=False)  # which this test wrote
        assert type(content["other_parameter"]["feature_embed_layer"].dataset) is type(
            recbole_dataset(Config(name, "toy", None, toy_values(toy_folder, **own)))
        )


@pytest.mark.parametrize("name", ["DIN", "DIEN"])
def test_a_model_with_metrics_of_values_keeps_recboles_candidates(name, toy_folder):
    final = Config(name, "toy", None, {"data_path": str(toy_folder)})
    assert final["eval_args"]["mode"] == {"valid": "uni100", "test": "uni100"}
    assert final["metrics"] == ["AUC", "LogLoss"]
    assert Config("FM", "toy", None, {})["eval_args"]["mode"]["test"] == "labeled"
    assert Config("SASRec", "toy", None, {})["eval_args"]["mode"]["test"] == "full"


def test_a_model_that_is_pretrained_first_reads_what_it_wrote(toy_folder):
    own = {**TINY, "eval_args": {"mode": "full"}, "pretrain_epochs": 1, "save_step": 1}
    assert toy_run(toy_folder, "RaCT", **own)["test_result"]


@pytest.mark.parametrize("protocol", [None, "paper"])
@pytest.mark.parametrize(
    ("name", "told"),
    [("GRU4RecF", "item features class"), ("KGCN", "needs a knowledge graph")],
)
def test_what_the_files_lack_is_named_with_either_evaluation(protocol, name, told, toy_folder):
    without_graph(toy_folder)
    with pytest.raises(UserError, match=told):
        toy_run(toy_folder, name, protocol=protocol, eval_args={"mode": "full"}, **TINY)


def test_vectors_that_recbole_would_read_are_missed_in_a_sentence(toy_folder):
    with pytest.raises(UserError, match=r"There is no .*toy\.ent, .*--protocol=paper"):
        run("GRU4RecKG", "toy", None, {"data_path": str(toy_folder), "gpu_id": ""})


@pytest.mark.parametrize("name", ["GRU4RecKG", "KGCN"])
def test_a_graph_that_is_made_by_the_command_is_there_in_time(name, tmp_path, monkeypatch):
    """In a new checkout ml-100k has no atomic files until a command converts it."""
    made = prepare.prepare_atomic_files
    monkeypatch.setattr(
        prepare, "prepare_atomic_files", lambda config: made(write_toy(tmp_path) and config)
    )
    assert toy_run(tmp_path, name, protocol="paper", **TINY)["test_result"]


def test_what_is_printed_says_whose_evaluation_it_is(toy_folder, capsys):
    toy_run(toy_folder, "GRU4Rec", protocol="paper", **TINY)
    told = "".join(capsys.readouterr())
    assert "by that protocol" in told and "as RecBole does" not in told
    values = {**TINY, "hidden_size": 8, "embedding_size": 8, "train_neg_sample_args": None}
    run("GRU4Rec", "toy", None, toy_values(toy_folder, eval_args={"mode": "full"}, **values))
    assert "evaluated as RecBole does" in "".join(capsys.readouterr())


def test_rows_of_the_comparison_are_cells_that_are_kept(toy_folder, tmp_path, quick_workers):
    values = toy_values(toy_folder, **TINY)
    shared = ("data_path", "pretrain_dir", "data_cache_dir", "train_batch_size", "epochs")
    arguments = [f"--{key}={values[key]}" for key in shared]
    arguments += ["--eval_args.mode=uni5pop5", "--report_modes=uni5pop5", "--gpu_id="]
    arguments += ["--dataset=toy", f"--results_dir={tmp_path / 'out'}", "--kge_epochs=2"]
    names = "--models=KSR,GRU4Rec,LightGCN,StockKSR,KGAT"
    assert run_benchmark([*arguments, names]) == 1
    table = (tmp_path / "out" / "toy-table3.md").read_text()
    assert all(f"| {name}" in table for name in ("KSR", "GRU4Rec", "LightGCN", "StockKSR"))
    assert "imports dgl" in table
    cells = sorted((tmp_path / "out" / "benchmark" / "toy" / "cells").glob("*.json"))
    before = {cell: cell.stat().st_mtime_ns for cell in cells}
    assert len(before) == 4
    assert run_benchmark([*arguments, names.removesuffix(",KGAT")]) == 0
    assert {cell: cell.stat().st_mtime_ns for cell in cells} == before


def test_groups_of_recboles_models():
    for group in GROUPS:
        names = group_of(group)
        request = request_of(parser().read([f"--models={group}"]))
        assert [s.model for s in request.study.settings if s.model not in MODELS] == [
            name for name in names if name not in MODELS
        ]
    assert "KSR" not in group_of("recbole-sequential")
    assert {"SASRec", "KGAT", "LightGCN", "StockKSR", "KSR"} <= {*comparable()}
    with pytest.raises(UserError, match="did you mean SASRec"):
        request_of(parser().read(["--models=SASREC"]))
    with pytest.raises(UserError, match="no model named 'FM'"):
        request_of(parser().read(["--models=FM"]))


def test_a_row_reads_no_target(toy_folder):
    """Models that compute a loss on the way get a target that is none."""
    config, dataset, *_ = views_of("GRU4Rec", toy_folder)
    seen = []

    class Model:
        def full_sort_predict(self, batch: Interaction) -> torch.Tensor:
            seen.append(batch)
            return torch.zeros(len(batch), dataset.item_num)

    users = np.array([1, 2])
    RecBoleScorer(Model(), config, dataset).score_all(users, np.array([4, 5]))
    assert seen[0]["item_id"].tolist() == [0, 0]


def test_the_documented_table_has_every_model_once():
    lines = (Path(__file__).parents[1] / "docs" / "recbole-models.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in lines if "|" in line]
    families = {group.removeprefix("recbole-"): group_of(group) for group in GROUPS}
    for family, names in families.items():
        assert [name for name, kind, _ in rows if kind == family] == names
    told = {name: what for name, kind, what in rows if kind in families}
    assert {name for name, what in told.items() if what.startswith("a method")} == {
        name for names in families.values() for name in names if name in MODELS
    }
    assert {"S3Rec", "RaCT"} <= {name for name, what in told.items() if what.startswith("refused")}
    assert all(told[name] == "works" for name in FAMILIES)


def without_times(folder):
    path = folder / "toy" / "toy.inter"
    rows = [line.split("\t")[:2] for line in path.read_text().splitlines()]
    path.write_text("".join("\t".join(row) + "\n" for row in rows))


OWN = {"eval_args": {"mode": "full"}, "metrics": ["MRR"], "valid_metric": "MRR@10", "epochs": 1}


@pytest.mark.parametrize(
    ("name", "wanted"), [("LightGCN", "--eval_args.order=RO"), ("SASRec", "TIME_FIELD")]
)
def test_recboles_evaluation_says_that_there_are_no_times(name, wanted, toy_folder):
    without_times(toy_folder)
    values = {"data_path": str(toy_folder), "gpu_id": "", "eval_args": {"order": "TO"}}
    with pytest.raises(
        UserError, match=r"toy\.inter has no column timestamp with the times"
    ) as told:
        run(name, "toy", None, values)
    assert wanted in str(told.value)


class RecBolesConfig(RecBoleConfig):
    def compatibility_settings(self) -> None:
        """Nothing: RecBole's asks NumPy for names that it has removed."""


RANDOM = {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": "user"}
LAST = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user"}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("LightGCN", RANDOM),
        ("Pop", RANDOM),
        ("KGCN", RANDOM),
        ("FM", {**RANDOM, "group_by": None}),
        ("SASRec", LAST),
    ],
)
def test_recboles_evaluation_splits_as_recbole_does(name, wanted, toy_folder):
    loss = {"train_neg_sample_args": None} if name == "SASRec" else {}  # RecBole's CE demands it
    values = {"data_path": str(toy_folder), "gpu_id": "", **loss}
    found = Config(name, "toy", None, values)["eval_args"]
    recboles = RecBolesConfig(name, "toy", None, values)["eval_args"]
    assert found == recboles and {key: found[key] for key in wanted} == wanted
    # RecBole forgets its model's own eval_args where some are given; here they stay.
    part = Config(name, "toy", None, {**values, "eval_args": {"mode": "uni100"}})["eval_args"]
    assert part == {**found, "mode": {"valid": "uni100", "test": "uni100"}}


COUNTED = ("ItemCoverage", "AveragePopularity", "GiniIndex", "ShannonEntropy", "TailPercentage")


@pytest.mark.parametrize("metric", COUNTED)
def test_metrics_that_need_counts_are_computed(metric, toy_folder):
    """RecBole 1.2.1 takes the counts for tensors and stops."""
    values = {"data_path": str(toy_folder), "gpu_id": "", "metrics": ["MRR", metric], "epochs": 1}
    found = run("SASRec", "toy", None, {**values, "show_progress": False})
    assert found["test_result"][f"{metric.lower()}@10"] > 0
    assert found["best_valid_result"][f"{metric.lower()}@10"] > 0


def test_recboles_evaluation_in_a_random_order_needs_no_times(toy_folder):
    without_times(toy_folder)
    values = toy_values(toy_folder, **{**OWN, "eval_args": {"mode": "full", "order": "RO"}})
    assert run("LightGCN", "toy", None, values)["test_result"]


@pytest.mark.parametrize("values", [{}, {"eval_args": {"mode": "full"}}])
def test_what_recbole_cannot_do_with_the_data_is_said(values, toy_folder):
    with (toy_folder / "toy" / "toy.inter").open("a") as file:
        file.writelines(f"hungry\ti{item}\t{2_000_000 + item}\n" for item in range(1, 61))
    with pytest.raises(UserError, match=r"dataset toy .*ValueError"):
        run("LightGCN", "toy", None, {"data_path": str(toy_folder), "gpu_id": "", **values})
