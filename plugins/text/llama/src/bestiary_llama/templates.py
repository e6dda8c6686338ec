"""Chat templates for checkpoints that carry none."""

from bestiary import ChatTemplate

LLAMA3 = ChatTemplate(
    "{{ bos_token }}{% for message in messages %}"
    "<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n{{ message.content | trim }}<|eot_id|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
    stop=("<|eot_id|>",),
)
MISTRAL = ChatTemplate(
    "{{ bos_token }}{% set ns = namespace(system='') %}{% for message in messages %}"
    "{% if message.role == 'system' %}{% set ns.system = message.content + '\n\n' %}"
    "{% elif message.role == 'user' %}[INST] {{ ns.system + message.content }} [/INST]{% set ns.system = '' %}"
    "{% else %} {{ message.content }}{{ eos_token }}{% endif %}"
    "{% endfor %}",
    stop=("</s>",),
)
