"""Every way in which a hub, a network or a disk fails has an error of its own, with a remedy."""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bestiary.errors import AccessDenied, BestiaryError, HubUnavailable, ModelNotFound, SourceError
from bestiary.records import SourceOptions
from bestiary.sources import hub_client
from bestiary.sources.hub import open_hub
from bestiary.sources.hub_cache import HubCache
from bestiary.testing.hub import Fault, LocalHub

ID = "zoo/tiny-lion"
Open = Callable[..., Any]
Ask = Callable[[Open], object]

ASKS: dict[str, Ask] = {
    "listing": lambda opened: opened(),
    "head": lambda opened: opened().head("model.safetensors", 10),
    "path": lambda opened: opened().path("model.safetensors"),
}
AT = {"listing": "/api/models/zoo", "head": "/resolve/", "path": "/resolve/"}


def failing(opened: Open, ask: str, kind: type[BestiaryError]) -> BestiaryError:
    with pytest.raises(BestiaryError) as caught:
        ASKS[ask](opened)
    assert type(caught.value) is kind, caught.value
    assert caught.value.where and caught.value.fix
    return caught.value


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize(
    ("status", "headers", "kind", "says"),
    [
        (401, {}, AccessDenied, "hf auth login"),
        (401, {"X-Error-Message": "Invalid credentials in Authorization header"}, AccessDenied, "hf auth login"),
        (401, {"X-Error-Code": "GatedRepo"}, AccessDenied, "accept the terms at http://127.0.0.1"),
        (403, {}, AccessDenied, "a token that may read it"),
        (403, {"X-Error-Code": "GatedRepo"}, AccessDenied, "accept the terms at http://127.0.0.1"),
        (404, {}, ModelNotFound, "There is no model 'zoo/tiny-lion'"),
        (404, {"X-Error-Code": "RepoNotFound"}, ModelNotFound, "There is no model 'zoo/tiny-lion'"),
        (404, {"X-Error-Code": "RevisionNotFound"}, ModelNotFound, "no revision"),
        (404, {"X-Error-Code": "EntryNotFound"}, ModelNotFound, "no such file"),
        (418, {}, HubUnavailable, "status 418"),
        (429, {}, HubUnavailable, "a few minutes"),
        (429, {"Retry-After": "37"}, HubUnavailable, "37 seconds"),
        (429, {"RateLimit": '"api";r=0;t=55'}, HubUnavailable, "55 seconds"),
        (500, {}, HubUnavailable, "status 500"),
        (503, {"X-Error-Message": "Maintenance"}, HubUnavailable, "Maintenance"),
        (504, {}, HubUnavailable, "status 504"),
    ],
)
def test_a_status_has_its_error(
    hub: LocalHub,
    lion: str,
    opened: Open,
    ask: str,
    status: int,
    headers: dict[str, str],
    kind: type[BestiaryError],
    says: str,
) -> None:
    hub.faults.append(Fault(AT[ask], times=99, status=status, headers=headers))
    assert says in str(failing(opened, ask, kind))


@pytest.mark.parametrize("status", [301, 302, 307])
def test_an_endless_redirect(hub: LocalHub, lion: str, opened: Open, status: int) -> None:
    hub.faults.append(Fault("", times=999, status=status, headers={"Location": f"{hub.endpoint}/api/models/zoo/x"}))
    failing(opened, "listing", HubUnavailable)


def test_a_wrong_id_names_the_near_ones(hub: LocalHub, opened: Open) -> None:
    for id in ("zoo/tiny-lion", "zoo/tiny-lynx", "farm/cow"):
        hub.add(id, {})
    with pytest.raises(ModelNotFound, match="zoo/tiny-lion") as caught:
        opened("zoo/tiny-lions")  # found by what the organization has
    assert "farm/cow" not in str(caught.value) and "./zoo/tiny-lions" in str(caught.value)
    with pytest.raises(ModelNotFound, match="zoo/tiny-lynx"):
        opened("zo/tiny-l")  # found by the name


def test_without_a_login_a_wrong_id_reads_the_same_as_a_private_one(hub: LocalHub, lion: str, opened: Open) -> None:
    """The hub answers 401 for both, so the error has to serve both."""
    hub.faults.append(Fault("/api/models/zoo/tiny-lyon", status=401))
    with pytest.raises(AccessDenied, match="private, or there is none") as caught:
        opened("zoo/tiny-lyon")
    assert "zoo/tiny-lion" in str(caught.value) and "hf auth login" in str(caught.value)


@pytest.mark.parametrize("fault", [Fault("search=x", status=500), Fault("/api/models", body=b"<html>"), None])
def test_the_search_for_near_names_may_fail(
    hub: LocalHub, opened: Open, fault: Fault | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_client, "NEAR_TIMEOUT", 0.2)
    hub.faults.append(Fault("/api/models/zoo", status=404))
    hub.faults.append(fault or Fault("/api/models", delay=1.0, times=9))
    if fault is not None:
        fault.match, fault.times = "/api/models", 9
    with pytest.raises(ModelNotFound, match="There is no model"):
        opened()


@pytest.mark.parametrize("status", [401, 403, 404])
def test_the_cache_is_offered_where_the_hub_declines(hub: LocalHub, lion: str, opened: Open, status: int) -> None:
    opened().path("config.json")
    hub.faults.append(Fault("/api/models", status=status))
    with pytest.raises(SourceError, match="HF_HUB_OFFLINE=1"):
        opened()


def test_a_missing_revision_is_named(hub: LocalHub, lion: str, opened: Open) -> None:
    with pytest.raises(ModelNotFound, match="no revision 'v2'"):
        opened(revision="v2")
    with pytest.raises(ModelNotFound, match="no revision"):
        opened(revision="f" * 40)


def test_a_token_that_the_hub_refuses(hub: LocalHub, lion: str, opened: Open) -> None:
    hub.token = "right"
    with pytest.raises(AccessDenied, match="refuses the token"):
        opened(token="wrong")
    assert opened(token="right").path("config.json").exists()


@pytest.mark.parametrize("ask", ASKS)
def test_a_server_that_is_gone(hub: LocalHub, lion: str, opened: Open, ask: str) -> None:
    repository = opened()
    hub.__exit__(None, None, None)
    call: Open = opened if ask == "listing" else lambda: repository
    assert "could not be reached" in str(failing(call, ask, HubUnavailable))


@pytest.mark.parametrize("ask", ASKS)
def test_a_network_without_names(
    lion: str, cache: Path, ask: str, hub: LocalHub, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = opened()

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "create_connection", unknown)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    from huggingface_hub import close_session

    close_session()  # its open connections would still serve
    assert "name resolution" in str(failing(opened if ask == "listing" else lambda: repository, ask, HubUnavailable))


def test_a_server_that_never_answers(hub: LocalHub, lion: str, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_client, "LISTING_TIMEOUT", 0.2)
    hub.faults.append(Fault("/api/models", delay=1.0))
    assert "Timeout" in str(failing(opened, "listing", HubUnavailable))


@pytest.mark.parametrize(
    "body",
    [
        b"<html>log in</html>",
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"id": "x"}',
        b'{"id": "x", "sha": "../../x", "siblings": []}',
        b'{"id": "x", "sha": "' + b"a" * 40 + b'", "siblings": [{}]}',
        b"\xff\xfe",
        b"[" * 100000,
    ],
)
def test_an_answer_that_is_not_a_hubs(hub: LocalHub, opened: Open, body: bytes) -> None:
    hub.faults.append(Fault("/api/models", body=body))
    assert "does not answer like" in str(failing(opened, "listing", HubUnavailable))


def test_a_login_page_instead_of_a_file(hub: LocalHub, lion: str, opened: Open) -> None:
    hub.faults.append(Fault("/resolve/", body=b"<html>log in</html>", times=9))
    assert "does not answer like" in str(failing(opened, "path", HubUnavailable))


# The disk

WRITING = """
try:
    repository.path("model.safetensors")
except SourceError as error:
    print(type(error).__name__, error)
"""


def test_a_file_above_the_limit_of_the_process(hub: LocalHub, lion: str, child: Callable[..., Any]) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))"
    output, errors = child(WRITING, before=limit).communicate(timeout=30)
    assert output.startswith("SourceError The file is larger than"), output + errors


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", place]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_disk_too_small_is_refused_before_a_byte_moves(
    hub: LocalHub, lion: str, opened: Open, tiny_disk: Path
) -> None:
    repository = opened(cache_dir=str(tiny_disk / "cache"))
    with pytest.raises(SourceError, match=r"needs 0\.00 GB more, and the disk has") as caught:
        repository.path("model.safetensors")
    assert "HF_HOME" in str(caught.value)
    assert hub.count("GET", "/resolve/") == 0
    repository.path("config.json")


@pytest.mark.filterwarnings("ignore:Not enough free disk space")
def test_a_disk_that_fills_while_a_file_arrives(
    hub: LocalHub, lion: str, opened: Open, tiny_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HubCache, "room", lambda self: 1 << 40)
    repository = opened(cache_dir=str(tiny_disk / "cache"))
    with pytest.raises(SourceError, match="The disk is full"):
        repository.path("model.safetensors")
    assert not list(tiny_disk.rglob("*.incomplete"))


def test_a_read_only_cache_serves_what_it_has(hub: LocalHub, lion: str, opened: Open, tiny_disk: Path) -> None:
    options = {"cache_dir": str(tiny_disk)}
    opened(**options).path("config.json")
    for mark in tiny_disk.rglob(".bestiary/*.json"):
        mark.unlink()
    subprocess.run(["mount", "-o", "remount,ro", tiny_disk], check=True)
    repository = opened(**options)
    assert repository.path("config.json").exists() and repository.path("config.json").exists()
    assert opened(**options, offline=True).path("config.json").exists()
    with pytest.raises(SourceError, match="cannot be written") as caught:
        repository.path("part/notes.txt")
    assert "HF_HOME" in str(caught.value)


def test_a_cache_that_is_a_file(hub: LocalHub, lion: str, opened: Open, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SourceError, match="cannot be used"):
        opened(cache_dir=str(tmp_path / "file" / "cache")).path("config.json")


def test_a_firewall_is_not_taken_for_a_read_only_cache(
    hub: LocalHub, lion: str, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    repository = opened()
    from huggingface_hub import close_session

    close_session()
    monkeypatch.setattr(socket, "create_connection", refuse)
    failing(lambda: repository, "head", HubUnavailable)


def test_xet_is_asked_for_where_only_xet_serves(
    hub: LocalHub, lion: str, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.MAX_HTTP_DOWNLOAD_SIZE", 1000)
    with pytest.raises(SourceError) as caught:
        opened().path("model.safetensors")
    assert caught.value.fix == "pip install hf_xet"


def test_offline_in_the_environment(hub: LocalHub, lion: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    with pytest.raises(HubUnavailable, match="Offline mode is on"):
        open_hub(ID, SourceOptions(cache_dir=str(cache)), endpoint=hub.endpoint)
    assert hub.requests == []
