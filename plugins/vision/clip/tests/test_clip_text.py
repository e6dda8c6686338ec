"""The text encoder of CLIP against transformers."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import bestiary_clip
from bestiary.config import Config
from bestiary.errors import ConfigError, RequestError
from bestiary.identified import identify_model
from bestiary.loading import load_weights
from bestiary.records import SourceOptions, resolve
from bestiary.registry import default_registry
from bestiary.testing.reference import make_reference
from bestiary_clip.text import ClipText, half, plain
from bestiary_clip.tiny import HALF, PLAIN, PROJECTED

LENGTH, END = 13, 98
RECORDS = {record.name: record for record in bestiary_clip.bestiary_architectures()}
CASES = [(record.name, values) for record in RECORDS.values() for values in resolve(record.tiny or "")]


def load(folder: Path) -> ClipText:
    registry = default_registry()
    identified = identify_model(str(folder), SourceOptions(offline=True), registry)
    model = load_weights(identified, registry, dtype="float32", device="cpu").model
    assert isinstance(model, ClipText)
    return model


@pytest.fixture(scope="module", params=CASES, ids=[f"{name}-{place % 3}" for place, (name, _) in enumerate(CASES)])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, ClipText]]:
    """The model of transformers, and what is loaded from what it saved."""
    name, values = request.param
    folder = tmp_path_factory.mktemp(name)
    model = make_reference(values, folder).model
    yield model, load(folder)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> ClipText:
    folder = tmp_path_factory.mktemp("encoder")
    make_reference(PROJECTED[0], folder)
    return load(folder)


def texts(*lengths: int, width: int = LENGTH) -> torch.Tensor:
    """Texts of so many tokens, the end token the last of them, padded with more end tokens."""
    tokens = torch.randint(3, 97, (len(lengths), width), generator=torch.Generator().manual_seed(3))
    for row, length in zip(tokens, lengths, strict=True):
        row[length - 1 :] = END
    return tokens


def close(made: torch.Tensor, expected: torch.Tensor) -> None:
    assert made.shape == expected.shape
    assert float((made - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def answer(model: Any, tokens: torch.Tensor, mask: torch.Tensor | None = None) -> dict[str, Any]:
    """What transformers makes of texts, by the same names for each of its classes."""
    texts_model = model if type(model).__name__ == "CLIPTextModel" else model.text_model
    made = texts_model(tokens, attention_mask=mask, output_hidden_states=True)
    projection = getattr(model, "text_projection", None)
    pooled = made.pooler_output
    return {
        "hidden": made.hidden_states,
        "states": made.last_hidden_state,
        "pooled": pooled,
        "embeds": pooled if projection is None else projection(pooled),
    }


@torch.no_grad()
def test_states_and_ends_are_those_of_transformers(case: tuple[Any, ClipText]) -> None:
    model, made = case
    tokens = texts(13, 5, 1, 8)
    expected = answer(model, tokens)
    states, pooled = made(tokens)
    close(states, expected["states"])
    close(pooled, expected["pooled"])
    close(made.project(pooled), expected["embeds"])
    close(made.embed(tokens), expected["embeds"])
    for layer, state in enumerate(expected["hidden"]):
        for number in (layer, layer - len(expected["hidden"])):
            states, pooled = made(tokens, number)
            close(states, state)
            close(pooled, expected["pooled"])


@torch.no_grad()
def test_embeds_are_the_outputs_of_the_classes_themselves(case: tuple[Any, ClipText]) -> None:
    model, made = case
    tokens = texts(9, 4)
    match type(model).__name__:
        case "CLIPTextModelWithProjection":
            close(made.embed(tokens), model(tokens).text_embeds)
        case "CLIPModel":
            close(made.embed(tokens), model.get_text_features(tokens).pooler_output)
        case _:
            close(made.embed(tokens), model(tokens).pooler_output)


@torch.no_grad()
def test_masks_are_those_of_transformers(case: tuple[Any, ClipText]) -> None:
    model, made = case
    tokens = texts(13, 6, 2)
    mask = torch.arange(LENGTH) < torch.tensor([[13], [6], [2]])
    close(made.embed(tokens, mask), answer(model, tokens, mask.long())["embeds"])


@torch.no_grad()
def test_tokens_that_are_masked_change_nothing(encoder: ClipText) -> None:
    tokens = texts(13, 6)
    tokens[1, 1] = END
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[0, 4], mask[1, :3] = False, False
    first = encoder(tokens, mask=mask)
    changed = tokens.clone()
    changed[~mask] = 5
    second = encoder(changed, mask=mask)
    assert torch.equal(first[0][mask], second[0][mask]) and torch.equal(first[1], second[1])
    assert bool(first[0].isfinite().all())


@torch.no_grad()
def test_later_tokens_change_nothing(encoder: ClipText) -> None:
    tokens = texts(13)
    states = encoder(tokens)[0]
    for count in (1, 4, 9):
        start = tokens[:, :count]
        close(encoder(torch.cat((start, torch.full((1, 1), END)), 1))[0][:, :count], states[:, :count])


@torch.no_grad()
def test_a_batch_gives_what_each_text_gives(encoder: ClipText) -> None:
    tokens = texts(13, 2, 7)
    close(encoder.embed(tokens), torch.cat([encoder.embed(text[None]) for text in tokens]))


@torch.no_grad()
def test_kept_states_are_not_written_to(encoder: ClipText) -> None:
    tokens = texts(6)
    assert torch.equal(encoder(tokens, 0)[0], encoder.text_model.embeddings(tokens))


@torch.no_grad()
def test_the_end_is_the_first_of_several(encoder: ClipText) -> None:
    tokens = texts(4)
    states, pooled = encoder(tokens)
    assert torch.equal(pooled, states[:, 3])


@torch.no_grad()
def test_bfloat16(tmp_path: Path) -> None:
    model, tokens = make_reference(PROJECTED[0], tmp_path).model.bfloat16(), texts(7)
    made = load(tmp_path).bfloat16()
    states = made(tokens)[0]
    assert states.dtype == torch.bfloat16
    torch.testing.assert_close(states, answer(model, tokens)["states"], rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (texts(25, width=25), "A text of 25 tokens came; the text encoder takes 24"),
        (torch.tensor([[1, 99]]), "The token 99 came; the text encoder has those below 99"),
        (torch.tensor([[-1, END]]), "The token -1 came"),
        (torch.tensor([[1, 2], [1, END]]), "without the end token 98"),
        (torch.tensor([1, END]), r"int64 \[2\]; int64 \[B, T\] is due"),
        (torch.empty(0, 3, dtype=torch.int64), r"int64 \[0, 3\]"),
        (torch.ones(1, 2), r"float32 \[1, 2\]"),
    ],
)
def test_texts_that_cannot_be_read_are_refused(encoder: ClipText, tokens: torch.Tensor, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        encoder(tokens)


@pytest.mark.parametrize(
    "mask",
    [torch.ones(1, 12, dtype=torch.bool), torch.ones(1, 13), torch.zeros(1, 13, dtype=torch.bool)],
)
def test_masks_that_cannot_be_are_refused(encoder: ClipText, mask: torch.Tensor) -> None:
    with pytest.raises(RequestError, match="A mask of"):
        encoder.embed(texts(13), mask)


def test_an_end_behind_the_mask_is_none(encoder: ClipText) -> None:
    tokens = texts(13)
    with pytest.raises(RequestError, match="without the end token"):
        encoder.embed(tokens, tokens != END)


@pytest.mark.parametrize("layer", [4, -5])
def test_a_layer_that_is_not_there_is_refused(encoder: ClipText, layer: int) -> None:
    with pytest.raises(ConfigError, match=f"State {layer} was asked for; the text encoder has those from -4 to 3"):
        encoder(texts(3), layer)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", 0),
        ("hidden_size", 1 << 20),
        ("hidden_size", 30),
        ("num_attention_heads", True),
        ("num_hidden_layers", 0),
        ("vocab_size", "99"),
        ("vocab_size", 1 << 30),
        ("max_position_embeddings", [24]),
        ("eos_token_id", [98]),
        ("eos_token_id", -1),
        ("hidden_act", "wish"),
        ("hidden_act", ["gelu"]),
        ("layer_norm_eps", "1e-5"),
        ("layer_norm_eps", float("nan")),
    ],
)
def test_impossible_configurations_are_refused(key: str, value: object) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match="wish" if value == "wish" else key):
        plain(Config({**PLAIN[0], key: value}, "the test"))


@pytest.mark.parametrize("part", ["text", 5, [1]])
@pytest.mark.parametrize("key", ["text_config", "text_config_dict"])
def test_parts_that_are_no_objects_are_refused(key: str, part: object) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=key):
        half(Config({**HALF[0], key: part}, "the test"))


def test_what_configurations_leave_out_is_what_transformers_takes() -> None:
    from transformers import CLIPConfig, CLIPTextConfig

    expected = CLIPTextConfig().to_dict()
    assert {key: expected[key] for key in bestiary_clip.TEXT_DEFAULTS} == bestiary_clip.TEXT_DEFAULTS
    with torch.device("meta"):
        made, bare = plain(Config({}, "the test")), half(Config({}, "the test"))
    assert (made.end, made.positions, made.vocabulary) == (49407, 77, 49408)
    assert bare.text_projection is not None and CLIPConfig().projection_dim == bare.text_projection.weight.shape[0]


def test_the_older_part_counts_as_in_transformers() -> None:
    """The first configurations of both halves had `text_config_dict`; what it leaves out has its default."""
    from transformers import CLIPConfig

    values = {**HALF[1], "text_config_dict": {"hidden_size": 64, "num_attention_heads": 2}}
    expected = CLIPConfig(**json.loads(json.dumps(values))).text_config
    with torch.device("meta"):
        made = half(Config(values, "the test"))
    assert made.end == expected.eos_token_id == 49407
    assert len(made.text_model.encoder.layers) == expected.num_hidden_layers == 12
    assert made.text_model.embeddings.token_embedding.weight.shape == (expected.vocab_size, expected.hidden_size)


def test_nothing_is_kept_beside_the_parameters() -> None:
    with torch.device("meta"):
        assert not list(plain(Config(PLAIN[0], "the test")).buffers())


def test_importing_the_plugin_is_light() -> None:
    code = (
        "import sys, bestiary_clip, bestiary_clip.describe; bestiary_clip.bestiary_architectures();"
        "sys.exit(sorted({'torch', 'transformers'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_registry_has_the_records() -> None:
    from bestiary.records import Architecture

    owned: Mapping[str, str] = {
        record.name: owner.distribution for record, owner in default_registry().records(Architecture)
    }
    assert {owned[name] for name in RECORDS} == {"bestiary-clip"}
