"""Clauses: what is spoken as one request, whatever the chunks of the stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.dialogue.clauses import CLAUSE_MAX_CHARS, ClauseSplitter, speakable


def split(text: str, size: int) -> list[str]:
    splitter = ClauseSplitter()
    clauses = []
    for start in range(0, len(text), size):
        clauses += splitter.feed(text[start : start + size])
    return clauses + splitter.flush()


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("Yes. No.", ["Yes.", "No."]),
        ("Sure, let me look. It is there.", ["Sure, let me look.", "It is there."]),
        ("We are open today, until five. Bye.", ["We are open today,", "until five.", "Bye."]),
        ("It costs 3.50 dollars. Fine?", ["It costs 3.50 dollars.", "Fine?"]),
        ("Dr. Smith and Mrs. Jones wait. Come in.", ["Dr. Smith and Mrs. Jones wait.", "Come in."]),
        ("Open 9 a.m. to 5 p.m. daily. Good.", ["Open 9 a.m. to 5 p.m. daily.", "Good."]),
        ("Mail joe.b@mail.co.uk now. Thanks.", ["Mail joe.b@mail.co.uk now.", "Thanks."]),
        ("1. Call us. 2. Wait.", ["1. Call us.", "2. Wait."]),
        ("**Bold** and _soft_ `code`.", ["Bold and soft code."]),
        ("See [our page](https://a.b/c). Ok.", ["See our page.", "Ok."]),
        ("<think>Hm. What?</think>Hello there.", ["Hello there."]),
        ("Look:\n- one\n- two\n", ["Look: one two"]),
        ("¿Qué día? ¡Muy bien! La Sra. Ruiz espera.", ["¿Qué día?", "¡Muy bien!", "La Sra. Ruiz espera."]),
        ("Great! 😀 See you.", ["Great!", "See you."]),
        ("Wait… what?", ["Wait…", "what?"]),
        ("```py\nprint(1)\n```Done.", ["Done."]),
        ("   ", []),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_clauses(text: str, clauses: list[str], size: int) -> None:
    got = split(text, size)
    assert got == clauses
    assert " ".join(got) == speakable(text)


def test_first_clause_comes_before_the_stream_ends() -> None:
    splitter = ClauseSplitter()
    assert splitter.feed("We can certainly do that, ") == ["We can certainly do that,"]


def test_endless_sentence_is_cut_at_a_pause() -> None:
    clauses = split("and then " * 200, 7)
    assert len(clauses) > 5
    assert all(len(clause) <= CLAUSE_MAX_CHARS + 20 for clause in clauses)


PIECES = st.sampled_from(
    [
        "word ",
        "two words. ",
        "3.14 ",
        "Dr. ",
        "a.m. ",
        "**bold** ",
        "[x](y) ",
        "😀 ",
        "end! ",
        "so, ",
        "\n",
        "\n- item ",
        "<think>no</think>",
        "`c` ",
        "1. ",
        "(really?) ",
        "… ",
        "¿qué? ",
        "[",
        "] ",
        "* ",
        "_ ",
        "e.g. this; ",
    ]
)


@given(st.lists(PIECES, max_size=30), st.integers(1, 12))
def test_any_chunking_says_the_same(pieces: list[str], size: int) -> None:
    text = "".join(pieces)
    assert " ".join(split(text, size)) == speakable(text)
