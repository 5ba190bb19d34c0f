"""What checkpoints keep of an optimizer, and of the settings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Parameter

from ksr_recbole.config.keys import checkpoint_keys
from ksr_recbole.errors import UnusableCheckpointError
from ksr_recbole.trainer.checkpoint import check_same_run, load
from ksr_recbole.trainer.optimizer_state import forget_frozen, optimizer_state
from tests.toy import toy_run


def adagrad(forgetting: bool) -> tuple[torch.optim.Adagrad, list[Parameter]]:
    """An optimizer after two steps, and its parameters: one trained between two frozen ones."""
    values = [
        Parameter(torch.arange(6.0).view(2, 3), requires_grad=False),
        Parameter(torch.ones(4)),
    ]
    values.append(Parameter(torch.ones(4), requires_grad=False))
    optimizer = torch.optim.Adagrad(values, lr=0.1)
    if forgetting:
        forget_frozen(optimizer)
    for _ in range(2):
        optimizer.zero_grad()
        (values[1] * torch.arange(4.0)).square().sum().backward()
        optimizer.step()
    return optimizer, values


def kept_of(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {str(number): state for number, state in optimizer.state_dict()["state"].items()}


def test_nothing_is_kept_of_frozen_parameters():
    before, after = adagrad(forgetting=False), adagrad(forgetting=True)
    assert all(torch.equal(one, other) for one, other in zip(before[1], after[1], strict=True))
    assert kept_of(before[0]).keys() == {"0", "1", "2"} and kept_of(after[0]).keys() == {"1"}


def test_a_checkpoint_has_the_trained_parameters_alone():
    kept = kept_of(adagrad(forgetting=True)[0])
    optimizer, _ = adagrad(forgetting=True)
    state = optimizer_state("file", optimizer, kept)
    assert state.keys() == {1} and torch.equal(state[1]["sum"], kept["1"]["sum"])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    assert kept_of(optimizer).keys() == {"1"}
    others = ({}, {"1": {}}, {**kept, "3": kept["1"]}, kept_of(adagrad(forgetting=False)[0]))
    for damaged in others:
        with pytest.raises(UnusableCheckpointError, match="the state of Adagrad"):
            optimizer_state("file", optimizer, damaged)


def test_a_checkpoint_of_adagrad_has_sums_of_what_is_trained_alone(toy_folder):
    last = load(toy_run(toy_folder, "KSR-paper", epochs=1)["checkpoint"])["last"]
    sums = [entries["sum"].shape for entries in last["optimizer"].values()]
    assert sorted(sums) == sorted(tensor.shape for tensor in last["state_dict"].values())


@pytest.mark.parametrize("model", ["KSR", "CKE", "SASRec"])
def test_a_checkpoint_must_agree_on_the_scaling_of_gradients(model):
    assert "enable_scaler" in checkpoint_keys(model, "next-item")


@pytest.mark.parametrize("now", [False, True])
def test_another_scaling_is_refused(now):
    common = {"model": "KSR", "dataset": "toy"}
    content = {**common, "data": "x", "settings": {"seed": 1, "enable_scaler": True}, "given": {}}
    settings = {"seed": 1, "enable_scaler": now}
    if now:
        check_same_run("file", content, common, "x", settings)
    else:
        with pytest.raises(UnusableCheckpointError, match="trained with enable_scaler"):
            check_same_run("file", content, common, "x", settings)
