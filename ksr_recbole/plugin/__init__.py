"""Drop-in registration: this package's models under their names in RecBole itself.

``register()`` puts them where RecBole looks models, datasets and trainers up by name;
``unregister()`` takes exactly that back.  ``docs/recbole.md`` says what changes and what stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ksr_recbole.compat import trust_checkpoints
from ksr_recbole.threads import limit_libraries
from ksr_recbole.versions import check_versions

if TYPE_CHECKING:
    from ksr_recbole.plugin.hooks import Hooks

_active: Hooks | None = None
"""What is in place; ``None`` while nothing is registered."""


def register(trust_checkpoint: bool = False) -> None:
    """Make this package's models available to RecBole under their names; once is enough.

    From then on ``run_recbole(model="KSR", dataset="ml-100k")``, ``objective_function``,
    ``load_data_and_model`` and everything else of RecBole that takes a model's name work with
    them.  RecBole's own KSR is ``StockKSR``; its other models stay as they are.

    Args:
        trust_checkpoint: unpickle checkpoints of RecBole's own models whoever wrote them, which
            can run any code; without it only those that this process wrote.

    Raises:
        UserError: a version this package does not work with.
    """
    global _active
    trust_checkpoints(trust_checkpoint)
    if _active is not None:
        return
    check_versions()
    limit_libraries()
    # Imported late: RecBole fails to import with the versions refused before.
    from ksr_recbole.plugin.recbole_hooks import put_in_place

    _active = put_in_place()


def unregister() -> None:
    """Take back the hooks of :func:`register`; nothing if nothing is registered.

    What RecBole needs of today's libraries stays.
    """
    global _active
    if _active is not None:
        _active.undo()
        _active = None
    trust_checkpoints(False)
