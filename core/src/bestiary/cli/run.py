"""`bestiary run`: one answer, a conversation, or pictures."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from bestiary.cli.answer import show
from bestiary.cli.attached import question
from bestiary.cli.chat import Conversation, converse
from bestiary.cli.options import (
    CacheDir,
    CacheType,
    CalibrationFile,
    Device,
    Dtype,
    Imatrix,
    Model,
    Offline,
    Organization,
    PartOf,
    Plugin,
    Quant,
    Revision,
    Topology,
)
from bestiary.cli.paint import check_output, paint, parts_of
from bestiary.errors import OptionError


def run(
    model: Model,
    prompt: Annotated[str | None, typer.Argument(help="What to ask; without it a conversation begins.")] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE", help="A picture to ask about, or to begin with: a file or a URL; may be repeated."
        ),
    ] = None,
    video: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="An animated picture to ask about as a video.")
    ] = None,
    max_edge: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Pictures with a longer side are made smaller first.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="The system message.")] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the prompt as it is, without the chat template.")
    ] = False,
    max_tokens: Annotated[int | None, typer.Option(help="New tokens at most.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 takes the most probable token.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Sample from the k most probable tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Sample from the tokens that reach this probability.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Sample from tokens this probable, relative to the best.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same text.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="A text that ends the answer; may be repeated.")] = None,
    think: Annotated[bool | None, typer.Option(help="Whether a model that can reason first does.")] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Where a picture goes that is made.")
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", help="Pictures to make.")] = 1,
    height: Annotated[int | None, typer.Option(metavar="PIXELS", help="Of a picture that is made.")] = None,
    width: Annotated[int | None, typer.Option(metavar="PIXELS", help="Of a picture that is made.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps in which a picture is made.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How much a picture keeps to the prompt.")] = None,
    negative: Annotated[str | None, typer.Option(metavar="TEXT", help="What a picture is not to show.")] = None,
    true_cfg: Annotated[float | None, typer.Option(help="How much the negative prompt counts; above 1.")] = None,
    mask: Annotated[str | None, typer.Option(metavar="FILE", help="White where --image is to become new.")] = None,
    strength: Annotated[float | None, typer.Option(help="How much of --image may change: up to 1.")] = None,
    reference: Annotated[str | None, typer.Option(metavar="FILE", help="A picture to go by.")] = None,
    control: Annotated[str | None, typer.Option(metavar="FILE", help="Depth or edges of the picture.")] = None,
    scheduler: Annotated[str | None, typer.Option(metavar="NAME", help="Another one than the model's.")] = None,
    part: PartOf = None,
    offload: Annotated[
        str | None, typer.Option(metavar="WHAT", help='What of a pipeline is not to stay in memory: "parts", "layers".')
    ] = None,
    tile: Annotated[int | None, typer.Option(metavar="PIXELS", help="Pictures are decoded in tiles.")] = None,
    adapter: Annotated[str | None, typer.Option(metavar="ID", help="A LoRA adapter: a hub id or a folder.")] = None,
    draft: Annotated[
        str | None, typer.Option(metavar="ID", help='Guess tokens ahead: "ngram", or a smaller model.')
    ] = None,
    stats: Annotated[bool, typer.Option(help="Print tokens per second after an answer.")] = True,
    dtype: Dtype = "auto",
    device: Device = "auto",
    quant: Quant = None,
    topology: Topology = None,
    organization: Organization = None,
    imatrix: Imatrix = None,
    calibration_file: CalibrationFile = None,
    cache_type: CacheType = "auto",
    tok_model_id: Annotated[
        str | None, typer.Option(metavar="ID", help="Another repository whose tokenizer and chat template serve.")
    ] = None,
    revision: Revision = None,
    plugin: Plugin = None,
    cache_dir: CacheDir = None,
    offline: Offline = False,
) -> None:
    """Answer a prompt, hold a conversation, or make a picture.  Ctrl-C stops an answer, not the conversation."""
    import bestiary
    from bestiary.generation.sampling import Sampling, merged
    from bestiary.media.limits import MediaLimits

    given = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "seed": seed,
        "stop": tuple(stop) if stop else None,
    }
    sampling = {name: value for name, value in given.items() if value is not None}
    merged(Sampling(), sampling)  # what is out of bounds is told before a model is loaded
    painting: dict[str, Any] = {
        "n": count if count != 1 else None,
        "height": height,
        "width": width,
        "steps": steps,
        "guidance": guidance,
        "negative_prompt": negative,
        "true_cfg": true_cfg,
        "mask": mask,
        "strength": strength,
        "reference": reference,
        "control": control,
        "scheduler": scheduler,
    }
    painting = {name: value for name, value in painting.items() if value is not None}
    check_output(output)
    given_parts = {"parts": parts_of(part or ()), "offload": offload, "tile": tile}
    own: dict[str, Any] = {name: value for name, value in given_parts.items() if value is not None}
    if draft:
        own["draft"] = draft
    if max_edge is not None:
        own["media_limits"] = MediaLimits(max_edge=max_edge)
    if cache_type != "auto":
        own["cache_type"] = cache_type
    if tok_model_id:
        own["tok_model_id"] = tok_model_id
    asked: dict[str, Any] = dict(sampling)
    if adapter:
        own["adapters"], asked["adapter"] = {"cli": adapter}, "cli"
    if raw and system:
        raise OptionError(
            "--raw continues the prompt as it is, so --system has no place in it.", fix="leave one of them out"
        )
    if prompt is None and (image or video) and output is None:
        raise OptionError("--image and --video go with a question.", fix="add it; in a conversation drop files into it")
    if len(image or ()) > 1 and (output or painting):
        raise OptionError("A picture begins with one --image.", fix="leave the others out")
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read()
    with bestiary.load(
        model,
        dtype=dtype,
        device=device,
        quant=quant,
        topology=topology,
        organization=organization,
        imatrix=imatrix,
        calibration_file=calibration_file,
        revision=revision,
        plugin=plugin,
        cache_dir=cache_dir,
        offline=offline,
        **own,
    ) as pipe:
        if pipe.identified.architecture.task == "image":
            texts = {**sampling, "system": system, "raw": raw or None, "think": think, "video": video}
            texts.pop("seed", None)
            _refuse(texts, "an image model")
            painting |= {"image": image[0]} if image else {}
            painting |= {"seed": seed} if seed is not None else {}
            painting |= {"adapters": [asked["adapter"]]} if adapter else {}
            paint(pipe, prompt or "", painting, output, stats)
            return
        _refuse({**painting, "output": output}, "a text model")
        if not hasattr(pipe, "stream_chat"):
            raise OptionError(f"`bestiary run` does not know how to talk to {pipe!r}.")
        if system and not pipe.can_chat:
            raise OptionError("The model has no chat template, so --system has no place.", fix="leave --system out")
        if think is not None and pipe.can_chat and not raw:
            asked["enable_thinking"] = think
        if prompt is None:
            fixed = {name: value for name, value in asked.items() if name not in sampling}
            converse(Conversation(pipe, system, sampling, fixed), stats)
            return
        if raw or not pipe.can_chat:
            chunks = pipe.stream(prompt, images=image, videos=video, **asked)
        else:
            messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
            content = question(prompt, image or (), video or ())
            chunks = pipe.stream_chat([*messages, {"role": "user", "content": content}], **asked)
        if not show(chunks, stats):
            raise KeyboardInterrupt


def _refuse(options: Mapping[str, Any], what: str) -> None:
    """Raises OptionError for options that mean nothing to a model of this kind."""
    for name, value in options.items():
        if value is not None:
            spelt = {"negative_prompt": "negative", "n": "count"}.get(name, name).replace("_", "-")
            raise OptionError(f"--{spelt} means nothing to {what}.", fix="leave it out")
