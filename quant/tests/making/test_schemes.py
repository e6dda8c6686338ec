"""The table of schemes, and what `pack` does where a scheme does not fit."""

import subprocess
import sys

import pytest
import torch

from bestiary.errors import OptionError
from bestiary.records import resolve
from bestiary_quant.checkpoints.coded import CodedMatrix
from bestiary_quant.making.mixtures import MIXTURES
from bestiary_quant.making.pack import Substitution, pack
from bestiary_quant.making.schemes import BITS, SCHEMES, Scheme, find, for_memory, promoted
from bestiary_quant.packed import PackedMatrix

LISTED = "q4_0 q4_1 q5_0 q5_1 q8_0 q8_1 q2k q3k q4k q5k q6k q8k hqq4 hqq8 fp8 f8q8 afq2 afq3 afq4 afq6 afq8 mxfp4"
MISTRAL_RS = LISTED.split()
"""`IsqType` of mistral.rs."""
ALL = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)


def test_every_scheme_of_mistral_rs_is_there() -> None:
    assert set(MISTRAL_RS) < set(SCHEMES)


@ALL
def test_a_row_says_what_is_made(scheme: Scheme) -> None:
    x = torch.randn(128, 4 * scheme.block * 8, generator=torch.Generator().manual_seed(0))
    told: list[Substitution] = []
    made = pack(x, scheme.name, report=told.append)
    assert not told
    assert callable(resolve(scheme.make))
    if scheme.kind is None:
        assert isinstance(made, CodedMatrix)
    else:
        assert isinstance(made, PackedMatrix) and made.kind is scheme.kind
        assert scheme.block == scheme.kind.length and made.nbytes * 8 == scheme.bits * x.numel()
        assert pack(x[:, : scheme.block], scheme.name) is not None


@ALL
def test_names_in_every_spelling(scheme: Scheme) -> None:
    for name in (scheme.name, scheme.name.upper(), *scheme.aliases, f" {scheme.name} "):
        assert find(name) is scheme


def test_other_names() -> None:
    assert find("Q4_K").name == "q4k" and find("IQ4_XS").name == "iq4_xs" and find("F8E4M3").name == "fp8"
    assert find("4").name == "q4k" and find("8").name == "q8_0"
    with pytest.raises(OptionError, match="q4_k") as caught:
        find("q4_kk")
    assert caught.value.fix is not None and "mxfp4" in caught.value.fix
    for wrong in ("", "7", "44", "q4_k_m", "²", "x" * 10_000):
        with pytest.raises(OptionError):
            find(wrong)


def test_bits_choose_the_schemes_of_mistral_rs_on_a_processor() -> None:
    assert dict(BITS) == {2: "q2k", 3: "q3k", 4: "q4k", 5: "q5k", 6: "q6k", 8: "q8_0"}


def test_sensitive_weights_get_the_schemes_of_mistral_rs() -> None:
    """`promote_for_sensitive_tensor`: embeddings and output heads."""
    table = {
        "afq6": "afq2 afq3 afq4",
        "afq8": "afq6 afq8",
        "q6k": "q2k q3k q4k q4_0 q4_1",
        "q8_0": "q5k q6k q8k q5_0 q5_1 q8_0 q8_1",
        "hqq4": "hqq4",
        "hqq8": "hqq8",
        "fp8": "fp8",
        "f8q8": "f8q8",
        "mxfp4": "mxfp4",
    }
    expected = {name: target for target, names in table.items() for name in names.split()}
    assert expected == {name: promoted(SCHEMES[name]).name for name in MISTRAL_RS}
    for scheme in SCHEMES.values():
        assert promoted(promoted(scheme)).bits >= promoted(scheme).bits >= scheme.bits or scheme.name in ("q8k", "q8_1")


def test_the_scheme_for_a_memory() -> None:
    billion = 10**9
    found = {size: for_memory(billion, size * 10**7) for size in (25, 33, 50, 60, 70, 85, 107)}
    assert found == {25: None, 33: "q2k", 50: "q3k", 60: "q4k", 70: "q5k", 85: "q6k", 107: "q8_0"}
    assert for_memory(0, 0) == "q8_0"


@pytest.mark.parametrize(
    ("scheme", "columns", "got"),
    [
        *((name, 96, got) for name, got in {"q2k": "q4_0", "q3k": "q4_0", "q4k": "q5_0", "q5k": "q5_1"}.items()),
        *((name, 96, got) for name, got in {"q6k": "q8_0", "q8k": "q8_0", "iq4_xs": "iq4_nl", "tq2_0": "q4_0"}.items()),
        *((name, 48, None) for name in ("q4k", "q8_0", "iq4_xs", "mxfp4", "f8q8", "afq4", "hqq4")),
        ("hqq4", 96, None),
        ("afq4", 96, "afq4"),
        ("int8", 37, "int8"),
        ("fp8", 37, "fp8"),
    ],
)
def test_rows_that_are_no_whole_blocks(scheme: str, columns: int, got: str | None) -> None:
    """`tensor_type_fallback` of llama.cpp, which then takes 16-bit floats; here the weight stays as it is."""
    told: list[Substitution] = []
    x = torch.randn(64, columns, generator=torch.Generator().manual_seed(0))
    made = pack(x, scheme, torch.ones(columns), name="a.weight", report=told.append)
    assert (made is None) == (got is None)
    if got == scheme:
        assert not told
        return
    assert [(entry.name, entry.wanted, entry.got) for entry in told] == [("a.weight", scheme, got)]
    assert told[0].why == f"{columns} columns are no multiple of {SCHEMES[scheme].block}"
    if isinstance(made, PackedMatrix):
        assert made.kind is SCHEMES[str(got)].kind
        alone = pack(x, str(got), torch.ones(columns))
        assert isinstance(alone, PackedMatrix) and torch.equal(made.data, alone.data)


@pytest.mark.parametrize("shape", [(0, 256), (4, 0), (0, 0)])
def test_a_weight_without_numbers_stays_as_it_is(shape: tuple[int, int]) -> None:
    for name in SCHEMES:
        told: list[Substitution] = []
        assert pack(torch.zeros(shape), name, torch.ones(shape[1]), report=told.append) is None
        assert told[0].why == "it has no numbers"


def test_the_names_are_known_without_torch() -> None:
    code = (
        "import sys, bestiary_quant.making.schemes, bestiary_quant.making.mixtures; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_mixtures_are_no_schemes() -> None:
    assert not set(MIXTURES) & set(SCHEMES)
    assert set(MIXTURES.values()) < set(SCHEMES)
