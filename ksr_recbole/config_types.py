"""The type of a configuration, for the modules below that of the class itself."""

from __future__ import annotations

from typing import Any, Protocol


class ConfigValues(Protocol):
    """The values of config keys: a configuration, or a mapping that has those that are read."""

    def __getitem__(self, key: str, /) -> Any:
        """The value of a key."""


class Configuration(ConfigValues, Protocol):
    """What is used of a :class:`~ksr_recbole.config.Config`, whose base class has no types.

    The value of a key that it does not have is ``None``.

    Attributes:
        model: name of the model.
        under_protocol: whether the model runs on our split, candidates and metrics.
        external_config_dict: what the user gave.
        internal_config_dict: the defaults.
        final_config_dict: all values.
    """

    model: str
    under_protocol: bool
    external_config_dict: dict[str, Any]
    internal_config_dict: dict[str, Any]
    final_config_dict: dict[str, Any]

    def __setitem__(self, key: str, value: Any, /) -> None:
        """Set the value of a key."""

    def remarks(self) -> list[str]:
        """A sentence on each key that was given and that does nothing here."""
