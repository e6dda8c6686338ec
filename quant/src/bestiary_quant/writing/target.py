"""What `--to` asks for: a format, and perhaps a scheme.  Nothing here imports torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bestiary.errors import OptionError, shown
from bestiary.nearest import did_you_mean
from bestiary_quant.writing.filetypes import PLAIN, known_scheme

FORMATS = ("gguf", "uqff", "safetensors")
_SIZE = re.compile(r"([0-9]{1,12})([kmgtKMGT]?)[bB]?")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_TYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class Target:
    """A format, and the scheme or mixture of its packed weights; None: plain ones."""

    format: str
    scheme: str | None = None
    dtype: str | None = None
    """The type of plain weights, where it was asked for as if it were a scheme (gguf:f16)."""

    def path(self, output: Path | None, model: str) -> Path:
        """Where the model goes: a file for GGUF, else a folder."""
        name = model.replace("\\", "/").rstrip("/").rpartition("/")[2].removesuffix(".gguf") or "model"
        label = self.scheme or (self.dtype and next(short for short, long in _TYPES.items() if long == self.dtype))
        if self.format != "gguf":
            return output or Path(f"{name}-{label or self.format}")
        file = f"{name}-{(label or 'plain').upper()}.gguf"
        return Path(file) if output is None else output if output.suffix == ".gguf" else output / file


def parse_target(text: str) -> Target:
    """Of "gguf:q4_k_m", "safetensors:fp8", "uqff:q4k" or a format alone.  Raises OptionError for anything else."""
    form, _, scheme = text.strip().lower().partition(":")
    if form not in FORMATS:
        hint = did_you_mean(form, FORMATS)
        raise OptionError(
            f"There is no format {shown(form)}. {hint}".rstrip(), fix="--to gguf:q4_k_m, safetensors:fp8, uqff:q4k ..."
        )
    if not scheme:
        if form == "uqff":
            raise OptionError("UQFF holds packed weights, and no scheme is named.", fix="--to uqff:q4k")
        return Target(form)
    if scheme in PLAIN and form != "uqff":
        return Target(form, None, _TYPES[scheme])
    if form == "gguf":
        return Target(form, known_scheme(scheme))
    if form == "safetensors":
        from bestiary_quant.writing.quantized import known_layout

        return Target(form, known_layout(scheme))
    return Target(form, scheme)


def parse_size(text: str | None) -> int | None:
    """Bytes of "4G" or "500M", in powers of 1000 as llama.cpp counts.  Raises OptionError."""
    if text is None:
        return None
    found = _SIZE.fullmatch(text.strip())
    count = int(found[1]) * 1000 ** _POWERS[found[2].lower()] if found else 0
    if not 0 < count < 1 << 60:
        raise OptionError(f"--split-max-size is {shown(text)}; a size is due.", fix="such as 4G or 500M")
    return count
