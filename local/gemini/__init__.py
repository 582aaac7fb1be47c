"""Gemini's stand-in: a small server that speaks the REST API of Gemini, and is as unkind as Gemini is.

The whole product runs on it without a key, through the adapter that production uses. In `make run` it writes replies
by itself. Tests control it by directives in a prompt or by calls under /control.

What it does as Google does
    Models      every name that begins with `gemini-`; the `-latest` ones behave as 3.6-flash, 3.5-flash-lite, 3.1-pro.
    Thinking    by `thinkingConfig`, else by the model's default (3 and newer: high, 2.5: dynamic). The amount is always
                the same for the same prompt: minimal 0-100 tokens, low 100-1,500, medium 500-5,000, high 1,000-15,000.
                Thoughts are charged to `maxOutputTokens` first, so a small limit leaves no text (MAX_TOKENS). With
                `includeThoughts` summaries are sent as separate chunks. A level or budget that the model does not
                support is a 400: `gemini-3.8-flash` refuses `minimal`, `gemini-3-pro` all but low and high, 2.5 levels,
                2.0 and 1.5 any thinkingConfig.
    Caching     a common beginning of 4,096 tokens (2.5-flash: 1,024) within five minutes: `cachedContentTokenCount`.
    Keys        one that begins with `invalid` is 400 API_KEY_INVALID, with `disabled` 403 SERVICE_DISABLED, with
                `denied` 403 API_KEY_SERVICE_BLOCKED; any other key is accepted.
    Bodies      an unknown field is a 400; so is a body of more than 20 MB.

Directives, in the last message of the user: `[[kind name=value name="a value\n"]]`, any number of them
    [[echo]]                      a short reply that quotes the prompt
    [[sample name=tables]]        that sample: tour, formulas, tables, code, directions, long, arabic, hindi
    [[thoughts tokens=800]]       the number of thought tokens; without `tokens` the model's own amount
    [[pace first_chunk_seconds=1 chunk_seconds=0.1 chunks=20]]
    [[unavailable times=2]]       every fault below, with its parameters
    Without directives the words of the prompt choose: a message that asks for a table, a formula, code in Rust, a long
    reply, Arabic or Hindi gets it, and the first replies of a room show one sample after the other. "Continue" after a
    cut reply continues it. A request for a title (by its system instruction, or a prompt that ends with "Title:") gets
    a title.
    `--directives` and PUT /control/directives {"text": "[[echo]] [[thoughts tokens=0]]"} set directives for every
    prompt; those in the prompt itself override them. The tests' fixture sets that pair.

Faults, by POST /control/faults {"kind": …, parameters} or as a directive. A rule set by a call is used once, a
directive each time, unless these parameters change that:
    times         the number of calls (null: all); for a directive, calls with that same prompt
    for_seconds   for that long after the rule was set, or the prompt was first seen
    match         only prompts that contain this text
    on            any, message or title; message for a directive, since a title's prompt quotes the message
    thoughts      the number of thought tokens of the reply; `first_chunk_seconds`, `chunk_seconds`, `chunks` its pace

    bad_request bad_key no_key permission_denied service_disabled not_found rate_limit daily_quota cancelled (499)
    internal unavailable timeout  Google's error; `retry_delay` ("53.016s", of quotas), `retry_after` (a header),
                                  `as_list` (the body in a list), `message`
    latency             `seconds` before the first byte, then a normal reply
    silent              the headers, then nothing for `seconds`, then a normal reply
    think               thinks for `seconds`, with a summary each `every` (3) seconds if summaries are requested
    hang                accepts and never answers, until the client leaves
    hang_mid_stream     the same after `after` chunks, including those of thoughts
    disconnect          closes the connection before the first byte
    cut                 closes it after `after` chunks or `bytes` bytes of the body, without a proper end
    error_in_stream     the error of `error` (a kind above) inside a 200 stream after `after` chunks
    broken_json         an unparsable line after `after` chunks
    drip                a normal reply in writes of `bytes` (1) bytes
    huge_chunk          a normal reply whose second piece has `bytes` (1,000,000) bytes of text
    no_candidates       200 without candidates
    blocked             promptFeedback.blockReason = `reason`, no candidates
    blocked_mid_stream  finishReason = `reason` after `after` pieces of text
    empty               a candidate without text, finishReason = `reason` (STOP; OTHER, MALFORMED_RESPONSE, MAX_TOKENS)
    blank               a reply of white space
    max_tokens          cut with MAX_TOKENS after `tokens` (0) tokens of text; with `on=title` a cut title
    reply               no fault, only the parameters that follow
    Every kind with a reply takes: `text`, in `chunks` pieces (a count, or the pieces themselves); `thought`, which
    precedes it even if not requested; `finish_reason`; and `end_seconds`, how much later the stream itself ends.
    A reason may be any word: an unknown one is a fault too.

Control calls
    POST, DELETE /control/faults         add a rule; delete all rules, and the counts of directives
    PUT          /control/pace           {first_chunk_seconds, chunk_seconds, chunks}; those left out stay
    PUT          /control/directives     {text}
    DELETE       /control/cache
    GET          /control/calls?limit=   {total, open, mostOpen, counts, lastBody, calls}
    GET          /control/sold?limit=    {open, sums, models, calls}: what was sold, by call, in total and by model:
                                         tokens of prompt, cached, thoughts and candidates as last reported, finish,
                                         outcome, `complete` (written to its end), `reported` (whether usage was)
    DELETE       /control/calls          clear both
"""
