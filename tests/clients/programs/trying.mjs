// What the scripts for Node share: run each try, and print how it went, a JSON object a line. See trying.py.
export const CHAT = 'demo', EMBED = 'embedder', WIDE = 'wide'
export const ORIGIN = process.env.TRY_ORIGIN, KEY = process.env.TRY_KEY, EMBED_KEY = process.env.TRY_EMBED_KEY, WIDE_KEY = process.env.TRY_WIDE_KEY
export const URL_ = `${ORIGIN}/e/${CHAT}/v1`, EMBED_URL = `${ORIGIN}/e/${EMBED}/v1`, WIDE_URL = `${ORIGIN}/e/${WIDE}/v1`
export const SAY = [{ role: 'user', content: 'What is Pilotlight?' }]
export const LONG = [{ role: 'user', content: 'word '.repeat(3000) }]

export function need(value, what) {
  if (!value) throw new Error(what)
}

export async function raises(call, fits) {
  try {
    await call()
  } catch (error) {
    need(fits(error), `another error was raised: ${error.constructor.name} ${error.message}`)
    return
  }
  throw new Error('no error was raised')
}

export async function run(tries) {
  let failed = false
  for (const [tried, call] of Object.entries(tries)) {
    let said = ''
    try {
      await call()
    } catch (error) {
      said = `${error.constructor.name}: ${String(error.message).slice(0, 300)}`
    }
    failed ||= Boolean(said)
    console.log(JSON.stringify({ tried, failed: said }))
  }
  process.exit(failed ? 1 : 0)
}
