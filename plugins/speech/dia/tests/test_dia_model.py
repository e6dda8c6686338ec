"""The network against transformers: states, logits, both layouts, and names at the published size."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import bestiary_dia
from bestiary.building import build_empty, make_plan
from bestiary.config import normalise
from bestiary.errors import ConfigError
from bestiary.generation.lanes import Lanes
from bestiary.generation.sources import Sources
from bestiary.identified import identify_model
from bestiary.loading import load_weights
from bestiary.records import SourceOptions
from bestiary.registry import default_registry
from bestiary.testing.headers import HeaderList
from bestiary_dia.model import Dia
from bestiary_dia.settings import read
from bestiary_dia.tiny import DIA

Make = Callable[[dict[str, Any]], Any]
TEXT = "[S1] Hello there. [S2] Yes?"
RECORD = next(each for each in bestiary_dia.bestiary_architectures() if each.name == "DiaForConditionalGeneration")


def network(both: Any) -> Dia:
    with both.load() as pipe, pipe._parts.use("model") as model:
        assert isinstance(model, Dia)
        return model


def close(made: torch.Tensor, due: torch.Tensor) -> bool:
    return float((made - due).abs().max()) < 1e-5 * float(due.abs().max())


@pytest.mark.parametrize("config", DIA, ids=["first", "second"])
def test_states_of_the_encoder(pair: Make, config: dict[str, Any]) -> None:
    both = pair(config)
    tokens = both.tokens(TEXT)
    asked = torch.cat((tokens, torch.zeros_like(tokens)))
    with torch.inference_mode():
        made = network(both).model.encoder(asked).view(2, tokens.shape[1], -1)
        due = both.model.model.encoder(asked, attention_mask=torch.ones_like(asked)).last_hidden_state
    assert close(made, due)


@pytest.mark.parametrize("config", DIA, ids=["first", "second"])
@pytest.mark.parametrize("pieces", [[40], [1, 39], [7, 1, 1, 31], [1] * 40])
def test_logits_of_the_decoder(pair: Make, config: dict[str, Any], pieces: list[int]) -> None:
    """Rows as they come, with the text and with nothing, beside a shorter text."""
    both, books = pair(config), len(config["delay_pattern"])
    model = network(both)
    generator = torch.Generator().manual_seed(2)
    texts = [both.tokens(TEXT), both.tokens("[S1] No.")]
    rows = [torch.randint(0, 68, (40, books), generator=generator) for _ in texts]
    made: list[list[torch.Tensor]] = [[] for _ in range(4)]
    with torch.inference_mode():
        sources = Sources(model, [each.shape[1] for each in texts for _ in range(2)])
        for place, each in enumerate(texts):
            for lane, layers in enumerate(model.listen(torch.cat((each, torch.zeros_like(each))))):
                sources.fill(2 * place + lane, layers)
        lanes = Lanes(model, [40] * 4, sources)
        start = 0
        for count in pieces:
            parts = [each[start : start + count] for each in (rows[0], rows[0], rows[1], rows[1])]
            for lane, part in zip(made, model.head(lanes.run(range(4), parts)), strict=True):
                lane.append(part)
            start += count
        ends = torch.tensor(pieces).cumsum(0) - 1
        for place, (text, own) in enumerate(zip(texts, rows, strict=True)):
            asked = torch.cat((text, torch.zeros_like(text)))
            due = both.model(asked, attention_mask=torch.ones_like(asked), decoder_input_ids=own.expand(2, -1, -1))
            due = due.logits.view(2, books, 40, -1).transpose(1, 2)
            for lane in range(2):
                assert close(torch.stack(made[2 * place + lane]), due[lane][ends])


# Layouts


def original(config: dict[str, Any], state: dict[str, torch.Tensor]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The configuration and the tensors of the first checkpoint, by the shapes of its DenseGeneral layers."""
    encoder, decoder = config["encoder_config"], config["decoder_config"]
    heads = {
        "encoder.self_attention": encoder["head_dim"],
        "decoder.self_attention": decoder["head_dim"],
        "decoder.cross_attention": decoder["cross_head_dim"],
    }
    made = {}
    for name, tensor in state.items():
        path = name.removeprefix("model.").replace("gate_up_proj", "wi_fused").replace("mlp.down_proj", "mlp.wo")
        side, block = path.split(".")[0], ".".join(path.split(".")[3:4])
        if path.endswith("_proj.weight"):
            head = heads[f"{side}.{block}"]
            turned = tensor.t()
            shape = (-1, head, turned.shape[1]) if "o_proj" in path else (turned.shape[0], -1, head)
            made[path] = turned.reshape(shape)
        elif "wi_fused" in path:
            made[path] = tensor.t().reshape(tensor.shape[1], 2, -1)
        elif "mlp.wo" in path:
            made[path] = tensor.t()
        elif path.startswith("logits_dense"):
            made[f"decoder.{path}"] = tensor.t().reshape(tensor.shape[1], decoder["num_channels"], -1)
        elif path.startswith("decoder.embeddings"):
            for book, table in enumerate(tensor.chunk(decoder["num_channels"])):
                made[f"decoder.embeddings.{book}.weight"] = table
        else:
            made[path] = tensor
    values = {
        "version": "0.1",
        "model": {
            "encoder": {
                "n_layer": encoder["num_hidden_layers"],
                "n_embd": encoder["hidden_size"],
                "n_hidden": encoder["intermediate_size"],
                "n_head": encoder["num_attention_heads"],
                "head_dim": encoder["head_dim"],
            },
            "decoder": {
                "n_layer": decoder["num_hidden_layers"],
                "n_embd": decoder["hidden_size"],
                "n_hidden": decoder["intermediate_size"],
                "gqa_query_heads": decoder["num_attention_heads"],
                "kv_heads": decoder["num_key_value_heads"],
                "gqa_head_dim": decoder["head_dim"],
                "cross_query_heads": decoder["cross_num_attention_heads"],
                "cross_head_dim": decoder["cross_head_dim"],
            },
            "src_vocab_size": encoder["vocab_size"],
            "tgt_vocab_size": decoder["vocab_size"],
            "normalization_layer_epsilon": 1e-5,
            "rope_min_timescale": 1,
            "rope_max_timescale": 10_000,
        },
        "data": {
            "text_length": encoder["max_position_embeddings"],
            "audio_length": decoder["max_position_embeddings"],
            "channels": decoder["num_channels"],
            "text_pad_value": 0,
            "audio_eos_value": decoder["eos_token_id"],
            "audio_pad_value": decoder["pad_token_id"],
            "audio_bos_value": decoder["bos_token_id"],
            "delay_pattern": config["delay_pattern"],
        },
        "training": {"dtype": "bfloat16"},
    }
    return values, made


@pytest.fixture(scope="module")
def first_checkpoint(pair: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    values, tensors = original(DIA[0], pair(DIA[0]).model.state_dict())
    (folder / "config.json").write_text(json.dumps(values))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def test_the_layout_of_the_test_is_that_of_dense_general(pair: Make) -> None:
    """What its layers compute, `tensordot` over the inputs, is what transformers' do."""
    state = pair(DIA[0]).model.state_dict()
    _, tensors = original(DIA[0], state)
    x = torch.randn(5, 48, generator=torch.Generator().manual_seed(1))
    opened = torch.tensordot(x, tensors["decoder.layers.1.self_attention.q_proj.weight"], 1)
    assert opened.shape == (5, 4, 16)
    assert close(opened.flatten(1), x @ state["model.decoder.layers.1.self_attention.q_proj.weight"].t())
    joined = torch.tensordot(opened, tensors["decoder.layers.1.self_attention.o_proj.weight"], 2)
    assert close(joined, opened.flatten(1) @ state["model.decoder.layers.1.self_attention.o_proj.weight"].t())
    both = torch.tensordot(x, tensors["decoder.layers.0.mlp.wi_fused.weight"], 1)
    assert both.shape == (5, 2, 64)
    assert close(both.flatten(1), x @ state["model.decoder.layers.0.mlp.gate_up_proj.weight"].t())


def test_both_layouts_give_the_same_tensors(pair: Make, first_checkpoint: Path) -> None:
    registry = default_registry()
    both = pair(DIA[0])
    found = [identify_model(str(folder), SourceOptions(), registry) for folder in (both.folder, first_checkpoint)]
    assert [each.architecture.name for each in found] == ["DiaPipeline"] * 2
    made = [
        dict(load_weights(each, registry, dtype="float32", device="cpu").model.named_parameters())
        for each in ((both.load(folder)._parts.found["model"].network) for folder in (both.folder, first_checkpoint))
    ]
    assert made[0].keys() == made[1].keys()
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])


def test_both_layouts_speak_alike(pair: Make, first_checkpoint: Path) -> None:
    both = pair(DIA[0])
    made = []
    for folder in (both.folder, first_checkpoint):
        with both.load(folder) as pipe:
            made.append(pipe(TEXT, max_tokens=20, seed=1, progress=False))
    assert torch.equal(made[0].samples, made[1].samples)


def test_names_and_shapes_at_the_published_size() -> None:
    from transformers import DiaConfig, DiaForConditionalGeneration

    values = {"architectures": ["DiaForConditionalGeneration"], **DiaConfig().to_dict()}
    with torch.device("meta"):
        theirs = {
            name: tuple(each.shape) for name, each in DiaForConditionalGeneration(DiaConfig()).state_dict().items()
        }
    for given in (values, {"architectures": values["architectures"]}):
        config = normalise(given, "the test")
        empty = build_empty(RECORD, config)
        plan = make_plan(RECORD, config, empty, HeaderList(theirs))
        assert not plan.dropped
        assert sum(parameter.numel() for parameter in empty.parameters()) == sum(
            torch.Size(shape).numel() for shape in theirs.values()
        )
    first, tensors = original(values, {name: torch.empty(shape, device="meta") for name, shape in theirs.items()})
    config = normalise(first, "the test")
    plan = make_plan(
        RECORD, config, build_empty(RECORD, config), HeaderList({n: tuple(t.shape) for n, t in tensors.items()})
    )
    assert not plan.dropped
    assert tensors["encoder.layers.0.self_attention.q_proj.weight"].shape == (1024, 16, 128)
    assert tensors["decoder.layers.0.cross_attention.o_proj.weight"].shape == (16, 128, 2048)


# What cannot be


@pytest.mark.parametrize(
    ("side", "key", "value", "match"),
    [
        ("decoder_config", "hidden_size", 0, "hidden_size"),
        ("decoder_config", "hidden_size", "48", "hidden_size"),
        ("encoder_config", "num_hidden_layers", 1 << 40, "num_hidden_layers"),
        ("decoder_config", "num_key_value_heads", 3, "no multiple"),
        ("decoder_config", "cross_num_key_value_heads", 3, "no multiple"),
        ("decoder_config", "cross_hidden_size", 5, "cross_hidden_size"),
        ("encoder_config", "head_dim", 15, "head_dim"),
        ("encoder_config", "norm_eps", "x", "norm_eps"),
        ("encoder_config", "hidden_act", 5, "hidden_act"),
        ("decoder_config", "num_channels", 4, "delay_pattern"),
        ("decoder_config", "eos_token_id", 68, "eos_token_id"),
        ("decoder_config", "bos_token_id", 3, "not the least"),
        ("decoder_config", "rope_parameters", {"rope_type": "default", "rope_theta": "x"}, "rope_theta"),
        (None, "delay_pattern", [1, 8, 9, 10, 11, 12, 13, 14, 15], "begins with 1"),
        (None, "delay_pattern", [0, 8, 9, 10, 11, 12, 13, 14, 1 << 30], "delay_pattern"),
        (None, "delay_pattern", "x", "delay_pattern"),
        (None, "encoder_config", [1], "encoder_config"),
    ],
)
def test_configurations_that_cannot_be(side: str | None, key: str, value: Any, match: str) -> None:
    values = deepcopy(DIA[0])
    (values if side is None else values[side])[key] = value
    with pytest.raises(ConfigError, match=match):
        read(normalise(values, "the test"))


@pytest.mark.parametrize("path", [("model", "encoder"), ("model", "decoder", "n_layer"), ("data", "delay_pattern")])
def test_first_configurations_that_cannot_be(path: tuple[str, ...]) -> None:
    values, _ = original(DIA[0], {})
    place = values
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = "x"
    with pytest.raises(ConfigError, match=path[-1] if path[-1] != "n_layer" else "num_hidden_layers"):
        read(normalise(values, "the test"))
