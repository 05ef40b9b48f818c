// The OpenAI Agents SDK for JavaScript.
import { Agent, run as ask, setTracingDisabled, tool } from '@openai/agents'
import { OpenAIProvider, Runner, setDefaultOpenAIClient } from '@openai/agents'
import OpenAI from 'openai'
import { z } from 'zod'
import { WIDE, WIDE_KEY, WIDE_URL, need, run } from './trying.mjs'

setTracingDisabled(true)
setDefaultOpenAIClient(new OpenAI({ baseURL: WIDE_URL, apiKey: WIDE_KEY }))
const weather = tool({
  name: 'weather', description: 'The weather of a city.', parameters: z.object({ city: z.string() }), execute: async ({ city }) => `it rains in ${city}`,
})
const agent = new Agent({ name: 'one', instructions: 'Be short.', model: WIDE, modelSettings: { maxTokens: 400, store: false }, tools: [weather] })
const chats = new Runner({ modelProvider: new OpenAIProvider({ useResponses: false }), tracingDisabled: true })

await run({
  'default model (Responses API), with a tool': async () => need((await ask(agent, 'What is Pilotlight?')).finalOutput, 'no output'),
  'its stream': async () => {
    const answer = await ask(agent, 'What is Pilotlight?', { stream: true })
    let events = 0
    for await (const _ of answer) events += 1
    await answer.completed
    need(events > 2 && answer.finalOutput, 'no output')
  },
  'chat completions, with a tool': async () => need((await chats.run(agent, 'What is Pilotlight?')).finalOutput, 'no output'),
  'its stream, chat completions': async () => {
    const answer = await chats.run(agent, 'What is Pilotlight?', { stream: true })
    for await (const _ of answer);
    await answer.completed
    need(answer.finalOutput, 'no output')
  },
})
