"""A configuration made from metadata says what the config.json said from which the metadata was made."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import gguf
import numpy
import pytest
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from bestiary.config import FULL, SLIDING, Config, normalise
from bestiary.errors import CheckpointError
from bestiary.nn import Rope
from bestiary.sources.folder import Folder
from bestiary.testing.reference import make_reference
from bestiary.testing.tiny import decoder, rope
from bestiary_quant.gguf.identity import identify

LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
GEMMA = {"head_dim": 16, "hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": True}
MOE = {"moe_intermediate_size": 32, "num_experts": 6, "num_experts_per_tok": 2}
TINY: dict[str, dict[str, Any]] = {
    "llama": decoder("LlamaForCausalLM", "llama", **rope("default", rope_theta=500000.0)),
    "llama tied": decoder("LlamaForCausalLM", "llama", head_dim=32, tie_word_embeddings=True),
    "llama biased": decoder("LlamaForCausalLM", "llama", attention_bias=True, mlp_bias=True, rms_norm_eps=1e-5),
    "llama linear": decoder("LlamaForCausalLM", "llama", **rope("linear", factor=4.0)),
    "qwen2": decoder("Qwen2ForCausalLM", "qwen2", num_key_value_heads=4),
    "qwen2 yarn": decoder("Qwen2ForCausalLM", "qwen2", **rope("yarn", factor=4.0, original_max_position_embeddings=64)),
    "qwen2moe": decoder("Qwen2MoeForCausalLM", "qwen2_moe", shared_expert_intermediate_size=48, **MOE),
    "qwen3": decoder("Qwen3ForCausalLM", "qwen3", head_dim=24, tie_word_embeddings=True),
    "qwen3moe": decoder("Qwen3MoeForCausalLM", "qwen3_moe", head_dim=32, norm_topk_prob=True, **MOE),
    "gemma": decoder("GemmaForCausalLM", "gemma", **GEMMA),
    "gemma2": decoder("Gemma2ForCausalLM", "gemma2", sliding_window=5, query_pre_attn_scalar=16, **GEMMA),
    "gemma3": decoder(
        "Gemma3ForCausalLM",
        "gemma3_text",
        sliding_window=5,
        query_pre_attn_scalar=16,
        num_hidden_layers=7,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
        **GEMMA,
    ),
}
"""What GGUF can say; windows of single Qwen layers, for example, it cannot."""
IRRELEVANT = {
    *("dtype", "transformers_version", "use_cache", "initializer_range", "attention_dropout"),
    *("output_router_logits", "router_aux_loss_coef", "pretraining_tp", "_sliding_window_pattern"),
}
ABSENT: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("attention_bias", "mlp_bias", "use_sliding_window", "use_bidirectional_attention"), (False, None)),
    **dict.fromkeys(("attn_logit_softcapping", "final_logit_softcapping"), (None,)),
    "sliding_window": (None, 0),
    "max_window_layers": (28,),  # which says something only beside use_sliding_window
    "qkv_bias": (True,),
}
"""What our configuration may leave out where the original says this, for a Qwen without a word has biases."""


@pytest.fixture(scope="module", params=TINY)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, converting: ModuleType
) -> tuple[dict[str, Any], Path]:
    """A config.json of transformers, and the GGUF file of its model."""
    folder = tmp_path_factory.mktemp("pair")
    reference = make_reference(TINY[request.param], folder / "hf")
    (folder / "gguf").mkdir()
    path = converting.convert(reference, folder / "gguf" / "model.gguf")
    return json.loads((folder / "hf" / "config.json").read_text()), path


def config_of(path: Path) -> dict[str, Any]:
    return dict(identify(Folder(path.parent, "test"), path.name).config)


def comparable(values: dict[str, Any]) -> Config:
    config = normalise({key: value for key, value in values.items() if key not in IRRELEVANT}, "x")
    return Config({**config, "head_dim": config.get("head_dim")}, "x")


def test_every_key_of_the_original_is_there(pair: tuple[dict[str, Any], Path]) -> None:
    theirs, ours = comparable(pair[0]), comparable(config_of(pair[1]))
    for key, value in theirs.items():
        if key in ours:
            assert ours[key] == value, key
        else:
            assert value in ABSENT[key], key


@pytest.mark.parametrize("pair", [name for name in TINY if name != "gemma"], indirect=True)
def test_transformers_reads_the_same_from_the_file(pair: tuple[dict[str, Any], Path]) -> None:
    theirs, ours = load_gguf_checkpoint(str(pair[1]))["config"], config_of(pair[1])  # type: ignore[no-untyped-call]
    seen = [key for key in theirs if key in ours]
    assert len(seen) >= 11
    for key in set(seen) - {"model_type", "architectures", "vocab_size"}:
        assert ours[key] == pytest.approx(theirs[key], rel=1e-7), key


def test_evidence(pair: tuple[dict[str, Any], Path]) -> None:
    evidence = identify(Folder(pair[1].parent, "test"), "model.gguf")
    assert evidence.gguf in ("llama", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "gemma", "gemma2", "gemma3")
    assert evidence.files == ("model.gguf",) and evidence.origin.endswith("model.gguf")
    assert evidence.config["architectures"] == pair[0]["architectures"]


def test_the_factors_of_llama_3_give_its_frequencies(tmp_path: Path, converting: ModuleType) -> None:
    reference = make_reference(decoder("LlamaForCausalLM", "llama", **rope("llama3", **LLAMA3)), tmp_path / "hf")
    (tmp_path / "gguf").mkdir()
    config = comparable(config_of(converting.convert(reference, tmp_path / "gguf" / "a.gguf")))
    ours = Rope(16, config.rope())
    theirs = Rope(16, {"rope_type": "llama3", "rope_theta": 10000.0, **LLAMA3})
    assert ours.magnitude == theirs.magnitude == 1.0
    for frequencies in ours.frequencies:
        numpy.testing.assert_allclose(frequencies, theirs.frequencies, rtol=3e-7)


Write = Callable[..., dict[str, Any]]


@pytest.fixture
def written(tmp_path: Path, converting: ModuleType) -> Write:
    """The configuration of a file with these keys (behind its architecture's name) and tensors."""

    def write(architecture: str, *tensors: tuple[str, tuple[int, ...]], **keys: Any) -> dict[str, Any]:
        writer = gguf.GGUFWriter(tmp_path / "a.gguf", architecture)
        for key, value in keys.items():
            name = f"{architecture}.{key.replace('__', '.')}"
            kinds = {bool: "bool", int: "uint32", float: "float32", str: "string", list: "array"}
            getattr(writer, f"add_{kinds[type(value)]}")(name, value)
        for name, shape in tensors:
            writer.add_tensor(name, numpy.arange(1, numpy.prod(shape) + 1, dtype=numpy.float32).reshape(shape))
        return config_of(converting.write(writer, tmp_path / "a.gguf"))

    return write


@pytest.mark.parametrize(("architecture", "layers", "scalar"), [("gemma2", 46, 144), ("gemma3", 62, 168)])
def test_the_largest_gemmas_scale_queries_by_their_width(
    architecture: str, layers: int, scalar: int, written: Write
) -> None:
    """144 and 168 stand in the config.json of gemma-2-27b and gemma-3-27b, whose heads have 128 dimensions."""
    sizes = {
        "embedding_length": {46: 4608, 62: 5376}[layers],
        "attention__head_count": 32,
        "attention__key_length": 128,
    }
    assert written(architecture, block_count=layers, **sizes)["query_pre_attn_scalar"] == scalar
    assert written(architecture, block_count=layers - 1, **sizes)["query_pre_attn_scalar"] == 128


def test_the_vocabulary_is_as_long_as_the_embedding(written: Write) -> None:
    embedding = ("token_embd.weight", (7, 4))
    assert written("llama", embedding, vocab_size=9)["vocab_size"] == 7
    assert written("llama", vocab_size=9)["vocab_size"] == 9
    assert written("llama", embedding)["tie_word_embeddings"] is True
    assert written("llama", embedding, ("output.weight", (7, 4)))["tie_word_embeddings"] is False


def test_values_of_every_layer(written: Write) -> None:
    assert written("llama", attention__head_count_kv=[4, 4, 4])["num_key_value_heads"] == 4
    with pytest.raises(CheckpointError, match=r"head_count_kv.*differs from layer to layer"):
        written("llama", attention__head_count_kv=[4, 2])
    assert written("lfm2", attention__head_count_kv=[0, 8])["num_key_value_heads"] == [0, 8]
    with pytest.raises(CheckpointError, match="has 4097 items"):
        written("llama", attention__head_count_kv=[4] * 4097)
    with pytest.raises(CheckpointError, match="whole numbers are due"):
        written("llama", attention__head_count=["four"])


def test_windows(written: Write) -> None:
    config = written("gemma3", attention__sliding_window=5, attention__sliding_window_pattern=[True, False, True])
    assert config["layer_types"] == [SLIDING, FULL, SLIDING]
    assert written("gemma3", attention__sliding_window_pattern=4)["sliding_window_pattern"] == 4
    assert written("gemma3")["sliding_window_pattern"] == 6 and written("gemma2")["sliding_window_pattern"] == 2


def test_rotary_forms(written: Write) -> None:
    assert "rope_scaling" not in written("qwen2", rope__scaling__type="none")
    assert "rope_scaling" not in written("qwen2", rope__scaling__type="linear", rope__scaling__factor=1.0)
    assert written("qwen2", rope__scaling__factor=2.0)["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}
    yarn = written(
        "qwen2",
        rope__scaling__type="yarn",
        rope__scaling__factor=4.0,
        rope__scaling__original_context_length=32768,
        rope__scaling__yarn_beta_fast=32.0,
        rope__scaling__yarn_beta_slow=0.1,
        rope__scaling__yarn_attn_factor=0.5,
    )["rope_scaling"]
    assert yarn.pop("attention_factor") == pytest.approx(0.5 * 1.1386294361)
    assert yarn == {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32768,
        "beta_fast": 32.0,
        "beta_slow": 0.1,
    }
    long = written(
        "phi3",
        ("rope_factors_long.weight", (3,)),
        ("rope_factors_short.weight", (2,)),
        rope__scaling__original_context_length=4096,
        rope__scaling__attn_factor=1.1902380714238083,
    )["rope_scaling"]
    assert long == {
        "rope_type": "longrope",
        "long_factor": [1.0, 2.0, 3.0],
        "short_factor": [1.0, 2.0],
        "original_max_position_embeddings": 4096,
        "attention_factor": 1.1902381,
    }
    llama3 = written("llama", ("rope_freqs.weight", (2,)), context_length=64, rope__scaling__original_context_length=16)
    assert llama3["rope_scaling"] == {
        "rope_type": "longrope",
        "short_factor": [1.0, 2.0],
        "long_factor": [1.0, 2.0],
        "original_max_position_embeddings": 16,
        "attention_factor": 1.0,
    }
    assert written("stablelm", rope__dimension_count=20, attention__key_length=80)["partial_rotary_factor"] == 0.25
    assert written("llama", rope__dimension_count=80)["head_dim"] == 80
    with pytest.raises(CheckpointError, match=r"rope_freqs\.weight are 5000 numbers"):
        written("llama", ("rope_freqs.weight", (5000,)))


def test_a_name_as_long_as_a_file_is_refused(tmp_path: Path, converting: ModuleType) -> None:
    for key, length, says in (
        ("general.architecture", 101, "up to 100 bytes"),
        ("llama.rope.scaling.type", 1 << 21, "up"),
    ):
        writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
        writer.add_string(key, "x" * length)
        with pytest.raises(CheckpointError, match=says) as caught:
            config_of(converting.write(writer, tmp_path / "a.gguf"))
        assert len(str(caught.value)) < 1000


def test_a_file_that_does_not_say_what_it_is(tmp_path: Path, converting: ModuleType) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    del writer.kv_data[0]["general.architecture"]
    with pytest.raises(CheckpointError, match=r"no general\.architecture"):
        config_of(converting.write(writer, tmp_path / "a.gguf"))


def test_experts_make_a_llama_a_mixtral(written: Write) -> None:
    config = written("llama", expert_count=8, expert_used_count=2)
    assert config["architectures"] == ["MixtralForCausalLM"] and config["model_type"] == "mixtral"
    assert written("llama", expert_count=0)["architectures"] == ["LlamaForCausalLM"]


def test_an_unknown_architecture_says_what_it_can(written: Write) -> None:
    assert written("newt", embedding_length=64, block_count=3) == {
        "model_type": "newt",
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "tie_word_embeddings": True,
    }


@pytest.mark.parametrize(
    ("key", "value"), [("block_count", "3"), ("rope__freq_base", float("nan")), ("block_count", True)]
)
def test_values_of_a_wrong_type_are_errors(key: str, value: Any, written: Write) -> None:
    with pytest.raises(CheckpointError, match=key.replace("__", r"\.")):
        written("llama", **{key: value})
