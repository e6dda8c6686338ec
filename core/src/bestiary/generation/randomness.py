"""Random numbers that depend on a seed, a place and a token alone, never on what was drawn before or beside them.

Counter-based (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), so that an answer is the same alone
and in a batch, and whether it was interrupted, forked or drafted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch

from bestiary.generation.history import Integers

_Words = TypeVar("_Words", Integers, torch.Tensor)

UNIT = 2.0**-52
"""The number of a token, in (0, 1), is what `drawn` gives and a half, times this: exact in float64."""

# SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators").
_STEP, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def key(seed: int, place: int) -> int:
    """What the request with this seed makes its choice number `place`, from 0, by: a signed integer of 64 bits.

    `seed` as in `Sampling`.
    """
    return _hashed(seed, place, b"key")


def derived(seed: int, index: int) -> int:
    """The seed of the answer number `index` of several to one prompt; the first one's is the seed itself."""
    return _hashed(seed, index, b"derived") if index else seed


def drawn(keys: _Words, tokens: _Words) -> _Words:
    """For each token by each key, which broadcast, in int64: an integer of 52 bits.

    Four tokens share a word of SplitMix64, of which each has 16 bits, so that low numbers are found by a look at every
    fourth word; the other 36 bits are the upper ones of a word of the token's own.
    """
    shared = _right(_word(keys, ~(tokens >> 2)) >> ((tokens & 3) << 4) << 48, 12)
    return shared | _right(_word(keys, tokens), 28)


def drawn_below(keys: Sequence[int], limits: Sequence[float], vocabulary: int) -> list[Integers]:
    """For each key the tokens, in rising order, whose number is below its limit; a few just above may be among them."""
    # Of `drawn` the steps for the shared words, in place.
    steps = np.arange(-(-vocabulary // 4), dtype="<u8") * np.uint64(2**64 - _STEP)
    state, shifted = np.empty_like(steps), np.empty_like(steps)
    found = []
    for given, limit in zip(keys, limits, strict=True):
        if not limit > 0.0:
            found.append(np.empty(0, np.int64))
            continue
        np.add(steps, np.uint64(given % 2**64), out=state)
        for shift, factor in ((30, _FIRST), (27, _SECOND), (31, 1)):
            np.bitwise_xor(state, np.right_shift(state, np.uint64(shift), out=shifted), out=state)
            if factor > 1:
                np.multiply(state, np.uint64(factor), out=state)
        bound = np.uint16(min(int(min(limit, 1.0) * 2**16), 2**16 - 1))
        found.append(np.flatnonzero(state.view("<u2")[:vocabulary] <= bound))
    return found


def _word(keys: _Words, places: _Words) -> _Words:
    """Of the words that SplitMix64 gives once it is started with a key, the one at a place, from 0; before it at -1."""
    state = keys + (places + 1) * _signed(_STEP)
    state = (state ^ _right(state, 30)) * _signed(_FIRST)
    state = (state ^ _right(state, 27)) * _signed(_SECOND)
    return state ^ _right(state, 31)


def _hashed(seed: int, place: int, purpose: bytes) -> int:
    """64 bits of BLAKE2b (RFC 7693)."""
    text = seed.to_bytes(8, "little", signed=True) + place.to_bytes(8, "little")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8, person=purpose).digest(), "little", signed=True)


def _right(words: _Words, bits: int) -> _Words:
    """Zeros come in from the left, where >> repeats the sign."""
    return (words >> bits) & (1 << 64 - bits) - 1


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
