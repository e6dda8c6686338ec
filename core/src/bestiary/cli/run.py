"""`bestiary run`: one answer, a conversation, pictures, speech, or what is said in a sound."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal

import typer

from bestiary.cli.files import ENDINGS, check_inputs, check_output
from bestiary.cli.kinds import Given, Kind, chosen, refuse
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
from bestiary.cli.parts import parts_of
from bestiary.errors import OptionError

KINDS = {
    "image": "bestiary.cli.paint:KIND",
    "speech": "bestiary.cli.speak:KIND",
    "transcription": "bestiary.cli.transcribe:KIND",
}
"""By task; models of all others answer in text."""
TEXT = "bestiary.cli.ask:KIND"
WHERE = ("revision", "cache_dir", "offline")
LOADING = ("dtype", "device", "quant", "topology", "organization", "imatrix", "calibration_file")
"""What `bestiary.load` takes for every model, under these names."""


def run(
    context: typer.Context,
    model: Model,
    prompt: Annotated[
        str | None, typer.Argument(help="What to ask, to show or to say; without it a conversation begins.")
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE", help="A picture to ask about, or to begin with: a file or a URL; may be repeated."
        ),
    ] = None,
    video: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="An animated picture to ask about as a video.")
    ] = None,
    audio: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="A sound to write down (may be repeated), or the voice to go on with."),
    ] = None,
    audio_text: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What is said in the --audio to go on with.")
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="That is spoken in a sound; else it is told from the sound.")
    ] = None,
    task: Annotated[
        Literal["transcribe", "translate"] | None, typer.Option(help="What to do with a sound: the second to English.")
    ] = None,
    max_edge: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Pictures with a longer side are made smaller first.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="The system message.")] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the prompt as it is, without the chat template.")
    ] = False,
    max_tokens: Annotated[int | None, typer.Option(help="New tokens at most; of speech, frames of its codec.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 takes the most probable token.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Sample from the k most probable tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Sample from the tokens that reach this probability.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Sample from tokens this probable, relative to the best.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same again.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="A text that ends the answer; may be repeated.")] = None,
    think: Annotated[bool | None, typer.Option(help="Whether a model that can reason first does.")] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where a picture, speech or a transcript goes; .srt alone is a format.",
        ),
    ] = None,
    plot: Annotated[
        str | None, typer.Option(metavar="FILE.png", help="Draw the sound that is made or heard; needs matplotlib.")
    ] = None,
    speed: Annotated[float | None, typer.Option(help="Of speech: 2 is twice as fast, at the same pitch.")] = None,
    count: Annotated[int, typer.Option("--count", "-n", help="Pictures to make.")] = 1,
    height: Annotated[int | None, typer.Option(metavar="PIXELS", help="Of a picture that is made.")] = None,
    width: Annotated[int | None, typer.Option(metavar="PIXELS", help="Of a picture that is made.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps in which a picture is made.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How much a picture, or speech, keeps to the prompt.")] = None,
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
    dac_model_id: Annotated[
        str | None, typer.Option(metavar="ID", help="Where the codec of speech comes from.")
    ] = None,
    draft: Annotated[
        str | None, typer.Option(metavar="ID", help='Guess tokens ahead: "ngram", or a smaller model.')
    ] = None,
    stats: Annotated[bool, typer.Option(help="Print how long it took.")] = True,
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
    """Answer a prompt, hold a conversation, make a picture, say a text, or write down what is said.

    Ctrl-C stops an answer, not the conversation.
    """
    import bestiary
    from bestiary.identified import identify_model
    from bestiary.records import SourceOptions, resolve
    from bestiary.registry import default_registry

    # Each kind of model has its own options: they are read through the context, which tells which of them were given.
    given = {
        name: value
        for name, value in context.params.items()
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
        and name not in (*WHERE, *LOADING, "model", "plugin", "prompt", "stats")
    }
    _check(given)
    # From the small files: what is wrong is told before the large ones are fetched.
    source = SourceOptions(**chosen(context.params, *WHERE))
    found = identify_model(model, source, default_registry(), plugin, quant)
    kind: Kind = resolve(KINDS.get(found.architecture.task, TEXT))
    refuse(given, kind)
    if output is not None and kind.makes is not None:
        check_output(output, kind.makes)
    if prompt is None and kind.reads and not sys.stdin.isatty():
        prompt = sys.stdin.read()
    kind.check(prompt, given)
    _check_inputs(given)
    with bestiary.load(found, **chosen(context.params, *LOADING), **_own(given)) as pipe:
        kind.run(pipe, prompt, given, stats)


def _check(given: Given) -> None:
    """Raises OptionError for what is wrong whatever the model is."""
    from bestiary.generation.sampling import Sampling, merged

    merged(Sampling(), chosen(given, "max_tokens", "temperature", "top_k", "top_p", "min_p", "seed", "stop"))
    if given.get("raw") and given.get("system"):
        raise OptionError(
            "--raw continues the prompt as it is, so --system has no place in it.", fix="leave one of them out"
        )
    if "output" in given:
        check_output(given["output"], *ENDINGS)


def _check_inputs(given: Given) -> None:
    for name in ("image", "video", "audio"):
        check_inputs(given.get(name, ()))
    check_inputs(given[name] for name in ("mask", "reference", "control") if name in given)


def _own(given: Given) -> dict[str, Any]:
    """What `bestiary.load` is told that is the pipeline's own."""
    own = chosen(given, "draft", "offload", "tile", "cache_type", "tok_model_id", "dac_model_id")
    if "part" in given:
        own["parts"] = parts_of(given["part"])
    if "adapter" in given:
        own["adapters"] = {"cli": given["adapter"]}
    if "max_edge" in given:
        from bestiary.media.limits import MediaLimits

        own["media_limits"] = MediaLimits(max_edge=given["max_edge"])
    return own
