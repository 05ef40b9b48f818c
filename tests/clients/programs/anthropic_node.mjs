// Anthropic's client for Node, at /v1/messages.
import Anthropic from '@anthropic-ai/sdk'
import { CHAT, KEY, ORIGIN, SAY, need, raises, run } from './trying.mjs'

const baseURL = `${ORIGIN}/e/${CHAT}`
const client = new Anthropic({ baseURL, authToken: KEY, apiKey: null })

await run({
  messages: async () => need((await client.messages.create({ model: CHAT, max_tokens: 16, messages: SAY })).content.length, 'no content'),
  stream: async () => need(await client.messages.stream({ model: CHAT, max_tokens: 16, messages: SAY }).finalText(), 'no text'),
  401: () =>
    raises(
      () => new Anthropic({ baseURL, authToken: 'pl_wrong', apiKey: null }).messages.create({ model: CHAT, max_tokens: 8, messages: SAY }),
      (error) => error instanceof Anthropic.AuthenticationError,
    ),
})
