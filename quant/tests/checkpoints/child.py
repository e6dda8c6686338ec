"""What runs in a process of its own, because it may hang or eat the memory: `python child.py FOLDER`.

Writes sound checkpoints of each method with one thing wrong as real files, opens and reads all of each under a limit of
address space, and writes the outcomes, with the longest time of one, as JSON.
"""

import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import test_hostile
import torch
from safetensors.torch import save_file

from bestiary.checkpoints import safetensors_checkpoint
from bestiary.sources.folder import Folder
from bestiary_quant.checkpoints.loading import load

LIMIT = 200 << 20
NUMBERS: tuple[Any, ...] = (0, -1, 1, 7, 1 << 31, 1 << 63, 10**400, 0.5, True, "4", None, [], {})
Tensors = dict[str, torch.Tensor]


def damaged(tensors: Tensors, config: dict[str, Any]) -> Iterator[tuple[str, Tensors, dict[str, Any]]]:
    """One thing wrong at a time: a tensor, its shape, its type, its bytes, or a setting."""
    random = torch.Generator().manual_seed(0)
    for name, tensor in tensors.items():
        yield f"without {name}", {key: value for key, value in tensors.items() if key != name}, config
        changes = {"flat": tensor.flatten(), "empty": tensor[:0] if tensor.ndim else tensor.reshape(1)[:0]}
        if tensor.ndim:
            changes |= {"a row less": tensor[1:], "two more": torch.cat([tensor, tensor[:1], tensor[:1]])}
        if tensor.ndim == 2:
            changes |= {"turned": tensor.T.contiguous(), "a column less": tensor[:, 1:].contiguous()}
        raw = tensor.contiguous().view(torch.uint8) if tensor.ndim else tensor.reshape(1).view(torch.uint8)
        noise = torch.randint(0, 256, raw.shape, generator=random, dtype=torch.uint8)
        changes |= {"bytes": raw, "noise": noise.view(tensor.dtype).reshape(tensor.shape)}
        changes["ones"] = torch.full_like(raw, 255).view(tensor.dtype).reshape(tensor.shape)
        for what, changed in changes.items():
            yield f"{name}: {what}", {**tensors, name: changed.clone()}, config
    for key in config:
        for number in NUMBERS:
            yield f"{key} = {str(number)[:20]}", tensors, {**config, key: number}


def attempt(folder: Path, config: dict[str, Any]) -> str:
    """The error that opening and reading everything gives, or "read"."""
    try:
        stored = safetensors_checkpoint.open(Folder(folder, "case"), ("model.safetensors",))
        opened = load(stored, config)
        for name in opened.names():
            opened.read(name).clone()
        opened.close()
    except Exception as error:
        return f"{type(error).__module__}.{type(error).__name__}: {str(error)[:2000]}"
    return "read"


def main(folder: Path) -> None:
    file = folder / "model.safetensors"
    sound = {name: test_hostile.base(name) for name in test_hostile.BASES}
    for tensors, config in sound.values():  # what is imported and made once is no cost of a case
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
        assert attempt(folder, config) == "read"
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + LIMIT
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    outcomes: dict[str, str] = {}
    longest = (0.0, "")
    for method, (tensors, config) in sound.items():
        for what, changed, settings in damaged(tensors, config):
            save_file({name: tensor.contiguous() for name, tensor in changed.items()}, file)
            start = time.process_time()
            outcomes[f"{method}, {what}"] = attempt(folder, settings)
            longest = max(longest, (time.process_time() - start, f"{method}, {what}"))
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
        whole = file.read_bytes()
        for length in range(0, len(whole), max(1, len(whole) // 40)):
            file.write_bytes(whole[:length])
            outcomes[f"{method}, cut at {length}"] = attempt(folder, config)
    json.dump({"cases": outcomes, "longest": longest}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
