"""The conversation on a terminal: turns, and the commands that begin with a slash."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from bestiary.cli.answer import show
from bestiary.cli.attached import attached, question
from bestiary.errors import BestiaryError
from bestiary.nearest import did_you_mean

if TYPE_CHECKING:
    from bestiary.generation.completion import Chunk
    from bestiary.generation.conversation_stream import ChatStream

HELP = """\
/help                 this list
/system TEXT          set the system message, and begin anew; without TEXT remove it
/clear                forget the conversation
/exit                 leave (also Ctrl-D)
/set                  show the sampling settings
/temperature NUMBER   0 takes the most probable token
/topk NUMBER          sample from the k most probable tokens; 0: all
/topp NUMBER          sample from the tokens that reach this probability
/minp NUMBER          sample from tokens this probable, relative to the best
/maxtokens NUMBER     new tokens at most
/seed NUMBER          the same seed gives the same text
Ctrl-C stops an answer.  Drop the files of pictures into a line to ask about them, where the model takes pictures."""
_SETTINGS: dict[str, tuple[str, type]] = {
    "/temperature": ("temperature", float),
    "/topk": ("top_k", int),
    "/topp": ("top_p", float),
    "/minp": ("min_p", float),
    "/maxtokens": ("max_tokens", int),
    "/seed": ("seed", int),
}
COMMANDS = ("/help", "/system", "/clear", "/exit", "/set", *_SETTINGS)


@dataclass
class Conversation:
    """The state of one conversation: its pipeline, the messages so far and the sampling settings.

    `fixed` are options of every answer that no command changes.
    """

    pipe: Any
    system: str | None
    sampling: dict[str, Any]
    fixed: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)

    def turn(self, text: str, stats: bool) -> None:
        """Ask, print the answer, and remember both; an answer that was stopped is forgotten with its question."""
        if not self.pipe.can_chat:
            show(self.pipe.stream(text, **self.sampling, **self.fixed), stats)
            return
        head = [{"role": "system", "content": self.system}] if self.system else []
        line, pictures = attached(text) if self._sees else (text, [])
        asked = [*self.messages, {"role": "user", "content": question(line, pictures)}]
        answer: list[str] = []

        def kept(chunks: ChatStream) -> Generator[Chunk, None, None]:
            for chunk in chunks:
                answer.append(chunk.text)
                yield chunk

        if show(kept(self.pipe.stream_chat([*head, *asked], **self.sampling, **self.fixed)), stats) is not None:
            self.messages = [*asked, {"role": "assistant", "content": "".join(answer)}]

    @property
    def _sees(self) -> bool:
        return "image" in self.pipe.media.kinds

    def is_command(self, line: str) -> bool:
        """Whether a line is no question; one may begin with the path of a picture, too."""
        if not line.startswith("/") or line.split()[0] in COMMANDS:
            return line.startswith("/")
        return not (self._sees and attached(line)[1])

    def command(self, line: str) -> bool:
        """Obey a line that begins with a slash; False ends the conversation."""
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        if name in ("/exit", "/quit"):
            return False
        if name == "/help":
            typer.echo(HELP)
        elif name == "/clear":
            self.messages = []
            typer.echo("[the conversation is forgotten]")
        elif name == "/system":
            self.system, self.messages = rest or None, []
            typer.echo("[a new conversation begins]")
        elif name == "/set":
            typer.echo("\n".join(f"{key} {value}" for key, value in self.settings().items()))
        elif name in _SETTINGS:
            self._set(name, rest)
        else:
            typer.echo(f"There is no command {name}. {did_you_mean(name, COMMANDS)} /help lists them.")
        return True

    def settings(self) -> dict[str, Any]:
        """The settings that the next answer will have."""
        from dataclasses import asdict

        from bestiary.generation.sampling import merged

        return asdict(merged(self.pipe.sampling, self.sampling))

    def _set(self, command: str, text: str) -> None:
        from bestiary.generation.sampling import merged

        name, kind = _SETTINGS[command]
        try:
            changed = {**self.sampling, name: kind(text)}
            merged(self.pipe.sampling, changed)
        except ValueError:
            typer.echo(f"{command} takes a number, such as {command} {kind(1)}")
            return
        except BestiaryError as error:
            typer.echo(str(error))
            return
        self.sampling = changed
        typer.echo(f"[{name} is {changed[name]}]")


def converse(conversation: Conversation, stats: bool) -> None:
    """Read turns from the terminal until /exit or Ctrl-D."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (line editing and history for input())
    typer.echo(f"{conversation.pipe!r}\n/help lists the commands.", err=True)
    if not conversation.pipe.can_chat:
        typer.echo("The model has no chat template: it continues your text.", err=True)
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            typer.echo()
            return
        except KeyboardInterrupt:
            typer.echo()
            continue
        if not line:
            continue
        try:
            if conversation.is_command(line):
                if not conversation.command(line):
                    return
            else:
                conversation.turn(line, stats)
        except BestiaryError as error:
            print(f"error: {error}", file=sys.stderr)
