"""The text pipeline as a program uses it, on the packaged model."""

import asyncio
import dataclasses
import gc
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import bestiary
from bestiary.errors import OptionError, RequestError, TemplateError

QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def pipe() -> Iterator[Any]:
    with bestiary.load("demo", dtype="float32", progress=False) as pipe:
        yield pipe


def test_chat_equals_transformers(pipe: Any) -> None:
    """The same prompt tokens and the same greedy answer as transformers' own chat template, tokenizer and model."""
    import transformers

    folder = pipe.identified.repository.root
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    messages = [{"role": "system", "content": "You are helpful."}, {"role": "user", "content": QUESTION}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert pipe.tokenize_chat(messages) == list(prompt)
    made = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=40)[0, len(prompt) :].tolist()
    answer = pipe.chat(messages, max_tokens=40, temperature=0.0)
    assert list(answer.tokens) == made
    assert answer.text == tokenizer.decode(made, skip_special_tokens=True)


def test_score_equals_transformers(pipe: Any) -> None:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(pipe.identified.repository.root, dtype=torch.float32)
    tokens = pipe.tokenize_chat(QUESTION)
    with torch.no_grad():
        expected = model(torch.tensor([tokens])).logits[0]
    found = pipe.score(tokens)
    assert found.dtype == torch.float32 and found.shape == (len(tokens), pipe.config.vocab_size)
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": 1.5, "seed": 7}, {"stop": ["France"]}])
def test_streamed_equals_whole(pipe: Any, options: dict[str, Any]) -> None:
    whole = pipe.chat(QUESTION, max_tokens=30, logprobs=2, **options)
    chunks = list(pipe.stream_chat(QUESTION, max_tokens=30, logprobs=2, **options))
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert tuple(token for chunk in chunks for token in chunk.tokens) == whole.tokens
    assert tuple(logprob for chunk in chunks for logprob in chunk.logprobs) == whole.logprobs
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].finish_reason == whole.finish_reason


def test_the_same_seed_gives_the_same_text(pipe: Any) -> None:
    texts = {pipe.chat("Hello!", temperature=5.0, seed=3, max_tokens=30).text for _ in range(3)}
    assert len(texts) == 1
    assert len({pipe.chat("Hello!", temperature=5.0, max_tokens=30).text for _ in range(3)}) == 3


def test_usage_and_finish_reasons(pipe: Any) -> None:
    answer = pipe.chat(QUESTION, max_tokens=2)
    assert answer.finish_reason == "length" and len(answer.tokens) == 2
    assert answer.usage.prompt_tokens == len(pipe.tokenize_chat(QUESTION))
    assert answer.usage.completion_tokens == 2
    assert pipe.chat(QUESTION, temperature=0.0).finish_reason == "stop"
    assert pipe.chat(QUESTION, temperature=0.0, ignore_eos=True, max_tokens=40).finish_reason == "length"


def test_logprobs_are_those_of_the_scores(pipe: Any) -> None:
    prompt = pipe.tokenize_chat(QUESTION)
    answer = pipe.generate(prompt, max_tokens=5, temperature=0.0, logprobs=3)
    scores = pipe.score([*prompt, *answer.tokens]).log_softmax(-1)
    for place, found in enumerate(answer.logprobs):
        row = scores[len(prompt) - 1 + place]
        assert found.logprob == pytest.approx(float(row[answer.tokens[place]]), abs=1e-4)
        assert [other.token for other in found.top] == row.topk(3).indices.tolist()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_dtype_runs_near_float32(pipe: Any, dtype: str) -> None:
    tokens = pipe.tokenize_chat(QUESTION)
    exact = pipe.score(tokens)
    with bestiary.load("demo", dtype=dtype, progress=False) as other:
        assert {parameter.dtype for parameter in other.model.parameters()} == {getattr(torch, dtype)}
        found = other.score(tokens)
    # 8 and 11 bits of mantissa, over the layers of the model.
    tolerance = {"float32": 1e-6, "bfloat16": 5e-2, "float16": 1e-2}[dtype]
    assert float((found - exact).norm() / exact.norm()) < tolerance


def test_the_automatic_dtype_is_the_one_of_the_config(pipe: Any) -> None:
    with bestiary.load("demo", progress=False) as other:
        assert str(other.dtype).removeprefix("torch.") == pipe.config.dtype


def test_async_twins_say_the_same(pipe: Any) -> None:
    async def main() -> tuple[str, str, str, list[str]]:
        chunks = [chunk.text async for chunk in pipe.astream_chat(QUESTION, temperature=0.0)]
        chat, completion = await asyncio.gather(
            pipe.achat(QUESTION, temperature=0.0), pipe.agenerate("Once", temperature=0.0, max_tokens=8)
        )
        streamed = [chunk.text async for chunk in pipe.astream("Once", temperature=0.0, max_tokens=8)]
        return "".join(chunks), chat.text, completion.text, streamed

    chunks, chat, completion, streamed = asyncio.run(main())
    assert chunks == chat == pipe.chat(QUESTION, temperature=0.0).text
    assert completion == "".join(streamed) == pipe.generate("Once", temperature=0.0, max_tokens=8).text


def test_an_async_stream_can_be_left_early(pipe: Any) -> None:
    async def main() -> int:
        count = 0
        stream = pipe.astream_chat(QUESTION, ignore_eos=True, max_tokens=500)
        async for _ in stream:
            count += 1
            if count == 3:
                break
        await stream.aclose()
        return count

    assert asyncio.run(main()) == 3


def test_threads_do_not_disturb_each_other(pipe: Any) -> None:
    questions = [QUESTION, "What is 3 + 4?", "Hello!", "Count from 1 to 5."]
    alone = [pipe.chat(question, temperature=0.0, max_tokens=24).tokens for question in questions]
    together: dict[int, Any] = {}

    def ask(index: int) -> None:
        together[index] = pipe.chat(questions[index], temperature=0.0, max_tokens=24).tokens

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(questions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[index] for index in range(len(questions))] == alone


def test_tokens_round_trip(pipe: Any) -> None:
    text = "Grüße, 世界! 👋🏽 \u0301"
    assert pipe.detokenize(pipe.tokenize(text)) == text


@pytest.mark.parametrize("prompt", ["", [], [-1], [10**6], ["a"]])
def test_bad_prompts_are_refused(pipe: Any, prompt: Any) -> None:
    with pytest.raises(RequestError):
        pipe.generate(prompt)


def test_a_prompt_beyond_the_context_is_refused_with_numbers(pipe: Any) -> None:
    length = pipe.config.max_position_embeddings
    with pytest.raises(RequestError, match=str(length)):
        pipe.generate([5] * length)
    assert pipe.generate([5] * (length - 2), ignore_eos=True).finish_reason == "length"
    assert len(pipe.generate([5] * (length - 2), ignore_eos=True).tokens) == 2


def test_unknown_options_name_the_nearest(pipe: Any) -> None:
    with pytest.raises(OptionError, match="temprature") as found:
        pipe.chat(QUESTION, temprature=1.0)
    assert "temperature" in str(found.value)


def test_template_variables_reach_the_template_and_cannot_replace_the_messages(pipe: Any) -> None:
    plain = pipe.render(QUESTION)
    thinking = pipe.render(QUESTION, template_variables={"enable_thinking": True})
    assert thinking != plain and thinking.startswith(plain)
    with pytest.raises(OptionError, match="messages"):
        pipe.render(QUESTION, template_variables={"messages": []})


def test_a_closed_pipeline_is_freed_and_says_so() -> None:
    pipe = bestiary.load("demo", progress=False)
    network = weakref.ref(pipe.model)
    pipe.close()
    gc.collect()
    assert network() is None, "the model was not freed"
    with pytest.raises(RequestError, match="closed"):
        pipe.chat("Hello!")


def test_a_model_without_a_template_continues_text_and_says_so(shared_data: Any) -> None:
    with bestiary.load(str(shared_data / "weights/stories260K/hf"), progress=False) as stories:
        assert not stories.can_chat
        with pytest.raises(TemplateError):
            stories.chat("Hello!")


def test_a_local_load_never_touches_the_network(monkeypatch: pytest.MonkeyPatch, pipe: Any) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with bestiary.load(str(pipe.identified.repository.root), progress=False) as local:
        assert local.chat(QUESTION, max_tokens=3).tokens


def test_progress_events_add_up() -> None:
    events: list[bestiary.Progress] = []
    with bestiary.load("demo", progress=events.append):
        pass
    loads = [event for event in events if event.stage == "load"]
    assert loads and loads[-1].done == loads[-1].total > 0
    assert [event.done for event in loads] == sorted(event.done for event in loads)


def test_a_program_that_ends_in_the_middle_of_an_answer_ends_cleanly() -> None:
    code = (
        "import bestiary\n"
        "pipe = bestiary.load('demo')\n"
        "stream = pipe.stream_chat('Hello!', ignore_eos=True, max_tokens=900)\n"
        "print(next(stream).tokens)\n"
    )
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_a_stream_keeps_what_it_needs_when_the_pipeline_is_forgotten() -> None:
    stream = bestiary.load("demo", progress=False).stream_chat(QUESTION, temperature=0.0)
    gc.collect()
    assert "".join(chunk.text for chunk in stream) == "The capital of France is Paris."


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what torch.compile imports
def test_compiled_blocks_answer_as_before() -> None:
    questions = ["What is 27 + 45?", "What is the capital of France?"]
    with bestiary.load("demo", dtype="float32", progress=False) as plain:
        expected = [plain.chat(question).tokens for question in questions]
    with bestiary.load("demo", dtype="float32", progress=False, compile=True) as compiled:
        assert sum(module._compiled_call_impl is not None for module in compiled.model.modules()) >= 3 * 6
        assert [compiled.chat(question).tokens for question in questions] == expected


def test_the_cache_is_sized_by_bytes_or_by_a_share() -> None:
    with bestiary.load("demo", progress=False, cache_memory="8 MB", block_size=32) as pipe:
        assert 7_000_000 < pipe.engine.cache.nbytes < 8_200_000
        prompt = list(range(5, 80))
        pipe.generate(prompt, max_tokens=1)
        pipe.generate(prompt, max_tokens=1)
        assert pipe.statistics().totals.reused_tokens == 64, "two blocks of 32"
    with (
        bestiary.load("demo", progress=False, cache_memory=0.002) as small,
        bestiary.load("demo", progress=False, cache_memory=0.02) as large,
    ):
        assert large.engine.cache.nbytes > 5 * small.engine.cache.nbytes


@pytest.mark.parametrize("options", [{"cache_memory": 1.5}, {"cache_memory": "much"}, {"block_size": 17}], ids=str)
def test_caches_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(bestiary.errors.OptionError):
        bestiary.load("demo", progress=False, **options)


@pytest.mark.parametrize("quant, share", [("q8_0", 0.35), ("q4k", 0.25), ("afq4", 0.25), ("hqq4", 0.25)])
def test_a_model_is_packed_while_it_loads(quant: str, share: float) -> None:
    with bestiary.load("demo", dtype="float32", progress=False) as plain:
        size = plain.nbytes - plain.engine.cache.nbytes
    with bestiary.load("demo", dtype="float32", progress=False, quant=quant) as packed:
        assert "Paris" in packed.chat("What is the capital of France?").text
        linears = [module for module in packed.model.modules() if getattr(module, "packed", None) is not None]
        assert len(linears) >= 6 * 7
        held = sum(module.packed.nbytes for module in linears)
        full = sum(4 * module.packed.shape[0] * module.packed.shape[1] for module in linears)
        assert held < share * full and packed.nbytes - packed.engine.cache.nbytes < size


def test_the_bytes_of_a_pipeline_are_those_of_all_that_it_holds() -> None:
    with bestiary.load("demo", progress=False, cache_tokens=1024) as alone:
        size = alone.nbytes
    with bestiary.load("demo", progress=False, cache_tokens=1024, draft="demo") as drafted:
        assert drafted.nbytes == 2 * size


def test_load_takes_the_options_that_the_pipeline_knows() -> None:
    from bestiary.pipelines.text_options import TextOptions
    from bestiary.registry import default_registry

    assert set(default_registry().pipeline("text").options) == {field.name for field in dataclasses.fields(TextOptions)}
