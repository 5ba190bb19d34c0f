"""Losses over many items, in pieces of bounded size: over all items, or over a shared sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ksr_recbole.model.kernels.aligned import empty_rows
from ksr_recbole.model.kernels.autocast import in_full, without_autocast

PIECE = 1 << 20
"""Scores held at a time on the CPU; they stay in the processor's cache."""

GPU_PIECE = 1 << 26
"""Scores held at a time on a GPU, 256 MiB of them."""


def softmax_loss(
    users: Tensor, items: Tensor, targets: Tensor, terms: Tensor | None = None
) -> Tensor:
    """RecBole's ``CE``: cross entropy of the targets among all items, summed.

    Args:
        users: user vectors, ``[P, d]``.
        items: item vectors, ``[m, d]``.
        targets: row of ``items`` for each user, ``int64 [P]``.
        terms: what the scores have besides the inner products, ``[P, m]``.

    Returns:
        A scalar.
    """
    with without_autocast(users.device):
        return _SoftmaxLoss.apply(in_full(users), in_full(items), targets, _full_or_none(terms))


def sampled_softmax_loss(
    users: Tensor,
    positives: Tensor,
    sample: Tensor,
    log_inclusion_probs: Tensor,
    target_rows: Tensor,
    terms: Tensor | None = None,
) -> Tensor:
    r"""Cross entropy of the targets, with the sum over all items estimated from a sample.

    :math:`\sum_j e^{s_j}` is estimated by :math:`e^{s_+} + \sum_{j} e^{s_j} / \pi_j` over the
    sampled items but the target, where :math:`\pi_j` is the chance that :math:`j` is in the
    sample (Horvitz, Thompson, 1952).  The estimate is unbiased, and exact if all items are in it.

    Args:
        users: user vectors, ``[P, d]``.
        positives: scores of the targets, ``[P]``.
        sample: vectors of the sampled items, all different, ``[k, d]``.
        log_inclusion_probs: :math:`\log \pi_j`, ``[k]``.
        target_rows: row of ``sample`` that is the user's target, or -1, ``int64 [P]``.
        terms: what the scores of the sample have besides the inner products, ``[P, k]``.

    Returns:
        A scalar, the sum over users.
    """

    def piece(scores: Tensor, positive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores -= log_inclusion_probs
        top = torch.maximum(scores.amax(dim=1), positive)
        scores.sub_(top[:, None]).exp_()
        own = (positive - top).exp()
        total = scores.sum(dim=1) + own
        loss = (total.log() + top - positive).sum()
        return loss, scores.div_(total[:, None]), own / total - 1

    return _shared(users, positives, sample, target_rows, piece, terms)


def gbce_loss(
    users: Tensor,
    positives: Tensor,
    sample: Tensor,
    target_rows: Tensor,
    beta: float,
    terms: Tensor | None = None,
) -> Tensor:
    r"""gBCE: :math:`-(\beta \log\sigma(s_+) + \sum_j \log(1 - \sigma(s_j))) / (k + 1)`, summed.

    Reference:
        Aleksandr Petrov, Craig Macdonald: "gSASRec: Reducing Overconfidence in Sequential
        Recommendation Trained with Negative Sampling", RecSys 2023, Sec. 5.

    Args:
        users: user vectors, ``[P, d]``.
        positives: scores of the targets, ``[P]``.
        sample: vectors of the sampled items, ``[k, d]``.
        target_rows: row of ``sample`` that is the user's target, which is left out, or -1,
            ``int64 [P]``.
        beta: the power of the positive's probability, from :func:`gbce_beta`.
        terms: what the scores of the sample have besides the inner products, ``[P, k]``.

    Returns:
        A scalar, the sum over users.
    """
    share = 1 / (len(sample) + 1)

    def piece(scores: Tensor, positive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        loss = F.softplus(scores).sum() - beta * F.logsigmoid(positive).sum()
        return share * loss, scores.sigmoid_().mul_(share), -share * beta * (-positive).sigmoid()

    return _shared(users, positives, sample, target_rows, piece, terms)


def gbce_beta(rate: float, calibration: float) -> float:
    r""":math:`\beta = \alpha\,(t\,(1 - 1/\alpha) + 1/\alpha)` (Petrov and Macdonald, Eq. 13).

    Args:
        rate: :math:`\alpha`, the sampled share of the items that are no target.
        calibration: :math:`t`; 0 is plain BCE, 1 makes the probabilities those of the softmax.
    """
    return rate * (calibration * (1 - 1 / rate) + 1 / rate)


Piece = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""Given scores ``[r, k]``, which it may overwrite, -inf where an item is the target, and the
targets' scores ``[r]``: the loss and its gradients by both."""


def _shared(
    users: Tensor,
    positives: Tensor,
    sample: Tensor,
    target_rows: Tensor,
    piece: Piece,
    terms: Tensor | None,
) -> Tensor:
    with without_autocast(users.device):
        given = (in_full(part) for part in (users, positives, sample))
        return _SharedSampleLoss.apply(*given, target_rows, piece, _full_or_none(terms))


def _full_or_none(values: Tensor | None) -> Tensor | None:
    return None if values is None else in_full(values)


def _pieces(users: Tensor, items: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Some of the users at a time, and their scores ``[r, m]``, which the next piece overwrites."""
    size = PIECE if users.device.type == "cpu" else GPU_PIECE
    n_rows = max(1, min(len(users), size // len(items)))
    scores = empty_rows(users, n_rows, len(items))
    for start in range(0, len(users), n_rows):
        rows = slice(start, min(start + n_rows, len(users)))
        piece = scores[: rows.stop - start]
        yield rows, torch.mm(users[rows], items.T, out=piece)


class _SoftmaxLoss(torch.autograd.Function):
    """Finds the gradients while the scores of a piece are at hand, so no scores are kept."""

    @staticmethod
    def forward(ctx, users: Tensor, items: Tensor, targets: Tensor, terms: Tensor | None):
        user_gradient = empty_rows(users, *users.shape)
        item_gradient = _zeros(items) if ctx.needs_input_grad[1] else None
        term_gradient = None if terms is None else torch.empty_like(terms)
        loss = users.new_zeros(())
        for rows, scores in _pieces(users, items):
            wanted = targets[rows, None]
            if terms is not None:
                scores += terms[rows]
            scores -= scores.amax(dim=1, keepdim=True)
            loss -= scores.gather(1, wanted).sum()
            totals = scores.exp_().sum(dim=1, keepdim=True)
            loss += totals.log().sum()
            scores /= totals
            scores.scatter_add_(1, wanted, scores.new_full(wanted.shape, -1))
            torch.mm(scores, items, out=user_gradient[rows])
            if item_gradient is not None:
                item_gradient.addmm_(scores.T, users[rows])
            if term_gradient is not None:
                term_gradient[rows] = scores
        ctx.save_for_backward(user_gradient, item_gradient, term_gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        users, items, terms = (_times(part, gradient) for part in ctx.saved_tensors)
        return users, items, None, terms


class _SharedSampleLoss(torch.autograd.Function):
    """As :class:`_SoftmaxLoss`, over one sample of items for all users."""

    @staticmethod
    def forward(
        ctx,
        users: Tensor,
        positives: Tensor,
        sample: Tensor,
        target_rows: Tensor,
        piece: Piece,
        terms: Tensor | None,
    ):
        user_gradient = empty_rows(users, *users.shape)
        sample_gradient = _zeros(sample) if ctx.needs_input_grad[2] else None
        positive_gradient = torch.empty_like(positives)
        term_gradient = None if terms is None else torch.empty_like(terms)
        loss = users.new_zeros(())
        for rows, scores in _pieces(users, sample):
            hit = target_rows[rows, None]
            if terms is not None:
                scores += terms[rows]
            column = hit.clamp(min=0)
            kept = scores.gather(1, column).masked_fill(hit >= 0, -torch.inf)
            scores.scatter_(1, column, kept)
            part, by_score, by_positive = piece(scores, positives[rows])
            loss += part
            positive_gradient[rows] = by_positive
            torch.mm(by_score, sample, out=user_gradient[rows])
            if sample_gradient is not None:
                sample_gradient.addmm_(by_score.T, users[rows])
            if term_gradient is not None:
                term_gradient[rows] = by_score
        ctx.save_for_backward(user_gradient, positive_gradient, sample_gradient, term_gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        *of_scores, terms = (_times(part, gradient) for part in ctx.saved_tensors)
        return *of_scores, None, None, terms


def _zeros(like: Tensor) -> Tensor:
    return empty_rows(like, *like.shape).zero_()


def _times(part: Tensor | None, gradient: Tensor) -> Tensor | None:
    return None if part is None else part * gradient
