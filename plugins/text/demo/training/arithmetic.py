"""Counting and calculating."""

from random import Random

from exchange import Exchange, plain, roughen

SUM = ["What is {a} + {b}?", "{a} + {b}", "{a}+{b}", "{a} + {b} =", "How much is {a} plus {b}?", "Add {a} and {b}.",
       "What is {a} plus {b}?", "What is the sum of {a} and {b}?", "Calculate {a} + {b}.", "Please add {a} to {b}.",
       "{a} plus {b}", "Can you add {a} and {b}?", "What do {a} and {b} make?", "What's {a}+{b}?",
       "Compute {a} + {b}", "I have {a} apples and get {b} more. How many do I have?", "{a} plus {b} is?",
       "How much is {a} + {b}?", "{a}+{b}=?", "Sum of {a} and {b}"]  # fmt: skip
DIFFERENCE = ["What is {a} - {b}?", "{a} - {b}", "{a}-{b}", "How much is {a} minus {b}?", "Subtract {b} from {a}.",
              "What is {a} minus {b}?", "{a} minus {b}", "Calculate {a} - {b}.", "Take {b} away from {a}.",
              "{a} - {b} ="]  # fmt: skip
PRODUCT = ["What is {a} * {b}?", "{a} * {b}", "{a} times {b}", "How much is {a} times {b}?", "Multiply {a} by {b}.",
           "What is {a} times {b}?", "What is {a} x {b}?", "Calculate {a} * {b}.", "{a}*{b}",
           "What is the product of {a} and {b}?"]  # fmt: skip

UPWARDS = ["Count from {a} to {b}.", "Count from {a} to {b}", "Please count from {a} to {b}.", "Count {a} to {b}",
           "Can you count from {a} to {b}?", "List the numbers from {a} to {b}.", "Count up from {a} to {b}.",
           "Give me the numbers {a} to {b}.", "Show the numbers from {a} to {b}",
           "Start at {a} and count to {b}."]  # fmt: skip
DOWNWARDS = ["Count backwards from {a} to {b}.", "Count down from {a} to {b}.", "Count down from {a} to {b}",
             "Please count backwards from {a} to {b}.", "Can you count down from {a} to {b}?",
             "List the numbers from {a} down to {b}.", "Count from {a} down to {b}."]  # fmt: skip
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
STRIDES = {2: "twos", 3: "threes", 5: "fives", 10: "tens"}


def two_numbers(dice: Random) -> tuple[int, int]:
    """Pairs from 0 to 99; the small ones, of which there are few, come up more often."""
    limit = 9 if dice.random() < 0.12 else 99
    return dice.randint(0, limit), dice.randint(0, limit)


def column_steps(a: int, b: int) -> str:
    """The written addition of two numbers, ones before tens."""
    ones = a % 10 + b % 10
    carry = ones // 10
    steps = f"{a % 10} + {b % 10} = {ones}, carry {carry}."
    if a > 9 or b > 9:
        steps += f" {a // 10} + {b // 10} + {carry} = {a // 10 + b // 10 + carry}."
    return f"{steps} So {a} + {b} = {a + b}."


def addition(dice: Random) -> Exchange:
    """Held out by the pair, whichever way round, so that no phrasing of it was trained on."""
    a, b = two_numbers(dice)
    question = roughen(dice.choice(SUM).format(a=a, b=b), dice)
    key = (min(a, b), max(a, b))
    value = {"a": a, "b": b, "sum": a + b}
    return plain("sum", key, question, f"{a} + {b} = {a + b}", {"number": a + b}, column_steps(a, b), value)


def difference(dice: Random) -> Exchange:
    a = dice.randint(0, 20)
    b, number = dice.randint(0, a), dice.randrange(len(DIFFERENCE))
    question = roughen(DIFFERENCE[number].format(a=a, b=b), dice)
    answer, value = f"{a} - {b} = {a - b}", {"a": a, "b": b, "difference": a - b}
    thought = f"I take {b} from {a}. So {answer}."
    return plain("difference", (a, b, number), question, answer, {"number": a - b}, thought, value)


def product(dice: Random) -> Exchange:
    a, b, number = dice.randint(0, 10), dice.randint(0, 10), dice.randrange(len(PRODUCT))
    question = roughen(PRODUCT[number].format(a=a, b=b), dice)
    answer, value = f"{a} * {b} = {a * b}", {"a": a, "b": b, "product": a * b}
    thought = f"I multiply {a} by {b}. So {answer}."
    return plain("product", (a, b, number), question, answer, {"number": a * b}, thought, value)


def counting(dice: Random) -> Exchange:
    stride = dice.choice(list(STRIDES)) if dice.random() < 0.3 else 1
    length = dice.randint(2, 12)
    start = dice.randint(0, 12) if dice.random() < 0.5 else dice.randint(0, 60)
    if dice.random() < 0.3 and stride > 1:
        start = stride * dice.randint(0, 2)
    numbers = list(range(start, start + stride * length, stride))
    backwards = dice.random() < 0.3
    if backwards:
        numbers.reverse()
    a, b = numbers[0], numbers[-1]
    question = dice.choice(DOWNWARDS if backwards else UPWARDS).format(a=a, b=b)
    if stride > 1:
        pace = dice.choice([f" by {STRIDES[stride]}", f" in {STRIDES[stride]}", f" in steps of {stride}"])
        question = question.rstrip("?.") + pace + dice.choice([".", ""])
        if dice.random() < 0.25:
            question = dice.choice(["Count{p} from {a} to {b}.", "Please count{p} from {a} to {b}"]).format(
                p=pace, a=a, b=b
            )
    elif a == 1 and not backwards and dice.random() < 0.5:
        question = dice.choice([f"Count to {b}.", f"Can you count to {b}?", f"count to {b}"])
        if dice.random() < 0.3:
            question = question.replace(str(b), WORDS[b])
    thought = f"I start at {a} and stop at {b}."
    answer = ", ".join(map(str, numbers))
    check, value = {"numbers": numbers}, {"numbers": numbers}
    return plain("counting", (a, b, stride), roughen(question, dice), answer, check, thought, value)
