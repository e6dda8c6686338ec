"""Chat templates for checkpoints that carry none."""

from bestiary import ChatTemplate

# A space follows the colon unless a picture does.
_TURNS = (
    "{% for message in messages %}{{ message.role | capitalize }}"
    "{% if message.content is string %}: {{ message.content }}{% else %}"
    "{% if message.content and message.content[0].type == 'image' %}:{% else %}: {% endif %}"
    "{% for part in message.content %}"
    "{% if part.type == 'text' %}{{ part.text }}"
    "{% elif part.type == 'image' %}<image>{% elif part.type == 'video' %}<video>{% endif %}"
    "{% endfor %}{% endif %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
_STOP = ("<end_of_utterance>",)

IDEFICS3 = ChatTemplate("{{ bos_token }}" + _TURNS, stop=_STOP)
"""Of several generations: Idefics3-8B begins with <|begin_of_text|>, SmolVLM with <|im_start|>."""
SMOLVLM = ChatTemplate("<|im_start|>" + _TURNS, stop=_STOP)
