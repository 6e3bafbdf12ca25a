"""Many small things at a time."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from airflow_aml_data.core.storage.batches import in_batches


@given(
    st.lists(st.integers(min_value=0, max_value=50)),
    st.integers(min_value=1, max_value=5),
    st.integers(min_value=0, max_value=60),
)
def test_everything_comes_once_in_order_and_no_batch_is_too_large(sizes, most, most_bytes):
    items = list(enumerate(sizes))
    batches = list(in_batches(items, lambda each: each[1], most, most_bytes))
    assert [each for batch in batches for each in batch] == items
    for batch in batches:
        total = sum(size for _, size in batch)
        assert 1 <= len(batch) <= most
        assert total <= most_bytes or len(batch) == 1
    for before, after in pairwise(batches):
        fits = sum(size for _, size in before) + after[0][1] <= most_bytes
        assert len(before) == most or not fits, "the next one would have fitted"
