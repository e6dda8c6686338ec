"""Random numbers that depend on a seed and a place alone, never on what was drawn before or beside them."""

from __future__ import annotations

import hashlib


def uniform(seed: int, place: int) -> float:
    """The number in [0, 1) by which the request with this seed makes its choice number `place`, from 0.

    Counter-based (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), so that an answer is the same
    alone and in a batch, and whether it was interrupted, forked or drafted.  `seed` as in `Sampling`.
    """
    return (_hashed(seed, place, b"uniform") >> 11) * 2.0**-53  # a float64 has 53 bits


def derived(seed: int, index: int) -> int:
    """The seed of the answer number `index` of several to one prompt; the first one's is the seed itself."""
    if index == 0:
        return seed
    made = _hashed(seed, index, b"derived")
    return made - (1 << 64) if made >= 1 << 63 else made


def _hashed(seed: int, place: int, purpose: bytes) -> int:
    """64 bits of BLAKE2b (RFC 7693)."""
    key = seed.to_bytes(8, "little", signed=True) + place.to_bytes(8, "little")
    return int.from_bytes(hashlib.blake2b(key, digest_size=8, person=purpose).digest(), "little")
