"""Averaged weights, against a plain loop and in whole runs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ksr_recbole.config import Config
from ksr_recbole.errors import UserError
from ksr_recbole.quick_start import run
from ksr_recbole.quick_start.prepare import load_data, make_trainer
from ksr_recbole.trainer import checkpoint
from ksr_recbole.trainer.averaging import WeightAverage
from tests.toy import toy_run, toy_values


def test_the_average_is_that_of_a_plain_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)).double()
    model[1].bias.requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    average = WeightAverage(model, [optimizer], decay=0.8)
    wanted = None
    for _ in range(6):
        optimizer.zero_grad()
        model(torch.randn(5, 3).double()).square().sum().backward()
        optimizer.step()
        weights = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        wanted = wanted or weights
        wanted = {n: 0.8 * wanted[n] + 0.2 * w for n, w in weights.items()}
    assert set(average.values) == set(wanted) == {"0.weight", "0.bias", "1.weight"}
    torch.testing.assert_close(average.values, wanted)
    with average.in_place():
        torch.testing.assert_close(model[0].weight.detach(), wanted["0.weight"])
    assert torch.equal(model[0].weight, weights["0.weight"])


def test_before_the_first_step_there_is_nothing_to_put_in_place():
    model = nn.Linear(2, 1)
    before = model.weight.detach().clone()
    with WeightAverage(model, [torch.optim.SGD(model.parameters(), lr=1.0)], 0.5).in_place():
        assert torch.equal(model.weight, before)


def test_an_average_that_keeps_nothing_of_itself_changes_nothing(toy_folder, tmp_path):
    plain = toy_run(toy_folder, checkpoint_dir=str(tmp_path))
    averaged = toy_run(toy_folder, ema_decay=0.0)
    assert averaged["metrics"] == plain["metrics"]


def test_the_average_is_what_is_validated_tested_and_kept(toy_folder, tmp_path):
    common = {"epochs": 1, "learning_rate": 0.1}
    plain = toy_run(toy_folder, **common, checkpoint_dir=str(tmp_path))
    averaged = toy_run(toy_folder, **common, ema_decay=0.9)
    assert averaged["best_valid_result"] != plain["best_valid_result"]
    assert averaged["best_valid_score"] == averaged["best_valid_result"]["mrr"], "it selects"
    kept = checkpoint.load(averaged["checkpoint"])
    for name, average in kept["last"]["average"].items():
        assert torch.equal(kept["state_dict"][name], average)
        # Training itself continues from the weights, not from their average.
        trained = checkpoint.load(plain["checkpoint"])["last"]["state_dict"][name]
        assert torch.equal(kept["last"]["state_dict"][name], trained)


def test_without_a_checkpoint_the_average_is_tested_too(toy_folder):
    common = {"epochs": 1, "learning_rate": 0.1, "ema_decay": 0.9}
    kept = toy_run(toy_folder, **common)
    values = toy_values(toy_folder, **common)
    assert run("KSR", "toy", None, values, saved=False)["metrics"] == kept["metrics"]


def test_a_trained_model_has_the_average_before_its_best_epoch_is_loaded(toy_folder):
    values = {"epochs": 1, "ema_decay": 0.9, "item_init": "random"}
    config = Config("GRU", "toy", None, toy_values(toy_folder, **values))
    data = load_data(config)
    trainer = make_trainer(config, data.dataset)
    trainer.fit(data.train, data.valid, saved=False)
    found = {name: p.detach() for name, p in trainer.model.named_parameters() if p.requires_grad}
    torch.testing.assert_close(found, trainer._average.values, rtol=0, atol=0)


@pytest.mark.parametrize("decay", [1.0, -0.1, "much"])
def test_a_decay_that_is_none(toy_folder, decay):
    with pytest.raises(UserError, match="ema_decay"):
        toy_run(toy_folder, ema_decay=decay)
