"""What a run logs: RecBole's logger, cleaned for a terminal, with one line an epoch."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from logging import (
    FileHandler,
    Formatter,
    Handler,
    LogRecord,
    NullHandler,
    StreamHandler,
    getLogger,
    makeLogRecord,
)
from typing import Any, TextIO

from recbole.trainer import trainer as recbole_trainer
from recbole.utils import logger as recbole_logger
from recbole.utils import set_color

from ksr_recbole.bars import on_terminal
from ksr_recbole.config_types import Configuration
from ksr_recbole.distributed import group
from ksr_recbole.errors import UserError
from ksr_recbole.paths import name_of_new, time_of_new
from ksr_recbole.text import clean, terminal, uncovered, without_colour

_TRAINED = re.compile(r"epoch (\d+) training \[.*\]")
_EVALUATED = re.compile(r"epoch (\d+) (evaluating \[.*\])")
_DETAILS = ("valid result", "Saving current")
"""Lines of RecBole's trainer that only its log file gets."""
_HEADS = re.compile(r"epoch \d+ training|evaluating(?= \[)|best valid|test result")


@contextmanager
def logging_of(config: Configuration) -> Iterator[None]:
    """RecBole's logger for the time of a run, so that a second run gets its own log file.

    The log file has RecBole's lines, standard error one line an epoch.  Of several processes the
    main one alone logs.
    """
    root = getLogger()
    before, level = root.handlers[:], root.level
    root.handlers = []
    try:
        if group.this_process().main:
            with uncovered():  # RecBole wraps both streams for Windows
                _init_logger(config)
            root.handlers = [_ours(handler, config) for handler in root.handlers]
        else:
            root.addHandler(_Silent(config))
        with _events_without_errors():
            yield
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers = before
        root.setLevel(level)  # RecBole sets it by the config key `state`


def _init_logger(config: Configuration) -> None:
    """RecBole's, with a log file of its own: two like runs of one second would share RecBole's."""
    before = recbole_logger.get_local_time
    recbole_logger.get_local_time = time_of_new
    try:
        recbole_logger.init_logger(config)
    except OSError as error:
        raise _no_folder("log", "RecBole's log files", error) from error
    finally:
        recbole_logger.get_local_time = before


def to_log_file(text: str) -> None:
    """Log what is too long for a terminal to the log file only."""
    logger = getLogger()
    record = logger.makeRecord(logger.name, 20, __file__, 0, text, (), None)
    for handler in logger.handlers:
        if isinstance(handler, FileHandler):
            handler.handle(record)


def _ours(handler: Handler, config: Configuration) -> Handler:
    """RecBole's handler of the log file, or ours instead of its one for standard error."""
    formatter = handler.formatter or Formatter()
    if isinstance(handler, FileHandler):
        # RecBole's has a filter, which changes the record for the handlers after it.
        handler = _LogFile(handler)
        handler.setFormatter(_CleanFormatter(formatter, colour=False))
        # RecBole names the folder of TensorBoard's events after the file, up to the first dot:
        # all runs on a dataset "a.b" would share one.  The file is open and keeps its name.
        handler.baseFilename = handler.baseFilename.removesuffix(".log").replace(".", "_")
        return handler
    stream = terminal()
    ours = _EpochLines(stream, config["eval_step"])
    ours.setLevel(handler.level)
    ours.setFormatter(_CleanFormatter(formatter, colour=on_terminal()))
    return ours


class _Lost:
    """Says once of something written along with a run that it cannot be; the run does not need it.

    Args:
        what: what it is and where, at the beginning of a sentence.
    """

    def __init__(self, what: str) -> None:
        self._what, self._told = what, False

    def tell(self, error: OSError) -> None:
        """Say why, unless it was said before."""
        if not self._told:
            self._told = True  # before the line, which goes to the log file too
            getLogger().warning(
                f"{self._what} cannot be written ({error.strerror or error}), so what follows may "
                "be missing there."
            )


class _LogFile(FileHandler):
    """RecBole's handler of the log file, on a disk that may become full.

    Args:
        opened: RecBole's, whose file is open.
    """

    def __init__(self, opened: FileHandler) -> None:
        super().__init__(opened.baseFilename, opened.mode, opened.encoding, delay=True)
        self.setLevel(opened.level)
        self.stream = opened.stream
        self._lost = _Lost(f"The log file {opened.baseFilename}")

    def flush(self) -> None:
        """Write what is buffered, if that is possible."""
        try:
            super().flush()
        except OSError as error:
            self._lost.tell(error)

    def handleError(self, record: LogRecord) -> None:
        """Say that a record could not be written."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self._lost.tell(error)
        else:
            super().handleError(record)

    def close(self) -> None:
        """Close the file, whatever became of it."""
        try:
            super().close()
        except OSError as error:
            self._lost.tell(error)


class _Events:
    """RecBole's writer of TensorBoard's events, on a disk that may become full.

    Args:
        make: RecBole's function.
        logger: what it takes.

    Raises:
        UserError: there is no place for events.
    """

    def __init__(self, make: Callable[[Any], Any], logger: Any) -> None:
        try:
            self._writer = make(logger)
        except OSError as error:
            raise _no_folder("log_tensorboard", "TensorBoard's events", error) from error
        self._lost = _Lost(f"TensorBoard's events in {self._writer.log_dir}")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy and pickle ask before there is a writer
            raise AttributeError(name)
        found = getattr(self._writer, name)
        return partial(self._call, found) if callable(found) else found

    def _call(self, method: Callable[..., Any], *given: Any, **named: Any) -> Any:
        try:
            return method(*given, **named)
        except OSError as error:
            self._lost.tell(error)
        return None


@contextmanager
def _events_without_errors() -> Iterator[None]:
    """Inside the block RecBole's trainers get :class:`_Events`."""
    make, hook = recbole_trainer.get_tensorboard, threading.excepthook

    def told_elsewhere(failed: Any) -> None:
        # The thread that writes hands its error to who calls the writer, and raises it too.
        of_writer = type(failed.thread).__name__ == "_AsyncWriterThread"
        if not (of_writer and isinstance(failed.exc_value, OSError)):
            hook(failed)

    recbole_trainer.get_tensorboard = partial(_Events, make)
    threading.excepthook = told_elsewhere
    try:
        yield
    finally:
        recbole_trainer.get_tensorboard, threading.excepthook = make, hook


def _no_folder(name: str, what: str, error: OSError) -> UserError:
    return UserError(
        f"The folder ./{name} of {what} cannot be written ({error.strerror or error}); start the "
        "command in a folder that you may write to."
    )


class _CleanFormatter(Formatter):
    """Formats as another one does, with foreign text cleaned and colours for a terminal only.

    Args:
        inner: the other one.
        colour: whether to keep its colours, and to colour what begins an epoch's line.
    """

    def __init__(self, inner: Formatter, colour: bool) -> None:
        super().__init__()
        self._inner, self._colour = inner, colour

    def format(self, record: LogRecord) -> str:
        """The record as text."""
        if not self._colour:
            return clean(without_colour(self._inner.format(record)))
        text = clean(_message(record))
        text = _HEADS.sub(lambda head: set_color(head[0], "green"), text)
        return self._inner.format(_with_message(record, text))


def _message(record: LogRecord) -> str:
    """A record's message, with the traceback if it has one, without RecBole's colours."""
    text = record.getMessage()
    if record.exc_info:
        text += "\n" + Formatter().formatException(record.exc_info)
    return without_colour(text)


def _with_message(record: LogRecord, text: str) -> LogRecord:
    return makeLogRecord({**record.__dict__, "msg": text, "args": None, "exc_info": None})


class _EpochLines(StreamHandler[TextIO]):
    """Standard error's handler: makes one line of all that RecBole logs of an epoch.

    Args:
        stream: the stream.
        eval_step: RecBole's, after how many epochs one is validated.
    """

    def __init__(self, stream: TextIO, eval_step: Any) -> None:
        super().__init__(stream)
        self._step = eval_step if isinstance(eval_step, int) else 0
        self._trained: LogRecord | None = None

    def emit(self, record: LogRecord) -> None:
        """Write a record, or keep it until the epoch's validation."""
        text = without_colour(record.getMessage())
        if (trained := _TRAINED.fullmatch(text)) and self._validated(int(trained[1])):
            self._write_kept()
            self._trained = record
        elif (evaluated := _EVALUATED.fullmatch(text)) and self._trained is not None:
            whole = f"{_message(self._trained)}, {evaluated[2]}"
            self._trained = None
            super().emit(_with_message(record, whole))
        elif not text.startswith(_DETAILS):
            self._write_kept()
            super().emit(record)

    def _validated(self, epoch: int) -> bool:
        return self._step > 0 and (epoch + 1) % self._step == 0

    def _write_kept(self) -> None:
        kept, self._trained = self._trained, None
        if kept is not None:
            super().emit(kept)

    def close(self) -> None:
        """Write what was kept: the run has ended before the validation."""
        self._write_kept()
        super().close()


class _Silent(NullHandler):
    """No log; ``baseFilename`` is what RecBole names the folder of TensorBoard's events after."""

    def __init__(self, config: Configuration) -> None:
        super().__init__()
        self.baseFilename = name_of_new(config["model"])


# Weights & Biases -----------------------------------------------------------------------------


@contextmanager
def own_wandb_run(config: Configuration) -> Iterator[None]:
    """What is logged inside the block is a run of its own there, unless one was begun before."""
    wandb = import_module("wandb") if config["log_wandb"] else None
    begun_before = wandb is None or wandb.run is not None
    try:
        yield
    finally:
        if wandb is not None and not begun_before:
            wandb.finish()


def log_evaluated(trainer: Any, evaluated: Mapping[str, Mapping[str, Any]], mode: str) -> None:
    """Write the metrics of the test to the summary at Weights & Biases, if anything is logged.

    Args:
        trainer: has RecBole's logger.
        evaluated: results by mode and phase.
        mode: whose metrics stand under ``eval/``, as RecBole's do; others under their own name.
    """
    for each, phases in evaluated.items():
        metrics = phases["test"].metrics
        trainer.wandblogger.log_eval_metrics(metrics, "eval" if each == mode else each)
