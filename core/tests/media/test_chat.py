"""Chats of models that see: what templates of such models do otherwise."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, processors

from bestiary.errors import MediaError
from bestiary.generation.chat import ChatEncoder
from bestiary.generation.conversation import Conversations
from bestiary.generation.template import ChatTemplate
from bestiary.generation.tokenizer import Tokenizer
from bestiary.media.prepared import Prepared
from bestiary.media.processor import Frames, Positions
from bestiary.media.prompt import Placed
from bestiary.media.reader import MediaReader

LISTS = (
    "{% for message in messages %}{{ message.role }}: {% for part in message.content if part.type == 'image' %}<image>"
    "{% endfor %}{% for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %};{% endfor %}"
)
TEXTS = "{{ bos_token }}{% for message in messages %}{{ message.role }}: {{ message.content }};{% endfor %}"
PICTURE = np.zeros((2, 2, 3), np.uint8)


class Eyes:
    """Makes two rows of a picture."""

    whole = False
    tokens: Mapping[str, int] = {"image": 2}

    def prepare(self, media: Frames) -> Prepared:
        return Prepared("image", {"pixel_values": np.asarray(media.frames[0])}, 2)

    def expand(self, text: str, media: Sequence[Prepared]) -> str:
        if text.count("<image>") != len(media):
            raise MediaError("They do not go together.")
        return text.replace("<image>", "<image><image>")

    def positions(self, length: int, placed: Sequence[Placed]) -> Positions | None:
        return None


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    special = ["<unk>", "<s>", "<image>"]
    letters = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Backend(models.BPE({token: place for place, token in enumerate(letters)}, []))
    backend.add_special_tokens(special)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return Tokenizer(backend, special_tokens={"bos_token": "<s>"}, origin="a test")


def asked(tokenizer: Tokenizer, template: str, messages: Any, *, eyes: bool = True) -> tuple[str, Any]:
    """The prompt's text with its special tokens, and its media."""
    made = ChatTemplate(template, source="a test", special_tokens={"bos_token": "<s>"})
    encoder = ChatEncoder(made, tokenizer, begins=eyes)
    request = Conversations(encoder, frozenset(), media=MediaReader(Eyes()) if eyes else None).request(messages, {})
    return tokenizer.decode(request.tokens, skip_special_tokens=False), request.media


def test_a_text_is_shown_to_templates_that_read_lists(tokenizer: Tokenizer) -> None:
    for messages in ("Hello", [{"role": "user", "content": "Hello"}]):
        assert asked(tokenizer, LISTS, messages)[0] == "<s>user: Hello;"
        assert asked(tokenizer, TEXTS, messages)[0] == "<s>user: Hello;"


def test_what_the_template_does_not_begin_with_is_added_where_there_are_eyes(tokenizer: Tokenizer) -> None:
    """As transformers' processors do, and its tokenizers do not."""
    message = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
    assert asked(tokenizer, LISTS, message)[0] == "<s>user: Hello;"
    assert asked(tokenizer, LISTS, message, eyes=False)[0] == "user: Hello;"
    assert asked(tokenizer, TEXTS, "Hello")[0] == "<s>user: Hello;"


def test_pictures_stand_where_the_template_says(tokenizer: Tokenizer) -> None:
    parts = [{"type": "text", "text": "a <image> b"}, {"type": "image", "image": PICTURE}]
    text, media = asked(tokenizer, LISTS, [{"role": "user", "content": parts}])
    assert text == "<s>user: <image><image>a <image> b;"
    assert [placed.places.tolist() for placed in media.placed] == [[7, 8]]  # what the user writes is text


def test_one_who_sees_nothing_refuses_a_picture(tokenizer: Tokenizer) -> None:
    with pytest.raises(MediaError, match="only text"):
        asked(tokenizer, TEXTS, [{"role": "user", "content": [{"type": "image", "image": PICTURE}]}], eyes=False)
