"""The exact memory: its kernels and a whole score against plain loops in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ksr_recbole.dataset.item_values import ItemValues
from ksr_recbole.model.exact_memory import ExactMemory
from ksr_recbole.model.kernels import exact
from ksr_recbole.model.kernels.packing import Packing
from tests.models import match_terms

ATTRIBUTES = np.array([4, 1, 2])
LENGTHS = [3, 17, 0, 8, 9]  # less than a block of steps, whole ones, and some more
DECAYS = [0.7, 0.95, 1.0]


def graph(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Triples with repeats and other relations, and the entities of 9 items, some shared."""
    rng = np.random.default_rng(seed)
    triples = np.stack(
        [rng.integers(1, 8, 60), rng.integers(1, 6, 60), rng.integers(8, 16, 60)], axis=1
    )
    return triples, np.array([0, 3, 1, 7, 3, 2, 5, 5, 4])


def facts(triples: np.ndarray, entities: np.ndarray) -> list[set[tuple[int, int]]]:
    """Values of each item, (position in A, entity), by plain loops; only those of two items."""
    place = {int(relation): a for a, relation in enumerate(ATTRIBUTES)}
    owned = [
        {
            (place[int(r)], int(tail))
            for head, r, tail in triples
            if int(r) in place and head == entity and item > 0
        }
        for item, entity in enumerate(entities)
    ]
    everywhere = [value for values in owned for value in values]
    return [{value for value in values if everywhere.count(value) > 1} for values in owned]


@pytest.fixture(scope="module")
def values() -> ItemValues:
    triples, entities = graph()
    return ItemValues.of(triples, ATTRIBUTES, entities)


def columns_of(values: ItemValues, item: int) -> np.ndarray:
    return values.columns[values.starts[item] : values.starts[item + 1]]


def test_items_have_the_values_of_the_graph(values):
    expected = facts(*graph())
    for item, wanted in enumerate(expected):
        columns = columns_of(values, item)
        assert list(columns) == sorted(columns) and (item == 0 or columns[0] == 0)
        pairs = zip(values.attributes[columns[1:]], values.entities[columns[1:]], strict=True)
        assert {(int(a), int(e)) for a, e in pairs} == wanted
    assert any(expected) and list(values.attributes) == sorted(values.attributes)


def test_a_match_counts_idf_over_the_attributes_usual_match(values):
    expected = facts(*graph())
    n_items = len(expected) - 1
    for a in range(3):
        idf = {
            value: math.log(n_items / sum(value in owned for owned in expected))
            for owned in expected
            for value in owned
            if value[0] == a
        }
        squares = [
            sum(idf[v] for v in one & other if v[0] == a) ** 2
            for i, one in enumerate(expected[1:])
            for j, other in enumerate(expected[1:])
            if i != j
        ]
        size = math.sqrt(np.mean(squares))
        for column in np.flatnonzero(values.attributes == a):
            if column:
                value = (a, int(values.entities[column]))
                assert values.weights[column] == pytest.approx(idf[value] / size, rel=1e-5)
    assert values.weights[0] == 0


def test_attention_is_even_before_a_weight_is_learned(values):
    found = ExactMemory(values, 3, hidden_size=4, time_scales=[0.0, 3.0]).attention(
        torch.ones(2, 4)
    )
    torch.testing.assert_close(found, torch.full((2, 3), 1 / 3))


def slow_reads(values: ItemValues, items: list[list[int]], weights: np.ndarray) -> list[np.ndarray]:
    """Every user's read after every step by plain loops, float64, from empty slots."""
    reads = []
    for user, sequence in enumerate(items):
        held = np.zeros((len(DECAYS), len(values.weights)))
        for step, item in enumerate(sequence):
            found = np.zeros(len(values.weights))
            for s, decay in enumerate(DECAYS):
                held[s] *= decay
                for column in columns_of(values, item):
                    held[s, column] += 1
                for column in range(1, len(found)):
                    share = held[s, column] / held[s, 0]
                    weight = weights[user][step][s, values.attributes[column]]
                    found[column] += share * weight * values.weights[column]
            reads.append(found)
    return reads


def run(values: ItemValues, dtype: torch.dtype, seed: int = 3):
    """Reads, slots, the weights' gradient and matches of a packed batch, from empty slots."""
    torch.manual_seed(seed)
    packing = Packing.of(torch.tensor(LENGTHS))
    items = torch.randint(1, 9, (sum(packing.widths),))
    weights = torch.randn(len(items), 3, 3, dtype=torch.float64).to(dtype).requires_grad_()
    given = [torch.from_numpy(part) for part in (values.starts, values.columns)]
    updates = exact.ExactUpdates(items, *given, torch.tensor(DECAYS, dtype=dtype))
    attributes, counts = torch.from_numpy(values.attributes), torch.from_numpy(values.weights)
    slots = torch.zeros(len(LENGTHS), 3, len(counts), dtype=dtype)
    reads = exact.Reads(weights, updates, slots, packing.widths, attributes, counts.to(dtype))
    everything = torch.arange(9)
    match, own = exact.terms(reads, everything, everything.flip(0).expand(len(items), -1))
    slopes = [torch.randn(match.shape, dtype=torch.float64).to(dtype) for _ in range(2)]
    (gradient,) = torch.autograd.grad((match, own), weights, slopes)
    after = exact.write_all(updates, slots, packing.widths)
    return packing, items, weights, reads.of_values(), after, match, own, gradient


def test_reads_equal_plain_loops(values):
    packing, items, weights, reads, *_ = run(values, torch.float64)
    rows = packing.rows.tolist()
    users = sorted(set(rows))
    where = {user: [k for k, row in enumerate(rows) if row == user] for user in users}
    sequences = [[int(items[k]) for k in where[user]] for user in users]
    read_with = [[weights[k].detach().numpy() for k in where[user]] for user in users]
    expected = slow_reads(values, sequences, np.array(read_with, dtype=object))
    order = [k for user in users for k in where[user]]
    np.testing.assert_allclose(reads[order].detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def test_kernels_equal_plain_pytorch(values):
    fast, plain = run(values, torch.float32), run(values, torch.float64)
    for found, expected in zip(fast[3:], plain[3:], strict=True):
        torch.testing.assert_close(found.double(), expected.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rate", [-50.0, -90.0, -200.0])
def test_kernels_equal_plain_pytorch_where_weights_fall_fast(rate):
    """What is added grows by e^50 at each step here, so it is scaled down again and again.

    By e^90 it grows to infinity in one step; e^-200 is 0 in float32.
    """
    triples, entities = graph(1)
    values = ItemValues.of(triples, ATTRIBUTES, entities)
    found = []
    for dtype in (torch.float32, torch.float64):
        given = [torch.from_numpy(part) for part in (values.starts, values.columns)]
        items = torch.tensor([1, 2, 3, 4, 5, 6, 7, 8] * 3)
        decays = torch.exp(torch.tensor([rate, -5.0], dtype=dtype))
        updates = exact.ExactUpdates(items, *given, decays)
        numbers = torch.from_numpy(values.weights).to(dtype)
        slots = torch.zeros(1, 2, len(numbers), dtype=dtype)
        weights = torch.ones(len(items), 2, 3, dtype=dtype)
        attributes = torch.from_numpy(values.attributes)
        reads = exact.Reads(weights, updates, slots, [1] * len(items), attributes, numbers)
        found.append(exact.terms(reads, torch.arange(9), items[:, None])[0].double())
        found.append(exact.write_all(updates, slots, [1] * len(items)).double())
    torch.testing.assert_close(found[:2], found[2:], rtol=1e-5, atol=1e-6)


def test_own_matches_are_those_of_shared_items(values):
    *_, match, own, _ = run(values, torch.float64)
    torch.testing.assert_close(own.flip(1), match)
    assert match[:, 0].abs().max() == 0 and match[:, 1:].abs().max() > 0  # padding has no value


@pytest.mark.parametrize("n_users", [1, 7, 8, 9, 20])
def test_users_matched_in_blocks_are_matched_as_one_by_one(values, n_users):
    torch.manual_seed(n_users)
    taste = torch.randn(n_users, len(values.weights))
    given = [torch.from_numpy(part) for part in (values.starts, values.columns)]
    found = exact.match(taste, torch.arange(9), *given)
    expected = exact.match(taste.double(), torch.arange(9), *given)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_gradient_of_the_weights_is_that_of_plain_pytorch(values):
    packing, items, weights, *_ = run(values, torch.float64)
    given = [torch.from_numpy(part) for part in (values.starts, values.columns)]
    updates = exact.ExactUpdates(items, *given, torch.tensor(DECAYS).double())
    attributes, counts = torch.from_numpy(values.attributes), torch.from_numpy(values.weights)
    slots = torch.rand(len(LENGTHS), 3, len(counts), dtype=torch.float64)

    def matches(weights: torch.Tensor) -> torch.Tensor:
        reads = exact.Reads(weights, updates, slots, packing.widths, attributes, counts.double())
        return exact.terms(reads, torch.arange(9), items[:, None])[0]

    assert torch.autograd.gradcheck(matches, weights, fast_mode=True)


def test_nobody_and_no_shared_value_make_no_match():
    triples = np.array([[1, 1, 8], [2, 1, 9], [3, 4, 10]])
    values = ItemValues.of(triples, ATTRIBUTES, np.array([0, 1, 2, 3]))
    assert list(values.columns) == [0, 0, 0] and list(values.weights) == [0]


# In a model -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small run with an exact memory, and its model directory."""
    from ksr_recbole import save_model
    from tests.toy import toy_run, write_toy

    folder = write_toy(tmp_path_factory.mktemp("exact"))
    result = toy_run(folder, "KSR", epochs=2, value_matrix="exact", learning_rate=0.05)
    return result, save_model(result, folder / "model")


def test_weights_of_the_read_are_numbers_times_gates_and_scales_are_in_items(values):
    scales = [3, 20, 100, 0]
    memory = ExactMemory(values, len(ATTRIBUTES), 5, scales).double()
    expected = [math.exp(-1 / 3), math.exp(-1 / 20), math.exp(-1 / 100), 1.0]
    torch.testing.assert_close(memory.decays, torch.tensor(expected, dtype=torch.float64))
    weights, hidden = torch.randn(4, 3).double(), torch.randn(2, 5).double()
    memory.wake(weights)
    torch.testing.assert_close(memory.reading(hidden), weights.expand(2, 4, 3))  # gates begin at 1
    with torch.no_grad():
        memory.gates.weight.normal_()
        memory.gates.bias.normal_()
    rows = hidden.numpy() @ memory.gates.weight.detach().numpy().T
    gates = 2 / (1 + np.exp(-(rows + memory.gates.bias.detach().numpy())))
    expected = torch.from_numpy(weights.numpy()[None] * gates[:, None, :])
    torch.testing.assert_close(memory.reading(hidden), expected)


def test_the_mean_of_a_slot_is_that_of_the_longest_time_scale(values):
    memory = ExactMemory(values, len(ATTRIBUTES), 5, [3, 0, 20]).double()
    slots = torch.rand(2, 3, len(values.attributes), dtype=torch.float64)
    vectors = torch.randn(16, 4, dtype=torch.float64)
    found = memory.matrices(slots, lambda ids: vectors[ids])
    for a in range(3):
        columns = [c for c in range(1, len(values.attributes)) if values.attributes[c] == a]
        held = slots[:, 1, columns]
        mean = held @ vectors[torch.from_numpy(values.entities[columns])]
        torch.testing.assert_close(found[:, a], mean / held.sum(1, keepdim=True))


def test_a_score_is_the_inner_product_and_the_terms_of_its_attributes(trained):
    from ksr_recbole import Recommender

    rec = Recommender.load(trained[1])
    state = rec.start(rec.items[:4])
    model, memory = rec.model, state.memory
    items = torch.arange(model.n_items)[None]
    with torch.no_grad():
        read = model.read_state(torch.zeros(1, dtype=torch.long), memory)
        terms = match_terms(model, memory, items)
        inner = read.users @ model.item_vectors().T
        torch.testing.assert_close(inner + terms.sum(-1), model.all_scores(read))
    assert terms.shape == (1, model.n_items, len(model.attributes)) and terms.abs().max() > 1e-3
    held = model.value_matrices(memory)
    assert held.shape == (1, len(model.attributes), model.options.kg_embedding_size)


def test_event_by_event_is_the_whole_history(trained):
    from ksr_recbole import Recommender

    rec = Recommender.load(trained[1])
    state = rec.start()
    for item in rec.items[:5]:
        state = rec.update(state, item)
    whole = dict(rec.recommend(rec.items[:5], k=5))
    assert dict(rec.recommend(state, k=5)) == pytest.approx(whole, rel=1e-4)
    with pytest.raises(Exception, match="no item and user vectors to search in"):
        rec.user_vector(rec.items[:5])


@pytest.mark.parametrize("name", ["starts", "columns", "attributes", "entities"])
@pytest.mark.parametrize("change", [lambda x: x + 10**6, lambda x: x - 5, lambda x: x.flip(0)[:-1]])
def test_numbers_that_would_read_elsewhere_are_refused(trained, name, change):
    from ksr_recbole import Recommender
    from ksr_recbole.trainer.weights import problem_in_sizes

    weights = dict(Recommender.load(trained[1]).model.state_dict())
    n_items, n_users = len(weights["item_embedding.weight"]), 1
    options = {"embedding_size": weights["item_embedding.weight"].shape[1]}
    options["kg_embedding_size"] = weights["entity_embedding.weight"].shape[1]
    options["hidden_size"] = weights["gru.weight_hh_l0"].shape[1]
    assert problem_in_sizes(weights, options.get, n_items, n_users) is None
    weights[f"exact.{name}"] = change(weights[f"exact.{name}"])
    assert "exact" in problem_in_sizes(weights, options.get, n_items, n_users)


def test_losses_over_a_sample_count_the_match(trained):
    from ksr_recbole.model.kernels import losses

    torch.manual_seed(0)
    users, items = torch.randn(6, 4), torch.randn(5, 4)
    terms = torch.randn(6, 5, requires_grad=True)
    targets, target_rows = torch.tensor([0, 1, 2, 3, 4, 0]), torch.tensor([0, 1, 2, 3, 4, 0])
    found = losses.softmax_loss(users, items, targets, terms)
    scores = users @ items.T + terms
    expected = torch.nn.functional.cross_entropy(scores, targets, reduction="sum")
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad(expected, terms)[0]
    torch.testing.assert_close(torch.autograd.grad(found, terms)[0], wanted)
    own = scores.detach().gather(1, targets[:, None])[:, 0]
    sampled = losses.sampled_softmax_loss(users, own, items, torch.zeros(5), target_rows, terms)
    torch.testing.assert_close(sampled, expected)
    got = torch.autograd.grad(sampled, terms)[0]  # the targets' own terms come with their scores
    rest = torch.ones_like(wanted).scatter_(1, targets[:, None], 0)
    torch.testing.assert_close(got * rest, wanted * rest)
