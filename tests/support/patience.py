"""How long a test waits before it reports a hang.

Tests wait for states. These bounds only end what would never end, so they are far beyond what a slow machine needs.
"""

#: Seconds for what running processes do. Delays that a test must not wait for last a minute or more, so they show.
HANG = 50.0
#: Seconds for a process to start, to stop or to run to its end, and for a thousand competing calls.
PROCESS_HANG = 180.0
#: How long the product waits for its servers, in tests that are not about their absence.
PATIENT = {
    "POSTGRES_ACQUIRE_SECONDS": "20",
    "POSTGRES_STATEMENT_SECONDS": "30",
    "REDIS_COMMAND_SECONDS": "5",
}
