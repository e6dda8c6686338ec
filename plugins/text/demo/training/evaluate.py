"""Asks the packaged model held-out questions, with transformers and without sampling, and counts right answers."""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any

import torch
from checks import passes
from dialogues import Dialogue, dialogue
from rendering import MODEL
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

SAMPLE = Path(__file__).parent.parent / "tests" / "heldout.json"
BATCH = 64


def questions(count: int, per_kind: int) -> list[Dialogue]:
    """The first `count` held-out dialogues of a fixed sequence, at most `per_kind` of each kind."""
    dice, found = Random("held out"), defaultdict(list)
    for _ in range(count):
        item = dialogue(dice, held_out=True)
        if len(found[item.kind]) < per_kind:
            found[item.kind].append(item)
    return [item for kind in sorted(found) for item in found[kind]]


def answers(dialogues: list[Dialogue]) -> list[str]:
    """The model's greedy answers, in batches of similar length that are padded on the left."""
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(MODEL, padding_side="left")
    greedy = GenerationConfig(do_sample=False, max_new_tokens=128, eos_token_id=2, pad_token_id=0)
    prompts: list[str] = []
    for item in dialogues:
        switches: dict[str, Any] = {
            "enable_thinking": bool(item.thought),
            "add_generation_prompt": True,
            "tokenize": False,
        }
        prompts.append(tokenizer.apply_chat_template(item.messages[:-1], tools=item.tools or None, **switches))
    found = [""] * len(dialogues)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        inputs = tokenizer([prompts[index] for index in batch], padding=True, return_tensors="pt")
        ids, mask = inputs["input_ids"], inputs["attention_mask"]  # [B, T]
        with torch.inference_mode():
            rows = model.generate(ids, attention_mask=mask, generation_config=greedy)[:, ids.shape[1] :]
        for index, row in zip(batch, rows, strict=True):
            found[index] = tokenizer.decode(row, skip_special_tokens=False).split("<|im_end|>")[0]
    return found


def record(item: Dialogue) -> dict[str, Any]:
    """A held-out dialogue as the plugin's tests read it."""
    entry: dict[str, Any] = {"kind": item.kind, "messages": item.messages[:-1]}
    if item.tools:
        entry["tools"] = item.tools
    if item.thought:
        entry["enable_thinking"] = True
    return entry | {"check": item.check}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=3000, help="held-out dialogues to draw from")
    parser.add_argument("--per-kind", type=int, default=100, help="at most so many of each kind")
    parser.add_argument("--show", type=int, default=0, help="print so many wrong answers of each kind")
    parser.add_argument("--write-sample", action="store_true", help="write tests/heldout.json, seven of each kind")
    options = parser.parse_args()

    items = questions(options.count, options.per_kind)
    if options.write_sample:
        chosen = [record(item) for item in questions(options.count, 7)]
        SAMPLE.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in chosen) + "\n]\n")
    right, asked = defaultdict(int), defaultdict(int)
    for item, answer in zip(items, answers(items), strict=True):
        well = passes(item.check, answer) and ("</think>" in answer) == bool(item.thought)
        right[item.kind] += well
        asked[item.kind] += 1
        if not well and asked[item.kind] - right[item.kind] <= options.show:
            print(f"{item.kind}: {item.messages[-2]['content']!r} -> {answer!r}, wanted {item.check}")
    for kind in sorted(asked):
        print(f"{kind:20} {right[kind]:5} of {asked[kind]:5}  {right[kind] / asked[kind]:6.1%}")
    total, correct = sum(asked.values()), sum(right.values())
    print(f"{'total':20} {correct:5} of {total:5}  {correct / total:6.1%}")


if __name__ == "__main__":
    main()
