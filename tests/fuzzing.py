"""Seeded mutations of files, and what must come of each: the right result or one sentence.

The environment variable ``KSR_FUZZ`` multiplies the number of cases.  All mutations of a case
follow from its kind and number, so that a failure can be had again.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ksr_recbole.errors import UserError
from tests.mutations import bounded

TIMES = int(os.environ.get("KSR_FUZZ", "1"))

SECONDS = 60
"""Seconds of processors that a case may take; nearly all take a few milliseconds."""

GIB = 2.0
"""By how much the address space may grow during a case."""

LONGEST_SENTENCE = 20_000

WORDS: tuple[bytes, ...] = (
    *(b"\0", b"\t", b"\n", b"\r", b"\r\n", b"\n\n", b"  ", b'"', b'""', b"'", b",", b";", b"|"),
    *(b"-", b"-1", b"0", b"nan", b"inf", b"-inf", b"1e999", b"1e-999", b"1_0", b"0x10", b"+1"),
    *(b"9" * 25, b"9" * 400, b"1e18", b"-9223372036854775809", b"1.5", b".", b"e", b"null"),
    *(b"None", b"true", b"[]", b"{}", b"[[", b"[" * 3000, b"{'a':" * 300, b"*a", b"&a ", b"!!"),
    *(b"\xef\xbb\xbf", b"\xff", b"\xed\xa0\x80", b"\xc2\x9b", b"\x1b[2J", b"\x1b]0;x\x07"),
    *("\u202e".encode(), "\u0663".encode(), "\u2028".encode(), "\u00a0".encode(), b"\x85"),
    *(b"a" * 5000, b"../../evil", b"/etc/passwd", b"%s%n", b"__import__('os').getcwd()", b"#"),
    *(b":", b"::", b":token", b":float", b"_seq", b"@en", b"<", b">", b" .", b"\x1f", b"\x0b"),
)
"""What is put into files: separators, odd numbers, controls, other encodings, brackets."""


@dataclass(frozen=True)
class Outcome:
    """What came of a case: a value, or the sentence of a refusal."""

    value: Any = None
    refused: str | None = None


def cases(kind: str, number: int) -> Iterator[random.Random]:
    """A source of random numbers for each case of a kind."""
    for case in range(number * TIMES):
        yield random.Random(f"{kind} {case}")


def mutated(rng: random.Random, content: bytes) -> bytes:
    """A file's content with one to three changes, in bytes, words, fields or lines."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = rng.choice(MUTATIONS)(rng, content)
    return content


def _place(rng: random.Random, content: bytes) -> int:
    """Somewhere; in every third case in the first line or the header."""
    end = min(len(content), 80) if rng.random() < 0.3 else len(content)
    return rng.randrange(end + 1)


def _flip(rng: random.Random, content: bytes) -> bytes:
    at = min(_place(rng, content), len(content) - 1)
    changed = bytearray(content)
    if changed:
        changed[at] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(rng: random.Random, content: bytes) -> bytes:
    return content[: _place(rng, content)]


def _remove(rng: random.Random, content: bytes) -> bytes:
    at = _place(rng, content)
    return content[:at] + content[at + rng.randrange(1, 20) :]


def _repeat(rng: random.Random, content: bytes) -> bytes:
    at = _place(rng, content)
    return content[: at + rng.randrange(1, 60)] + content[at:]


def _insert(rng: random.Random, content: bytes) -> bytes:
    at = _place(rng, content)
    return content[:at] + rng.choice(WORDS) + content[at:]


def _random_bytes(rng: random.Random, content: bytes) -> bytes:
    at = _place(rng, content)
    return content[:at] + rng.randbytes(rng.randrange(1, 9)) + content[at:]


def _other_field(rng: random.Random, content: bytes) -> bytes:
    """Another word instead of a field of some line."""
    lines = content.split(b"\n")
    number = 0 if rng.random() < 0.15 else rng.randrange(len(lines))
    separator = next((s for s in (b"\t", b",", b" ") if s in lines[number]), b"\t")
    fields = lines[number].split(separator)
    fields[rng.randrange(len(fields))] = rng.choice(WORDS)
    lines[number] = separator.join(fields)
    return b"\n".join(lines)


def _other_lines(rng: random.Random, content: bytes) -> bytes:
    """A line removed, doubled, emptied or exchanged with another."""
    lines = content.split(b"\n")
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            del lines[one]
        case 1:
            lines.insert(other, lines[one])
        case 2:
            lines[one] = b""
        case _:
            lines[one], lines[other] = lines[other], lines[one]
    return b"\n".join(lines)


def _other_ends(rng: random.Random, content: bytes) -> bytes:
    return content.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n")), rng.randrange(1, 9))


MUTATIONS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    *(_flip, _cut, _remove, _repeat, _insert, _insert, _random_bytes),
    *(_other_field, _other_field, _other_lines, _other_ends),
)


def outcome(work: Callable[[], Any], refusals: tuple[type[Exception], ...] = ()) -> Outcome:
    """Do something within the limits of time and memory.

    Anything else than a value or a sentence is raised: it is the fault that is looked for.

    Args:
        work: what to do.
        refusals: errors that the caller of ``work`` turns into sentences.
    """
    with bounded(SECONDS, GIB):
        try:
            return Outcome(value=work())
        except (UserError, *refusals) as error:
            sentence = str(error)
    assert sentence and "\n" not in sentence and "Traceback" not in sentence, sentence[:500]
    assert len(sentence) < LONGEST_SENTENCE, sentence[:500]
    return Outcome(refused=sentence)
