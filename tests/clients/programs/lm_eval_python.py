"""EleutherAI's evaluation harness, by its command line: log-probabilities of prompts, and generation."""

import json

from trying import BIN, FOLDER, MODEL_FOLDER, WIDE, WIDE_KEY, WIDE_URL, out, run

ROWS = [{"text": f"Question {number}: is Pilotlight serverless? Answer:", "right": number % 2} for number in range(40)]
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{text}}}}"
doc_to_target: "{{{{right}}}}"
"""
CHOICE = 'doc_to_choice: [" yes", " no"]\nmetric_list: [{metric: acc}]\n'
GENERATE = 'generation_kwargs: {until: ["\\n", "\\ndef", "\\nclass", "\\n#", "\\nif", "\\nprint"], max_gen_toks: 4}\nmetric_list: [{metric: exact_match}]\n'
(FOLDER / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
for name, kind, rest in (("choice", "multiple_choice", CHOICE), ("saying", "generate_until", GENERATE)):
    (FOLDER / f"{name}.yaml").write_text(TASK.format(name=name, kind=kind, rows=FOLDER / "rows.jsonl") + rest)


def evaluate(model, task, *options, path="completions", at=""):
    given = f"model={WIDE},base_url={WIDE_URL}/{path},tokenizer={MODEL_FOLDER},max_retries=1{at}"
    told = ("--tasks", task, "--include_path", FOLDER, "--output_path", FOLDER / "found")
    out(BIN / "lm_eval", "--model", model, "--model_args", given, *told, *options, OPENAI_API_KEY=WIDE_KEY)


def choice():
    """local-completions, loglikelihood"""
    evaluate("local-completions", "choice", "--batch_size", "32")


def at_once():
    """num_concurrent=4"""
    evaluate("local-completions", "choice", at=",num_concurrent=4")


def saying():
    """generate_until"""
    evaluate("local-completions", "saying", "--batch_size", "16")


def chat():
    """local-chat-completions"""
    evaluate(
        "local-chat-completions", "saying", "--apply_chat_template", path="chat/completions", at=",num_concurrent=2"
    )


run(choice, at_once, saying, chat)
