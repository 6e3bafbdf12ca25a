"""v1's globs, against a slow and simple implementation."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_aml_data.core.globs import compile_glob, is_glob, literal_folder, stripped_folder


def reference(pattern: list[str], path: list[str]) -> bool:
    """Folder by folder, character by character."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        return len(pattern) > 1 and any(reference(pattern[1:], path[i:]) for i in range(len(path)))
    return bool(path) and one(pattern[0], path[0]) and reference(pattern[1:], path[1:])


def one(pattern: str, name: str) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(one(pattern[1:], name[i:]) for i in range(len(name) + 1))
    end = pattern.find("]", 3 if pattern[1:2] == "!" else 2) if pattern[0] == "[" else -1
    if end < 0:
        return bool(name) and pattern[0] in ("?", name[0]) and one(pattern[1:], name[1:])
    inner = pattern[1:end]
    wanted = not inner.startswith("!")
    inner, allowed = inner.removeprefix("!"), ""
    while inner:
        if inner[1:2] == "-" and inner[2:]:
            allowed += "".join(map(chr, range(ord(inner[0]), ord(inner[2]) + 1)))
            inner = inner[3:]
        else:
            allowed += inner[0]
            inner = inner[1:]
    return bool(name) and (name[0] in allowed) is wanted and one(pattern[end + 1 :], name[1:])


@settings(max_examples=600, deadline=None)
@given(
    pattern=st.lists(st.text("ab.*?[]!-^\\\n", min_size=1, max_size=6) | st.just("**"), min_size=1, max_size=4),
    path=st.lists(st.text("ab.-]^[*!\\\n", min_size=1, max_size=5), min_size=1, max_size=4),
)
@example(["[*]"], ["*"])
@example(["[*]"], ["[x]"])
@example(["a[!b]c"], ["a", "c"])
@example(["a[+-9]c"], ["a", "c"])
@example(["[z-a]"], ["z"])
@example(["**", "*.jpg"], [".hidden", "x.jpg"])
def test_matches_what_the_reference_matches(pattern, path):
    pattern = [each if each == "**" else each.replace("**", "*") for each in pattern]
    found = compile_glob("/".join(pattern)).fullmatch("/".join(path)) is not None
    assert found == reference(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "matches", "does_not"),
    [
        ("cat/*.jpg", ["cat/1.jpg", "cat/.x.jpg"], ["cat/UP.JPG", "cat/sub/1.jpg", "1.jpg", "acat/1.jpg"]),
        ("*/*.jpg", ["cat/1.jpg", ".d/1.jpg"], ["1.jpg", "a/b/1.jpg"]),
        ("**/*.jpg", ["1.jpg", "a/1.jpg", "a/b/c/1.jpg"], ["1.jpgx"]),
        ("**", [], ["a", "a/b"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab", "a/xb"]),
        ("?.jpg", ["1.jpg"], ["12.jpg", "/.jpg"]),
        ("[12].jpg", ["1.jpg", "2.jpg"], ["3.jpg"]),
        ("{1,2}.jpg", ["{1,2}.jpg"], ["1.jpg"]),
    ],
)
def test_v1_table(pattern, matches, does_not):
    """Semantics section 4, G57."""
    compiled = compile_glob(pattern)
    assert [each for each in matches + does_not if compiled.fullmatch(each)] == matches


@given(st.text("ab/*?["))
def test_the_literal_folder_holds_every_match(pattern):
    folder = literal_folder(pattern)
    assert not is_glob(folder)
    assert pattern.startswith(folder)


@pytest.mark.parametrize(
    ("pattern", "folder"),
    [
        ("animals/cat/*.jpg", "animals/cat"),
        ("animals/**/1.jpg", "animals"),
        ("animals/*/1.jpg", "animals"),
        ("*.jpg", ""),
        ("animals/?.jpg", ""),
        ("animals/[12].jpg", ""),
        ("animals/d?g/*.jpg", ""),
        ("animals/a?*.jpg", "animals"),
    ],
)
def test_what_is_left_out_of_the_paths_of_one_glob(pattern, folder):
    """Semantics section 4: up to the last ``/`` before the first ``*``; without one, absolute paths come back."""
    assert stripped_folder(pattern) == folder


def test_no_name_makes_a_glob_try_for_ever():
    """Each star takes the first place that will do; going back over all of them would take 250**20 tries."""
    assert compile_glob("*a" * 20 + "*b").fullmatch("a" * 250) is None
    assert compile_glob("**/" * 20 + "*b").fullmatch("a/" * 100 + "a") is None
