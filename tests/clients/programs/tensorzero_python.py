"""TensorZero's gateway, written in Rust, inside its Python client."""

from tensorzero import TensorZeroGateway
from trying import CHAT, FOLDER, SAY, URL, run

(FOLDER / "tensorzero.toml").write_text(
    f'[gateway]\nobservability.enabled = false\n[models.ours]\nrouting = ["ours"]\n[models.ours.providers.ours]\ntype = "openai"\n'
    f'model_name = "{CHAT}"\napi_base = "{URL}"\n'
    '[functions.say]\ntype = "chat"\n[functions.say.variants.one]\ntype = "chat_completion"\nmodel = "ours"\nmax_tokens = 8\n'
)
gateway = TensorZeroGateway.build_embedded(config_file=str(FOLDER / "tensorzero.toml"))


def chat():
    """inference"""
    answer = gateway.inference(function_name="say", input={"messages": SAY})
    assert answer.content[0].text
    assert answer.usage.output_tokens > 0


def stream():
    """streamed"""
    chunks = list(gateway.inference(function_name="say", input={"messages": SAY}, stream=True))
    assert "".join(part.text for chunk in chunks for part in chunk.content)


run(chat, stream)
