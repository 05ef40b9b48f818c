// LangChain for JavaScript.
import { ChatOpenAI, OpenAIEmbeddings } from '@langchain/openai'
import { CHAT, EMBED, EMBED_KEY, EMBED_URL, need, run } from './trying.mjs'

const model = new ChatOpenAI({ model: CHAT, maxTokens: 16, maxRetries: 0 })

await run({
  invoke: async () => need((await model.invoke('What is Pilotlight?')).content, 'no content'),
  stream: async () => {
    let text = ''
    for await (const part of await model.stream('What is Pilotlight?')) text += part.content
    need(text, 'no text')
  },
  useResponsesApi: async () => {
    const responses = new ChatOpenAI({ model: CHAT, maxTokens: 16, useResponsesApi: true, maxRetries: 0, modelKwargs: { store: false } })
    need((await responses.invoke('Hi')).content, 'no content')
  },
  embeddings: async () => {
    const embedder = new OpenAIEmbeddings({ model: EMBED, apiKey: EMBED_KEY, configuration: { baseURL: EMBED_URL } })
    need((await embedder.embedDocuments(['a', 'b'])).length === 2, 'not two vectors')
  },
})
