"""The model of the paper, Eq. 1 to 11, written to be read and not to be fast.

One user's sequence at a time, float64, plain loops, and no code shared with ``ksr_recbole``:
the tests hold the vectorised model against this.  Vectors are rows here, where the paper's
matrices have columns: the value matrix V is ``[A, E]``.

Where the paper leaves a choice, this is the one taken:

* Item ``i_t`` is fed to the GRU, then written to memory, then memory is read with ``h_t``; the
  state after that predicts ``i_{t+1}``.
* ``p_t = h_t + m_t`` concatenated, with the GRU state ``h_t`` (length L_H).  Sec. 4.3 writes
  h-tilde, but also that p has size L_H + L_E, and h-tilde has the length of a key vector.
* ``MLP(x)`` is a chain of layers ``tanh(W x + b)``, the last one included, in Eq. 10 as in the
  query.
* The value matrix starts at zero.
* The loss (Eq. 11) carries the minus sign the paper drops: it is minimised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Layer = tuple[np.ndarray, np.ndarray]
"""Weight ``[out, in]`` and bias ``[out]``."""


@dataclass
class ReferenceParameters:
    """All parameters, float64.  D = H, so that p and q-tilde have one length, H + E.

    Attributes:
        item_embedding: q, ``[n_items, D]``.
        gru_weight_ih: ``[3H, D]``, gates in PyTorch's order: reset, update, new.
        gru_weight_hh: ``[3H, H]``.
        gru_bias_ih: ``[3H]``.
        gru_bias_hh: ``[3H]``.
        query_mlp: layers from h (H) to key space (K), Sec. 4.2.1.
        entity: e of every item, ``[n_items, E]``.
        relation: r, ``[A, E]``.
        key: K, ``[A, K]``; the paper sets it to ``relation``.
        user_mlp: layers H + E to H + E.
        item_mlp: layers H + E to H + E.
        gamma: scale of the attention, 10 in the paper.
        projection: None as in the paper, or ``[E, E]``: e_i is multiplied by it before it is
            written, as in the authors' released code.
    """

    item_embedding: np.ndarray
    gru_weight_ih: np.ndarray
    gru_weight_hh: np.ndarray
    gru_bias_ih: np.ndarray
    gru_bias_hh: np.ndarray
    query_mlp: list[Layer]
    entity: np.ndarray
    relation: np.ndarray
    key: np.ndarray
    user_mlp: list[Layer]
    item_mlp: list[Layer]
    gamma: float = 10.0
    projection: np.ndarray | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array by name (``"user_mlp.0.weight"``); changing one changes the parameters."""
        named: dict[str, np.ndarray] = {}
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                named[name] = value
            elif isinstance(value, list):
                for number, (weight, bias) in enumerate(value):
                    named[f"{name}.{number}.weight"] = weight
                    named[f"{name}.{number}.bias"] = bias
        return named


@dataclass
class Step:
    """What happened at one time step.

    Attributes:
        h: GRU state, ``[H]`` (Eq. 1).
        gate: z, ``[A]`` (Eq. 8).
        values: V after the write, ``[A, E]`` (Eq. 9).
        attention: w, ``[A]`` (Eq. 6).
        m: what was read, ``[E]`` (Eq. 5).
        p: h and m concatenated, ``[H + E]`` (Sec. 4.3).
    """

    h: np.ndarray
    gate: np.ndarray
    values: np.ndarray
    attention: np.ndarray
    m: np.ndarray
    p: np.ndarray


def sigmoid(x: np.ndarray | float) -> np.ndarray | float:
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + np.exp(-x))


def mlp(layers: list[Layer], x: np.ndarray) -> np.ndarray:
    """Hidden layers with tanh (below Eq. 10)."""
    for weight, bias in layers:
        x = np.tanh(weight @ x + bias)
    return x


def gru_step(params: ReferenceParameters, h: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Eq. 1: the state after reading item embedding ``q`` in state ``h``, in PyTorch's form."""
    size = len(h)
    from_input = params.gru_weight_ih @ q + params.gru_bias_ih
    from_state = params.gru_weight_hh @ h + params.gru_bias_hh
    r = sigmoid(from_input[:size] + from_state[:size])
    z = sigmoid(from_input[size : 2 * size] + from_state[size : 2 * size])
    n = np.tanh(from_input[2 * size :] + r * from_state[2 * size :])
    return (1.0 - z) * n + z * h


def gru_score(params: ReferenceParameters, h: np.ndarray, item: int) -> float:
    """Eq. 2: the score of the base recommender, without memory."""
    return float(h @ params.item_embedding[item])


def attention(params: ReferenceParameters, h: np.ndarray) -> np.ndarray:
    """Eq. 6: a softmax over attributes of gamma times query times key, ``[A]``."""
    query = mlp(params.query_mlp, h)
    logits = np.array([params.gamma * (query @ key) for key in params.key])
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def read(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Eq. 5 (READ, Eq. 3): the attentive combination of the value vectors, ``[E]``."""
    m = np.zeros(values.shape[1])
    for a in range(len(weights)):
        m = m + weights[a] * values[a]
    return m


def update_vectors(params: ReferenceParameters, item: int) -> np.ndarray:
    """Eq. 7: e_i + r_a for every attribute, ``[A, E]``."""
    entity = params.entity[item]
    if params.projection is not None:
        entity = params.projection @ entity
    return np.array([entity + relation for relation in params.relation])


def gate(values: np.ndarray, updates: np.ndarray, bias: float = 0.0) -> np.ndarray:
    """Eq. 8: how much of each value vector is replaced, ``[A]``."""
    return np.array([sigmoid(values[a] @ updates[a] + bias) for a in range(len(values))])


def write(values: np.ndarray, updates: np.ndarray, bias: float = 0.0) -> np.ndarray:
    """Eq. 9 (WRITE, Eq. 4): the value matrix after an update, a new ``[A, E]``."""
    z = gate(values, updates, bias)
    rows = [(1.0 - z[a]) * values[a] + z[a] * updates[a] for a in range(len(values))]
    return np.array(rows)


def score(params: ReferenceParameters, p: np.ndarray, item: int) -> float:
    """Eq. 10: inner product of the user's MLP of p and the item's MLP of q-tilde."""
    q_tilde = np.concatenate([params.item_embedding[item], params.entity[item]])
    return float(mlp(params.user_mlp, p) @ mlp(params.item_mlp, q_tilde))


def run(
    params: ReferenceParameters, items: Sequence[int], values: np.ndarray | None = None
) -> list[Step]:
    """Feed a user's items one by one; one :class:`Step` per item.

    Args:
        values: value matrix to start from, ``[A, E]``; zero if not given.  (The shared value
            matrix of Table 4 is not here; it would replace the write below and start from
            this.)
    """
    h = np.zeros(params.gru_weight_hh.shape[1])
    if values is None:
        values = np.zeros(params.relation.shape)
    steps = []
    for item in items:
        h = gru_step(params, h, params.item_embedding[item])
        updates = update_vectors(params, item)
        z = gate(values, updates)
        values = write(values, updates)
        weights = attention(params, h)
        m = read(weights, values)
        steps.append(Step(h, z, values, weights, m, np.concatenate([h, m])))
    return steps


def loss(
    params: ReferenceParameters, items: Sequence[int], negatives: Sequence[Sequence[int]]
) -> float:
    """Eq. 11 for one user: -sum of log sigmoid(positive - negative) over t >= 2 and negatives.

    Args:
        items: the training sequence, length T.
        negatives: ``negatives[k]`` are compared with the target ``items[k + 1]``, length T - 1.
    """
    steps = run(params, items)
    total = 0.0
    for k in range(len(items) - 1):
        positive = score(params, steps[k].p, items[k + 1])
        for j in negatives[k]:
            total += float(np.logaddexp(0.0, score(params, steps[k].p, j) - positive))
    return total


def loss_closure(
    params: ReferenceParameters, items: Sequence[int], negatives: Sequence[Sequence[int]]
) -> Callable[[], float]:
    """The loss as a function of whatever ``params`` holds when it is called."""
    return lambda: loss(params, items, negatives)


def numeric_gradient(f: Callable[[], float], array: np.ndarray, eps: float = 1e-6) -> np.ndarray:
    """Gradient of ``f`` with respect to ``array`` by central differences, of its shape.

    ``array`` is changed in place cell by cell, and put back.
    """
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + eps
        above = f()
        array[index] = kept - eps
        below = f()
        array[index] = kept
        gradient[index] = (above - below) / (2.0 * eps)
    return gradient


def random_parameters(
    seed: int,
    n_items: int = 6,
    hidden: int = 3,
    kb: int = 2,
    attributes: int = 3,
    layers: int = 1,
    gamma: float = 10.0,
    projection: bool = False,
) -> ReferenceParameters:
    """Small random parameters; item 0 is RecBole's padding item and has zero embeddings.

    The key matrix is a copy of the relations (Sec. 4.2.2), and so K = E: a copy, so that a
    gradient with respect to one leaves the other alone.
    """
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(0.0, 0.5, shape)

    both = hidden + kb
    relation = normal(attributes, kb)
    params = ReferenceParameters(
        item_embedding=normal(n_items, hidden),
        gru_weight_ih=normal(3 * hidden, hidden),
        gru_weight_hh=normal(3 * hidden, hidden),
        gru_bias_ih=normal(3 * hidden),
        gru_bias_hh=normal(3 * hidden),
        query_mlp=[(normal(kb, kb if n else hidden), normal(kb)) for n in range(layers)],
        entity=normal(n_items, kb),
        relation=relation,
        key=relation.copy(),
        user_mlp=[(normal(both, both), normal(both)) for _ in range(layers)],
        item_mlp=[(normal(both, both), normal(both)) for _ in range(layers)],
        gamma=gamma,
        projection=normal(kb, kb) if projection else None,
    )
    params.item_embedding[0] = 0.0
    params.entity[0] = 0.0
    return params
