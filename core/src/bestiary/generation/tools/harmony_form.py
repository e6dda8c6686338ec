"""The grammar of answers in Harmony, where everything is a message with a header (see `harmony`)."""

from __future__ import annotations

from bestiary.generation.constraints.tools import Rules, ToolForm
from bestiary.generation.tools.answer_grammar import Wanted

_HEADERS = ("<|start|>", "<|channel|>")


class HarmonyForm:
    """Messages of reasoning and talk, and then one call or the final text: a call ends the turn.

    The recipient may stand in front of the channel, as in the chat template, or behind it, as models mostly write it.
    """

    tool_form = ToolForm("", "", "")

    def write(self, rules: Rules, wanted: Wanted) -> None:
        channel, message = f'{rules.literal("<|channel|>")} "commentary"', rules.literal("<|message|>")
        kind = f'(" json" | {rules.literal(" <|constrain|>json")})?'
        for place, tool in enumerate(wanted.tools):
            to = f'" to=functions." {rules.literal(tool["function"]["name"])}'
            rules.add(f"tool_{place}", f"({channel} {to} | {to} {channel}) {kind} {message} arguments_{place}")
        last = "chosen" if wanted.required else f"(chosen | {self._final(rules)} {rules.without('PLAIN', _HEADERS)})"
        rules.add("start", f"{self._said(rules)} {last}")

    def write_answer(self, rules: Rules, answer: str) -> None:
        rules.add("start", f"{self._said(rules)} {self._final(rules)} {answer}")

    def _said(self, rules: Rules) -> str:
        header = f'{rules.literal("<|channel|>")} ("analysis" | "commentary") {rules.literal("<|message|>")}'
        until = rules.until("until_end", "<|end|>", rules.without("PLAIN", _HEADERS))
        return f"{rules.add('said', f'{header} {until} ' + rules.literal('<|start|>assistant'))}*"

    def _final(self, rules: Rules) -> str:
        return f'{rules.literal("<|channel|>")} "final" {rules.literal("<|message|>")}'


FORM = HarmonyForm()
