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
        weight: its attention (Eq. 6; with an exact memory its share of the reading weights); the
            weights of a step sum to one.
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
class Chosen:
    """An item of the user's own history.

    Attributes:
        item: the item.
        ago: how many choices ago, 1 for the latest.
    """

    item: Item
    ago: int


@dataclass(frozen=True)
class Reason:
    """A value that a recommended item shares with items of the user's own history.

    The same value on several attributes (who wrote and directed a film) is one reason.

    Attributes:
        phrase: in words, such as "directed by Nora Ephron".
        sentence: the phrase and items of the history that have it: the latest, or with ``left
            out`` weights (:attr:`Explanation.split`) those that weigh most.
        attributes: positions in :attr:`Explanation.attributes`.
        labels: the attributes in plain words.
        entity: the value entity's id.
        value: its name.
        attention: the attention on the attributes, among those that the item has.
        weight: how much it raises the score, see :attr:`Explanation.split`.
        rarity: ``log(items / items that have the value)``.
        n_items: how many items have the value.
        chosen: the items of the history that have it, the latest first; not the recommended one.
    """

    phrase: str
    sentence: str
    attributes: tuple[int, ...]
    labels: tuple[str, ...]
    entity: str
    value: str
    attention: float
    weight: float
    rarity: float
    n_items: int
    chosen: tuple[Chosen, ...]


@dataclass(frozen=True)
class Often:
    """A value that many items of the history have, for how rare it is.

    Attributes:
        phrase: in words, as of a :class:`Reason`.
        times: how many items of the history have it.
    """

    phrase: str
    times: int


@dataclass(frozen=True)
class Recommendation:
    """An item of the top of the full ranking, history excluded; or one that was asked for.

    Attributes:
        rank: from 1; of an item that was asked for 1 and how many others, history excluded, have
            its score or a higher one.
        item: the item.
        score: Eq. 10; with an exact memory a part for each of the item's values is added.
        sentence: why, in one sentence.
        reasons: the model's own, by weight and rarity: values with at least 1 % of all that
            speaks for the item.
        common: of these, the values that more than a fifth of all items have.
        shared: values shared with the history that do not raise the score: no reasons of the
            model.
    """

    rank: int
    item: Item
    score: float
    sentence: str
    reasons: tuple[Reason, ...]
    common: tuple[Reason, ...]
    shared: tuple[Reason, ...]


@dataclass(frozen=True)
class Explanation:
    """What KSR's memory says of one user.

    Attributes:
        model: the model's name.
        dataset: the dataset's name.
        user: the user's id in the ``.inter`` file.
        n_interactions: length of the history the model read.
        value_matrix: ``private``, ``shared`` by all users (Sec. 5.3), or ``exact``: value entities
            themselves, which is no memory of the paper's.
        split: what a reason's weight is. ``exact``: what its value adds to the score, which is
            a sum; ``left out``: by how much the score falls if its items are left out of the
            history, each alone, of the latest 50.
        attributes: the memory's slots.
        attention: attention on each attribute now, among those that at least a tenth of the items
            have; 0 for the others.
        history: the items the model read, oldest first.
        often: what the history has more than once, by times and rarity.
        steps: the last steps, oldest first; empty if none were asked for.
        recommendations: what to choose next, best first.
        notes: what a reader must know, such as where names are missing; one sentence each.
    """

    model: str
    dataset: str
    user: str
    n_interactions: int
    value_matrix: str
    split: str
    attributes: tuple[Attribute, ...]
    attention: tuple[float, ...]
    history: tuple[Item, ...]
    often: tuple[Often, ...]
    steps: tuple[Step, ...]
    recommendations: tuple[Recommendation, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything as values that JSON can hold."""
        return asdict(self)

    def by_attention(self) -> list[int]:
        """Positions of the attributes, the most attention now first."""
        weights = self.attention
        return sorted(range(len(weights)), key=lambda a: -weights[a])
