"""Names, states, and the life of a zoo's models."""

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bestiary
from bestiary.errors import OptionError, RequestError
from bestiary.zoo import Entry, Zoo

State = Callable[[Zoo], dict[str, str]]
QUESTION = "What is the capital of France?"


def test_models_are_loaded_when_they_are_asked_for(
    two: Zoo, loader: Any, alone: Any, state: State, nbytes: int
) -> None:
    assert state(two) == {"ant": "unloaded", "bee": "unloaded", "cat": "unloaded"}
    assert [model.nbytes for model in two.status()] == [0, 0, 0]
    assert two.generate("Once", model="bee", max_tokens=5, temperature=0.0).tokens == alone("bee", "Once", 5)
    assert state(two) == {"ant": "unloaded", "bee": "ready", "cat": "unloaded"}
    assert two.generate("Once", max_tokens=5, temperature=0.0).tokens == alone("ant", "Once", 5)
    assert loader.loads == ["bee", "ant"]
    ant, bee, cat = two.status()
    assert (ant.nbytes, ant.needed, ant.loads, ant.leases, ant.running, ant.error) == (nbytes, nbytes, 1, 0, 0, None)
    assert ant.last_used and bee.last_used and ant.last_used > bee.last_used and ant.load_seconds
    assert (cat.nbytes, cat.needed, cat.loads, cat.last_used, cat.load_seconds) == (0, None, 0, None, None)
    assert ant.id == two.status()[0].id and Path(ant.id).name == "ant"


def test_the_packaged_model_chats_as_it_does_alone() -> None:
    with bestiary.load("demo", progress=False) as pipe, Zoo({"small": "demo"}) as zoo:
        assert zoo.chat(QUESTION, temperature=0.0).tokens == pipe.chat(QUESTION, temperature=0.0).tokens


def test_names_aliases_and_the_default(tiny: dict[str, str], loader: Any) -> None:
    with Zoo({"ant": Entry(tiny["ant"], aliases=["gpt-4", "x"])}, load=loader) as zoo:
        assert (zoo.names, zoo.default) == (("ant",), "ant")
        zoo.add("bee", tiny["bee"], cache_tokens=512, aliases="b")
        assert zoo.names == ("ant", "bee")
        zoo.default = "b"
        assert zoo.default == "bee"
        zoo.load()
        zoo.load("gpt-4")
        assert loader.loads == ["bee", "ant"]
        for taken in ("ant", "gpt-4", "b"):
            with pytest.raises(OptionError, match=taken):
                zoo.add(taken, tiny["cat"])
            with pytest.raises(OptionError, match=taken):
                zoo.add("new", tiny["cat"], aliases=[taken])
        with pytest.raises(OptionError, match="twice"):
            zoo.add("twice", tiny["cat"], aliases=["twice"])
        assert zoo.names == ("ant", "bee")


@pytest.mark.parametrize("use", [lambda zoo, name: zoo.lease(name), lambda zoo, name: zoo.generate("a", model=name)])
def test_an_unknown_name_names_the_nearest(two: Zoo, use: Callable[[Zoo, Any], object]) -> None:
    with pytest.raises(RequestError, match="'bea'") as found:
        use(two, "bea")
    assert "'bee'" in str(found.value)
    with pytest.raises(RequestError) as found:
        use(two, "quite another")
    assert "ant, bee, cat" in str(found.value)
    for name in ("", 3, ["ant"], "x" * 10**6, "\ud800"):
        with pytest.raises(RequestError) as found:
            use(two, name)
        assert len(str(found.value)) < 400


def test_a_zoo_without_models_says_so() -> None:
    with Zoo() as zoo:
        assert (zoo.names, zoo.default, zoo.status()) == ((), None, ())
        with pytest.raises(RequestError, match="no default"):
            zoo.chat("Hello!")
        zoo.add("first", "demo")
        assert zoo.default == "first"


def test_removing_waits_for_leases_or_ends_what_runs(two: Zoo, state: State) -> None:
    stream = two.stream("Once", model="ant", max_tokens=100)
    next(stream)
    with pytest.raises(RequestError, match="now=True"):
        two.remove("ant", wait=0)
    assert next(stream).tokens, "a removal that failed changes nothing"
    removing = threading.Thread(target=two.remove, args=("ant",))
    removing.start()
    while not two._keeper._ledger.asks:
        time.sleep(0.001)
    assert two.names == ("ant", "bee", "cat")
    stream.close()
    removing.join()
    assert two.names == ("bee", "cat") and two.default is None
    with pytest.raises(RequestError, match="'ant'"):
        two.generate("Once", model="ant")

    stream = two.stream("Once", model="bee", max_tokens=200)
    next(stream)
    two.remove("bee", now=True)
    with pytest.raises(RequestError, match="closed"):
        list(stream)
    assert state(two) == {"cat": "unloaded"}
    two.add("ant", two.status()[0].id)
    assert two.default == "ant"


def test_unload_and_reload(two: Zoo, loader: Any, alone: Any, state: State) -> None:
    two.unload("ant")
    two.load("ant")
    two.unload("ant")
    assert state(two)["ant"] == "unloaded"
    assert loader.resident() == 0
    two.reload("ant")
    assert (state(two)["ant"], two.status()[0].loads, loader.loads) == ("ready", 2, ["ant", "ant"])
    with two.lease("ant") as pipe:
        for close in (two.unload, two.reload, two.remove):
            with pytest.raises(RequestError, match="what uses it"):
                close("ant")
        assert pipe.generate("a", max_tokens=3, temperature=0.0).tokens == alone("ant", "a", 3)
        two.unload("ant", now=True)
        with pytest.raises(RequestError, match="closed"):
            pipe.generate("a")
    assert two.generate("a", max_tokens=3, temperature=0.0).tokens == alone("ant", "a", 3)


def test_a_reload_reads_the_files_anew(tiny: dict[str, str], tmp_path: Path, alone: Any) -> None:
    link = tmp_path / "model"
    link.symlink_to(tiny["ant"])
    with Zoo({"model": Entry(str(link), cache_tokens=512)}) as zoo:
        assert zoo.generate("a", max_tokens=5, temperature=0.0).tokens == alone("ant", "a", 5)
        link.unlink()
        link.symlink_to(tiny["bee"])
        zoo.reload("model")
        assert zoo.generate("a", max_tokens=5, temperature=0.0).tokens == alone("bee", "a", 5)


def until(condition: Callable[[], bool]) -> None:
    """Wait for what must come; the limit is for a test that would hang."""
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


def test_a_model_is_closed_for_being_idle_by_one_thread(tiny: dict[str, str], loader: Any, state: State) -> None:
    entries = {name: Entry(folder, idle=0.05, cache_tokens=512) for name, folder in tiny.items()}
    entries["pinned"] = Entry(tiny["ant"], idle=0.05, cache_tokens=512, pinned=True)
    with Zoo(entries, load=loader) as zoo:
        zoo.load("pinned")
        with zoo.lease("ant"):
            zoo.load("bee")
            zoo.load("cat")
            watchers = [thread for thread in threading.enumerate() if thread.name == "bestiary-zoo"]
            assert len(watchers) == 1
            until(lambda: state(zoo)["bee"] == state(zoo)["cat"] == "unloaded")
            assert state(zoo)["ant"] == "ready", "a lease is no idleness"
        until(lambda: state(zoo)["ant"] == "unloaded")
        assert state(zoo)["pinned"] == "ready"
        zoo.load("ant")
        until(lambda: state(zoo)["ant"] == "unloaded")
    assert not watchers[0].is_alive()


def test_a_request_that_outlives_its_lease_is_no_idleness(tiny: dict[str, str], state: State) -> None:
    with Zoo({"ant": Entry(tiny["ant"], idle=0.05), "bee": Entry(tiny["bee"], idle=0.05)}) as zoo:
        with zoo.lease("ant") as pipe:
            stream = pipe.stream("a", max_tokens=200, temperature=0.0)
        zoo.load("bee")
        assert sum(len(chunk.tokens) for chunk in stream) == 200
        until(lambda: state(zoo) == {"ant": "unloaded", "bee": "unloaded"})


def test_closing_ends_everything(tiny: dict[str, str], loader: Any) -> None:
    zoo = Zoo({"ant": tiny["ant"], "bee": tiny["bee"]}, load=loader)
    stream = zoo.stream("a", model="ant", max_tokens=200)
    next(stream)
    zoo.load("bee")
    zoo.close()
    zoo.close()
    with pytest.raises(RequestError, match="closed"):
        list(stream)
    gc.collect()
    assert loader.resident() == 0
    for use in (zoo.load, lambda: zoo.unload("ant"), lambda: zoo.add("cat", "demo"), lambda: zoo.remove("ant")):
        with pytest.raises(RequestError, match="closed"):
            use()
    assert [model.state for model in zoo.status()] == ["unloaded", "unloaded"]


def test_a_forgotten_zoo_is_collected_with_its_models_and_its_thread(tiny: dict[str, str], loader: Any) -> None:
    zoo = Zoo({"ant": Entry(tiny["ant"], idle=1000)}, load=loader)
    zoo.generate("a", max_tokens=2)
    gone = weakref.ref(zoo)
    del zoo
    gc.collect()
    assert gone() is None
    until(lambda: gc.collect() >= 0 and loader.resident() == 0)
    until(lambda: not any(thread.name == "bestiary-zoo" for thread in threading.enumerate()))


def test_a_program_that_ends_without_closing_ends_cleanly(tiny: dict[str, str]) -> None:
    code = (
        "import sys\n"
        "from bestiary.zoo import Entry, Zoo\n"
        "assert 'torch' not in sys.modules, 'a zoo is made without torch'\n"
        f"zoo = Zoo({{'ant': Entry({tiny['ant']!r}, idle=0.02), 'bee': {tiny['bee']!r}}})\n"
        "assert 'torch' not in sys.modules\n"
        "zoo.load('ant')\n"
        "stream = zoo.stream('a', model='bee', max_tokens=200)\n"
        "print(len(next(stream).tokens))\n"
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", ""), done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_the_child_of_a_fork_has_a_zoo_of_its_own(tiny: dict[str, str]) -> None:
    """At the fork another thread of the parent is in the middle of a load, which will never end in the child."""
    code = (
        "import os, sys, threading\n"
        "import bestiary\n"
        "from bestiary.zoo import Entry, Zoo\n"
        "begun, go_on = threading.Event(), threading.Event()\n"
        "def load(id, **options):\n"
        "    if id.endswith('bee') and os.getpid() == parent:\n"
        "        begun.set(); go_on.wait()\n"
        "    return bestiary.load(id, progress=False, **options)\n"
        "parent = os.getpid()\n"
        f"zoo = Zoo({{'ant': Entry({tiny['ant']!r}, idle=100), 'bee': {tiny['bee']!r}}}, load=load)\n"
        "zoo.load('ant')\n"
        "thread = threading.Thread(target=zoo.load, args=('bee',)); thread.start(); begun.wait()\n"
        "assert [m.state for m in zoo.status()] == ['ready', 'loading']\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    assert [m.state for m in zoo.status()] == ['ready', 'unloaded'], zoo.status()\n"
        "    zoo.load('ant'); zoo.load('bee')\n"
        "    assert [m.state for m in zoo.status()] == ['ready', 'ready'], zoo.status()\n"
        "    zoo.close()\n"
        "    assert [m.state for m in zoo.status()] == ['unloaded', 'unloaded'], zoo.status()\n"
        "    sys.exit(7)\n"
        "status = os.waitpid(child, 0)[1]\n"
        "go_on.set(); thread.join()\n"
        "assert [m.state for m in zoo.status()] == ['ready', 'ready'], zoo.status()\n"
        "zoo.close()\n"
        "print(os.waitstatus_to_exitcode(status))\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=90)
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr
