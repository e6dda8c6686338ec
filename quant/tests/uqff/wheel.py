"""What the mistralrs wheel does for make_references.py, run by an interpreter that has it: `python wheel.py TASK ...`.

write SOURCE TYPE FILE              quantises a model and writes FILE, <stem>.uqff, with all that goes with it
convert FOLDER GGUF SOURCE FILE     the same of a GGUF file, in afq8, with the tokenizer of SOURCE
answer FOLDER SHARD                 loads a UQFF folder and prints the greedy answer to PROMPT with log-probabilities
"""

import json
import sys

from mistralrs import ChatCompletionRequest, ModelDType, Runner, Which

PROMPT = "Once upon a time"
COUNT = 12


def main(task: str, model: str, *rest: str) -> None:
    if task == "write":
        kind, file = rest
        Runner(Which.Plain(model_id=model, dtype=ModelDType.F32, write_uqff=file), in_situ_quant=kind)
        return
    if task == "convert":
        name, source, file = rest
        which = Which.GGUF(
            quantized_model_id=model,
            quantized_filename=name,
            tok_model_id=source,
            dtype=ModelDType.F32,
            write_uqff=file,
        )
        Runner(which, in_situ_quant="afq8")
        return
    runner = Runner(Which.Plain(model_id=model, dtype=ModelDType.F32, from_uqff=rest[0]))
    request = ChatCompletionRequest(
        messages=[{"role": "user", "content": PROMPT}],
        model="default",
        max_tokens=COUNT,
        temperature=0.0,
        logprobs=True,
        top_logprobs=5,
    )
    steps = runner.send_chat_completion_request(request).choices[0].logprobs.content
    top = [[[entry.token, round(entry.logprob, 5)] for entry in step.top_logprobs] for step in steps]
    sys.stdout.write("\nANSWER" + json.dumps(top) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
