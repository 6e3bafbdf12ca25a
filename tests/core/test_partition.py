"""``partition_format``, against a slow and simple implementation. Source: semantics section 6."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_aml_data.core.partition import PartitionFormat
from airflow_aml_data.errors import InvalidDeclaration

TIME = ("yyyy", "/", "MM", "-", "dd")


def test_g60_text_and_date_columns_from_a_path():
    partitions = PartitionFormat("/{Department}/{PartitionDate:yyyy/MM/dd}/data.csv")
    assert partitions.keys == ("Department", "PartitionDate")
    assert partitions.values("/Accounts/2019/01/01/data.csv") == {
        "Department": "Accounts",
        "PartitionDate": datetime(2019, 1, 1),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("abc", 'Invalid partition_format "abc". There must be at least one {column_name}'),
        ("{{a}}", 'Invalid partition_format "{{a}}". There must be at least one {column_name}'),
        ("{}", 'Invalid part "{}" in partition_format "{}". Column name is not specified.'),
        ("{:yyyy}", 'Invalid part "{:yyyy}" in partition_format "{:yyyy}". Column name is not specified.'),
        ("{a:}", 'Invalid part "{a:}" in partition_format "{a:}". Date format is not specified.'),
        ("{a:MM}", "Invalid partition_format \"{a:MM}\". Format 'yyyy' must be defined for datetime column."),
        (
            "{a:yyyy}{b:MM}",
            'Invalid part "{b:MM}" in partition_format "{a:yyyy}{b:MM}". There cannot be more than one date part.',
        ),
        ("{a}{", 'Invalid partition_format "{a}{". Brackets must is pair and cannot be nested'),
        ("a}", 'Invalid partition_format "a}". Brackets must is pair and cannot be nested'),
        ("{a{b}}", 'Invalid partition_format "{a{b}}". Brackets must is pair and cannot be nested'),
        ("{_sys_a}", 'Invalid part "{_sys_a}" in partition_format "{_sys_a}". The specified column name is reserved'),
        ("{a}/{a:yyyy}", 'Invalid part "{a}" in partition_format "{a}/{a:yyyy}". The column name is used twice'),
    ],
)
def test_g61_a_bad_format_is_an_error_when_it_is_declared(text, message):
    with pytest.raises(InvalidDeclaration) as error:
        PartitionFormat(text)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "path", "values"),
    [
        ("{a}.csv", "/x/y/b.csv", {"a": "b"}),
        ("/{a}/*/{b}.csv", "/1/2/3/4/5.csv", {"a": "1", "b": "5"}),
        ("/{a}/{a}/x", "/1/2/x", {"a": "1"}),
        ("/{a}/x.csv", "/1.2/x.csv", {"a": None}),
        ("/{a}/x.csv", "/1/x.csv.gz", {"a": None}),
        ("/{a}/x.csv", "/1/xxcsv", {"a": None}),
        ("/{{{a}}}/x", "/{1}/x", {"a": "1"}),
        ("/{d:yyyyMMdd}_{a}/x", "/20240229_b/x", {"a": "b", "d": datetime(2024, 2, 29)}),
        ("/{d:yyyyMMdd}_{a}/x", "/20230229_b/x", {"a": "b", "d": None}),
        ("/{d:yyyyMMdd}_{a}/x", "/2024229_b/x", {"a": None, "d": None}),
        ("/{d:yyyy/MM/dd/HH/mm/ss}/x", "/2024/01/02/03/04/05/x", {"d": datetime(2024, 1, 2, 3, 4, 5)}),
        ("/{d:yyyy}/x", "/\u0662\u0660\u0661\u0669/x", {"d": None}),
        ("/{land}/{when:yyyy}/x", "https://host/data/de/2020/x", {"land": "de", "when": datetime(2020, 1, 1)}),
        ("/{a}/x", "/1/x\n", {"a": None}),
    ],
)
def test_what_a_path_says(text, path, values):
    found = PartitionFormat(text).values(path)
    assert (found, list(found)) == (values, list(values))


def test_equal_formats_are_equal_and_show_their_text():
    assert PartitionFormat("{a}") == PartitionFormat("{a}") != PartitionFormat("{b}")
    assert len({PartitionFormat("{a}"), PartitionFormat("{a}")}) == 1
    assert repr(PartitionFormat("{a}")) == "PartitionFormat('{a}')"


tokens = st.lists(
    st.sampled_from(["a", "b"]).map(lambda name: ("key", name))
    | st.just(("star", ""))
    | st.text("xy/._{}1", min_size=1, max_size=3).map(lambda text: ("literal", text)),
    min_size=1,
    max_size=5,
)


def written(parts):
    escaped = {"key": "{{{}}}", "star": "*", "date": "{{when:{}}}"}
    return "".join(
        text.replace("{", "{{").replace("}", "}}") if kind == "literal" else escaped[kind].format(text)
        for kind, text in parts
    )


def reference(parts, path, seen):
    """Every way to match the whole of ``path``, the preferred one first: keys take much, stars little."""
    if not parts:
        if not path:
            yield seen
        return
    (kind, text), *rest = parts
    if kind == "literal":
        if path.startswith(text):
            yield from reference(rest, path[len(text) :], seen)
    elif kind == "star":
        for length in range(len(path) + 1):
            yield from reference(rest, path[length:], seen)
    elif kind == "key":
        for length in range(len(path), 0, -1):
            if not set("./\\") & set(path[:length]):
                yield from reference(rest, path[length:], {text: path[:length]} | seen)
    else:
        digits = path[:10]
        separators = (digits[4:5], digits[7:8])
        if separators == ("/", "-") and all(digits[at : at + 1].isdigit() for at in (0, 1, 2, 3, 5, 6, 8, 9)):
            yield from reference(rest, path[10:], {"when": digits} | seen)


@given(parts=tokens, dated=st.booleans(), data=st.data())
@example(parts=[("key", "a"), ("literal", "}"), ("key", "a")], dated=False, data=None)
def test_finds_what_the_reference_finds(parts, dated, data):
    if dated:
        parts = [*parts, ("date", "yyyy/MM-dd")]
    names = list(dict.fromkeys(text for kind, text in parts if kind == "key"))
    if not names and not dated:
        return
    filled = {
        "key": st.text("xy.1", min_size=1, max_size=2),
        "star": st.text("x/", max_size=2),
        "date": st.just("2024/13-01"),
    }
    path = "/x"
    for kind, text in parts if data else []:
        path += text if kind == "literal" else data.draw(filled[kind])
    ends = (found for start in range(len(path) + 1) for found in reference(parts, path[start:], {}))
    expected = next(ends, {})
    found = PartitionFormat(written(parts)).values(path)
    assert list(found) == names + ["when"] * dated
    assert {name: found[name] for name in names} == {name: expected.get(name) for name in names}
    assert found.get("when") is None  # the calendar has no month 13
