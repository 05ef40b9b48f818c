"""What docs/reference.md says of headers and admin routes, where the code itself has only their names.

A test holds that nothing the code has is without a meaning here, and that nothing here is without its code.
"""

from __future__ import annotations

HEADERS = {
    "x-request-id": "The request's id: in the usage row, in `GET /api/v1/requests/ID`, in the logs. On every answer, errors too.",
    "x-pilotlight-start": "`warm`, or `cold` where the request waited for a replica to start. Not on a stream whose head went out while it was held.",
    "x-pilotlight-hold-ms": "How long the request waited for a slot, in milliseconds.",
    "server-timing": "After a cold start its phases, in milliseconds, as browsers' developer tools read them.",
    "openai-processing-ms": "From admission to the head of the answer, in milliseconds, as OpenAI's servers tell it.",
    "retry-after": "With 503: seconds after which to try again, at least 1, from what cold starts took so far. With 429 likewise.",
    "www-authenticate": "With 401: `Bearer`.",
    "cache-control": "`no-store` with a new key; `no-cache` on event streams.",
    "x-accel-buffering": "`no` on event streams: a proxy on the way is to pass them on as they come.",
    "allow": "With 405: the methods the path takes.",
    "access-control-allow-origin": "To a web page whose origin `router.cors_origins` or the endpoint's `cors_origins` has: on every answer, errors too; all our headers may be read.",
    "accept-encoding": "With 415: the encodings that a body may have.",
}
REQUEST_HEADERS = {
    "authorization": "`Bearer` and an API key of the endpoint.",
    "x-api-key": "The same key, as Anthropic's clients send it; where both are there, `authorization` counts.",
    "expect": "`100-continue`: the body is asked for once the key is known to be good.",
    "content-encoding": "`gzip`, `deflate` or `zstd`: the body is unpacked, to `router.max_body_bytes` at most. Any other is answered 415; the admin API takes none.",
    "origin": "Of a web page: see access-control-allow-origin. A preflight needs no key, and is 403 where the origin is let in nowhere.",
    "prefer": "`wait=N`: wait at most N seconds for a slot, then 503.",
    "transfer-encoding": "`chunked`, or none. What is packed hop by hop is answered 415.",
    "traceparent": "Passed on to the engine, as W3C Trace Context has it.",
    "tracestate": "Passed on to the engine.",
}
INTERNAL = {
    "x-pilotlight-refused": "`full` or `draining`: the replica did not begin; the request goes back to the head of the hold.",
    "x-pilotlight-usage": "What the engine counted, with an answer that is not streamed.",
}
OF_REQUESTS = {
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "x-pilotlight-by",
}  # relayed to the admin process, or dropped
# What is ours to describe: HTTP's own (content-length, connection) are not.
NAMES = "x-[a-z-]*[a-z]|server-timing|retry-after|www-authenticate|openai-[a-z-]+|cache-control|allow|access-control-allow-origin|accept-encoding"
ABSTRACT = {"Refused"}
ADMIN = {
    "GET /endpoints": "All endpoints, each with the revision it leads to.",
    "GET /endpoints/{name}": "One of them.",
    "PUT /endpoints/{name}": "Make the endpoint, or put it on another configuration; what is not given stays as it is, and the same again changes nothing. The old revision serves until the new one is ready (`at_once`: not), and goes on where that fails: `deploy` in the answer, then `next` and `last_failed` of the endpoint, say how it stands.",
    "GET /endpoints/{name}/revisions": "Every revision it ever had, newest first: number, when, by whom, its state, and what differs from the one before.",
    "POST /endpoints/{name}/rollback": "Deploy what an earlier revision was: `to` its number, or the one before what serves that has served and was not rolled back from; a deploy that is on its way is dropped. Repeated while it is on its way it changes nothing; repeated once it serves, and without `to`, it goes one further back.",
    "DELETE /endpoints/{name}": "Remove it: its replicas drain, its keys are revoked, its own prices end; usage and history stay.",
    "POST /endpoints/{name}/wake": "Start a replica as a call would, and answer at once, 202; `ready`: one was there already. It goes back to rest after its idle timeout.",
    "GET /status": "Every endpoint, revision, replica and node, as the activator sees them now.",
    "GET /endpoints/{name}/events": "What happened to it that you should hear of, newest first: deploys that served or failed, wrong answers that were caught.",
    "POST /endpoints/{name}/keys": "Make a key; the answer is the only time it is shown, and comes when this machine's routers know it.",
    "GET /endpoints/{name}/keys": "All keys it ever had, without the keys themselves.",
    "GET /keys": "All keys of all endpoints, without the keys themselves.",
    "POST /keys/{key_id}/rotate": "Make a key in its place; the old one ends after `grace_seconds`, a day unless given.",
    "DELETE /keys/{key_id}": "Revoke a key, at once and for ever.",
    "GET /endpoints/{name}/prices": "Its prices, newest first (one that `ends`: it was removed), and the one in force, which may be a default.",
    "PUT /endpoints/{name}/prices": "A new price, from now or from `valid_from` on; no row is ever changed.",
    "GET /usage": "The newest rows up to `limit`, by `endpoint`, `since` and `until`, and totals over all that match.",
    "GET /usage/sums": "Sums `by` endpoint, key, day and month (with commas between them; in UTC), by `endpoint`, `since` and `until`.",
    "GET /usage/export": "All rows as `format` csv or jsonl, by `endpoint`, `since` and `until`, streamed.",
    "GET /requests/{event_id}": "The row of one request, with its phases; the beginning of its id will do, where that names one.",
    "GET /audit": "Who changed what, newest first, by `since` and `until`: every act that changes something, with its outcome. No row is ever changed; each is kept `activator.audit_days`. Who asks may say his name in `x-pilotlight-by`: it stands beside the key, which alone is proved.",
    "GET /cold-starts": "Past cold starts, failed ones too, with rung and phases, by `endpoint`, `since` and `until`.",
}
