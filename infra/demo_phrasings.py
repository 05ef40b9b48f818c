"""How people ask the same question: near phrasings, on which the demo model is trained beside the questions themselves.

A phrasing differs by case, punctuation, politeness, a swapped word or a slip of the keyboard. Chance is an argument, so
that one seed gives one model.
"""

from __future__ import annotations

import random

SYSTEM_PROMPTS = [
    "You are a helpful assistant.",
    "You are a helpful, concise assistant.",
    "You are the demo model of Pilotlight.",
    "You are a friendly chatbot that answers questions.",
    "Answer in one sentence.",
    "Answer briefly.",
    "Be brief and polite.",
    "Answer the question of the user as well as you can.",
]
GREETINGS = ["hey,", "hi,", "hi!", "hello,", "hello!"]
OPENINGS = [
    "please tell me",
    "can you tell me",
    "tell me",
    "so,",
    "ok,",
    "I want to know:",
    "please:",
    "question:",
    *GREETINGS,
]
CLOSINGS = ["please", "thanks", "exactly", "then", "in Pilotlight", "in short"]
SWAPS = [
    ("What is", "What's"),
    ("What is", "what exactly is"),
    ("What is", "explain"),
    ("What does", "what did"),
    ("How do I", "How can I"),
    ("How do I", "how to"),
    ("How can I", "How do I"),
    ("Where do I", "where can I"),
    ("Can I", "May I"),
    ("Can I", "is it possible to"),
    ("What happens", "what will happen"),
    ("Which", "what"),
    ("Define", "what is meant by"),
    ("Explain", "please explain"),
    ("Pilotlight", "it"),
    ("Pilotlight", "this"),
    (" the ", " "),
    (" a ", " "),
    (" an ", " a "),
    ("pilotlight ", ""),
]


def vary(question: str, dice: random.Random) -> str:
    """A near phrasing of `question`: what a person might have typed instead. About a quarter come back as they are."""
    if dice.random() < 0.25:
        return question
    if dice.random() < 0.35:
        before, after = dice.choice(SWAPS)
        question = question.replace(before, after, 1)
    if dice.random() < 0.25:
        question = f"{dice.choice(OPENINGS)} {question}"
    if dice.random() < 0.3:
        question = question.rstrip("?.!")
    if dice.random() < 0.1:
        question = f"{question.rstrip('?.!')} {dice.choice(CLOSINGS)}{dice.choice(['?', ''])}"
    if len(question) > 12 and dice.random() < 0.15:  # a slip in a short one makes another word of it: hello, help
        question = _slip(question, dice)
    return _recase(question, dice)


def _slip(text: str, dice: random.Random) -> str:
    """One slip of the keyboard: a letter lost, doubled or swapped with its neighbour."""
    at = dice.randrange(max(1, len(text) - 1))
    edits = [
        text[:at] + text[at + 1 :],
        text[:at] + text[at : at + 1] + text[at:],
        text[:at] + text[at : at + 2][::-1] + text[at + 2 :],
    ]
    return dice.choice(edits)


def _recase(text: str, dice: random.Random) -> str:
    chance = dice.random()
    if chance < 0.4:
        return text.lower()
    return text[:1].upper() + text[1:] if chance < 0.7 else text
