"""The codec against transformers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from bestiary.errors import MediaError, OptionError, RequestError
from bestiary_dac import convolution
from bestiary_dac import model as network
from bestiary_dac.tiny import CONFIGS, FOUR, ODD, ONE, TWO, codec

Make = Callable[..., Any]


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.3


def some_codes(values: dict[str, Any], batch: int, frames: int) -> torch.Tensor:
    shape, generator = (batch, values["n_codebooks"], frames), torch.Generator().manual_seed(2)
    return torch.randint(values["codebook_size"], shape, generator=generator)


def close(given: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Within 1e-5 of the largest value."""
    assert given.shape == expected.shape
    atol = tolerance * float(expected.abs().max())
    torch.testing.assert_close(given, expected, rtol=0.0, atol=atol)


def decoded(model: Any, codes: torch.Tensor) -> torch.Tensor:
    """transformers' samples [B, 1, N]."""
    with torch.no_grad():
        samples: torch.Tensor = model.decode(audio_codes=codes).audio_values
    return samples.view(len(codes), 1, -1)


@pytest.fixture(params=[2, 128], ids=["pieces", "whole"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short sounds are one piece and one strip, and small weights are arranged for them; here also otherwise."""
    monkeypatch.setattr(network, "_FRAMES", request.param)
    if request.param == 2:
        monkeypatch.setattr(network, "_ROWS", 144)
        monkeypatch.setattr(network, "_STRIP", 1)
        monkeypatch.setattr(convolution, "_WIDE", 1)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("values", CONFIGS)
@pytest.mark.parametrize(("batch", "frames"), [(2, 5), (1, 1)])
def test_codes_are_those_of_transformers(
    values: dict[str, Any], batch: int, frames: int, reference: Make, ours: Make
) -> None:
    model = reference(values)
    made = ours(values, model)
    samples = noise(batch, 1, frames * made.hop_length)
    with torch.no_grad():
        expected = model.encode(samples).audio_codes
    codes = made.encode(samples)
    assert codes.dtype == torch.int64
    assert torch.equal(codes, expected)
    assert torch.equal(made.encode(samples, codebooks=1), expected[:, :1])


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("values", CONFIGS)
@pytest.mark.parametrize(("batch", "frames"), [(2, 5), (1, 1)])
def test_samples_are_those_of_transformers(
    values: dict[str, Any], batch: int, frames: int, reference: Make, ours: Make
) -> None:
    model = reference(values)
    made, codes = ours(values, model), some_codes(values, batch, frames)
    samples = made.decode(codes)
    assert samples.dtype == torch.float32
    assert samples.shape == (batch, 1, made.samples(frames))
    close(samples, decoded(model, codes))


def test_codes_are_no_single_one(reference: Make, ours: Make) -> None:
    made = ours(FOUR, reference(FOUR))
    assert len(made.encode(noise(1, 1, 7 * 512)).unique()) > 20


@pytest.mark.parametrize("values", [FOUR, ODD])
def test_fewer_codebooks_are_decoded(values: dict[str, Any], reference: Make, ours: Make) -> None:
    model = reference(values)
    codes = some_codes(values, 1, 5)[:, :2]
    close(ours(values, model).decode(codes), decoded(model, codes))


def test_sound_that_ends_within_a_frame_is_followed_by_silence(reference: Make, ours: Make) -> None:
    made = ours(TWO, reference(TWO))
    samples = noise(1, 1, 6 * 5 - 2)
    padded = torch.cat((samples, torch.zeros(1, 1, 2)), 2)
    assert torch.equal(made.encode(samples), made.encode(padded))
    assert made.encode(samples[:, :, :1]).shape == (1, 3, 1)


@pytest.mark.parametrize("values", CONFIGS)
@pytest.mark.parametrize("frames", [1, 3, 40])
def test_a_stream_is_the_whole(values: dict[str, Any], frames: int, reference: Make, ours: Make) -> None:
    model = reference(values)
    made, codes = ours(values, model), some_codes(values, 2, 13)
    chunks = list(made.decode_chunks(codes.split(frames, 2)))
    close(torch.cat(chunks, 2), made.decode(codes))
    close(torch.cat(chunks, 2), decoded(model, codes))
    stream = made.stream()
    pushed = [stream.push(chunk) for chunk in codes.split(frames, 2)]
    assert torch.equal(torch.cat((*pushed, stream.finish()), 2), torch.cat(chunks, 2))


def test_a_stream_of_one_frame_at_a_time_gives_samples_as_early_as_can_be(reference: Make, ours: Make) -> None:
    made, codes = ours(FOUR, reference(FOUR)), some_codes(FOUR, 1, 40)
    stream = made.stream()
    counts = [stream.push(chunk).shape[2] for chunk in codes.split(1, 2)]
    whole, other = made.decode(codes), codes.clone()
    other[:, :, 20] = (other[:, :, 20] + 1) % FOUR["codebook_size"]
    changed = ((made.decode(other) - whole).abs() > 1e-5).nonzero()[0, -1].item()
    # What came before the frame is all that the frame does not change, but for the fewest samples.
    assert sum(counts[:20]) <= changed < sum(counts[:20]) + made.hop_length
    assert set(counts[15:]) == {made.hop_length}


@pytest.mark.parametrize("values", [FOUR, ODD])
def test_a_batch_is_its_sounds_alone(values: dict[str, Any], reference: Make, ours: Make) -> None:
    made = ours(values, reference(values))
    codes, samples = some_codes(values, 3, 6), noise(3, 1, 5 * made.hop_length)
    assert torch.equal(made.decode(codes), torch.cat([made.decode(one) for one in codes.split(1)]))
    assert torch.equal(made.encode(samples), torch.cat([made.encode(one) for one in samples.split(1)]))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_fewer_bits_are_nearer_to_the_truth_than_those_of_transformers(
    kind: torch.dtype, reference: Make, ours: Make
) -> None:
    model = reference(TWO).to(kind)
    made, truth = ours(TWO, model), ours(TWO, model.float())
    model.to(kind)
    codes = some_codes(TWO, 1, 5)
    expected, given = truth.decode(codes), made.decode(codes)
    assert given.dtype == torch.float32
    assert (given - expected).norm() <= (decoded(model, codes) - expected).norm()


@pytest.mark.parametrize("values", CONFIGS)
def test_other_types_and_devices_compute_with_torchs_convolutions(
    values: dict[str, Any], reference: Make, ours: Make
) -> None:
    model = reference(values).double()
    made, codes = ours(values, model), some_codes(values, 2, 13)
    whole = decoded(model, codes)
    close(made.decode(codes), whole.float(), 1e-6)
    close(torch.cat(list(made.decode_chunks(codes.split(3, 2))), 2), whole.float(), 1e-6)
    samples = noise(1, 1, 7 * made.hop_length).double()
    with torch.no_grad():
        assert torch.equal(made.encode(samples), model.encode(samples).audio_codes)


def test_what_is_given_and_the_weights_stay(reference: Make, ours: Make) -> None:
    made = ours(ODD, reference(ODD))
    weights = {name: weight.clone() for name, weight in made.state_dict().items()}
    codes, samples = some_codes(ODD, 1, 4), noise(1, 1, 2 * made.hop_length)
    before = codes.clone(), samples.clone()
    made.decode(codes)
    made.encode(samples)
    assert torch.equal(codes, before[0])
    assert torch.equal(samples, before[1])
    assert all(torch.equal(weight, weights[name]) for name, weight in made.state_dict().items())


@pytest.mark.parametrize("values", CONFIGS)
def test_parameters_are_those_of_transformers(values: dict[str, Any], reference: Make, empty: Make) -> None:
    made, model = empty(values), reference(values).state_dict()
    shapes = {name: weight.shape for name, weight in made.state_dict().items()}
    assert shapes == {name: weight.shape for name, weight in model.items()}
    assert all(weight.is_meta for weight in made.parameters())
    assert not list(made.buffers())


def test_sizes_are_told(empty: Make) -> None:
    made = empty(FOUR)
    assert (made.hop_length, made.sampling_rate, made.codebooks, made.codebook_size) == (512, 44100, 9, 64)
    assert (made.samples(10), empty(ODD).samples(10)) == (5120, 3200 - 8)


# What cannot be


@pytest.mark.parametrize(
    "codes",
    [
        torch.zeros(1, 10, 4, dtype=torch.int64),
        torch.zeros(1, 0, 4, dtype=torch.int64),
        torch.zeros(1, 9, 0, dtype=torch.int64),
        torch.zeros(0, 9, 4, dtype=torch.int64),
        torch.zeros(9, 4, dtype=torch.int64),
        torch.zeros(1, 9, 4),
        torch.zeros(1, 9, 4, dtype=torch.bool),
    ],
)
def test_codes_of_another_shape_or_type_are_refused(codes: torch.Tensor, empty: Make) -> None:
    made = empty(FOUR)
    for call in (made.decode, made.stream().push, lambda given: list(made.decode_chunks([given]))):
        with pytest.raises(RequestError, match=r"int64 \[B, Q, T\] of up to 9 codebooks is due"):
            call(codes)


@pytest.mark.parametrize("code", [-1, 64, 1 << 40])
def test_codes_that_no_codebook_has_are_refused(code: int, reference: Make, ours: Make) -> None:
    made, codes = ours(FOUR, reference(FOUR)), some_codes(FOUR, 1, 4)
    codes[0, 8, 2] = code
    with pytest.raises(RequestError, match=f"The code {code} came; a codebook has those below 64"):
        made.decode(codes)


@pytest.mark.parametrize(
    "samples",
    [
        torch.zeros(1, 2, 512),
        torch.zeros(1, 512),
        torch.zeros(1, 1, 0),
        torch.zeros(0, 1, 512),
        torch.zeros(1, 1, 512, dtype=torch.int16),
        torch.full((1, 1, 512), float("nan")),
        torch.full((1, 1, 512), float("inf")),
    ],
)
def test_sound_of_another_shape_or_type_is_refused(samples: torch.Tensor, reference: Make, ours: Make) -> None:
    with pytest.raises(MediaError, match=r"\[B, 1, N\] is due|not finite"):
        ours(FOUR, reference(FOUR)).encode(samples)


@pytest.mark.parametrize("codebooks", [0, 10, -1, True, "3", 2.0])
def test_codebooks_that_are_not_there_are_refused(codebooks: Any, empty: Make) -> None:
    with pytest.raises(OptionError, match="a whole number from 1 to 9 is due"):
        empty(FOUR).encode(torch.zeros(1, 1, 512), codebooks)


def test_a_stream_keeps_to_its_sound(reference: Make, ours: Make) -> None:
    made, codes = ours(ONE, reference(ONE)), some_codes(ONE, 2, 4)
    stream = made.stream()
    stream.push(codes)
    with pytest.raises(RequestError, match=r"\[1, 1\] sounds and codebooks came after some of \[2, 1\]"):
        stream.push(codes[:1])
    stream.finish()
    for call in (lambda: stream.push(codes), stream.finish):
        with pytest.raises(RequestError, match="has ended"):
            call()
    with pytest.raises(RequestError, match="before any codes"):
        list(made.decode_chunks([]))


def test_a_width_of_its_own_between_the_halves(reference: Make, ours: Make, empty: Make) -> None:
    values = codec(2, 2, encoder_hidden_size=4, hidden_size=12)
    assert empty(values).decoder.conv1.weight.shape == (32, 12, 7)
