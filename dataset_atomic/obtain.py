"""A public dataset in one step: found on this machine or downloaded, then converted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from dataset_atomic import film_graph
from dataset_atomic.archives import unpack
from dataset_atomic.convert import ConversionReport, Options, convert_source
from dataset_atomic.fetch import Unreachable, check_of, fetch_archive
from dataset_atomic.sources import SOURCES, Source, find_in
from ksr_recbole.errors import UserError
from ksr_recbole.invocation import TRAIN
from ksr_recbole.paths import DATASETS


def downloadable() -> list[str]:
    """The datasets that can be downloaded and have a graph, by name."""
    return [name for name, source in SOURCES.items() if source.films and source.archive]


def usual_places(name: str) -> list[Path]:
    """Where raw files, an archive or RecBole's own files may lie already.

    ``raw/<name>`` is where ``fetch`` puts them, ``dataset/<name>`` is RecBole's folder.
    """
    here = [Path("raw") / name, _download_folder(name), Path("dataset") / name, DATASETS / name]
    return list(dict.fromkeys(Path(os.path.realpath(path)) for path in here))


def has_raw(name: str, folder: Path) -> bool:
    """Whether a folder holds the raw files of a dataset, or its archive."""
    return _ratings_in(SOURCES[name], folder) or _archive_in(SOURCES[name], folder) is not None


def obtain(
    name: str,
    out: Path,
    places: Iterable[Path],
    *,
    download: bool,
    say: Callable[[str], None],
    kg: list[Path] | None = None,
    link: Path | None = None,
    options: Options | None = None,
) -> ConversionReport:
    """Convert a dataset from the first place that holds it, or download it first.

    A command that was stopped anywhere resumes when it is given again.

    Args:
        name: of :func:`downloadable`.
        out: where the atomic files go; of what is there only atomic files are replaced.
        places: folders to look in.
        download: whether it may be downloaded.
        say: takes the lines to show.
        kg: as of :func:`dataset_atomic.convert.convert_source`.
        link: likewise.
        options: likewise; by default those of the paper.

    Raises:
        UserError: it is nowhere and cannot be downloaded; an archive or a file is damaged.
    """
    source = SOURCES[name]
    raw = next((place for place in places if has_raw(name, place)), None)
    if raw is None:
        raw = _download_folder(name)
        if not download:
            raise _by_hand(source, raw, "download is False")
        say(f"{source.licence}.")
        if not kg:
            say(f"Knowledge graph: {film_graph.ORIGIN}.")
        try:
            fetch_archive(source, raw)
        except Unreachable as error:
            raise _by_hand(source, raw, error.reason) from error
    elif not _ratings_in(source, raw):
        archive = _archive_in(source, raw)
        assert archive is not None
        _unpack_found(source, archive)
    say(f"Converting {name} from {raw} ...")
    options = options or Options(overwrite=True)
    return convert_source(source, raw, out, link=link, kg=kg, options=options)


def _ratings_in(source: Source, folder: Path) -> bool:
    if not folder.is_dir():
        return False
    for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        source.finish_unpacking(place)  # of a command that was killed
    # What a conversion left has lost interactions to the links of that graph.
    is_raw = not (folder / f"{source.name}.relation").exists()
    recboles = (f"{source.name}.inter",) if is_raw else ()
    return find_in(folder, (*source.ratings, *recboles)) is not None


def _archive_in(source: Source, folder: Path) -> Path | None:
    if source.archive is None:
        return None
    found = find_in(folder, (source.archive.rsplit("/", 1)[-1],)) if folder.is_dir() else None
    return found if found is None or found.is_file() else None


def _unpack_found(source: Source, archive: Path) -> None:
    """Unpack an archive that was not downloaded by this command."""
    if source.md5 is not None and not check_of(source.md5)(archive):
        raise UserError(
            f"{archive} is not the archive that GroupLens publishes (md5 {source.md5}), or only a "
            "part of it; delete it and give the same command again."
        )
    unpack(archive, source.max_bytes)


def _download_folder(name: str) -> Path:
    return DATASETS.parent / "raw" / name


def _by_hand(source: Source, folder: Path, reason: str) -> UserError:
    return UserError(
        f"{source.name} is not here, and not downloaded ({reason}): put {source.archive} into "
        f"{folder}/ and run `{TRAIN} --dataset={source.name}`."
    )
