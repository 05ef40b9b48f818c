// Vercel's AI SDK, with its provider for compatible servers and with OpenAI's own.
import { createOpenAI } from '@ai-sdk/openai'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { embedMany, generateText, Output, streamText } from 'ai'
import { z } from 'zod'
import { CHAT, EMBED, EMBED_KEY, EMBED_URL, KEY, URL_, need, raises, run } from './trying.mjs'

const compatible = createOpenAICompatible({ name: 'pilotlight', baseURL: URL_, apiKey: KEY, includeUsage: true, supportsStructuredOutputs: true })
const few = { maxOutputTokens: 40, maxRetries: 0, prompt: 'What is Pilotlight?' }

await run({
  generateText: async () => need((await generateText({ model: compatible(CHAT), ...few })).text, 'no text'),
  'streamText with usage': async () => {
    const result = streamText({ model: compatible(CHAT), ...few, onError: () => {} })
    let text = ''
    for await (const part of result.textStream) text += part
    need(text && (await result.usage).outputTokens > 0, 'no text, or no usage')
  },
  'Output.object': async () => {
    const output = Output.object({ schema: z.object({ yes: z.boolean() }) })
    need(typeof (await generateText({ model: compatible(CHAT), ...few, output })).output.yes === 'boolean', 'no object')
  },
  completionModel: async () => need((await generateText({ model: compatible.completionModel(CHAT), ...few })).text, 'no text'),
  embedMany: async () => {
    const embedder = createOpenAICompatible({ name: 'pilotlight', baseURL: EMBED_URL, apiKey: EMBED_KEY })
    need((await embedMany({ model: embedder.textEmbeddingModel(EMBED), values: ['a', 'b'] })).embeddings.length === 2, 'not two vectors')
  },
  'default of @ai-sdk/openai (Responses API)': async () => {
    const openai = createOpenAI({ baseURL: URL_, apiKey: KEY })
    need((await generateText({ model: openai(CHAT), ...few, providerOptions: { openai: { store: false } } })).text, 'no text')
  },
  errors: () =>
    raises(
      () => generateText({ model: createOpenAICompatible({ name: 'x', baseURL: URL_, apiKey: 'pl_wrong' })(CHAT), ...few }),
      (error) => error.statusCode === 401,
    ),
})
