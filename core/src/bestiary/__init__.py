"""Bestiary: load any model whose architecture plugin is installed.

Importing this package imports neither torch nor any plugin; every name below is fetched at its first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "load": "bestiary.loading",
    "hookimpl": "bestiary.hookspecs",
    "Completion": "bestiary.generation.completion",
    "Sampling": "bestiary.generation.sampling",
    "BestiaryError": "bestiary.errors",
    "Entry": "bestiary.zoo",
    "Zoo": "bestiary.zoo",
    **dict.fromkeys(
        (
            "API",
            "Architecture",
            "ChatTemplate",
            "Evidence",
            "Gguf",
            "KernelBackend",
            "Loader",
            "Part",
            "PipelineType",
            "Progress",
            "Quantizer",
            "Source",
            "SourceOptions",
            "ToolFormat",
        ),
        "bestiary.records",
    ),
    **dict.fromkeys(("cat", "drop", "map", "rename", "rows", "split", "stack", "tie"), "bestiary.weights"),
}

if TYPE_CHECKING:
    from bestiary.errors import BestiaryError as BestiaryError
    from bestiary.generation.completion import Completion as Completion
    from bestiary.generation.sampling import Sampling as Sampling
    from bestiary.hookspecs import hookimpl as hookimpl
    from bestiary.loading import load as load
    from bestiary.records import API as API
    from bestiary.records import Architecture as Architecture
    from bestiary.records import ChatTemplate as ChatTemplate
    from bestiary.records import Evidence as Evidence
    from bestiary.records import Gguf as Gguf
    from bestiary.records import KernelBackend as KernelBackend
    from bestiary.records import Loader as Loader
    from bestiary.records import Part as Part
    from bestiary.records import PipelineType as PipelineType
    from bestiary.records import Progress as Progress
    from bestiary.records import Quantizer as Quantizer
    from bestiary.records import Source as Source
    from bestiary.records import SourceOptions as SourceOptions
    from bestiary.records import ToolFormat as ToolFormat
    from bestiary.weights import cat as cat
    from bestiary.weights import drop as drop
    from bestiary.weights import map as map
    from bestiary.weights import rename as rename
    from bestiary.weights import rows as rows
    from bestiary.weights import split as split
    from bestiary.weights import stack as stack
    from bestiary.weights import tie as tie
    from bestiary.zoo import Entry as Entry
    from bestiary.zoo import Zoo as Zoo

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'bestiary' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
