"""What hearing and speaking cost beside transformers: Whisper, the codec of Descript, and Dia.

    python benchmarks/speech.py [--only whisper dac dia] [--rounds 3] [--repeats 3] [--threads 2] [--windows 2]
                                [--quant q8_0] [--json FILE]

All weights are random, and nothing is downloaded.  Each run is a process of its own, ours and theirs in turns, and a
figure of it is the least of `--repeats`, after one to warm up.  A ratio is the median over the rounds of pairs of one
round, and above 1 ours is faster.

whisper: the shape of Whisper-base in float32 hears `--windows` of half a minute of noise, one after the other, as both
do with one long sound.  It writes 224 tokens about each, with timestamps: the end is never allowed, nor a timestamp but
the first, so that each window is written to the limit, is one phrase, and is followed by the next; nothing is tried at
a second temperature, and no window is told of the one before it.  The spectrogram is what comes before the encoder is
called first, the encoder its calls, and the tokens all the rest: keys and values of the window, prompt, rules, choice,
and the text.

dac: the codec of 44.1 kHz in float32 makes 2 and 5 seconds of sound of codes, and codes of sound.

dia: a Dia of 146 million parameters in bfloat16 writes 16 and 80 frames, always the most probable codes, and a step is
the difference over 64; so what is not a step is left out, such as the text encoder.  The end is held back until the
limit.  With guidance each step is computed for two rows.  Ours decodes its codes too, with a codec so small that this
takes next to nothing; theirs does not.  Transformers in float32 stands in the table too, because bfloat16 is slow on
CPUs that have no products of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOKENS = 224
"""Of each window: half of the context of Whisper, which is where ours ends it."""
WINDOW = 30 * 16_000
"""Samples that Whisper hears at once."""
CODES = {"n_codebooks": 9, "codebook_size": 1024, "codebook_dim": 8, "sampling_rate": 44_100}
HOP = 512
"""Samples of a frame of codes."""
SECONDS = (2, 5)
FRAMES = (16, 80)
FILTER = 45
"""Codes that guidance leaves to choose from, in both."""
TEXT = "[S1] Dia is an open weights text to dialogue model. [S2] You get full control over scripts and voices. "
TEXT += "Wow. Amazing."


@dataclass(frozen=True)
class Found:
    """What one run found."""

    figures: dict[str, float]
    """Seconds where the name ends in "s", and a rate where it ends in "a second"."""
    work: dict[str, int]
    """What was made, which is the same in all runs."""


def least(work: Callable[[], object], repeats: int) -> float:
    """Seconds."""
    spent = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        spent.append(time.perf_counter() - began)
    return min(spent)


# Whisper


def make_whisper(folder: Path) -> None:
    """The model in transformers' layout, with the ids of the published ones and words that nobody says."""
    import tokenizers
    import torch
    from tokenizers import decoders, models, pre_tokenizers
    from transformers import WhisperConfig, WhisperForConditionalGeneration
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    torch.manual_seed(0)
    half = {"layers": 6, "attention_heads": 8, "ffn_dim": 2048}
    sides = {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in half.items()}
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 50257)
    config = WhisperConfig(vocab_size=51865, d_model=512, decoder_start_token_id=50258, **sides, **ids)
    WhisperForConditionalGeneration(config).save_pretrained(folder)

    languages = list(LANGUAGES)[:99]
    tasks = ["<|translate|>", "<|transcribe|>"]
    others = ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"Ġw{place}" for place in range(len(letters), ids["eos_token_id"]))]
    backend = tokenizers.Tokenizer(models.BPE({word: place for place, word in enumerate(words)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    controls = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in languages), *tasks, *others]
    backend.add_special_tokens(controls)
    backend.add_tokens([f"<|{place * 0.02:.2f}|>" for place in range(1501)])
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "WhisperTokenizer"}))

    place_of = backend.token_to_id
    blank = [place for place, letter in enumerate(letters) if not backend.decode([place]).strip()]
    never = [*blank, *(place_of(control) for control in controls), *range(place_of("<|0.02|>"), config.vocab_size)]
    generation = {
        **ids,
        "decoder_start_token_id": place_of("<|startoftranscript|>"),
        "is_multilingual": True,
        "lang_to_id": {f"<|{code}|>": place_of(f"<|{code}|>") for code in languages},
        "task_to_id": {task.strip("<|>"): place_of(task) for task in tasks},
        "no_timestamps_token_id": place_of("<|notimestamps|>"),
        "prev_sot_token_id": place_of("<|startofprev|>"),
        "suppress_tokens": never,
    }
    (folder / "generation_config.json").write_text(json.dumps(generation))


def their_whisper(folder: Path) -> tuple[Callable[[Any], int], Any]:
    """What hears samples and tells how many tokens it wrote, and the encoder."""
    import torch
    from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor, WhisperForConditionalGeneration

    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    extract = WhisperFeatureExtractor(feature_size=80)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    asked: dict[str, Any] = {"language": "en", "task": "transcribe", "max_new_tokens": TOKENS}
    asked |= dict.fromkeys(("return_timestamps", "return_segments"), True)
    options = {"sampling_rate": 16_000, "truncation": False, "padding": "longest", "return_attention_mask": True}

    def hear(samples: Any) -> int:
        heard = extract(samples, return_tensors="pt", **options)
        made = model.generate(heard.input_features, attention_mask=heard.attention_mask, **asked)
        written = [segment["tokens"] for segment in made["segments"][0]]
        for tokens in written:
            tokenizer.decode(tokens, skip_special_tokens=True)
        return sum(map(len, written))

    return hear, model.model.encoder


def our_whisper(folder: Path) -> tuple[Callable[[Any], int], Any]:
    import bestiary

    pipe: Any = bestiary.load(str(folder), dtype="float32", device="cpu", progress=False)
    limits = dict.fromkeys(("compression_ratio_threshold", "logprob_threshold", "no_speech_threshold"))
    asked = {"language": "en", "temperature": 0.0, "condition_on_previous_text": False, **limits}

    def hear(samples: Any) -> int:
        return sum(len(segment.tokens) for segment in pipe.transcribe(samples, rate=16_000, **asked).segments)

    return hear, pipe._listener.model.model.encoder


def run_whisper(which: str, folder: Path, given: argparse.Namespace) -> Found:
    import numpy as np

    hear, encoder = (our_whisper if which == "ours" else their_whisper)(folder)
    passes: list[list[float]] = []
    encoder.register_forward_pre_hook(lambda *_: passes.append([time.perf_counter()]))
    encoder.register_forward_hook(lambda *_: passes[-1].append(time.perf_counter()))
    random = np.random.default_rng(0)
    samples = 0.1 * random.standard_normal(given.windows * WINDOW, dtype=np.float32)
    samples *= np.repeat(random.random(len(samples) // 800, dtype=np.float32), 800)  # loud and soft by turns
    hear(samples[:WINDOW])
    rows, tokens = [], 0
    for _ in range(given.repeats):
        passes.clear()
        began = time.perf_counter()
        tokens = hear(samples)
        ended = time.perf_counter()
        encoding = sum(stop - start for start, stop in passes)
        first = passes[0][0]
        rows.append((ended - began, first - began, encoding, ended - first - encoding))
    whole, spectrogram, encoding, writing = (min(column) for column in zip(*rows, strict=True))
    figures = {f"hearing {30 * given.windows} s, s": whole, "its spectrogram, s": spectrogram}
    figures |= {"its encoder, s": encoding, "its tokens a second": tokens / writing}
    return Found(figures, {"windows": len(passes), "tokens": tokens})


# The codec


def make_codec(folder: Path, **widths: int) -> None:
    import torch
    from transformers import DacConfig, DacModel

    torch.manual_seed(0)
    model = DacModel(DacConfig(downsampling_ratios=[2, 4, 8, 8], hop_length=HOP, **CODES, **widths))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight") and parameter.ndim == 3:
                # So that sound neither fades to numbers that a CPU is slow with, nor grows.
                fan = 2 * parameter.shape[0] if "conv_t1" in name else parameter[0].numel()
                parameter.normal_(std=0.5 * fan**-0.5)
    model.save_pretrained(folder)


def make_dac(folder: Path) -> None:
    make_codec(folder, encoder_hidden_size=64, decoder_hidden_size=1536)


def our_codec(folder: Path) -> Any:
    import torch
    from safetensors.torch import load_file

    from bestiary.config import Config
    from bestiary_dac.model import build

    with torch.device("meta"):
        codec = build(Config(json.loads((folder / "config.json").read_text()), "the benchmark"))
    codec.load_state_dict(load_file(folder / "model.safetensors"), assign=True)
    return codec


def run_dac(which: str, folder: Path, given: argparse.Namespace) -> Found:
    import torch
    from transformers import DacModel

    codec = our_codec(folder) if which == "ours" else DacModel.from_pretrained(folder, dtype=torch.float32).eval()
    random = torch.Generator().manual_seed(0)
    figures: dict[str, float] = {}
    work: dict[str, int] = {}

    def decode(codes: torch.Tensor) -> Any:
        return codec.decode(codes) if which == "ours" else codec.decode(audio_codes=codes).audio_values

    def encode(samples: torch.Tensor) -> Any:
        return codec.encode(samples) if which == "ours" else codec.encode(samples).audio_codes

    with torch.inference_mode():
        for seconds in SECONDS:
            frames = -(-seconds * CODES["sampling_rate"] // HOP)
            codes = torch.randint(CODES["codebook_size"], (1, CODES["n_codebooks"], frames), generator=random)
            samples = 0.1 * torch.randn(1, 1, frames * HOP, generator=random)
            work[f"samples of {seconds} s"] = decode(codes).shape[-1]
            work[f"codes of {seconds} s"] = encode(samples).numel()
            figures[f"decoding {seconds} s, s"] = least(lambda codes=codes: decode(codes), given.repeats)
            figures[f"encoding {seconds} s, s"] = least(lambda samples=samples: encode(samples), given.repeats)
    return Found(figures, work)


# Dia


def make_dia(folder: Path) -> None:
    import torch
    from transformers import DiaConfig, DiaForConditionalGeneration

    torch.manual_seed(0)
    encoder = {"num_hidden_layers": 4, "hidden_size": 512, "intermediate_size": 2048}
    encoder |= {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 128}
    decoder = {"num_hidden_layers": 6, "hidden_size": 1024, "intermediate_size": 4096}
    decoder |= {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 128}
    decoder |= {"cross_num_attention_heads": 8, "cross_num_key_value_heads": 8, "cross_head_dim": 128}
    config = DiaConfig(encoder_config=encoder, decoder_config=decoder | {"cross_hidden_size": encoder["hidden_size"]})
    DiaForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(folder)
    make_codec(folder / "codec", encoder_hidden_size=4, decoder_hidden_size=32)


def their_dia(folder: Path, dtype: str) -> Callable[[int, float], int]:
    """What writes so many frames with this guidance, and tells how many they became."""
    import torch
    from transformers import DiaForConditionalGeneration

    model = DiaForConditionalGeneration.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    letters = TEXT.encode().replace(b"[S1]", b"\x01").replace(b"[S2]", b"\x02")
    tokens = torch.tensor([list(letters)])
    asked = {"attention_mask": torch.ones_like(tokens), "do_sample": False, "top_k": FILTER}

    def speak(frames: int, guidance: float) -> int:
        scale = guidance if guidance > 1 else None
        written = model.generate(tokens, max_new_tokens=frames, min_new_tokens=frames, guidance_scale=scale, **asked)
        return written.shape[1] - 1

    return speak


def our_dia(folder: Path, quant: str | None) -> Callable[[int, float], int]:
    import bestiary

    options: dict[str, Any] = {"dac_model_id": str(folder / "codec"), "device": "cpu", "quant": quant}
    pipe: Any = bestiary.load(str(folder), dtype="bfloat16", progress=False, **options)
    asked = {"temperature": 0.0, "cfg_filter_top_k": FILTER, "seed": 0, "progress": False}

    def speak(frames: int, guidance: float) -> int:
        made = pipe(TEXT, max_tokens=frames, min_tokens=frames, guidance=guidance, **asked)
        return made.waveform.samples.shape[-1] // HOP

    return speak


def run_dia(which: str, folder: Path, given: argparse.Namespace) -> Found:
    packing = given.quant if which == "packed" else None
    speak = our_dia(folder, packing) if which in ("ours", "packed") else their_dia(folder, which)
    figures: dict[str, float] = {}
    work: dict[str, int] = {}
    few, many = FRAMES
    for name, guidance in (("guidance 3, steps a second", 3.0), ("no guidance, steps a second", 1.0)):
        work[name] = speak(many, guidance) - speak(few, guidance)
        short, long = (least(lambda n=n, g=guidance: speak(n, g), given.repeats) for n in FRAMES)
        figures[name] = (many - few) / (long - short)
    return Found(figures, work)


@dataclass(frozen=True)
class Subject:
    """A model that both sides have."""

    make: Callable[[Path], None]
    run: Callable[[str, Path, argparse.Namespace], Found]
    theirs: dict[str, str]
    """Names of columns by run."""
    ours: dict[str, str]


_PLAIN = {"float32": "transformers"}, {"ours": "bestiary"}
_BOTH = {"bfloat16": "transformers", "float32": "in float32"}, {"ours": "bestiary", "packed": "bestiary, packed"}
SUBJECTS = {
    "whisper": Subject(make_whisper, run_whisper, *_PLAIN),
    "dac": Subject(make_dac, run_dac, *_PLAIN),
    "dia": Subject(make_dia, run_dia, *_BOTH),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--windows", type=int, default=2, help="half minutes that Whisper hears")
    arguments.add_argument("--quant", default="q8_0", help="a second run of our Dia is packed so")
    arguments.add_argument("--json", type=Path)
    arguments.add_argument("--child", nargs=3, metavar=("SUBJECT", "WHICH", "FOLDER"), help=argparse.SUPPRESS)
    given = arguments.parse_args()
    for name in ("rounds", "repeats", "threads", "windows"):
        if getattr(given, name) < 1:
            arguments.error(f"--{name} is {getattr(given, name)}; 1 or more are due")
    if given.child:
        import torch

        torch.set_num_threads(given.threads)
        name, which, folder = given.child
        found = SUBJECTS[name].run(which, Path(folder), given)
        print(json.dumps([found.figures, found.work]))
        return
    everything = {}
    for name in given.only:
        with tempfile.TemporaryDirectory() as place:
            SUBJECTS[name].make(Path(place))
            everything[name] = [in_turns(name, place, number) for number in range(given.rounds)]
        show(name, everything[name])
    if given.json:
        given.json.write_text(json.dumps(everything, indent=1) + "\n")


def in_turns(name: str, folder: str, number: int) -> dict[str, dict[str, float]]:
    """The figures of one round by run; every second round goes the other way round."""
    runs = [*SUBJECTS[name].theirs, *SUBJECTS[name].ours]
    found = {which: child(name, which, folder) for which in (reversed(runs) if number % 2 else runs)}
    work = {which: each.work for which, each in found.items()}
    if any(each != work[runs[0]] for each in work.values()):
        raise SystemExit(f"{name}: not the same work: {work}")
    return {which: each.figures for which, each in found.items()}


def child(*which: str) -> Found:
    command = [sys.executable, __file__, *sys.argv[1:], "--child", *which]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(which[:2])} failed:\n{done.stderr}")
    return Found(*json.loads(done.stdout.splitlines()[-1]))


def show(name: str, rounds: list[dict[str, dict[str, float]]]) -> None:
    """The table of one subject."""
    theirs, ours = SUBJECTS[name].theirs, SUBJECTS[name].ours
    print(f"{name}, rounds: {len(rounds)}; ratios to transformers in {' and '.join(theirs)}, above 1 ours is faster")
    columns = [*theirs.values(), *ours.values()]
    print(f"| | {' | '.join(columns)} |\n|---{'|---' * len(columns)}|")
    for figure in rounds[0][next(iter(theirs))]:
        cells = []
        for which in (*theirs, *ours):
            value = statistics.median(each[which][figure] for each in rounds)
            cell = f"{value:.1f}" if figure.endswith("a second") else f"{value:.3f}"
            for other in theirs if which in ours else ():
                pairs = [(each[which][figure], each[other][figure]) for each in rounds]
                ratios = (own / peer if figure.endswith("a second") else peer / own for own, peer in pairs)
                cell += f" x{statistics.median(ratios):.2f}"
            cells.append(cell)
        print(f"| {figure} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
