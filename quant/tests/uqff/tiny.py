"""Tiny models for these tests, whose numbers are the same wherever they are made."""

import json
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors.torch import save_file

VOCABULARY = 104
_LETTERS = [chr(code) for code in range(32, 127)]
_SPECIAL = ["<unk>", "<s>", "</s>"]
TOKENS = [*_SPECIAL, *_LETTERS, *(f"<{number}>" for number in range(len(_SPECIAL) + len(_LETTERS), VOCABULARY))]
_SIZES = {"hidden_size": 256, "intermediate_size": 64, "vocab_size": VOCABULARY, "max_position_embeddings": 128}
_COMMON = {
    **_SIZES,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}
QWEN2: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    **_COMMON,
    "num_attention_heads": 8,
    "num_hidden_layers": 1,
    "tie_word_embeddings": True,
    "sliding_window": None,
    "use_sliding_window": False,
    "max_window_layers": 1,
}
"""Its projections of queries, keys and values have biases."""
MISTRAL: dict[str, Any] = {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    **_COMMON,
    "head_dim": 32,
    "num_hidden_layers": 2,
    "tie_word_embeddings": False,
    "sliding_window": None,
}
"""A Llama whose heads have a size of their own, which mistral.rs does not read for Llama itself."""
LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    **_COMMON,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "num_hidden_layers": 1,
    "tie_word_embeddings": False,
}
SMALL = {**MISTRAL, "num_hidden_layers": 1, "tie_word_embeddings": True}


def weights(config: dict[str, Any], seed: int = 11) -> dict[str, torch.Tensor]:
    """Random numbers under the names of Llama, with biases for Qwen2."""
    random = numpy.random.RandomState(seed)
    dim, wide = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim", dim // config["num_attention_heads"])
    queries, keys = head * config["num_attention_heads"], head * config["num_key_value_heads"]

    def made(scale: float, *shape: int, middle: float = 0.0) -> torch.Tensor:
        return torch.from_numpy((middle + scale * random.standard_normal(shape)).astype(numpy.float32))

    tensors = {"model.embed_tokens.weight": made(1.0 if not config["tie_word_embeddings"] else 0.2, VOCABULARY, dim)}
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}"
        for name, shape in (
            ("self_attn.q_proj", (queries, dim)),
            ("self_attn.k_proj", (keys, dim)),
            ("self_attn.v_proj", (keys, dim)),
            ("self_attn.o_proj", (dim, queries)),
            ("mlp.gate_proj", (wide, dim)),
            ("mlp.up_proj", (wide, dim)),
            ("mlp.down_proj", (dim, wide)),
        ):
            tensors[f"{layer}.{name}.weight"] = made(0.08, *shape)
            if config["model_type"] == "qwen2" and name[-6:] in ("q_proj", "k_proj", "v_proj"):
                tensors[f"{layer}.{name}.bias"] = made(0.1, shape[0])
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{layer}.{name}.weight"] = made(0.05, dim, middle=1.0)
    tensors["model.norm.weight"] = made(0.05, dim, middle=1.0)
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = made(0.2, VOCABULARY, dim)
    return tensors


def save_gguf(config: dict[str, Any], path: Path) -> None:
    """The model of a Llama's configuration as a GGUF file, in float32, with a list of its tokens."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    heads = {"q": config["num_attention_heads"], "k": config["num_key_value_heads"]}
    writer.add_head_count(heads["q"])
    writer.add_head_count_kv(heads["k"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads["q"])
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([-float(number) for number in range(VOCABULARY)])
    writer.add_token_types([1] * VOCABULARY)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, tensor in weights(config).items():
        module = name.split(".")[-2]
        if module in ("q_proj", "k_proj"):  # LlamaModel.permute of convert_hf_to_gguf.py
            rows = tensor.reshape(heads[module[0]], 2, -1, *tensor.shape[1:])
            tensor = rows.swapaxes(1, 2).reshape(tensor.shape)
        writer.add_tensor(table.get_name(name, (".weight",)), tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def save(config: dict[str, Any], folder: Path) -> dict[str, torch.Tensor]:
    """A model folder with a tokenizer whose tokens are the letters of ASCII."""
    from tokenizers import Tokenizer, decoders, models

    folder.mkdir(parents=True)
    tensors = weights(config)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    tokenizer = Tokenizer(models.BPE({token: id for id, token in enumerate(TOKENS)}, [], unk_token="<unk>"))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.save(str(folder / "tokenizer.json"))
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    said = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": template}
    for name, content in (("config.json", config), ("tokenizer_config.json", said)):
        (folder / name).write_text(json.dumps(content, indent=1) + "\n")
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2}) + "\n")
    return tensors
