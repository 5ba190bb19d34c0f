"""Scores of a few items a user, and the softmax over all, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ksr_recbole.dataset.negatives import SharedSampler
from ksr_recbole.model.kernels import losses, scores
from ksr_recbole.model.kernels.losses import softmax_loss
from ksr_recbole.model.kernels.scores import sampled_scores


@pytest.mark.parametrize("kernel", ["fused", "plain"])
def test_scores_and_gradients_equal_the_definition(kernel, monkeypatch):
    if kernel == "plain":
        monkeypatch.setattr(scores, "fused", lambda *_: None)
    else:
        pytest.importorskip("numba")
    generator = torch.Generator().manual_seed(0)
    users = torch.randn(7, 5, generator=generator, requires_grad=True)
    table = torch.randn(4, 5, generator=generator, requires_grad=True)
    items = torch.randint(0, 3, (7, 6), generator=generator)  # repeats; the fourth is unused
    factor = torch.randn(7, 6, generator=generator)
    expected = torch.stack([(users[p] * table[items[p]]).sum(-1) for p in range(7)])
    got = sampled_scores(users, table, items)
    torch.testing.assert_close(got, expected)
    gradients = [torch.autograd.grad((s * factor).sum(), [users, table]) for s in (expected, got)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, one)


@pytest.mark.parametrize("piece", [1, 13, 10_000])
def test_softmax_in_pieces_is_the_cross_entropy(piece, monkeypatch):
    monkeypatch.setattr(losses, "PIECE", piece)
    generator = torch.Generator().manual_seed(0)
    users = (30 * torch.randn(7, 5, generator=generator)).double().requires_grad_()
    items = torch.randn(4, 5, generator=generator).double().requires_grad_()
    targets = torch.randint(0, 4, (7,), generator=generator)
    expected = torch.nn.functional.cross_entropy(users @ items.T, targets, reduction="sum")
    got = softmax_loss(users, items, targets)
    torch.testing.assert_close(got, expected)
    gradients = [torch.autograd.grad(3 * loss, [users, items]) for loss in (expected, got)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, one)


# A sample of items --------------------------------------------------------------------------------


def case_of(n_users=7, n_items=9, size=5, seed=0, spread=2.0):
    """User and item vectors in double precision, and targets."""
    generator = torch.Generator().manual_seed(seed)
    users = (spread * torch.randn(n_users, size, generator=generator)).double().requires_grad_()
    items = torch.randn(n_items, size, generator=generator).double().requires_grad_()
    return users, items, torch.randint(0, n_items, (n_users,), generator=generator)


def target_rows_of(sample, targets):
    """Place of each target in the sample, or -1, by plain search."""
    listed = sample.tolist()
    return torch.tensor([listed.index(t) if t in listed else -1 for t in targets.tolist()])


@pytest.mark.parametrize("piece", [1, 13, 10_000])
@pytest.mark.parametrize("kind", ["sampled_CE", "gBCE"])
def test_losses_on_a_sample_and_their_gradients_equal_the_definition(kind, piece, monkeypatch):
    monkeypatch.setattr(losses, "PIECE", piece)
    users, items, targets = case_of()
    sample = torch.tensor([0, 2, 3, 7])
    log_inclusion_probs = torch.tensor([0.0, -0.3, -2.0, -1.0]).double()
    target_rows = target_rows_of(sample, targets)
    assert (target_rows >= 0).any() and (target_rows < 0).any()
    positives = (users * items[targets]).sum(1)
    beta = losses.gbce_beta(4 / 8, 0.75)
    expected = 0
    for p, target in enumerate(targets.tolist()):
        others = [k for k in range(4) if sample[k] != target]
        scores = items[sample[others]] @ users[p]
        if kind == "sampled_CE":
            total = positives[p].exp() + (scores - log_inclusion_probs[others]).exp().sum()
            expected = expected + total.log() - positives[p]
        else:
            right = torch.sigmoid(positives[p]) ** beta
            expected = expected - (right.log() + (1 - torch.sigmoid(scores)).log().sum()) / 5
    if kind == "sampled_CE":
        got = losses.sampled_softmax_loss(
            users, positives, items[sample], log_inclusion_probs, target_rows
        )
    else:
        got = losses.gbce_loss(users, positives, items[sample], target_rows, beta)
    torch.testing.assert_close(got, expected)
    gradients = [
        torch.autograd.grad(3 * x, [users, items], retain_graph=True) for x in (expected, got)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, one)


def test_beta_of_gbce_is_that_of_its_paper():
    assert losses.gbce_beta(0.1, 0) == pytest.approx(1)
    assert losses.gbce_beta(0.1, 1) == pytest.approx(0.1)
    assert losses.gbce_beta(0.1, 0.75) == pytest.approx(0.1 * (0.75 * (1 - 10) + 10))


def sampled(users, items, targets, found, log_inclusion_probs):
    """The loss on a sample of items as the sampler gives it, whose ids begin with 1."""
    sample = torch.from_numpy(found) - 1
    positives = (users * items[targets]).sum(1)
    log_probs = torch.from_numpy(log_inclusion_probs).double()
    return losses.sampled_softmax_loss(
        users, positives, items[sample], log_probs, target_rows_of(sample, targets)
    )


def test_with_all_items_the_sampled_softmax_is_the_full_one():
    users, items, targets = case_of()
    sampler = SharedSampler(np.array([1, 1, 1, 2]), len(items) + 1, 100, 0.5)
    got = sampled(users, items, targets, *sampler.sample(np.random.default_rng(0)))
    torch.testing.assert_close(got, softmax_loss(users, items, targets))


def test_the_estimated_sum_is_unbiased_and_the_gradient_approaches_the_full_one():
    users, items, targets = case_of(n_items=30, spread=0.5)
    full = softmax_loss(users, items, targets)
    [wanted] = torch.autograd.grad(full, users)
    counts = np.repeat(np.arange(1, 31), np.arange(30, 0, -1))
    errors, rng = [], np.random.default_rng(0)
    total = (users @ items.T).exp().sum(1)
    own = (users * items[targets]).sum(1).exp()
    for n in (4, 12):
        sampler, sums, gradients = SharedSampler(counts, 31, n, 0.5), [], []
        for _ in range(600):
            sampler.shuffle(rng)
            found, log_inclusion_probs = sampler.sample(rng)
            sample = torch.from_numpy(found) - 1
            weights = torch.from_numpy(np.exp(-log_inclusion_probs)).double()
            others = sample[None, :] != targets[:, None]
            sums.append(own + ((users @ items[sample].T).exp() * weights * others).sum(1))
            loss = sampled(users, items, targets, found, log_inclusion_probs)
            gradients.append(torch.autograd.grad(loss, users)[0])
        estimates = torch.stack(sums).detach()
        tolerance = 4 * estimates.std(0) / len(sums) ** 0.5
        assert ((estimates.mean(0) - total).abs() < tolerance).all()
        errors.append(float((torch.stack(gradients).mean(0) - wanted).norm() / wanted.norm()))
    assert errors[1] < errors[0] / 2 and errors[1] < 0.1


@pytest.mark.parametrize("popularity", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("n", [1, 20, 199])
def test_a_sample_has_different_items_drawn_with_the_chances_it_says(n, popularity):
    rng = np.random.default_rng(1)
    items = np.minimum(rng.geometric(0.1, 5000), 200)
    sampler = SharedSampler(items, 201, n, popularity)
    assert sampler.inclusion_probs.sum() == pytest.approx(n) and sampler.inclusion_probs.max() <= 1
    drawn = np.zeros(201)
    for _ in range(2000):
        sampler.shuffle(rng)
        found, log_inclusion_probs = sampler.sample(rng)
        assert len(found) == n and (np.diff(found) > 0).all() and found[0] >= 1
        np.testing.assert_allclose(
            np.exp(log_inclusion_probs), sampler.inclusion_probs[found - 1], rtol=1e-6
        )
        drawn[found] += 1
    spread = np.sqrt(sampler.inclusion_probs * (1 - sampler.inclusion_probs) / 2000)
    assert (np.abs(drawn[1:] / 2000 - sampler.inclusion_probs) <= 5 * spread + 1e-3).all()


def test_items_in_proportion_to_the_mixture_of_popularity_and_uniform():
    counts = np.array([1, 1, 1, 2, 3, 3, 3, 3])
    sampler = SharedSampler(counts, 6, 1, 0.5)
    expected = 0.5 * np.array([3, 1, 4, 0, 0]) / 8 + 0.5 / 5
    np.testing.assert_allclose(sampler.inclusion_probs, expected)
