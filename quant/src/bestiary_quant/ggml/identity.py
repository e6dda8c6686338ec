"""What a file before GGUF says of its model, and what the programs of its time took for granted.

It has neither the epsilon of the norms nor the length of the context nor the base of the rotation:

- Epsilon was the constant 1e-6 of Llama 1 until July 2023.  Then it became an option: 1e-5 for Llama 2, by default
  5e-6, which was measured to serve both (https://github.com/ggml-org/llama.cpp/pull/2374 and /pull/2384).  Llama 2 is
  younger than version 3 of ggjt, so older files are of Llama 1.
- Groups of query heads that share keys were an option as well, "-gqa 8 -eps 1e-5" for the 70B of Llama 2, the first
  model that had them; the shape of the keys tells it.
- The context of Llama 1 is 2048 long, that of Llama 2 4096; the base of both is 10000.

The config.json of the same model says all of this, where it lies beside the file: Code Llama has another base.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from bestiary.config import read_json
from bestiary.errors import CheckpointError, OptionError, shown
from bestiary.protocols import Repository
from bestiary.records import Evidence
from bestiary_quant.ggml.checkpoint import read_file
from bestiary_quant.ggml.header import GgmlHeader
from bestiary_quant.ggml.selection import files

log = logging.getLogger("bestiary.quant")

EPSILON_1, EPSILON_2, EPSILON_BOTH = 1e-6, 1e-5, 5e-6
CONTEXT_1, CONTEXT_2 = 2048, 4096
SAME = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
"""What a config.json must have in common with the file to be that of its model."""
UNSAID = ("rms_norm_eps", "max_position_embeddings", "rope_theta", "rope_scaling", "rope_parameters")
"""What it says then, and the file does not."""


def identify(repository: Repository, name: str, *, gqa: int | None = None) -> Evidence:
    """The architecture and the configuration; `name` may be any file of the format in the repository.

    What the file does not say is taken from config.json beside it, if that is of a model of the same sizes.  A remote
    file is fetched, for its shapes stand between its data.  `gqa` is how many query heads share a key head, if the user
    says so; the shapes decide, and OptionError tells where they disagree.  Raises CheckpointError.
    """
    header, mapped = read_file(repository, files(repository)[0])
    mapped.close()
    config = hugging_face_config(header, gqa)
    config.update(_said_beside(repository, config))
    return Evidence(files=tuple(repository.files()), config=config, gguf="llama", origin=header.origin)


def hugging_face_config(header: GgmlHeader, gqa: int | None = None) -> dict[str, Any]:
    """A config.json of the model.  Raises CheckpointError where the shapes are not those of a Llama."""
    sizes, tensors = header.sizes, header.tensors
    _check_whole(header)
    head_dim, rest = divmod(sizes.embd, sizes.head)
    if rest or sizes.rot != head_dim:
        raise _unfit(header, f"{sizes.head} heads turn {sizes.rot} of their numbers in a width of {sizes.embd}")
    keys = tensors["layers.0.attention.wk.weight"].shape
    key_heads, rest = divmod(keys[0], head_dim)
    if rest or not key_heads or sizes.head % key_heads:
        raise _unfit(header, f"{sizes.head} heads of {head_dim} numbers have keys of the shape {list(keys)}")
    group = sizes.head // key_heads
    _check_asserted(gqa, group, header.origin)
    if header.version.mark != "ggjt" or header.version.number < 3:
        epsilon = EPSILON_1
    else:
        epsilon = EPSILON_2 if group > 1 else EPSILON_BOTH
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "vocab_size": sizes.vocab,
        "hidden_size": sizes.embd,
        "intermediate_size": tensors["layers.0.feed_forward.w1.weight"].shape[0],
        "num_hidden_layers": sizes.layer,
        "num_attention_heads": sizes.head,
        "num_key_value_heads": key_heads,
        "head_dim": head_dim,
        "rms_norm_eps": epsilon,
        "rope_theta": 10000.0,
        "max_position_embeddings": CONTEXT_2 if group > 1 else CONTEXT_1,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def _said_beside(repository: Repository, config: Mapping[str, Any]) -> dict[str, Any]:
    name = "config.json"
    if name not in repository.files():
        return {}
    beside = read_json(repository.path(name))
    if different := [key for key in SAME if beside.get(key) != config[key]]:
        log.info("%s: config.json differs in %s and is left aside", repository.origin, ", ".join(different))
        return {}
    return {key: beside[key] for key in UNSAID if key in beside}


def _check_whole(header: GgmlHeader) -> None:
    """The first converters wrote larger models in parts, each with a slice of every matrix (`FILE`, `FILE.1` ...)."""
    found, due = header.tensors["tok_embeddings.weight"].shape, (header.sizes.vocab, header.sizes.embd)
    if found == due:
        return
    if len(found) == 2 and found[0] == due[0] and 0 < found[1] < due[1] and due[1] % found[1] == 0:
        raise CheckpointError(
            f"The file is one of {due[1] // found[1]} parts of a model, each with a slice of every matrix.",
            where=header.origin,
            fix="take a file of the model in one part; `convert.py` of llama.cpp before GGUF joins parts",
        )
    raise _unfit(header, f"the embedding has the shape {list(found)}, where {list(due)} is due")


def _check_asserted(gqa: object, group: int, origin: str) -> None:
    if gqa is None:
        return
    if isinstance(gqa, bool) or not isinstance(gqa, int) or gqa < 1:
        raise OptionError(f"gqa is {shown(gqa)}; a whole number of at least 1 is due.", where=origin)
    if gqa != group:
        raise OptionError(
            f"gqa is {gqa}; the shapes of this model say {group}.",
            where=origin,
            fix="leave gqa out: it is read from the file",
        )


def _unfit(header: GgmlHeader, what: str) -> CheckpointError:
    return CheckpointError(
        f"This is no Llama: {what}.", where=header.origin, fix="take a GGUF file of the model, or fetch this one again"
    )
