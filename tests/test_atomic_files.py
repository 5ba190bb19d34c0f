"""Every malformed atomic file ends in one sentence that names the file and the line."""

from __future__ import annotations

import gzip
import os
import random
from pathlib import Path

import pytest

from dataset_atomic import atomic_files, lines
from dataset_atomic.atomic import read_atomic
from dataset_atomic.atomic_files import check_atomic_file
from dataset_atomic.cli import main
from ksr_recbole.config import Config
from ksr_recbole.dataset.loading import read_columns
from ksr_recbole.errors import UserError
from ksr_recbole.pretraining.vectors import read_vectors
from tests.toy import toy_run, write_toy

INTER = {"user_id": "token", "item_id": "token", "timestamp": "float"}
HEADER = b"user_id:token\titem_id:token\ttimestamp:float\n"


@pytest.fixture
def write(tmp_path):
    def write_file(content: bytes):
        path = tmp_path / "x.inter"
        path.write_bytes(content)
        return path

    return write_file


@pytest.mark.parametrize(
    ("line", "column"), [("[PAD]\ti\t1", "user_id"), ("u\t[PAD]\t1", "item_id")]
)
def test_recboles_token_of_the_padding_is_no_id(write, line, column):
    """RecBole would have two numbers for it, and a saved model could not be loaded."""
    path = write(HEADER + f"[PAD]x\t[pad]\t1\nPAD\t[PA]]\t2\n{line}\n".encode())
    assert f"line 4: column '{column}' is [PAD], RecBole's own" in complaint(path)


@pytest.mark.parametrize("column", ["user_id", "item_id"])
def test_an_id_that_is_the_padding_is_not_converted(tmp_path, capsys, column):
    rows = [{"user_id": f"u{k % 3}", "item_id": f"i{k % 4}"} for k in range(12)]
    rows = [{**row, column: "[PAD]"} if row[column][1:] == "1" else row for row in rows]
    lines = [f"{row['user_id']},{row['item_id']},{k}" for k, row in enumerate(rows)]
    sales, items = tmp_path / "s.csv", tmp_path / "i.csv"
    sales.write_text("\n".join(["user_id,item_id,timestamp", *lines]) + "\n")
    ids = dict.fromkeys(row["item_id"] for row in rows)
    items.write_text("item_id,brand\n" + "".join(f"{each},b\n" for each in ids))
    given = [f"--raw={sales}", f"--items={items}", f"--out={tmp_path / 'o'}", "--k-core=1"]
    assert main(["convert", "csv", "--dataset=s", *given]) == 2
    assert f"[PAD] in column {column} of .inter is RecBole's" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def complaint(path, required=INTER, **options) -> str:
    """The sentence, after checking that it is one and names the file."""
    with pytest.raises(UserError) as raised:
        check_atomic_file(path, required, **options)
    sentence = str(raised.value)
    assert str(path) in sentence
    assert sentence.endswith(".") and ". " not in sentence and "\n" not in sentence
    return sentence


@pytest.mark.parametrize(
    "rows",
    [
        b"1\t2\t3\n4\t5\t6\n",
        b"1\t2\t3\n4\t5\t6",
        b"1\t2\t3\n4\t5\t6\n\n\n",
        b"1\t2\t3.5\r\n4\t5\t6\r\n",
        b"1\t2\t3\r\n4\t5\t6\r\n\r\n",
        b"a b\t\xc3\xa9\t-1e9\nc\td\t.5\n",
        b"1\t2\t" + b"0" * 60 + b"1\n4\t5\t+7.0\n",
    ],
)
def test_good_files(write, rows):
    assert check_atomic_file(write(HEADER + rows), INTER) == INTER
    windows_header = HEADER.replace(b"\n", b"\r\n")
    assert check_atomic_file(write(windows_header + rows), list(INTER)) == INTER


@pytest.mark.parametrize(
    ("row", "column"), [(b'"1\t2\t3\n', "user_id"), (b'1\t"a"b"\t3\n', "item_id")]
)
def test_an_unclosed_quotation_mark_would_swallow_lines(write, row, column):
    path = write(HEADER + b"1\t2\t3\n" + row + b'4\t5\t6\n7\t8"\t9\n')
    assert f"line 3: column '{column}' begins with a quotation mark" in complaint(path)


def test_names_may_begin_with_quotation_marks(tmp_path):
    path = tmp_path / "x.entity"
    path.write_text('entity_id:token\tname:token_seq\n1\t"Heroes"\n2\t"Al" Y\n3\t"\n')
    assert len(check_atomic_file(path, ["entity_id", "name"])) == 2


def test_closed_quotation_marks_and_those_inside_are_fine(write):
    path = write(HEADER + b'"1"\t2\t3\n4\t5 1/2"\t6\n"Al" Y\t5\t6\n')
    assert check_atomic_file(path, ["item_id", "timestamp"]) == INTER
    assert "line 2: column 'user_id' begins" in complaint(path)


def test_other_columns_may_be_empty_and_anything(write):
    path = write(b"item_id:token\ttags:token_seq\tv:float_seq\tx:float\n1\t\t1 2\tn/a\n")
    types = check_atomic_file(path, ["item_id"])
    assert types == {"item_id": "token", "tags": "token_seq", "v": "float_seq", "x": "float"}


def test_another_separator(write):
    path = write(HEADER.replace(b"\t", b",") + b"1,2,3\n")
    assert check_atomic_file(path, INTER, separator=",") == INTER
    assert "separated by ','" in complaint(path)
    assert "the separator '\\t'." in complaint(write(b"a b c\n1\t2\t3\n"))
    assert "field_separator" in complaint(path, separator="::")


@pytest.mark.parametrize(
    ("separator", "argument"),
    [(b",", "--field_separator=,"), (b";", "'--field_separator=;'"),
     (b"|", "'--field_separator=|'"), (b" ", "'--field_separator= '")],
)  # fmt: skip
def test_the_separator_of_a_file_is_named(write, separator, argument):
    path = write(HEADER.replace(b"\t", separator) + separator.join([b"1", b"2", b"3"]) + b"\n")
    assert complaint(path).endswith(f"separated by '{separator.decode()}', so add {argument}.")
    assert "separated by '\\t', so add '--field_separator=\\t'." in complaint(
        write(HEADER), separator=","
    )


def test_a_byte_order_mark_is_read_as_the_sentence_says(write):
    path = write(b"\xef\xbb\xbf" + HEADER + b"1\t2\t3\n")
    assert check_atomic_file(path, INTER, encoding="utf-8-sig") == INTER


def test_a_column_that_the_user_named_is_not_named_again(write):
    sentence = complaint(write(HEADER + b"1\t2\t3\n"), {"uid": "token"})
    assert sentence.endswith("add `uid:token` or correct the name in the configuration.")


def test_missing_file_and_folder(tmp_path):
    assert "does not exist" in complaint(tmp_path / "none.inter")
    assert "cannot be read" in complaint(tmp_path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ["is empty", "user_id:token\\titem_id:token\\ttimestamp:float"]),
        (b"\n1\t2\t3\n", ["blank first line"]),
        (HEADER, ["no rows"]),
        (HEADER + b"\n\r\n", ["no rows"]),
        (b"1\t2\t3\n", ["line 1", "'1'", "token, token_seq, float, float_seq"]),
        (b"user_id:int\n1\n", ["line 1", "'user_id:int'"]),
        (b"user_id:token\tuser_id:token\n1\t2\n", ["line 1", "'user_id'", "twice"]),
        (
            b"user_id:token\titem_id:token\n1\t2\n",
            [
                "line 1",
                "no column 'timestamp' but user_id, item_id",
                "`timestamp:float`",
                "give its name in .inter with --TIME_FIELD=NAME.",
            ],
        ),
        (
            b"user_id:token\tsku:token\ttimestamp:float\n1\t2\t3\n",
            ["no column 'item_id'", "--ITEM_ID_FIELD=NAME (.inter and .link must both have it)."],
        ),
        (
            HEADER.replace(b"float", b"token") + b"1\t2\t3\n",
            ["line 1", "'timestamp' has type 'token'", "`timestamp:float`"],
        ),
        (b"\xef\xbb\xbf" + HEADER + b"1\t2\t3\n", ["byte-order mark", "--encoding=utf-8-sig"]),
        (HEADER[:4] + b"\xff" + HEADER[4:], ["line 1", "0xff", "UTF-8"]),
        (HEADER + b"1\t2\t3\n\xe9\t2\t3\n", ["line 3", "0xe9", "UTF-8"]),
        (HEADER + b"1\t2\t3\n1\t2\n", ["line 3", "2 columns found", "has 3"]),
        (HEADER + b"1\t2\t3\n1\t2\t3\t4\n1\n", ["line 3", "4 columns found"]),
        (HEADER + b"1\t2\n3\t4\t5\t6\n", ["line 2", "2 columns found"]),
        (HEADER + b"1\t2\t3\n\n1\t2\t3\n", ["line 3 is empty; remove the line"]),
        (HEADER + b"1\t2\t3\n \n1\t2\t3\n", ["line 3", "1 column found"]),
        # Every other id would need as much memory.
        (HEADER + b"1\t2\t3\n1\t" + b"x" * 2001 + b"\t3\n", ["line 3", "'item_id' has 2,001"]),
        (HEADER + b"1\t2\t3\n1\t\t3\n", ["line 3", "'item_id' is empty"]),
        (HEADER + b"1\t2\t3\n1\t2\t\r\n", ["line 3", "'timestamp' is empty"]),
        (HEADER + b"1\t2\t3\n1\t2\t1998-03-01\n", ["line 3", "'1998-03-01'", "'timestamp'"]),
        (HEADER + b"1\t2\tnan\n", ["line 2", "'nan'"]),
        (HEADER + b"1\t2\t1_0\n", ["line 2", "'1_0'"]),
        (HEADER + b"1\t2\t.\n", ["line 2", "'.'"]),
        (HEADER + b"1\t2\t1.2.3\n", ["line 2", "'1.2.3'"]),
        (HEADER + b"1\t2\t" + b"9" * 400 + b"\n", ["line 2", "finite"]),
    ],
)
def test_bad_files(write, content, expected):
    sentence = complaint(write(content))
    for fragment in expected:
        assert fragment in sentence


def test_a_list_requires_names_of_any_type(write):
    path = write(HEADER.replace(b"float", b"token") + b"1\t2\tx\n")
    assert check_atomic_file(path, list(INTER))["timestamp"] == "token"
    assert "`rating:token`" in complaint(path, ["rating"])


@pytest.mark.parametrize("block_bytes", [1, 7, 40, 1 << 20])
def test_lines_are_counted_across_blocks(write, monkeypatch, block_bytes):
    monkeypatch.setattr(atomic_files, "BLOCK_BYTES", block_bytes)
    random.seed(0)
    rows = [f"{random.randrange(10**6)}\té{k}\t{k}".encode() for k in range(60)]
    good = HEADER + b"\r\n".join(rows) + b"\n\n\n\n"
    check_atomic_file(write(good), INTER)
    for bad, expected in [
        (b"1\t2", "2 columns found"),
        (b"1\t2\tx", "'x'"),
        (b"\t2\t3", "'user_id' is empty"),
        (b"1\t\xff\t3", "0xff"),
        (b" ", "1 column found"),
    ]:
        for at in (0, 31, 58):
            changed = [*rows[:at], bad, *rows[at + 1 :]]
            sentence = complaint(write(HEADER + b"\n".join(changed) + b"\n"))
            assert f"line {at + 2}:" in sentence and expected in sentence


def test_a_line_without_an_end_does_not_fill_the_memory(write, monkeypatch):
    monkeypatch.setattr(lines, "_LONGEST_LINE", 1 << 20)
    monkeypatch.setattr(atomic_files, "BLOCK_BYTES", 1 << 10)
    for content, line in [(b"", 1), (HEADER, 2), (HEADER + b"1\t2\t3\n", 3)]:
        sentence = complaint(write(content + b"x" * (3 << 20)))
        assert f"line {line}: more than 1 MiB without a line end" in sentence


def test_an_atomic_file_is_taken_as_it_is(write):
    """RecBole unpacks none either."""
    assert "byte 0x8b is not UTF-8" in complaint(write(gzip.compress(HEADER + b"1\t2\t3\n")))


def test_what_is_no_file_is_one_sentence_for_every_reader(toy_folder: Path, capsys) -> None:
    """A reader that waited for the pipe would never end."""
    for suffix in ("inter", "kg", "link", "item"):
        folder = write_toy(toy_folder / suffix) / "toy"
        path = folder / f"toy.{suffix}"
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        assert main(["describe", str(folder)]) == 2
        assert "it is a named pipe, not a file" in capsys.readouterr().err
        with pytest.raises(UserError, match="it is a named pipe, not a file"):
            toy_run(toy_folder / suffix)
        raw = ["--dataset=x", f"--raw={path}", f"--link={path}", f"--kg={path}"]
        assert main(["convert", "csv", *raw, f"--out={folder / 'out'}"]) == 2
        assert "it is a named pipe, not a file" in capsys.readouterr().err
        for read in (
            lambda path=path: read_vectors(path, ["a"]),
            lambda path=path: Config("KSR", "toy", [str(path)], {}),
        ):
            with pytest.raises(UserError, match="it is a named pipe, not a file"):
                read()


@pytest.mark.parametrize(
    "rows", [b"1\t2\t3\r4\t5\t6\n", b"a\rb\t2\t3\n", b"\r\t2\t3\n", b"1\t2\t3\r\r\n"]
)
def test_a_carriage_return_inside_a_line_is_refused(write, rows):
    path = write(HEADER + b"1\t2\t3\n" + rows + b"7\t8\t9\n")
    assert "line 3: a carriage return" in complaint(path)
    with pytest.raises(UserError, match="line 1: a carriage return"):
        check_atomic_file(write(HEADER.replace(b"timestamp", b"time\rstamp") + rows), INTER)


def test_blank_lines_at_the_end_are_no_rows(write):
    path = write(HEADER + b"1\t2\t3\n\r\n\n\n")
    assert read_atomic(path, INTER).frame.rows() == [("1", "2", "3")]
    assert read_columns(path, INTER).to_numpy().tolist() == [["1", "2", 3.0]]


def test_digits_of_another_script_are_no_number(write):
    assert "is not a finite number" in complaint(write(HEADER + "1\t2\t٣\n".encode()))
