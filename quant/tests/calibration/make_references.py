"""Makes data/mistralrs.cimatrix: what mistral.rs collects of the packaged model while it reads a text.

    python make_references.py MODEL        MODEL: the folder of bestiary_demo with config.json

Needs `pip install mistralrs==0.9.5`.  It collects only from layers that it packs, here in eight bits, and keeps keys
and values in 16 bits: so its numbers are near those of the plain model, and not equal to them.
"""

import sys
from pathlib import Path

from mistralrs import CompletionRequest, Runner, Which

TEXT = (
    "The capital of France is Paris, and the capital of Austria is Vienna. 12 plus 30 is 42. "
    "A plugin is a part that is added to a program."
)


def main(model: str) -> None:
    target = Path(__file__).with_name("data") / "mistralrs.cimatrix"
    target.parent.mkdir(exist_ok=True)
    runner = Runner(which=Which.Plain(model_id=model), in_situ_quant="Q8_0")
    runner.begin_calibration()
    runner.send_completion_request(CompletionRequest(model="default", prompt=TEXT, max_tokens=1, temperature=0.0))
    runner.apply_calibration(save_cimatrix=str(target))


if __name__ == "__main__":
    main(sys.argv[1])
