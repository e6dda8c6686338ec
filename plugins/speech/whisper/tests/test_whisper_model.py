"""The networks against transformers: states, logits, and names at the published sizes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import bestiary_whisper
from bestiary.building import build_empty, make_plan
from bestiary.config import normalise
from bestiary.errors import ConfigError, MediaError
from bestiary.identified import identify_model
from bestiary.loading import load_weights
from bestiary.records import SourceOptions
from bestiary.registry import default_registry
from bestiary.testing.headers import HeaderList
from bestiary.testing.reference import Reference
from bestiary_whisper.decoding import Desk
from bestiary_whisper.model import Whisper
from bestiary_whisper.tiny import WHISPER

(RECORD,) = bestiary_whisper.bestiary_architectures()
SIZES = {  # bands, width, layers, heads, vocabulary
    "tiny": (80, 384, 4, 6, 51865),
    "tiny.en": (80, 384, 4, 6, 51864),
    "base": (80, 512, 6, 8, 51865),
    "small": (80, 768, 12, 12, 51865),
    "medium": (80, 1024, 24, 16, 51865),
    "large-v2": (80, 1280, 32, 20, 51865),
    "large-v3": (128, 1280, 32, 20, 51866),
    "large-v3-turbo": (128, 1280, 32, 20, 51866),
}


def published(name: str) -> dict[str, Any]:
    bands, dim, layers, heads, vocabulary = SIZES[name]
    return {
        **WHISPER[0],
        "num_mel_bins": bands,
        "d_model": dim,
        "encoder_layers": layers,
        "decoder_layers": 4 if name.endswith("turbo") else layers,
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": 4 * dim,
        "decoder_ffn_dim": 4 * dim,
        "vocab_size": vocabulary,
        "max_target_positions": 448,
    }


def loaded(reference: Reference) -> Whisper:
    registry = default_registry()
    identified = identify_model(str(reference.folder), SourceOptions(), registry)
    model = load_weights(identified, registry, dtype="float32", device="cpu").model
    assert isinstance(model, Whisper)
    return model


def close(made: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(made, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("config", WHISPER)
@torch.inference_mode()
def test_states_and_logits(checkpoint: Callable[..., Reference], config: dict[str, Any]) -> None:
    reference = checkpoint(config)
    model = loaded(reference)
    random = torch.Generator().manual_seed(0)
    mel = torch.randn(2, config["num_mel_bins"], 2 * config["max_source_positions"], generator=random)
    states = model.encode(mel)
    close(states, reference.model.model.encoder(mel).last_hidden_state)
    tokens = torch.randint(0, config["vocab_size"], (2, 20), generator=random)
    wanted = reference.model(input_features=mel, decoder_input_ids=tokens).logits
    for window in range(2):
        desk = Desk(model, 2)
        desk.hear(model.listen(states[window]))
        begun = desk.begin(tokens[window].tolist(), 4)
        close(torch.stack((begun.at_start, begun.logits)), wanted[window, [4, 19]])
        # Token by token, beside another sequence about the same window.
        desk.begin(tokens[window, :2].tolist(), 0)
        desk.open(2)
        for place in range(2, 20):
            close(desk.step([0, 1], [tokens[window, place], tokens[0, 3]])[0], wanted[window, place])


@pytest.mark.parametrize("size", SIZES)
def test_parameters_at_published_sizes(size: str) -> None:
    import transformers

    values = published(size)
    with torch.device("meta"):
        made = transformers.AutoConfig.for_model(**{k: v for k, v in values.items() if k != "architectures"})
        theirs = transformers.WhisperForConditionalGeneration(made).state_dict()
    shapes = {name: tuple(weight.shape) for name, weight in theirs.items() if name != "proj_out.weight"}
    config = normalise(values, "test", RECORD.defaults)
    model = build_empty(RECORD, config)
    assert not list(model.buffers())
    for names in (shapes, as_openai(shapes)):
        plan = make_plan(RECORD, config, model, HeaderList(names))
        assert plan.ties == {"proj_out.weight": "model.decoder.embed_tokens.weight"}
        assert plan.shapes(names.__getitem__)["model.encoder.conv1.weight"] == shapes["model.encoder.conv1.weight"]


def as_openai(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The names of openai/whisper."""
    changes = {
        "model.": "",
        ".layers.": ".blocks.",
        "self_attn_layer_norm": "attn_ln",
        "encoder_attn_layer_norm": "cross_attn_ln",
        "final_layer_norm": "mlp_ln",
        "encoder_attn.": "cross_attn.",
        "self_attn.": "attn.",
        "q_proj": "query",
        "k_proj": "key",
        "v_proj": "value",
        "out_proj": "out",
        "fc1": "mlp.0",
        "fc2": "mlp.2",
        "encoder.layer_norm": "encoder.ln_post",
        "decoder.layer_norm": "decoder.ln",
        "embed_tokens": "token_embedding",
        "embed_positions.weight": "positional_embedding",
    }
    made = {}
    for name, shape in shapes.items():
        for old, new in changes.items():
            name = name.replace(old, new)
        made[name] = shape
    return made


def test_openai_names_are_theirs() -> None:
    names = as_openai(
        {
            f"model.decoder.layers.3.{name}": ()
            for name in ("self_attn.q_proj.weight", "encoder_attn.out_proj.bias", "encoder_attn_layer_norm.weight")
        }
    )
    assert list(names) == [
        "decoder.blocks.3.attn.query.weight",
        "decoder.blocks.3.cross_attn.out.bias",
        "decoder.blocks.3.cross_attn_ln.weight",
    ]


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"d_model": 63}, "do not divide"),
        ({"decoder_attention_heads": 7}, "decoder_attention_heads"),
        ({"d_model": "64"}, "d_model"),
        ({"encoder_layers": 1 << 20}, "encoder_layers"),
        ({"max_source_positions": 0}, "max_source_positions"),
        ({"num_mel_bins": True}, "num_mel_bins"),
        ({"activation_function": "wish"}, "wish"),
        ({"activation_function": 3}, "activation_function"),
    ],
)
def test_impossible_configurations(wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        build_empty(RECORD, normalise({**WHISPER[0], **wrong}, "test", RECORD.defaults))


def test_a_key_that_is_not_there() -> None:
    values = {key: value for key, value in WHISPER[0].items() if key != "d_model"}
    with pytest.raises(ConfigError, match='no "d_model"'):
        build_empty(RECORD, normalise(values, "test", RECORD.defaults))


def test_spectrograms_of_another_shape(checkpoint: Callable[..., Reference]) -> None:
    model = loaded(checkpoint(WHISPER[1]))
    for shape in [(1, 80, 100), (1, 128, 99), (128, 100)]:
        with pytest.raises(MediaError, match=r"\[N, 128, 100\] is due"):
            model.encode(torch.zeros(shape))
