"""GGUF files and weights that stay packed, for Bestiary."""

from collections.abc import Sequence

import bestiary
from bestiary_quant.gguf.header import sniff
from bestiary_quant.making.schemes import SCHEMES


@bestiary.hookimpl
def bestiary_loaders() -> Sequence[bestiary.Loader]:
    return [
        bestiary.Loader(
            "gguf",
            (".gguf",),
            sniff,
            "bestiary_quant.gguf.selection:files",
            "bestiary_quant.gguf.checkpoint:open",
            headers="bestiary_quant.gguf.checkpoint:open_header",
            identify="bestiary_quant.gguf.identity:identify",
            choose="bestiary_quant.gguf.selection:chosen",
            text="bestiary_quant.gguf_tokenizer.carried:carried_text",
        )
    ]


@bestiary.hookimpl
def bestiary_quantizers() -> Sequence[bestiary.Quantizer]:
    return [bestiary.Quantizer("blocks", tuple(SCHEMES), pack="bestiary_quant.making.pack:pack")]
