"""Trains the demo model: a real, tiny Llama that answers questions about Pilotlight.

`pilotlight demo` and the integration tests need a model that the real engine loads, that gives answers a test can
check, and that needs no download. So this script makes one, in minutes on two cores, from the questions and answers of
`snapshots/demo/questions.jsonl` alone. It writes a standard Hugging Face folder of less than 8 MB. It serves no step of
a request: nothing imports it, people run it.

What it must survive is the engine. The model is trained on exactly the text that its chat template renders. It is
judged after the cast to bfloat16, by greedy decoding: what the script prints at its end is what vLLM will answer. The
questions are varied on the way (`demo_phrasings.py`, a system message, an earlier turn), so that near phrasings work
too.

    python -m infra.train_demo [--out DIR] [--seed N] [--epochs N]
"""

import argparse
import json
import math
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from infra.demo_phrasings import SYSTEM_PROMPTS, vary

DEMO = Path(__file__).resolve().parent.parent / "snapshots" / "demo"

END, PAD, SYSTEM, USER, ASSISTANT = "<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>"
SPECIAL = [END, PAD, SYSTEM, USER, ASSISTANT]
END_ID, PAD_ID = SPECIAL.index(END), SPECIAL.index(PAD)  # the trainer numbers special tokens first, in order
IGNORED = -100  # torch's label for "no loss here"

# No newline between the parts: a special token always ends a word, so prompt and answer tokenize alike whether joined
# or apart.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}{{- '<|assistant|>' -}}
{%- elif message['role'] in ['system', 'developer'] -%}{{- '<|system|>' -}}
{%- else -%}{{- '<|user|>' -}}
{%- endif -%}
{{- (message['content'] or '') | trim -}}{{- '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""


@dataclass(frozen=True)
class Pair:
    """One question and the answer that belongs to it, word for word."""

    question: str
    answer: str


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out, so that one seed gives one model on one kind of machine."""

    seed: int = 7
    epochs: int = 40
    batch: int = 16
    peak_rate: float = 2e-3
    warmup: float = 0.05
    vocabulary: int = 2048
    threads: int = 2


@dataclass(frozen=True)
class Example:
    """Token ids and, of the same length, the labels: `IGNORED` wherever the model is not to be judged."""

    ids: list[int]
    labels: list[int]


def read_pairs(path: Path) -> list[Pair]:
    """The pairs of a JSON Lines file, in its order."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Pair(question=row["question"], answer=row["answer"]) for row in rows]


def build_tokenizer(pairs: Sequence[Pair], recipe: Recipe) -> PreTrainedTokenizerFast:
    """A byte-level BPE: it has a token for every byte, so no prompt of any caller is unknown to it."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        min_frequency=2,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_corpus(pairs), trainer)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call, unused-ignore]
        tokenizer_object=core,
        eos_token=END,
        pad_token=PAD,
        model_max_length=1024,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _corpus(pairs: Sequence[Pair]) -> Iterator[str]:
    for pair in pairs:
        yield pair.question
        yield pair.question.lower()
    yield from dict.fromkeys(pair.answer for pair in pairs)
    yield from SYSTEM_PROMPTS


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama small enough for a repository, in a shape (head size 64, grouped heads) that every engine has kernels
    for.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=END_ID,
        pad_token_id=PAD_ID,
    )
    return LlamaForCausalLM(config)  # type: ignore[no-untyped-call, unused-ignore]


def compose(pair: Pair, *, pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerFast, dice: random.Random) -> Example:
    """One training text for `pair`: mostly a bare chat, at times after a system message or an earlier turn, rarely
    plain text.

    The plain texts are for `/v1/completions`, which uses no chat template: a prompt there is a question, or how an
    answer begins.
    """
    chance = dice.random()
    if chance < 0.08:
        return _judged(pair.answer if chance < 0.04 else f"{pair.question} {pair.answer}", tokenizer=tokenizer)
    messages: list[dict[str, str]] = []
    if chance < 0.23:
        messages.append({"role": "system", "content": dice.choice(SYSTEM_PROMPTS)})
    if 0.18 < chance < 0.33:
        earlier = dice.choice(pairs)
        messages += [{"role": "user", "content": earlier.question}, {"role": "assistant", "content": earlier.answer}]
    messages.append({"role": "user", "content": vary(pair.question, dice)})
    prompt = encode_prompt(messages, tokenizer)
    judged = _judged(pair.answer, tokenizer=tokenizer)
    return Example(ids=prompt + judged.ids, labels=[IGNORED] * len(prompt) + judged.labels)


def _judged(answer: str, *, tokenizer: PreTrainedTokenizerFast) -> Example:
    ids: list[int] = tokenizer.encode(answer + END, add_special_tokens=False)
    return Example(ids=ids, labels=list(ids))


def encode_prompt(messages: list[dict[str, str]], tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Token ids of a chat up to where the answer begins, as an engine would make them."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer.encode(str(text), add_special_tokens=False)
    return ids


def batches(examples: list[Example], *, size: int, dice: random.Random) -> list[list[Example]]:
    """Shuffled batches of examples of like length: padding is work that teaches nothing."""
    dice.shuffle(examples)
    ordered: list[Example] = []
    for start in range(0, len(examples), size * 8):
        ordered += sorted(examples[start : start + size * 8], key=lambda example: len(example.ids))
    cut = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    dice.shuffle(cut)
    return cut


def loss_of(model: LlamaForCausalLM, batch: Sequence[Example]) -> torch.Tensor:
    """Mean cross entropy of the judged tokens. Padding is on the right, where causal attention cannot see it."""
    width = max(len(e.ids) for e in batch)
    ids = torch.tensor([e.ids + [PAD_ID] * (width - len(e.ids)) for e in batch])
    labels = torch.tensor([e.labels + [IGNORED] * (width - len(e.labels)) for e in batch])
    logits = model(input_ids=ids, use_cache=False).logits
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)


def rate_at(progress: float, recipe: Recipe) -> float:
    """Learning rate at `progress` in 0..1: a linear rise, then half a cosine down to nothing."""
    if progress < recipe.warmup:
        return recipe.peak_rate * progress / recipe.warmup
    return recipe.peak_rate * 0.5 * (1 + math.cos(math.pi * (progress - recipe.warmup) / (1 - recipe.warmup)))


def train(
    model: LlamaForCausalLM, *, pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerFast, recipe: Recipe
) -> None:
    """Trains `model` in place, in float32; every epoch sees every pair once, each time varied anew."""
    dice = random.Random(recipe.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.peak_rate, betas=(0.9, 0.95), weight_decay=0.05)
    model.train()
    started = time.monotonic()
    for epoch in range(recipe.epochs):
        examples = [compose(pair, pairs=pairs, tokenizer=tokenizer, dice=dice) for pair in pairs]
        cut = batches(examples, size=recipe.batch, dice=dice)
        total = 0.0
        for index, batch in enumerate(cut):
            for group in optimizer.param_groups:
                group["lr"] = rate_at((epoch + (index + 1) / len(cut)) / recipe.epochs, recipe)
            loss = loss_of(model, batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total += loss.item()
        say(f"epoch {epoch + 1}/{recipe.epochs}  loss {total / len(cut):.4f}  {time.monotonic() - started:.0f} s")


@torch.inference_mode()
def answer_all(model: LlamaForCausalLM, questions: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """Greedy answers to `questions`, each asked alone. An answer that did not stop by itself comes back as an empty
    string.
    """
    model.eval()  # type: ignore[no-untyped-call, unused-ignore]
    answers: dict[int, str] = {}
    prompts = [encode_prompt([{"role": "user", "content": question}], tokenizer) for question in questions]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for start in range(0, len(order), 64):
        chunk = order[start : start + 64]
        for index, ids in zip(chunk, decode_greedily([prompts[i] for i in chunk], model), strict=True):
            answers[index] = str(tokenizer.decode(ids, skip_special_tokens=True)) if ids else ""
    return [answers[index] for index in range(len(questions))]


def decode_greedily(prompts: list[list[int]], model: LlamaForCausalLM, *, limit: int = 256) -> list[list[int]]:
    """Greedy token ids after each prompt, the end token left out; empty where `limit` came before the end."""
    width = max(map(len, prompts))
    ids = torch.tensor([[PAD_ID] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    made = model.generate(  # type: ignore[misc, unused-ignore]
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=limit,
        do_sample=False,
        eos_token_id=END_ID,
        pad_token_id=PAD_ID,
    )
    rows: list[list[int]] = made[:, width:].tolist()
    return [row[: row.index(END_ID)] if END_ID in row else [] for row in rows]


def exact_rate(model: LlamaForCausalLM, pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerFast) -> float:
    """The share of pairs whose question gets its answer, letter for letter and stopped by the end token."""
    given = answer_all(model, [pair.question for pair in pairs], tokenizer)
    for pair, answer in zip(pairs, given, strict=True):
        if answer != pair.answer:
            say(f"  not exact: {pair.question!r} -> {answer!r}")
    return sum(answer == pair.answer for pair, answer in zip(pairs, given, strict=True)) / len(pairs)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Writes a plain Hugging Face folder: safetensors and JSON, no code, and no path of this machine."""
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    _make_portable(out)
    # A model this small is sure of its answers only near greedy decoding; a caller's own temperature still wins.
    generation = {
        "do_sample": True,
        "temperature": 0.1,
        "eos_token_id": END_ID,
        "pad_token_id": PAD_ID,
    }
    (out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")


def _make_portable(out: Path) -> None:
    """Undoes what only the newest transformers reads, and the private file mode that a standby under another user could
    not open.
    """
    path = out / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config.pop("backend", None)
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for file in out.iterdir():
        file.chmod(0o644)


def say(line: str) -> None:
    """Progress goes to stderr, as everywhere in Pilotlight."""
    print(line, file=sys.stderr, flush=True)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line: every flag has a default that gives the model in the repository."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.train_demo", description="Train the demo model of Pilotlight."
    )
    parser.add_argument(
        "--out", type=Path, default=DEMO / "model", help="folder to write (default: snapshots/demo/model)"
    )
    parser.add_argument(
        "--seed", type=int, default=Recipe.seed, help="seed of the weights and of the variations (default: %(default)s)"
    )
    parser.add_argument(
        "--epochs", type=int, default=Recipe.epochs, help="times that every pair is seen (default: %(default)s)"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, casts, judges and saves; exits with 1 when fewer than 95 % of the answers are exact."""
    chosen = arguments(argv)
    recipe = Recipe(seed=chosen.seed, epochs=chosen.epochs)
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(min(recipe.threads, os.cpu_count() or 1))
    pairs = read_pairs(DEMO / "questions.jsonl")
    tokenizer = build_tokenizer(pairs, recipe)
    model = build_model(tokenizer)
    say(f"{len(pairs)} pairs, {len(tokenizer)} tokens, {model.num_parameters():,} parameters")
    train(model, pairs=pairs, tokenizer=tokenizer, recipe=recipe)
    model = model.to(torch.bfloat16)  # type: ignore[arg-type, unused-ignore]
    rate = exact_rate(model, pairs, tokenizer)
    dice = random.Random(recipe.seed + 1)
    varied = [Pair(question=vary(pair.question, dice), answer=pair.answer) for pair in pairs]
    near = exact_rate(model, varied, tokenizer)
    save(model, tokenizer, chosen.out)
    print(f"exact match {rate:.1%}, on varied questions {near:.1%}")
    return 0 if rate >= 0.95 else 1


if __name__ == "__main__":
    sys.exit(main())
