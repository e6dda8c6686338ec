"""Values of processor files are checked where they are taken, and files are read in the order of transformers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bestiary.config import Config
from bestiary.errors import ConfigError
from bestiary.media.settings import Settings, media_settings, read_settings
from bestiary.sources.folder import Folder

NOT_FINITE = [float("nan"), float("inf"), -float("inf"), 10**400]


def stated(**values: Any) -> Settings:
    return Settings(values, "a test")


def test_null_and_nothing_are_the_default() -> None:
    for given in (stated(), stated(a=None)):
        assert given.flag("a", True) and given.text("a", "x") == "x" and given.whole("a", 3, 1, 5) == 3
        assert given.number("a", 0.5, 0, 1) == 0.5 and given.colours("a", 0.5) == (0.5,) * 3
        assert given.part("a") is None and "a" not in given and given.get("a", 7) == 7
        assert given.scaling(0.5, (0.1, 0.2, 0.3)) == ((0.5,) * 3, (0.1, 0.2, 0.3), 1 / 255)


@pytest.mark.parametrize("value", [0, 1, "true", [], {}, *NOT_FINITE])
def test_what_is_no_flag(value: Any) -> None:
    with pytest.raises(ConfigError, match="true or false"):
        stated(a=value).flag("a", True)


@pytest.mark.parametrize("value", [True, 1.0, "2", 0, 6, [], *NOT_FINITE])
def test_what_is_no_whole_number(value: Any) -> None:
    with pytest.raises(ConfigError, match="whole number from 1 to 5"):
        stated(a=value).whole("a", 3, 1, 5)


@pytest.mark.parametrize("value", [True, "2", -1, 2, {}, *NOT_FINITE])
def test_what_is_no_number(value: Any) -> None:
    with pytest.raises(ConfigError, match="a number from 0 to 1"):
        stated(a=value).number("a", 0.5, 0, 1)


@pytest.mark.parametrize("value", [True, "a", [1, 2], [1, 2, "3"], [1, 2, True], [0, 1, 1], {}, *NOT_FINITE])
def test_what_is_no_colour(value: Any) -> None:
    with pytest.raises(ConfigError, match="three numbers"):
        stated(a=value).colours("a", 0.5, 1e-6)


def test_one_number_stands_for_all_colours() -> None:
    assert stated(a=2).colours("a", 0.5) == (2.0, 2.0, 2.0) and stated(a=[1, 2, 3]).colours("a", 0.5) == (1.0, 2.0, 3.0)


def test_what_is_not_done_is_one_and_zero() -> None:
    given = {"image_mean": [1, 2, 3], "image_std": [4, 5, 6], "rescale_factor": 0.5}
    assert stated(**given).scaling(0, 1) == ((1, 2, 3), (4, 5, 6), 0.5)
    assert stated(**given, do_normalize=False, do_rescale=False).scaling(0, 1) == ((0, 0, 0), (1, 1, 1), 1.0)
    with pytest.raises(ConfigError):  # a wrong value is wrong even where it is not used
        stated(image_std=[0, 1, 1], do_normalize=False).scaling(0, 1)


def test_a_resampling_is_one_of_pillow() -> None:
    assert stated(resample=1).resample(3) == 1 and stated().resample(3) == 3
    with pytest.raises(ConfigError):
        stated(resample=99).resample(3)


def test_the_files_in_their_order(tmp_path: Path, folder_repository: Callable[[Path], Folder]) -> None:
    def found(**carried: Any) -> Any:
        config = Config(carried, "config.json")
        names = ("video_preprocessor_config.json", "preprocessor_config.json")
        return media_settings(folder_repository(tmp_path), config, "video_processor", names).get("a")

    (tmp_path / "config.json").write_text("{}")
    assert found() is None and found(preprocessor_config={"a": 1}) == 1
    for due, name, content in (
        (2, "preprocessor_config.json", {"a": 2}),
        (3, "video_preprocessor_config.json", {"a": 3}),
        (4, "processor_config.json", {"video_processor": {"a": 4}}),
    ):
        (tmp_path / name).write_text(json.dumps(content))
        assert found(preprocessor_config={"a": 1}) == due
    (tmp_path / "processor_config.json").write_text('{"video_processor": 3}')
    with pytest.raises(ConfigError, match="an object is due"):
        found()
    assert read_settings(folder_repository(tmp_path), "absent.json").values == {}
