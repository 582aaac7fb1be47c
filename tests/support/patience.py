"""How long a test waits before it says that something hangs.

Tests wait for states. These bounds only end what would never end, so they are far beyond what a slow machine needs.
"""

#: Seconds for what running processes do. Whatever must not be waited for in a test takes a minute or more, so it shows.
HANG = 50.0
#: Seconds for a process to start, to end, or to run through, and for a thousand calls that are in each other's way.
PROCESS_HANG = 180.0
#: How long the product waits for its servers, where a test is not about their absence.
PATIENT = {
    "POSTGRES_ACQUIRE_SECONDS": "20",
    "POSTGRES_STATEMENT_SECONDS": "30",
    "REDIS_COMMAND_SECONDS": "5",
}
