"""A whole model, calibrated and packed layer by layer.

The text goes through one layer after another.  A layer's plain weights are read, what they are multiplied with is
measured, they are packed, and the text goes through the packed layer to the next one, which is so calibrated on what it
will see.  Of the model there is never more in memory than one layer, and what its reader keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from bestiary.config import Config
from bestiary.errors import OptionError
from bestiary.nn import CausalLM, Decoder
from bestiary.pulling import Puller
from bestiary.records import Progress
from bestiary_quant.calibration.folds import folds
from bestiary_quant.calibration.grid import rounded
from bestiary_quant.calibration.layer import Layer, Settings, Weight, targets_of
from bestiary_quant.calibration.methods import METHODS, method_of
from bestiary_quant.calibration.packing import packed_layer
from bestiary_quant.calibration.running import Run
from bestiary_quant.calibration.taps import See, Taps
from bestiary_quant.calibration.text import CHUNK, CHUNKS, causal, cut
from bestiary_quant.making.pack import pack, tell
from bestiary_quant.making.schemes import find

EMBEDDING, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm."


def calibrated(
    request_scheme_of: Mapping[str, str | None],
    tokens: Sequence[int],
    config: Config,
    puller: Puller,
    *,
    chunk: int = CHUNK,
    chunks: int = CHUNKS,
    settings: Settings | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Iterator[tuple[str, Weight]]:
    """Every parameter of the puller's network exactly once, packed by the scheme that is asked for its name.

    Schemes are those of `making.schemes`, with importance from the text where they make use of it, and those of
    `methods`; a weight of None, or without an entry, stays as the checkpoint has it, and so does one whose rows no
    group fits.  AWQ changes norms and plain weights as well, so that the network stays the same.  With `chunks` of
    `chunk` tokens, or fewer where the text is shorter, the result is the same every time.
    Raises OptionError, before anything is read, for a network that is no CausalLM of a Decoder, an unknown scheme or
    name, and a text that is too short; while weights are made, GenerationError for states that are not finite.
    """
    model = causal(puller.model)
    if not isinstance(model.model, Decoder):
        raise OptionError(f"Calibration needs a Decoder, and the network has a {type(model.model).__name__}.")
    for name, scheme in request_scheme_of.items():
        if name not in puller.names:
            raise OptionError(f"The network has no weight {name!r} of its own to be packed.")
        if scheme is not None and method_of(scheme) is None:
            _known(scheme)
    bos = config.text.get("bos_token_id")
    parts = cut(tokens, model.vocab_size, chunk=chunk, chunks=chunks, bos=bos if isinstance(bos, int) else None)
    return _Calibration(model, request_scheme_of, puller, parts, settings or Settings(), progress).weights()


def _known(scheme: str) -> None:
    try:
        find(scheme)
    except OptionError as error:
        raise OptionError(error.what, fix=f"{error.fix}; or, with a text, {', '.join(METHODS)}") from None


@dataclass
class _Calibration:
    model: CausalLM
    scheme_of: Mapping[str, str | None]
    puller: Puller
    chunks: Sequence[torch.Tensor]
    settings: Settings
    progress: Callable[[Progress], None] | None
    done: int = 0

    @torch.no_grad()
    def weights(self) -> Iterator[tuple[str, Weight]]:
        puller, decoder = self.puller, self.model.model
        for module in self.model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(puller.device))
        run = Run(self.model, self.chunks, puller.device)
        tied = HEAD not in puller.names
        left = dict.fromkeys(puller.names)
        embedding = self._kept(EMBEDDING)
        puller.put(EMBEDDING, embedding)
        run.embed()
        self._away(EMBEDDING)
        if not tied:
            left.pop(EMBEDDING)
            yield EMBEDDING, self._unmeasured(EMBEDDING, embedding)
        del embedding
        for index in range(len(decoder.layers)):
            names = [name for name in left if name.startswith(f"model.layers.{index}.")]
            made = self._layer(run, index, names)
            for name in names:
                left.pop(name)
                yield name, made.pop(name)
        for name in [name for name in left if name.startswith(NORM)]:
            left.pop(name)
            weight = self._kept(name)
            puller.put(name, weight)
            yield name, weight
        run.norm()
        head = EMBEDDING if tied else HEAD
        left.pop(head)
        yield head, self._head(run, head)
        for name in left:
            yield name, self._unmeasured(name, self._kept(name))

    def _layer(self, run: Run, index: int, names: Sequence[str]) -> dict[str, Weight]:
        """The layer's parameters; the run then stands behind it, and the network holds nothing of it."""
        module, front = self.model.model.layers[index], f"model.layers.{index}."

        def show(see: Mapping[str, See]) -> None:
            taps = Taps(module, {name.removeprefix(front): seer for name, seer in see.items()})
            taps.open()
            try:
                for number, _ in enumerate(run.layer(index)):
                    self._tick(2 * index, number)
            finally:
                taps.close()

        targets = targets_of(self.scheme_of, names, self.puller.shape)
        packing = {target.name for target in targets}
        weights = {name: self.puller.plain(name) if name in packing else self._kept(name) for name in names}
        for name, weight in weights.items():
            self.puller.put(name, weight)
        made = packed_layer(
            Layer(targets, weights, self._source, show, self.puller.put, self.settings), folds(module, front)
        )
        weights.clear()
        for name, weight in made.items():
            # Plain numbers multiply alike, and are made once for all chunks of the text.
            self.puller.put(name, weight if isinstance(weight, torch.Tensor) else weight.dequantize(self.puller.dtype))
        for number, hidden in enumerate(run.layer(index)):
            run.hidden[number] = hidden
            self._tick(2 * index + 1, number)
        for name in names:
            self._away(name)
        self.puller.release()
        return made

    def _head(self, run: Run, name: str) -> Weight:
        """The output head, or the embedding that is one too."""

        def show(see: Mapping[str, See]) -> None:
            for x in run.hidden:
                for seer in see.values():
                    seer(x, None)

        targets = targets_of(self.scheme_of, [name], self.puller.shape)
        weights = {name: self.puller.plain(name) if targets else self._kept(name)}
        return packed_layer(Layer(targets, weights, self._source, show, self.puller.put, self.settings))[name]

    def _unmeasured(self, name: str, weight: Weight) -> Weight:
        """A weight that is multiplied with nothing, an embedding: by its scheme without importance."""
        for target in targets_of(self.scheme_of, [name], self.puller.shape):
            if target.method is not None and target.experts is None:
                return rounded(self._source(name), target.method.bits, target.group)
            if method_of(target.scheme) is None:
                return pack(self._source(name), target.scheme, name=name, report=tell) or weight
        return weight

    def _kept(self, name: str) -> Weight:
        held = self.puller.held(name)
        return self.puller.plain(name) if held is None else held

    def _source(self, name: str) -> torch.Tensor:
        return self.puller.read(name).to(self.puller.device)

    def _away(self, name: str) -> None:
        self.puller.put(name, torch.empty(self.puller.shape(name), device="meta"))

    def _tick(self, half: int, number: int) -> None:
        """A layer is measured and then passed; where it is measured more than once, only the first time counts."""
        count = len(self.chunks)
        done, layers = half * count + number + 1, len(self.model.model.layers)
        if done > self.done:
            self.done = done
            if self.progress:
                self.progress(Progress("calibrate", done, 2 * layers * count, f"layer {half // 2}"))
