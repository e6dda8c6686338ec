"""What people write when they want a scene."""

from random import Random

from scenes import COLOURS, PLACES, SHAPES, Scene

WORDS = {
    "circle": ["circle", "circle", "circle", "disc", "disk"], "square": ["square", "square", "square", "box"],
    "cross": ["cross", "cross", "plus"], "purple": ["purple", "purple", "violet"],
    "small": ["small", "small", "tiny", "little"], "large": ["large", "big", "big", "huge"],
}  # fmt: skip
"""Other words for the same thing, the usual one more than once."""
SUBJECTS = ["{a} {size}{colour} {shape}", "{size}{colour} {shape}", "{a} {size}{colour} {shape}",
            "the {size}{colour} {shape}", "one {size}{colour} {shape}", "a {size}{shape} in {colour}",
            "a {size}{shape} that is {colour}"]  # fmt: skip
SUBJECT_WEIGHTS = [6, 4, 6, 1, 1, 1, 1]
GROUNDS = ["on {}", "on {}", "on {}", "on {a} {} background", "on {a} {} background", "with {a} {} background",
           "against {}", "in front of {}", "over {}", "on {a} {} ground", "{} background"]  # fmt: skip
ASIDE = ["on the {}", "at the {}", "to the {}", "{}", "on the {} side"]
UPRIGHT = ["at the {}", "on the {}", "near the {}", "{}"]
FRAMES = ["{}", "a picture of {}", "an image of {}", "a drawing of {}", "draw {}", "please draw {}", "show me {}",
          "a photo of {}", "paint {}", "a simple {}", "picture of {}", "I want {}", "make {}"]  # fmt: skip
FRAME_WEIGHTS = [24, *[1] * (len(FRAMES) - 1)]


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def phrase(scene: Scene, dice: Random) -> str:
    """A prompt for the scene: words, order, capitals and the full stop vary."""

    def say(word: str) -> str:
        return dice.choice(WORDS.get(word, [word]))

    colour, size = say(scene.colour), say(scene.size) + " " if scene.size else ""
    subject = dice.choices(SUBJECTS, SUBJECT_WEIGHTS)[0].format(
        a=article(size or colour), size=size, colour=colour, shape=say(scene.shape)
    )
    parts = [subject]
    if scene.place:
        parts.append(dice.choice(ASIDE if scene.place in ("left", "right") else UPRIGHT).format(scene.place))
    if scene.background:
        ground = say(scene.background)
        parts.append(dice.choice(GROUNDS).format(ground, a=article(ground)))
        if len(parts) == 3 and dice.random() < 0.4:
            parts[1:] = parts[:0:-1]
    frame = dice.choices(FRAMES, FRAME_WEIGHTS)[0]
    text = frame.format((", " if dice.random() < 0.1 else " ").join(parts))
    text = text.replace("simple a ", "simple ").replace("simple an ", "simple ")
    return spell(text, dice)


def spell(text: str, dice: Random) -> str:
    """Mostly as it stands; else a capital in front, on every word, or everywhere; some with a full stop."""
    chance = dice.random()
    if chance < 0.3:
        text = text[0].upper() + text[1:]
    elif chance < 0.34:
        text = text.title()
    elif chance < 0.38:
        text = text.upper()
    return text + dice.choices(["", ".", "!"], [70, 28, 2])[0]


def lexicon() -> list[str]:
    """Every word that a prompt can hold, in small letters, in a fixed order."""
    texts = [*SUBJECTS, *GROUNDS, *ASIDE, *UPRIGHT, *FRAMES, *COLOURS, *SHAPES, *PLACES, "an a"]
    texts += [word for words in WORDS.values() for word in words]
    plain = " ".join(texts)
    for mark in ("{a}", "{size}", "{colour}", "{shape}", "{}"):
        plain = plain.replace(mark, " ")
    return sorted(set(plain.lower().split()))
