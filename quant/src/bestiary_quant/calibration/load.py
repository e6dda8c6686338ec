"""What the options of a load mean: `calibration_file`, a text, and `imatrix`, what a text has shown before."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from bestiary.config import Config
from bestiary.errors import OptionError, shown
from bestiary.pulling import Puller
from bestiary.records import PackingRequest, Progress
from bestiary_quant.calibration.calibrated import EMBEDDING, HEAD, calibrated
from bestiary_quant.calibration.files import read_importance
from bestiary_quant.calibration.importance import Importance
from bestiary_quant.calibration.layer import Weight
from bestiary_quant.calibration.text import CHUNK, CHUNKS

MOST = CHUNK * CHUNKS * 16
"""Bytes of a text that are read; tokens of text have some four."""


def calibrated_weights(
    schemes: Mapping[str, str | None],
    request: PackingRequest,
    config: Config,
    puller: Puller,
    progress: Callable[[Progress], None] | None = None,
) -> Iterator[tuple[str, Weight]]:
    """Every parameter, packed by its scheme on the text of the request (see `calibrated`).

    Raises OptionError, at once, for a request without a tokenizer and a file that holds no text.
    """
    if request.calibration_file is None or request.encode is None:
        missing = "calibration_file" if request.calibration_file is None else "tokenizer"
        raise OptionError(f"Calibration needs a text and the model's tokenizer, and there is no {missing}.")
    tokens = read_tokens(request.calibration_file, request.encode)
    return calibrated(schemes, tokens, config, puller, progress=progress)


def importance_of(
    source: str | Importance | Mapping[str, torch.Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    architecture: str | None = None,
) -> dict[str, torch.Tensor]:
    """Of each weight of these shapes that a file, a record or means by name know: [in], or [experts, in].

    An embedding gets what is known of the head, where `shapes` have no head of its own: then it is one too.
    Raises CheckpointError for a malformed file, OptionError where it is of another model: of other widths, or of none
    of the weights.
    """
    if isinstance(source, str):
        source = read_importance(source, architecture)
    if not isinstance(source, Importance):
        source = Importance(source, {name: torch.ones(1, dtype=torch.int64) for name in source})
    found = {}
    for name, shape in shapes.items():
        means = source.of(name, shape)
        if means is None and name == EMBEDDING and HEAD not in shapes:
            means = source.of(HEAD, shape)
        if means is not None:
            found[name] = means
    if shapes and not found:
        known = next(iter(source.values), "nothing")
        raise OptionError(
            f"The importance matrix knows none of the weights that are to be packed; it begins with {shown(known)}.",
            fix="use one that was made with this model",
        )
    return found


def read_tokens(path: str, encode: Callable[[str], Sequence[int]]) -> Sequence[int]:
    """The tokens of the beginning of a text file in UTF-8, as much of it as calibration uses.  Raises OptionError."""
    try:
        if not Path(path).is_file():  # a pipe would be waited for
            raise OptionError("There is no such file to calibrate on.", where=path, fix="name a text file")
        with Path(path).open("rb") as file:
            content = file.read(MOST + 1)
        decoder = codecs.getincrementaldecoder("utf-8")()
        text = decoder.decode(content[:MOST], final=len(content) <= MOST)
    except UnicodeDecodeError as error:
        raise OptionError(
            f"The file to calibrate on is no text: {error.reason} at byte {error.start}.",
            where=path,
            fix="save it as UTF-8",
        ) from None
    except (OSError, ValueError) as error:
        raise OptionError(f"The file to calibrate on cannot be read: {error}.", where=path) from error
    return encode(text)
