"""What the core itself brings, through the same hooks as any plugin."""

from collections.abc import Sequence
from typing import Any

from bestiary.checkpoints.safetensors_header import sniff
from bestiary.hookspecs import hookimpl
from bestiary.records import Loader, PipelineType, Source, ToolFormat
from bestiary.sources.file import claims_file
from bestiary.sources.folder import claims_folder
from bestiary.sources.hub import claims_hub


@hookimpl
def bestiary_sources() -> Sequence[Source]:
    return [
        Source("file", claims_file, "bestiary.sources.file:open_file", priority=20),
        Source("folder", claims_folder, "bestiary.sources.folder:open_folder", priority=20),
        Source("hub", claims_hub, "bestiary.sources.hub:open_hub"),
    ]


@hookimpl
def bestiary_loaders() -> Sequence[Loader]:
    return [
        Loader(
            "safetensors",
            (".safetensors",),
            sniff,
            "bestiary.checkpoints.safetensors_checkpoint:files",
            "bestiary.checkpoints.safetensors_checkpoint:open",
            headers="bestiary.checkpoints.safetensors_checkpoint:open_header",
            priority=10,
        )
    ]


@hookimpl
def bestiary_commands(cli: Any) -> None:
    from bestiary.cli.commands import add_commands

    add_commands(cli)


@hookimpl
def bestiary_pipelines() -> Sequence[PipelineType]:
    options = (
        *("tok_model_id", "tokenizer_json", "draft", "draft_tokens", "adapters", "xlora", "xlora_order", "anymoe"),
        *("cache_memory", "cache_type", "block_size", "max_requests", "max_waiting", "compile", "replay"),
        "media_limits",
    )
    # A model that sees answers in text, too: its processor makes the difference.
    texts = [PipelineType(task, "bestiary.pipelines.text:TextPipeline", options) for task in ("text", "vision")]
    painting = ("parts", "offload", "tile", "adapters", "media_limits")
    return [
        *texts,
        PipelineType("image", "bestiary.pipelines.image:ImagePipeline", painting),
        PipelineType("speech", "bestiary.pipelines.speech:SpeechPipeline", ("parts", "dac_model_id", "audio_limits")),
        PipelineType("transcription", "bestiary.pipelines.transcription:TranscriptionPipeline", ("audio_limits",)),
        PipelineType("embedding", "bestiary.pipelines.embedding:EmbeddingPipeline"),
    ]


@hookimpl
def bestiary_tool_formats() -> Sequence[ToolFormat]:
    """The formats that many families speak, or one that no plugin builds."""
    tools = "bestiary.generation.tools."
    calls = ("<｜tool▁call▁begin｜>", "<｜tool▁sep｜>")
    keys = ("<tool_call>", "<arg_key>", "<arg_value>")
    deepseek, glm = f"{tools}deepseek:DeepSeekParser", f"{tools}glm:GlmParser"
    return [
        ToolFormat("generic", f"{tools}generic:GenericParser", form=f"{tools}generic:FORM"),
        ToolFormat(
            "hermes",
            f"{tools}hermes:HermesParser",
            ("<tool_call>", "</tool_call>", "name", "arguments"),
            ("<tool_calls>", "<invoke"),
            form=f"{tools}hermes:FORM",
            priority=-10,  # Other formats write something else between the same tags.
        ),
        ToolFormat("deepseek", deepseek, (*calls, "```json"), form=f"{tools}deepseek:FENCED"),
        ToolFormat("deepseek_bare", deepseek, calls, ("```json",), form=f"{tools}deepseek:BARE"),
        ToolFormat("glm", glm, keys, ("</arg_key><arg_value>",), form=f"{tools}glm:LINES"),
        ToolFormat("glm_flat", glm, (*keys, "</arg_key><arg_value>"), form=f"{tools}glm:FLAT"),
        ToolFormat(
            "harmony",
            f"{tools}harmony:HarmonyParser",
            ("<|channel|>", "<|message|>", "functions."),
            form=f"{tools}harmony_form:FORM",
        ),
    ]
