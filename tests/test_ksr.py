"""KSR against the plain-loop float64 reference of Eq. 1-11, and what must hold of any sequence."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from ksr_recbole.dataset.dataloader import CANDIDATES, CHUNK_START
from ksr_recbole.errors import UserError
from tests import reference
from tests.models import make_model, reference_parameters, training_batch

ITEMS = [[3, 1, 7, 7, 2, 9], [4, 5], [2, 8, 6, 1]]
NEGATIVES = [[[11, 12], [10, 9], [4, 4], [30, 31], [40, 1]], [[5, 6]], [[20, 21], [9, 3], [7, 50]]]

USERS = torch.arange(1, len(ITEMS) + 1)


def padded(sequences: list[list[int]]) -> torch.Tensor:
    rows = [torch.tensor(sequence) for sequence in sequences]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


@pytest.fixture(params=["default", "two layers", "projection", "other gamma"])
def model(request, toy_config, toy_dataset):
    changes = {
        "default": {},
        "two layers": {"query_mlp_layers": 2, "score_mlp_layers": 2},
        "projection": {"project_entities": True},
        "other gamma": {"gamma": 0.5},
    }[request.param]
    return make_model(toy_config(memory_backend="torch", **changes), toy_dataset)


def test_every_intermediate_value_equals_the_reference(model):
    params = reference_parameters(model)
    preference, _ = model(padded(ITEMS))
    hidden_size = model.options.hidden_size
    for row, sequence in enumerate(ITEMS):
        steps = reference.run(params, sequence)
        for t, step in enumerate(steps):
            hidden = preference[row, t, :hidden_size]
            np.testing.assert_allclose(hidden.detach(), step.h, atol=1e-12)  # Eq. 1
            np.testing.assert_allclose(model.attention(hidden).detach(), step.attention, atol=1e-12)
            np.testing.assert_allclose(preference[row, t].detach(), step.p, atol=1e-12)


def test_value_matrices_after_the_last_item_equal_the_reference(model):
    params = reference_parameters(model)
    for sequence in ITEMS:
        _, state = model(torch.tensor([sequence]))
        expected = reference.run(params, sequence)[-1].values
        np.testing.assert_allclose(state.values[0].detach(), expected, atol=1e-12)


def test_scores_equal_the_reference(model):
    params = reference_parameters(model)
    lengths = torch.tensor([len(sequence) for sequence in ITEMS])
    candidates = torch.tensor([[1, 2, 3], [9, 9, 60], [5, 6, 7]])
    batch = Interaction(
        {
            "user_id": USERS,
            "item_id_list": padded(ITEMS),
            "item_length": lengths,
            CANDIDATES: candidates,
        }
    )
    scores, everything = model.score_candidates(batch), model.full_sort_predict(batch)
    for row, sequence in enumerate(ITEMS):
        p = reference.run(params, sequence)[-1].p
        for column, item in enumerate(candidates[row].tolist()):
            expected = reference.score(params, p, item)  # Eq. 10
            assert scores[row, column].item() == pytest.approx(expected, abs=1e-11)
            assert everything[row, item].item() == pytest.approx(expected, abs=1e-11)
    one = Interaction({**batch.interaction, "item_id": candidates[:, 1]})
    torch.testing.assert_close(model.predict(one), scores[:, 1])


def test_loss_equals_the_reference(model):
    params = reference_parameters(model)
    expected = sum(
        reference.loss(params, items, negatives)
        for items, negatives in zip(ITEMS, NEGATIVES, strict=True)
    )
    loss = model.calculate_loss(training_batch(ITEMS, NEGATIVES))  # Eq. 11
    assert loss.item() * model.options.train_batch_size == pytest.approx(expected, rel=1e-12)


def _reference_gradient(model, params, name):
    def total() -> float:
        return sum(map(reference.loss, [params] * len(ITEMS), ITEMS, NEGATIVES))

    return reference.numeric_gradient(total, params.arrays()[name]) / model.options.train_batch_size


def test_gradients_of_all_trained_parameters_equal_the_reference(model):
    params = reference_parameters(model)
    model.calculate_loss(training_batch(ITEMS, NEGATIVES)).backward()
    names = {
        "gru.weight_ih_l0": "gru_weight_ih",
        "gru.weight_hh_l0": "gru_weight_hh",
        "gru.bias_ih_l0": "gru_bias_ih",
        "gru.bias_hh_l0": "gru_bias_hh",
        "projection.weight": "projection",
    }
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None and name.split("_")[0] in ("item", "entity", "relation")
            continue
        in_reference = names.get(name)
        if in_reference is None:  # user_mlp.2.weight is layer 1 there: tanh takes the odd numbers
            mlp, number, kind = name.split(".")
            in_reference = f"{mlp}.{int(number) // 2}.{kind}"
        expected = _reference_gradient(model, params, in_reference)
        np.testing.assert_allclose(parameter.grad, expected, atol=2e-9, err_msg=name)


def test_gradients_of_trained_kb_embeddings_equal_the_reference(toy_config, toy_dataset):
    config = toy_config(freeze_kg=False, freeze_item=False)
    model = make_model(config, toy_dataset)
    params = reference_parameters(model)
    model.calculate_loss(training_batch(ITEMS, NEGATIVES)).backward()
    entity = _reference_gradient(model, params, "entity")
    by_item = np.zeros(model.entity_embedding.weight.shape)
    np.add.at(by_item, model.item_entities.numpy(), entity)
    got = model.entity_embedding.weight.grad.numpy()
    np.testing.assert_allclose(got[1:], by_item[1:], atol=2e-9)
    # The key matrix is the relation embeddings: the reference keeps the two apart.
    keys = _reference_gradient(model, params, "key")
    relations = _reference_gradient(model, params, "relation")
    got = model.relation_embedding.weight.grad[model.attributes].numpy()
    np.testing.assert_allclose(got, keys + relations, atol=2e-9)
    items = _reference_gradient(model, params, "item_embedding")
    np.testing.assert_allclose(model.item_embedding.weight.grad[1:], items[1:], atol=2e-9)


def test_shared_value_matrix_is_one_stream_of_writes_in_time_order(toy_config, toy_dataset):
    model = make_model(toy_config(value_matrix="shared", memory_backend="torch"), toy_dataset)
    params = reference_parameters(model)
    sequences, split = toy_dataset.sequences, toy_dataset.split
    stream = []
    for user in range(sequences.n_users):
        for position in range(split.train_end[user]):
            index = sequences.offsets[user] + position
            stream.append((sequences.timestamps[index], user, position, sequences.items[index]))
    values = np.zeros(params.relation.shape)
    for *_, item in sorted(stream):
        values = reference.write(values, reference.update_vectors(params, item))
    np.testing.assert_allclose(model.shared_value_matrix, values, atol=1e-5)
    preference, _ = model(torch.tensor([[3, 1]]))
    weights = model.attention(preference[0, 1, : model.options.hidden_size]).detach().numpy()
    expected = reference.read(weights, model.shared_value_matrix.numpy())
    np.testing.assert_allclose(preference[0, 1, model.options.hidden_size :].detach(), expected)


def test_later_items_change_nothing_earlier(model):
    before, _ = model(torch.tensor([[3, 1, 7, 2]]))
    after, _ = model(torch.tensor([[3, 1, 9, 8]]))
    torch.testing.assert_close(before[:, :2], after[:, :2], rtol=0, atol=0)
    assert not torch.equal(before[:, 2:], after[:, 2:])


def test_padding_never_leaks(model):
    alone = [model(torch.tensor([sequence]))[0][0] for sequence in ITEMS]
    together, _ = model(padded(ITEMS))
    for row, expected in enumerate(alone):
        torch.testing.assert_close(together[row, : len(expected)], expected)
    lengths = torch.tensor([len(sequence) for sequence in ITEMS])
    users = model.read_last(USERS, padded(ITEMS), lengths)
    wider = torch.nn.functional.pad(padded(ITEMS), (0, 40))
    torch.testing.assert_close(model.read_last(USERS, wider, lengths), users)


@pytest.mark.parametrize("chunk", [1, 2, 3, 5])
def test_chunks_equal_the_whole(model, chunk):
    items = torch.tensor(ITEMS[:1])
    whole, whole_state = model(items)
    outputs, state = [], None
    for start in range(0, items.shape[1], chunk):
        output, state = model(items[:, start : start + chunk], state)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, dim=1), whole)
    torch.testing.assert_close(state.hidden, whole_state.hidden)
    torch.testing.assert_close(state.values, whole_state.values)
    lengths = torch.tensor([len(sequence) for sequence in ITEMS])
    expected = model.read_last(USERS, padded(ITEMS), lengths)
    model.options = replace(model.options, chunk_length=chunk)
    torch.testing.assert_close(model.read_last(USERS, padded(ITEMS), lengths), expected)


def test_training_in_chunks_has_the_loss_of_the_whole(model):
    order = [0, 2, 1]  # falling length, as the loader has it
    items = [ITEMS[k] for k in order]
    negatives = [NEGATIVES[k] for k in order]
    whole = model.calculate_loss(training_batch(items, negatives)).item()
    batch, total = training_batch(items, negatives), 0.0
    for start in (0, 2, 4):
        stay = int((batch["item_length"] > start).sum())
        piece = {
            name: value[:stay, start : start + 2] if value.dim() > 1 else value[:stay]
            for name, value in batch.interaction.items()
        }
        piece[CHUNK_START] = torch.full((stay,), start)
        total += model.calculate_loss(Interaction(piece)).item()
    assert total == pytest.approx(whole, rel=1e-12)


def test_cross_entropy_is_softmax_over_all_items(toy_config, toy_dataset):
    model = make_model(toy_config(loss_type="CE", train_neg_sample_args=None), toy_dataset)
    loss = model.calculate_loss(training_batch(ITEMS, NEGATIVES))
    params = reference_parameters(model)
    expected = 0.0
    for sequence in ITEMS:
        steps = reference.run(params, sequence)
        for step, target in zip(steps, sequence[1:], strict=False):
            scores = [reference.score(params, step.p, item) for item in range(1, model.n_items)]
            expected += np.log(np.exp(scores).sum()) - scores[target - 1]
    assert loss.item() * model.options.train_batch_size == pytest.approx(expected, rel=1e-6)


def test_vectors_of_the_items_needed_or_of_all_items_give_one_loss(toy_config, toy_dataset):
    model = make_model(toy_config(), toy_dataset)
    few = model.calculate_loss(training_batch(ITEMS[1:2], NEGATIVES[1:2])).item()
    copies = model.n_items  # now the batch names more items than there are
    many = model.calculate_loss(training_batch(ITEMS[1:2] * copies, NEGATIVES[1:2] * copies))
    assert many.item() == pytest.approx(few * copies, rel=1e-12)


def test_dropout_acts_in_training_only(toy_config, toy_dataset):
    model = make_model(toy_config(dropout_prob=0.5), toy_dataset)
    items = torch.tensor([[3, 1, 7]])
    model.train()
    assert not torch.equal(model(items)[0], model(items)[0])
    model.eval()
    assert torch.equal(model(items)[0], model(items)[0])


def test_kg_loss_is_the_pairwise_one_of_transe_s_distances(toy_config, toy_dataset):
    model = make_model(toy_config(freeze_kg=False), toy_dataset).double()
    names = ("head_id", "relation_id", "tail_id", "neg_tail_id")
    ids = torch.tensor([[1, 2, 3], [1, 2, 1], [4, 5, 6], [7, 8, 9]])
    loss = model.calculate_kg_loss(Interaction(dict(zip(names, ids, strict=True))))
    entities = model.entity_embedding.weight.detach().numpy()
    relations = model.relation_embedding.weight.detach().numpy()
    total = 0.0
    for head, relation, tail, wrong in ids.T.tolist():
        moved = entities[head] + relations[relation]
        near, far = (np.sqrt(((moved - entities[e]) ** 2).sum()) for e in (tail, wrong))
        total += np.log1p(np.exp(near - far))
    assert loss.item() == pytest.approx(total / 3, rel=1e-9)


def test_kg_loss_falls_when_tails_come_nearer(toy_config, toy_dataset):
    model = make_model(toy_config(freeze_kg=False), toy_dataset)
    triples = torch.from_numpy(toy_dataset.triples)
    batch = Interaction(
        {
            "head_id": triples[:, 0],
            "relation_id": triples[:, 1],
            "tail_id": triples[:, 2],
            "neg_tail_id": triples[:, 2].flip(0),
        }
    )
    losses = []
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(20):
        optimizer.zero_grad()
        loss = model.calculate_kg_loss(batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_kb_scale_is_a_factor_of_entities_and_relations(toy_config, toy_dataset):
    model = make_model(toy_config(kb_scale=2.5), toy_dataset)
    vectors = toy_dataset.pretrained
    for table, given in (
        (model.entity_embedding, vectors.entities),
        (model.relation_embedding, vectors.relations),
    ):
        torch.testing.assert_close(table.weight, 2.5 * torch.from_numpy(given).double())
        assert given.any()


def test_several_gru_layers(toy_config, toy_dataset):
    model = make_model(toy_config(num_layers=2), toy_dataset)
    whole, _ = model(torch.tensor([[3, 1, 7]]))
    first, state = model(torch.tensor([[3]]))
    rest, _ = model(torch.tensor([[1, 7]]), state)
    torch.testing.assert_close(torch.cat([first, rest], dim=1), whole)


@pytest.mark.parametrize(
    "changes",
    [
        {"gamma": "much"},
        {"embedding_size": 0},
        {"value_matrix": "public"},
        {"loss_type": "hinge"},
        {"dropout_prob": 1.0},
        {"freeze_kg": 1},
        {"value_matrix": "shared", "freeze_kg": False},
        {"kb_score": False},
    ],
)
def test_an_impossible_option_is_one_sentence(toy_config, toy_dataset, changes):
    config = toy_config()
    for key, value in changes.items():
        config[key] = value
    with pytest.raises(UserError, match=next(iter(changes))):
        make_model(config, toy_dataset)


def test_every_position_is_a_target_once(toy_config, toy_dataset):
    """The loader's batches hold exactly the pairs (i_t, i_t+1) of training, t >= 2 in Eq. 11."""
    from ksr_recbole.dataset.dataloader import SequenceTrainLoader

    seen = []
    for batch in SequenceTrainLoader(toy_config(chunk_length=3), toy_dataset):
        for user, start, items, targets in zip(
            *(batch[f].tolist() for f in ("user_id", CHUNK_START, "item_id_list", "item_id")),
            strict=True,
        ):
            seen += [
                (user, start + k, i, j)
                for k, (i, j) in enumerate(zip(items, targets, strict=True))
                if j
            ]
    expected = []
    sequences = toy_dataset.sequences
    for user in range(1, sequences.n_users):
        begin = sequences.offsets[user]
        items = sequences.items[begin : begin + toy_dataset.split.train_end[user]].tolist()
        expected += [(user, k, i, j) for k, (i, j) in enumerate(pairwise(items))]
    assert sorted(seen) == expected


# Options that depart from the paper ---------------------------------------------------------


def test_memory_scale_multiplies_what_is_read(toy_config, toy_dataset):
    plain = make_model(toy_config(memory_backend="torch"), toy_dataset)
    scaled = make_model(toy_config(memory_backend="torch", memory_scale=3.0), toy_dataset)
    (one, _), (three, _) = plain(padded(ITEMS)), scaled(padded(ITEMS))
    size = plain.options.hidden_size
    torch.testing.assert_close(three[..., :size], one[..., :size])
    torch.testing.assert_close(three[..., size:], 3 * one[..., size:])
    last = scaled.read_last(USERS, padded(ITEMS), torch.tensor([len(s) for s in ITEMS]))
    rows = torch.arange(len(ITEMS)), torch.tensor([len(s) - 1 for s in ITEMS])
    torch.testing.assert_close(last, scaled.user_mlp(three[rows]))


def test_gate_bias_reaches_the_memory(toy_config, toy_dataset):
    model = make_model(toy_config(memory_backend="torch", gate_bias=-2.0), toy_dataset)
    params = reference_parameters(model)
    for sequence in ITEMS:
        _, state = model(torch.tensor([sequence]))
        values = np.zeros(params.relation.shape)
        for item in sequence:
            values = reference.write(values, reference.update_vectors(params, item), -2.0)
        np.testing.assert_allclose(state.values[0], values, atol=1e-12)
