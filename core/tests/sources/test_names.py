"""Hub ids, revisions and file names (T-18): what is refused before it touches a path or an address."""

import pytest

from bestiary.errors import UnsafeName
from bestiary.nearest import did_you_mean, nearest
from bestiary.sources.hub import claims_hub
from bestiary.sources.names import check_name, check_revision, hub_id

BAD_IDS = [
    "",
    "/",
    "a/",
    "/a",
    "a//b",
    "a/b/c",
    "..",
    "../a",
    "a/..",
    "a/../b",
    "a/b..c",
    ".hidden/a",
    "a/.hidden",
    "a/b.",
    "-a/b",
    "a/b-",
    "a--b/c",
    "a/b--c",
    "a/b.git",
    "/etc/passwd",
    "~/a",
    "~",
    "a\0b",
    "a/b\n",
    "a\nb",
    "a\\b",
    "C:\\a",
    "a b",
    "a/b@main",
    "a/b?x=1",
    "a/b#c",
    "a/b%2e%2e",
    "https://huggingface.co/a/b",
    "hf://",
    "hf://hf://a/b",
    "hf://a/b/c",
    "HF://a/b",
    "a" * 97,
    "a/" + "b" * 97,
    "x" * 300,
    "caf\u00e9/a",
    "a/\u0430",  # a Cyrillic a
    "a\u2215b",  # a division slash
    "a\uff0fb",  # a full-width slash
    "a/b\u202ec",
    "a\u200b/b",
    "\uff0e\uff0e/a",
    "\u0661/a",  # an Arabic digit
]


@pytest.mark.parametrize("id", BAD_IDS)
def test_bad_ids_are_not_claimed(id: str) -> None:
    assert not claims_hub(id)


@pytest.mark.parametrize(
    "id", ["gpt2", "Qwen/Qwen3-0.6B", "hf://Qwen/Qwen3-0.6B", "a", "a/b", "_a/b_", "a.b/c-d", "a" * 96 + "/" + "b" * 96]
)
def test_good_ids_are_claimed(id: str) -> None:
    assert claims_hub(id)
    assert hub_id(id) == id.removeprefix("hf://")


def test_our_grammar_admits_nothing_that_huggingface_hub_refuses() -> None:
    from huggingface_hub.utils import validate_repo_id

    for id in ["gpt2", "a/b", "_a/b_", "a.b/c-d", "a" * 96 + "/" + "b" * 96, "0/1", "a_/_b"]:
        assert claims_hub(id)
        validate_repo_id(id)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/../b",
        "a/..",
        "a/./b",
        "a//b",
        "a/",
        "/etc/passwd",
        "//x",
        "~/x",
        "~root/x",
        "a\\b",
        "..\\x",
        "C:/x",
        "c:x",
        "a\0b",
        "a\nb",
        "a\x7fb",
        "a\x85b",
        "x\u202egpj.safetensors",
        "a\u2028b",
        "\ud800",
        "n" * 256,
        "\u00e9" * 128,
        "/".join(["abc"] * 300),
    ],
)
def test_bad_file_names_are_refused(name: str) -> None:
    with pytest.raises(UnsafeName) as caught:
        check_name(name, "here")
    str(caught.value).encode()  # the message itself can be printed
    assert caught.value.fix


@pytest.mark.parametrize("name", ["config.json", "a/b/c.bin", "..a", "a..b", "a b", "mod\u00e8le.json", "..."])
def test_good_file_names_pass(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "revision",
    [
        "",
        "..",
        "../main",
        "a/../b",
        "/main",
        "main/",
        "a//b",
        "-x",
        ".x",
        "a/.x",
        "a.lock",
        "a b",
        "a\x00",
        "a\n",
        "a\\b",
        "a:b",
        "a~1",
        "a^",
        "a*",
        "a?b",
        "x" * 256,
        "а",
    ],
)
def test_bad_revisions_are_refused(revision: str) -> None:
    with pytest.raises(UnsafeName):
        check_revision(revision)


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/1", "a" * 40, "feature/x_y-z", "bf16"])
def test_good_revisions_pass(revision: str) -> None:
    assert check_revision(revision) == revision


def test_nearest_ignores_letter_case_and_orders_by_likeness() -> None:
    assert nearest("CONFIG.jsn", ["tokenizer.json", "config.json", "x"]) == ("config.json",)
    assert nearest("zzz", ["config.json"]) == ()
    assert did_you_mean("confg.json", ["config.json"]) == "Did you mean 'config.json'?"
    assert did_you_mean("zzz", []) == ""
