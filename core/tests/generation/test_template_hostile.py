"""A template is a program of a stranger: it may fail, but not hang, fill the memory, escape, or stop the others."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bestiary.errors import TemplateError
from bestiary.generation.template import ChatTemplate
from bestiary.generation.template_worker import SOURCE_LIMIT, TemplateWorkers

HELLO = [{"role": "user", "content": "hello"}]
SLOW = 5.0  # Seconds; the limit is 2, the rest is for a loaded machine.

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

HANGING = {
    "nested loops": "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    "power": "{{ 9**(9**9) }}",
    "power while compiling": "{% if false %}{{ 9**(9**9) }}{% endif %}",
    "recursive macro": "{% macro f(n) %}{{ f(n - 1) ~ f(n - 1) if n else '' }}{% endmacro %}{{ f(60) }}",
    "joiner": "{% for a in range(100000) %}{% set x = range(100000) | list %}{% endfor %}",
}
LARGE = {
    "repeated text": "{{ 'a' * 10**10 }}",
    "center": "{{ 'a' | center(10**10) }}",
    "indent": "{{ ('a\\n' * 1000) | indent(10**9) }}",
    "format": "{{ '%10000000000d' % 1 }}",
    "format method": "{{ '{:>10000000000}'.format(1) }}",
    "doubling": "{% set n = namespace(x='a') %}{% for i in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "list": "{{ ([0] * 10**9) | length }}",
    "lists of lists": "{% set n = namespace(x=[1]) %}{% for i in range(64) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "output": "{% for i in range(100000) %}{{ 'a' * 1000 }}{% endfor %}",
    "joined": "{{ range(100000) | join('a' * 100000) }}",
    "replace": "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
    "json": "{{ ('é' * 1000000 ~ '') | list | tojson(indent=10**6) }}",
}
DEEP = {
    "parentheses": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "lists": "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "not": "{{ " + "not " * 5000 + "1 }}",
    "blocks": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "loops": "{% for a in [1] %}" * 200 + "{% endfor %}" * 200,
    "macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "generation": "{% generation %}" * 3000 + "{% endgeneration %}" * 3000,
    "filters": "{{ 1" + "|string" * 20000 + " }}",
}
ESCAPES = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''.__class__ }}",
    "{{ messages.__class__.__base__ }}",
    "{{ ''['__class__'] }}",
    "{{ '' | attr('__class__') }}",
    "{{ '' | attr('__cla' ~ 'ss__') | attr('__mro__') }}",
    "{{ [''] | map(attribute='__class__') | list }}",
    "{{ [''] | map('attr', '__class__') | list }}",
    "{{ [['', 1]] | groupby('0.__class__') }}",
    "{{ [''] | sum(attribute='__class__') }}",
    "{{ [''] | selectattr('__class__') | list }}",
    "{{ [''] | sort(attribute='__class__') }}",
    "{{ '{0.__class__}'.format('') }}",
    "{{ '{0.__class__.__mro__[1].__subclasses__}'.format('') }}",
    "{{ '{x.__class__}'.format_map({'x': ''}) }}",
    "{{ ('{0.__class__}' | attr('format'))('') }}",
    "{{ ['{0.__class__}'] | map('attr', 'format') | first | attr('__call__') }}",
    "{{ ('%s' | attr('__mod__'))(1) }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ dict.__base__.__subclasses__() }}",
    "{{ dict.__init__.__globals__ }}",
    "{{ dict.fromkeys.__func__.__globals__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ raise_exception.__code__.co_consts }}",
    "{{ strftime_now.__closure__ }}",
    "{{ range.__class__.__call__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context.environment }}",
    "{{ self.__dict__ }}",
    "{{ loop.__init__.__globals__ }}",
    "{% for x in [1] %}{{ loop._iterable }}{{ loop.__class__ }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m._func.__code__ }}",
    "{% macro m() %}{{ caller.__class__ }}{% endmacro %}{% call m() %}{% endcall %}",
    "{{ undefined_thing.__class__.__init__.__globals__ }}",
    "{{ (1).__class__.__base__ }}",
    "{{ [].append.__self__ }}",
    "{{ messages[0].items.__self__ }}",
    "{{ (x for x in y) }}",
    "{% set n = namespace(__class__='x') %}",
    "{% set n = namespace() %}{% set n.__class__ = 'x' %}",
    "{% set n = namespace({'_x': 1}) %}",
    "{% set n = namespace() %}{% set n.__init__ = 1 %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% from 'os' import system %}",
    "{% extends '/etc/passwd' %}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'system'}) }}",
    "{{ messages[0].pop('role') }}",
    "{{ messages.clear() }}",
    "{{ range(1000000) | list }}",
    "{{ ''.encode.__self__.__class__ }}",
    "{{ get_flashed_messages.__globals__ }}",
    "{{ config.items() }}",
    "{{ request.application.__globals__ }}",
    "{{ ''.__getattribute__('__class__') }}",
    "{% set x = ''.__class__ %}{{ x }}",
    "{% if ''.__class__.__name__ == 'str' %}x{% endif %}",
    "{{ environment.loader.load }}",
    "{% debug %}",
    "{% do messages.append(1) %}",
    "{% trans %}x{% endtrans %}",
)


HARMLESS = (  # Objects without an inside, or attributes that are not there.
    "{{ self }}",
    "{{ dict }}",
    "{{ namespace }}",
    "{{ raise_exception }}",
    "{{ lipsum }}",
    "{{ loop }}",
    "{{ ''.format_map.__self__ }}",
    "{{ namespace(x=1).__dict__ }}",
    "{% macro m() %}{% endmacro %}{{ m.__globals__ }}",
)


@pytest.fixture(scope="module")
def workers() -> Iterator[TemplateWorkers]:
    pool = TemplateWorkers()
    yield pool
    pool.close()


def fail(workers: TemplateWorkers, jinja: str) -> TemplateError:
    begin = time.monotonic()
    with pytest.raises(TemplateError) as caught:
        ChatTemplate(jinja, source="hostile", workers=workers).render(HELLO)
    assert time.monotonic() - begin < SLOW
    return caught.value


def serves(workers: TemplateWorkers) -> bool:
    text = ChatTemplate("{{ messages[0].content }} {{ 6 * 7 }}", source="good", workers=workers).render(HELLO)
    return text == "hello 42"


def pids(workers: TemplateWorkers) -> set[int]:
    return {worker.process.pid for worker in workers._alive}


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def waits_for(condition: object, seconds: float = SLOW) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


def test_hanging_templates_end_while_others_are_served(workers: TemplateWorkers) -> None:
    assert serves(workers)
    errors: dict[str, TemplateError] = {}

    def hang(name: str) -> None:
        try:
            ChatTemplate(HANGING[name], source=name, workers=workers).render(HELLO)
        except TemplateError as error:
            errors[name] = error

    for names in (list(HANGING)[:3], list(HANGING)[3:]):
        threads = [threading.Thread(target=hang, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        slowest, served = 0.0, 0
        while any(thread.is_alive() for thread in threads):
            begin = time.monotonic()
            assert serves(workers)
            slowest, served = max(slowest, time.monotonic() - begin), served + 1
            time.sleep(0.01)
        assert served > 20 and slowest < 1.5
    assert set(errors) == set(HANGING)
    assert all("longer than 2 s" in error.what for error in errors.values())


@pytest.mark.parametrize("name", LARGE)
def test_large_results(name: str, workers: TemplateWorkers) -> None:
    error = fail(workers, LARGE[name])
    assert "memory" in error.what or "characters" in error.what or "longer than" in error.what, error.what
    assert serves(workers)


@pytest.mark.parametrize("name", DEEP)
def test_deep_templates(name: str, workers: TemplateWorkers) -> None:
    fail(workers, DEEP[name])
    assert serves(workers)


@pytest.mark.parametrize("jinja", ESCAPES)
def test_escapes(jinja: str, workers: TemplateWorkers) -> None:
    fail(workers, jinja)
    assert serves(workers)


def test_what_a_template_may_look_at_says_nothing(workers: TemplateWorkers) -> None:
    for jinja in HARMLESS:
        text = ChatTemplate(jinja, source="hostile", workers=workers).render(HELLO)
        assert "/" not in text and len(text) < 200


def test_one_render_leaves_nothing_for_the_next(workers: TemplateWorkers) -> None:
    ChatTemplate("{% set secret = messages[0].content %}{% macro m() %}{{ secret }}{% endmacro %}", source="a").render(
        HELLO
    )
    for jinja in ("{{ secret is defined }}", "{{ m is defined }}", "{{ x is defined }}"):
        template = ChatTemplate(jinja, source="b", workers=workers)
        template.render(HELLO, x=1)
        assert template.render(HELLO) == "False"


def test_long_sources(workers: TemplateWorkers) -> None:
    assert "bytes" in fail(workers, "é" * (SOURCE_LIMIT // 2 + 1)).what
    assert len(ChatTemplate("a" * SOURCE_LIMIT, source="long", workers=workers).render(HELLO)) == SOURCE_LIMIT


def test_results_up_to_the_limit() -> None:
    pool = TemplateWorkers(output=100_000)
    jinja = "{% for i in range(n) %}😀{% endfor %}"
    assert ChatTemplate(jinja, source="x", workers=pool).render(HELLO, n=100_000) == "😀" * 100_000
    with pytest.raises(TemplateError, match="more than 100000 characters"):
        ChatTemplate(jinja + "a", source="x", workers=pool).render(HELLO, n=100_000)
    pool.close()


def test_a_large_conversation_fits(workers: TemplateWorkers) -> None:
    messages = [{"role": "user", "content": "word " * 400_000}] * 5
    text = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}", source="x", workers=workers).render(
        messages
    )
    assert len(text) == 10_000_000


# The process


@linux
def test_the_process_is_closed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    pool = TemplateWorkers()
    assert serves(pool)
    (pid,) = pids(pool)
    assert b"hf_secret" not in Path(f"/proc/{pid}/environ").read_bytes()
    limits = Path(f"/proc/{pid}/limits").read_text()
    for name, value in (("Max address space", 256 << 20), ("Max file size", 0), ("Max open files", 3)):
        (line,) = (line for line in limits.splitlines() if line.startswith(name))
        assert line[len("Max realtime timeout      ") :].split()[:2] == [str(value)] * 2, line
    assert len(list(Path(f"/proc/{pid}/fd").iterdir())) == 3
    pool.close()


@linux
def test_killed_workers_leave_no_zombie_and_are_replaced() -> None:
    pool = TemplateWorkers(seconds=0.3)
    assert serves(pool)
    (first,) = pids(pool)
    fail(pool, HANGING["power"])
    assert not Path(f"/proc/{first}").exists()
    assert serves(pool)
    (second,) = pids(pool)
    os.kill(second, signal.SIGINT)  # Ctrl-C reaches every process of a terminal.
    assert serves(pool) and pids(pool) == {second}
    os.kill(second, signal.SIGKILL)  # As the system does when memory is short.
    assert serves(pool) and pids(pool) != {second}
    assert not Path(f"/proc/{second}").exists()
    last = pids(pool)
    pool.close()
    assert all(not Path(f"/proc/{pid}").exists() for pid in last)
    assert serves(pool)
    pool.close()


@linux
def test_a_dropped_pool_ends_its_workers() -> None:
    pool = TemplateWorkers()
    assert serves(pool)
    (pid,) = pids(pool)
    del pool
    assert waits_for(lambda: gone(pid))


def test_many_threads_share_a_few_workers() -> None:
    pool = TemplateWorkers(processes=3)
    template = ChatTemplate("{% for i in range(50) %}{{ messages[0].content }}{% endfor %}", source="x", workers=pool)
    wrong: list[str] = []
    most = 0

    def work(name: str) -> None:
        nonlocal most
        for _ in range(30):
            text = template.render([{"role": "user", "content": name}])
            most = max(most, len(pool._alive))
            if text != name * 50:
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(f"<{place}>",)) for place in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and 1 <= most <= 3
    pool.close()


def test_an_interpreter_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = TemplateWorkers()
    for executable in ("/no/such/python", "/bin/false"):
        monkeypatch.setattr(sys, "executable", executable)
        with pytest.raises(TemplateError, match="could not start"):
            ChatTemplate("x", source="x", workers=pool).render(HELLO)
    monkeypatch.undo()
    assert serves(pool)
    pool.close()


PARENT = """
import sys, threading, time
from bestiary.generation.template import ChatTemplate
from bestiary.generation.template_worker import shared_workers
chat = [{"role": "user", "content": "hello"}]
good = ChatTemplate("{{ messages[0].content }}", source="good")
assert good.render(chat) == "hello"
pids = lambda: [worker.process.pid for worker in shared_workers()._alive]
"""


def run(code: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", PARENT + code], stdout=subprocess.PIPE, text=True)


@linux
@pytest.mark.parametrize("busy", [False, True])
def test_workers_die_with_their_parent(busy: bool) -> None:
    hang = "threading.Thread(target=ChatTemplate('{{ 9**(9**9) }}', source='bad').render, args=(chat,)).start()\n"
    with run((hang if busy else "") + "time.sleep(0.2)\nprint(*pids(), flush=True)\ntime.sleep(60)") as parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert workers and not any(map(gone, workers))
        parent.kill()
        parent.wait()
        assert waits_for(lambda: all(map(gone, workers)))


@linux
def test_workers_end_when_the_program_ends() -> None:
    with run("print(*pids(), flush=True)") as parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert parent.wait(SLOW) == 0
        assert workers and waits_for(lambda: all(map(gone, workers)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_workers_of_its_own() -> None:
    code = """
import os
before = pids()
child = os.fork()
if child == 0:
    assert good.render(chat) == "hello" and not set(before) & set(pids())
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert good.render(chat) == "hello" and pids() == before
print("held")
"""
    with run(code) as parent:
        assert parent.stdout is not None
        assert parent.stdout.read() == "held\n" and parent.wait(SLOW) == 0


def test_usual_templates_take_a_millisecond_or_two(workers: TemplateWorkers) -> None:
    jinja = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content | trim }}<|end|>\n{% endfor %}"
    template = ChatTemplate(jinja, source="x", workers=workers)
    times = []
    for _ in range(100):
        begin = time.perf_counter()
        template.render(HELLO * 20)
        times.append(time.perf_counter() - begin)
    assert sorted(times)[50] < 0.01  # Measured: 0.0003; the margin is for a loaded machine.
