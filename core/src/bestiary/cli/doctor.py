"""`bestiary doctor`: what this machine has, and what stands in the way."""

from __future__ import annotations

import json
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import typer

import bestiary
from bestiary.cli.options import Json
from bestiary.cli.text import columns, size
from bestiary.registry import default_registry

_LIBRARIES = ("torch", "numpy", "safetensors", "tokenizers", "huggingface_hub", "jinja2", "pluggy", "transformers")


def doctor(as_json: Json = False) -> None:
    """Show versions, devices, plugins, kernels, the download cache and whether the hub answers."""
    facts = {
        "versions": _versions(),
        "devices": _devices(),
        "plugins": _plugins(),
        "kernels": _kernels(),
        "cache": _cache(),
        "hub": _hub(),
    }
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    for title, rows in facts.items():
        typer.echo(f"{title}\n{columns([(name, str(value)) for name, value in rows.items()])}")


def _versions() -> dict[str, str]:
    found = {"bestiary": bestiary.__version__, "python": platform.python_version(), "system": platform.platform()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _devices() -> dict[str, str]:
    import torch

    from bestiary.placement import free_memory

    free = free_memory(torch.device("cpu"))
    found = {"cpu": f"{torch.get_num_threads()} threads, {size(free) + ' free' if free else 'free memory unknown'}"}
    for index in range(torch.cuda.device_count()):
        device = torch.device("cuda", index)
        found[str(device)] = f"{torch.cuda.get_device_name(device)}, {size(free_memory(device) or 0)} free"
    if not torch.cuda.is_available():
        found["cuda"] = "none"
    return found


def _plugins() -> dict[str, str]:
    return {
        plugin.name: f"BROKEN: {plugin.error}" if plugin.error else f"{plugin.distribution} {plugin.version}"
        for plugin in default_registry().plugins
    }


def _kernels() -> dict[str, str]:
    """Who computes each operation of models in bfloat16 on each kind of device, who resizes pictures, and why."""
    import torch

    from bestiary.kernels import choices, choose_one, wish

    registry = default_registry()
    wished = wish(None, registry)
    kinds = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    found = {
        f"{kind} {choice.operation}": f"{choice.backend.name if choice.backend else 'torch'}: {choice.why}"
        for kind in kinds
        for choice in choices(registry, "bfloat16", kind, wished)
    }
    if find_spec("PIL") is not None:
        resize = choose_one(registry, "resize", "uint8", "cpu", wished)
        found["cpu resize"] = f"{resize.backend.name if resize.backend else 'Pillow'}: {resize.why}"
    return found


def _cache() -> dict[str, Any]:
    from bestiary.sources.hub_client import cache_folder

    folder = cache_folder(None)
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    models = sorted(path.name for path in folder.glob("models--*")) if folder.exists() else []
    return {
        "folder": str(folder),
        "models": len(models),
        "free": size(shutil.disk_usage(place).free),
        "writable": os.access(place, os.W_OK),
    }


def _hub() -> dict[str, str]:
    from bestiary.sources.hub_client import endpoint, is_offline

    address = endpoint(None)
    if is_offline():
        return {address: "not asked, for HF_HUB_OFFLINE is set"}
    from huggingface_hub import get_session

    try:
        status = get_session().get(f"{address}/api/models?limit=1", timeout=5.0).status_code
        return {address: "answers" if status < 500 else f"answers with status {status}"}
    except Exception as error:  # whatever fails here is the finding
        return {address: f"does not answer ({type(error).__name__}); local folders and the cache still work"}
