// The OpenAI client for Node.
import OpenAI from 'openai'
import { CHAT, EMBED, EMBED_KEY, EMBED_URL, LONG, SAY, need, raises, run } from './trying.mjs'

const client = new OpenAI() // OPENAI_BASE_URL, OPENAI_API_KEY, NODE_EXTRA_CA_CERTS

await run({
  chat: async () => {
    const answer = await client.chat.completions.create({ model: CHAT, messages: SAY, max_tokens: 8 })
    need(answer.choices[0].message.content, 'no content')
  },
  'stream with usage': async () => {
    let text = '', usage
    const options = { stream: true, stream_options: { include_usage: true } }
    for await (const chunk of await client.chat.completions.create({ model: CHAT, messages: SAY, max_tokens: 8, ...options })) {
      text += chunk.choices[0]?.delta?.content ?? ''
      usage = chunk.usage ?? usage
    }
    need(text && usage.completion_tokens > 0, 'no text, or no usage')
  },
  'stream helper': async () => {
    const answer = await client.chat.completions.stream({ model: CHAT, messages: SAY, max_tokens: 8 }).finalChatCompletion()
    need(answer.choices[0].message.content, 'no content')
  },
  'completions': async () => {
    need((await client.completions.create({ model: CHAT, prompt: ['a', 'b'], max_tokens: 2 })).choices.length === 2, 'not two choices')
  },
  embeddings: async () => {
    const embedder = new OpenAI({ baseURL: EMBED_URL, apiKey: EMBED_KEY })
    need((await embedder.embeddings.create({ model: EMBED, input: ['a', 'b'] })).data[0].embedding.length > 0, 'no vector')
  },
  models: async () => {
    need((await client.models.list()).data[0].id === CHAT && (await client.models.retrieve(CHAT)).id === CHAT, 'another model')
  },
  'Responses API': async () => {
    const answer = await client.responses.create({ model: CHAT, input: 'What is Pilotlight?', max_output_tokens: 16, store: false })
    need(answer.output_text, 'no text')
  },
  'Responses API, streamed': async () => {
    let last
    const asked = { model: CHAT, input: 'Hi', max_output_tokens: 16, store: false, stream: true }
    for await (const event of await client.responses.create(asked)) last = event
    need(['response.completed', 'response.incomplete'].includes(last.type), last.type)
  },
  401: () => raises(() => new OpenAI({ apiKey: 'pl_wrong' }).models.list(), (e) => e instanceof OpenAI.AuthenticationError),
  404: () =>
    raises(() => client.chat.completions.create({ model: 'none', messages: SAY }), (e) => e instanceof OpenAI.NotFoundError && e.code === 'model_not_found'),
  'too long a prompt': () =>
    raises(() => client.chat.completions.create({ model: CHAT, messages: LONG }), (e) => e.code === 'context_length_exceeded'),
  'leaving a stream': async () => {
    const stream = await client.chat.completions.create({ model: CHAT, messages: SAY, max_tokens: 500, stream: true })
    for await (const _ of stream) break
  },
})
