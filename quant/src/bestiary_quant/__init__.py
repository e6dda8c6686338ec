"""GGUF files and weights that stay packed, for Bestiary."""

from collections.abc import Sequence
from typing import Any

import bestiary
from bestiary_quant.checkpoints.resolver import READERS, recognise
from bestiary_quant.ggml.header import sniff as sniff_ggml
from bestiary_quant.gguf.header import sniff
from bestiary_quant.planning.choosing import NAMES
from bestiary_quant.uqff.selection import sniff as sniff_uqff


@bestiary.hookimpl
def bestiary_loaders() -> Sequence[bestiary.Loader]:
    return [
        bestiary.Loader(
            "gguf",
            (".gguf",),
            sniff,
            "bestiary_quant.gguf.companions:weight_files",
            "bestiary_quant.gguf.checkpoint:open",
            headers="bestiary_quant.gguf.checkpoint:open_header",
            identify="bestiary_quant.gguf.identity:identify",
            choose="bestiary_quant.gguf.selection:chosen",
            text="bestiary_quant.gguf_tokenizer.carried:carried_text",
            options=("mmproj",),
        ),
        bestiary.Loader(
            "uqff",
            (".uqff",),
            sniff_uqff,
            "bestiary_quant.uqff.selection:files",
            "bestiary_quant.uqff.checkpoint:open",
            headers="bestiary_quant.uqff.checkpoint:open_header",
            choose="bestiary_quant.uqff.selection:chosen",
            priority=20,  # such a folder has a .safetensors file too, which is no model by itself
        ),
        bestiary.Loader(
            "ggml",
            (".bin", ".ggml"),
            sniff_ggml,
            "bestiary_quant.ggml.selection:files",
            "bestiary_quant.ggml.checkpoint:open",
            identify="bestiary_quant.ggml.identity:identify",
            choose="bestiary_quant.ggml.selection:chosen",
            text="bestiary_quant.ggml.carried:carried_text",
            options=("gqa",),
            shared=True,
            priority=-1,
        ),
    ]


@bestiary.hookimpl
def bestiary_quantizers() -> Sequence[bestiary.Quantizer]:
    return [
        bestiary.Quantizer("blocks", NAMES, plan="bestiary_quant.planning.plan:plan"),
        bestiary.Quantizer(
            "checkpoints",
            methods=tuple(READERS),
            recognise=recognise,
            files=("quantize_config.json", "quant_config.json", "hf_quant_config.json"),
            load="bestiary_quant.checkpoints.loading:load",
        ),
    ]


@bestiary.hookimpl
def bestiary_commands(cli: Any) -> None:
    from bestiary_quant.cli import add_commands

    add_commands(cli)
