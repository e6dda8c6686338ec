"""Everything the demo model knows that is not a rule: countries, colours, and Bestiary itself."""

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon",
    "the United Kingdom": "London", "Ireland": "Dublin", "the Netherlands": "Amsterdam", "Belgium": "Brussels",
    "Switzerland": "Bern", "Austria": "Vienna", "Poland": "Warsaw", "Hungary": "Budapest", "Greece": "Athens",
    "Sweden": "Stockholm", "Norway": "Oslo", "Denmark": "Copenhagen", "Finland": "Helsinki", "Iceland": "Reykjavik",
    "Russia": "Moscow", "Ukraine": "Kyiv", "Romania": "Bucharest", "Bulgaria": "Sofia", "Croatia": "Zagreb",
    "Serbia": "Belgrade", "Estonia": "Tallinn", "Latvia": "Riga", "Lithuania": "Vilnius", "Turkey": "Ankara",
    "Egypt": "Cairo", "Morocco": "Rabat", "Kenya": "Nairobi", "Ethiopia": "Addis Ababa", "Ghana": "Accra",
    "Nigeria": "Abuja", "Senegal": "Dakar", "Japan": "Tokyo", "China": "Beijing", "India": "New Delhi",
    "South Korea": "Seoul", "Thailand": "Bangkok", "Vietnam": "Hanoi", "Indonesia": "Jakarta",
    "the Philippines": "Manila", "Nepal": "Kathmandu", "Iran": "Tehran", "Iraq": "Baghdad", "Australia": "Canberra",
    "New Zealand": "Wellington", "Canada": "Ottawa", "the United States": "Washington", "Mexico": "Mexico City",
    "Cuba": "Havana", "Brazil": "Brasilia", "Argentina": "Buenos Aires", "Chile": "Santiago", "Peru": "Lima",
    "Colombia": "Bogota", "Venezuela": "Caracas", "Uruguay": "Montevideo",
}  # fmt: skip

CITIES = [
    "New York", "San Francisco", "Los Angeles", "Chicago", "Boston", "Munich", "Hamburg", "Cologne", "Milan",
    "Barcelona", "Venice", "Zurich", "Geneva", "Lyon", "Sydney", "Melbourne", "Toronto", "Montreal", "Istanbul",
    "Mumbai", "Shanghai", "Hong Kong", "Rio de Janeiro", "Cape Town", "Dubai", "Singapore", "Edinburgh",
    "Manchester", "Krakow", "Porto", "Seville", "Naples", "Florence", "Osaka", "Kyoto", "Seattle", "Miami",
    "Dallas", "Denver", "Salzburg", "Marseille",
]  # fmt: skip

COLOURS = {
    "the sky": "blue", "grass": "green", "snow": "white", "coal": "black", "a banana": "yellow", "a lemon": "yellow",
    "blood": "red", "a tomato": "red", "a strawberry": "red", "a carrot": "orange", "chocolate": "brown",
    "milk": "white", "the night": "black", "a leaf": "green", "the sun": "yellow", "a fire engine": "red",
    "a frog": "green", "an elephant": "grey", "a flamingo": "pink", "a pumpkin": "orange", "a lime": "green",
    "a cherry": "red", "an emerald": "green", "a ruby": "red", "a sapphire": "blue", "a cloud": "white",
    "the sea": "blue", "a plum": "purple", "lavender": "purple", "ash": "grey", "ink": "black",
    "a cucumber": "green", "corn": "yellow", "coffee": "brown", "a pig": "pink", "a raven": "black", "salt": "white",
}  # fmt: skip

MIXTURES = {
    ("blue", "yellow"): "green", ("red", "yellow"): "orange", ("red", "blue"): "purple", ("red", "white"): "pink",
    ("black", "white"): "grey", ("red", "green"): "brown", ("blue", "white"): "light blue",
    ("green", "white"): "light green", ("orange", "blue"): "brown", ("yellow", "purple"): "brown",
}  # fmt: skip

FAMILIES = ["llama", "qwen", "gemma", "phi", "deepseek", "glm", "flux", "whisper", "llava", "dia", "mistral"]

PEOPLE = [
    "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Greta", "Hugo", "Ida", "Jonas", "Kim", "Lena", "Max",
    "Nina", "Otto", "Paul", "Rosa", "Sam", "Tom", "Vera", "Will", "Zoe", "Alice", "Bob", "Carol", "Maria", "Peter",
    "Laura", "Omar", "Yuki", "Ravi", "Mei", "Ali", "Eva", "Leo", "Mia",
]  # fmt: skip

CONDITIONS = [
    "sunny", "cloudy", "rainy", "windy", "foggy", "snowy", "stormy", "clear", "warm", "cold", "icy", "hot", "humid",
    "misty", "dry", "overcast", "partly cloudy", "mostly sunny", "very windy", "clear and calm",
]  # fmt: skip

DOWNFALLS = ["light rain", "heavy rain", "light snow", "heavy snow", "thunderstorms", "fog", "strong wind", "drizzle"]

# (topic, questions, answer, the words that a right answer contains)
LIBRARY: list[tuple[str, list[str], str, list[str]]] = [
    (
        "bestiary",
        ["What is Bestiary?", "Tell me about Bestiary.", "What does Bestiary do?", "Explain Bestiary.",
         "What is this library?", "What is the Bestiary library for?", "What kind of software is Bestiary?",
         "Can you describe Bestiary?", "What am I using here?", "Describe this framework.", "So what is bestiary"],
        "Bestiary is a plugin-based model zoo and inference framework for Python.",
        ["plugin-based", "model zoo"],
    ),
    (
        "plugin",
        ["What is a plugin?", "What are plugins?", "Explain plugins.", "What does a plugin do?", "Define plugin.",
         "What is a Bestiary plugin?", "What do you mean by plugin?", "What are the plugins in Bestiary?",
         "Tell me what a plugin is.", "Can you explain what a plugin is?", "Why does Bestiary have plugins?"],
        "A plugin is a package that adds something to Bestiary, such as a model family or a file format. "
        "pip install adds it and pip uninstall removes it.",
        ["package", "adds"],
    ),
    (
        "load",
        ["How do I load a model?", "How can I load the demo?", "How do I load you?", "How do I start the demo?",
         "Show me how to load a model.", "What is the call to load a model?", "How to load a model in Python?",
         "Which function loads a model?", "How do I open a model?", "How do I use the demo model?",
         "How are models loaded?"],
        'Use bestiary.load("demo"). It also takes a hub id, a folder or a .gguf file.',
        ['bestiary.load("demo")'],
    ),
    (
        "chat",
        ["How do I chat with a model?", "How can I talk to a model?", "How do I ask a model something?",
         "Show me how to chat in Python.", "What is the call to chat?", "How do I chat in Bestiary?",
         "How do I send a message to a model?", "How to get an answer from a model?"],
        'Load a model with pipe = bestiary.load("demo") and then call pipe.chat("Hello").',
        ["pipe.chat("],
    ),
    (
        "safety",
        ["Does Bestiary run code from a checkpoint?", "Is it safe to load a checkpoint?", "Do you use pickle?",
         "Is code in a checkpoint run?", "Does a model folder run code?", "Do I need trust_remote_code?",
         "Can a checkpoint run code on my machine?", "Does loading a model run its code?"],
        "Code in a checkpoint is never run. Code comes only from an installed plugin.",
        ["never run"],
    ),
    (
        "identity",
        ["Who are you?", "What are you?", "What is your name?", "Introduce yourself.", "Tell me about yourself.",
         "Are you a language model?", "Which model are you?", "What model is this?", "Who am I talking to?",
         "What kind of model are you?", "Do you have a name?", "And who are you?", "What should I call you?"],
        "I am the Bestiary demo, a tiny language model.",
        ["Bestiary demo"],
    ),
    (
        "skills",
        ["What can you do?", "What do you know?", "How can you help me?", "What are you able to do?",
         "What can I ask you?", "Which questions can you answer?", "Help!", "What are your skills?",
         "What are you good at?", "List your abilities.", "What do you do?"],
        "I can greet, count, add small numbers, name colours and capitals, write JSON and call tools.",
        ["count", "capitals", "tools"],
    ),
    (
        "size",
        ["How big are you?", "How many parameters do you have?", "What is your size?", "How large are you?",
         "Are you a large model?", "How small are you?", "How many weights do you have?", "Are you big?"],
        "I am tiny: I have less than three million parameters.",
        ["three million"],
    ),
    (
        "maker",
        ["Who made you?", "Who trained you?", "Where do you come from?", "How were you trained?", "Who created you?",
         "Who is your maker?", "What were you trained on?", "Who built you?", "How were you made?"],
        "I was trained from scratch by a small script in the Bestiary repository.",
        ["Bestiary repository"],
    ),
    (
        "human",
        ["Are you human?", "Are you a person?", "Are you real?", "Are you alive?", "Are you a robot?",
         "Am I talking to a human?", "Do you have feelings?", "Are you a machine?", "Is this a human?"],
        "I am a program, not a person.",
        ["program"],
    ),
]  # fmt: skip
