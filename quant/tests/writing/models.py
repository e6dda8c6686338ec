"""Small models whose numbers are sums of whole numbers times a power of two: the same on every machine, to the bit."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel

from bestiary.building import build_empty
from bestiary.generation.cache import SequenceCache, make_batch
from bestiary.identified import identify_model
from bestiary.loading import WeightStream, load_weights, open_weights
from bestiary.records import Packing, SourceOptions
from bestiary.registry import default_registry
from bestiary.testing.tiny import decoder, rope
from bestiary_quant.gguf_tokenizer.splits import SPLITS
from bestiary_quant.making.mixtures import MIXTURES, Traits, assign
from bestiary_quant.making.pack import pack
from bestiary_quant.writing.published import published_names

HIDDEN, WIDE, LAYERS, HEADS, GROUPS, HEAD, ROWS = 256, 512, 3, 4, 2, 64, 512
WORDS = "the and that have with this from they will would there their what about which when make like time just him "
WORDS += "know take people into year your good some could them see other than then now look only come over think also"


def config(kind: str, **changes: Any) -> dict[str, Any]:
    """A config.json object of a "llama" or "qwen3" of these sizes."""
    names = {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}
    return {
        "architectures": [names[kind]],
        "model_type": kind,
        "vocab_size": ROWS,
        "hidden_size": HIDDEN,
        "intermediate_size": WIDE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": GROUPS,
        "head_dim": HEAD,
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "torch_dtype": "float32",
        **changes,
    }


def write_model(kind: str, folder: Path, **changes: Any) -> Path:
    """A repository of a random model: its weights, its configuration and a byte-level tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    stated = config(kind, **changes)
    (folder / "config.json").write_text(json.dumps(stated))
    tokenizer = byte_level(kind)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    words = {"bos_token": "<|begin|>", "eos_token": "<|end|>", "chat_template": "{{ messages[0].content }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **words}))
    save_file(dict(weights(kind, bool(stated["tie_word_embeddings"]))), folder / "model.safetensors")
    return folder


def weights(kind: str, tied: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
    """Matrices that keep the size of what they multiply, and norms near one."""
    draw = numpy.random.Generator(numpy.random.PCG64(7 if kind == "llama" else 8))

    def matrix(rows: int, columns: int, scale: float) -> torch.Tensor:
        # The sum of four whole numbers is nearly Gaussian, and exact in 16-bit floats after the scale.
        total = draw.integers(-128, 128, (4, rows, columns), dtype=numpy.int16).sum(0, dtype=numpy.int16)
        return torch.from_numpy(total.astype(numpy.float32) * numpy.float32(scale))

    def norm(size: int) -> torch.Tensor:
        return torch.from_numpy((1 + draw.integers(-32, 33, size) / 128).astype(numpy.float32))

    yield "model.embed_tokens.weight", matrix(ROWS, HIDDEN, 2.0**-7)
    for layer in range(LAYERS):
        before = f"model.layers.{layer}"
        yield f"{before}.input_layernorm.weight", norm(HIDDEN)
        yield f"{before}.post_attention_layernorm.weight", norm(HIDDEN)
        for name, rows, columns in (
            ("self_attn.q_proj", HEADS * HEAD, HIDDEN),
            ("self_attn.k_proj", GROUPS * HEAD, HIDDEN),
            ("self_attn.v_proj", GROUPS * HEAD, HIDDEN),
            ("self_attn.o_proj", HIDDEN, HEADS * HEAD),
            ("mlp.gate_proj", WIDE, HIDDEN),
            ("mlp.up_proj", WIDE, HIDDEN),
            ("mlp.down_proj", HIDDEN, WIDE),
        ):
            yield f"{before}.{name}.weight", matrix(rows, columns, 2.0**-11)
        if kind == "qwen3":
            yield f"{before}.self_attn.q_norm.weight", norm(HEAD)
            yield f"{before}.self_attn.k_norm.weight", norm(HEAD)
    yield "model.norm.weight", norm(HIDDEN)
    if not tied:
        yield "lm_head.weight", matrix(ROWS, HIDDEN, 2.0**-11)


_EXPERTS = {"moe_intermediate_size": 32, "num_experts": 6, "num_experts_per_tok": 2}
_GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 5}
_LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
ARCHITECTURES = {
    "llama": decoder("LlamaForCausalLM", "llama", attention_bias=True, **rope("llama3", **_LLAMA3)),
    "mistral": decoder("MistralForCausalLM", "mistral", sliding_window=None, head_dim=32),
    "qwen2": decoder("Qwen2ForCausalLM", "qwen2", tie_word_embeddings=True, **rope("linear", factor=2.0)),
    "qwen3": decoder("Qwen3ForCausalLM", "qwen3", head_dim=32, **rope("yarn", factor=4.0, attention_factor=1.3)),
    "qwen2moe": decoder("Qwen2MoeForCausalLM", "qwen2_moe", shared_expert_intermediate_size=48, **_EXPERTS),
    "qwen3moe": decoder("Qwen3MoeForCausalLM", "qwen3_moe", head_dim=32, norm_topk_prob=True, **_EXPERTS),
    "gemma": decoder("GemmaForCausalLM", "gemma", head_dim=16),
    "gemma2": decoder("Gemma2ForCausalLM", "gemma2", attn_logit_softcapping=5.0, final_logit_softcapping=3.0, **_GEMMA),
    "gemma3": decoder("Gemma3ForCausalLM", "gemma3_text", **_GEMMA, num_hidden_layers=7),
}
"""Small models without a tokenizer, one for each architecture of GGUF, with what makes it different."""


def write_architecture(name: str, folder: Path) -> Path:
    """A repository of one of ARCHITECTURES, with numbers that are exact too."""
    folder.mkdir(parents=True, exist_ok=True)
    stated = {"rms_norm_eps": 1e-6, "torch_dtype": "float32", **ARCHITECTURES[name]}
    stated.setdefault("hidden_act", "gelu_pytorch_tanh" if name.startswith("gemma") else "silu")
    (folder / "config.json").write_text(json.dumps(stated))
    found = identify_model(str(folder), SourceOptions(), default_registry())
    network = build_empty(found.architecture, found.config)
    shapes = {key: tuple(value.shape) for key, value in network.named_parameters()}
    if found.config.get("tie_word_embeddings"):
        del shapes["lm_head.weight"]
    draw = numpy.random.Generator(numpy.random.PCG64(11))
    tensors = {}
    for key, published in published_names(shapes, found.architecture.weights, shapes, found.config).items():
        shape = shapes[key]
        total = draw.integers(-128, 128, (4, *shape), dtype=numpy.int16).sum(0, dtype=numpy.int16).astype(numpy.float32)
        scale = 2.0 ** round(math.log2(1 / (148 * math.sqrt(shape[-1])))) if len(shape) > 1 else 2.0**-11
        if key == "model.embed_tokens.weight":
            scale = 2.0**-7
        values = torch.from_numpy(total * numpy.float32(scale))
        if key.endswith("norm.weight") and not name.startswith("gemma"):
            values += 1
        parts = [values] if len(published) == 1 else list(values)
        tensors.update({part: value.clone() for part, value in zip(published, parts, strict=True)})
    save_file(tensors, folder / "model.safetensors")
    return folder


def byte_level(kind: str) -> dict[str, Any]:
    """A tokenizer.json: all bytes, the words above from left to right, and three special tokens."""
    special = ["<|begin|>", "<|end|>", "<|pad|>"]
    vocabulary = {token: place for place, token in enumerate([*special, *sorted(ByteLevel.alphabet())])}
    merges = []
    for word in WORDS.split():
        for start in ("", "\u0120"):
            spelled = start + word
            for cut in range(1, len(spelled)):
                if spelled[: cut + 1] not in vocabulary and len(vocabulary) < ROWS - 6:
                    vocabulary[spelled[: cut + 1]] = len(vocabulary)
                    merges.append([spelled[:cut], spelled[cut]])
    split = SPLITS["llama-bpe" if kind == "llama" else "qwen2"]
    cuts = [{"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False} for p in split.patterns]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    first = [{"SpecialToken": {"id": "<|begin|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    around = {
        "type": "TemplateProcessing",
        "single": first,
        "pair": [*first, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|begin|>": {"id": "<|begin|>", "ids": [0], "tokens": ["<|begin|>"]}},
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": place, "content": token, **flags} for place, token in enumerate(special)],
        "normalizer": {"type": "NFC"} if split.composed else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*cuts, level]},
        "post_processor": around if kind == "llama" else None,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": split.whole,
            "vocab": vocabulary,
            "merges": merges,
        },
    }


@dataclass(frozen=True)
class Chosen:
    """A `PackingPlan` by an explicit scheme for each weight."""

    schemes: Mapping[str, str]

    @property
    def assigned(self) -> dict[str, Packing]:
        return {name: Packing(scheme, 0) for name, scheme in self.schemes.items()}

    def weights(self, puller: Any) -> Iterator[tuple[str, Any]]:
        for name in reversed(puller.names):  # in any order
            packed = pack(puller.read(name), self.schemes[name]) if name in self.schemes else None
            yield name, puller.kept(name) if packed is None else packed


def packed_stream(stream: WeightStream, scheme: str | None) -> WeightStream:
    """The stream with all its weights in a scheme, or as a mixture of llama.cpp has them."""
    names = [site.name for site in stream.sites]
    if scheme is None:
        return replace(stream, packing=None)
    if scheme in MIXTURES:
        schemes = assign(scheme, names, Traits(LAYERS, HEADS // GROUPS))
    else:
        schemes = dict.fromkeys(names, scheme)
    return replace(stream, packing=Chosen(schemes))


def write_file(folder: Path, path: Path, scheme: str | None, **options: Any) -> Path:
    """The model of a repository as a GGUF file; without a scheme in plain numbers."""
    from bestiary_quant.writing.gguf import write_gguf

    found = identify_model(str(folder), SourceOptions(), default_registry())
    with open_weights(found, default_registry(), dtype="float32") as stream:
        write_gguf(packed_stream(stream, scheme), path, scheme=scheme, unpack=scheme is None, **options)
    return path


@torch.no_grad()
def logits(model: str | Path, tokens: list[int]) -> torch.Tensor:
    """Float32 logits [T, V] of Bestiary."""
    found = identify_model(str(model), SourceOptions(), default_registry())
    network: Any = load_weights(found, default_registry(), dtype="float32", device="cpu").model
    cache = SequenceCache(len(network.specs))
    batch = make_batch([cache], [len(tokens)], "cpu", all_outputs=True)
    return network.head(network.hidden(torch.tensor(tokens), batch))
