"""How the quickstart's sources ask. The tasks have wordings of their own, which are none of these."""

# around any question
FRAMES = ("{}?", "please answer: {}?", "tell me, {}?", "question: {}?")
ADD = (
    "what is {} plus {}",
    "what is the sum of {} and {}",
    "how much are {} and {} together",
    "how much is {} more than {}",
)
SUBTRACT = (
    "what is {} minus {}",
    "how much is left of {} without {}",
    "what remains of {} after {} go",
    "from {} take {}, what is left",
)
FACT = ("what is the {} of {}", "which {} has {}", "can you name the {} of {}", "do you know the {} of {}")
KIND = ("what kind of animal is a {}", "what is a {}", "which kind is a {}", "do you know what a {} is")
TRAIT = (  # in the order of TRAIT_VERBS
    ("where do {} live", "what is the home of {}"),
    ("what do {} eat", "what is the food of {}"),
    ("what are {} covered in", "what covers {}"),
    ("how do {} move", "what is the way of {} to move"),
)
