// Langfuse's wrapper of OpenAI's client: what it would tell Langfuse is collected here.
import { observeOpenAI } from '@langfuse/openai'
import { InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base'
import { NodeTracerProvider } from '@opentelemetry/sdk-trace-node'
import OpenAI from 'openai'
import { CHAT, SAY, need, run } from './trying.mjs'

const told = new InMemorySpanExporter()
new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(told)] }).register()
const client = observeOpenAI(new OpenAI())
const usage = () => JSON.stringify(told.getFinishedSpans().at(-1).attributes)

await run({
  'chat, its usage': async () => {
    const answer = await client.chat.completions.create({ model: CHAT, messages: SAY, max_tokens: 8 })
    need(answer.choices[0].message.content && usage().includes('usage'), 'no content, or no usage')
  },
  stream: async () => {
    const asked = { model: CHAT, messages: SAY, max_tokens: 8, stream: true, stream_options: { include_usage: true } }
    let chunks = 0
    for await (const _ of await client.chat.completions.create(asked)) chunks += 1
    need(chunks > 2 && usage().includes('usage'), 'no chunks, or no usage')
  },
})
