"""Segment files: what was written comes back, a cut at any byte loses only what was not whole, damage is noticed."""

from __future__ import annotations

import random
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.store.fact import CallEnded, FactError, SegmentFact, TurnFact, decode, encode
from server.store.segment import (
    HEADER_BYTES,
    RECORD_MAX_BYTES,
    SegmentError,
    SegmentWriter,
    frame,
    header,
    read_boot,
    records,
)
from tests.store.facts import segment, whole_call

BOOT = UUID(int=0x1234)


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_records_come_back(payloads: list[bytes]) -> None:
    data = header(BOOT) + b"".join(frame(n, payload) for n, payload in enumerate(payloads, 1))
    assert read_boot(data) == BOOT
    found = list(records(data))
    assert [(r.seq, r.payload) for r in found] == list(enumerate(payloads, 1))
    assert not found or found[-1].end == len(data)


def test_a_cut_at_every_byte_loses_only_the_cut_record() -> None:
    payloads = [bytes([n]) * (n * 7 % 40) for n in range(40)]
    data = header(BOOT)
    ends = []
    for n, payload in enumerate(payloads, 1):
        data += frame(n, payload)
        ends.append(len(data))
    for cut in range(HEADER_BYTES, len(data) + 1):
        whole = sum(end <= cut for end in ends)
        assert [r.seq for r in records(data[:cut])] == list(range(1, whole + 1))
    for cut in range(HEADER_BYTES):
        with pytest.raises(SegmentError):
            read_boot(data[:cut])


def test_no_flipped_bit_invents_a_record() -> None:
    chance = random.Random(7)
    payloads = {n: chance.randbytes(50) for n in range(1, 21)}
    data = header(BOOT) + b"".join(frame(n, payload) for n, payload in payloads.items())
    for _ in range(1000):
        bit = chance.randrange(HEADER_BYTES * 8, len(data) * 8)
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        found = list(records(bytes(damaged)))
        assert len(found) < 20
        assert all(payloads[r.seq] == r.payload for r in found)
        first_damaged = (bit // 8 - HEADER_BYTES) // len(frame(1, payloads[1]))
        assert len(found) == first_damaged


def test_a_record_has_a_bound() -> None:
    with pytest.raises(ValueError, match="payload"):
        frame(1, bytes(RECORD_MAX_BYTES + 1))


def test_the_writer_makes_what_the_reader_reads(tmp_path: Path) -> None:
    boot = uuid4()
    writer = SegmentWriter(tmp_path, boot, 3)
    writer.commit(frame(1, b"a") + frame(2, b"b"))
    writer.commit(frame(3, b"c"))
    writer.close()
    assert writer.path.stat().st_mode & 0o777 == 0o600
    data = writer.path.read_bytes()
    assert len(data) == writer.size_bytes and [r.payload for r in records(data)] == [b"a", b"b", b"c"]
    with pytest.raises(FileExistsError):
        SegmentWriter(tmp_path, boot, 3)


def test_facts_come_back() -> None:
    _, facts = whole_call(str(uuid4()))
    assert [decode(encode(fact)) for fact in facts] == facts


def test_an_older_record_gets_defaults_and_an_unknown_field_is_left_out() -> None:
    assert decode(b'{"fact":"turn","call_id":"x","turn_no":1,"later":2}') == TurnFact(call_id="x", turn_no=1)


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b"1", b'{"fact":"pigeon"}', b'{"fact":"turn"}', b"\xff"])
def test_what_is_no_fact_is_refused(record: bytes) -> None:
    with pytest.raises(FactError):
        decode(record)


def test_a_lone_surrogate_costs_one_character() -> None:
    back = decode(encode(segment(1, text="a\ud800b")))
    assert isinstance(back, SegmentFact) and back.text == "a?b"


def test_encode_refuses_what_json_cannot_hold() -> None:
    with pytest.raises(TypeError):
        encode(CallEnded(call_id="x", reason="r", duration_ms=1, at=0.0, counters={"x": object()}))  # type: ignore[dict-item]
