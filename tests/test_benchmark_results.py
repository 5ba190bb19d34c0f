"""Significance, tables and improvements of the benchmark, on results made up here."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ttest_rel

from ksr_recbole.comparison import by_frequency, report, text_table
from ksr_recbole.comparison import store as store_module
from ksr_recbole.comparison.cells import Cell
from ksr_recbole.comparison.figures import draw
from ksr_recbole.comparison.report import markdown_document
from ksr_recbole.comparison.results import Row, check_candidates, on_candidates, summarise
from ksr_recbole.comparison.significance import Comparison, PerUser, compare, mean_over_seeds
from ksr_recbole.comparison.store import Failed, Store, arrays_of, ranks_of
from ksr_recbole.comparison.studies import STUDIES, Study, table3
from ksr_recbole.comparison.table import (
    Line,
    Table,
    Value,
    table_of,
    to_latex,
    to_markdown,
)
from ksr_recbole.comparison.text_table import as_printed, to_text
from ksr_recbole.comparison.trial_files import by_mrr
from ksr_recbole.comparison.trials import rank_trials, seconds_of
from ksr_recbole.errors import DamagedFileError, UserError
from tests.benchmark_fakes import MODES, finished, run_result


def per_user(*values: float) -> PerUser:
    return PerUser(np.arange(1, len(values) + 1), np.array(values, dtype=float))


# Cells ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("users", "ranks", "possible"),
    [
        ([1, 1, 1, 1], [1, 1, 1, 1], False),
        ([2, 1, 2], [7, 7, 7], False),
        ([1, 2, 3], [1, 1, 1], True),
        ([0, 0, 2**30 - 1, 2**30 - 1], [1, 2**30 - 1, 1, 2**30 - 1], True),
        ([0, 0], [2**30 - 1, 2**30 - 1], False),
    ],
)
def test_two_items_of_a_user_are_not_at_one_place(users, ranks, possible):
    """Their MAP would be above 1."""
    arrays = arrays_of({("full", "test"): (np.array(users), np.array(ranks))}, {})
    if possible:
        assert [each.tolist() for each in ranks_of(arrays, "full", "test")] == [users, ranks]
        return
    with pytest.raises(DamagedFileError, match="have two of a user at one place"):
        ranks_of(arrays, "full", "test")


def test_a_cell_that_is_saved_again_while_it_is_read(tmp_path, monkeypatch, caplog):
    """Its two files are read one after the other, both of the old cell or both of the new."""
    store, cell = Store(tmp_path), Cell("KSR", "toy", "next-item", 1, {}, "ab" * 32)
    results = [run_result({"test": [rank, 2], "valid": [1, 2]}) for rank in (1, 3)]
    store.save(cell, results[0], 1.0, False)
    read, left = store_module.read_arrays, [1]

    def saved_again(path, key):
        if left:
            left.clear()
            store.save(cell, results[1], 2.0, False)
        return read(path, key)

    monkeypatch.setattr(store_module, "read_arrays", saved_again)
    found = store.load(cell)
    assert found.record["wall_seconds"] == 2 and caplog.text == ""
    assert found.ranks["full", "test"][1].tolist() == [3, 2]


# Significance ---------------------------------------------------------------------------------


def test_the_p_value_of_a_small_example_by_hand():
    # Differences 1, 2, 3: mean 2, standard error 1/sqrt(3), t = sqrt(12) with 2 degrees of
    # freedom, for which the distribution function is (1 + t / sqrt(t^2 + 2)) / 2.
    found = compare(per_user(2.0, 4.0, 6.0), per_user(1.0, 2.0, 3.0))
    assert found.difference == pytest.approx(2)
    assert found.p_value == pytest.approx(1 - math.sqrt(12 / 14))
    assert not found.is_improvement


def test_the_p_value_is_scipys():
    rng = np.random.default_rng(0)
    first, second = rng.random(50), rng.random(50)
    found = compare(per_user(*first), per_user(*second))
    assert found.p_value == pytest.approx(ttest_rel(first, second).pvalue, rel=1e-12)
    assert found.difference == pytest.approx(np.mean(first) - np.mean(second))


@pytest.mark.parametrize(
    ("first", "second", "p_value"),
    [((0.5, 0.25), (0.5, 0.25), 1.0), ((1.0,), (0.5,), 1.0), ((1.0, 0.75), (0.5, 0.25), 0.0)],
)
def test_values_without_spread(first, second, p_value):
    assert compare(per_user(*first), per_user(*second)).p_value == p_value


def test_only_a_better_method_improves():
    rng = np.random.default_rng(0)
    low, high = rng.random(100), rng.random(100) + 1
    assert compare(per_user(*high), per_user(*low)).is_improvement
    worse = compare(per_user(*low), per_user(*high))
    assert worse.p_value < 0.01 and not worse.is_improvement


def test_a_p_value_of_alpha_itself_is_not_below_it():
    assert not Comparison(0.1, 0.01).is_improvement
    assert Comparison(0.1, 0.0099).is_improvement


def test_users_are_averaged_over_seeds_and_must_be_the_same():
    mean = mean_over_seeds([per_user(1.0, 0.0), per_user(0.5, 0.5), per_user(0.0, 1.75)])
    assert mean.values.tolist() == [0.5, 0.75]
    other = PerUser(np.array([1, 3]), np.zeros(2))
    with pytest.raises(UserError, match="not the same ones"):
        mean_over_seeds([per_user(1.0, 0.0), other])
    with pytest.raises(UserError, match="not the same ones"):
        compare(per_user(1.0, 0.0), other)


# Summaries ------------------------------------------------------------------------------------

GOOD = [1, 1, 2, 1] * 10
"""Ranks of MRR 0.875."""
FAIR = [1, 2, 2, 1] * 10
"""Ranks of MRR 0.75."""
POOR = [2, 4, 20, 1] * 10
"""Ranks of MRR 0.45."""


def rows_of(study: Study, ranks: dict[str, list[list[int]]], task: str = "next-item") -> list[Row]:
    """Rows with the ranks of each seed; a label without ranks failed."""
    return [
        Row(
            setting,
            task,
            {2020 + k: finished(each) for k, each in enumerate(ranks[setting.label])}
            if setting.label in ranks
            else {2020: Failed("it fell over")},
        )
        for setting in study.settings
    ]


def test_improvement_is_over_the_best_baseline_and_not_over_variants():
    study = table3(("BPR", "GRU", "KSR", "GRU++-trained"))
    rows = rows_of(study, {"BPR": [POOR], "GRU": [FAIR], "KSR": [GOOD], "GRU++-trained": [GOOD]})
    found = summarise(study, rows, "next-item", "full")
    assert found.improvement["mrr"] == pytest.approx(100 * (0.875 - 0.75) / 0.75)
    assert found.improvement["hit@10"] == 0
    assert set(found.comparisons) == {"BPR", "GRU", "GRU++-trained"}
    assert found.comparisons["GRU"]["mrr"].is_improvement
    assert not found.comparisons["GRU"]["hit@10"].is_improvement
    assert found.comparisons["GRU++-trained"]["mrr"].p_value == 1


def test_nothing_to_improve_on():
    study = table3(("BPR", "KSR"))
    hopeless = rows_of(study, {"BPR": [[500] * 40], "KSR": [GOOD]})
    found = summarise(study, hopeless, "next-item", "full").improvement
    assert found["hit@10"] is None and found["mrr"] > 0
    for ranks in ({"BPR": [POOR]}, {"KSR": [GOOD]}):
        assert summarise(study, rows_of(study, ranks), "next-item", "full").improvement == {}


def test_candidates_must_agree_within_task_and_seed():
    study = table3(("BPR", "KSR"))
    setting = study.settings[0]
    one, other = finished(GOOD, candidates="one"), finished(GOOD, candidates="other")
    check_candidates([Row(setting, "a", {1: one, 2: other}), Row(setting, "b", {1: other})])
    with pytest.raises(UserError, match="different candidates"):
        check_candidates([Row(setting, "a", {1: one}), Row(study.settings[1], "a", {1: other})])
    few, all_of_it = STUDIES["train-ratio"].settings[0], STUDIES["train-ratio"].settings[-1]
    with pytest.raises(UserError, match="different candidates"):
        check_candidates([Row(few, "a", {1: one}), Row(all_of_it, "a", {1: other})])


def test_seconds_of_interrupted_runs_do_not_count():
    setting = table3(("KSR",)).settings[0]
    row = Row(setting, "a", {1: finished(GOOD), 2: finished(GOOD, resumed=True)})
    assert row.training()["training_seconds"] == 4 and row.training()["best_epoch"] == 3
    row = Row(setting, "a", {1: finished(GOOD, resumed=True)})
    assert row.training()["training_seconds"] is None
    assert row.training()["seconds_to_best_epoch"] is None


def test_seconds_to_the_best_epoch_count_that_epoch():
    row = Row(table3(("KSR",)).settings[0], "a", {1: finished(GOOD)})
    assert row.training()["seconds_to_best_epoch"] == 4.0 * (3 + 1) / 8  # it counts from 0


def test_the_error_of_a_row_is_its_first():
    cells = {1: finished(GOOD), 2: Failed("first"), 3: Failed("second")}
    assert Row(table3(("KSR",)).settings[0], "a", cells).error == "first"


def test_a_cell_of_some_targets_has_their_metrics_alone():
    """Of a user with several targets the others leave the list, and those behind move up."""
    users, ranks = np.array([1, 1, 1, 2, 3]), np.array([4, 1, 2, 3, 1])
    cell = replace(finished([1]), ranks={(mode, "test"): (users, ranks) for mode in MODES})
    some = by_frequency.cell_of_some(cell, users, np.array([True, False, True, True, False]))
    for mode in MODES:
        owners, kept = some.ranks[mode, "test"]
        assert (owners.tolist(), kept.tolist()) == ([1, 1, 2], [3, 1, 3])
        assert some.metrics(mode, "test", ["map"])["map"] == pytest.approx((5 / 6 + 1 / 3) / 2)
        assert some.per_user(mode, "test")["mrr"].values.tolist() == [1, 1 / 3]
    with pytest.raises(UserError, match="other test targets"):
        by_frequency.cell_of_some(cell, users[::-1], np.ones(5, dtype=bool))


def test_every_target_is_in_one_of_the_frequencies():
    counts = np.arange(100)
    held = np.array([each.holds(counts) for each in by_frequency.FREQUENCIES])
    assert (held.sum(axis=0) == 1).all()
    assert [counts[each].max() for each in held] == [5, 20, 99]


def test_trials_are_ranked_by_validation():
    """The test would rank those of BPR the other way round."""
    bpr, ksr = table3(("BPR", "KSR")).settings
    rows = [
        Row(setting, "next-item", {2020: cell})
        for setting, cell in (
            (bpr, finished(GOOD, valid=POOR)), (ksr, Failed("it fell over")),
            (bpr, finished(POOR, valid=GOOD)), (ksr, finished(POOR, valid=FAIR)),
        )
    ]  # fmt: skip
    found = rank_trials(rows, by_mrr("full"))
    assert [t.row for t in found] == [rows[2], rows[0], rows[3], rows[1]]
    assert [t.chosen for t in found] == [True, False, True, False]
    assert [t.score for t in found] == [0.875, pytest.approx(0.45), 0.75, None]


def test_of_trials_whose_score_is_a_loss_the_smallest_is_chosen():
    [setting] = table3(("KSR",)).settings
    rows = [Row(setting, str(loss), {1: finished(GOOD)}) for loss in (0.5, 0.25)]
    found = rank_trials(rows, lambda row: float(row.task), bigger=False)
    assert [(t.score, t.chosen) for t in found] == [(0.25, True), (0.5, False)]


def test_seconds_of_a_trial_are_those_of_runs_that_were_not_interrupted():
    [setting] = table3(("KSR",)).settings

    def trial(*resumed: bool):
        cells = {2020 + k: finished([1, 2], resumed=each) for k, each in enumerate(resumed)}
        [found] = rank_trials([Row(setting, "next-item", cells)], by_mrr("full"))
        return found

    assert seconds_of(trial(False, True)) == "5.0" and seconds_of(trial(True)) == "-"


def test_a_table_counts_the_data_that_were_used():
    [setting] = table3(("KSR",)).settings
    of_files = "toy: 9 interactions"
    used = finished([1, 2], table1="former name: 7 interactions")
    rows = [Row(setting, "t", {2020: Failed("why")}), Row(setting, "t", {2020: used})]
    assert report.used_table1("toy", of_files, rows) == "toy: 7 interactions"
    assert report.used_table1("toy", of_files, rows[:1]) == of_files


@pytest.mark.parametrize("key", ["cells", "values", "rows", "tasks", "seeds", "study"])
@pytest.mark.parametrize("value", [5, None, "x", [[1]], [{}], {"b": []}, [None], True])
def test_a_table_with_odd_content_is_not_replaced(tmp_path, key, value):
    wanted = {
        "study": "s",
        "config_files": [],
        "values": {},
        "rows": ["a"],
        "tasks": [],
        "seeds": [],
    }
    found = {**wanted, "cells": []}
    document = tmp_path / "table.json"
    document.write_text(json.dumps(found))
    assert report._gives_way(document, wanted, [])
    document.write_text(json.dumps({**found, key: value}))
    assert not report._gives_way(document, wanted, [])


def test_a_table_of_another_content_of_a_config_file_is_not_replaced(tmp_path):
    wanted = {"study": "s", "config_files": ["my.yaml"], "config_digests": ["new"], "values": {},
              "rows": ["a"], "tasks": [], "seeds": []}  # fmt: skip
    document = tmp_path / "table.json"
    for digests, gives_way in ((["new"], True), (["old"], False)):
        document.write_text(json.dumps({**wanted, "config_digests": digests, "cells": []}))
        assert report._gives_way(document, wanted, []) is gives_way


@pytest.mark.parametrize(
    "shown",
    [{"tables": [{"task": "t", "rows": [{"label": "KSR", "error": None}]}]},
     {"task": "t", "trials": [{"label": "KSR", "error": None}]}],
)  # fmt: skip
def test_a_table_without_cells_is_not_replaced_by_one_that_lost_a_row(tmp_path, shown):
    wanted = {"study": "s", "config_files": [], "config_digests": [], "values": {},
              "rows": ["KSR"], "tasks": ["t"], "seeds": [2020]}  # fmt: skip
    document = tmp_path / "table.json"
    document.write_text(json.dumps({**wanted, **shown}))
    [setting] = table3(("KSR",)).settings
    assert report._gives_way(document, wanted, [])
    lost = [Row(setting, "t", {2020: Failed("why")})]
    assert not report._gives_way(document, wanted, lost)


# Tables ---------------------------------------------------------------------------------------


def test_the_table_of_a_summary():
    study = table3(("BPR", "CKE", "KSR", "KSR-paper"))
    rows = rows_of(study, {"BPR": [POOR, POOR], "KSR": [GOOD, FAIR], "KSR-paper": [FAIR, FAIR]})
    # A row that failed under one seed has no figures, though it would have the best ones.
    cells = {2020: finished([1] * 40), 2021: Failed("it fell over")}
    rows[1] = replace(rows[1], cells=cells)
    table = table_of(summarise(study, rows, "next-item", "full"), "toy")
    assert table.caption == "Methods compared (Table 3): toy, next-item, test, full"
    bpr, cke, ksr, paper, last = table.lines
    assert bpr.cells[1] == Value(pytest.approx(0.45), 0.0, dagger=True)
    assert cke.error == "it fell over"
    assert ksr.cells[1] == Value(0.8125, pytest.approx(0.125 / math.sqrt(2)), best=True)
    assert [line.rule_above for line in table.lines] == [False, False, False, True, True]
    assert not ksr.cells[1].dagger and paper.cells[2] == Value(1.0, 0.0, best=True)
    assert last.label == "improvement" and last.cells[1] == f"{100 * (0.8125 / 0.45 - 1):+.2f} %"
    several, daggers, improved = table.notes
    assert several == "Mean and standard deviation over seeds 2020, 2021."
    assert daggers.startswith("† KSR is better at p < 0.01")
    assert improved == "The last line is the improvement of KSR over the best of BPR."


def test_tables_say_where_a_small_catalogue_has_fewer_candidates():
    """Only the log of a cell said it, below a table of uni50pop50."""
    told = {"test/uni5pop5": "the catalogue has 9 items.", "valid/uni5pop5": "evil \x1b[2J."}
    study = table3(("BPR", "KSR"))
    cells = [{2020: finished(ranks, fewer_candidates=told)} for ranks in (POOR, GOOD)]
    rows = [Row(s, "next-item", c) for s, c in zip(study.settings, cells, strict=True)]
    sampled, full = (
        table_of(summarise(study, rows, "next-item", mode), "toy").notes
        for mode in ("uni5pop5", "full")
    )
    assert sampled[1] == "uni5pop5: the catalogue has 9 items."
    assert len(sampled) == len(full) + 1
    assert on_candidates(rows, "uni5pop5+popularity", "valid") == [
        r"uni5pop5+popularity: evil \x1b[2J."
    ]


def test_a_cell_whose_fewer_candidates_are_no_texts_is_damaged():
    cell = Cell("KSR", "toy", "next-item", 1, {}, "ab" * 32)
    result = run_result({"test": GOOD, "valid": GOOD}, fewer_candidates={"test/uni5pop5": 9})
    record = {"key": cell.key, "wall_seconds": 1.0, "resumed": False, "result": result}
    with pytest.raises(DamagedFileError, match="test/uni5pop5"):
        store_module._answers(record, cell)
    result["fewer_candidates"] = {"test/uni5pop5": "nine"}
    assert store_module._answers(record, cell)


def test_a_row_that_is_better_than_the_reference_has_no_dagger():
    study = table3(("BPR", "KSR"))
    rows = rows_of(study, {"BPR": [GOOD], "KSR": [POOR]})
    summary = summarise(study, rows, "next-item", "full")
    assert summary.comparisons["BPR"]["mrr"].p_value < 0.01
    table = table_of(summary, "toy")
    assert not any(value.dagger for line in table.lines[:2] for value in line.cells)
    assert table.notes[0] == "Seed 2020."
    assert table.notes[1].startswith("KSR is nowhere better at p < 0.01")


def test_a_figure_next_to_the_best_is_not_the_best():
    """MRRs differ by 0.0005."""
    rows = rows_of(study := table3(("BPR", "KSR")), {"BPR": [[1000] * 40], "KSR": [[667] * 40]})
    bpr, ksr, _ = table_of(summarise(study, rows, "next-item", "full"), "toy").lines
    assert ksr.cells[1].best and not bpr.cells[1].best


SHOWN = Table(
    "Methods: toy_1, next-item",
    ("MAP", "Hit@10"),
    (
        Line("GRU_F", (Value(0.25, 0.0123, dagger=True), Value(1.0, 0.0, best=True))),
        Line("CKE", error="no a|b, 50 % of it"),
        Line("KSR", (Value(0.5, 0.01, best=True), Value(1.0, 0.0, best=True))),
        Line("improvement", ("+100.00 %", "+0.00 %"), rule_above=True),
    ),
    ("† KSR is better.",),
)


def test_text_snapshot():
    assert to_text(SHOWN) == (
        "Methods: toy_1, next-item\n"
        "\n"
        "                          MAP            Hit@10\n"
        "-----------------------------------------------\n"
        "GRU_F        0.2500 ± 0.0123†  1.0000 ± 0.0000\n"
        "CKE          failed: no a|b, 50 % of it\n"
        "KSR          0.5000 ± 0.0100   1.0000 ± 0.0000\n"
        "-----------------------------------------------\n"
        "improvement         +100.00 %           +0.00 %\n"
        "\n"
        "† KSR is better.\n"
    )


def test_columns_that_do_not_fit_a_terminal_come_nearer_or_stand_below():
    assert to_text(SHOWN, 47) == to_text(SHOWN, 80) == to_text(SHOWN)
    near = to_text(SHOWN, 46).splitlines()
    assert near[4] == "GRU_F       0.2500 ± 0.0123† 1.0000 ± 0.0000" and len(near[3]) == 45
    assert len(near) == len(to_text(SHOWN).splitlines())
    assert to_text(SHOWN, 30) == (
        "Methods: toy_1, next-item\n"
        "\n"
        "                          MAP\n"
        "-----------------------------\n"
        "GRU_F        0.2500 ± 0.0123†\n"
        "CKE          failed: no a|b,\n"
        "             50 % of it\n"
        "KSR          0.5000 ± 0.0100\n"
        "-----------------------------\n"
        "improvement         +100.00 %\n"
        "\n"
        "                       Hit@10\n"
        "-----------------------------\n"
        "GRU_F        1.0000 ± 0.0000\n"
        "KSR          1.0000 ± 0.0000\n"
        "-----------------------------\n"
        "improvement           +0.00 %\n"
        "\n"
        "† KSR is better.\n"
    )


def test_sentences_in_and_below_a_table_are_broken_at_words(monkeypatch):
    settings = ", ".join(f"option_{k} {k / 7:.6g}" for k in range(9))
    note = "A note of several words that says more than a line of a terminal has room for, at p."
    lines = (
        Line("1 (best)", (Value(0.5), "12.5", settings)),
        Line("2", (Value(0.4), "-", "defaults")),
    )
    table = Table("Tuning", ("MRR", "seconds", "settings"), lines, (note,))
    wide = to_text(table)
    assert as_printed([table, table]) == f"{wide}\n\n{wide}"  # here it is no terminal
    monkeypatch.setattr(text_table, "columns_of", lambda _: 60)
    told = as_printed([table])
    assert max(map(len, told.splitlines())) <= 60
    assert {word for word in wide.split() if set(word) != {"-"}} <= {*told.split()}
    assert "          settings\n" in told and "\n2         defaults\n" in told
    assert "\n1 (best)  option_0 0, option_1 0.142857, option_2 0.285714,\n" in told


def test_markdown_snapshot():
    assert to_markdown(SHOWN) == (
        "### Methods: toy_1, next-item\n"
        "\n"
        "|  | MAP | Hit@10 |\n"
        "|---|---|---|\n"
        "| GRU_F | 0.2500 ± 0.0123† | **1.0000 ± 0.0000** |\n"
        "| CKE | failed: no a\\|b, 50 % of it |  |\n"
        "| KSR | **0.5000 ± 0.0100** | **1.0000 ± 0.0000** |\n"
        "|  |  |  |\n"
        "| improvement | +100.00 % | +0.00 % |\n"
        "\n"
        "† KSR is better.  \n"
    )


def test_latex_snapshot():
    assert to_latex(SHOWN).splitlines() == [
        r"\begin{table}",
        r"\centering",
        r"\caption{Methods: toy\_1, next-item}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"& MAP & Hit@10 \\",
        r"\midrule",
        r"GRU\_F & 0.2500$^{\dagger}$ {\scriptsize $\pm$ 0.0123}"
        r" & \textbf{1.0000} {\scriptsize $\pm$ 0.0000} \\",
        r"CKE & \multicolumn{2}{l}{failed: no a|b, 50 \% of it} \\",
        r"KSR & \textbf{0.5000} {\scriptsize $\pm$ 0.0100}"
        r" & \textbf{1.0000} {\scriptsize $\pm$ 0.0000} \\",
        r"\midrule",
        r"improvement & +100.00 \% & +0.00 \% \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\footnotesize $\dagger$ KSR is better.",
        r"\end{table}",
    ]


FOREIGN = Table(
    "a\nb <b>",
    ("*x*",),
    (
        Line("[1] `c` _d_ GRU_F |", ("![p](q) &lt; p < 0.1 \x1b[31m",)),
        Line("*", error="e\\| [r]: s ~~t~~ reg_weights [0.01, 0.01]"),
        Line(" [2pt]", ("",), rule_above=True),
    ),
    ("<img src=x onerror=alert(1)> \u202e & a->b",),
)


def test_foreign_text_in_markdown_is_shown_as_it_is():
    assert markdown_document("toy: <i>1 user\n# x", [FOREIGN]).splitlines() == [
        r"toy: \<i\>1 user\\n# x",
        "",
        r"### a\\nb \<b\>",
        "",
        r"|  | \*x\* |",
        "|---|---|",
        r"| [1] \`c\` \_d\_ GRU_F \| | ![p\](q) \&lt; p < 0.1 \\x1b[31m |",
        r"| \* | failed: e\\\| [r\]: s \~\~t\~\~ reg_weights [0.01, 0.01] |",
        "|  |  |",
        "|  [2pt] |  |",
        "",
        r"\<img src=x onerror=alert(1)\> \\u202e & a-\>b  ",
    ]


def test_foreign_text_in_latex_is_no_option_of_a_row():
    lines = to_latex(FOREIGN).splitlines()
    assert lines[2] == r"\caption{a\textbackslash{}nb $<$b$>$}"
    assert lines[7].startswith(
        r"{}[1] `c` \_d\_ GRU\_F | & ![p](q) \&lt; p $<$ 0.1 \textbackslash{}x1b["
    )
    assert lines[8].startswith(r"{}* & \multicolumn{1}{l}{failed: e\textbackslash{}| [r]: ")
    assert lines[10] == r"{} [2pt] &  \\" and r"\textbackslash{}u202e \& a-$>$b" in lines[-2]


def test_foreign_text_in_a_table_of_text_stays_in_its_line():
    told = to_text(FOREIGN)
    assert "a\\nb <b>\n" in told and "\x1b" not in told and "\u202e" not in told


def test_a_single_seed_has_no_deviation():
    table = Table("t", ("MAP",), (Line("BPR", (Value(0.25),)),))
    assert "±" not in to_text(table) + to_markdown(table)
    assert r"\pm" not in to_latex(table)


# Figures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("study", [table3(("BPR", "KSR")), *STUDIES.values()], ids=lambda s: s.name)
def test_figures_are_drawn_even_if_a_row_failed(study, tmp_path):
    labels = [setting.label for setting in study.settings]
    rows = rows_of(study, {label: [GOOD, FAIR] for label in labels[1:]})
    rows += rows_of(study, {label: [POOR] for label in labels}, task="next-session")
    draw(study, rows, "toy", "full", tmp_path / "figure")
    assert (tmp_path / "figure").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("study", [table3(("BPR", "KSR")), STUDIES["train-ratio"]])
def test_a_figure_of_nothing_but_failures_is_drawn_too(study, tmp_path):
    draw(study, rows_of(study, {}), "toy", "full", tmp_path / "figure")
    assert (tmp_path / "figure").read_bytes().startswith(b"\x89PNG")
