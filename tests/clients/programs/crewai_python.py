"""CrewAI."""

from crewai import LLM, Agent, Crew, Task
from trying import WIDE, WIDE_KEY, WIDE_URL, run


def llm(**options):
    return LLM(model=f"openai/{WIDE}", base_url=WIDE_URL, api_key=WIDE_KEY, max_tokens=24, **options)


def call():
    """LLM.call, streamed too"""
    assert llm().call("What is Pilotlight?")
    assert llm(stream=True).call("What is Pilotlight?")


def crew():
    """a crew of one"""
    agent = Agent(role="Teller", goal="Tell", backstory="You tell.", llm=llm(), max_iter=2)
    task = Task(description="What is Pilotlight?", expected_output="a sentence", agent=agent)
    assert Crew(agents=[agent], tasks=[task]).kickoff().raw


run(call, crew)
