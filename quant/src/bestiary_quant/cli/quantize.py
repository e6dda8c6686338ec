"""`bestiary quantize`: a model in fewer bits, or in another format, as files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bestiary.cli.options import (
    CacheDir,
    CalibrationFile,
    Device,
    Dtype,
    Imatrix,
    Model,
    Offline,
    Organization,
    Plugin,
    Revision,
    Topology,
)
from bestiary.cli.text import size
from bestiary.errors import OptionError
from bestiary.progress import bar
from bestiary.records import PackingRequest, Progress, SourceOptions

if TYPE_CHECKING:
    from bestiary.loading import WeightStream
    from bestiary_quant.writing.target import Target


def quantize(
    model: Model,
    to: Annotated[
        str, typer.Option(help="gguf, safetensors or uqff, and a scheme: gguf:q4_k_m; without a scheme plain weights.")
    ],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The file, or the folder, to write.")] = None,
    topology: Topology = None,
    organization: Organization = None,
    imatrix: Imatrix = None,
    calibration_file: CalibrationFile = None,
    split_max_size: Annotated[str | None, typer.Option(metavar="SIZE", help="The most bytes of a file: 4G.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    dtype: Dtype = "auto",
    device: Device = "cpu",
    revision: Revision = None,
    plugin: Plugin = None,
    cache_dir: CacheDir = None,
    offline: Offline = False,
) -> None:
    """Write a model in fewer bits or in another format, one weight at a time."""
    from bestiary.identified import identify_model
    from bestiary.loading import open_weights
    from bestiary.pipelines.text_tokens import spoken
    from bestiary.registry import default_registry
    from bestiary_quant.writing.target import parse_size, parse_target

    target, most = parse_target(to), parse_size(split_max_size)
    if target.dtype is not None and dtype != "auto":
        raise OptionError(f"--to {to} says the type already, and --dtype {dtype} too.", fix="leave --dtype out")
    path = target.path(output, model)
    registry = default_registry()
    with bar() as report:
        told = {"mmproj": False}  # of a model in a GGUF file with eyes in another, the text model is written
        options = SourceOptions(revision=revision, cache_dir=cache_dir, offline=offline, progress=report, told=told)
        identified = identify_model(model, options, registry, plugin)
        request = PackingRequest(
            quant=target.scheme,
            topology=topology,
            organization=organization,
            imatrix=imatrix,
            calibration_file=calibration_file,
            encode=spoken(identified).tokenizer.encode if calibration_file is not None else None,
        )
        if target.format == "gguf":
            from bestiary_quant.writing.partial import check_absent

            check_absent([path], force)
        with open_weights(
            identified,
            registry,
            dtype=target.dtype or dtype,
            device=device,
            packing=request,
            progress=_fetching(report),
            resident=False,
        ) as stream:
            before = sum(stream.checkpoint.nbytes(name) for name in stream.checkpoint.names())
            written = _write(target, path, stream, most, force, report)
    weights = {file: count for file, count in written.items() if file.suffix in (".gguf", ".safetensors", ".uqff")}
    typer.echo(_told(path, weights, before))


def _write(
    target: Target,
    path: Path,
    stream: WeightStream,
    most: int | None,
    force: bool,
    report: Callable[[Progress], None] | None,
) -> Mapping[Path, int]:
    """The files that were written, with their sizes."""
    if target.format == "gguf":
        from bestiary_quant.writing.gguf import write_gguf

        plain = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}[
            str(stream.puller.dtype).removeprefix("torch.")
        ]
        asked = stream.packing is not None
        return write_gguf(
            stream,
            path,
            scheme=target.scheme,
            plain=plain,
            unpack=not asked,
            split_max_size=most,
            force=force,
            progress=report,
        )
    if target.format == "safetensors":
        from bestiary_quant.writing.quantized import write_safetensors
        from bestiary_quant.writing.shards import SHARD

        return write_safetensors(path, stream, target.scheme, shard_bytes=most or SHARD, force=force, progress=report)
    return _write_uqff(target, path, stream, most, force, report)


def _write_uqff(
    target: Target,
    path: Path,
    stream: WeightStream,
    most: int | None,
    force: bool,
    report: Callable[[Progress], None] | None,
) -> Mapping[Path, int]:
    from bestiary_quant.uqff.writer import SHARD, write

    name = str(target.scheme)
    first = path / f"{name}-0.uqff"
    if first.exists() and not force:
        raise OptionError(f"{first.name} exists already.", where=path, fix="--force replaces it, -o writes elsewhere")
    identified, puller = stream.identified, stream.puller
    assigned = stream.packing.assigned if stream.packing is not None else {}
    expected = sum(assigned[name].nbytes if name in assigned else puller.nbytes(name) for name in puller.names)
    write(
        path,
        stream,
        name=name,
        repository=identified.repository,
        config=dict(identified.evidence.config),
        names=puller.names,
        expected=expected,
        shard_bytes=most or SHARD,
        progress=report,
    )
    own = [*path.glob(f"{name}-*.uqff"), path / "residual.safetensors"]
    return {file: file.stat().st_size for file in sorted(own) if file.is_file()}


def _fetching(report: Callable[[Progress], None] | None) -> Callable[[Progress], None] | None:
    """A bar for what is fetched; that of the weights is the writer's."""
    if report is None:
        return None
    return lambda event: None if event.stage == "load" else report(event)


def _told(path: Path, weights: Mapping[Path, int], before: int) -> str:
    """What was written, how large it is, and how it is run."""
    total = sum(weights.values())
    lines = [f"{file}  {size(count)}" for file, count in weights.items()]
    share = f" ({total / before:.0%})" if before else ""
    first = next(iter(weights), path) if path.suffix == ".gguf" else path
    shown = str(first) if first.is_absolute() or first.suffix == ".gguf" else f"./{first}"
    return "\n".join(
        [*lines, f"weights      {size(before)} before, {size(total)} now{share}", f"run it with  bestiary run {shown}"]
    )
