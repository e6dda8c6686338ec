"""The program of the worker process that renders chat templates; `template_worker` starts it.

It imports the standard library and jinja2, nothing of Bestiary.  A request on standard input is eight bytes of length
and a JSON object; the answer on standard output is eight bytes of length, a JSON object of that length, and as many
bytes of text as its "size" says.  An untrusted template runs here inside jinja2's sandbox, under limits of the
operating system, without the environment variables of the parent, and unable to open a file once it has started.
"""

import contextlib
import encodings.ascii
import encodings.latin_1
import encodings.unicode_escape
import html
import json
import os
import pprint
import select
import signal
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, cast

import jinja2.constants
import jinja2.debug
from jinja2 import Template, Undefined, nodes
from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError, UndefinedError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

# jinja2 imports these when a template first needs them; by then no file can be opened.
_NEEDED = (encodings.ascii, encodings.latin_1, encodings.unicode_escape, html, pprint, textwrap, unicodedata)
_NEEDED_OF_JINJA2 = (jinja2.constants, jinja2.debug)

_COMPILED = 32  # Templates kept; a server sees a few, so the oldest may go.
_PATIENCE = 10.0  # Seconds between two looks whether the parent still lives.
_HEADROOM = 128 << 20  # What a render may use at least, whatever the interpreter itself maps.


class Refused(TemplateError):
    """The template called raise_exception."""


class OutputLimit(Exception):
    """The text grew beyond the limit."""


class Spans(Extension):
    """`{% generation %}...{% endgeneration %}`: remembers where in the text the answers of the model lie."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_record"), [], [], body).set_lineno(line)

    def _record(self, caller: Callable[[], str]) -> str:
        text = caller()
        progress = cast(Environment, self.environment).progress
        progress.spans.append((progress.length, progress.length + len(text)))
        return text


class Progress:
    """How much of the text of the current render is out, and the spans seen so far."""

    def __init__(self) -> None:
        self.length = 0
        self.spans: list[tuple[int, int]] = []


class Environment(ImmutableSandboxedEnvironment):
    """jinja2's sandbox, and how far the render in it has come."""

    progress = Progress()

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """What jinja2 would let pass as an empty text, as long as nothing is done with it, is an error at once."""
        if attribute.startswith("_"):
            raise SecurityError(f"access to attribute {attribute!r} of {type(obj).__name__!r} object is unsafe.")
        return super().unsafe_undefined(obj, attribute)


class SafeDict:
    """`dict(...)` and `dict.fromkeys(...)`, without the attributes of the class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)


class SafeNamespace(Namespace):
    """jinja2's namespace, which would otherwise let a template set attributes that Python gives a meaning to."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # Without a named self, so that namespace(self=1) works.
        values = dict(*args[1:], **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(args[0], values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace takes no name with a leading underscore: {name!r}")


class Renderer:
    """The environment in which transformers renders chat templates, rebuilt from its documentation and behaviour."""

    def __init__(self, output: int) -> None:
        self._output = output
        self._now = datetime.min
        self._compiled: dict[str, Template] = {}
        environment = Environment(trim_blocks=True, lstrip_blocks=True, extensions=[Spans, loopcontrols])
        environment.filters["tojson"] = _tojson
        environment.globals |= {
            "raise_exception": _refuse,
            "strftime_now": lambda form: self._now.strftime(form),
            "dict": SafeDict(),
            "namespace": SafeNamespace,
        }
        self._environment = environment

    def render(self, source: str, variables: dict[str, Any], now: str) -> tuple[str, list[tuple[int, int]]]:
        """The text and the spans of its generation blocks, in characters."""
        self._now = datetime.fromisoformat(now)
        template = self._compiled.get(source)
        if template is None:
            template = self._environment.from_string(source)
            if len(self._compiled) >= _COMPILED:
                del self._compiled[next(iter(self._compiled))]
            self._compiled[source] = template
        progress = self._environment.progress = Progress()
        parts = []
        for part in template.generate(variables):
            progress.length += len(part)
            if progress.length > self._output:
                raise OutputLimit
            parts.append(part)
        return "".join(parts), progress.spans


def _refuse(message: object = "") -> None:
    raise Refused(str(message))


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON; jinja2's own filter escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _describe(error: BaseException) -> dict[str, Any]:
    """An error as the parent needs it: its kind, its message, and the line of the template."""
    kinds: dict[type[BaseException], str] = {
        Refused: "refused",
        TemplateSyntaxError: "syntax",
        SecurityError: "security",
        UndefinedError: "undefined",
        OutputLimit: "output",
        MemoryError: "memory",
        RecursionError: "recursion",
    }
    kind = next((kinds[base] for base in type(error).__mro__ if base in kinds), "other")
    message = str(error.message) if isinstance(error, TemplateSyntaxError) else str(error)
    line = error.lineno if isinstance(error, TemplateSyntaxError) else _line(error.__traceback__)
    return {"error": kind, "type": type(error).__name__, "message": message[:2000], "line": line, "size": 0}


def _line(trace: TracebackType | None) -> int | None:
    """The line of the template; jinja2 has put its lines into the traceback."""
    line = None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _answer(renderer: Renderer, request: bytes) -> bytes:
    try:
        fields = json.loads(request)
        text, spans = renderer.render(fields["source"], fields["variables"], fields["now"])
        body = text.encode("utf-8", "surrogatepass")
        head = {"spans": spans, "size": len(body)}
    except Exception as error:
        body = b""
        try:
            head = _describe(error)
        except (MemoryError, RecursionError):
            head = {"error": "memory", "type": "MemoryError", "message": "", "line": None, "size": 0}
    encoded = json.dumps(head).encode()
    return len(encoded).to_bytes(8, "big") + encoded + body


def _limit(memory: int) -> None:
    """Limits that the operating system keeps; where it has none of a kind, the parent's clock is what is left."""
    try:
        import resource
    except ImportError:
        return
    used = 0
    with contextlib.suppress(OSError, ValueError):
        used = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    for name, value in (
        ("RLIMIT_AS", max(memory, used + _HEADROOM)),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_FSIZE", 0),
        ("RLIMIT_NPROC", 0),
        ("RLIMIT_NOFILE", 3),
    ):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            resource.setrlimit(getattr(resource, name), (value, value))


def _parent_lives(parent: int) -> bool:
    """Waits for a request or for the end of the input, either of which the next read will show.

    A process that the parent forked may hold the other end of the pipe open; then the parent's death is no end of
    input, and only the number of our parent tells.
    """
    while not select.select([0], [], [], _PATIENCE)[0]:
        if os.getppid() != parent:
            return False
    return True


def serve(requests: BinaryIO, answers: BinaryIO, *, memory: int, output: int, seconds: float) -> None:
    """Answer until the input ends."""
    parent = os.getppid()
    posix = hasattr(signal, "setitimer")
    if posix:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process when it ends.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    renderer = Renderer(output)
    renderer.render("{{ messages | tojson }}", {"messages": []}, "2000-01-01T00:00:00")
    _limit(memory)
    answers.write((0).to_bytes(8, "big"))
    answers.flush()
    while not posix or _parent_lives(parent):
        size = requests.read(8)
        if len(size) < 8:
            return
        if posix:
            # The parent kills this process after `seconds`.  If the parent died, the alarm does it: its default action
            # needs no Python, so it also ends a single multiplication that takes for ever.
            signal.setitimer(signal.ITIMER_REAL, seconds + 1)
        answers.write(_answer(renderer, requests.read(int.from_bytes(size, "big"))))
        answers.flush()
        if posix:
            signal.setitimer(signal.ITIMER_REAL, 0)


def main() -> None:
    limits = json.loads(sys.argv[1])
    with contextlib.suppress(BrokenPipeError):
        serve(sys.stdin.buffer, sys.stdout.buffer, **limits)
