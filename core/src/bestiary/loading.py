"""`bestiary.load`: from a model id to a pipeline, in the order in which a failure costs least.

Small files first: source, identity, configuration.  Then the headers of the weights and the plan, and only then data.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bestiary.collecting import collector_held
from bestiary.config import read_json
from bestiary.errors import CheckpointError, OptionError, WeightMismatch, shown
from bestiary.identified import Identified, identify_model
from bestiary.kernels import Wish, choose, wish
from bestiary.nearest import did_you_mean
from bestiary.opening import choose_loader, open_checkpoint, weight_headers
from bestiary.packing import check_unpacked, make_packing, stated_quantization
from bestiary.progress import bar
from bestiary.protocols import Checkpoint, PackingPlan, Repository
from bestiary.records import (
    Loader,
    Packing,
    PackingRequest,
    PipelineType,
    Progress,
    Site,
    SourceOptions,
    resolve,
)
from bestiary.registry import Registry, default_registry

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bestiary.nn.operations import Operations
    from bestiary.pulling import Puller
    from bestiary.weights import Plan

log = logging.getLogger("bestiary.loading")


@dataclass(frozen=True)
class LoadedModel:
    """A model with its weights, where they lie and in which type."""

    identified: Identified
    model: nn.Module
    plan: Plan
    shapes: Mapping[str, tuple[int, ...]]
    """Of the tensors of which the plan makes the model, as models of the architecture are published."""
    device: torch.device
    dtype: torch.dtype
    packing: PackingPlan | None = None
    """How its weights were packed while they were loaded; None: they are as the checkpoint has them."""
    cache_tokens: int | None = None
    """What `load` was told about the cache of keys and values; None: the pipeline decides."""
    wished: Wish | None = None
    """Which kernels it was to have."""
    operations: Operations | None = None
    """With which it was fitted."""
    progress: Callable[[Progress], None] | None = None

    @property
    def options(self) -> Mapping[str, Any]:
        """What `load` was told that is the pipeline's own."""
        return self.identified.options


@dataclass(frozen=True)
class WeightStream:
    """The weights of a model before they are made: iterating gives (parameter name, tensor or packed weight)."""

    identified: Identified
    plan: Plan
    packing: PackingPlan | None
    sites: tuple[Site, ...]
    checkpoint: Checkpoint
    puller: Puller

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return self.puller.weights(self.packing)


def load(
    model: str | Identified,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    quant: str | int | Callable[[Site], str | None] | Mapping[str, Any] | None = None,
    topology: str | Mapping[str, Any] | None = None,
    organization: str | None = None,
    imatrix: str | None = None,
    calibration_file: str | None = None,
    cache_tokens: int | None = None,
    kernels: str | None = None,
    revision: str | None = None,
    plugin: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | None = None,
    offline: bool = False,
    progress: bool | Callable[[Progress], None] | None = None,
    registry: Registry | None = None,
    **options: Any,
) -> Any:
    """Load a model and return its pipeline, a context manager.

    `model` is a hub id, a local folder or weight file, or the name of a packaged model ("demo"); or what
    `identify_model` made of one, which then has all that is said here about where it comes from.  `dtype` is "auto"
    (as the checkpoint says), "float32", "bfloat16" or "float16"; `device` "auto", "cpu", "cuda", "cuda:1".

    `quant` packs the weights while they load: a scheme or mixture that an installed quantizer names ("q4k", "q4_k_m"),
    a number of bits, "auto" (what fits the memory), or a function from a `Site` to a scheme; of a
    pipeline of parts also a mapping from parts to any of these.  `topology`, the path of a
    YAML file or its content, says it for layers or names by themselves; `organization="moqe"` packs experts only.
    `imatrix`, the path of an importance matrix, or `calibration_file`, a text from which one is collected, say which
    columns matter.  `bestiary inspect --quant` prints what will become of each weight.

    `cache_tokens` is how many tokens of all running requests the cache holds together; by default a whole context, or
    what half of the free memory allows.  `kernels` says who computes its operations (see `bestiary.kernels`), in place
    of the environment's BESTIARY_KERNELS.  `plugin` decides where two plugins claim a model.  `progress` is True for
    bars on stderr (the default on a terminal), False for silence, or a function that gets Progress events.  Other
    `options` are those of the model's pipeline (see `TextPipeline`), or of its weight format.

    Raises a BestiaryError that says what, where and what to do: a missing plugin, for example, before any weight file
    is fetched.
    """
    check_cache_tokens(cache_tokens)
    request = PackingRequest(quant, topology, organization, imatrix, calibration_file)
    with _reporting(progress) as report, ExitStack() as held:  # held until there are weights to wait for
        held.enter_context(collector_held())
        found = model.registry if isinstance(model, Identified) else None
        registry = registry or found or default_registry()
        wished = wish(kernels, registry)
        told = _told_loaders(options, registry)
        _check_options(options, [record for record, _ in registry.records(PipelineType)], told)
        if isinstance(model, Identified):
            if told or any((revision, plugin, token, cache_dir, offline)):
                what = "The model is found already; where it comes from was said to identify_model."
                raise OptionError(what, fix="leave revision, plugin, token, cache_dir and offline out")
            identified = model
        else:
            source = SourceOptions(revision, token, cache_dir, offline, report, told)
            identified = identify_model(model, source, registry, plugin, quant)
        pipeline = registry.pipeline(identified.architecture.task)
        _check_options(options, [pipeline], told)
        own = {name: value for name, value in options.items() if name not in told}
        identified = replace(identified, options=own)

        pull = Pull(
            identified,
            registry,
            dtype,
            device,
            replace(request, quant=None) if identified.chosen else request,
            cache_tokens,
            wished,
            report,
            held.close,
        )
        return resolve(pipeline.pipeline)(identified, pull)


@dataclass(frozen=True)
class Pull:
    """What a pipeline calls for its weights, once it has read the small files; it carries the options of `load`."""

    identified: Identified
    registry: Registry
    dtype: str | torch.dtype
    device: str | torch.device
    packing: PackingRequest
    cache_tokens: int | None
    wished: Wish
    progress: Callable[[Progress], None] | None
    prepared: Callable[[], None]

    def __call__(
        self,
        part: Identified | None = None,
        *,
        encode: Callable[[str], Sequence[int]] | None = None,
        packing: PackingRequest | None = None,
    ) -> LoadedModel:
        """The model, or one part of it, with its weights.

        `encode` is the tokenizer's function from a text to ids, which calibration needs; `packing` another request than
        that of `load`.
        """
        return load_weights(
            part or self.identified,
            self.registry,
            dtype=self.dtype,
            device=self.device,
            packing=self.packing if packing is None else packing,
            cache_tokens=self.cache_tokens,
            wished=self.wished,
            progress=self.progress,
            encode=encode,
            prepared=self.prepared,
        )

    def stream(self, part: Identified | None = None) -> AbstractContextManager[WeightStream]:
        """The weights as the checkpoint has them, to be made one at a time: not all of them are kept at once."""
        self.prepared()
        return open_weights(
            part or self.identified,
            self.registry,
            dtype=self.dtype,
            device=self.device,
            progress=self.progress,
            resident=False,
            wished=self.wished,
        )


def _told_loaders(options: Mapping[str, Any], registry: Registry) -> dict[str, Any]:
    """The options that are for a weight format."""
    known = {name for loader, _ in registry.records(Loader) for name in loader.options}
    return {name: value for name, value in options.items() if name in known}


def _check_options(options: Mapping[str, Any], pipelines: Iterable[PipelineType], told: Mapping[str, Any]) -> None:
    own = [name for name in load.__kwdefaults__ or () if name != "registry"]
    known = [*own, *(name for pipeline in pipelines for name in pipeline.options)]
    for name in options:
        if name not in known and name not in told:
            fix = did_you_mean(name, known) or f"the options are {', '.join(known)}"
            raise OptionError(f'load has no option "{name}".', fix=fix)


def load_weights(
    identified: Identified,
    registry: Registry,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    packing: PackingRequest | None = None,
    cache_tokens: int | None = None,
    wished: Wish | None = None,
    progress: Callable[[Progress], None] | None = None,
    encode: Callable[[str], Sequence[int]] | None = None,
    prepared: Callable[[], None] = lambda: None,
) -> LoadedModel:
    """Build the network and pull its weights; the options are those of `load`, `encode` the tokenizer's.

    `wished` is which kernels are wanted; by default those that the environment asks for.  `prepared` is called before
    what may take long: the first file to be fetched, or else the first weight.
    """
    from bestiary import building, pulling

    packing = replace(packing or PackingRequest(), encode=encode)
    wished = wished or wish(None, registry)
    if identified.repository.missing(choose_loader(identified.repository, registry)[1]):
        prepared()
    with open_weights(
        identified, registry, dtype=dtype, device=device, packing=packing, progress=progress, wished=wished
    ) as stream:
        prepared()
        puller = stream.puller
        pulling.pull(puller, stream.packing)
        published, shapes = building.published(identified.architecture, identified.config, stream.checkpoint)
    return LoadedModel(
        identified,
        puller.model,
        published,
        shapes,
        puller.device,
        puller.dtype,
        stream.packing,
        cache_tokens,
        wished,
        puller.operations,
        progress,
    )


@contextmanager
def open_weights(
    identified: Identified,
    registry: Registry,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    packing: PackingRequest | None = None,
    progress: Callable[[Progress], None] | None = None,
    into: nn.Module | None = None,
    resident: bool = True,
    wished: Wish | None = None,
) -> Iterator[WeightStream]:
    """The weights of a model, planned and checked, to be made one at a time; the options are those of `load`.

    `into` is a network like it that is filled in place of a new one.  `resident` says that all weights will be kept,
    and so have to fit the memory; who writes a file keeps none.  `wished` is which kernels the network is fitted with;
    None: plain torch.
    """
    from bestiary import building, placement
    from bestiary.nn.operations import PLAIN
    from bestiary.pulling import Puller, sites

    placement.check_dtype(dtype)
    place = placement.choose_device(device)
    model = building.build_empty(identified.architecture, identified.config)
    stated = identified.config.get("dtype") or identified.config.text.get("dtype")

    def planned(
        checkpoint: Checkpoint, request: PackingRequest
    ) -> tuple[Plan, torch.dtype, tuple[Site, ...], PackingPlan | None]:
        kind = placement.choose_dtype(dtype, stated, checkpoint)
        plan = building.make_plan(identified.architecture, identified.config, model, checkpoint)
        found = sites(model, plan, checkpoint)
        made = make_packing(replace(request, dtype_bytes=kind.itemsize), found, identified.config, place, registry)
        if into is None and resident:
            placement.check_fits(building.needed_bytes(model, plan, checkpoint, kind, made), place)
        return plan, kind, found, made

    request, asked = packing or PackingRequest(), None
    stated_packing = stated_quantization(identified.config, identified.repository, registry)
    if stated_packing is not None:
        asked = check_unpacked(request, *stated_packing, where=identified.config.origin)
        request = PackingRequest()
    elif not identified.repository.local:
        # What the headers show need not be found after gigabytes were fetched.
        try:
            with closing(weight_headers(identified, registry)) as headers:
                planned(headers, request)
        except WeightMismatch:
            raise
        except CheckpointError as error:
            # A part of a file cannot be verified: the whole one, which will be, decides.
            log.info("the headers of %s could not be read ahead: %s", identified.repository.origin, error.what)
    with closing(open_checkpoint(identified, registry, progress, asked)) as checkpoint:
        plan, kind, found, made = planned(checkpoint, request)
        operations = PLAIN if wished is None else choose(registry, kind, place, wished)
        puller = Puller(
            model, plan, checkpoint, device=place, dtype=kind, into=into, progress=progress, operations=operations
        )
        yield WeightStream(identified, plan, made, found, checkpoint, puller)


def repack(
    identified: Identified,
    model: Any,
    packing: PackingRequest,
    dtype: torch.dtype,
    device: torch.device,
    changing: Callable[[], AbstractContextManager[None]],
    progress: Callable[[Progress], None] | None = None,
    wished: Wish | None = None,
) -> Mapping[str, Packing]:
    """Pull the weights of a running model anew, packed otherwise, while `changing` keeps everybody from it.

    Where that fails on its way, they are as the checkpoint has them.
    """
    from bestiary import pulling

    with (
        open_weights(
            identified,
            identified.registry,
            dtype=dtype,
            device=device,
            packing=packing,
            progress=progress,
            into=model,
            wished=wished,
        ) as stream,
        changing(),
    ):
        try:
            pulling.pull(stream.puller, stream.packing)
        except BaseException:
            pulling.pull(stream.puller)
            raise
        return {} if stream.packing is None else stream.packing.assigned


def generation_config(repository: Repository) -> Mapping[str, Any]:
    """generation_config.json, or nothing."""
    name = "generation_config.json"
    return read_json(repository.path(name)) if name in repository.files() else {}


def check_cache_tokens(value: object) -> None:
    """Raises OptionError for what is no number of tokens."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 16 <= value < 1 << 40):
        raise OptionError(f"cache_tokens is {shown(value)}; a whole number of at least 16 is due.")


def _reporting(
    progress: bool | Callable[[Progress], None] | None,
) -> AbstractContextManager[Callable[[Progress], None] | None]:
    if callable(progress):
        return nullcontext(progress)
    return bar(progress)
