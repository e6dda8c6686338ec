"""What seeing costs: pictures made ready and towers passed, beside transformers, and a second question about a picture.

    python benchmarks/pictures.py [--layers 4] [--rounds 5] [--threads 2] [--json FILE]

Pictures are random ones in RGB, opened already, at real settings of each family.  Towers have real widths, random
weights in float32, and `--layers` of their layers.  Ours and theirs take turns; a ratio is the median of theirs over
ours, and above 1 ours is faster.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from PIL import Image
from tokenizers import models, pre_tokenizers
from torch import nn
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

import bestiary
from bestiary.config import Config, normalise
from bestiary.generation.engine.encoding import encode
from bestiary.generation.tokenizer import Tokenizer
from bestiary.kernels import choose, wish
from bestiary.media.processor import Frames
from bestiary.nn.operations import fit
from bestiary.records import Architecture, resolve
from bestiary.registry import default_registry
from bestiary.sources.folder import Folder

TEXT: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "max_position_embeddings": 8192,
}
CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "image_size": 896,
    "patch_size": 14,
    "vision_use_head": False,
}
QWEN2 = {"depth": 32, "embed_dim": 1280, "hidden_size": 1024, "mlp_ratio": 4, "num_heads": 16, "patch_size": 14}
QWEN25 = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "out_hidden_size": 1024,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "window_size": 112,
    "patch_size": 14,
}
MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}}
SMOL = {"model_type": "idefics3_vision", "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
SMOL |= {"num_hidden_layers": 12, "image_size": 512, "patch_size": 16}
HALF, QWEN = [0.5, 0.5, 0.5], {"min_pixels": 3136, "max_pixels": 12845056, "merge_size": 2, "temporal_patch_size": 2}
LARGEST = {"size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}, "do_image_splitting": True}
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
FAMILIES: dict[str, tuple[dict[str, Any], dict[str, Any], Callable[..., Any]]] = {
    "Gemma 3": (
        {
            "architectures": ["Gemma3ForConditionalGeneration"],
            "model_type": "gemma3",
            "image_token_index": 8,
            "text_config": {**TEXT, "model_type": "gemma3_text", "head_dim": 64},
            "vision_config": SIGLIP,
        },
        {"size": {"height": 896, "width": 896}, "image_mean": HALF, "image_std": HALF, "resample": 2},
        Gemma3ImageProcessorPil,
    ),
    "LLaVA 1.5": (
        {
            "architectures": ["LlavaForConditionalGeneration"],
            "model_type": "llava",
            "image_token_index": 9,
            "text_config": {**TEXT, "model_type": "llama"},
            "vision_config": CLIP,
        },
        {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}, "resample": 3},
        CLIPImageProcessorPil,
    ),
    "LLaVA-NeXT": (
        {
            "architectures": ["LlavaNextForConditionalGeneration"],
            "model_type": "llava_next",
            "image_token_index": 9,
            "image_grid_pinpoints": PINPOINTS,
            "text_config": {**TEXT, "model_type": "llama"},
            "vision_config": CLIP,
        },
        {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}, "image_grid_pinpoints": PINPOINTS},
        LlavaNextImageProcessorPil,
    ),
    "Qwen2-VL": (
        {
            "architectures": ["Qwen2VLForConditionalGeneration"],
            "model_type": "qwen2_vl",
            "image_token_id": 10,
            "text_config": {**TEXT, **MROPE, "model_type": "qwen2_vl_text"},
            "vision_config": QWEN2,
        },
        QWEN,
        Qwen2VLImageProcessorPil,
    ),
    "Qwen2.5-VL": (
        {
            "architectures": ["Qwen2_5_VLForConditionalGeneration"],
            "model_type": "qwen2_5_vl",
            "image_token_id": 10,
            "text_config": {**TEXT, **MROPE, "model_type": "qwen2_5_vl_text"},
            "vision_config": QWEN25,
        },
        QWEN,
        Qwen2VLImageProcessorPil,
    ),
    "SmolVLM": (
        {
            "architectures": ["Idefics3ForConditionalGeneration"],
            "model_type": "idefics3",
            "image_token_id": 9,
            "scale_factor": 4,
            "text_config": {**TEXT, "model_type": "llama"},
            "vision_config": SMOL,
        },
        {**LARGEST, "image_mean": HALF, "image_std": HALF, "resample": 1},
        Idefics3ImageProcessorPil,
    ),
}
SPECIAL = (
    *("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_image>", "<end_of_image>", "<|vision_start|>", "<|vision_end|>"),
    *("<image_soft_token>", "<image>", "<|image_pad|>", "<|video_pad|>", "<fake_token_around_image>", "<global-img>"),
    *("<|im_end|>", "<start_of_turn>", "<end_of_turn>"),
)


def folder(place: Path, config: Mapping[str, Any], pictures: Mapping[str, Any]) -> Folder:
    """A repository of small files."""
    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = tokenizers.Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens(list(SPECIAL))
    backend.save(str(place / "tokenizer.json"))
    (place / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<bos>", "eos_token": "<eos>"}))
    (place / "config.json").write_text(json.dumps(config))
    (place / "preprocessor_config.json").write_text(json.dumps(pictures))
    return Folder(place, "benchmark")


def record(config: Mapping[str, Any], origin: str) -> tuple[Architecture, Config]:
    """Who builds a configuration, and its normal form."""
    for found, _ in default_registry().records(Architecture):
        if found.name in config["architectures"] and found.task == "vision":
            return found, normalise(dict(config), origin, found.defaults)
    raise SystemExit(f"no plugin for {config['architectures']}")


def turns(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> dict[str, float]:
    """Milliseconds of each, and the median ratio of pairs that ran one after the other."""
    ours(), theirs()
    pairs = []
    for number in range(rounds):
        order = (ours, theirs) if number % 2 else (theirs, ours)
        spent = {}
        for work in order:
            started = time.perf_counter()
            work()
            spent[work] = 1e3 * (time.perf_counter() - started)
        pairs.append((spent[ours], spent[theirs]))
    ratio = statistics.median(theirs / ours for ours, theirs in pairs)
    return {
        "ours": statistics.median(p[0] for p in pairs),
        "theirs": statistics.median(p[1] for p in pairs),
        "ratio": ratio,
    }


def preprocessing(size: tuple[int, int], rounds: int) -> dict[str, dict[str, float]]:
    """Of a picture of this width and height, by family."""
    random = np.random.default_rng(0)
    low = random.integers(0, 256, (size[1] // 16, size[0] // 16, 3), dtype=np.uint8)
    picture = Image.fromarray(low).resize(size, Image.Resampling.BICUBIC)
    found = {}
    for name, (config, settings, theirs) in FAMILIES.items():
        with tempfile.TemporaryDirectory() as place:
            repository = folder(Path(place), config, settings)
            architecture, normal = record(config, place)
            assert architecture.processor is not None
            processor = resolve(architecture.processor)(normal, repository, Tokenizer.from_repository(repository))
        other = theirs(**settings)
        media = Frames("image", (picture,))
        found[name] = turns(
            lambda processor=processor, media=media: processor.prepare(media),
            lambda other=other: other(images=[picture], return_tensors="np"),
            rounds,
        )
    return found


def _cut(config: dict[str, Any], layers: int) -> dict[str, Any]:
    vision = dict(config["vision_config"])
    key = "depth" if "depth" in vision else "num_hidden_layers"
    vision[key] = min(layers, vision[key])
    if "fullatt_block_indexes" in vision:
        vision["fullatt_block_indexes"] = [layers - 1]
    text = {**config["text_config"], "num_hidden_layers": 1}
    return {**config, "vision_config": vision, "text_config": text}


@torch.inference_mode()
def towers(layers: int, rounds: int) -> dict[str, dict[str, float]]:
    """A picture through each tower and its projector."""
    found = {}
    registry = default_registry()
    operations = choose(registry, torch.float32, torch.device("cpu"), wish(None, registry))
    random = torch.Generator().manual_seed(0)
    for name in ("Gemma 3", "LLaVA 1.5", "Qwen2-VL", "Qwen2.5-VL"):
        config = _cut(FAMILIES[name][0], layers)
        architecture, normal = record(config, name)
        ours = resolve(architecture.model)(normal).eval()
        for parameter in ours.parameters():
            nn.init.normal_(parameter, std=0.02, generator=random)
        fit(ours, operations)
        values = {key: value for key, value in config.items() if key != "architectures"}
        theirs = getattr(transformers, config["architectures"][0])(transformers.AutoConfig.for_model(**values)).eval()
        if name.startswith("Qwen"):
            grid = torch.tensor([[1, 40, 40]])  # 560 x 560 pixels
            pixels = torch.randn(1600, 1176, generator=random)
            tensors = {"pixel_values": pixels, "image_grid_thw": grid}
            work = lambda theirs=theirs, pixels=pixels, grid=grid: theirs.model.visual(pixels, grid_thw=grid)  # noqa: E731
        else:
            side = config["vision_config"]["image_size"]
            tensors = {"pixel_values": torch.randn(1, 3, side, side, generator=random)}
            work = lambda theirs=theirs, tensors=tensors: theirs.model.get_image_features(**tensors)  # noqa: E731
        found[name] = turns(lambda ours=ours, tensors=tensors: encode(ours.media, [tensors]), work, rounds)
    return found


def second_question(layers: int) -> dict[str, float]:
    """Seconds to the first token of two questions about one picture, asked of LLaVA 1.5 with a small text model."""
    config, settings, _ = FAMILIES["LLaVA 1.5"]
    config = {**_cut(config, layers), "text_config": config["text_config"]}
    with tempfile.TemporaryDirectory() as place:
        folder(Path(place), config, settings)
        values = {key: value for key, value in config.items() if key != "architectures"}
        made = transformers.LlavaForConditionalGeneration(transformers.AutoConfig.for_model(**values))
        made.save_pretrained(place)
        del made
        random = np.random.default_rng(0)
        picture = Image.fromarray(random.integers(0, 256, (480, 640, 3), dtype=np.uint8))
        other = Image.fromarray(random.integers(0, 256, (480, 640, 3), dtype=np.uint8))
        with bestiary.load(place, progress=False, device="cpu", cache_tokens=8192) as pipe:

            def ask(text: str, image: Image.Image) -> float:
                completion = pipe.generate(f"<image>{text}", images=[image], max_tokens=1, ignore_eos=True)
                return completion.usage.seconds_to_first_token

            ask("What is it?", other)
            first, second = ask("What is it?", picture), ask("Why is it so?", picture)
            looked = pipe.engine._runner.media.encoded
    return {"first": first, "second": second, "ratio": first / second, "encoded": looked}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    made: dict[str, Any] = {}
    for size in ((1024, 768), (640, 480)):
        title = f"pictures of {size[0]} x {size[1]}, ms"
        made[title] = preprocessing(size, chosen.rounds)
    made[f"towers of {chosen.layers} layers, ms"] = towers(chosen.layers, chosen.rounds)
    for title, rows in made.items():
        print(f"{title:36}{'ours':>9}{'theirs':>9}{'ratio':>8}")
        for name, row in rows.items():
            print(f"  {name:34}{row['ours']:9.1f}{row['theirs']:9.1f}{row['ratio']:8.2f}")
    asked = made["second question"] = second_question(chosen.layers)
    print(
        f"first token: {asked['first']:.3f} s of a first question, {asked['second']:.3f} s of a second about the same "
        f"picture; {asked['encoded']} pictures encoded in 3 questions about 2"
    )
    if chosen.json:
        chosen.json.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
