"""Small talk, questions about the model and the library, and honest answers to everything else."""

from random import Random
from typing import Any

from exchange import Exchange, assistant, invented_name, plain, roughen, user
from facts import FAMILIES, LIBRARY, PEOPLE

HONEST = "I am a tiny demo model and do not know that."

GREETINGS = ["Hello", "Hi", "Hey", "Good morning", "Good evening", "Good afternoon", "Hi there", "Hello there",
             "Hey there", "Greetings", "Good day", "Howdy", "Hello again", "Hi again", "Nice to meet you"]  # fmt: skip
THANKS = ["Thanks", "Thank you", "Thank you very much", "Thanks a lot", "Many thanks", "Thanks for your help",
          "Thank you for the answer", "Great, thanks", "Perfect, thank you", "Cool, thanks", "Thx", "OK, thank you",
          "That helps, thanks", "Cheers, thanks", "Thanks so much"]  # fmt: skip
GOODBYES = ["Goodbye", "Bye", "Bye bye", "See you", "See you later", "Good night", "Have a nice day", "I have to go",
            "Farewell", "Until tomorrow", "See you tomorrow", "OK, bye", "Goodbye then", "I am leaving now",
            "That is all, bye"]  # fmt: skip
WELLBEING = ["How are you", "How are you doing", "How do you do", "How is it going", "Are you well",
             "How are you today",
             "How do you feel", "All good", "What is up", "How have you been"]  # fmt: skip
COURTESIES = {
    "greeting": (GREETINGS, "Hello! How can I help you?", "Hello", "The user greets me."),
    "thanks": (THANKS, "You are welcome!", "welcome", "The user thanks me."),
    "goodbye": (GOODBYES, "Goodbye! Have a nice day.", "Goodbye", "The user says goodbye."),
    "wellbeing": (WELLBEING, "I am fine, thank you.", "fine", "The user asks how I am."),
}
ENDINGS = ["", "!", ".", " :)", ", model", ", friend", ", Bestiary", " demo", ", my friend", "!!", " bot", "?"]

INSTALL = ["How do I install {}?", "How do I install the {} family?", "How can I add {} models?", "I want to run {}.",
           "How do I get {} models?", "What do I install for {}?", "Install {}", "Which package has {}?",
           "How to install {}?", "How do I add the {} plugin?", "Where do I find {}?", "I need the {} plugin.",
           "How do I install a {} model?", "Which command installs {}?"]  # fmt: skip
REMOVE = ["How do I uninstall {}?", "How do I remove {}?", "How can I remove the {} plugin?", "Uninstall {}",
          "How do I get rid of {}?", "Which command removes {}?"]  # fmt: skip
FAMILY = ["How do I install a model family?", "How can I add a model family?", "How do I install a plugin?",
          "How do I add models?", "How to install a family of models?", "How are plugins installed?",
          "How do I get more models?", "Which command installs a plugin?"]  # fmt: skip

UNKNOWN = ["Who wrote {}?", "When was {} built?", "Who invented {}?", "How does {} work?", "Why is {} so famous?",
           "What do you think about {}?", "Explain {}.", "Write a poem about {}.", "Tell me a story about {}.",
           "How old is {}?", "How much does {} cost?", "Where can I buy {}?", "Who won {}?", "Is {} dangerous?",
           "What is the history of {}?", "Write an essay about {}.", "Translate {} into Spanish.", "What is {}?",
           "Give me a recipe for {}.", "How tall is {}?", "How do I repair {}?", "Summarise {}.", "What is inside {}?",
           "Who owns {}?", "When did {} end?", "Can you sing {}?", "How many people know {}?", "Draw {}.",
           "Prove {}.", "What happened in {}?", "Who is the president of {}?", "How far away is {}?"]  # fmt: skip
SUBJECTS = ["Hamlet", "the Eiffel Tower", "the telephone", "gravity", "quantum physics", "football", "the world cup",
            "the moon", "a bicycle", "a computer", "the Roman Empire", "photosynthesis", "bread", "the piano", "jazz",
            "the internet", "a black hole", "the stock market", "electricity", "Mars", "chess", "the French revolution",
            "a car", "tomato soup", "the Mona Lisa", "the pyramids", "love", "the ocean floor", "a volcano",
            "Shakespeare",
            "the Great Wall", "Einstein", "a sonnet", "history", "evolution", "an engine", "a guitar", "music",
            "the universe", "Napoleon", "a violin", "philosophy", "a dinosaur", "the theorem of Pythagoras", "tea",
            "mathematics", "the Bible", "cheese", "a rocket", "Mozart", "the war", "a cat", "dogs", "DNA", "the brain",
            "climate change", "a pizza", "politics", "a house", "the Olympic games", "Python", "a robot"]  # fmt: skip
WISHES = ["Tell me a joke.", "Sing a song.", "Write a haiku.", "Write a poem.", "Tell me a story.", "What day is it?",
          "What is the date today?", "What is your favourite food?", "Do you like music?", "Write some code.",
          "What is the meaning of life?", "Give me some advice.", "What is the news?", "Make me laugh.",
          "Who is the king?",
          "Which film should I watch?", "What should I eat today?", "Once upon a time", "Is there life on Mars?",
          "Write a function that sorts a list.", "How do I get rich?", "Where do you live?", "What is love?",
          "Recommend a book.", "Who will win?", "Play a game with me.", "What time is it?", "Draw a picture.",
          "Can you dance?", "What is the best language?", "Tell me something new.", "Fix my program."]  # fmt: skip
WEATHER_QUESTIONS = ["What is the weather in {}?", "How is the weather in {}?", "Is it raining in {}?",
                     "Weather in {}?",
                     "How warm is it in {}?", "What is the temperature in {}?", "Is it cold in {}?",
                     "How is the weather in {} today?", "What's the weather in {}?", "Is it sunny in {}?"]  # fmt: skip


def courtesy(dice: Random) -> Exchange:
    phrases, answer, word, thought = dice.choice(list(COURTESIES.values()))
    phrase, ending = dice.choice(phrases), dice.choice(ENDINGS)
    check = {"contains": [word]}
    return plain("talk", (phrase, ending), roughen(phrase + ending, dice), answer, check, thought)


def library(dice: Random) -> Exchange:
    draw = dice.random()
    if draw < 0.25:
        family, number = dice.choice(FAMILIES), dice.randrange(len(INSTALL))
        name = family if dice.random() < 0.5 else family.capitalize()
        answer, thought = f"Run: pip install bestiary-{family}", f"This is about installing {family}."
        check = {"contains": [f"pip install bestiary-{family}"]}
        question = roughen(INSTALL[number].format(name), dice)
        return plain("library", ("install", number, family), question, answer, check, thought)
    if draw < 0.33:
        family, number = dice.choice(FAMILIES), dice.randrange(len(REMOVE))
        answer, thought = f"Run: pip uninstall bestiary-{family}", f"This is about removing {family}."
        check = {"contains": [f"pip uninstall bestiary-{family}"]}
        question = roughen(REMOVE[number].format(family), dice)
        return plain("library", ("remove", number, family), question, answer, check, thought)
    if draw < 0.40:
        question = dice.choice(FAMILY)
        opening = dice.choice(["", "Please tell me. ", "I am new here. ", "Hello. ", "In Bestiary: ", "Sorry, "])
        answer = "Run pip install with its package, for example: pip install bestiary-llama"
        check = {"contains": ["pip install bestiary-llama"]}
        thought = "This is about installing plugins."
        key = ("family", question, opening)
        return plain("library", key, roughen(opening + question, dice), answer, check, thought)
    topic, questions, answer, words = dice.choice(LIBRARY)
    question = dice.choice(questions)
    opening = dice.choice(["", "", "Please tell me. ", "I am new here. ", "Hello. ", "OK. ", "Sorry, ", "Hi! "])
    kind = "library" if topic in ("bestiary", "plugin", "load", "chat", "safety") else "identity"
    thought = "This is about Bestiary." if kind == "library" else "This is about me."
    return plain(kind, (question, opening), roughen(opening + question, dice), answer, {"contains": words}, thought)


def name(dice: Random) -> Exchange:
    """The user's name, told and asked back: the answer stands in the dialogue, not in the weights."""
    person = dice.choice(PEOPLE) if dice.random() < 0.5 else invented_name(dice)
    told = dice.choice(["My name is {}.", "I am {}.", "Call me {}.", "Hello, I am {}.", "Hi, my name is {}."])
    asked = dice.choice(["What is my name?", "Who am I?", "Do you remember my name?", "What am I called?"])
    messages = [user(told.format(person)), assistant(f"Nice to meet you, {person}!")]
    messages += [user(roughen(asked, dice)), assistant(f"Your name is {person}.")]
    thought, value = f"The user said the name {person}.", {"name": person}
    return Exchange("name", ("name", told, asked, person), messages, {"contains": [person]}, thought, value)


def unknown(dice: Random) -> Exchange:
    if dice.random() < 0.12:
        place = invented_name(dice)
        question = dice.choice(["What is the capital of {}?", "Capital of {}?", "Which country is {} in?"])
        key: tuple[Any, ...] = ("nowhere", question, place)
        question = question.format(place)
    elif dice.random() < 0.25:
        wish, opening = dice.choice(WISHES), dice.choice(["", "", "Please. ", "OK. ", "Hello. ", "Now: ", "And then: "])
        key, question = ("wish", wish, opening), opening + wish
    else:
        number, subject = dice.randrange(len(UNKNOWN)), dice.choice(SUBJECTS)
        key = ("unknown", number, subject)
        question = UNKNOWN[number].format(subject)
    thought = "I know nothing about this."
    return plain("unknown", key, roughen(question, dice), HONEST, {"contains": ["do not know"]}, thought)


def no_weather(dice: Random, city: str) -> Exchange:
    """The weather, asked where no tool for it is offered."""
    question = dice.choice(WEATHER_QUESTIONS)
    answer = "I have no tool to look up the weather."
    thought = "There is no weather tool."
    key = ("no weather", question, city)
    return plain("unknown", key, roughen(question.format(city), dice), answer, {"contains": ["no tool"]}, thought)
