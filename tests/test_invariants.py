"""What holds for every sequence model, whatever it computes; a new model gets a line in CASES."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from ksr_recbole.config import Config
from ksr_recbole.dataset.dataloader import CHUNK_START
from ksr_recbole.dataset.sequence_datasets import load_dataset
from ksr_recbole.dataset.sequences import Split, UserSequences
from ksr_recbole.errors import UserError
from ksr_recbole.evaluation import scorer as scorers
from ksr_recbole.evaluation.scorer import CANDIDATES, ModelScorer
from ksr_recbole.model.kernels.packing import Packing
from ksr_recbole.model.sequence_recommender import SequenceRecommender
from ksr_recbole.registry import model_class, own_models
from tests.models import CASES, random_vectors, training_batch
from tests.toy import toy_run, toy_values, write_toy

ITEMS = [[3, 1, 7, 7, 2, 9], [4, 5], [2, 8, 6, 1]]
NEGATIVES = [[[11, 12], [10, 9], [4, 4], [30, 31], [40, 1]], [[5, 6]], [[20, 21], [9, 3], [7, 50]]]
USERS = torch.tensor([1, 2, 3])
LENGTHS = torch.tensor([len(sequence) for sequence in ITEMS])
PADDED = torch.nn.utils.rnn.pad_sequence([torch.tensor(s) for s in ITEMS], batch_first=True)

Make = Callable[..., SequenceRecommender]


@pytest.fixture(scope="module")
def make(tmp_path_factory) -> Make:
    """``make(case, seed)`` gives a model on random vectors, for evaluation."""
    folder = write_toy(tmp_path_factory.mktemp("invariants"))
    dataset = load_dataset(Config("KSR", "toy", None, toy_values(folder)))
    dataset.build()

    def make(case: str, seed: int = 0) -> SequenceRecommender:
        name, values = CASES[case]
        config = Config(name, "toy", None, toy_values(folder, **values))
        dataset.pretrained = random_vectors(config, dataset)
        torch.manual_seed(seed)
        model = model_class(name)(config, dataset).eval()
        if getattr(model, "exact", None) is not None:  # its weights begin at 0
            model.exact.wake(torch.randn_like(model.exact.weights))
            torch.nn.init.normal_(model.exact.gates.weight)
        return model

    return make


@pytest.fixture(params=list(CASES))
def model(request, make) -> SequenceRecommender:
    return make(request.param)


def batch(rows: list[int], wider: int = 0, **more: torch.Tensor) -> Interaction:
    """Histories of some rows of ITEMS, with columns of padding behind them."""
    items = torch.nn.functional.pad(PADDED[rows, : int(LENGTHS[rows].max())], (0, wider))
    fields = {"user_id": USERS[rows], "item_id_list": items, "item_length": LENGTHS[rows]}
    return Interaction(fields | more)


def same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_every_model_of_ours_has_a_case():
    assert {name for name, _ in CASES.values()} == set(own_models())


@torch.no_grad()
def test_scores_do_not_depend_on_who_else_is_in_the_batch_or_where(model):
    alone = torch.cat([model.full_sort_predict(batch([row])) for row in range(3)])
    assert alone.isfinite().all() and not torch.equal(alone[0], alone[1])
    for rows in ([0, 1, 2], [2, 0, 1], [1, 1, 0]):
        for wider in (0, 40):
            same(model.full_sort_predict(batch(rows, wider)), alone[rows])


@torch.no_grad()
def test_who_has_no_history_is_scored_as_who_has_none_of_any_width(model):
    nothing = {"user_id": USERS, "item_length": torch.zeros_like(LENGTHS)}
    histories = [torch.zeros(3, width, dtype=torch.long) for width in (0, 1, 5)]
    found = [
        model.full_sort_predict(Interaction({**nothing, "item_id_list": some}))
        for some in histories
    ]
    assert found[0].isfinite().all()
    same(found[0], found[1])
    same(found[0], found[2])
    nobody = torch.zeros(0, dtype=torch.long)
    assert Packing.of(nobody).widths == Packing.of(torch.zeros(2, dtype=torch.long)).widths == []


@torch.no_grad()
def test_users_whose_memories_are_large_are_scored_in_parts(model, monkeypatch):
    config = {"device": "cpu", "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id"}
    config |= {"LIST_SUFFIX": "_list", "ITEM_LIST_LENGTH_FIELD": "item_length"}
    sequences = UserSequences.from_interactions(
        np.repeat(USERS.numpy(), LENGTHS), np.concatenate(ITEMS),
        np.arange(LENGTHS.sum(), dtype=float), 4, model.n_items,
    )  # fmt: skip
    ends = sequences.lengths
    split = Split(ends, ends, "all", np.zeros_like(ends))
    scorer = ModelScorer(model, config, sequences, split)
    users, items = USERS.numpy(), torch.tensor([[1, 2], [9, 9], [5, 6]])

    def scores() -> list[torch.Tensor]:
        few = scorer.score_candidates(users, ends[users], items)
        return [scorer.score_all(users, ends[users]), few]

    whole, read = scores(), []
    monkeypatch.setattr(scorer, "_history", _noting(scorer._history, read))
    memory = model.initial_state(1).values
    monkeypatch.setattr(scorers, "STATE_NUMBERS_AT_ONCE", 2 * max(1, memory.numel()))
    same(scores(), whole)
    assert read == [2, 1, 2, 1]
    if not model.INNER_PRODUCT:  # for each score it makes one for each slot
        read.clear()
        monkeypatch.setattr(scorers, "SCORES_AT_ONCE", memory.shape[1] * model.n_items)
        same(scores(), whole)
        assert read == [2, 1, 1, 1, 1]


def _noting(history: Callable[..., Interaction], read: list[int]) -> Callable[..., Interaction]:
    def noted(users: np.ndarray, *where: np.ndarray) -> Interaction:
        read.append(len(users))
        return history(users, *where)

    return noted


@torch.no_grad()
def test_candidates_and_single_items_have_the_scores_of_the_full_ranking(model):
    everything = model.full_sort_predict(batch([0, 1, 2]))
    items = torch.tensor([[1, 2, 3, 1], [9, 9, 60, 0], [5, 6, 7, 8]])
    few = model.score_candidates(batch([0, 1, 2], **{CANDIDATES: items}))
    same(few, everything.gather(1, items))
    many = torch.arange(model.n_items).expand(3, -1)
    same(model.score_candidates(batch([0, 1, 2], **{CANDIDATES: many})), everything)
    same(model.predict(batch([0, 1, 2], item_id=items[:, 2])), few[:, 2])


@torch.no_grad()
def test_a_position_in_training_is_scored_as_its_prefix_is_in_evaluation(model):
    """So nothing that comes later, and nothing of another row, is seen."""
    packing = Packing.of(LENGTHS)
    state = model.initial_state(3).to_lanes(packing)
    read, _ = model.read(USERS[packing.rows], packing.pack(PADDED), packing, state)
    together = model.all_scores(read)
    positions = zip(packing.rows.tolist(), packing.steps.tolist(), together, strict=True)
    for row, step, found in positions:
        history = {
            "item_id_list": PADDED[[row], : step + 1],
            "item_length": torch.tensor([step + 1]),
        }
        same(found, model.full_sort_predict(Interaction({"user_id": USERS[[row]], **history}))[0])


@torch.no_grad()
def test_going_on_from_a_state_is_reading_the_whole_again(model):
    whole = model.full_sort_predict(batch([0, 1, 2]))
    for pieces in (1, 2, 4):
        state = None
        for start in range(0, PADDED.shape[1], pieces):
            left = (LENGTHS - start).clamp(0, pieces)
            state = model.advance(PADDED[:, start : start + pieces], left, state)
        same(model.all_scores(model.read_state(USERS, state)), whole)
    model.options = replace(model.options, chunk_length=2)
    same(model.full_sort_predict(batch([0, 1, 2])), whole)


@torch.no_grad()
def test_who_has_no_history_gets_finite_scores(model):
    state = model.initial_state(3)
    scores = model.all_scores(model.read_state(USERS, state))
    assert scores.shape == (3, model.n_items) and scores.isfinite().all()
    nothing = model.advance(PADDED, torch.zeros(3, dtype=torch.int64))
    same(model.all_scores(model.read_state(USERS, nothing)), scores)


def test_training_in_pieces_has_the_loss_of_the_whole(model):
    order = [0, 2, 1]  # falling length, as the loader has it
    full = training_batch([ITEMS[k] for k in order], [NEGATIVES[k] for k in order])
    whole = model.calculate_loss(full).item()
    with pytest.raises(UserError, match="needs a target for every position"):
        model.calculate_loss(Interaction({**full.interaction, "item_id": full["item_id"][:, 0]}))
    total = 0.0
    for start in (0, 2, 4):
        stay = int((full["item_length"] > start).sum())
        piece = {
            name: value[:stay, start : start + 2] if value.dim() > 1 else value[:stay]
            for name, value in full.interaction.items()
        }
        piece[CHUNK_START] = torch.full((stay,), start)
        total += model.calculate_loss(Interaction(piece)).item()
    assert total == pytest.approx(whole, rel=1e-5) and np.isfinite(whole)


def test_gradients_reach_every_trained_parameter_and_nothing_else(model):
    model.train().calculate_loss(training_batch(ITEMS, NEGATIVES)).backward()
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    reached = {
        name
        for name, value in model.named_parameters()
        if value.grad is not None and value.grad.isfinite().all() and bool(value.grad.any())
    }
    assert reached == trained and trained


def test_the_embedding_of_padding_stays_what_it_is(model):
    model.train()
    before = model.item_embedding.weight[0].clone()
    parameters = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    model.calculate_loss(training_batch(ITEMS, NEGATIVES)).backward()
    optimizer.step()
    assert torch.equal(model.item_embedding.weight[0], before)


@torch.no_grad()
def test_all_that_scores_depend_on_is_in_the_saved_weights(make):
    for case in CASES:
        model, other = make(case), make(case, seed=1)
        for vectors in other.parameters():
            vectors.add_(1)
        other.load_state_dict(model.state_dict())
        expected = model.full_sort_predict(batch([0, 1, 2]))
        assert torch.equal(other.full_sort_predict(batch([0, 1, 2])), expected)
        assert torch.equal(model.full_sort_predict(batch([0, 1, 2])), expected)  # nothing is kept


@pytest.mark.parametrize("name", own_models())
def test_a_run_can_be_repeated_and_its_model_never_recommends_padding(name, toy_folder, tmp_path):
    from ksr_recbole import Recommender, save_model

    first = toy_run(toy_folder, name, epochs=1)
    again = toy_run(toy_folder, name, epochs=1, pretrain_dir=str(tmp_path / "anew"))
    assert first["metrics"] == again["metrics"] and first["candidates"] == again["candidates"]
    rec = Recommender.load(save_model(first, tmp_path / "model"))
    found = rec.recommend(rec.users[0], k=10_000, exclude_history=False)
    assert sorted(item for item, _ in found) == sorted(rec.items) and "[PAD]" not in rec.items
    assert len(rec.recommend(rec.users[0], k=10_000)) < len(found)
