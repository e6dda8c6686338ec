"""A text model and the companion that sees for it (mmproj): one model with eyes, equal to that of transformers."""

from __future__ import annotations

import importlib
import json
import logging
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from PIL import Image

import bestiary
from bestiary.building import build_empty, make_plan
from bestiary.errors import BestiaryError, CheckpointError, ConfigError, OptionError, WeightMismatch
from bestiary.identified import identify_model
from bestiary.opening import weight_headers
from bestiary.records import SourceOptions
from bestiary.registry import default_registry, discover
from bestiary.testing.conformance import assert_close
from bestiary.testing.reference import Reference, make_reference

PLUGINS = Path(__file__).parents[3] / "plugins/vision"


@dataclass(frozen=True)
class Case:
    """A tiny model that sees, as a file can say it."""

    plugin: str
    config: dict[str, Any]
    save: Callable[[Path], Any]
    """Writes tokenizer files to a folder, and returns the processor of transformers."""
    placeholder: str
    options: dict[str, Any] = field(default_factory=dict)


def support(plugin: str, name: str) -> ModuleType:
    """A module beside the tests of a plugin."""
    folder = str(PLUGINS / plugin / "tests/support")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(folder)


def gemma3(companions: ModuleType) -> Case:
    tiny = pytest.importorskip("bestiary_gemma3.tiny")
    saving = support("gemma3", "gemma3_processor")
    text = {**tiny.GEMMA3[3]["text_config"], "tie_word_embeddings": True, "sliding_window": 11}
    vision = {**tiny.GEMMA3[0]["vision_config"], "layer_norm_eps": 1e-3}
    config = {**tiny.GEMMA3[3], "text_config": text, "vision_config": vision, "mm_tokens_per_image": 4}
    config["tie_word_embeddings"] = True
    mean, std = companions.PIXELS
    save = partial(saving.save_processor, config=config, image_mean=mean, image_std=std)
    return Case("bestiary-gemma3", config, save, "<start_of_image>")


def idefics(companions: ModuleType, family: str = "idefics3") -> Case:
    tiny = pytest.importorskip("bestiary_idefics.tiny")
    reference = support("idefics", "idefics_reference")
    mean, std = companions.PIXELS
    values = reference.preprocessor(16, 32, image_mean=mean, image_std=std)
    save = partial(getattr(reference, f"save_{family}"), rows=4, values=values)
    return Case("bestiary-idefics", getattr(tiny, family.upper())[0], save, "<image>")


def qwen(companions: ModuleType, family: str) -> Case:
    tiny = pytest.importorskip("bestiary_qwen_vl.tiny")
    config = getattr(tiny, family)[0]
    mean, std = companions.PIXELS
    sizes: dict[str, Any] = {"shortest_edge": 4 * 64, "longest_edge": 16384 * 64}  # in rows of 8 x 8 pixels
    saving = support("qwen-vl", "qwen_vl_reference")
    save = partial(saving.save, config, image_mean=mean, image_std=std, size=sizes)
    return Case("bestiary-qwen-vl", config, save, "<|vision_start|><|image_pad|><|vision_end|>")


def llava(companions: ModuleType, family: str) -> Case:
    tiny = pytest.importorskip("bestiary_llava.tiny")
    config = {**getattr(tiny, family)[0], "projector_hidden_act": "gelu"}
    mean, std = companions.PIXELS
    clip, tiled = config["vision_config"]["model_type"] == "clip_vision_model", "NEXT" in family
    image: dict[str, Any] = {"image_mean": mean, "image_std": std, "size": {"height": 30, "width": 30}}
    if clip:
        image |= {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    stated: dict[str, Any] = {"vision_feature_select_strategy": "default" if clip else "full"}
    stated |= {"patch_size": 7, "num_additional_image_tokens": int(clip)}
    if tiled:
        image["image_grid_pinpoints"] = config["image_grid_pinpoints"]
    saving = support("llava", "llava_folders")
    kind = "llava_next" if tiled else "clip" if clip else "siglip"
    save = partial(saving.save_processor, kind=kind, next=tiled, image=image, **stated)
    return Case("bestiary-llava", config, save, "<image>")


CASES: dict[str, Callable[[ModuleType], Case]] = {
    "gemma3": gemma3,
    "idefics3": idefics,
    "smolvlm": partial(idefics, family="smolvlm"),
    "qwen2_vl": partial(qwen, family="QWEN2_VL"),
    "qwen2_5_vl": partial(qwen, family="QWEN2_5_VL"),
    "llava": partial(llava, family="LLAVA_LLAMA"),
    "llava qwen2": partial(llava, family="LLAVA_QWEN2"),
    "llava_next": partial(llava, family="LLAVA_NEXT_LLAMA"),
}


@dataclass(frozen=True)
class Published:
    """A folder as publishers have it, and what it was made from."""

    case: Case
    folder: Path
    reference: Reference
    processor: Any

    def load(self, **options: Any) -> Any:
        return bestiary.load(
            str(self.folder), dtype="float32", device="cpu", cache_tokens=1024, progress=False, **options
        )

    def inputs(self, text: str, pictures: list[Image.Image]) -> Any:
        return self.processor(text=[text], images=[pictures], return_tensors="pt", **self.case.options)


@pytest.fixture(scope="module")
def published(
    tmp_path_factory: pytest.TempPathFactory, converting: ModuleType, companions: ModuleType
) -> Callable[[str], Published]:
    """Makes each folder once."""
    made: dict[str, Published] = {}

    def publish(name: str) -> Published:
        if name not in made:
            case = CASES[name](companions)
            root = tmp_path_factory.mktemp(name)
            folder = root / "gguf"
            folder.mkdir()
            reference = make_reference(case.config, root / "hf")
            processor = case.save(root / "hf")
            for file in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copy(root / "hf" / file, folder)
            converting.convert(companions.text_part(reference, root / "text"), folder / "tiny-F32.gguf")
            title = {"general.name": "SmolVLM2 Tiny"} if name == "smolvlm" else {}
            companions.write_companion(reference, folder / "mmproj-tiny-F32.gguf", **title)
            made[name] = Published(case, folder, reference, processor)
        return made[name]

    return publish


@pytest.fixture(params=CASES)
def each(request: pytest.FixtureRequest, published: Callable[[str], Published]) -> Published:
    return published(request.param)


@pytest.fixture
def gemma(published: Callable[[str], Published], tmp_path: Path) -> Published:
    """A folder of its own, to be changed."""
    made = published("gemma3")
    shutil.copytree(made.folder, tmp_path / "gguf")
    return Published(made.case, tmp_path / "gguf", made.reference, made.processor)


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 56, 3), dtype=np.uint8))


def test_it_sees_what_the_reference_sees(each: Published) -> None:
    pictures = [picture(1), picture(2)]
    text = f"It begins. {each.case.placeholder} or {each.case.placeholder}, why?"
    inputs = each.inputs(text, pictures)
    with torch.no_grad():
        theirs = each.reference.model(**inputs).logits[0].float()
    with each.load() as pipe:
        assert pipe.identified.architecture.name == each.case.config["architectures"][0]
        assert pipe.identified.evidence.gguf is not None
        assert_close(pipe.score(text, images=pictures), theirs, 1e-5)
        words = pipe.tokenizer.encode("Only words.")
        assert_close(pipe.score(words), each.reference.logits(list(words)), 1e-5)
        assert pipe.media.kinds


def test_the_text_model_alone(each: Published) -> None:
    with each.load(mmproj="off") as pipe:
        assert pipe.identified.architecture.task == "text" and pipe.model.media is None
        words = pipe.tokenizer.encode("Only words.")
        assert_close(pipe.score(words), each.reference.logits(list(words)), 1e-5)


def test_without_its_plugin_the_text_model_loads(each: Published, caplog: pytest.LogCaptureFixture) -> None:
    without = discover([name for name in installed() if name != each.case.plugin])
    with each.load(registry=without) as pipe:
        assert pipe.identified.architecture.task == "text"
        pipe.score("Only words.")
    (line,) = (each.getMessage() for each in caplog.records if "no installed plugin provides" in each.getMessage())
    assert f"pip install {each.case.plugin}" in line


def installed() -> list[str]:
    return [owner.distribution for owner in default_registry().plugins]


def companion(pipe: Any) -> list[str]:
    return [name for name in pipe.identified.repository.files() if "mmproj" in name]


def test_of_several_the_best_is_taken_or_the_one_that_is_named(gemma: Published) -> None:
    source = gemma.folder / "mmproj-tiny-F32.gguf"
    for name in ("mmproj-F16.gguf", "mmproj-BF16.gguf", "mmproj-Q8_0.gguf", "a.mmproj.gguf"):
        shutil.copy(source, gemma.folder / name)
    (gemma.folder / "mmproj-BF16.gguf").rename(gemma.folder / "mmproj-bf16.gguf")
    for wanted, due in (
        (None, "mmproj-bf16.gguf"),
        (True, "mmproj-bf16.gguf"),
        ("mmproj-F16.gguf", "mmproj-F16.gguf"),
        (str(gemma.folder / "a.mmproj.gguf"), "a.mmproj.gguf"),
        ("q8_0", "mmproj-Q8_0.gguf"),
    ):
        with gemma.load(mmproj=wanted) as pipe:
            assert companion(pipe) == [due] and pipe.media.kinds
    with gemma.load(mmproj=False) as pipe:
        assert pipe.model.media is None
    for wrong in ("nothing", "tiny-F32.gguf", "mmproj"):
        with pytest.raises(CheckpointError, match="companion"):
            gemma.load(mmproj=wrong)
    for other in (7, "", ["a"]):
        with pytest.raises(OptionError):
            gemma.load(mmproj=other)


def test_with_one_of_several_models(gemma: Published) -> None:
    shutil.copy(gemma.folder / "tiny-F32.gguf", gemma.folder / "tiny-Q8_0.gguf")
    with gemma.load(quant="q8_0") as pipe:
        assert set(pipe.identified.repository.files()) >= {"tiny-Q8_0.gguf", "mmproj-tiny-F32.gguf"}
        assert "tiny-F32.gguf" not in pipe.identified.repository.files() and pipe.media.kinds


def test_a_file_by_its_path_has_the_eyes_that_are_named(gemma: Published, tmp_path: Path) -> None:
    def load(**options: Any) -> Any:
        path = str(gemma.folder / "tiny-F32.gguf")
        return bestiary.load(path, dtype="float32", device="cpu", cache_tokens=1024, progress=False, **options)

    with load() as pipe:
        assert pipe.model.media is None
    for named in ("mmproj-tiny-F32.gguf", str(gemma.folder / "mmproj-tiny-F32.gguf")):
        with load(mmproj=named) as pipe:
            assert pipe.media.kinds
    shutil.copy(gemma.folder / "mmproj-tiny-F32.gguf", tmp_path / "mmproj-elsewhere.gguf")
    with pytest.raises(CheckpointError, match="No companion"):
        load(mmproj=str(tmp_path / "mmproj-elsewhere.gguf"))


def test_the_plan_names_every_parameter(each: Published) -> None:
    identified = identify_model(str(each.folder), SourceOptions(), default_registry())
    network = build_empty(identified.architecture, identified.config)
    with closing(weight_headers(identified, identified.registry)) as headers:
        plan = make_plan(identified.architecture, identified.config, network, headers)
    assert {*plan.recipes, *plan.ties} == {name for name, _ in network.named_parameters()}
    of_the_companion = {
        name
        for name, recipe in plan.recipes.items()
        if all(re.match(r"v\.|mm\.|model\.image", each) for each in recipe.sources())
    }
    assert of_the_companion == {name for name in plan.recipes if name.startswith("media.")}
    assert not [name for name in plan.dropped if "post_ln" not in name]


def test_a_llava_whose_vocabulary_has_no_picture(published: Callable[[str], Published], tmp_path: Path) -> None:
    made = published("llava")
    shutil.copytree(made.folder, tmp_path / "gguf")
    path = tmp_path / "gguf/tokenizer.json"
    values = json.loads(path.read_text())
    values["added_tokens"] = [token for token in values["added_tokens"] if token["content"] != "<image>"]
    values["model"]["vocab"].pop("<image>", None)
    path.write_text(json.dumps(values))
    without = Published(made.case, tmp_path / "gguf", made.reference, made.processor)
    pictures, text = [picture(3)], "So: <image> why?"
    with torch.no_grad():
        theirs = made.reference.model(**made.inputs(text, pictures)).logits[0].float()
    with without.load() as pipe:
        assert pipe.tokenizer.id("<image>") is None
        assert_close(pipe.score(text, images=pictures), theirs, 1e-5)


# What cannot be


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        *(({key: None}, CheckpointError) for key in ("embedding_length", "block_count", "patch_size", "image_size")),
        *(({"block_count": value}, CheckpointError) for value in (0, 1, 3, 1 << 31)),
        *(({"image_size": value}, CheckpointError) for value in (0, 1, 57 * 14, (1 << 32) - 1)),
        *(({"embedding_length": value}, CheckpointError) for value in (0, 16, 33, 1 << 31)),
        ({"patch_size": 7}, CheckpointError),
        ({"block_count": "2"}, CheckpointError),
        ({"image_mean": [0.5, 0.5]}, CheckpointError),
        ({"image_mean": [0.5] * 1000}, CheckpointError),
        ({"image_mean": [0.5, 0.5, float("nan")]}, CheckpointError),
        ({"image_std": [0.5, 0.0, 0.5]}, ConfigError),
        ({"clip.vision.projector.scale_factor": 3}, BestiaryError),
        ({"clip.vision.projector.scale_factor": 1 << 20}, BestiaryError),
        ({"clip.vision.attention.head_count": 0}, CheckpointError),
        ({"clip.vision.attention.head_count": 5}, BestiaryError),
        ({"clip.vision.attention.layer_norm_epsilon": "1"}, CheckpointError),
        ({"clip.projector_type": "idefics3"}, CheckpointError),
        ({"clip.projector_type": "something"}, CheckpointError),
        ({"clip.projector_type": "x" * 1000}, CheckpointError),
        ({"clip.projector_type": None}, CheckpointError),
    ],
)
def test_what_cannot_be_is_told(
    gemma: Published, companions: ModuleType, changes: dict[str, Any], error: type[BestiaryError]
) -> None:
    companions.write_companion(gemma.reference, gemma.folder / "mmproj-tiny-F32.gguf", **changes)
    with pytest.raises(error):
        gemma.load(mmproj="mmproj-tiny-F32.gguf")


def test_eyes_that_nobody_knows_are_left_out_unless_they_are_named(
    gemma: Published, companions: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    companions.write_companion(
        gemma.reference, gemma.folder / "mmproj-tiny-F32.gguf", **{"clip.projector_type": "pixtral"}
    )
    with caplog.at_level(logging.WARNING), gemma.load() as pipe:
        assert pipe.model.media is None
    assert "loaded without eyes" in caplog.text and "pixtral" in caplog.text


def test_eyes_of_another_model(gemma: Published, companions: ModuleType) -> None:
    folder = gemma.folder
    writer = gguf.GGUFWriter(folder / "mmproj-wide.gguf", "clip")
    reader = gguf.GGUFReader(folder / "mmproj-tiny-F32.gguf")
    for key in ("image_size", "patch_size", "embedding_length", "block_count", "feed_forward_length"):
        writer.add_uint32(f"clip.vision.{key}", int(reader.fields[f"clip.vision.{key}"].contents()))
    writer.add_string("clip.projector_type", "gemma3")
    for tensor in reader.tensors:
        wide = tensor.name == "mm.input_projection.weight"
        writer.add_tensor(tensor.name, np.zeros((32, 48), np.float32) if wide else np.asarray(tensor.data))
    companions.write(writer, folder / "mmproj-wide.gguf")
    with pytest.raises(CheckpointError, match="48 numbers wide"):
        gemma.load(mmproj="wide")


def test_a_tensor_of_another_shape_or_name(gemma: Published, companions: ModuleType) -> None:
    path = gemma.folder / "mmproj-tiny-F32.gguf"
    for old, new in ((b"v.blk.1.attn_k.bias", b"v.blk.1.attn_k.bios"), (b"v.post_ln.weight", b"v.post_ln.weighs")):
        companions.write_companion(gemma.reference, path)
        content = path.read_bytes()
        assert content.count(old) == 1
        path.write_bytes(content.replace(old, new))
        with pytest.raises(WeightMismatch):
            gemma.load()


def test_two_files_do_not_define_one_tensor(gemma: Published, companions: ModuleType) -> None:
    path = gemma.folder / "mmproj-tiny-F32.gguf"
    names = dict(companions._mapped(gemma.reference.model))
    names["model.norm.weight"] = names.pop("v.post_ln.weight")
    writer = gguf.GGUFWriter(path, "clip")
    for key, value in companions._siglip(gemma.reference.model.config).items():
        companions._add(writer, key, value)
    for name, tensor in names.items():
        writer.add_tensor(name, tensor.contiguous().numpy())
    companions.write(writer, path)
    with pytest.raises(CheckpointError, match=r"would be 'model\.norm\.weight'"):
        gemma.load()


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + bytes(200), b"\x80\x04K\x01.", bytes(1000)])
def test_a_malformed_companion(gemma: Published, content: bytes) -> None:
    (gemma.folder / "mmproj-tiny-F32.gguf").write_bytes(content)
    with pytest.raises(BestiaryError) as error:
        gemma.load()
    assert "off" in (error.value.fix or "")
    with gemma.load(mmproj="off") as pipe:
        pipe.score("Only words.")


def test_a_companion_cut_short(gemma: Published) -> None:
    path = gemma.folder / "mmproj-tiny-F32.gguf"
    content = path.read_bytes()
    for size in range(0, len(content), len(content) // 23):
        path.write_bytes(content[:size])
        with pytest.raises(CheckpointError):
            gemma.load()
