"""Names come back as the tables of the gguf package, which llama.cpp's converter uses, took them there."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import gguf
import pytest
import torch
import transformers

from bestiary.testing.tiny import decoder
from bestiary_quant.gguf.names import EXPERTS, LAYER, MODEL, OTHERWISE, ROTARY, hugging_face_names

SPELT = dict.fromkeys(
    (*LAYER.values(), *EXPERTS.values(), *(name for names in OTHERWISE.values() for name in names.values() if name))
)
"""Every name of a layer's tensor, once."""

TINY: dict[str, dict[str, Any]] = {
    "llama": decoder("LlamaForCausalLM", "llama", attention_bias=True, mlp_bias=True),
    "qwen2": decoder("Qwen2ForCausalLM", "qwen2"),
    "qwen2moe": decoder("Qwen2MoeForCausalLM", "qwen2_moe", num_experts=3, moe_intermediate_size=32),
    "qwen3": decoder("Qwen3ForCausalLM", "qwen3", head_dim=16),
    "qwen3moe": decoder("Qwen3MoeForCausalLM", "qwen3_moe", num_experts=3, moe_intermediate_size=32),
    "gemma": decoder("GemmaForCausalLM", "gemma", head_dim=16),
    "gemma2": decoder("Gemma2ForCausalLM", "gemma2", head_dim=16),
    "gemma3": decoder("Gemma3ForCausalLM", "gemma3_text", head_dim=16),
}


def parameters(config: dict[str, Any]) -> Iterator[str]:
    """The names of a transformers model's parameters, with its experts' gates and projections apart, as in files."""
    values = {key: value for key, value in config.items() if key != "architectures"}
    with torch.device("meta"):
        model = getattr(transformers, config["architectures"][0])(transformers.AutoConfig.for_model(**values))
    for name in model.state_dict():
        if name.endswith(".gate_up_proj"):
            yield from (name.replace("gate_up_proj", part) for part in ("gate_proj", "up_proj"))
        else:
            yield name


@pytest.mark.parametrize("architecture", TINY)
def test_every_parameter_comes_back(architecture: str, converting: ModuleType) -> None:
    config = TINY[architecture]
    assert converting.ARCHITECTURES[config["architectures"][0]] == architecture
    code = next(code for code, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    table = gguf.get_tensor_name_map(code, config["num_hidden_layers"])
    stored = {}
    for name in parameters(config):
        if name == "lm_head.weight" and architecture in ("gemma", "gemma2"):  # always tied, and not in their tables
            continue
        base, dot, suffix = name.rpartition(".")
        if suffix not in ("weight", "bias"):  # stacked experts, which converters give the suffix
            base, dot, suffix = name, ".", "weight"
        target = table.get_name(base)
        assert target is not None, name
        stored[target + dot + suffix] = name
    assert len(stored) > 20
    assert hugging_face_names(stored, architecture) == stored


def test_high_layers_need_no_larger_table() -> None:
    found = hugging_face_names(["blk.999999999.attn_q.weight", "blk.1000000000.attn_q.weight"], "llama")
    assert list(found.values()) == ["model.layers.999999999.self_attn.q_proj.weight", "blk.1000000000.attn_q.weight"]


def test_what_no_converter_knows_keeps_its_name() -> None:
    names = ["blk.0.ssm_a", "blk.0.attn_q.lora_a", "mm.0.weight", "blk.0.attn_q.weight.extra", "output.scale", ""]
    assert hugging_face_names(names, "llama") == {name: name for name in names}


def test_an_architecture_newer_than_the_tables_is_spelt_like_the_others() -> None:
    for architecture in ("newt", None):
        found = hugging_face_names(["token_embd.weight", "blk.0.attn_q.weight", "blk.0.gills.weight"], architecture)
        assert list(found.values()) == [
            "model.embed_tokens.weight",
            "model.layers.0.self_attn.q_proj.weight",
            "blk.0.gills.weight",
        ]


def test_rotary_factors_are_no_weights() -> None:
    assert hugging_face_names(["token_embd.weight", *ROTARY], "llama") == {
        "token_embd.weight": "model.embed_tokens.weight"
    }


@pytest.mark.parametrize("code", gguf.MODEL_ARCH, ids=lambda code: code.name)
def test_no_two_tensors_of_any_architecture_get_one_name(code: Any) -> None:
    names = [gguf.TENSOR_NAMES[tensor].format(bid=3) + ".weight" for tensor in gguf.MODEL_TENSORS[code]]
    found = hugging_face_names(names, gguf.MODEL_ARCH_NAMES[code])
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize("code", gguf.MODEL_ARCH, ids=lambda code: code.name)
def test_every_architecture_is_spelt_as_its_converter_reads_it(code: Any) -> None:
    """Each tensor that its files may have gets the first of our names that leads a converter to it, or keeps its own.

    Those of RWKV's time mixing, which are no attention, stand under the same names in the tables, and keep their own.
    """

    class Table(gguf.TensorNameMap):
        # A table of some architectures (arctic) writes into the one of the class, and so into all that follow.
        block_mappings_cfg = dict(gguf.TensorNameMap.block_mappings_cfg)

    table, due = Table(code, 4), dict[str, str]()
    for name in (*MODEL.values(), *(f"model.layers.3.{inner}" for inner in SPELT)):
        if (stored := table.get_name(name)) and "time_mix" not in stored:
            due.setdefault(stored + ".weight", name if name.endswith(tuple(EXPERTS.values())) else name + ".weight")
    names = [gguf.TENSOR_NAMES[tensor].format(bid=3, xid=0) + ".weight" for tensor in gguf.MODEL_TENSORS[code]]
    found = hugging_face_names(names, gguf.MODEL_ARCH_NAMES[code])
    assert found == {name: due.get(name, name) for name in names if name not in ROTARY}
