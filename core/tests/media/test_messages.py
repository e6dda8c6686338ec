"""Media are found in messages as every API writes them."""

from typing import Any

import pytest

from bestiary.errors import MediaError, RequestError
from bestiary.media.messages import without_media
from bestiary.media.reader import MediaReader

PICTURE = object()
FORMS: list[tuple[dict[str, Any], str, Any]] = [
    ({"type": "image", "image": PICTURE}, "image", PICTURE),
    ({"image": "cat.png"}, "image", "cat.png"),
    ({"type": "image", "path": "cat.png"}, "image", "cat.png"),
    ({"type": "image", "url": "https://a/b.png"}, "image", "https://a/b.png"),
    ({"type": "image_url", "image_url": {"url": "https://a/b.png", "detail": "low"}}, "image", "https://a/b.png"),
    ({"type": "image_url", "image_url": "https://a/b.png"}, "image", "https://a/b.png"),
    ({"type": "input_image", "image_url": "data:image/png;base64,AA=="}, "image", "data:image/png;base64,AA=="),
    (
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
        "image",
        "data:image/png;base64,AA==",
    ),
    ({"type": "image", "source": {"type": "url", "url": "https://a/b.png"}}, "image", "https://a/b.png"),
    ({"type": "video", "video": ["a.png", "b.png"]}, "video", ["a.png", "b.png"]),
    ({"type": "video", "video": ["a.png"], "fps": 2.0}, "video", {"frames": ["a.png"], "fps": 2.0}),
    ({"type": "video", "frames": ["a.png"], "fps": 2.0}, "video", {"frames": ["a.png"], "fps": 2.0}),
    ({"type": "video_url", "video_url": {"url": "a.gif"}}, "video", "a.gif"),
    ({"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}, "audio", "data:wav;base64,AA=="),
]


@pytest.mark.parametrize(("part", "kind", "source"), FORMS)
def test_every_form_is_understood(part: dict[str, Any], kind: str, source: Any) -> None:
    text = {"type": "text", "text": "What is it?"}
    messages, found = without_media([{"role": "user", "content": [part, text]}, {"role": "assistant", "content": "A"}])
    assert found == [(kind, source)]
    assert messages[0]["content"] == [{"type": kind}, text] and messages[1]["content"] == "A"


def test_media_come_in_the_order_of_the_chat() -> None:
    parts = [{"type": "image", "image": name} for name in "abc"]
    chat = [
        {"role": "user", "content": parts[:2]},
        {"role": "user", "content": [{"type": "text", "text": "x"}, parts[2]]},
    ]
    assert [source for _, source in without_media(chat)[1]] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "part", [{"type": "image"}, {"type": "image_url", "image_url": {}}, {"type": "video", "url": None}]
)
def test_a_part_without_its_medium_is_refused(part: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="has no"):
        without_media([{"role": "user", "content": [part]}])


@pytest.mark.parametrize("messages", ["Hello", [{"role": "user", "content": "Hello"}], None, [3], 7])
def test_what_has_no_media_stays(messages: Any) -> None:
    assert without_media(messages) == (messages, [])


def test_a_model_without_eyes_says_so() -> None:
    with pytest.raises(MediaError, match="takes no images, only text"):
        MediaReader(None).read([("image", "cat.png")])
