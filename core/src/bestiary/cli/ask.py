"""`bestiary run` of a text model: one answer, or a conversation."""

from __future__ import annotations

from typing import Any

from bestiary.cli.answer import show
from bestiary.cli.attached import question
from bestiary.cli.chat import Conversation, converse
from bestiary.cli.kinds import Given, Kind, chosen
from bestiary.errors import OptionError

_SAMPLING = ("max_tokens", "temperature", "top_k", "top_p", "min_p", "seed", "stop")


def check(prompt: str | None, given: Given) -> None:
    if not (prompt or "").strip() and ("image" in given or "video" in given):
        raise OptionError("--image and --video go with a question.", fix="add it; in a conversation drop files into it")


def ask(pipe: Any, prompt: str | None, given: Given, stats: bool) -> None:
    """Print the answer to a prompt as it comes; without a prompt hold a conversation."""
    if not hasattr(pipe, "stream_chat"):
        raise OptionError(f"`bestiary run` does not know how to talk to {pipe!r}.")
    system, raw = given.get("system"), given.get("raw", False)
    if system and not pipe.can_chat:
        raise OptionError("The model has no chat template, so --system has no place.", fix="leave --system out")
    sampling = chosen(given, *_SAMPLING)
    fixed: dict[str, Any] = {"adapter": "cli"} if "adapter" in given else {}
    if "think" in given and pipe.can_chat and not raw:
        fixed["enable_thinking"] = given["think"]
    if prompt is None:
        converse(Conversation(pipe, system, sampling, fixed), stats)
        return
    images, videos = given.get("image", ()), given.get("video", ())
    if raw or not pipe.can_chat:
        chunks = pipe.stream(prompt, images=images or None, videos=videos or None, **sampling, **fixed)
    else:
        messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        content = question(prompt, images, videos)
        chunks = pipe.stream_chat([*messages, {"role": "user", "content": content}], **sampling, **fixed)
    if not show(chunks, stats):
        raise KeyboardInterrupt


KIND = Kind(
    "a text model",
    frozenset(
        (
            *("image", "video", "max_edge", "system", "raw", "think", *_SAMPLING),
            *("adapter", "draft", "cache_type", "tok_model_id"),
        )
    ),
    check,
    ask,
)
