"""Knowledge graphs of any size: what lies within some steps of the linked entities.

Four formats are recognised: a folder as RecBole provides (``relation.kg``,
``hop1.kg``, ..., ``extra.kg``), triples separated by tabs (such as RecBole's ``.kg``), a Freebase
RDF dump, and N-Triples; files may be compressed with gzip.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import polars as pl

from dataset_atomic.filtering import Funnel
from dataset_atomic.lines import first_true
from dataset_atomic.raw.iris import (
    NAME_PREDICATES,
    check_ids,
    entity_space,
    expand,
    is_entity,
    shorten,
)
from dataset_atomic.raw.stream import (
    Block,
    TextFormat,
    first_line,
    is_atomic,
    read_blocks,
    read_table,
)
from ksr_recbole.errors import UserError, cannot_write

TRIPLE = ("head_id", "relation_id", "tail_id")
_TSV = TextFormat(TRIPLE)
_ATOMIC_HEADER = {f"{name}:token": name for name in TRIPLE}
_ATOMIC = TextFormat(_ATOMIC_HEADER, header=True)
_RDF_TABS = TextFormat((*TRIPLE, "\0dot"), optional=frozenset(["\0dot"]))
_LINES = TextFormat(("line",), separator="\x1f")

PART_ROWS = 1 << 20
"""Names are put aside on disk in parts of at least this many rows."""


@dataclass
class Scan:
    """What a scan found.

    Attributes:
        kg: the triples within reach, ``head_id``, ``relation_id``, ``tail_id``, shortened.
        funnel: lines read that were not blank, and why triples were left out.
    """

    kg: pl.DataFrame
    funnel: Funnel


class NameSpool:
    """Names met during a scan, put aside on disk until it is known whose are needed.

    Args:
        folder: an empty folder, removed by the caller.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: list[pl.DataFrame] = []
        self._parts: list[Path] = []

    def add(self, names: pl.DataFrame) -> None:
        """``entity_id`` (as in the dump) and ``name``, a literal."""
        self._waiting.append(names)
        if sum(frame.height for frame in self._waiting) >= PART_ROWS:
            self._flush()

    def of(self, entities: pl.Series) -> pl.DataFrame:
        """``entity_id`` and ``name`` of the entities that have one, English if there is one."""
        self._flush()
        if not self._parts:
            return pl.DataFrame(schema={"entity_id": pl.String, "name": pl.String})
        wanted = pl.DataFrame({"entity_id": expand(entities.rename("entity_id"))})
        literals = pl.scan_parquet(self._parts, glob=False)  # a folder may be called [old]
        found = literals.join(wanted.lazy(), on="entity_id", how="semi").collect(engine="streaming")
        return pick_names(found)

    def _flush(self) -> None:
        if self._waiting:
            part = self._folder / f"{len(self._parts):06}.parquet"
            content = BytesIO()  # Polars tells of a full disk as of a wrong file
            pl.concat(self._waiting).write_parquet(content)
            try:
                part.write_bytes(content.getbuffer())
            except OSError as error:
                raise cannot_write(part, error) from error
            self._waiting = []
            self._parts.append(part)


def pick_names(literals: pl.DataFrame) -> pl.DataFrame:
    """One name per entity from ``"text"@language`` literals: English, no language, any other."""
    language = pl.col("name").str.extract(r'"@([A-Za-z-]+)$')
    rank = (
        pl.when(language == "en").then(0)
        .when(language.str.starts_with("en-")).then(1)
        .when(language.is_null()).then(2).otherwise(3)
    )  # fmt: skip
    text = pl.col("name").str.extract(r'(?s)^"(.*)"(?:@[A-Za-z0-9-]+|\^\^<[^>]*>)?$')
    best = (
        literals.with_columns(rank=rank, language=language.fill_null(""), text=text)
        .filter(pl.col("text").str.strip_chars() != "")
        .sort("entity_id", "rank", "language", "text")
        .unique("entity_id", keep="first", maintain_order=True)
    )
    return best.select(shorten("entity_id"), name=_unescape(best["text"]))


def _unescape(texts: pl.Series) -> pl.Series:
    """N-Triples escapes; only the few texts with a backslash are looked at."""

    def decoded(text: str) -> str:
        plain = text.encode("latin-1", "backslashreplace").decode("unicode_escape", "replace")
        return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    frame = texts.to_frame("text").with_columns(
        pl.when(pl.col("text").str.contains("\\", literal=True))
        .then(pl.col("text").map_elements(decoded, return_dtype=pl.String))
        .otherwise(pl.col("text"))
    )
    return frame["text"]


def scan_triples(
    paths: Sequence[Path], seeds: pl.Series, *, hops: int = 1, names: NameSpool | None = None
) -> Scan:
    """The triples within ``hops`` steps of the seeds (Sec. 5.1: one step).

    A step goes along a triple in either direction.  A dump is read once per step.

    Args:
        paths: files or folders, see the module.
        seeds: short ids of the linked entities.
        hops: number of steps.
        names: takes the names that RDF files hold.

    Raises:
        UserError: a file is missing, truncated or malformed.
    """
    space = entity_space(seeds)
    kept: list[pl.DataFrame] = []
    scan = Scan(pl.DataFrame(schema=dict.fromkeys(TRIPLE, pl.String)), Funnel(".kg", 0))
    reached = frontier = seeds.unique()
    previous: pl.Series | None = None
    candidates = 0
    for hop in range(1, hops + 1):
        found = []
        for source in _sources(paths, hop, hops):
            near = reached if source.is_extra else frontier
            far = None if source.is_extra else previous
            spool = names if hop == 1 else None
            for triples, n in _within(source, near, far, space, scan.funnel, spool):
                found.append(triples)
                candidates += n
        kept += found
        if hop < hops and found:
            ends = pl.concat([frame[end].rename("e") for frame in found for end in TRIPLE[::2]])
            previous, ends = reached, ends.unique(maintain_order=True)
            frontier = ends.filter(~ends.is_in(reached.implode()))
            reached = pl.concat([reached.rename("e"), frontier])
    if kept:
        scan.kg = pl.concat(kept)
    steps = "one step" if hops == 1 else f"{hops} steps"
    scan.funnel.drop(f"beyond {steps} of the linked items", candidates - scan.kg.height)
    return scan


@dataclass(frozen=True)
class _Source:
    """A file to read for a step: ``is_new`` if no step before read it, ``is_extra`` if it holds
    triples among whatever was reached before."""

    file: Path
    layout: TextFormat
    relations: pl.Series | None = None
    is_new: bool = True
    is_extra: bool = False


def _within(
    source: _Source,
    near: pl.Series,
    far: pl.Series | None,
    space: str | None,
    funnel: Funnel,
    names: NameSpool | None,
) -> Iterator[tuple[pl.DataFrame, int]]:
    """The triples of a file that touch ``near`` but not ``far``, by block.

    Each pair also gives the number of triples read; it is 0 if the file was counted before.
    """
    is_rdf = source.layout in (_RDF_TABS, _LINES)
    counts = funnel if source.is_new else None
    if is_rdf:
        near = expand(near.rename("e"))
        far = None if far is None else expand(far.rename("e"))
    for block in read_blocks(source.file, source.layout):
        triples = _split_line(block) if source.layout is _LINES else block.frame.select(TRIPLE)
        entities = _entities_only(triples, is_rdf, space, counts)
        if names is not None and is_rdf:
            names.add(_names_in(triples))
        if counts is not None:
            counts.rows_in += triples.height
        if source.relations is not None:
            chosen = entities.filter(pl.col("relation_id").is_in(source.relations.implode()))
            if counts is not None:
                counts.drop("relation not in relation.kg", entities.height - chosen.height)
            entities = chosen
        hit = entities.filter(_is_end(near))
        if far is not None:
            hit = hit.filter(~_is_end(far))
        if hit.height:
            if source.layout is not _LINES:  # whose lines were looked at one by one
                check_ids(block, *TRIPLE)
            hit = hit.select(shorten(name) for name in TRIPLE)
        yield hit, entities.height if counts is not None else 0


def _is_end(entities: pl.Series) -> pl.Expr:
    values = entities.implode()
    return pl.col("head_id").is_in(values) | pl.col("tail_id").is_in(values)


def _entities_only(
    triples: pl.DataFrame, is_rdf: bool, space: str | None, counts: Funnel | None
) -> pl.DataFrame:
    """The triples between entities, the others noted."""
    no_literal = triples.filter(~pl.col("tail_id").str.starts_with('"'))
    left = no_literal
    if is_rdf:
        left = no_literal.filter(is_entity("head_id", space) & is_entity("tail_id", space))
    if counts is not None:
        counts.drop("literal", triples.height - no_literal.height)
        of = f" of {space}" if space else ""
        counts.drop(f"an end is no entity{of}", no_literal.height - left.height)
    return left


def _names_in(triples: pl.DataFrame) -> pl.DataFrame:
    is_name = pl.col("relation_id").is_in(list(NAME_PREDICATES))
    literal = pl.col("tail_id").str.starts_with('"')
    return triples.filter(is_name & literal).select(entity_id="head_id", name="tail_id")


_OBJECT = r'^(<[^<>]+>|_:\S+|".*"(@[A-Za-z0-9-]+|\^\^<[^<>]*>)?)$'
"""What a triple of N-Triples may end in: an IRI, a blank node or a literal."""


def _split_line(block: Block) -> pl.DataFrame:
    """N-Triples separated by blanks: an object may hold blanks itself."""
    lines = block.frame["line"].str.strip_chars()
    is_comment = lines.str.starts_with("#")
    parts = lines.str.splitn(" ", 3).struct.unnest()
    parts.columns = list(TRIPLE)
    tail = pl.col("tail_id").str.strip_chars().str.replace(r"\s*\.$", "")
    frame = parts.with_columns(tail)
    good = (
        frame["head_id"].str.contains(r"^(<[^<>]+>|_:\S+)$")
        & frame["relation_id"].str.contains(r"^<[^<>]+>$").fill_null(False)
        & frame["tail_id"].str.contains(_OBJECT).fill_null(False)
        & lines.str.ends_with(".")
    )
    bad = ~(good | is_comment)
    if (row := first_true(bad)) is not None:
        raise UserError(
            f"{block.line_of(row)}: {lines[row][:80]!r} is not a triple; "
            "expected `<subject> <predicate> <object> .` (N-Triples), so correct the line; in "
            "N-Quads remove the fourth term."
        )
    return frame.filter(~is_comment)


def _sources(paths: Iterable[Path], hop: int, hops: int) -> Iterator[_Source]:
    """What to read for a step: a file each time, of a folder the step's own."""
    for path in paths:
        if not path.is_dir():
            yield _Source(path, _format_of(path), is_new=hop == 1)
            continue
        if not (path / "hop1.kg").is_file():
            raise UserError(
                f"{path} has no hop1.kg; expected a folder with hop1.kg and relation.kg as RecBole "
                "provides, or name the file that holds the triples."
            )
        relations = None
        if (path / "relation.kg").is_file():
            relations = read_table(path / "relation.kg", TextFormat(("relation_id",)))[
                "relation_id"
            ]
        file = path / f"hop{hop}.kg"
        if hop > 1 and not file.is_file():
            raise UserError(
                f"{path} has no hop{hop}.kg, which --hops={hops} reads; give --hops={hop - 1}, or "
                "add the file."
            )
        if file.is_file():
            yield _Source(file, _format_of(file), relations)
        if hop == hops and (file := path / "extra.kg").is_file():
            yield _Source(file, _format_of(file), relations, is_extra=True)


def _format_of(path: Path) -> TextFormat:
    """The format of a file from its first line."""
    line = first_line(path)
    if not line:
        raise UserError(f"{path} is empty; expected a triple per line.")
    if is_atomic(line, _ATOMIC_HEADER):
        return _ATOMIC
    n_tabs = line.count(b"\t")
    if line.startswith((b"<", b"_:")) and line.rstrip().endswith(b"."):
        return _RDF_TABS if n_tabs == 3 else _LINES
    if n_tabs == 2:
        return _TSV
    raise UserError(
        f"{path}, line 1: {line[:80].decode(errors='replace')!r} is not a triple; expected "
        "head, relation and tail separated by tabs, N-Triples, or RecBole's .kg."
    )
