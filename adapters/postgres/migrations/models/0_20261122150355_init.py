"""The first schema: accounts, and chat with its queue."""

from tortoise import BaseDBAsyncClient

RUN_IN_TRANSACTION = True


async def upgrade(db: BaseDBAsyncClient) -> str:
    return """
        CREATE TABLE IF NOT EXISTS "otp_challenges" (
    "id" BIGSERIAL NOT NULL PRIMARY KEY,
    "mobile" VARCHAR(16) NOT NULL,
    "purpose" VARCHAR(16) NOT NULL,
    "code_hash" TEXT NOT NULL,
    "expires_at" TIMESTAMPTZ NOT NULL,
    "guesses_left" INT NOT NULL,
    CONSTRAINT "uid_otp_challen_mobile_615895" UNIQUE ("mobile", "purpose")
);
CREATE TABLE IF NOT EXISTS "users" (
    "id" UUID NOT NULL PRIMARY KEY,
    "mobile" VARCHAR(16) NOT NULL UNIQUE,
    "name" TEXT NOT NULL,
    "password_hash" TEXT,
    "tier" VARCHAR(16) NOT NULL,
    "chatrooms_version" BIGINT NOT NULL,
    "created_at" TIMESTAMPTZ NOT NULL
);
CREATE TABLE IF NOT EXISTS "chatrooms" (
    "id" UUID NOT NULL PRIMARY KEY,
    "name" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ NOT NULL,
    "user_id" UUID NOT NULL REFERENCES "users" ("id") ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS "idx_chatrooms_user_id_13e4c3" ON "chatrooms" ("user_id", "id");
CREATE TABLE IF NOT EXISTS "daily_usage" (
    "id" BIGSERIAL NOT NULL PRIMARY KEY,
    "day" DATE NOT NULL,
    "used" INT NOT NULL,
    "user_id" UUID NOT NULL REFERENCES "users" ("id") ON DELETE CASCADE,
    CONSTRAINT "uid_daily_usage_user_id_84e217" UNIQUE ("user_id", "day")
);
CREATE TABLE IF NOT EXISTS "messages" (
    "id" UUID NOT NULL PRIMARY KEY,
    "input" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ NOT NULL,
    "status" VARCHAR(16) NOT NULL,
    "response" TEXT,
    "finish_reason" TEXT,
    "input_tokens" INT,
    "output_tokens" INT,
    "error_code" TEXT,
    "error_detail" TEXT,
    "attempt" INT NOT NULL,
    "failures" INT NOT NULL,
    "deaths" INT NOT NULL,
    "allowance_day" DATE NOT NULL,
    "max_output_tokens" INT NOT NULL,
    "completed_at" TIMESTAMPTZ,
    "due_at" TIMESTAMPTZ NOT NULL,
    "lease_until" TIMESTAMPTZ,
    "rung_at" TIMESTAMPTZ NOT NULL,
    "chatroom_id" UUID NOT NULL REFERENCES "chatrooms" ("id") ON DELETE CASCADE,
    "user_id" UUID NOT NULL REFERENCES "users" ("id") ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS "idx_messages_chatroo_b46e6c" ON "messages" ("chatroom_id", "id");
CREATE INDEX IF NOT EXISTS "idx_messages_user_id_683af4" ON "messages" ("user_id", "id");
-- The queue. Ended messages are in neither, so a sweep costs what is waiting and not what ever was.
CREATE INDEX "messages_queued" ON "messages" ("due_at") WHERE status = 'queued';
CREATE INDEX "messages_generating" ON "messages" ("lease_until") WHERE status = 'generating';
CREATE TABLE IF NOT EXISTS "sessions" (
    "id" UUID NOT NULL PRIMARY KEY,
    "created_at" TIMESTAMPTZ NOT NULL,
    "ended_at" TIMESTAMPTZ,
    "user_id" UUID NOT NULL REFERENCES "users" ("id") ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS "idx_sessions_user_id_80072d" ON "sessions" ("user_id");
CREATE TABLE IF NOT EXISTS "aerich" (
    "id" SERIAL NOT NULL PRIMARY KEY,
    "version" VARCHAR(255) NOT NULL,
    "app" VARCHAR(100) NOT NULL,
    "content" JSONB NOT NULL
);"""


async def downgrade(db: BaseDBAsyncClient) -> str:
    return """
DROP TABLE "messages";
DROP TABLE "chatrooms";
DROP TABLE "daily_usage";
DROP TABLE "sessions";
DROP TABLE "otp_challenges";
DROP TABLE "users";
"""


MODELS_STATE = (
    "eJztXG1v4jgQ/itWPu1JvYrS10Onk4Bmu9xS6LX0brXbVWQSA1YTO5s4R6ve/vez80JC3k"
    "rYUsLWX0oZzyTOM+OZ8XjCk2JRA5nufncGmUOpdU3nSgs8KQRaiP+TN7wHFGjb8aAgMDg2"
    "fX49ZPSpcOwyB+qMD0yg6SJOMpCrO9hmmBJOJZ5pCiLVOSMm05jkEfzNQxqjU8RmyOEDX7"
    "5yMiYGekCu+PpF8VzkaNgQd+J/v4px+16bYGQaS88QsPh0jT3aPu32tnf+3ucU9x9rOjU9"
    "i8Tc9iObUbJg9zxs7AsZMTZFBDmQISPxXGLaIQYRKXgETmCOhxZzN2KCgSbQMwU6yu8Tj+"
    "gCFODfSfw5+iOcWoJN0wbDkXajjjRNqQCmTolQBCZMIPf0PbhuDIhPVcQNuh/a1+8OT37x"
    "IaAumzr+oA+X8t0XhAwGor4WYpT9zwzOI/TA8nGO+FNI84mug3FEiEGOLS6CLwLodSEdqZ"
    "9G4sqW634zBWHwd/vax/my/ckH2noMR/rDwUXETvnCCZbUoNsfdnzwY7B1BwlwNMiykJ/z"
    "EYYtlA/7smQKfCMU3Y/++clU0btUb0bty6slfZy3R6oYaS7pIqK+CxZDrI7FRcA/vdEHIL"
    "6Cz8OBml4yC77RZ0XMCXqMaoTONWgkMYnIEWlJzQkPt6r7Soi8pA+rr1KfcVkiKkzucz2W"
    "gCoL7XvqIDwlH9GjD3CPzwMSPc9VhbHxll8mjIu7iWpMjWOTA+eLSJq0Kf74/KER8wHotm"
    "+67XNV8UEeQ/1+Dh1DW0JbjNAmTVEWvNkhq2mlKZDAqQ+OeAox5xD4c4jNx1uXDxZkLcsM"
    "pXmLIVg1T/C+fOaylKoY8DHIVRK5TKXUpYOnPVIQVHMXvlBsyjhDLf9Y1rJBy+ST5R+//t"
    "ZsHh6eNhuHJ2fHR6enx2eNM87rzzc7dFriJDq9i94gFVcFoTylEarKDa/54IfsZTF1d51E"
    "HqoiRqYSE27oOSZbaK8R+/MWuwNIhUbbPDg6PTo7PDla2OqCUmaikTnK6C+jv4z+z0f/S+"
    "SWhP7EaGnctwK+1coVymiGQCixB+YzrM8AdgFmLqBzAqjHxvShBbjJMM/dA5AxZNlsD5gI"
    "ukjzCMMmgMQABs8PIAPQQYCnCIBbg4f2lZTSNn6zVUosUTknUWbZA7LyUq/KCya2l1MHKC"
    "69LARk7UXWXmTtJb/2EjjWrIq7M+ioxLMy+cGSqmPpOq8x5a9b9VY9bwVRwbgjF+pAvW6P"
    "eoOLFginyPV9R7rDy6u+OhKsOrVskQJw7vftXl+QJnzzLL53+sPuR0EYm1S/F5Rue9BV+z"
    "6TLnAyzSDfXyGZtuCDZiIyZTP+9eCkxLSiNX2QNpdotTf9oeVVzC3F5nesVLJOyqyl1jD8"
    "7MJy3YTnnGCC3ZnGvaDLJ1oB+IygRL86+n7U5+nePSI5bq24pJQSW2urXjPoX3qnzpPxtb"
    "DNyElws+Aix6EOB82o5KuXpaS/qO4vAgQNxHh0r458LCexr459uJuv4EoSEq9XTG3siAsR"
    "CarnoCquOSkiAU0DavCN7KwKnLGABDMNJjRNOhe7I63igVNG8E0fPYkN47qJWK6sPJTKMd"
    "bF9n+d+ldK9gUqYDuUJ+xaASw4OKiq41hK1jdrrd7EOVFVHadE5TKus54dj0zXWMcJMbmQ"
    "a63g1BntqqetKTHZLiK7b16x+yayviy8lTtwUu+m7Ca6z3bhpJZrfidO2n5fAF3Z37Sl/q"
    "Yhs7llm+IItKjJKc2yV9bpRJmt6RH3Bl7P+sJvOsZmYEqew90Bkn3Ou9HnHCsu2+pQUC+J"
    "VV3j9obV1bDhZoNoPeQi/HwzSUK8znAr/SG3vhYw6RSTO3Ktcr4W4CkB8tfl9tUgTgO1GX"
    "RnVY6zloTqDH9tD7PQg425FayxCV2WlPvQWu9Dpx5yXa4sE02qHFymxWTVPYzYmd3TdvLQ"
    "G64e/vQFKWhitDT7dAO+1/xZANmWvt22dNkn/SbcPuIQrqPkpJw8QaizhmUlVL6HKOt0Rf"
    "lRBHxOcpTQSXFmJB5r82mRzIW2mgttv8K23TLnhgs78renXrGcY0PXnVPuNqtW0jKCsjO8"
    "OvoM56ULq9WRI9k6m73Sad/0ui3QgS7W78jV9bAFrhxakwJy9OuG2r88aOO8l9jKTq1yxX"
    "+afuhXOcSS5YU3sPmsSeWzjRysz5ScxD4cKc3rYcxTm8T+rZyn/2C3e3EeX+j2ixP5Yldf"
    "q7i7Zi7fPD5eIchyrsIo64+lXojhi6oCwiH7T4juQaOxSgrTaBTnMGIsfQpOGCI5UfPPm+"
    "Gg6Ax8IZIOl1hn4D9gYncXj+lKwBVglCfv6Tw9FfzEBTrbPsb7/j92FGP8"
)
