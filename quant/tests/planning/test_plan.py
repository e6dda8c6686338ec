"""Plans: which scheme each weight gets, how large it is told to be, and that it is so when it is loaded."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

import bestiary
from bestiary.config import normalise
from bestiary.errors import OptionError, OutOfMemory
from bestiary.nn import Embedding, Linear
from bestiary.records import PackingRequest, Site
from bestiary_quant.making.mixtures import Traits, assign
from bestiary_quant.making.schemes import BITS, SCHEMES
from bestiary_quant.planning import plan as planning
from bestiary_quant.planning.choosing import choose
from bestiary_quant.planning.plan import plan

CPU = torch.device("cpu")
LAYERS = 4
CONFIG = normalise(
    {"num_hidden_layers": LAYERS, "num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 512}, "here"
)


def sites(experts: bool = False, columns: int = 512) -> list[Site]:
    made = [Site("model.embed_tokens.weight", (1000, columns), "embedding", "BF16")]
    for layer in range(LAYERS):
        path = f"model.layers.{layer}"
        made += [Site(f"{path}.self_attn.{part}_proj.weight", (512, columns), "linear", "BF16") for part in "qkvo"]
        role, shape = ("experts", (8, 256, columns)) if experts else ("linear", (256, columns))
        end = "" if experts else ".weight"
        made += [Site(f"{path}.mlp.{part}_proj{end}", shape, role, "BF16") for part in ("gate", "up", "down")]
        made += [Site(f"{path}.mlp.shared_expert_gate.weight", (1, columns), "linear", "BF16")] if experts else []
    return [*made, Site("lm_head.weight", (1000, columns), "head", "BF16")]


def schemes(request: PackingRequest, weights: Sequence[Site]) -> dict[str, str | None]:
    return {name: packing.scheme for name, packing in plan(request, weights, CONFIG, CPU).assigned.items()}


@pytest.mark.parametrize("quant", ["q4k", "Q4_K", 4, "4"])
def test_one_scheme_for_all_and_a_better_one_for_what_is_sensitive(quant: str | int) -> None:
    found = schemes(PackingRequest(quant), sites())
    assert found.pop("lm_head.weight") == found.pop("model.embed_tokens.weight") == "q6k"
    assert set(found.values()) == {"q4k"}


def test_mixtures_are_those_of_llama_cpp() -> None:
    names = [site.name for site in sites()]
    assert schemes(PackingRequest("q4_k_m"), sites()) == assign("q4_k_m", names, Traits(LAYERS, 4))


def test_bits_on_apples_gpus_are_afq() -> None:
    names = {site.name for site in sites()}
    found = choose(4, None, sites(), CONFIG, "mps", None, 2)
    assert set(found) == names and set(found.values()) == {"afq4", "afq6"}
    assert set(choose(5, None, sites(), CONFIG, "mps", None, 2).values()) == {"q5k", "q8_0"}


def test_auto_takes_what_fits() -> None:
    weights = sites()
    numbers = sum(site.shape[0] * site.shape[1] for site in weights)

    def chosen(available: int | None) -> Any:
        return choose("auto", None, weights, CONFIG, "cpu", available, 2)["model.layers.0.self_attn.q_proj.weight"]

    assert chosen(None) is None and chosen(2 * numbers) is None
    assert chosen(2 * numbers - 1) == "q8_0"
    for bits, scheme in BITS.items():
        assert chosen(int(numbers * SCHEMES[scheme].bits / 8) + 1) == BITS[bits]
    with pytest.raises(OutOfMemory, match="Even in two bits"):
        chosen(numbers // 8)


def test_a_function_decides_for_each_weight() -> None:
    found = schemes(PackingRequest(lambda site: "q8_0" if "v_proj" in site.name else None), sites())
    assert {name for name, scheme in found.items() if scheme} == {
        f"model.layers.{layer}.self_attn.v_proj.weight" for layer in range(LAYERS)
    }
    with pytest.raises(OptionError, match="the name of a scheme or None"):
        schemes(PackingRequest(lambda site: 4), sites())  # type: ignore[arg-type, return-value]


def test_moqe_packs_experts_alone() -> None:
    found = schemes(PackingRequest("q4k", organization="moqe"), sites(experts=True))
    assert {name for name, scheme in found.items() if scheme} == {
        site.name for site in sites(experts=True) if site.role == "experts"
    }
    with pytest.raises(OptionError, match="no experts"):
        schemes(PackingRequest("q4k", organization="moqe"), sites())
    with pytest.raises(OptionError, match="moqe"):
        schemes(PackingRequest("q4k", organization="moqq"), sites())
    with pytest.raises(OptionError, match="there is no quant"):
        bestiary.load("demo", organization="moqe", progress=False)


def test_gates_of_one_row_stay_plain() -> None:
    found = schemes(PackingRequest("q8_0"), sites(experts=True))
    assert [name for name, scheme in found.items() if scheme is None] == [
        f"model.layers.{layer}.mlp.shared_expert_gate.weight" for layer in range(LAYERS)
    ]


def test_a_topology_goes_before_the_common_scheme() -> None:
    topology = {"0-2": {"isq": "q8_0"}, "/o_proj/": {"isq": "none"}}
    found = schemes(PackingRequest("q4k", topology), sites())
    assert found["model.layers.1.self_attn.q_proj.weight"] == "q8_0"
    assert found["model.layers.2.self_attn.q_proj.weight"] == "q4k"
    assert found["model.layers.1.self_attn.o_proj.weight"] is None
    alone = schemes(PackingRequest(topology=topology), sites())
    assert alone["model.layers.2.self_attn.q_proj.weight"] is None and alone["lm_head.weight"] is None


def test_devices_of_a_topology_are_those_of_the_model() -> None:
    made = plan(PackingRequest(topology={"0": {"device": "cpu"}}), sites(), CONFIG, CPU).assigned
    assert made["model.layers.0.self_attn.q_proj.weight"].device == "cpu"
    with pytest.raises(OptionError, match=r"places model\.layers\.1.*on cuda:1"):
        plan(PackingRequest(topology={"1": {"device": "cuda[1]"}}), sites(), CONFIG, CPU)


def test_weights_that_do_not_fit_say_what_they_get_and_why() -> None:
    made = plan(PackingRequest("q4k"), sites(columns=96), CONFIG, CPU).assigned
    assert {(packing.scheme, packing.why) for packing in made.values()} == {
        ("q5_0", "96 columns are no multiple of 256"),
        ("q8_0", "96 columns are no multiple of 256"),
    }
    made = plan(PackingRequest("q4k"), sites(columns=90), CONFIG, CPU).assigned
    assert {packing.scheme for packing in made.values()} == {None}
    assert made["lm_head.weight"].nbytes == 2 * 1000 * 90


def test_a_load_tells_what_is_packed_otherwise_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with bestiary.load("demo", quant="q4k", progress=False) as pipe:
        assert pipe.packing["model.layers.0.mlp.up_proj.weight"].scheme == "q5_0"
    told = [record.getMessage() for record in caplog.records if record.name == "bestiary_quant.planning"]
    assert told == [
        "37 of 43 weights are packed otherwise (1 q8_0, 36 q5_0): 192 columns are no multiple of 256",
    ]


def test_calibration_is_asked_for_where_it_is_needed_and_refused_where_it_is_not() -> None:
    with pytest.raises(OptionError, match="gptq4 is made from the activations"):
        plan(PackingRequest("gptq"), sites(), CONFIG, CPU)
    with pytest.raises(OptionError, match="takes importance into account"):
        plan(PackingRequest("q8_0", imatrix="some.imatrix"), sites(), CONFIG, CPU)
    with pytest.raises(OptionError, match="both say"):
        plan(PackingRequest("q4k", imatrix="some.imatrix", calibration_file="some.txt"), sites(), CONFIG, CPU)


@pytest.mark.parametrize("quant", ["q4k", "q8_0", "q4_k_m", "afq4", "fp8", 6])
def test_what_is_planned_is_what_is_loaded(quant: str | int, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[planning.QuantPlan] = []

    def kept(*given: Any) -> planning.QuantPlan:
        made.append(plan(*given))
        return made[-1]

    monkeypatch.setattr(planning, "plan", kept)
    with bestiary.load("demo", quant=quant, dtype="float32", progress=False) as pipe:
        held = {name: module for name, module in pipe.model.named_modules() if isinstance(module, Linear | Embedding)}
        for name, packing in made[-1].assigned.items():
            packed = held[name.removesuffix(".weight")].packed
            assert packed is not None and packing.scheme is not None
            assert packed.nbytes == pytest.approx(packing.nbytes, rel=0.05), name
            kind = SCHEMES[packing.scheme].kind
            assert kind is None or packed.kind is kind
        assert pipe.model.lm_head.packed is pipe.model.model.embed_tokens.packed


def test_names_that_mean_nothing_are_told_before_weights_move() -> None:
    with pytest.raises(bestiary.BestiaryError, match='"q4kk"') as caught:
        bestiary.load("demo", quant="q4kk", progress=False)
    assert "q4k" in str(caught.value)
    for wrong in (True, 3.5, ["q4k"]):
        with pytest.raises(OptionError, match="a number of bits or a function"):
            bestiary.load("demo", quant=wrong, progress=False)  # type: ignore[arg-type]
    with pytest.raises(bestiary.BestiaryError, match='"7"'):
        bestiary.load("demo", quant=7, progress=False)
