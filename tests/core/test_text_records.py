"""Where records end: what Python's csv module says, in the fast way and in the exact one."""

from __future__ import annotations

import csv
from io import StringIO

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_aml_data.core.tabular.records import OpenQuote, _exact_ends, record_ends

nasty = st.text('ab,"\n\r', max_size=30)


def spans(text: bytes, ends) -> list[bytes]:
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def csv_records(text: str) -> list[list[str]]:
    return [record for record in csv.reader(StringIO(text, newline="")) if record]


def is_closed(text: str) -> bool:
    """Whether no quote is open at the end: a further line is a record of its own."""
    return next(reversed(list(csv.reader(StringIO(text + "\nend", newline=""))))) == ["end"]


@given(nasty)
@example('a"b,"c\nd"\n')
@example('"a""b"\r\n"c"d"\n')
@example(' "a\nb"\n')
@settings(deadline=None, max_examples=500)
def test_records_end_where_the_csv_module_ends_them(text):
    data = text.encode()
    if not is_closed(text):
        with pytest.raises(OpenQuote):
            record_ends(data, b",", last=True)
        return

    ends = record_ends(data, b",", last=True)

    records = [csv_records(each.decode()) for each in spans(data, ends)]
    assert b"".join(spans(data, ends)) == data
    assert all(len(each) <= 1 for each in records)
    assert [record for each in records for record in each] == csv_records(text)


@given(nasty, st.integers(0, 30))
@settings(deadline=None, max_examples=300)
def test_what_follows_does_not_move_the_ends_of_whole_records(text, cut):
    data = text.encode()
    if not is_closed(text):
        return

    first = record_ends(data[:cut], b",", last=False)
    start = int(first[-1]) if len(first) else 0
    rest = record_ends(data[start:], b",", last=True)

    assert [*first, *(start + rest)] == list(record_ends(data, b",", last=True))


@given(st.text('ab,"\n\r', max_size=12))
@settings(deadline=None, max_examples=300)
def test_the_fast_way_is_the_exact_way(text):
    data = text.encode()
    if is_closed(text):
        assert list(_exact_ends(data, b",", True)) == list(record_ends(data, b",", last=True))


def test_an_open_quote_is_found_at_its_record():
    with pytest.raises(OpenQuote) as found:
        record_ends(b'a,b\n1,"x\n2,y\n', b",", last=True)

    assert found.value.start == 4


def test_a_separator_may_have_several_bytes():
    text = '"a\n"§b"c\nd\n'.encode()

    assert spans(text, record_ends(text, "§".encode(), last=True)) == ['"a\n"§b"c\n'.encode(), b"d\n"]
