"""The interpretability study: every measure against plain loops, and the study as a whole."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ttest_rel

from ksr_recbole.comparison import cli, runner
from ksr_recbole.comparison.results import Row
from ksr_recbole.comparison.store import Failed, Finished
from ksr_recbole.comparison.studies import STUDIES
from ksr_recbole.dataset.dataloader import SequenceEvalData
from ksr_recbole.dataset.sequence_datasets import KGSequenceDataset
from ksr_recbole.errors import UserError
from ksr_recbole.explanation import value_entities as batching
from ksr_recbole.explanation.value_entities import ValueEntities
from ksr_recbole.interpretability import method_tables
from ksr_recbole.interpretability.attribute_level import CHOICES, training_agreement
from ksr_recbole.interpretability.cases import Cases
from ksr_recbole.interpretability.measures import measure_explanations
from ksr_recbole.interpretability.method_tables import (
    attribute_table,
    reason_table,
    short_table,
)
from ksr_recbole.interpretability.methods import OWN, Explained
from ksr_recbole.interpretability.study_report import as_json
from ksr_recbole.interpretability.value_level import (
    EXPECTED,
    RANKING_MEASURES,
    RANKINGS,
    TiedRanks,
)
from ksr_recbole.quick_start import run
from tests import benchmark_fakes as fakes
from tests.models import make_model
from tests.mutations import paths_in, with_other, without
from tests.toy import SMALL, toy_values

STUDY = STUDIES["interpretability"]


def add_triples(folder: Path) -> None:
    """Second directors, an attribute that few items have, and one with a single entity."""
    lines = []
    for k in range(2, 60):
        lines += [f"e{k}\tfilm.director\td{k % 7}"] if k % 3 == 0 else []
        lines += [f"e{k}\tfilm.award\ta{k % 5}"] if k % 4 == 0 else []
        lines += [f"e{k}\tfilm.studio\ts0"]
    with (folder / "toy" / "toy.kg").open("a") as file:
        file.write("\n".join(lines) + "\n")


def measured(config: Any, dataset: KGSequenceDataset, model: Any = None) -> Any:
    model = model or make_model(config, dataset)
    data = SequenceEvalData(config, dataset, "test")
    return measure_explanations(SimpleNamespace(model=model, config=config), data)


@pytest.fixture
def exact_config(toy_config: Callable[..., Any]) -> Callable[..., Any]:
    """As ``toy_config``, with the memory that reads and writes float64 too."""
    return lambda **changes: toy_config(memory_backend="torch", **changes)


def built(config: Any) -> KGSequenceDataset:
    dataset = KGSequenceDataset(config)
    dataset.build()
    return dataset


# Ranks ----------------------------------------------------------------------------------------


def rank(scores: list[float], true: set[int], entity: int) -> int:
    """Filtered rank with ties above, as a plain loop."""
    return 1 + sum(
        score >= scores[entity] for other, score in enumerate(scores) if other not in true
    )


def test_ranks_of_a_small_example_by_hand():
    scores = torch.tensor([[3.0, 1.0, 1.0, 1.0, 0.0]])
    ranks_ = TiedRanks.of(scores, np.zeros(2, int), np.array([1, 4]), np.zeros(2, int))
    # Entity 1: 3.0 is better, two false ones tie.  Entity 4: all three false ones are better.
    assert ranks_.better.tolist() == [1, 3] and ranks_.equal.tolist() == [2, 0]
    assert ranks_.reciprocal().tolist() == [1 / 4, 1 / 4]
    assert ranks_.expected_reciprocal() == pytest.approx([(1 / 2 + 1 / 3 + 1 / 4) / 3, 1 / 4])
    assert ranks_.hit(3).tolist() == [0, 0] and ranks_.hit(4).tolist() == [1, 1]
    assert ranks_.expected_hit(3) == pytest.approx([2 / 3, 0])


def test_expectations_are_means_over_all_orders_of_the_tied():
    scores, true = [2.0, 1.0, 1.0, 1.0, 1.0, 0.5], 3
    ranks_ = TiedRanks.of(
        torch.tensor([scores]), np.zeros(1, int), np.array([true]), np.zeros(1, int)
    )
    ranks = []
    for order in permutations(range(6)):
        by_score = sorted(order, key=lambda entity: -scores[entity])  # stable: the order decides
        ranks.append(1 + by_score.index(true))
    assert ranks_.expected_reciprocal() == pytest.approx(np.mean(1 / np.array(ranks)))
    for cut in range(1, 7):
        assert ranks_.expected_hit(cut) == pytest.approx(np.mean(np.array(ranks) <= cut))


def test_ranks_with_many_ties_and_several_true_entities():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (5, 9)).astype(float)
    rows, columns, lists = [], [], []
    for number in range(12):  # several lists of a row, as in next-session
        for column in rng.permutation(9)[: rng.integers(1, 5)]:
            rows.append(number * 5 // 12)
            columns.append(column)
            lists.append(number)
    ranks_ = TiedRanks.of(torch.from_numpy(scores), *map(np.array, (rows, columns, lists)))
    for k, (row, column) in enumerate(zip(rows, columns, strict=True)):
        true = {c for c, number in zip(columns, lists, strict=True) if number == lists[k]}
        assert ranks_.reciprocal()[k] == 1 / rank(list(scores[row]), true, column)


# Plain loops ----------------------------------------------------------------------------------


class Loops:
    """The measures as plain loops in float64, from the triples and the sequences."""

    def __init__(self, dataset: KGSequenceDataset, model: Any) -> None:
        self.dataset, self.model = dataset, model
        self.names = [dataset.field2id_token["relation_id"][a] for a in dataset.attributes]
        self.has: list[dict[int, set[int]]] = []
        for attribute in dataset.attributes:
            has = {item: set() for item in range(1, dataset.item_num)}
            for head, relation, tail in dataset.triples.tolist():
                for item, entities in has.items():
                    if relation == attribute and head == dataset.item_entities[item]:
                        entities.add(tail)
            self.has.append(has)
        self.popularity = [Counter() for _ in self.has]
        for items in self.training():
            for item in items:
                for popularity, has in zip(self.popularity, self.has, strict=True):
                    popularity.update(has[item])

    def cases(self):
        """User, history and different test items of every user who has some."""
        sequences, split = self.dataset.sequences, self.dataset.split
        for user in range(1, sequences.n_users):
            whole = sequences.items[sequences.offsets[user] : sequences.offsets[user + 1]].tolist()
            if tests := list(dict.fromkeys(whole[split.valid_end[user] :])):
                yield user, whole[: split.valid_end[user]], tests

    def training(self):
        sequences, split = self.dataset.sequences, self.dataset.split
        for user in range(1, sequences.n_users):
            begin = sequences.offsets[user]
            yield sequences.items[begin : begin + split.train_end[user]].tolist()

    def state(self, history: list[int]):
        _, state = self.model(torch.tensor([history]))
        values = self.model.value_matrices(state)[0].detach().numpy()
        return values, self.model.attention(state.hidden[-1])[0].detach().numpy()

    def chances(self, history: list[int]) -> list[float]:
        """By item, how much of the model's expectation is on it; padding is no item."""
        length = torch.tensor([len(history)])
        read = self.model.read_last(torch.zeros(1).long(), torch.tensor([history]), length)
        return [0.0, *self.model.all_scores(read)[0, 1:].softmax(0).tolist()]

    def scores(
        self, ranking: str, a: int, entity: int, values, history: list[int], chances: list[float]
    ) -> float:
        popularity = self.popularity[a][entity]
        frequency = sum(entity in self.has[a][item] for item in history)
        if ranking == "memory":
            vector = self.model.entity_vectors(torch.tensor(entity)).detach().numpy()
            return -sum(abs(x - y) for x, y in zip(values[a], vector, strict=True))
        if ranking == EXPECTED:
            return sum(chances[item] for item, found in self.has[a].items() if entity in found)
        return {
            "frequency": frequency,
            "frequency-popularity": frequency + popularity * 1e-6,
            "popularity": popularity,
        }[ranking]

    def value_level(self) -> dict[tuple[str, str, int], dict[int, float]]:
        """By ranking, metric and attribute: each user's mean."""
        found: dict[tuple[str, str, int], dict[int, float]] = {}
        for user, history, tests in self.cases():
            values, _ = self.state(history)
            given = values, history, self.chances(history)
            for a, has in enumerate(self.has):
                entities = sorted(set().union(*has.values()))
                for ranking in (*RANKINGS, EXPECTED):
                    if ranking == "random":
                        scores = dict.fromkeys(entities, 0.0)
                    else:
                        scores = {e: self.scores(ranking, a, e, *given) for e in entities}
                    means = [self.item(scores, has[i]) for i in tests if has[i]]
                    means = [mean for mean in means if mean]
                    for metric in RANKING_MEASURES:
                        if means:
                            name = metric
                            if ranking == "random" and not metric.startswith("expected"):
                                name = f"expected_{metric}"
                            mean = float(np.mean([m[name] for m in means]))
                            found.setdefault((ranking, metric, a), {})[user] = mean
        return found

    def item(self, scores: dict[int, float], true: set[int]) -> dict[str, float] | None:
        """Means over the true entities of an item, ``None`` if there is no other entity."""
        false = [entity for entity in scores if entity not in true]
        if not false:
            return None
        found = {metric: [] for metric in RANKING_MEASURES}
        for entity in true:
            better = sum(scores[e] > scores[entity] for e in false)
            equal = sum(scores[e] == scores[entity] for e in false)
            possible = np.arange(better + 1, better + equal + 2)
            found["mrr"].append(1 / possible[-1])
            found["hit@10"].append(possible[-1] <= 10)
            found["expected_mrr"].append(np.mean(1 / possible))
            found["expected_hit@10"].append(np.mean(possible <= 10))
        return {metric: float(np.mean(values)) for metric, values in found.items()}

    def agrees(self, item: int, before: list[int], a: int) -> bool:
        return any(self.has[a][item] & self.has[a][other] for other in before)

    def attribute_level(self, window: int) -> dict[str, float]:
        n = len(self.has)
        counts, total = Counter(), 0
        for items in self.training():
            for t in range(1, len(items)):
                total += 1
                for a in range(n):
                    counts[a] += self.agrees(items[t], items[max(0, t - window) : t], a)
        majority = max(range(n), key=lambda a: counts[a])
        found = {choice: [] for choice in CHOICES}
        for _, history, tests in self.cases():
            largest = int(np.argmax(self.state(history)[1]))
            rows = [[self.agrees(i, history[-window:], a) for a in range(n)] for i in tests]
            found["attention"].append(np.mean([row[largest] for row in rows]))
            found["majority"].append(np.mean([row[majority] for row in rows]))
            found["chance"].append(np.mean(rows))
            found["any"].append(np.mean([any(row) for row in rows]))
        means = {choice: float(np.mean(values)) for choice, values in found.items()}
        return means | {"rates": {a: counts[a] / total for a in range(n)}}


@pytest.mark.parametrize("kind", ["private", "shared"])
@pytest.mark.parametrize("task", ["next-item", "next-session"])
def test_the_measures_are_those_of_plain_loops(toy_folder, exact_config, monkeypatch, task, kind):
    add_triples(toy_folder)
    config = exact_config(task=task, session_length=3600, value_matrix=kind, gate_bias=-2.0)
    dataset = built(config)
    model = make_model(config, dataset).eval()
    monkeypatch.setattr(batching, "_CELLS", 100)  # batches of a few users
    told, arrays = measured(config, dataset, model)
    loops = Loops(dataset, model)
    expected = loops.value_level()
    assert told["positives"] == sum(len(tests) for _, _, tests in loops.cases())
    assert (told["positives"] > told["users"]) == (task == "next-session")
    assert list(told["values"]["left_out"]) == ["film.studio"]
    ranked = [a for a, name in enumerate(loops.names) if name != "film.studio"]
    for ranking in (*RANKINGS, EXPECTED):
        for metric in RANKING_MEASURES:
            by_attribute = {a: expected[ranking, metric, a] for a in ranked}
            for a, of_users in by_attribute.items():
                figures = told["values"]["attributes"][loops.names[a]]
                assert figures["users"] == len(of_users)
                assert figures[ranking][metric] == pytest.approx(np.mean([*of_users.values()]))
            overall = told["values"]["overall"][ranking]
            means = [np.mean([*of_users.values()]) for of_users in by_attribute.values()]
            pairs = [v for of_users in by_attribute.values() for v in of_users.values()]
            assert overall["macro"][metric] == pytest.approx(np.mean(means))
            assert overall["micro"][metric] == pytest.approx(np.mean(pairs))
            for user, value in zip(
                arrays["values/users"], arrays[f"values/{ranking}/{metric}"], strict=True
            ):
                own = [of_users[user] for of_users in by_attribute.values() if user in of_users]
                assert value == pytest.approx(np.mean(own))
    for rival, pair in told["reasons"]["expected"].items():
        means = [arrays[f"values/{name}/mrr"].mean() for name in (EXPECTED, rival)]
        assert [pair["first"], pair["second"]] == pytest.approx(means)
    for window in (1, 10):
        found, metric = loops.attribute_level(window), f"agreement@{window}"
        for choice in CHOICES:
            assert told["attention"]["overall"][choice][metric] == pytest.approx(found[choice])
            assert arrays[f"attention/{choice}/{metric}"].mean() == pytest.approx(found[choice])
        rates = [*told["attention"][metric]["training"].values()]
        assert rates == pytest.approx([*found["rates"].values()])


# Known answers --------------------------------------------------------------------------------


class NoReasons:
    """Instead of the reasons, where a model answers for one batch of all users only."""

    def __init__(self, knowledge, cases, model):
        self.n_items = model.n_items

    def read(self, batch, items, lengths):
        return torch.zeros(len(items), self.n_items)

    def summary(self):
        return {}, {}


@pytest.fixture
def without_reasons(monkeypatch):
    monkeypatch.setattr("ksr_recbole.interpretability.measures.ReasonLevel", NoReasons)


def test_value_vectors_that_are_the_true_entities_are_always_right(
    exact_config, toy_dataset, monkeypatch, without_reasons
):
    config = exact_config()
    model = make_model(config, toy_dataset)
    data = SequenceEvalData(config, toy_dataset, "test")
    cases = Cases.of(toy_dataset.sequences, toy_dataset.split, data)
    entities = ValueEntities.of(toy_dataset)
    found = zip(entities.ranges, entities.of_items, strict=True)
    ids = np.stack([ids[of_items.argmax(1).A1] for ids, of_items in found], 1)  # one each
    ids = ids[cases.items]
    vectors = model.entity_vectors(torch.from_numpy(ids))
    monkeypatch.setattr(model, "value_matrices", lambda state: vectors)
    told, _ = measured(config, toy_dataset, model)
    assert told["values"]["overall"]["memory"]["macro"] == dict.fromkeys(RANKING_MEASURES, 1.0)
    monkeypatch.setattr(model, "value_matrices", lambda state: vectors * 0 + 1e6)
    told, _ = measured(config, toy_dataset, model)
    assert told["values"]["overall"]["memory"]["macro"]["mrr"] < 0.9


def test_attention_on_one_attribute_agrees_as_often_as_that_attribute(
    exact_config, toy_dataset, monkeypatch
):
    config = exact_config()
    model = make_model(config, toy_dataset)
    rates = set()
    for a, name in enumerate(["film.genre", "film.director", "film.country"]):
        fixed = torch.eye(3, dtype=torch.float64)[a]
        monkeypatch.setattr(model, "attention", lambda hidden, w=fixed: w.expand(len(hidden), 3))
        told, _ = measured(config, toy_dataset, model)
        assert told["attention"]["largest"][name] == 1
        for metric in ("agreement@1", "agreement@10"):
            rate = told["attention"][metric]["test"][name]
            assert told["attention"]["overall"]["attention"][metric] == pytest.approx(rate)
            rates.add(rate)
            chance = np.mean([*told["attention"][metric]["test"].values()])
            assert told["attention"]["overall"]["chance"][metric] == pytest.approx(chance)
    assert len(rates) > 3


def test_attention_that_knows_the_answer_is_the_best_possible(
    exact_config, toy_dataset, monkeypatch, without_reasons
):
    config = exact_config()
    model = make_model(config, toy_dataset)
    loops = Loops(toy_dataset, model.eval())
    best = [
        [float(loops.agrees(tests[0], history[-1:], a)) for a in range(3)]
        for _, history, tests in loops.cases()
    ]
    monkeypatch.setattr(model, "attention", lambda hidden: torch.tensor(best))
    overall = measured(config, toy_dataset, model)[0]["attention"]["overall"]
    assert overall["attention"]["agreement@1"] == overall["any"]["agreement@1"] > 0
    assert overall["attention"]["agreement@1"] > overall["majority"]["agreement@1"]


def test_a_shared_matrix_ranks_alike_for_everyone(exact_config):
    config = exact_config(value_matrix="shared")
    dataset = built(config)
    _, arrays = measured(config, dataset)
    last = dataset.sequences.items[dataset.sequences.offsets[2:] - 1]  # the test items
    by_item: dict[int, set[float]] = {}
    for item, value in zip(last, arrays["values/memory/mrr"], strict=True):
        by_item.setdefault(int(item), set()).add(round(value, 12))
    assert len(by_item) < len(last) and all(len(values) == 1 for values in by_item.values())


# No leak --------------------------------------------------------------------------------------


def test_nothing_held_out_is_looked_at(exact_config, toy_dataset):
    """Other validation and test items change no count of training, other test items no history."""
    sequences, split = toy_dataset.sequences, toy_dataset.split
    entities = ValueEntities.of(toy_dataset)
    data = SequenceEvalData(exact_config(), toy_dataset, "test")
    users = np.arange(sequences.n_users)

    def shifted(begin: np.ndarray) -> Any:
        at = sequences.spans(users, begin, sequences.lengths)
        items = sequences.items.copy()
        items[at] = items[at] % (sequences.n_items - 1) + 1
        assert (items != sequences.items).any()
        return replace(sequences, items=items)

    before = Cases.of(sequences, split, data)
    held_out = shifted(split.train_end)
    after = Cases.of(held_out, split, data)
    assert (after.items != before.items).all()
    assert np.array_equal(after.training_counts, before.training_counts)
    for window in (1, 10):
        one, other = (training_agreement(entities, s, split, window) for s in (sequences, held_out))
        assert np.array_equal(one, other)
    assert (after.histories != before.histories).nnz > 0  # validation is part of the history
    tested = Cases.of(shifted(split.valid_end), split, data)
    assert (tested.items != before.items).all()
    assert (tested.histories != before.histories).nnz == 0
    assert before.training_counts.sum() == split.train_end.sum()


def test_histories_begin_where_training_does(exact_config):
    config = exact_config(train_ratio=0.4)
    dataset = built(config)
    cases = Cases.of(dataset.sequences, dataset.split, SequenceEvalData(config, dataset, "test"))
    read = dataset.split.valid_end - dataset.split.train_start
    assert cases.histories.sum() == read[cases.users].sum() < dataset.split.valid_end.sum()


# Refusals -------------------------------------------------------------------------------------


def test_attributes_that_cannot_be_ranked(toy_folder, exact_config):
    path = toy_folder / "toy" / "toy.kg"
    lines = [line for line in path.read_text().splitlines() if "film." not in line]
    lines += [f"e{k}\tfilm.studio\ts0" for k in range(1, 60)]
    path.write_text("\n".join(lines) + "\n")
    config = exact_config()
    with pytest.raises(UserError, match="No attribute can be ranked"):
        measured(config, built(config))


def test_models_without_a_memory_are_refused(exact_config, toy_dataset, toy_folder):
    with pytest.raises(UserError, match="Linear has no memory of attributes"):
        measured(exact_config(), toy_dataset, torch.nn.Linear(1, 1))
    values = toy_values(toy_folder)
    values = {key: value for key, value in values.items() if key != "eval_args"}
    with pytest.raises(UserError, match="Nothing can be measured on LightGCN"):
        run("LightGCN", "toy", None, values, measure=measure_explanations)


# The study ------------------------------------------------------------------------------------


@pytest.fixture
def command(toy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments of a small benchmark whose cells are trained in this process."""

    def run_jobs(jobs: Any, workers: int, observer: Any, gpus: Any) -> None:
        for job in jobs:
            observer.started(job)
            observer.ended(job, fakes.worker_run_cell(job))

    monkeypatch.setattr(runner, "run_jobs", run_jobs)
    values = {key: value for key, value in SMALL.items() if key != "eval_args"}
    values |= {"eval_args.mode": "uni5pop5", "epochs": 1, "data_path": toy_folder}
    values |= {key: toy_folder / "made" / key for key in ("pretrain_dir", "data_cache_dir")}
    values["results_dir"] = toy_folder / "results"
    return ["--dataset=toy", *(f"--{key}={value}" for key, value in values.items())]


def written(toy_folder: Path) -> dict[str, Any]:
    return json.loads((toy_folder / "results" / "toy-interpretability.json").read_text())


def test_the_study_from_command_to_files(command, toy_folder, capsys):
    add_triples(toy_folder)
    # A cell without the measures is not taken for one with.
    assert cli.main([*command, "--models=KSR"]) == 0
    study = [*command, "--study=interpretability"]
    capsys.readouterr()
    assert cli.main(study) == 0
    first = capsys.readouterr()
    assert first.err.count("started") == 4
    found = written(toy_folder)
    [result] = found["results"]
    labels = [setting.label for setting in STUDY.settings]
    others = ["user's frequency", "user's frequency, then popularity", "popularity", "random order"]
    assert [row["label"] for row in result["values"]] == [*labels, *others]
    assert result["left_out"] == {"film.studio": "it has a single entity"}
    assert "Left out: film.studio, since it has a single entity." in first.out
    private, shared, *_ = result["values"]
    assert private["macro"]["mrr"]["mean"] != shared["macro"]["mrr"]["mean"]
    assert f"{private['macro']['mrr']['mean']:.4f}" in first.out
    assert shared["p_values"]["mrr"] <= 1 and private["p_values"] == {}
    assert set(private["attributes"]) == {*result["attributes"]} - {"film.studio"}
    best = result["attention"][-1]
    assert best["label"] == "best possible"
    for row in result["attention"]:
        for metric in ("agreement@1", "agreement@10"):
            assert row["metrics"][metric]["mean"] <= best["metrics"][metric]["mean"] <= 1
    assert all("measures" not in cell["result"] for cell in found["cells"])
    for suffix in ("md", "tex", "png"):
        assert (toy_folder / "results" / f"toy-interpretability.{suffix}").stat().st_size > 500
    assert (
        "film.director | 12 |" in (toy_folder / "results" / "toy-interpretability.md").read_text()
    )
    # What was measured is kept, and serves the studies that do not ask for it.
    assert cli.main(study) == 0
    second = capsys.readouterr()
    assert "started" not in second.err and second.out == first.out
    assert cli.main([*command, "--study=value-matrix", "--task=next-item"]) == 0
    assert "started" not in capsys.readouterr().err


def test_a_dataset_without_a_graph_is_refused_with_the_reason(command, toy_folder, capsys):
    for suffix in ("kg", "link"):
        (toy_folder / "toy" / f"toy.{suffix}").unlink()
    assert cli.main([*command, "--study=interpretability"]) == 2
    assert "error: KSR needs a knowledge graph, but" in capsys.readouterr().err
    assert not (toy_folder / "results").exists()


def test_a_study_of_some_rows(command, toy_folder, capsys):
    study = [*command, "--study=interpretability", "--task=next-item"]
    assert cli.main([*study, "--models=KSR-paper", "--value_matrix=shared"]) == 0
    told = capsys.readouterr()
    assert "Left out, since value_matrix shared was given: KSR-paper, private." in told.err
    (result,) = json.loads((toy_folder / "results" / "toy-interpretability.json").read_text())[
        "results"
    ]
    own = [row["label"] for row in result["values"] if row["name"] == "memory"]
    assert own == [result["reference"]] == ["KSR-paper, shared"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["--models=GRU"], "has no row of GRU; its models are KSR, KSR-paper."),
        (["--value_matrix=none"], "value_matrix"),
        (["--value_matrix=exact"], "The study interpretability has no row with value_matrix exact"),
    ],
)  # fmt: skip
def test_a_study_without_a_row_is_refused(changes, told, command, toy_folder, capsys):
    assert cli.main([*command, "--study=interpretability", *changes]) == 2
    assert told in capsys.readouterr().err
    assert not (toy_folder / "results").exists()


def seeds_of(config: Callable[..., Any], dataset: KGSequenceDataset) -> dict[int, Finished]:
    """Cells of two seeds, each of another random model."""
    cells = {}
    for seed in (2020, 2021):
        model = make_model(config(), dataset)
        with torch.no_grad():
            model.entity_embedding.weight.mul_(seed - 2019)
            model.query_mlp[0].weight.mul_(2020 - seed)
        told, arrays = measured(config(), dataset, model)
        cells[seed] = Finished({"resumed": False, "result": {"measures": told}}, {}, arrays)
    return cells


def test_tables_over_seeds_and_with_a_failure(exact_config, toy_dataset):
    cells = seeds_of(exact_config, toy_dataset)
    one, two, three, four = STUDY.settings
    single = {2020: cells[2020], 2021: cells[2020]}
    rows = [
        Row(one, "next-item", cells),
        Row(two, "next-item", {2020: cells[2020], 2021: Failed("it fell over")}),
        Row(three, "next-item", single),
        Row(four, "next-item", cells),
    ]
    explained = Explained.of(rows, "next-item", one.label)
    table = short_table(explained, "values", "toy")
    assert [line.rule_above for line in table.lines] == [False, False, True, False, True] + [
        False
    ] * 3
    first, failed, third, fourth, *others = table.lines
    assert failed.error == "it fell over"
    seeds = [
        cell.result["measures"]["values"]["overall"]["memory"]["macro"]["mrr"]
        for cell in cells.values()
    ]
    assert seeds[0] != seeds[1]
    assert first.cells[1].mean == pytest.approx(np.mean(seeds))
    assert first.cells[1].std == pytest.approx(np.std(seeds, ddof=1))
    assert others[0].cells[1].std is None  # the same under every seed
    assert not fourth.cells[1].dagger  # equal for every user
    mine = np.mean([cell.measured["values/memory/mrr"] for cell in cells.values()], axis=0)
    theirs = cells[2020].measured["values/memory/mrr"]
    test = explained.compare(explained.methods["values"][2], "mrr")
    assert test.p_value == pytest.approx(ttest_rel(mine, theirs).pvalue)
    assert third.cells[1].dagger == (test.difference > 0 and test.p_value < 0.01)
    for column in range(5):
        means = [line.cells[column].mean for line in table.lines if line.error is None]
        bold = [line.cells[column].best for line in table.lines if line.error is None]
        assert bold == [mean == max(means) for mean in means]
    assert "Mean and standard deviation over seeds." in table.notes
    shares = [cell.result["measures"]["reasons"]["readable"] for cell in cells.values()]
    readable = reason_table(explained, "toy").lines[0].cells[0]
    assert shares[0] != shares[1] and readable == f"{np.mean(shares):.1%}"
    attention = short_table(explained, "attention", "toy")
    assert not any(value.best or value.dagger for value in attention.lines[-1].cells)
    by_attribute = attribute_table(explained, "toy")
    columns = by_attribute.columns
    assert columns[:3] == ("entities", "users", one.label) and two.label not in columns
    for line in by_attribute.lines:
        most = max(value.mean for value in line.cells[2:])
        assert [value.best for value in line.cells[2:]] == [v.mean == most for v in line.cells[2:]]


@pytest.mark.parametrize(("p", "told"), [(0.0, "< 1e-99"), (2e-9, "2e-09"), (0.25, "0.2")])
def test_no_p_value_is_shown_as_zero(p, told):
    seeds = [{"first": 0.5, "second": 0.25, "p_value": each} for each in (0.0, p)]
    assert method_tables._pair(seeds, ()) == f"0.5000 / 0.2500 ({told})"


@pytest.mark.parametrize(("shown", "dagger"), [(0.4, True), (0.5, False), (0.6, False)])
def test_no_method_with_a_higher_figure_is_marked_as_worse(
    shown, dagger, exact_config, toy_dataset
):
    cell = seeds_of(exact_config, toy_dataset)[2020]
    told, arrays = deepcopy(cell.result["measures"]), dict(cell.measured)
    rng = np.random.default_rng(0)
    theirs = arrays["values/random/mrr"]
    arrays["values/memory/mrr"] = theirs + rng.uniform(0.1, 0.2, len(theirs))
    told["values"]["overall"]["memory"]["macro"]["mrr"] = 0.5
    told["values"]["overall"]["random"]["macro"]["mrr"] = shown
    other = Finished({**cell.record, "result": {"measures": told}}, {}, arrays)
    label = STUDY.settings[0].label
    explained = Explained.of([Row(STUDY.settings[0], "next-item", {1: other})], "next-item", label)
    table = short_table(explained, "values", "toy")
    [line] = [line for line in table.lines if line.label == "random order"]
    assert line.cells[1].mean == shown and line.cells[1].dagger == dagger


def test_measures_of_another_form_are_refused(exact_config, toy_dataset):
    cell = seeds_of(exact_config, toy_dataset)[2020]
    told = cell.result["measures"]
    refused = 0
    for place in paths_in(told, 4):
        for changed in (without(told, place), with_other(told, place, "x")):
            other = Finished({**cell.record, "result": {"measures": changed}}, {}, cell.measured)
            rows = [Row(STUDY.settings[0], "next-item", {1: cell, 2: other})]
            try:
                explained = Explained.of(rows, "next-item", STUDY.settings[0].label)
            except UserError as error:
                assert str(error).startswith("The finished cell ") and "delete" in str(error)
                refused += 1
            else:  # what is not shown may be anything
                as_json(explained)
                attribute_table(explained, "toy")
                [short_table(explained, level, "toy") for level in OWN]
                reason_table(explained, "toy")
    assert refused > 100
    for name in ("values/users", "attention/any/agreement@10"):
        arrays = {**cell.measured, name: cell.measured[name][:-1]}
        rows = [Row(STUDY.settings[0], "next-item", {1: Finished(cell.record, {}, arrays)})]
        with pytest.raises(UserError, match="of every user"):
            Explained.of(rows, "next-item", None)
