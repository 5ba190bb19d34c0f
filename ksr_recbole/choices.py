"""What a sentence on an unknown word says of the known ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is closest to ``word``; ``None`` if none is close."""

    def likeness(name: str) -> float:
        if sorted(name.lower()) == sorted(word.lower()):
            return 1.0  # letters in another order are the commonest slip
        return difflib.SequenceMatcher(None, word.lower(), name.lower()).ratio()

    if len(word) > 100:  # comparing takes the square of its length
        return None
    best = max(known, key=likeness, default="")
    return best if best and likeness(best) >= 0.6 else None


def nearest(word: str, known: Iterable[str]) -> str:
    """``"; did you mean X?"`` for the known word closest to ``word``, or an empty string."""
    best = closest(word, known)
    return "" if best is None else f"; did you mean {best}?"


def choose_from(word: str, known: Iterable[str], what: str) -> str:
    """The end of a sentence on an unknown word: the nearest known one, and all of them.

    Args:
        word: the unknown word.
        known: the known ones.
        what: what they are, such as ``"the models are"``.
    """
    names = list(known)
    told = f"{what} {', '.join(names)}."
    near = nearest(word, names)
    return f"{near} {told[0].upper()}{told[1:]}" if near else f"; {told}"
