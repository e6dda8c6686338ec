"""Numbers in English words, as SmolVLM's prompts have them (those of the package num2words)."""

_SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_LARGE = ((1_000_000, "million"), (1_000, "thousand"), (100, "hundred"))


def in_words(number: int) -> str:
    """From 0 to 999 999 999: "sixty-four", "one hundred and one", "one thousand, two hundred and two"."""
    for size, name in _LARGE:
        if number >= size:
            head, rest = divmod(number, size)
            text = f"{in_words(head)} {name}"
            if not rest:
                return text
            return f"{text}{' and ' if rest < 100 or size == 100 else ', '}{in_words(rest)}"
    if number < 20:
        return _SMALL[number]
    tens, ones = divmod(number, 10)
    return _TENS[tens] + (f"-{_SMALL[ones]}" if ones else "")
