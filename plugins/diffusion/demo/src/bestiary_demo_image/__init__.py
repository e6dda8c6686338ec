"""The image demo: a tiny Flux pipeline with its weights, packaged, under the id "demo-image"."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bestiary


def folder() -> Path:
    """The packaged pipeline's folder, laid out as a FluxPipeline on the hub is."""
    return Path(__file__).parent / "model"


def open_demo(model: str, options: bestiary.SourceOptions) -> Any:
    """The packaged folder as a repository; nothing is ever fetched."""
    from bestiary.sources.folder import Folder

    return Folder(folder(), model)


@bestiary.hookimpl
def bestiary_sources() -> Sequence[bestiary.Source]:
    # Above folders: "demo-image" is this model, and "./demo-image" a folder of that name.
    return [
        bestiary.Source("demo-image", lambda model: model == "demo-image", "bestiary_demo_image:open_demo", priority=30)
    ]
