"""Who computes each operation: chosen by name, type and device, and compared with plain torch where that is asked."""

import sys
from collections.abc import Iterator
from types import ModuleType

import pluggy
import pytest
import torch

from bestiary.errors import KernelError, OptionError
from bestiary.kernels import VARIABLE, Wish, choices, choose, wish
from bestiary.nn import Attention, GatedMLP, Linear, RMSNorm, Rope
from bestiary.nn.operations import PLAIN, Operations, fit, rms_norm
from bestiary.records import KernelBackend
from bestiary.registry import Plugin, Registry

CPU = torch.device("cpu")


def swift(x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float) -> torch.Tensor:
    calls.append("swift")
    return rms_norm(x, weight, eps, offset)


def wrong(x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float) -> torch.Tensor:
    return rms_norm(x, weight, eps, offset) * 1.1


calls: list[str] = []
KINDS = ("float32", "bfloat16")


def norm(name: str, function: str, priority: int = 0, **others: object) -> KernelBackend:
    return KernelBackend("rms_norm", KINDS, ("cpu",), f"swallow:{function}", priority, name, **others)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def swallow() -> Iterator[None]:
    module = ModuleType("swallow")
    vars(module).update(swift=swift, wrong=wrong, absent=lambda: "it has no wings", there=lambda: None)
    sys.modules["swallow"] = module
    calls.clear()
    yield
    del sys.modules["swallow"]


def registry(*records: KernelBackend) -> Registry:
    return Registry((Plugin("swallow", "bestiary-swallow", "1", "swallow", records),), pluggy.PluginManager("bestiary"))


BOTH = registry(norm("swift", "swift"), norm("wrong", "wrong", 5))


def chosen(found: Registry, text: str, dtype: str = "float32", device: str = "cpu") -> str | None:
    (choice,) = [
        choice for choice in choices(found, dtype, device, wish(text, found)) if choice.operation == "rms_norm"
    ]
    return choice.backend and choice.backend.name


def test_the_highest_priority_that_serves_is_taken() -> None:
    assert chosen(BOTH, "") == "wrong"
    assert chosen(BOTH, "", dtype="float64") is None
    assert chosen(BOTH, "", device="cuda") is None


def test_names_choose_and_leave_out() -> None:
    assert chosen(BOTH, "swift") == "swift"
    assert chosen(BOTH, "-wrong") == "swift"
    assert chosen(BOTH, "off") is None
    assert chosen(BOTH, "-wrong,-swift") is None


def test_the_environment_is_asked_where_nothing_else_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "check, -wrong")
    assert wish(None, BOTH) == Wish(check=True, without=frozenset({"wrong"}))
    monkeypatch.delenv(VARIABLE)
    assert wish(None, BOTH) == Wish()
    assert wish("off", BOTH) == Wish(without=frozenset({"swift", "wrong"}))


def test_a_word_that_means_nothing_names_the_nearest() -> None:
    with pytest.raises(OptionError, match="swft") as found:
        wish("swft", BOTH)
    assert "swift" in str(found.value.fix)


def test_what_cannot_run_here_is_passed_over_and_says_why() -> None:
    found = registry(norm("swift", "swift", 5, unavailable="swallow:absent"), norm("wrong", "wrong"))
    (choice,) = [one for one in choices(found, "float32", "cpu", Wish()) if one.operation == "rms_norm"]
    assert choice.backend is not None and choice.backend.name == "wrong"
    assert "swift cannot run: it has no wings" in choice.why
    assert chosen(registry(norm("swift", "swift", unavailable="swallow:there")), "") == "swift"


def test_every_operation_has_a_choice() -> None:
    assert {choice.operation for choice in choices(BOTH, "float32", "cpu", Wish())} == set(vars(Operations()))


def test_a_check_lets_pass_what_is_equal_and_no_other() -> None:
    x, weight = torch.randn(3, 8), torch.randn(8)
    right = choose(BOTH, torch.float32, CPU, wish("check,swift", BOTH))
    assert torch.equal(right.rms_norm(x, weight, 1e-6, 0.0), rms_norm(x, weight, 1e-6, 0.0))
    with pytest.raises(KernelError, match="otherwise than plain torch") as found:
        choose(BOTH, torch.float32, CPU, wish("check,wrong", BOTH)).rms_norm(x, weight, 1e-6, 0.0)
    assert "-wrong" in str(found.value.fix)


def test_unchecked_functions_are_called_as_they_are() -> None:
    assert choose(BOTH, torch.float32, CPU, wish("swift", BOTH)).rms_norm is swift
    assert choose(BOTH, torch.float32, CPU, wish("off", BOTH)) == PLAIN


def test_blocks_call_what_they_were_fitted_with() -> None:
    module = torch.nn.ModuleList([RMSNorm(8), GatedMLP(8, 16), Attention(8, 2, 1, 4)])
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    fit(module, choose(BOTH, torch.float32, CPU, wish("swift", BOTH)))
    module[0](torch.randn(2, 8))
    assert calls == ["swift"]
    assert all(part.ops.rms_norm is swift for part in module.modules() if hasattr(part, "ops"))
    assert Linear(4, 4).ops is PLAIN


def test_rotation_turns_queries_and_keys_alike() -> None:
    rope = Rope(8, {"rope_theta": 10000.0})
    positions = torch.tensor([0, 3])
    rotation = rope(positions, positions + 1)
    q, k = torch.randn(2, 4, 8), torch.randn(2, 2, 8)
    turned, other = PLAIN.rotate(q, k, rotation)
    assert torch.equal(turned, rotation.apply(q)) and torch.equal(other, rotation.apply(k))
