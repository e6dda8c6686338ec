"""A tokenizer and a chat template from elsewhere."""

import shutil
from pathlib import Path

import pytest

import bestiary
from bestiary.errors import OptionError, SourceError, TokenizerError

STORIES = "weights/stories260K"


def test_weights_without_a_tokenizer_take_another_repositorys(shared_data: Path, tmp_path: Path) -> None:
    whole = shared_data / STORIES / "hf"
    for name in ("config.json", "model.safetensors"):
        shutil.copy(whole / name, tmp_path / name)
    with pytest.raises(TokenizerError):
        bestiary.load(str(tmp_path), progress=False)
    options = {"prompt": "Once upon a time", "max_tokens": 40, "temperature": 0}
    with bestiary.load(str(whole), dtype="float32", progress=False) as own:
        due = own.generate(**options).text
    with bestiary.load(str(tmp_path), dtype="float32", tok_model_id=str(whole), progress=False) as pipe:
        assert pipe.generate(**options).text == due
    file = str(whole / "tokenizer.json")
    with bestiary.load(str(tmp_path), dtype="float32", tokenizer_json=file, progress=False) as pipe:
        assert pipe.generate(**options).text == due
    gguf = str(shared_data / STORIES / "gguf/stories260K-f32.gguf")
    with bestiary.load(str(tmp_path), dtype="float32", tok_model_id=gguf, progress=False) as pipe:
        assert pipe.generate(**options).text == due


def test_the_chat_template_comes_along(shared_data: Path) -> None:
    with bestiary.load(str(shared_data / STORIES / "hf"), tok_model_id="demo", progress=False) as pipe:
        assert "<|im_start|>" in pipe.render("Hello")


def test_what_is_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        bestiary.load("demo", tok_model_id=str(tmp_path / "none"), offline=True, progress=False)
    with pytest.raises(TokenizerError, match="no such file"):
        bestiary.load("demo", tokenizer_json=str(tmp_path / "none.json"), progress=False)
    with pytest.raises(OptionError, match="both name a tokenizer"):
        bestiary.load("demo", tok_model_id="demo", tokenizer_json="x", progress=False)
    with pytest.raises(OptionError, match="an id is due"):
        bestiary.load("demo", tok_model_id=3, progress=False)
