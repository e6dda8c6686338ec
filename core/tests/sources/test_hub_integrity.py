"""Corrupt, cut, killed, concurrent and offline: what comes out is the right file or an error (T-20)."""

import logging
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bestiary.errors import CorruptDownload, HubUnavailable, ModelNotFound
from bestiary.records import Progress
from bestiary.sources import hub_cache
from bestiary.testing.hub import Fault, LocalHub

ID = "zoo/tiny-lion"
WEIGHTS = bytes(range(256)) * 4096
Open = Callable[..., Any]


def downloads(hub: LocalHub) -> int:
    return hub.count("GET", "/resolve/")


def blobs(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.glob("models--*/blobs/*"))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_wrong_content_of_the_right_size_is_fetched_again(
    hub: LocalHub, lion: str, opened: Open, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    hub.faults.append(Fault(name, "GET", corrupt=True))
    repository = opened()
    assert repository.path(name).read_bytes() == hub.models[ID].commits[lion][name]
    assert downloads(hub) == 2 and "has the hash" in caplog.text


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_wrong_content_twice_is_an_error_and_leaves_nothing(
    hub: LocalHub, lion: str, opened: Open, cache: Path, name: str
) -> None:
    hub.faults.append(Fault(name, "GET", corrupt=True, times=2))
    repository = opened()
    events: list[Progress] = []
    with pytest.raises(CorruptDownload, match="arrived corrupt twice") as caught:
        repository.fetch([name], events.append)
    assert f"hf download {ID} {name} --revision {lion} --force-download" in str(caught.value)
    assert blobs(cache) == [] and repository.missing([name])
    assert repository.path(name).exists()  # a third time, from a server that is well again
    done = [event.done for event in events if event.stage == "download"]
    assert done == sorted(done)


def test_one_corrupt_file_does_not_spoil_the_others(hub: LocalHub, lion: str, opened: Open) -> None:
    hub.faults.append(Fault("model.safetensors", "GET", corrupt=True, times=9))
    repository = opened()
    with pytest.raises(CorruptDownload):
        repository.fetch(repository.files())
    hub.faults.clear()
    repository.fetch(repository.files())
    assert repository.local


@pytest.mark.parametrize("change", ["content", "size"])
def test_an_edited_cache_file_is_noticed_and_left(
    hub: LocalHub, lion: str, opened: Open, cache: Path, change: str
) -> None:
    path = opened().path("model.safetensors")
    assert opened().path("model.safetensors") == path
    changed = WEIGHTS + b"!" if change == "size" else WEIGHTS[:-1] + b"!"
    path.write_bytes(changed)
    os.utime(path, ns=(0, time.time_ns() + 10**9))
    for offline in (False, True):
        repository = opened(offline=offline)
        with pytest.raises(CorruptDownload, match="is not the file of the hub") as caught:
            repository.path("model.safetensors")
        assert "--force-download" in str(caught.value) and str(cache / "models--zoo--tiny-lion") in str(caught.value)
        with pytest.raises(CorruptDownload):
            repository.head("model.safetensors", 8)
    assert path.read_bytes() == changed and downloads(hub) == 1


def test_what_another_program_left_corrupt_is_noticed(hub: LocalHub, lion: str, opened: Open, cache: Path) -> None:
    from huggingface_hub import hf_hub_download

    hub.faults.append(Fault("model.safetensors", "GET", corrupt=True))
    hf_hub_download(ID, "model.safetensors", revision=lion, cache_dir=cache, endpoint=hub.endpoint, token=False)
    with pytest.raises(CorruptDownload):
        opened().path("model.safetensors")


def test_verification_is_remembered_across_openings(
    hub: LocalHub, lion: str, opened: Open, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    real = hub_cache.file_hash

    def counted(path: Path, *arguments: Any) -> str:
        hashed.append(path.name)
        return real(path, *arguments)

    monkeypatch.setattr(hub_cache, "file_hash", counted)
    path = opened().path("model.safetensors")
    opened().path("model.safetensors")
    opened(offline=True).path("model.safetensors")
    assert hashed == ["model.safetensors"]
    os.utime(path)  # touched, but the same
    opened().path("model.safetensors")
    opened().path("model.safetensors")
    assert len(hashed) == 2
    (mark,) = cache.rglob(".bestiary/*.json")
    for nonsense in ("", "[]", "{}", "null", '["x", 1, 2, 3, "y"]'):
        mark.write_text(nonsense)
        opened().path("model.safetensors")
    assert len(hashed) == 7
    moved = cache.with_name("moved")
    shutil.move(cache, moved)  # a cache keeps its marks
    opened(cache_dir=str(moved)).path("model.safetensors")
    assert len(hashed) == 7


@pytest.mark.parametrize("offline", [False, True])
def test_verify_hashes_whatever_was_remembered(hub: LocalHub, lion: str, opened: Open, offline: bool) -> None:
    opened().fetch(["config.json", "model.safetensors"])
    events: list[Progress] = []
    repository = opened(offline=offline, progress=events.append)
    expected = {
        "config.json": "git-sha1:" + hub.etag(b'{"model_type": "lion"}'),
        "model.safetensors": "sha256:" + hub.etag(WEIGHTS),
    }
    assert repository.verify(repository.files()) == expected  # what is not here is left out
    assert events[-1] == Progress("verify", len(WEIGHTS) + 22, len(WEIGHTS) + 22, events[-1].item)
    path = repository.path("model.safetensors")
    before = path.stat()
    path.write_bytes(WEIGHTS[:-1] + b"!")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    repository.path("model.safetensors")  # same size, time and inode: only `verify` sees it
    with pytest.raises(CorruptDownload, match=r"model\.safetensors in the cache is not the file"):
        repository.verify(repository.files())
    with pytest.raises(CorruptDownload):
        opened(offline=offline).path("model.safetensors")
    with pytest.raises(ModelNotFound if not offline else HubUnavailable):
        repository.verify(["absent"])
    assert downloads(hub) == 2


def test_a_cut_transfer_goes_on_where_it_was(
    hub: LocalHub, lion: str, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100_000)  # what is kept are whole pieces
    hub.faults.append(Fault("model.safetensors", "GET", cut=700_000))
    events: list[Progress] = []
    repository = opened()
    repository.fetch(["model.safetensors"], events.append)
    assert repository.path("model.safetensors").read_bytes() == WEIGHTS
    ranges = [request.headers.get("Range") for request in hub.requests if "/resolve/" in request.path]
    assert "bytes=700000-" in ranges
    assert all(event.done <= event.total == len(WEIGHTS) for event in events)


def test_a_server_that_always_cuts_is_an_error(hub: LocalHub, lion: str, opened: Open, cache: Path) -> None:
    hub.faults.append(Fault("model.safetensors", "GET", cut=0, times=99))
    with pytest.raises(HubUnavailable, match="could not be reached"):
        opened().path("model.safetensors")
    assert blobs(cache) == []


def test_after_a_kill_the_next_run_is_whole(
    hub: LocalHub, opened: Open, cache: Path, child: Callable[..., Any], lion: str
) -> None:
    hub.faults.append(Fault("model.safetensors", "GET", delay=0.5))
    process = child("repository.path('model.safetensors')")
    deadline = time.monotonic() + 20
    while not list(cache.rglob("*.incomplete")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    (partial,) = cache.rglob("*.incomplete")
    repository = opened()
    repository.path("config.json")
    assert partial.exists()  # young: it might be another process's
    os.utime(partial, (0, time.time() - 2 * 24 * 3600))
    opened().path("model.safetensors")
    assert not partial.exists()
    assert (cache / "models--zoo--tiny-lion" / "snapshots" / lion / "model.safetensors").read_bytes() == WEIGHTS


def test_an_interrupt_ends_cleanly(hub: LocalHub, lion: str, child: Callable[..., Any], cache: Path) -> None:
    hub.faults.append(Fault("model.safetensors", "GET", delay=0.1))
    process = child("repository.path('model.safetensors')")
    while not list(cache.rglob("*.incomplete")):
        time.sleep(0.02)
        assert process.poll() is None
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert "KeyboardInterrupt" in errors and process.returncode in (-signal.SIGINT, 130, 1)
    assert time.monotonic() - began < 4


def test_two_processes_at_once(hub: LocalHub, lion: str, child: Callable[..., Any]) -> None:
    hub.faults.append(Fault("model.safetensors", "GET", delay=0.02, times=9))
    check = "import hashlib; print(hashlib.sha256(repository.path('model.safetensors').read_bytes()).hexdigest())"
    processes = [child(check) for _ in range(2)]
    results = [process.communicate(timeout=30) for process in processes]
    assert [output.strip() for output, _ in results] == [hub.etag(WEIGHTS)] * 2, results
    assert downloads(hub) == 1


def test_two_processes_at_once_and_a_corrupt_first_answer(
    hub: LocalHub, lion: str, child: Callable[..., Any], opened: Open
) -> None:
    """The second may see the first one's corrupt file before that is deleted: it must not use it."""
    hub.faults.append(Fault("model.safetensors", "GET", corrupt=True))
    check = (
        "import hashlib\n"
        "try: print(hashlib.sha256(repository.path('model.safetensors').read_bytes()).hexdigest())\n"
        "except CorruptDownload: print('corrupt')\n"
    )
    processes = [child(check) for _ in range(2)]
    results = [process.communicate(timeout=30) for process in processes]
    assert hub.etag(WEIGHTS) in [output.strip() for output, _ in results], results
    assert {output.strip() for output, _ in results} <= {hub.etag(WEIGHTS), "corrupt"}, results
    assert opened().path("model.safetensors").read_bytes() == WEIGHTS


# Offline


def test_offline_uses_the_cache_and_sends_nothing(hub: LocalHub, lion: str, opened: Open) -> None:
    opened().fetch(["config.json", "part/notes.txt"])
    hub.requests.clear()
    repository = opened(offline=True)
    assert set(repository.files()) == {"config.json", "part/notes.txt"} and repository.local
    assert repository.commit == lion and repository.missing(repository.files()) == {}
    assert repository.head("config.json", 5) == b'{"mod'
    assert repository.path("part/notes.txt").read_bytes() == b"small\n"
    with pytest.raises(HubUnavailable, match=r"Not in the cache: model\.safetensors") as caught:
        repository.path("model.safetensors")
    assert f"hf download {ID} model.safetensors" in str(caught.value)
    assert opened(offline=True, revision=lion).files() == repository.files()
    assert hub.requests == []


def test_offline_knows_every_revision_that_was_used(hub: LocalHub, lion: str, opened: Open) -> None:
    hub.models[ID].revisions["v1"] = lion
    for revision in ("main", "v1"):
        opened(revision=revision).path("config.json")
        assert opened(revision=revision, offline=True).commit == lion


def test_offline_without_a_cache(hub: LocalHub, lion: str, opened: Open, cache: Path) -> None:
    with pytest.raises(HubUnavailable, match="is not in the cache") as caught:
        opened(offline=True)
    assert f"hf download {ID} --revision main" in str(caught.value)
    opened().path("config.json")
    with pytest.raises(HubUnavailable, match="cached are: main"):
        opened(offline=True, revision="v2")
    assert not list(cache.rglob("v2"))


def test_offline_checks_hashes_that_were_never_checked(hub: LocalHub, lion: str, opened: Open, cache: Path) -> None:
    from huggingface_hub import hf_hub_download

    hub.faults.append(Fault("model.safetensors", "GET", corrupt=True))
    for name in ("config.json", "model.safetensors"):
        hf_hub_download(ID, name, cache_dir=cache, endpoint=hub.endpoint, token=False)
    repository = opened(offline=True)
    assert repository.path("config.json").exists()  # git's sha1
    with pytest.raises(CorruptDownload):
        repository.path("model.safetensors")  # sha256


def test_an_unreachable_hub_falls_back_to_the_cache_with_a_warning(
    hub: LocalHub, lion: str, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    opened().path("config.json")
    hub.faults.append(Fault("/api/models", status=503, times=9))
    with caplog.at_level(logging.WARNING, "bestiary"):
        repository = opened()
    assert "status 503" in caplog.text and "in the cache" in caplog.text
    assert repository.path("config.json").exists()
    with pytest.raises(HubUnavailable, match="status 503"):
        repository.path("model.safetensors")
    hub.__exit__(None, None, None)
    assert opened().path("config.json").exists()


def test_a_broken_cache_offline(hub: LocalHub, lion: str, opened: Open, cache: Path) -> None:
    path = opened().path("config.json")
    path.resolve().unlink()  # the blob was deleted, the link stayed
    assert dict(opened(offline=True).files()) == {}
    assert opened().path("config.json").exists()
    reference = cache / "models--zoo--tiny-lion" / "refs" / "main"
    for nonsense in ("", "../../..", "f" * 40):
        reference.write_text(nonsense)
        with pytest.raises(HubUnavailable):
            opened(offline=True)
