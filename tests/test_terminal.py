"""What commands print: bars that fit, one line an epoch into a pipe, no foreign control codes."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import logging
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksr_recbole import __main__ as commands
from ksr_recbole import bars, cli, text
from ksr_recbole.arguments import Parser, file_list
from ksr_recbole.commands import guarded, task_of
from ksr_recbole.comparison import cli as benchmark_cli
from ksr_recbole.config import Config
from ksr_recbole.config.keys import check_keys
from ksr_recbole.errors import UserError, one_line
from ksr_recbole.explanation import cli as explanation_cli
from ksr_recbole.explanation.parts import (
    Attribute,
    AttributeView,
    Chosen,
    Explanation,
    Item,
    Often,
    Reason,
    Recommendation,
    Step,
    ValueEntity,
)
from ksr_recbole.invocation import command_words, same_command
from ksr_recbole.quick_start.result import _metric_table
from ksr_recbole.text import wrapped
from tests import forked
from tests.toy import toy_values, write_toy

ROOT = Path(__file__).resolve().parents[1]
EPOCHS = 3
HOSTILE = "a\x1b]0;owned\x07\x1b[31m\x9b2J\u202egnp.exe\u2066\r\udc80b"


def words(folder: Path, **changes: object) -> list[str]:
    """The command line of a small run with bars."""
    values = {**toy_values(folder, epochs=EPOCHS), "show_progress": True, **changes}
    mode = values.pop("eval_args")["mode"]
    values |= {"model": "KSR", "dataset": "toy", "eval_args.mode": mode}
    return [f"--{key}={value}" for key, value in values.items()]


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what says how wide a terminal is."""
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    return {**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **more}


def on_a_terminal(arguments: list[str | Path], folder: Path, columns: int) -> str:
    """What a command writes to a pseudo-terminal, its standard output and error."""
    screen, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    said = bytearray()
    with forked.Command(arguments, folder, environment(), os.ttyname(side)) as process:
        # Closed once the command has it, so that its end is seen.
        while not select.select([screen], [], [], 0.1)[0]:
            assert process.returncode is None
        os.close(side)
        _read_all(screen, said)
        process.communicate()
    os.close(screen)
    assert process.returncode == 0, said.decode()
    return said.decode()


def _read_all(screen: int, said: bytearray) -> None:
    while True:
        try:
            part = os.read(screen, 65536)
        except OSError as error:  # Linux's way to say that the other side is closed
            assert error.errno == errno.EIO
            break
        if not part:
            break
        said += part


def drawn(said: str) -> list[str]:
    """The states of all bars: what stands between two carriage returns."""
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", said)
    return [part for part in re.split(r"[\r\n]+", plain) if "it/s" in part or "%|" in part]


# Bars and lines -----------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [20, 60, 80, 120])
def test_bars_fit_a_terminal_and_are_redrawn_in_place(toy_folder, columns):
    said = on_a_terminal([ROOT / "run_recbole.py", *words(toy_folder)], toy_folder, columns)
    states = drawn(said)
    assert states and max(map(len, states)) <= columns
    assert r"\x1b" not in said  # no code of a library's own is shown as text
    assert len(re.findall(r"Train +\d+[^\r]*\r?\n", said)) == EPOCHS  # a line a bar, no more
    assert said.count("training\x1b[0m [time") == EPOCHS


@pytest.fixture(scope="module")
def piped(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder of a run whose output went into pipes, and what it said."""
    folder = write_toy(tmp_path_factory.mktemp("piped") / "data")
    command = words(folder, epochs=EPOCHS, checkpoint_dir=folder / "my models")
    done = forked.run([ROOT / "run_recbole.py", *command], folder, env=environment())
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_pipe_gets_one_line_an_epoch_and_no_codes(piped):
    folder, done = piped
    assert "\x1b" not in done.stdout + done.stderr and "\r" not in done.stdout + done.stderr
    said = done.stderr.splitlines()
    [*_, begin] = [number for number, line in enumerate(said) if "Pretrained: " in line]
    [end] = [number for number, line in enumerate(said) if line.startswith("KSR on toy: ")]
    lines = said[begin + 1 : end - 1]  # the summary's first line is empty
    assert len(lines) == EPOCHS
    for number, line in enumerate(lines):
        assert re.search(rf"epoch {number} training \[.*\], evaluating \[.*\]$", line)
    assert done.stdout == ""  # a fork has loaded all, so that it does not say so
    log, *_ = sorted((folder / "log" / "KSR").glob("*.log"))
    assert log.read_text().count("Saving current") >= 1  # RecBole's log file has all its lines


FIRST = """
import sys
class Guard:
    def find_spec(self, name, *_):
        if name in ("torch", "recbole", "pandas", "polars", "numba", "scipy"):
            sys.stdout.flush()
            sys.__stdout__.flush()
            sys.exit(42)
sys.meta_path.insert(0, Guard())
from ksr_recbole.__main__ import main
main(sys.argv[1:])
"""
"""Runs a command until it imports something heavy."""


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("run", "KSR on ml-100k: loading PyTorch and RecBole ..."),
        ("benchmark", "Comparison of the paper's models on ml-100k: loading"),
        ("benchmark --study=kge", "Study kge on ml-100k: loading"),
        ("benchmark --study=kge --models=KSR", "Study kge of KSR on ml-100k: loading"),
        ("tune -m GRU", "Tuning of GRU on ml-100k: loading"),
        ("export --output=o", "Export of KSR on ml-100k: loading"),
        ("explain --user=1 -d x", "User 1, KSR on x: loading"),
        ("fetch ml-1m", "fetch ml-1m: loading Polars ..."),
        ("convert ml-1m", "convert ml-1m: loading Polars ..."),
        ("describe some/folder", "describe some/folder: loading Polars ..."),
        ("serve some/folder", "Service of some/folder: loading"),
    ],
)
def test_the_first_line_comes_before_anything_heavy_is_loaded(command, said, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FIRST, *command.split()], cwd=tmp_path, env=environment(),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 42 and done.stderr == ""
    assert done.stdout.startswith(said) and done.stdout.count("\n") == 1


def test_all_commands_have_a_first_line():
    test = test_the_first_line_comes_before_anything_heavy_is_loaded
    tried = {command.split()[0] for command, _ in test.pytestmark[0].args[1]}
    assert tried == set(commands.COMMANDS)


def test_a_benchmark_in_a_pipe_prints_lines_without_codes(
    toy_folder, capsys, monkeypatch, quick_workers
):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich would take the pipe for a terminal
    values = words(toy_folder, results_dir=toy_folder / "results", epochs=1)
    unused = ("--model=", "--checkpoint_dir=", "--seed=")
    arguments = [word for word in values if not word.startswith(unused)]
    assert benchmark_cli.main([*arguments, "--models=BPR"]) == 0
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    *idle, started, ended = shown.err.splitlines()
    assert all(" has no effect on BPR: " in line for line in idle)
    assert re.fullmatch(r"BPR-next-item-2020-\w+: started", started) and "test MRR" in ended


def test_a_bar_of_a_terminal_that_does_not_know_its_width(monkeypatch, capsys):
    monkeypatch.setattr(bars, "on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "many")
    list(bars.Bar(range(3), desc=HOSTILE, ncols=100, mininterval=0))
    said = capsys.readouterr().err
    assert "3/3" in said and "\x1b]" not in said and "\u202e" not in said
    assert max(map(len, re.split("[\r\n]", said))) <= 80


def test_recboles_own_bar_is_back_after_a_run(toy_folder):
    from recbole.trainer import trainer

    before = trainer.tqdm
    with pytest.raises(RuntimeError), bars.recbole_bars():
        assert trainer.tqdm is bars.Bar
        raise RuntimeError
    assert trainer.tqdm is before


# The table of metrics -----------------------------------------------------------------------


@pytest.mark.parametrize("decimals", [4, 12])
def test_metrics_of_any_name_and_number_fit_80_columns(decimals):
    names = [f"{m}@{k}" for k in (10, 20) for m in ("recall", "mrr", "ndcg", "hit", "precision")]
    phases = {phase: dict.fromkeys(["mrr", *names], 0.5) for phase in ("valid", "test")}
    lines = _metric_table({"uni50pop50": phases, "full": phases}, decimals, "MRR@10")
    heads = [line.split() for line in lines if "@" in line]
    assert [name for head in heads for name in head] == [name.upper() for name in ("mrr", *names)]
    assert max(map(len, lines)) <= 80 and len(lines) == 6 * len(heads) - 1
    assert all(bool(line) is (number % 6 != 5) for number, line in enumerate(lines))


@pytest.mark.parametrize(("best_by", "shown"), [("MRR", ["MRR"]), ("MRR@10", ["MRR", "MRR@10"])])
def test_the_metric_that_chose_the_epoch_is_shown(best_by, shown):
    values = {"mrr": 0.5, "mrr@10": 0.4, "hit@10": 1.0}
    head, *_ = _metric_table({"full": {"valid": values, "test": values}}, 4, best_by)
    assert head.split() == [*shown, "HIT@10"]


# What can be done next ----------------------------------------------------------------------


def test_the_commands_of_the_last_lines_work_as_they_stand(piped):
    folder, run = piped
    scores = re.findall(r"epoch (\d+) training .*valid_score: ([\d.]+)\]", run.stderr)
    best = max(scores, key=lambda score: float(score[1]))[0]
    [result] = (folder / "results").glob("*.json")
    assert json.loads(result.read_text())["best_epoch"] == int(best)
    assert f"best epoch  {best} (counted from 0, as in the log) of {EPOCHS} trained" in run.stderr
    _, _, last = run.stderr.partition("What can be done next:\n")
    explain, export, resume = [line.strip() for line in last.splitlines()]
    assert " explain " in explain and " export " in export and "--resume=" in resume
    said = {}
    for line in (explain, export, resume):
        read = subprocess.check_output(rf"printf '%s\0' {line}", shell=True, text=True)
        words = read.rstrip("\0").split("\0")
        # In an activated virtual environment Python is called by its name.
        python = next(k for k, word in enumerate(words) if word in ("python", sys.executable))
        variables = dict(word.split("=") for word in words[1:python])  # after env
        done = forked.run(words[python + 1 :], folder, env=environment(**variables))
        assert done.returncode == 0, done.stderr
        said[line] = done
    assert f"of {2 * EPOCHS} trained" in said[resume].stderr  # twice the epochs
    assert f"best epoch {best} (counted from 0)" in said[export].stdout
    [manifest] = (folder / "my models").glob("*/manifest.json")
    assert json.loads(manifest.read_text())["best_epoch"] == int(best)


@pytest.mark.parametrize("called", ["ksr_recbole/__main__.py", "pytest"])
def test_a_command_called_again_finds_the_checkout_from_any_folder(called, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", [str(ROOT / called), "run"])
    here, script = ["python", "-m", "ksr_recbole", "run"], "-m ksr_recbole run"
    for folder, before in ((ROOT, []), (tmp_path, ["env", f"PYTHONPATH={ROOT}"])):
        monkeypatch.chdir(folder)
        assert same_command(script) == command_words("run") == [*before, *here]


@pytest.mark.parametrize("added", [["--resume", "a.pth"], ["--resume=a.pth"], ["--resume"]])
def test_a_key_is_taken_out_of_arguments_in_any_spelling(added):
    assert cli.without(["-m", "KSR", *added, "--seed", "-1"], "resume") == [
        *("-m", "KSR", "--seed", "-1")
    ]


# RecBole's spellings ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        "-m KSR -d toy --seed -1 --resume",
        "--model KSR --dataset toy --seed=-1 --resume",
        "--model=KSR -d=toy --seed -1 --resume True",
    ],
)
def test_recboles_spellings_of_arguments(arguments):
    given = cli.parser().read(arguments.split())
    assert (given.model, given.dataset) == ("KSR", "toy")
    assert given.values == {"seed": "-1", "resume": "True"}


@pytest.mark.parametrize("number", ["-1", "-.5", "-1e-3", "-1.5e+10"])
def test_a_number_below_zero_is_a_value_and_no_option(number):
    for spelling in (["--x", number], [f"--x={number}"]):
        assert cli.parser().read([*spelling, "--y", "z"]).values == {"x": number, "y": "z"}


@pytest.mark.parametrize("columns", ["20", "60", "80", "120", "0", "many"])
def test_help_of_every_command_fits_and_has_no_codes(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("FORCE_COLOR", "1")  # Python 3.14 colours help
    for name in commands.COMMANDS:
        assert commands.main([name, "--help"]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith("usage: ") and "--version" in shown and "\x1b" not in shown
        if columns in ("60", "80", "120"):
            _, _, shown = shown.partition("\n\n")  # the usage before it is argparse's
            assert max(map(len, shown.splitlines())) <= int(columns), name


def test_help_says_what_every_option_is_and_its_number_by_default(monkeypatch):
    shown: list[Parser] = []
    monkeypatch.setattr(Parser, "print_help", lambda parser, file=None: shown.append(parser))
    for name in commands.COMMANDS:
        assert commands.main([name, "--help"]) == 0
    assert len(shown) == len(commands.COMMANDS)
    actions = [action for parser in shown for action in parser._actions]
    assert {"steps", "hops", "jobs", "port"} <= {action.dest for action in actions}
    for action in actions:
        assert action.help, action.dest
        if type(action.default) in (int, float):
            assert str(action.default) in action.help, action.dest


def test_an_option_is_given_once_by_every_command(capsys):
    for line in ("convert x --hops=1 --hops=2", "tune --jobs=1 --jobs=2", "run --seed=1 --seed=2",
                 "explain --user=1 --user=1", "benchmark -d x --dataset=x"):  # fmt: skip
        arguments = line.split()
        assert commands.main(arguments) == 2
        assert "is given twice; give it once." in capsys.readouterr().err
    assert commands.main(["describe", "--foo", "x"]) == 2
    assert "Cannot read the argument '--foo'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("export --ouput=x --output=y", "Unknown argument '--ouput'; did you mean --output?"),
        ("run --epohcs=3", "Unknown config key 'epohcs' in the command line or config_dict"),
        ("serve --prot=3 x", "Cannot read the argument '--prot=3'; did you mean --port?"),
        ("convert csv --itms=x", "Cannot read the argument '--itms=x'; did you mean --items?"),
        ("describe x --zzzzzzzz", "Cannot read the argument '--zzzzzzzz'; see "),
    ],
)
def test_a_misspelt_option_is_named(line, told, capsys):
    """Whether the command takes config keys, too, or its own options alone."""
    assert commands.main(line.split()) == 2
    assert told in capsys.readouterr().err


def test_what_a_command_says_first_names_what_is_known():
    for line, said in (
        ("--config_files=a.yaml", "a.yaml"),
        ("--config_files=a.yaml -d shop", "shop with a.yaml"),
        ("--config_files=a.yaml -m GRU", "GRU with a.yaml"),
        ("--config_files=a.yaml -m GRU -d shop", "GRU on shop"),
        ("-d shop", "KSR on shop"),
    ):
        assert task_of(cli.parser().read(line.split())) == said


def test_lines_of_a_terminal_are_broken_at_words():
    path = "/a/path/longer/than/a/line.json"
    sentence = f"error: {path} is-not-there; give another one."
    assert wrapped(sentence, None) == sentence == wrapped(sentence, 80)
    lines = wrapped(sentence, 24, "  ").splitlines()
    assert lines == ["error:", f"  {path}", "  is-not-there; give", "  another one."]


def test_a_mistake_fits_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(text, "columns_of", lambda _: 60)
    assert cli.main(["--epohcs=3"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: Unknown config key 'epohcs' in the command line or",
        "config_dict; did you mean epochs?",
    ]


def test_a_key_that_is_nearer_to_an_option_of_the_command_is_named_as_such():
    parser = Parser("-m ksr_recbole explain", keys="of the run")
    parser.add_argument("--user")
    given = parser.read(["--uuser=3", "--epohcs=3"])
    for key, told in (
        ("uuser", "Unknown argument '--uuser'; did you mean --user"),
        ("epohcs", "Unknown config key 'epohcs' in the command line; did you mean epochs"),
        ("usr", "Unknown config key 'usr' in the command line"),  # of a YAML file
    ):
        with pytest.raises(UserError, match=re.escape(told)):
            parser.naming_own_options(lambda key=key: check_keys([key], "the command line"))
    assert set(given.values) == {"uuser", "epohcs"}


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--model"], "--model needs a value"),
        (["--model", "--seed=1"], "--model needs a value"),
        (["-m"], "--model needs a value"),
        (["-m", "KSR", "--model=GRU"], "--model is given twice"),
        (["-x", "1"], "Cannot read the argument '-x'"),
        (["--model", "KSR", "GRU"], "Cannot read the argument 'GRU'"),
        (["--dataset", ""], "--dataset is empty"),
        (["--"], "Cannot read the argument '--'"),
        (["-m="], "--model is empty"),
        (["--config_files="], "--config_files is empty"),
        (["--config_files", "a.yaml", ""], "--config_files is empty"),
        (["-model=KSR"], "Cannot read the argument '-model=KSR'"),
        (["--seed=1", "--seed", "2"], "--seed is given twice"),
        (["--a b"], "--a b"),
        (["--help=1"], "The argument --help takes no value; write it alone."),
    ],
)
def test_bad_spellings(arguments, part):
    with pytest.raises(UserError, match=re.escape(part)):
        cli.parser().read(arguments)


@pytest.mark.parametrize(
    "spelling",
    [
        ["--config_files=a.yaml my own.yaml it's.yaml"],
        ["--config_files", "a.yaml my own.yaml it's.yaml"],
        ["--config_files=a.yaml", "my own.yaml", "it's.yaml"],
        ["--config_files", "a.yaml", "my own.yaml", "it's.yaml"],
        ["--config_files=a.yaml 'my own.yaml' \"it's.yaml\""],
    ],
)
def test_config_files_with_blanks_in_their_names(tmp_path, spelling):
    names = ["a.yaml", "my own.yaml", "it's.yaml"]
    for name in names:
        (tmp_path / name).touch()
    assert cli.parser().read(spelling).config_files == names


def test_a_file_that_is_not_there_is_named_as_it_was_written():
    assert file_list("a.yaml  b.yaml") == ["a.yaml", "b.yaml"]
    assert file_list("'no such.yaml'") == ["no such.yaml"]
    assert file_list("x" * 5000) == ["x" * 5000] and file_list(" ") == []


def test_every_command_and_example_says_its_version():
    expected = re.compile(
        r"ksr-recbole 1\.\d+\.\d+ \(RecBole 1\.2\.1, PyTorch 2\..*, Python 3\.1.*\)\n"
    )
    scripts = [[f"{name}.py"] for name in ("run_recbole", "run_benchmark", "run_hyper")]
    scripts += [[f"examples/{path.name}"] for path in (ROOT / "examples").glob("*.py")]
    scripts += [
        ["-m", "ksr_recbole", *more] for more in ([], *([name] for name in commands.COMMANDS))
    ]
    scripts += [["-m", "dataset_atomic"]]
    env = {k: v for k, v in environment().items() if k != "PYTHONPATH"}
    for script in scripts:
        command = [*script, "--version"]
        if script[2:]:  # what was loaded before cannot matter to them: the one before them is new
            done = forked.run(command, ROOT, env=env)
        else:
            done = subprocess.run(
                [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, env=env
            )
        assert done.returncode == 0 and expected.fullmatch(done.stdout), (script, done)


def test_every_example_runs_from_a_checkout_and_prints_help(tmp_path):
    for path in (ROOT / "examples").glob("*.py"):
        done = forked.run([path, "--help"], tmp_path)
        assert done.returncode == 0 and f"python examples/{path.name}" in done.stdout, done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "written", ["full", "full,uni5", "[full, uni5]", "['full','uni5']", " full , uni5 ", ["full"]]
)
def test_report_modes_as_they_are_written(toy_folder, written):
    config = Config("KSR", "toy", None, toy_values(toy_folder, report_modes=written))
    assert config["report_modes"] == (["full"] if "uni5" not in written else ["full", "uni5"])


def test_a_small_dataset_says_how_many_candidates_and_steps_it_has(toy_folder, capsys, piped):
    left_out = "--(eval|report|train_batch)"
    arguments = [a for a in words(toy_folder, epochs=1) if not re.match(left_out, a)]
    assert cli.main(arguments) == 0
    said = capsys.readouterr()
    told = re.search(
        r"test: (the catalogue has 60 items, so each positive is ranked against (\d+) uniform and "
        r"\d+ popular items instead of 50 and 50\.)",
        said.out + said.err,
    )
    assert told
    [path] = (toy_folder / "results").glob("*.json")
    fewer = json.loads(path.read_text())["fewer_candidates"]
    assert fewer == dict.fromkeys(("valid/uni50pop50", "test/uni50pop50"), told[1])
    [fit, give] = re.findall(
        r"single step, for all (\d+) training .* try --train_batch_size=(\d+)",
        said.out + said.err,
    )[0]
    assert 6 <= int(fit) / int(give) <= 12
    assert "single step" not in piped[1].stderr  # there a size was given


# Foreign text -------------------------------------------------------------------------------


@given(st.text())
def test_cleaned_text_has_nothing_a_terminal_obeys(found):
    shown = text.clean(found)
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200e\u200f]", shown
    )
    assert text.clean(shown) == shown and shown.encode("utf-8").decode("utf-8") == shown
    assert "\n" not in text.clean_line(found) and "\t" not in text.clean_line(found)
    if found.isprintable():
        assert shown == found


def test_whoever_prints_prints_clean_text(capsys):
    def command() -> int:
        print(HOSTILE)
        sys.stderr.write(HOSTILE + "\n")
        sys.stderr.writelines([HOSTILE, "\n"])
        raise UserError(f"{HOSTILE}\nerror: a second line")

    before = sys.stdout, sys.stderr
    assert guarded(command, "run_recbole.py", []) == 2
    assert (sys.stdout, sys.stderr) == before
    shown = capsys.readouterr()
    for said in (shown.out, shown.err):
        assert not re.search("[\x1b\x07\x9b\u202e\u2066\r\udc80]", said)
    assert r"a\x1b]0;owned\x07" in shown.out and r"\u202egnp.exe" in shown.err
    [error] = [line for line in shown.err.splitlines() if line.startswith("error:")]
    assert error.endswith(r"\nerror: a second line")


@pytest.mark.parametrize(
    "argument", [f"--dataset={HOSTILE[:-2]}", f"--{HOSTILE[:-2]}=1", HOSTILE[:-2]]
)
def test_hostile_arguments_are_shown_not_obeyed(argument, tmp_path):
    for script in ("run_recbole.py", "run_hyper.py", "run_benchmark.py"):
        done = forked.run([ROOT / script, argument], tmp_path, env=environment())
        assert done.returncode == 2 and done.stderr.startswith("error:")
        assert len(done.stderr.splitlines()) == 1
        assert not re.search("[\x1b\x07\x9b\u202e\u2066\r]", done.stdout + done.stderr)


def test_other_commands_too(tmp_path):
    for command in (["fetch", HOSTILE[:-2]], ["convert", HOSTILE[:-2]], ["describe", HOSTILE[:-2]],
                    [HOSTILE[:-2]], ["describe", f"--{HOSTILE[:-2]}"]):  # fmt: skip
        done = forked.run(["-m", "ksr_recbole", *command], tmp_path, env=environment())
        assert done.returncode == 2 and "error:" in done.stderr
        assert not re.search("[\x1b\x07\x9b\u202e\u2066\r]", done.stdout + done.stderr)


def test_an_encoding_without_a_letter_is_no_traceback(tmp_path):
    code = (
        "from ksr_recbole.commands import guarded; "
        "guarded(lambda: print('K\u00f6ln \u2713') or 0, 'x', [])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(PYTHONIOENCODING="ascii"),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "K\\xf6ln \\u2713\n" and done.stderr == ""


def test_streams_that_were_closed_before_the_start_take_everything(monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    with text.printing():
        print(HOSTILE)
        text.below(sys.stdout).write(HOSTILE[:3])
        assert not sys.stdout.isatty() and not text.terminal().isatty()
    assert sys.stdout is sys.stderr is None


def test_log_lines_and_log_files_are_clean(toy_folder, capsys):
    from ksr_recbole.quick_start.logs import logging_of

    config = Config("KSR", "toy", None, toy_values(toy_folder))
    with logging_of(config):
        logging.getLogger().info(f"title {HOSTILE}")
        logging.getLogger().warning("name %s", HOSTILE)
    [log] = Path("log/KSR").glob("*.log")
    for said in (log.read_text(), capsys.readouterr().err):
        assert not re.search("[\x1b\x07\x9b\u202e\u2066\r]", said)
        assert r"title a\x1b]0;owned" in said and "name a" in said


def test_cleaning_reaches_into_values_and_errors():
    item = text.cleaned((Item("1", HOSTILE), 3, None))
    assert "\x1b" not in item[0].title and item[1:] == (3, None)
    assert "\x1b" not in one_line(ValueError(HOSTILE))


def test_a_row_of_a_table_in_markdown():
    assert text.markdown_row(["KSR", "", "a|b", "`x || y`"]) == r"| KSR |  | a\|b | `x \|\| y` |"


def test_an_explanation_of_hostile_titles():
    from ksr_recbole.explanation.terminal import render

    item, entity = Item("1", HOSTILE), ValueEntity("e", HOSTILE, 1, 0.5, True)
    step = Step(1, item, None, (AttributeView(1.0, (entity,), (entity,)),), item)
    film = Chosen(item, 1)
    reason = Reason(HOSTILE, HOSTILE, (0,), (HOSTILE,), "e", HOSTILE, 1.0, 1.0, 2.0, 3, (film,))
    best = Recommendation(1, item, 0.5, HOSTILE, (reason,), (reason,), (reason,))
    explanation = Explanation(
        "KSR", "toy", HOSTILE, 1, "private", "exact", (Attribute("r", HOSTILE, 3),), (1.0,),
        (item,), (Often(HOSTILE, 2),), (step,), (best,), (HOSTILE,),
    )  # fmt: skip
    for colour in (False, True):
        shown = render(explanation, width=120, colour=colour, full=True)
        assert "owned" in shown and not re.search("[\x07\x9b\u202e\u2066\r]|\x1b[^\\[]", shown)
        assert colour or "\x1b" not in shown


def test_a_sentence_that_quotes_something_long_keeps_its_ends():
    """A path or name of a file loses its middle, and says how long it was."""
    name = "a" * 9_000
    sentence = str(UserError(f"There is no dataset named '{name}'; the datasets are ml-1m."))
    assert len(sentence) < 700 and "characters)" in sentence
    assert sentence.startswith("There is no dataset named 'aaa")
    assert sentence.endswith("the datasets are ml-1m.")
    words = str(UserError("first " + "word " * 9_000 + "last"))
    assert len(words) < 4_100 and words.startswith("first") and words.endswith("last")
    short = "A sentence of the usual length; give another name."
    assert str(UserError(short)) == short


def test_a_reader_that_has_enough_is_no_mistake():
    program = (
        "import sys; from ksr_recbole.commands import guarded; "
        "sys.exit(guarded(lambda: print('line\\n' * 100_000) or 0, 'x.py', []))"
    )
    reading, writing = os.pipe()
    done = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=writing,
                            stderr=subprocess.PIPE, text=True)  # fmt: skip
    os.close(writing)
    assert os.read(reading, 5) == b"line\n"
    os.close(reading)
    assert (done.communicate()[1], done.returncode) == ("", 141)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
@pytest.mark.parametrize("command", ["--help", "describe nothing", "printed", "told", "much"])
def test_output_that_cannot_be_written_is_a_mistake(command, tmp_path):
    """Python ended with a traceback, or at the exit with one of its own and the status 120."""
    program = [sys.executable, "-m", "ksr_recbole", *command.split()]
    printed = {
        "printed": "print('line') or 0",
        "told": "it.say('line', sys.stdout)",
        "much": "print('line\\n' * 100_000) or 0",
    }
    if what := printed.get(command):
        text = f"import sys, ksr_recbole.commands as it; sys.exit(it.ended(lambda: {what}))"
        program = [sys.executable, "-c", text]
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    variables["PYTHONPATH"] = str(ROOT)
    with open("/dev/full", "w") as full:
        done = subprocess.run(program, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True,
                              env=variables, check=False)  # fmt: skip
        silent = subprocess.run(program, cwd=tmp_path, stdout=full, stderr=full, env=variables,
                                check=False)  # fmt: skip
    assert (done.returncode, silent.returncode) == (2, 2)
    (line,) = done.stderr.splitlines()
    said = "error: standard output: No space left on device."
    assert "nothing" in line if "describe" in command else line == said


def test_another_broken_pipe_is_told(capsys):
    def command() -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    assert guarded(command, "x.py", []) == 2
    assert capsys.readouterr().err == "error: Broken pipe.\n"


@pytest.mark.parametrize(("kind", "coloured"), [("xterm-256color", True), ("dumb", False)])
def test_only_a_terminal_that_knows_colours_gets_them(monkeypatch, kind, coloured):
    monkeypatch.setenv("TERM", kind)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", Screen())
    found = []
    monkeypatch.setattr(
        "ksr_recbole.explanation.terminal.render",
        lambda explanation, width, colour, *_: found.append(colour) or "",
    )
    explanation_cli._as_text(None, False)
    assert found == [coloured]


class Screen(io.StringIO):
    """A terminal of some kind."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True
