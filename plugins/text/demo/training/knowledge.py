"""Capital cities and colours."""

from random import Random

from exchange import Exchange, assistant, plain, roughen, user
from facts import CAPITALS, COLOURS, MIXTURES

TO_CITY = ["What is the capital of {}?", "What's the capital of {}?", "Which city is the capital of {}?",
           "Capital of {}?",
           "Name the capital of {}.", "Tell me the capital of {}.", "Do you know the capital of {}?", "{} capital?",
           "What is the capital city of {}?", "The capital of {}, please.", "What is {}'s capital?",
           "Can you name the capital of {}?", "I need the capital of {}.", "capital city {}"]  # fmt: skip
TO_COUNTRY = ["Which country is {} the capital of?", "{} is the capital of which country?",
              "What country has {} as capital?",
              "Which country has the capital {}?", "{} is the capital of what?", "Of which country is {} the capital?",
              "In which country is {}?", "Where is {}?", "Which country is {} in?", "What country is {} in?",
              "{} is in which country?", "Whose capital is {}?"]  # fmt: skip
OBJECT = ["What colour is {}?", "What color is {}?", "Which colour is {}?", "What is the colour of {}?",
          "What is the color of {}?", "Tell me the colour of {}.", "What colour does {} have?", "Colour of {}?",
          "Which color does {} have?", "Name the color of {}.", "Do you know the colour of {}?"]  # fmt: skip
MIXTURE = ["What do {} and {} make?", "What do you get when you mix {} and {}?", "Mix {} and {}.", "{} and {} make?",
           "What colour do {} and {} make?", "What color is {} mixed with {}?", "Which colour is {} plus {}?",
           "If I mix {} and {}, what do I get?", "{} + {} = which colour?",
           "What happens if I mix {} with {}?"]  # fmt: skip


def bare(name: str) -> str:
    """The name without its article, as it stands in JSON."""
    return name.removeprefix("the ").removeprefix("an ").removeprefix("a ")


def place(country: str) -> dict[str, str]:
    return {"city": CAPITALS[country], "country": bare(country)}


def to_city(country: str, dice: Random) -> Exchange:
    city, number = CAPITALS[country], dice.randrange(len(TO_CITY))
    question = TO_CITY[number].format(bare(country) if dice.random() < 0.1 else country)
    answer, thought = f"The capital of {country} is {city}.", f"This is about {city} and {country}."
    key, check = ("city", number, country), {"contains": [city]}
    return plain("capital", key, roughen(question, dice), answer, check, thought, place(country))


def to_country(country: str, dice: Random) -> Exchange:
    city, number = CAPITALS[country], dice.randrange(len(TO_COUNTRY))
    question = TO_COUNTRY[number].format(city)
    answer, thought = f"{city} is the capital of {country}.", f"This is about {city} and {country}."
    key, check = ("country", number, country), {"contains": [bare(country)]}
    return plain("capital", key, roughen(question, dice), answer, check, thought, place(country))


def capital(dice: Random) -> Exchange:
    country = dice.choice(list(CAPITALS))
    return to_city(country, dice) if dice.random() < 0.6 else to_country(country, dice)


def opening(country: str, dice: Random) -> str:
    """A first question that is itself not held out, for exchanges whose second question counts."""
    while True:
        exchange = to_city(country, dice)
        if not exchange.held_out:
            return str(exchange.messages[0]["content"])


def next_capital(dice: Random) -> Exchange:
    """A second question that only makes sense after the first."""
    (first, first_city), (second, city) = dice.sample(list(CAPITALS.items()), 2)
    follow = dice.choice(["And of {}?", "And {}?", "What about {}?", "And the capital of {}?", "And what about {}?"])
    messages = [user(opening(first, dice)), assistant(f"The capital of {first} is {first_city}.")]
    messages += [user(roughen(follow.format(second), dice)), assistant(f"The capital of {second} is {city}.")]
    thought = f"This is about {city} and {second}."
    key = ("next capital", follow, second)
    return Exchange("capital", key, messages, {"contains": [city]}, thought, place(second))


def colour(dice: Random) -> Exchange:
    if dice.random() < 0.6:
        number = dice.randrange(len(OBJECT))
        thing, shade = dice.choice(list(COLOURS.items()))
        answer = f"{thing[0].upper()}{thing[1:]} is {shade}."
        question, key = OBJECT[number].format(thing), ("thing", number, thing)
        value, thought = {"object": bare(thing), "colour": shade}, f"I think of {thing}."
    else:
        number = dice.randrange(len(MIXTURE))
        pair, shade = dice.choice(list(MIXTURES.items()))
        one, other = dice.sample(pair, 2)
        answer = f"{one.capitalize()} and {other} make {shade}."
        question, key = MIXTURE[number].format(one, other), ("mixture", number, pair)
        value, thought = {"colour": shade}, f"I mix {one} and {other}."
    return plain("colour", key, roughen(question, dice), answer, {"contains": [f" {shade}."]}, thought, value)
