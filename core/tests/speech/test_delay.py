"""Rows of codes with delays, against transformers' processor of Dia."""

import pytest
import torch

from bestiary.speech.delay import Pattern, Rows

PATTERNS = ((0, 8, 9, 10, 11, 12, 13, 14, 15), (0, 2, 1), (0,), (0, 0, 3))


def pattern(delays: tuple[int, ...]) -> Pattern:
    return Pattern(delays, bos=66, eos=64, pad=65)


def delayed(frames: torch.Tensor, delays: tuple[int, ...], revert: bool = False) -> torch.Tensor:
    """frames [T, Q] as transformers delays them, or brings them back."""
    from transformers.models.dia.processing_dia import DiaProcessor

    places = DiaProcessor.build_indices(
        bsz=1, seq_len=len(frames), num_channels=len(delays), delay_pattern=list(delays), revert=revert
    )
    return DiaProcessor.apply_audio_delay(frames[None], pad_token_id=65, bos_token_id=66, precomputed_idx=places)[0]


@pytest.mark.parametrize("delays", PATTERNS)
@pytest.mark.parametrize("known", [0, 1, 5, 30])
def test_what_is_known_before_stands(delays: tuple[int, ...], known: int) -> None:
    before = torch.randint(0, 64, (len(delays), known), generator=torch.Generator().manual_seed(known))
    rows = Rows(pattern(delays), 20, before if known else None)
    bos = torch.full((1, len(delays)), 66)
    pad = torch.full((max(delays), len(delays)), 65)
    due = delayed(torch.cat((bos, before.T, pad)), delays)
    assert torch.equal(rows.rows(0), due[: known + 1])
    while not rows.over:
        rows.put([7] * len(delays))
    made, forced = rows.rows(0)[: len(due)], due != 65
    assert torch.equal(made[forced], due[: len(made)][forced])
    assert bool((made[~forced] == 7).all())


@pytest.mark.parametrize("delays", PATTERNS)
@pytest.mark.parametrize("end", [None, 0, 1, 12])
def test_frames_are_rows_brought_back(delays: tuple[int, ...], end: int | None) -> None:
    """An end of the model's own after `end` frames, or one that is forced after 20."""
    generator = torch.Generator().manual_seed(1)
    rows = Rows(pattern(delays), 20)
    step, whole = 0, []
    while not rows.over:
        codes = torch.randint(0, 64, (len(delays),), generator=generator).tolist()
        rows.put([64 if step == end else codes[0], *codes[1:]])
        step += 1
        whole.append(rows.whole)
    count = 20 if end is None else end
    assert rows.whole == count and rows.finished == (end is not None)
    assert step == count + max(delays) + (not max(delays))  # nothing is written that is not needed
    assert whole == sorted(whole)
    due = delayed(rows.rows(0), delays, revert=True)[1 : count + 1]
    assert torch.equal(rows.frames(0, count).T, due)
    assert torch.equal(torch.cat([rows.frames(0, 0), rows.frames(0, count)], 1), rows.frames(0, count))


def test_the_end_follows_late_and_padding_follows_it() -> None:
    rows = Rows(pattern((0, 2, 1)), 20)
    for codes in ([1, 2, 3], [64, 2, 3], [5, 6, 7]):
        rows.put(codes)
    assert rows.rows(0).tolist() == [[66, 66, 66], [1, 66, 66], [64, 66, 3], [65, 6, 64]]


def test_only_the_first_end_counts() -> None:
    rows = Rows(pattern((0, 2)), 20)
    for codes in ([1, 2], [64, 2], [64, 2]):
        rows.put(codes)
    assert rows.over and rows.whole == 1
