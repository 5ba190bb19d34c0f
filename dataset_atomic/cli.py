"""The command line of ``python -m dataset_atomic``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dataset_atomic.convert import (
    ConversionReport,
    Graph,
    Options,
    convert,
    convert_source,
    ensure_free,
    find_links,
    material_of,
)
from dataset_atomic.describe import describe
from dataset_atomic.fetch import fetch
from dataset_atomic.film_graph import ORIGIN
from dataset_atomic.items import ItemColumns, Items, read_items
from dataset_atomic.layout import KEYS, Layout
from dataset_atomic.ml_100k import FREEBASE, NAME, convert_ml_100k
from dataset_atomic.raw.interactions import Period, read_interactions
from dataset_atomic.raw.links import Links
from dataset_atomic.raw.stream import TextFormat
from dataset_atomic.raw.timestamps import TimestampReader
from dataset_atomic.sources import KB4REC_LICENCE, SOURCES
from ksr_recbole.arguments import Parser, listed
from ksr_recbole.commands import run_command
from ksr_recbole.errors import UserError, shown
from ksr_recbole.invocation import command_words, typed
from ksr_recbole.names import check_name
from ksr_recbole.paths import DATASETS

CSV = "csv"

CONVERTERS = (*SOURCES, FREEBASE, CSV)
"""What `convert` knows."""

_OF_CSV = {
    "dataset": None, "user": "user_id", "item": "item_id", "time": "timestamp", "rating": None,
    "separator": ",", "columns": None, "items": None, "attributes": "", "items_id": None,
    "title": None, "whole": "", "ranges": 5, "time_format": None,
}  # fmt: skip
"""Options of `convert csv` alone, and their defaults."""

_LAYOUT = [key for key in KEYS.values() if key != "seq_separator"]
"""RecBole's keys on how files are written; converted ones have no sequences of numbers."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""

    def run(given: argparse.Namespace) -> int:
        given.run(given)
        return 0

    return run_command(run, _parser(), arguments, needs_recbole=False)


def _program() -> str:
    """What the command was called by; all its commands are also commands of ``ksr-recbole``."""
    called = Path(sys.argv[0])
    if called.stem == "ksr-recbole":
        return "ksr-recbole"
    return f"python -m {called.parent.name if called.stem == '__main__' else 'dataset_atomic'}"


def _parser() -> Parser:
    parser = Parser(
        prog=_program(),
        description="From raw public data to RecBole's atomic files (.inter .kg .link .item\n"
        ".entity .relation), as Sec. 5.1 of the KSR paper prepares them.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_convert(commands.add_parser("convert", help="write the atomic files of a dataset"))
    command = commands.add_parser("describe", help="say what a folder of atomic files holds")
    command.add_argument("folder", type=Path, metavar="DIR", help="has NAME.inter")
    _add_layout(command, _LAYOUT)
    command.set_defaults(run=_describe)
    command = commands.add_parser("fetch", help="download the public raw files of a dataset")
    command.add_argument("name", metavar="NAME", help=", ".join([*SOURCES, "freebase"]))
    command.add_argument("--raw", type=Path, metavar="DIR", help="where to put them (raw/NAME)")
    command.add_argument("--link", action="store_true", help="also KB4Rec's links to Freebase")
    command.set_defaults(run=_fetch)
    return parser


def _add_convert(command: Parser) -> None:
    command.set_defaults(run=_convert, **_OF_CSV)
    add = command.add_argument
    add("name", metavar="NAME", help=", ".join(CONVERTERS))
    add("--raw", type=Path, metavar="DIR", help="folder of the raw files (csv: the file)")
    add("--link", type=Path, metavar="FILE", help="lines of an item, a tab and its entity")
    add("--kg", type=Path, metavar="PATH", action="append",
        help="knowledge graph: a folder with hop1.kg, triples separated by tabs, N-Triples or a "
        "Freebase dump, .gz or not; can be given several times")  # fmt: skip
    add("--names", type=Path, metavar="FILE", help="lines of an entity, a tab and its name")
    add("--out", type=Path, metavar="DIR", help="default: dataset_atomic/NAME")
    add("--overwrite", action="store_true", help="replace the dataset in the output folder")
    _add_filters(command)
    _add_table(command)
    _add_items(command)
    _add_layout(command, [key for key in _LAYOUT if key != "benchmark_filename"])


def _add_filters(command: Parser) -> None:
    """What is left out."""
    rules = command.add_argument_group("filtering (defaults are the paper's)")
    add = rules.add_argument
    add(
        "--k-core",
        type=int,
        metavar="K",
        help="fewest interactions of a user or item (10; amazon-book 3)",
    )
    few = "fewest triples of a relation (0.1 %% of the triples, at most the paper's 5,000)"
    add("--min-triples", type=int, metavar="N", help=few)
    add("--hops", type=int, default=1, metavar="N", help="steps from the linked entities (1)")
    add("--drop-repeats", action="store_true", help="keep a user's first use of an item only")
    add("--first-year", type=int, metavar="YEAR", help="the first year kept (ml-20m: 2005)")
    add("--last-year", type=int, metavar="YEAR", help="the last year kept (ml-20m: 2015)")
    add("--last-days", type=int, metavar="N", help="keep only the last N days (lfm-1b: 365)")


def _add_table(command: Parser) -> None:
    """The user's own table of interactions."""
    table = command.add_argument_group("csv only: --raw is the file of interactions")
    add = table.add_argument
    add("--dataset", metavar="NAME", help="name of the dataset")
    add("--user", metavar="COLUMN", help="column of user ids (user_id)")
    add("--item", metavar="COLUMN", help="column of item ids (item_id)")
    add("--time", metavar="COLUMN", help="column of times (timestamp)")
    add("--rating", metavar="COLUMN", help="column of ratings (none)")
    add(
        "--time-format", metavar="FORMAT", help="how times are written, such as %%d/%%m/%%Y %%H:%%M"
    )
    add(
        "--separator",
        metavar="S",
        help="what separates columns (,); \\t is a tab",
    )
    add("--columns", metavar="A,B,...", help="names of the columns of a file without a header")


def _add_items(command: Parser) -> None:
    """The user's own table of items."""
    own = command.add_argument_group("csv only: a table of items, with or in place of a graph")
    add = own.add_argument
    add("--items", type=Path, metavar="FILE", help="text with a header, .json, .jsonl or .parquet")
    add(
        "--attributes",
        metavar="A,B,...",
        help="columns that describe items (all)",
    )
    add("--items-id", metavar="COLUMN", help="column of ids (as --item)")
    add("--title", metavar="COLUMN", help="column of titles (title or name)")
    add(
        "--whole",
        metavar="A,B,...",
        help="attributes that are neither split nor cut into ranges",
    )
    add(
        "--ranges",
        type=int,
        metavar="N",
        help="ranges that numbers are cut into (5)",
    )


def _add_layout(command: argparse.ArgumentParser, keys: Sequence[str]) -> None:
    """RecBole's keys on the form of atomic files, given here or in YAML files."""
    group = command.add_argument_group("form of the atomic files, by RecBole's config keys")
    group.add_argument("--config_files", type=Path, nargs="+", metavar="YAML", default=[],
                       help="config files with these keys")  # fmt: skip
    said = {"field_separator": "what separates columns (a tab)", "encoding": "of all files (utf-8)"}
    said["benchmark_filename"] = "parts that the interactions lie in, as [train,valid,test]"
    for part, key in KEYS.items():
        if key in keys:
            told = said.get(key) or f"name of a column ({getattr(Layout, part)})"
            group.add_argument(f"--{key}", metavar="VALUE", help=told)


def _layout(given: argparse.Namespace) -> Layout:
    values = {key: value for key in KEYS.values() if (value := getattr(given, key, None))}
    if not values and not given.config_files:
        return Layout()
    # Imported only here, since it loads PyTorch.
    from ksr_recbole.config.keys import TEXTS
    from ksr_recbole.config.kinds import check_fields, checked
    from ksr_recbole.config.literals import literals, read_yaml

    merged: dict[str, object] = {}
    for file in given.config_files:
        merged |= read_yaml(file, TEXTS)
    merged |= literals(values, TEXTS)
    wanted = {key: merged[key] for key in KEYS.values() if merged.get(key) is not None}
    taken = checked(wanted)
    check_fields({key: taken.get(key, getattr(Layout, part)) for part, key in KEYS.items()})
    return Layout.from_values(taken)


def _convert(given: argparse.Namespace) -> None:
    options = Options(
        k_core=given.k_core,
        min_triples=given.min_triples,
        hops=given.hops,
        drop_repeats=given.drop_repeats,
        period=_period(given),
        names=given.names,
        overwrite=given.overwrite,
        layout=replace(_layout(given), files=()),  # what is written is one .inter
    )
    print(f"Converting {given.name} from {given.raw or 'what is installed'} ...", flush=True)
    report = _converted(given, options)
    for line in [*report.lines(), report.table1.line()]:
        print(line)
    if given.name != CSV:
        licence = SOURCES[NAME if given.name == FREEBASE else given.name].licence
        of_links = "" if report.origin == ORIGIN else f". {KB4REC_LICENCE}"
        print(f"Licences: {licence}{of_links}")
    folder, name = report.folder.absolute(), report.table1.name
    if folder.name == name:  # as RecBole wants it
        words = [*command_words("run"), f"--dataset={name}"]
        if folder.parent != DATASETS.absolute():
            words.append(f"--data_path={folder.parent}")
        words += _words_of(options.layout)
        print(f"Train on it with: {typed(words)}")


def _words_of(layout: Layout) -> list[str]:
    """The arguments of a run that reads files of this layout."""
    values = ((key, part, getattr(layout, part)) for part, key in KEYS.items())
    return [f"--{key}={value}" for key, part, value in values if value != getattr(Layout, part)]


def _converted(given: argparse.Namespace, options: Options) -> ConversionReport:
    name = given.name
    if name == CSV:
        return _convert_csv(given, options)
    if used := [key for key, default in _OF_CSV.items() if getattr(given, key) != default]:
        raise UserError(
            f"--{used[0].replace('_', '-')} is for `convert csv` alone; leave it out, or convert "
            "your own table of interactions with that."
        )
    if name not in CONVERTERS:
        raise UserError(
            f"There is no converter '{shown(name)}'; expected one of "
            f"{', '.join(CONVERTERS)} (csv is for your own data)."
        )
    out = given.out or DATASETS / name
    if name in (NAME, FREEBASE):
        files = {"raw": given.raw, "link": given.link, "kg": given.kg}
        return convert_ml_100k(out, name, options=options, **files)
    if given.raw is None:
        raise UserError(f"`convert {name}` needs the raw files; give their folder with --raw=DIR.")
    return convert_source(
        SOURCES[name], given.raw, out, link=given.link, kg=given.kg, options=options
    )


def _convert_csv(given: argparse.Namespace, options: Options) -> ConversionReport:
    if given.raw is None or given.dataset is None:
        raise UserError("`convert csv` needs --raw=FILE and --dataset=NAME (what to call it).")
    check_name(given.dataset, "dataset")
    out = given.out or DATASETS / given.dataset
    ensure_free(out, options)
    layout = _text_format(given)
    if given.items is not None and given.link and not given.kg:
        raise UserError(
            f"--link={shown(str(given.link))} says which entity of a graph an item is; give the "
            "graph with --kg=PATH, or leave --link out: --items makes a graph of its own."
        )
    items, graph = _items(given, layout.separator), Graph.given(given.kg or [], options.names)
    if items is None or given.kg or given.link:
        links = find_links(given.dataset, given.link, given.kg or [])
    else:
        links = Links(items.link, items.link.height, 0, 0)
    clock = TimestampReader(given.time_format, "--time-format")
    linked, period = links.frame["item_id"], options.period or Period()
    inter = read_interactions(given.raw, layout, linked, period, clock)
    material = material_of(given.dataset, inter, links, {} if items is None else items.side)
    if items is not None:
        notes = (*material.notes, *items.notes)
        material = replace(material, facts=items.facts, names=items.names, notes=notes)
        graph = graph.with_part(f"the columns of {given.items.name}")
    return convert(material, graph, out, options)


def _text_format(given: argparse.Namespace) -> TextFormat:
    """How the file of interactions is to be read.

    Raises:
        UserError: a column is named twice or not at all, or the separator is not one.
    """
    meanings = {"user": "user_id", "item": "item_id", "time": "timestamp", "rating": "rating"}
    named = {key: raw for key in meanings if (raw := getattr(given, key))}
    wanted = {raw: meanings[key] for key, raw in named.items()}
    raws = list(named.values())
    if twice := next((raw for raw in raws if raws.count(raw) > 1), None):
        raise UserError(
            f"Two of --user, --item, --time and --rating name the column {shown(repr(twice))} "
            "(they are user_id, item_id, timestamp and none by default); give each its own."
        )
    separator = given.separator.replace("\\t", "\t")
    if len(separator.encode()) != 1:
        raise UserError(f"--separator is {separator!r}; expected one ASCII character, or \\t.")
    columns: dict[str, str] | tuple[str, ...] = wanted
    if given.columns:
        names = [name.strip() for name in given.columns.split(",")]
        columns = tuple(wanted.get(name, f"\0{k}") for k, name in enumerate(names))
        for raw, name in wanted.items():
            if columns.count(name) != 1:
                how = "twice" if name in columns else "not at all"
                raise UserError(
                    f"--columns={shown(given.columns)} names the column {shown(repr(raw))} {how}; "
                    "name it once."
                )
    return TextFormat(columns, separator, quoted=True, header=not given.columns)


def _items(given: argparse.Namespace, separator: str) -> Items | None:
    if given.items is None:
        about = ("attributes", "title", "whole", "items_id", "ranges")
        if used := [key for key in about if getattr(given, key) != _OF_CSV[key]]:
            told = used[0].replace("_", "-")
            raise UserError(f"--{told} is about a table of items; give it with --items=FILE.")
        return None
    attributes, whole = (tuple(listed(text)) for text in (given.attributes, given.whole))
    item = given.items_id or given.item
    columns = ItemColumns(item, attributes, given.title, whole, given.ranges)
    return read_items(given.items, columns, separator)


def _period(given: argparse.Namespace) -> Period | None:
    """What was asked for; ``None`` leaves the source's own."""
    values = (given.first_year, given.last_year, given.last_days)
    return Period(*values) if any(value is not None for value in values) else None


def _describe(given: argparse.Namespace) -> None:
    for line in describe(given.folder, _layout(given)):
        print(line)


def _fetch(given: argparse.Namespace) -> None:
    folder = given.raw or Path("raw") / given.name
    print(f"Fetching {given.name} into {folder} ...", flush=True)
    for line in fetch(given.name, folder, given.link):
        print(line)
