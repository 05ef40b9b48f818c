"""LangChain with langchain-openai."""

from langchain_core.exceptions import ContextOverflowError
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel
from trying import CHAT, EMBED, EMBED_KEY, EMBED_URL, raises, run

chat_model = ChatOpenAI(model=CHAT, max_tokens=16)


class Answer(BaseModel):
    yes: bool


def invoke():
    """invoke"""
    answer = chat_model.invoke("What is Pilotlight?")
    assert answer.content
    assert answer.usage_metadata["output_tokens"] > 0


def stream():
    """stream"""
    assert "".join(str(part.content) for part in chat_model.stream("Hi"))


def batch():
    """batch"""
    assert len(chat_model.batch(["a", "b", "c"])) == 3


def structured():
    """with_structured_output"""
    assert isinstance(ChatOpenAI(model=CHAT, max_tokens=40).with_structured_output(Answer).invoke("Is it?"), Answer)


def prompts():
    """OpenAI, 20 prompts"""
    assert len(OpenAI(model=CHAT, max_tokens=2).generate(["Pilotlight is"] * 20).generations) == 20


def responses():
    """use_responses_api"""
    assert ChatOpenAI(model=CHAT, max_tokens=16, use_responses_api=True, store=False).invoke("Hi").content


def embeddings():
    """OpenAIEmbeddings"""
    found = OpenAIEmbeddings(model=EMBED, base_url=EMBED_URL, api_key=EMBED_KEY, check_embedding_ctx_length=False)
    assert len(found.embed_documents(["a", "b"])) == 2


def overflow():
    """ContextOverflowError"""
    raises(ContextOverflowError, lambda: chat_model.invoke("word " * 3000))


async def many():
    """astream, abatch"""
    assert [part async for part in chat_model.astream("Hi")]
    assert len(await chat_model.abatch(["a", "b"])) == 2


run(invoke, stream, batch, structured, prompts, responses, embeddings, overflow, many)
