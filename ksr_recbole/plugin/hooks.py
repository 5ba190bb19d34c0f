"""Changes to other modules that remember what was there before."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_ABSENT = object()

Function = Callable[..., Any]


class Hooks:
    """A list of changes, each with the way back."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def set_attribute(self, holder: Any, name: str, value: Any) -> None:
        """``holder.name = value``; ``name`` need not be an identifier."""
        before = vars(holder).get(name, _ABSENT)
        setattr(holder, name, value)

        def undo() -> None:
            if before is _ABSENT:
                delattr(holder, name)
            else:
                setattr(holder, name, before)

        self._undo.append(undo)

    def add_module(self, name: str, **content: Any) -> None:
        """A module that ``importlib`` finds under ``name``, where there must be none yet."""
        module = ModuleType(name)
        vars(module).update(content, __spec__=ModuleSpec(name, None))
        sys.modules[name] = module

        def undo() -> None:
            del sys.modules[name]

        self._undo.append(undo)

    def replace_functions(self, replacements: Mapping[Function, Function]) -> None:
        """Every function's replacement instead of it, in every module that holds it by any name.

        Modules hold a function they imported by name, so that changing it where it is defined
        would not reach them.  The way back also reaches modules imported since.
        """
        _exchange(replacements)
        back = {new: old for old, new in replacements.items()}
        self._undo.append(lambda: _exchange(back))

    def undo(self) -> None:
        """Take all changes back, the last one first."""
        while self._undo:
            self._undo.pop()()


def _exchange(replacements: Mapping[Function, Function]) -> None:
    # All functions in one walk: a process holds some thousand modules.
    new = {id(old): replacement for old, replacement in replacements.items()}
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType):
            for name, value in list(vars(module).items()):
                if id(value) in new:
                    setattr(module, name, new[id(value)])
