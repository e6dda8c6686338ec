"""Chat templates for checkpoints that carry none.  As published, a turn's pictures come before its words."""

from bestiary import ChatTemplate

_PICTURES = (
    "{% if message.content is not string %}{% for part in message.content if part.type == 'image' %}<image>\n"
    "{% endfor %}{% endif %}"
)
_WORDS = (
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}{% endif %}"
)
_TURN = _PICTURES + _WORDS

VICUNA = ChatTemplate(
    "{{ bos_token }}{% for message in messages %}"
    f"{{% if message.role == 'system' %}}{_WORDS} "
    f"{{% elif message.role == 'user' %}}USER: {_TURN} "
    f"{{% else %}}ASSISTANT: {_WORDS}{{{{ eos_token }}}}{{% endif %}}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}",
    stop=("</s>",),
)
"""Of Vicuna 1.5 (FastChat), under LLaVA 1.5 and the LLaVA-NeXTs made of Vicuna."""
MISTRAL = ChatTemplate(
    "{{ bos_token }}{% set ns = namespace(system='') %}{% for message in messages %}"
    f"{{% if message.role == 'system' %}}{{% set ns.system %}}{_WORDS}{{{{ '\n\n' }}}}{{% endset %}}"
    f"{{% elif message.role == 'user' %}}[INST] {_PICTURES}{{{{ ns.system }}}}{_WORDS} [/INST]"
    "{% set ns.system = '' %}"
    f"{{% else %}} {_WORDS}{{{{ eos_token }}}}{{% endif %}}"
    "{% endfor %}",
    stop=("</s>",),
)
CHATML = ChatTemplate(
    f"{{% for message in messages %}}<|im_start|>{{{{ message.role }}}}\n{_TURN}<|im_end|>\n{{% endfor %}}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    stop=("<|im_end|>",),
)
