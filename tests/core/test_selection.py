"""Samples and splits: semantics section 7, golden cases G51 to G56."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_aml_data.core.selection import Selection, StreamSelector, select
from airflow_aml_data.errors import InvalidDeclaration

seeds = st.one_of(st.integers(), st.sampled_from([0, -1, 2**64, -(2**200), 10**5000]))
probabilities = st.floats(0.0, 1.0)
streams = st.integers(0, 2**40)
counts = st.integers(0, 400)


def in_parts(selector: StreamSelector, sizes: list[int]) -> list[bool]:
    return [bool(kept) for size in sizes for kept in selector.mask(size)]


@given(seeds, probabilities, streams, counts)
def test_the_two_parts_of_a_split_are_disjoint_and_together_complete(seed, probability, stream, count):
    part = Selection(probability=probability, seed=seed).mask(count, stream=stream)
    rest = Selection(probability=probability, seed=seed, complement=True).mask(count, stream=stream)

    assert (part ^ rest).all()
    assert len(part) == len(rest) == count


@given(seeds, probabilities, probabilities, streams, counts)
def test_a_smaller_sample_lies_inside_a_larger_one(seed, one, other, stream, count):
    small = Selection(probability=min(one, other), seed=seed).mask(count, stream=stream)
    large = Selection(probability=max(one, other), seed=seed).mask(count, stream=stream)

    assert (large | ~small).all()


@given(seeds, probabilities, st.booleans(), streams, st.lists(st.integers(0, 50), max_size=8))
def test_any_cutting_of_a_stream_gives_the_same_decisions(seed, probability, complement, stream, sizes):
    selection = Selection(probability=probability, seed=seed, complement=complement)
    starts = np.cumsum([0, *sizes])

    parts = [selection.mask(size, stream=stream, start=int(start)) for start, size in zip(starts, sizes, strict=False)]

    assert list(np.concatenate([*parts, []])) == list(selection.mask(sum(sizes), stream=stream))


@given(
    st.lists(st.tuples(st.floats(0.2, 1.0), st.integers(0, 3), st.booleans()), max_size=4),
    st.lists(st.integers(0, 50), max_size=8),
)
def test_a_chain_decides_the_same_in_any_batches(chain, sizes):
    selections = [Selection(probability=p, seed=s, complement=c) for p, s, c in chain]

    whole = StreamSelector(selections, stream=2).mask(sum(sizes))

    assert in_parts(StreamSelector(selections, stream=2), sizes) == list(whole)


@given(st.lists(st.tuples(probabilities, seeds), max_size=3), st.integers(0, 100))
def test_a_chain_is_one_selection_after_the_other(chain, count):
    """Section 7: the position counts among the records reaching the step."""
    selections = [Selection(probability=p, seed=s) for p, s in chain]
    left = list(range(count))

    for selection in selections:
        mask = selection.mask(len(left), stream=0)
        left = [item for item, kept in zip(left, mask, strict=True) if kept]

    assert select(range(count), selections) == left
    assert left == sorted(set(left))


def test_a_chain_with_one_seed_is_not_all_or_nothing():
    """Section 7: 1000 -> 106 -> 88/18; one decision per record for both steps would give 100/0."""
    sample = Selection(probability=0.1, seed=7)

    part = select(range(10_000), [sample, Selection(probability=0.8, seed=7)])
    rest = select(range(10_000), [sample, Selection(probability=0.8, seed=7, complement=True)])

    assert sorted(part + rest) == select(range(10_000), [sample])
    assert 0.75 < len(part) / len(part + rest) < 0.85


@pytest.mark.parametrize(("probability", "kept"), [(0.0, 0), (1.0, 50_000), (0, 0), (1, 50_000)])
def test_none_and_all_are_exact(probability, kept):
    assert Selection(probability=probability, seed=1).mask(50_000, stream=0).sum() == kept


@pytest.mark.parametrize("seed", [0, 1, 42, -1, 2**70])
def test_sizes_are_about_right(seed):
    """G51: about 800 of 1000."""
    kept = Selection(probability=0.8, seed=seed).mask(100_000, stream=0).mean()

    assert kept == pytest.approx(0.8, abs=0.006)


def test_seeds_and_streams_have_decisions_of_their_own():
    masks = {
        Selection(probability=0.5, seed=seed).mask(64, stream=stream).tobytes()
        for seed in (0, 1, -1, 16, 2**64, 2**64 + 1)
        for stream in (0, 1, 16, 17)
    }

    assert len(masks) == 24


# What was kept once has to be kept for ever: never change these to make the tests pass.
PINNED = [
    (0.5, 0, 0, 0),
    (0.5, 42, 0, 0),
    (0.8, 42, 3, 1_000_003),
    (0.25, -5, 1, 0),
    (0.5, 2**100, 0, 0),
]
KEPT = [
    ".x..xx...xx...xxx...x..x...x..xx",
    "..xxx.xxx.xx.x..xxxxxxx....xx...",
    "xxxx.xxxxxxxxxxxx..xxxx.xxxxxxxx",
    "xx........x..x.xx.x.x...........",
    "x....x...x..xx.x..x.xxxxx.xx.x.x",
]


def written(probability: float, seed: int, stream: int, start: int) -> str:
    mask = Selection(probability=probability, seed=seed).mask(32, stream=stream, start=start)
    return "".join("x" if kept else "." for kept in mask)


@pytest.mark.parametrize(("case", "kept"), list(zip(PINNED, KEPT, strict=True)))
def test_decisions_never_change(case, kept):
    assert written(*case) == kept


@pytest.mark.slow
def test_another_process_decides_the_same():
    """G52: the same call again, in another process or on another worker."""
    program = (
        "from airflow_aml_data.core.selection import Selection\n"
        f"for p, seed, stream, start in {PINNED!r}:\n"
        "    mask = Selection(probability=p, seed=seed).mask(32, stream=stream, start=start)\n"
        "    print(''.join('x' if kept else '.' for kept in mask))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split() == KEPT


def test_declaring_a_selection_does_not_import_numpy():
    program = (
        "import sys; from airflow_aml_data.core.selection import Selection; "
        "Selection(probability=0.5, seed=1); print('numpy' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan"), float("inf"), True, "0.5", None])
def test_a_probability_outside_0_to_1_is_refused(probability):
    """G54, G55."""
    with pytest.raises(InvalidDeclaration, match=r"between 0\.0 and 1\.0"):
        Selection(probability=probability, seed=1)


@pytest.mark.parametrize("seed", [1.0, "1", None, True])
def test_a_seed_that_is_no_int_is_refused(seed):
    """Section 7: seed must be an int."""
    with pytest.raises(InvalidDeclaration, match="seed must be an int"):
        Selection(probability=0.5, seed=seed)


def test_selecting_from_a_list_keeps_its_order():
    """G56: the union of both parts is the file list."""
    files = ["b.jpg", "a.jpg", "d.jpg", "c.jpg", "a.jpg"]

    part = select(files, [Selection(probability=0.5, seed=42)])
    rest = select(files, [Selection(probability=0.5, seed=42, complement=True)])

    assert sorted(part + rest) == sorted(files)
    assert select(files, []) == files
