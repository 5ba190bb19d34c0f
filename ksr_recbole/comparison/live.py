"""What a person sees while cells run: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ksr_recbole.comparison.cells import Cell
from ksr_recbole.comparison.plan import Plan
from ksr_recbole.comparison.pool import Job, Report
from ksr_recbole.comparison.store import Failed, Outcome, Store
from ksr_recbole.comparison.studies import Setting
from ksr_recbole.comparison.trials import describe, short
from ksr_recbole.files import open_regular
from ksr_recbole.text import below, clean_line, columns_of, terminal, without_colour, wrapped

_TAIL_BYTES = 8192
_EPOCH = re.compile(
    r"epoch (\d+) (?:training.*)?evaluating \[time: [\d.]+s, valid_score: (\d+\.\d+)\]"
)


def last_epoch(log: Path) -> str:
    """``", epoch 12: 0.3012"`` from the end of a cell's log, or an empty string."""
    try:
        with open_regular(log) as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            text = without_colour(file.read().decode(errors="replace"))
    except OSError:
        return ""
    found = _EPOCH.findall(text)
    return f", epoch {found[-1][0]}: {float(found[-1][1]):.4f}" if found else ""


@dataclass
class State:
    """A cell's state.

    Attributes:
        status: where the cell stands.
        score: MRR in the first mode and the study's phase, once done.
        seconds: what it took, once done or failed.
        started: when it began, ``time.monotonic()``, while it runs.
    """

    status: Literal["waiting", "running", "done", "failed"] = "waiting"
    score: float | None = None
    seconds: float = 0.0
    started: float = 0.0


class Board:
    """The states of a plan's cells, updated as an observer of the pool.

    Args:
        plan: the plan.
        outcomes: what is known already, by the cells' names; ended cells are added to it.
    """

    def __init__(self, plan: Plan, outcomes: dict[str, Outcome]) -> None:
        self.plan = plan
        self.states = {cell.name: State() for cell in plan.cells.values()}
        self.outcomes = outcomes
        self._cells = {cell.name: cell for cell in plan.cells.values()}
        self._began = time.monotonic()
        for name, outcome in outcomes.items():
            self._settle(name, outcome)

    def _settle(self, name: str, outcome: Outcome) -> None:
        state = self.states[name]
        if isinstance(outcome, Failed):
            state.status = "failed"
            return
        state.status = "done"
        phase = self.plan.request.study.phase
        state.score = outcome.metrics(self.plan.modes[0], phase)["mrr"]
        state.seconds = outcome.record["wall_seconds"]

    def started(self, job: Job) -> None:
        """A cell runs."""
        state = self.states[job.cell.name]
        state.status, state.started = "running", time.monotonic()

    def ended(self, job: Job, report: Report) -> None:
        """A cell is done or failed; its result is read from the store."""
        name = job.cell.name
        outcome = self.plan.store.outcome(job.cell, report.error)
        self.outcomes[name] = outcome
        self._settle(name, outcome)
        self.states[name].seconds = time.monotonic() - self.states[name].started

    def tick(self) -> None:
        """Nothing changes with time alone."""

    def running_seconds(self, name: str) -> float:
        """Seconds since a running cell began."""
        return time.monotonic() - self.states[name].started

    def headline(self) -> str:
        """Finished and total, elapsed, and what is left by the mean of what is done."""
        ended = sum(s.status in ("done", "failed") for s in self.states.values())
        text = f"{ended}/{len(self.states)} cells, {_duration(time.monotonic() - self._began)}"
        left = self.seconds_left()
        return text if left is None else f"{text}, about {_duration(left)} left"

    def seconds_left(self) -> float | None:
        """Estimate from the mean of the same model's finished cells, or of all of them.

        ``None`` where there is nothing to go by, or nothing left.
        """
        done: dict[str, list[float]] = {}
        for name, state in self.states.items():
            if state.status == "done":
                done.setdefault(self._cells[name].model, []).append(state.seconds)
        everything = [seconds for group in done.values() for seconds in group]
        if not everything or all(s.status in ("done", "failed") for s in self.states.values()):
            return None
        left = 0.0
        for name, state in self.states.items():
            known = done.get(self._cells[name].model, everything)
            expected = sum(known) / len(known)
            if state.status == "waiting":
                left += expected
            elif state.status == "running":
                left += max(0.0, expected - self.running_seconds(name))
        return left / self.plan.request.jobs

    def text(self, cell: Cell) -> str:
        """A cell's state in a few words."""
        state = self.states[cell.name]
        if state.status == "running":
            log = self.plan.store.log_file(cell)
            return f"{self.running_seconds(cell.name):.0f} s{last_epoch(log)}"
        return f"{state.score:.4f}" if state.status == "done" else state.status


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


class LineBoard(Board):
    """A line whenever a cell starts or ends.

    Args:
        write: takes each line.
        plan: as of :class:`Board`.
        outcomes: as of :class:`Board`.
    """

    def __init__(
        self, write: Callable[[str], None], plan: Plan, outcomes: dict[str, Outcome]
    ) -> None:
        super().__init__(plan, outcomes)
        self._write = write

    def started(self, job: Job) -> None:
        """A cell runs."""
        super().started(job)
        self._write(f"{job.cell.name}: started")

    def ended(self, job: Job, report: Report) -> None:
        """A cell is done or failed."""
        super().ended(job, report)
        state, outcome = self.states[job.cell.name], self.outcomes[job.cell.name]
        phase = self.plan.request.study.phase
        if isinstance(outcome, Failed):
            ending = f"failed, {outcome.error.rstrip('.')}"
        else:
            ending = f"{phase} MRR {state.score:.4f}"
        self._write(f"{job.cell.name}: {ending}, {_duration(state.seconds)} ({self.headline()})")
        if report.warning:
            self._write(f"warning: {report.warning}")


class LiveTable(Board):
    """A table that is drawn again and again; settings as rows, tasks and seeds as columns.

    Args:
        live: rich's ``Live``.
        plan: as of :class:`Board`.
        outcomes: as of :class:`Board`.
    """

    def __init__(self, live: Any, plan: Plan, outcomes: dict[str, Outcome]) -> None:
        super().__init__(plan, outcomes)
        self._live = live

    def ended(self, job: Job, report: Report) -> None:
        """A cell is done or failed."""
        super().ended(job, report)
        outcome, sentence = self.outcomes[job.cell.name], report.warning
        if isinstance(outcome, Failed):
            sentence = f"{job.cell.name} failed: {outcome.error}"
        if sentence:
            self._live.console.print(clean_line(sentence), markup=False, highlight=False)

    def tick(self) -> None:
        """Draw the table."""
        self._live.update(self.draw())

    def draw(self) -> Any:
        """The table, for rich."""
        from rich.table import Table

        request = self.plan.request
        columns = [(task, seed) for task in request.tasks for seed in request.seeds]
        table = Table(title=self.headline())
        table.add_column(_plain(request.dataset))
        for task, seed in columns:
            table.add_column(f"{task}\n{seed}", justify="right")
        for setting in request.study.settings:
            cells = [self.plan.cells[setting.label, *column] for column in columns]
            texts = (_plain(self.text(c), _STYLES[self.states[c.name].status]) for c in cells)
            table.add_row(_plain(setting.label), *texts)
        return table


def _plain(text: str, style: str = "") -> Any:
    """Foreign text for rich, which takes no markup from it."""
    from rich.text import Text

    return Text(clean_line(text), style)


class TrialLines:
    """A line whenever a trial of a search starts or ends; on a terminal, those that run below.

    Args:
        store: where the trials' logs are.
        n_trials: at most so many.
        metric: name of what they are chosen by.
    """

    def __init__(self, store: Store, n_trials: int, metric: str) -> None:
        from rich.console import Console
        from rich.live import Live

        self._store, self._n_trials, self._metric = store, n_trials, metric
        self._console = Console(file=below(sys.stdout))
        self._live = Live(console=self._console, refresh_per_second=2, transient=True)
        self._running: dict[str, tuple[Cell, float]] = {}

    def __enter__(self) -> TrialLines:
        if sys.stdout.isatty():
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def _write(self, line: str) -> None:
        if sys.stdout.isatty():
            fitting = wrapped(clean_line(line), columns_of(sys.stdout), "  ")
            self._console.print(fitting, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, flush=True)

    def started(self, number: int, params: Mapping[str, Any], cell: Cell) -> None:
        """A trial runs."""
        self._running[str(number)] = cell, time.monotonic()
        self._write(f"trial {number} of {self._n_trials}: {describe(params, short)}")

    def ended(
        self,
        setting: Setting,
        outcome: Outcome,
        score: float | None,
        best: float | None,
        before: bool,
    ) -> None:
        """A trial is done or failed.

        Args:
            setting: the trial, its number as its label.
            outcome: how it ended.
            score: what trials are chosen by, ``None`` if it failed.
            best: the best score so far.
            before: it was finished by an earlier command.
        """
        head = f"trial {setting.label}"
        if self._running.pop(setting.label, None) is None:
            head += f" of {self._n_trials}: {describe(setting.overrides, short)}"
        head += " (finished before)" if before else ""
        if isinstance(outcome, Failed):
            self._write(f"{head} failed: {outcome.error}")
            return
        seconds = f"{outcome.record['wall_seconds']:.1f} s"
        self._write(f"{head}: {self._metric} {score:.4f}, best {best:.4f}, {seconds}")

    def tick(self) -> None:
        """Show how far the trials that run are."""
        from rich.text import Text

        now = time.monotonic()
        lines = [
            f"trial {number}: {now - began:.0f} s{last_epoch(self._store.log_file(cell))}"
            for number, (cell, began) in self._running.items()
        ]
        self._live.update(Text("\n".join(map(clean_line, lines))))


_STYLES: Mapping[str, str] = {
    "waiting": "dim",
    "running": "yellow",
    "done": "green",
    "failed": "bold red",
}


@contextmanager
def observing(plan: Plan, outcomes: dict[str, Outcome]) -> Iterator[Board]:
    """A board on standard error: live on a terminal, plain lines elsewhere."""
    from rich.console import Console
    from rich.live import Live

    if not sys.stderr.isatty():
        yield LineBoard(lambda line: print(line, file=sys.stderr, flush=True), plan, outcomes)
        return
    console = Console(file=terminal())
    with Live(console=console, refresh_per_second=4) as live:
        board = LiveTable(live, plan, outcomes)
        yield board
        board.tick()
