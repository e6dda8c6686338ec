"""What the core itself brings, through the same hooks as any plugin."""

from collections.abc import Sequence
from typing import Any

from bestiary.checkpoints.safetensors_header import sniff
from bestiary.hookspecs import hookimpl
from bestiary.records import Loader, PipelineType, Source
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
    return [PipelineType("text", "bestiary.pipelines.text:TextPipeline")]
