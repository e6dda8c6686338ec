"""The hub over the real huggingface_hub client: what is fetched, verified, remembered and told."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bestiary.errors import ModelNotFound, UnsafeName
from bestiary.records import Progress, SourceOptions
from bestiary.sources import hub_cache
from bestiary.sources.hub import open_hub
from bestiary.sources.transfer import progress_bar
from bestiary.testing.hub import Fault, LocalHub, Request

ID = "zoo/tiny-lion"
WEIGHTS = bytes(range(256)) * 4096
Open = Callable[..., Any]


def downloads(hub: LocalHub) -> int:
    return hub.count("GET", "/resolve/")


def test_the_listing_moves_no_file(hub: LocalHub, lion: str, opened: Open) -> None:
    repository = opened()
    assert dict(repository.files()) == {"config.json": 22, "model.safetensors": len(WEIGHTS), "part/notes.txt": 6}
    assert repository.origin == f"{ID}@{lion[:12]}" and repository.commit == lion
    assert repository.id == ID and not repository.local
    assert set(repository.missing(repository.files())) == set(repository.files())
    assert [(request.method, request.path) for request in hub.requests] == [("GET", f"/api/models/{ID}/revision/main")]


def test_files_arrive_once_and_by_commit(hub: LocalHub, lion: str, opened: Open, cache: Path) -> None:
    repository = opened(f"hf://{ID}")
    path = repository.path("model.safetensors")
    assert path.read_bytes() == WEIGHTS
    assert path == cache / "models--zoo--tiny-lion" / "snapshots" / lion / "model.safetensors"
    repository.path("model.safetensors")
    assert opened().path("model.safetensors") == path
    assert downloads(hub) == 1
    assert all(f"/resolve/{lion}/" in request.path for request in hub.requests if "/resolve/" in request.path)
    repository.fetch(["config.json", "part/notes.txt", "config.json"])
    assert repository.missing(repository.files()) == {} and repository.local and opened().local


def test_a_revision_is_resolved(hub: LocalHub, opened: Open) -> None:
    first = hub.add(ID, {"config.json": b"1"}, revision="refs/pr/1")
    hub.add(ID, {"config.json": b"2"})
    assert opened(revision="refs/pr/1").path("config.json").read_bytes() == b"1"
    assert opened(revision=first).path("config.json").read_bytes() == b"1"
    assert opened().path("config.json").read_bytes() == b"2"


def test_a_revision_that_moves_mid_download_mixes_nothing(hub: LocalHub, opened: Open) -> None:
    hub.add(ID, {"a.json": b"old a", "b.json": b"old b"})

    def move(request: Request) -> None:
        if "/resolve/" in request.path:
            hub.add(ID, {"a.json": b"new a", "b.json": b"new b"})

    hub.before = move
    repository = opened()
    repository.fetch(["a.json"])
    repository.fetch(["b.json"])
    assert [repository.path(name).read_bytes() for name in ("a.json", "b.json")] == [b"old a", b"old b"]
    hub.before = None
    assert opened().path("b.json").read_bytes() == b"new b"


def test_head_asks_for_a_range(hub: LocalHub, lion: str, opened: Open) -> None:
    repository = opened()
    assert repository.head("model.safetensors", 300) == WEIGHTS[:300]
    (request,) = [request for request in hub.requests if "/resolve/" in request.path]
    assert request.method == "GET" and request.headers["Range"] == "bytes=0-299"
    assert lion in request.path
    assert repository.missing(["model.safetensors"])
    assert repository.head("model.safetensors", 0) == b""
    # A file that is shorter is fetched whole, so it can be verified.
    assert repository.head("config.json", 4096) == b'{"model_type": "lion"}'
    assert not repository.missing(["config.json"])
    repository.path("model.safetensors")
    sent = len(hub.requests)
    assert repository.head("model.safetensors", 300) == WEIGHTS[:300]
    assert len(hub.requests) == sent


def test_head_of_a_server_that_ignores_ranges(hub: LocalHub, lion: str, opened: Open) -> None:
    hub.faults.append(Fault("/resolve/", ignore_range=True))
    assert opened().head("model.safetensors", 10) == WEIGHTS[:10]


def test_head_tries_again(hub: LocalHub, lion: str, opened: Open) -> None:
    hub.faults.append(Fault("/resolve/", status=503, times=2))
    assert opened().head("model.safetensors", 10) == WEIGHTS[:10]


def test_progress_adds_up_over_all_files(hub: LocalHub, lion: str, opened: Open) -> None:
    events: list[Progress] = []
    threads: set[threading.Thread] = set()

    def told(event: Progress) -> None:
        threads.add(threading.current_thread())
        events.append(event)

    repository = opened(progress=told)
    total = sum(repository.files().values())
    repository.fetch(repository.files())
    for stage in ("download", "verify"):
        mine = [event for event in events if event.stage == stage]
        assert mine[-1].done == mine[-1].total == total
        assert [event.done for event in mine] == sorted(event.done for event in mine)
        assert {event.total for event in mine} == {total} and mine[-1].item in repository.files()
    assert threads == {threading.current_thread()}
    events.clear()
    repository.fetch(repository.files())
    assert events == []


def test_without_a_callback_nothing_is_printed(
    hub: LocalHub, lion: str, opened: Open, capfd: pytest.CaptureFixture[str]
) -> None:
    repository = opened()
    repository.fetch(repository.files())
    assert capfd.readouterr() == ("", "")


def test_a_callback_that_raises_stops_the_download(hub: LocalHub, opened: Open, cache: Path) -> None:
    hub.add(ID, {f"{number}.bin": bytes([number]) * 400_000 for number in range(6)})
    hub.faults.append(Fault("/resolve/", "GET", times=99, delay=0.05))

    class Enough(Exception):
        pass

    def told(event: Progress) -> None:
        raise Enough

    with pytest.raises(Enough):
        repository = opened()
        repository.fetch(repository.files(), told)
    assert not list(cache.rglob("*.incomplete"))
    assert downloads(hub) < 6


def test_files_arrive_in_parallel_but_at_most_four(hub: LocalHub, opened: Open) -> None:
    hub.add(ID, {f"{number}.bin": bytes([number]) * 2000 for number in range(9)})
    lock, now, most = threading.Lock(), 0, 0

    def before(request: Request) -> None:
        nonlocal now, most
        if request.method == "GET" and "/resolve/" in request.path:
            with lock:
                now += 1
                most = max(most, now)
            threading.Event().wait(0.05)
            with lock:
                now -= 1

    hub.before = before
    repository = opened()
    repository.fetch(repository.files())
    assert 2 <= most <= 4


def test_an_absent_file_names_the_nearest_and_asks_nothing(hub: LocalHub, lion: str, opened: Open) -> None:
    repository = opened()
    sent = len(hub.requests)
    for ask in (repository.path, lambda name: repository.head(name, 1), lambda name: repository.missing([name])):
        with pytest.raises(ModelNotFound, match=r"'model\.safetensors'"):
            ask("modle.safetensors")
    assert len(hub.requests) == sent


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "a\\b", "a\0b", "~/x", ""])
def test_names_that_leave_the_snapshot_are_refused(hub: LocalHub, lion: str, opened: Open, name: str) -> None:
    repository = opened()
    sent = len(hub.requests)
    for ask in (repository.path, lambda name: repository.head(name, 1), lambda name: repository.fetch([name])):
        with pytest.raises(UnsafeName):
            ask(name)
    assert len(hub.requests) == sent


@pytest.mark.parametrize("name", ["../../evil", "/tmp/evil", "a/../../evil", "a\\evil", "evil\0", "x\u202eevil"])
def test_a_listing_with_an_unsafe_name_is_refused(hub: LocalHub, opened: Open, cache: Path, name: str) -> None:
    hub.add(ID, {"config.json": b"{}", name: b"evil"})
    with pytest.raises(UnsafeName, match="evil"):
        opened()
    assert not cache.exists()


@pytest.mark.parametrize("id", ["../../etc", "a/b/c", "/abs", "a\0", "x" * 300, "caf\u00e9"])
def test_bad_ids_and_revisions_reach_no_address(hub: LocalHub, id: str, opened: Open) -> None:
    with pytest.raises(UnsafeName):
        opened(id)
    with pytest.raises(UnsafeName):
        opened(revision="../main")
    assert hub.requests == []


def test_the_token_is_sent_and_only_where_it_is_given(hub: LocalHub, lion: str, opened: Open) -> None:
    opened(token="hf_secret").path("config.json")
    assert {request.headers.get("authorization") for request in hub.requests} == {"Bearer hf_secret"}
    hub.requests.clear()
    opened().head("model.safetensors", 4)
    assert {request.headers.get("authorization") for request in hub.requests} == {None}


@pytest.mark.parametrize("whole", [False, True])
def test_the_token_is_not_sent_to_another_host(hub: LocalHub, lion: str, opened: Open, whole: bool) -> None:
    """The hub redirects large files to a storage host, which is not to see the token."""
    with LocalHub() as storage:
        storage.add(ID, {"model.safetensors": WEIGHTS}, revision=lion)
        headers = {
            "Location": f"{storage.endpoint}/{ID}/resolve/{lion}/model.safetensors",
            "X-Repo-Commit": lion,
            "X-Linked-Etag": f'"{hub.etag(WEIGHTS)}"',
            "X-Linked-Size": str(len(WEIGHTS)),
        }
        hub.faults.append(Fault("/resolve/", status=302, headers=headers, times=9))
        repository = opened(token="hf_secret")
        if whole:
            assert repository.path("model.safetensors").read_bytes() == WEIGHTS
        else:
            assert repository.head("model.safetensors", 100) == WEIGHTS[:100]
        assert {request.headers.get("authorization") for request in hub.requests} == {"Bearer hf_secret"}
        assert [request.method for request in storage.requests] == ["GET"]
        assert storage.requests[0].headers.get("authorization") is None


def test_a_xet_download_is_counted_once() -> None:
    """Its client reports the bytes of the network and those of the file; only the latter are the file's size."""
    from types import SimpleNamespace

    from huggingface_hub.utils._xet_progress_reporting import XetDownloadProgressReporter

    counted: list[int] = []
    options = {"total": 100, "log_level": 20, "tqdm_class": progress_bar(counted.append)}
    with XetDownloadProgressReporter(reconstruction_desc="x", transfer_desc="y", **options) as reporter:
        for done in (40, 100):
            report = SimpleNamespace(
                total_bytes=100,
                total_bytes_completed=done,
                total_transfer_bytes_completed=done // 2,
                total_bytes_completion_rate=1.0,
                total_transfer_bytes_completion_rate=None,
            )
            reporter.update_progress(report)
    assert counted == [40, 60]


def test_the_endpoint_of_the_environment(
    hub: LocalHub, lion: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint + "/")
    assert open_hub(ID, SourceOptions(cache_dir=str(cache))).path("config.json").exists()


def test_the_cache_is_the_one_of_huggingface_hub(hub: LocalHub, lion: str, opened: Open, cache: Path) -> None:
    from huggingface_hub import scan_cache_dir, try_to_load_from_cache

    path = opened().path("config.json")
    assert try_to_load_from_cache(ID, "config.json", cache_dir=cache) == str(path)
    report = scan_cache_dir(cache)
    assert [repository.repo_id for repository in report.repos] == [ID] and not report.warnings


def test_two_commits_share_what_did_not_change(
    hub: LocalHub, lion: str, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened().path("model.safetensors")
    hub.add(ID, {"model.safetensors": WEIGHTS, "README.md": b"new"})
    monkeypatch.setattr(hub_cache, "file_hash", None)  # nothing may be hashed again
    repository = opened()
    assert set(repository.missing(repository.files())) == {"README.md"}
    repository.path("model.safetensors")
    assert downloads(hub) == 1


def test_an_empty_file(hub: LocalHub, opened: Open) -> None:
    hub.add(ID, {"empty.txt": b""})
    repository = opened()
    assert repository.head("empty.txt", 10) == b"" and repository.path("empty.txt").read_bytes() == b""


def test_a_hub_that_states_no_hashes(hub: LocalHub, lion: str, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mirrors leave them out; the file is then held against the ETag under which it came."""
    plain = LocalHub.information
    monkeypatch.setattr(LocalHub, "information", lambda self, id, revision, _: plain(self, id, revision, False))
    repository = opened()
    assert repository.path("config.json").read_bytes() == b'{"model_type": "lion"}'
    hub.faults.append(Fault("model.safetensors", "GET", corrupt=True))
    assert repository.path("model.safetensors").read_bytes() == WEIGHTS
    assert downloads(hub) == 3
