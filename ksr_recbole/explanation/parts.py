"""What an explanation says, as plain values: every view (terminal, page, figure) reads these."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Attribute:
    """A slot of the memory (Sec. 4.2.1).

    Attributes:
        relation: the relation's id in the ``.kg`` file.
        label: the relation in words; no two attributes have the same.
        n_entities: size of its range, the number of candidates of a ranking.
    """

    relation: str
    label: str
    n_entities: int


@dataclass(frozen=True)
class Item:
    """An item by its id in the ``.inter`` file and its title (the id where there is none)."""

    id: str
    title: str


@dataclass(frozen=True)
class ValueEntity:
    """An entity in the ranking of an attribute's range (Sec. 5.4).

    Attributes:
        id: its id in the ``.kg`` file.
        name: its name, or the title of an item it is linked to, or its id.
        rank: position by distance, from 1.
        distance: L1 distance of its embedding to the value vector.
        right: whether the next interaction's item has it; ``None`` if that is not known yet.
    """

    id: str
    name: str
    rank: int
    distance: float
    right: bool | None


@dataclass(frozen=True)
class AttributeView:
    """One attribute after one step, in the order of :attr:`Explanation.attributes`.

    Attributes:
        weight: its attention (Eq. 6); the weights of a step sum to one.
        values: the entities nearest to the value vector, nearest first.
        right: the entities that the next interaction's item has, wherever they are ranked;
            empty if it has none or is not known yet.
    """

    weight: float
    values: tuple[ValueEntity, ...]
    right: tuple[ValueEntity, ...]


@dataclass(frozen=True)
class Step:
    """The memory after ``number`` interactions, which is what predicts the next one.

    Attributes:
        number: position of the interaction in the user's history, from 1.
        item: its item.
        time: its time in UTC as ``YYYY-MM-DD HH:MM``; ``None`` if timestamps are no dates.
        attributes: attention and values of each attribute.
        next_item: the item chosen next; ``None`` after the last interaction.
    """

    number: int
    item: Item
    time: str | None
    attributes: tuple[AttributeView, ...]
    next_item: Item | None


@dataclass(frozen=True)
class Reason:
    """An entity that a recommended item has and that is among the user's leading values.

    Leading are the first ``top`` entities of an attribute, but no more than a quarter of its
    range, and only where the attribute has at least 1 % of the attention.

    Attributes:
        label: the attribute in words.
        entity: the entity's id.
        name: its name.
        weight: the attention on the attribute after the last step.
        rank: the entity's rank by distance after the last step.
        n_entities: size of the attribute's range.
    """

    label: str
    entity: str
    name: str
    weight: float
    rank: int
    n_entities: int


@dataclass(frozen=True)
class Recommendation:
    """An item of the top of the full ranking, history excluded.

    Attributes:
        rank: from 1.
        item: the item.
        score: Eq. 10.
        reasons: most attention first; empty if the memory holds nothing in its favour.
    """

    rank: int
    item: Item
    score: float
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Explanation:
    """What KSR's memory says of one user.

    Attributes:
        model: the model's name.
        dataset: the dataset's name.
        user: the user's id in the ``.inter`` file.
        n_interactions: length of the history the model read.
        value_matrix: ``private``, or ``shared`` by all users (Sec. 5.3).
        attributes: the memory's slots.
        steps: the last steps, oldest first.
        recommendations: what to choose next, best first.
        notes: what a reader must know, such as where names are missing; one sentence each.
    """

    model: str
    dataset: str
    user: str
    n_interactions: int
    value_matrix: str
    attributes: tuple[Attribute, ...]
    steps: tuple[Step, ...]
    recommendations: tuple[Recommendation, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything as values that JSON can hold."""
        return asdict(self)

    def by_attention(self) -> list[int]:
        """Positions of the attributes, the most attention after the last step first."""
        weights = [view.weight for view in self.steps[-1].attributes]
        return sorted(range(len(weights)), key=lambda a: -weights[a])
