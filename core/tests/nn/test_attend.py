"""Attention: plain softmax attention in float64 numpy, written from the papers' formulas, is the reference."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bestiary.generation.cache import FlatLayer, LayerCache
from bestiary.nn import AttentionSpec
from bestiary.nn.attend import attend

TOLERANCE = {"rtol": 0.0, "atol": 2e-6}  # float32 sums of values of size one


def reference(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, spec: AttentionSpec, sinks: np.ndarray | None = None
) -> np.ndarray:
    """softmax(q k' scale) v, one query and one head at a time; a sink (gpt-oss) adds exp(sink) to the denominator."""
    heads, new, _ = q.shape
    seen = k.shape[1]
    y = np.zeros((heads, new, v.shape[2]))
    for head in range(heads):
        group = head // (heads // k.shape[0])
        for query in range(new):
            position = seen - new + query
            first = 0 if spec.window is None else max(0, position - spec.window + 1)
            scores = k[group, first : position + 1] @ q[head, query] * spec.scale
            if spec.softcap is not None:
                scores = spec.softcap * np.tanh(scores / spec.softcap)
            weights = np.exp(scores)
            total = weights.sum() + (0.0 if sinks is None else np.exp(sinks[head]))
            y[head, query] = weights / total @ v[group, first : position + 1]
    return y


def check(heads: int, kv_heads: int, dim: int, new: int, seen: int, sinks: bool = False, **spec: Any) -> None:
    random = np.random.default_rng(heads + 10 * dim + 100 * new + 1000 * seen)
    q = random.standard_normal((heads, new, dim), dtype=np.float32)
    k, v = random.standard_normal((2, kv_heads, seen, dim), dtype=np.float32)
    sink = random.standard_normal(heads, dtype=np.float32) if sinks else None
    made = AttentionSpec(heads, kv_heads, dim, **{"scale": dim**-0.5, **spec})
    expected = reference(
        q.astype(np.float64),
        k.astype(np.float64),
        v.astype(np.float64),
        made,
        None if sink is None else sink.astype(float),
    )
    ours = attend(*map(torch.from_numpy, (q, k, v)), made, None if sink is None else torch.from_numpy(sink))
    assert ours.shape == (heads, new, dim) and ours.dtype == torch.float32
    np.testing.assert_allclose(ours.numpy(), expected, **TOLERANCE)


KINDS: list[dict[str, Any]] = [{}, {"softcap": 1.5}, {"sinks": True}, {"softcap": 1.5, "sinks": True}]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("heads, kv_heads", [(1, 1), (4, 4), (4, 2), (6, 2), (5, 1)])
@pytest.mark.parametrize("new, seen", [(1, 1), (1, 7), (7, 7), (3, 7), (6, 7)])
def test_heads_share_keys_by_groups(heads: int, kv_heads: int, new: int, seen: int, kind: dict[str, Any]) -> None:
    check(heads, kv_heads, 8, new, seen, **kind)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("window", range(1, 11))
@pytest.mark.parametrize("new", [1, 2, 5, 8])
def test_a_query_sees_itself_and_the_window_before_it(window: int, new: int, kind: dict[str, Any]) -> None:
    check(4, 2, 8, new, 8, window=window, **kind)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("scale", [1.0, 0.0, 0.1, 256**-0.5])
def test_scores_are_scaled_by_what_the_layer_says(scale: float, kind: dict[str, Any]) -> None:
    check(4, 2, 8, 5, 9, scale=scale, **kind)


@settings(max_examples=60, deadline=None)
@given(
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    dim=st.sampled_from([1, 2, 5, 16]),
    new=st.integers(1, 12),
    before=st.integers(0, 12),
    window=st.none() | st.integers(1, 26),
    softcap=st.none() | st.sampled_from([0.5, 50.0]),
    sinks=st.booleans(),
)
def test_any_shape(kv_heads: int, group: int, dim: int, new: int, before: int, **spec: Any) -> None:
    check(kv_heads * group, kv_heads, dim, new, new + before, **spec)


def test_a_sink_takes_probability_and_gives_nothing() -> None:
    q, k = torch.zeros(1, 1, 4), torch.zeros(1, 3, 4)
    spec = AttentionSpec(1, 1, 4, 0.5)
    assert attend(q, k, torch.ones(1, 3, 4), spec, torch.zeros(1))[0, 0, 0] == pytest.approx(3 / 4)
    assert attend(q, k, torch.ones(1, 3, 4), spec, torch.full((1,), -1e4))[0, 0, 0] == pytest.approx(1)
    assert attend(q, k, torch.ones(1, 3, 4), spec, torch.full((1,), 1e4))[0, 0, 0] == pytest.approx(0)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_scores_too_large_for_an_exponential_are_no_trouble(kind: dict[str, Any]) -> None:
    kind = dict(kind)
    sinks = torch.zeros(2) if kind.pop("sinks", False) else None
    q = k = torch.full((2, 3, 4), 100.0)
    y = attend(q, k, torch.ones(2, 3, 4), AttentionSpec(2, 2, 4, 1.0, **kind), sinks)
    assert torch.isfinite(y).all() and torch.all(y <= 1.0 + 1e-6)
    if sinks is None or not kind:
        torch.testing.assert_close(y, torch.ones(2, 3, 4))


# With a cache


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("window", [None, 1, 7, 64, 65, 100])
def test_chunks_give_what_the_whole_gives(window: int | None, kind: dict[str, Any]) -> None:
    """Across the growth of the cache, which holds 64 tokens at first."""
    kind = dict(kind)
    sinks = torch.tensor([0.3, -1.0]) if kind.pop("sinks", False) else None
    spec = AttentionSpec(2, 1, 8, 0.35, window, **kind)
    random = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(150, 2, 8, generator=random), *torch.randn(2, 150, 1, 8, generator=random)
    whole = FlatLayer([LayerCache()], [150]).attend(q, k, v, spec, sinks)
    cache, parts, start = LayerCache(), [], 0
    for count in (1, 62, 1, 1, 1, 34, 50):
        part = slice(start, start + count)
        parts.append(FlatLayer([cache], [count]).attend(q[part], k[part], v[part], spec, sinks))
        start += count
    assert cache.length == 150
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=2e-6)


def test_sequences_of_a_batch_do_not_see_each_other() -> None:
    spec = AttentionSpec(2, 1, 8, 0.35)
    random = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(9, 2, 8, generator=random), *torch.randn(2, 9, 1, 8, generator=random)
    counts = [4, 1, 4]
    together = FlatLayer([LayerCache() for _ in counts], counts).attend(q, k, v, spec).split(counts)
    for y, *parts in zip(together, *(tensor.split(counts) for tensor in (q, k, v)), strict=True):
        alone = FlatLayer([LayerCache()], [len(y)]).attend(*parts, spec)
        assert torch.equal(y, alone)


def test_what_was_remembered_stays_when_the_cache_grows() -> None:
    cache, random = LayerCache(), torch.Generator().manual_seed(0)
    k, v = torch.randn(2, 3, 200, 4, generator=random)
    for start in range(0, 200, 9):
        part = slice(start, start + 9)
        keys, values = cache.extend(k[:, part], v[:, part])
        assert torch.equal(keys, k[:, : start + 9]) and torch.equal(values, v[:, : start + 9])


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize(("new", "seen"), [(9, 9), (5, 12), (12, 12)])
def test_a_run_sees_all_of_itself(window: int | None, new: int, seen: int) -> None:
    """Within the window: what transformers makes of the token types of Gemma 3, as one mask."""
    runs = [(seen - 4, seen - 1), (seen - 11, seen - 6)]
    random = np.random.default_rng(new + seen)
    q, k, v = (random.standard_normal((heads, count, 8)) for heads, count in ((4, new), (2, seen), (2, seen)))
    queries, keys = np.arange(seen - new, seen)[:, None], np.arange(seen)
    mask = keys <= queries
    for first, end in runs:
        mask |= (queries >= first) & (queries < end) & (keys >= first) & (keys < end)
    mask &= queries - keys < (window or seen)
    scores = np.einsum("htd,hsd->hts", q, k.repeat(2, 0)) * 0.3
    weights = np.where(mask, np.exp(scores), 0.0)
    due = np.einsum("hts,hsd->htd", weights / weights.sum(-1, keepdims=True), v.repeat(2, 0))
    spec = AttentionSpec(4, 2, 8, 0.3, window)
    for sinks, softcap in ((None, None), (None, 1e6)):  # by the library's attention, and by hand
        made = attend(*(torch.from_numpy(x).float() for x in (q, k, v)), replace(spec, softcap=softcap), sinks, runs)
        np.testing.assert_allclose(made.numpy(), due, **TOLERANCE)
