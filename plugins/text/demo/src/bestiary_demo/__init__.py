"""The demo model: configuration, tokenizer and weights of a tiny Llama, packaged, under the id "demo"."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bestiary


def folder() -> Path:
    """The packaged model folder, laid out as a checkpoint on the hub is."""
    return Path(__file__).parent / "model"


def open_demo(model: str, options: bestiary.SourceOptions) -> Any:
    """The packaged folder as a repository; nothing is ever fetched."""
    from bestiary.sources.folder import Folder

    return Folder(folder(), model)


@bestiary.hookimpl
def bestiary_sources() -> Sequence[bestiary.Source]:
    # Above folders: "demo" is this model, and "./demo" a folder of that name.
    return [bestiary.Source("demo", lambda model: model == "demo", "bestiary_demo:open_demo", priority=30)]
