"""The first schema: accounts, and chat with its queue."""

from tortoise import BaseDBAsyncClient

RUN_IN_TRANSACTION = True


async def upgrade(db: BaseDBAsyncClient) -> str:
    return """
        CREATE TABLE IF NOT EXISTS "idempotency_keys" (
    "id" BIGSERIAL NOT NULL PRIMARY KEY,
    "scope" TEXT NOT NULL,
    "key" TEXT NOT NULL,
    "body_hash" BYTEA NOT NULL,
    "resource_id" UUID NOT NULL,
    "busy_until" TIMESTAMPTZ NOT NULL,
    "status" INT,
    "reply" BYTEA,
    "created_at" TIMESTAMPTZ NOT NULL,
    CONSTRAINT "uid_idempotency_scope_0666a8" UNIQUE ("scope", "key")
);
CREATE INDEX IF NOT EXISTS "idx_idempotency_created_944834" ON "idempotency_keys" ("created_at");
CREATE TABLE IF NOT EXISTS "model_budget" (
    "id" INT NOT NULL PRIMARY KEY,
    "booked_until" TIMESTAMPTZ NOT NULL
);
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
CREATE TABLE IF NOT EXISTS "allowances" (
    "day" DATE NOT NULL,
    "used" INT NOT NULL,
    "in_flight" INT NOT NULL,
    "minute_from" TIMESTAMPTZ NOT NULL,
    "minute_used" INT NOT NULL,
    "user_id" UUID NOT NULL PRIMARY KEY REFERENCES "users" ("id") ON DELETE CASCADE
);
CREATE TABLE IF NOT EXISTS "chatrooms" (
    "id" UUID NOT NULL PRIMARY KEY,
    "name" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ NOT NULL,
    "user_id" UUID NOT NULL REFERENCES "users" ("id") ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS "idx_chatrooms_user_id_13e4c3" ON "chatrooms" ("user_id", "id");
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
    "charged" BOOL NOT NULL,
    "queued_at" TIMESTAMPTZ NOT NULL,
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
-- For operators, who look at what failed.
CREATE INDEX "messages_failed" ON "messages" ("id") WHERE status = 'failed';
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
DROP TABLE "allowances";
DROP TABLE "model_budget";
DROP TABLE "idempotency_keys";
DROP TABLE "sessions";
DROP TABLE "otp_challenges";
DROP TABLE "users";
"""


MODELS_STATE = (
    "eJztXW1v2zYQ/iuCv2wDsiJ10qYzhgG243ZeE7tLnL21g0BLtE1EIjWJmmN0/e876sWSqJ"
    "dYrh3LLb/ENnknUc+Rx4fHo/KxZTMTW96zrmWxJaIGvmHLVkf72KLIxvClsP5EayHHSWpF"
    "AUdTK1BAsWRQjKYed5HBoWaGLA9DkYk9wyUOJ4wK+d8XiGtI8z3sagvkiS+mxmYaX2DNQh"
    "x7XDPR6kRbCjkC9RRRb4ldbJ5oiJph+RIUPUxBgKYVbUJ9jp+JhpjMgJYQOn/Ce/qU/ONj"
    "nbM5BgEX7vz+bygm1MQPAE/007nXZwRbZgZ20TSdmOIqQaXOV05QcXc3vHwdiIuHmuoGs3"
    "ybSirOii8YXev4PjGfCUVRN8cUu9BUM2US6ltWZL+4KGw7FHDXx+tGm0mBiWfIt4RhhXbY"
    "mKSspeuj8US/HUx0vZUzeqyRsklUZDAqOgyhXODz8VN43QSCoLQlbtD/uXvz7dnL74LnZR"
    "6fu0FlAFDrU6CIOApVA6wTcMG2eWAvAZNiYCNxCVS4OubExs/El22AjQsSZJMRclhoL7uT"
    "QQBhpj8WdMYh5aV9sagjwr2PECloL3x8335+fnH+6uzl+SsQCRq6LrmoAHM4mkhYEqrPLD"
    "Jf8BqAZnQUqgWohn5Xn7nMLh7cYrAWgyupVg108eUIwa5AcjK8HtxOutfvxOVtz/vHil2A"
    "qGkHpSup9NvQ7TKY2cNJf30R7ffh5GdN/NT+Go8GsnNey03+aok2IZ8znbKljsw0JnFxXF"
    "Rk6JoeSdJSQygaQoKBzO5T06QomCLjfolcU8/VsDYrnFIF+chbY0zxhMGfwCRDaLvghQXw"
    "RyTzDi4S8ctjZClJaXJ/Fy3X7C7N0ODh4ZExDx6/373tdy9hys1gn4VaVNltWy5BFM2D5x"
    "UtE+2IoOwDQ3UZs0vofLq6ks0bkeBmZL4cscep8Ps0PPD371JuXI8WH4IRt36c+dQQoGjB"
    "ncSf859aR0WSg88czhP8UOJgY3kJaWjoEXrWqvly8MckM1WOfuveBDhfd//4LjNdXo1Hb2"
    "LxZK4c9a/GPYm8GC4W4OiogBNWc5espqIujaYuzVnVN9eoj7isHF95jIO8Zi4mc/oWr/bP"
    "QpqB6o55yCMccHecZWhi22EcU2MF1iphLnmhSv5CEnH9Hq/2QGPetzyDOUF/ghuEtGWTCF"
    "+RG+iReXkEYMN1S2TwxpLlaNHyQ7t9dnbRPj17+erF+cXFi1en69VLvqpqGdMbvhErmYxP"
    "j6MD5exmbbNN6c1aQfGbLfiNGBk1wI7EFdRbQD1l5kpfIG9R5F4oclfFkGfUJOCnKx7u5n"
    "w50PcEcGnoAfnecNS9+bMY+1g+zUh6f04GXQl9qGK+a+CaLE9SU0xP7tS+t9J9yolVd32U"
    "1VTro0avj4Cac9+rEdVNFLYK6Ea8pymm3PWWiIsdq2DerZoG1ipbTgENQ/QAM8BxhXIasp"
    "l/FJ7qs7ZKdrdMvsaeBzUl6+NU7UnVwtgO5TZM0pkssBZpiKwYYixEWgzhnsaWVGM+n7KH"
    "jhZ64xMNcQ6rbn6iWRh5OJx9g7wZE9bOIvPGxUHGDHRKvyA7Z98322QvIt73SO1HnGhqi6"
    "JZWxSEOn6Bly1fV64V1MpSbVKoqa0eCe8vkDugvp0Lo2/GyBs1xlq/3g3uBpedcFYwP9A3"
    "g9HgpjsZjt50tKiJYO8PtD++fnc1mAhRg9mOiJSD9Ovu8EoUzRCxxG/ghv23omBqMeNelP"
    "S7o/7gKhAyBE6WFeadbLAIsNGDbmE65wv4+fxlRdeKx/RzubvEo70dVOUiFA7csVbwM62z"
    "lVmPZ1mwF885I5R4Cx28oAcNrQF8TlGhXx/9YNYHunePaZ3YgqymIgz5CAOQ8a2wzekpcP"
    "PgYtdlLoBm1vLVWS3lL+r7ixBBE3NUFG5+DPlET2FfH/toNV/DlaQ0ni6p9/RIXIggqL6L"
    "67jmtIoCVAbUhIXsog6ciYICUwZzfVRQr3kiK6f4VZ/NMmBhPi86DNFjzMKIlsRkEi15rw"
    "fUvizQeuPxVWaq6g3luejuujeAlXQwb4EQCTPi8n02DBhsEQPLKKoQWKNDYCIEs+3SplBX"
    "HTcqGErrgNo2EWVJdwcD6oiY97GNp3Arrq6NEy3lLhtt3tTOa10bS6pqGDfZzq5P51uM45"
    "SaGsiNNrCU9bBp/oKkprJX8y/PUMe+Pg/OimNfce/Lw1v76Jd0LPo40X30+Jc0XIuPgMn9"
    "dwfoqoN1BzpYdy0+er45x7wsazArcVKZOSiK9GkgHEg+mj04plhz2bIT5OHZzBYvzfIdjb"
    "Mouy8shqt+42kGsixPQ9FrtILsPc8R62htxtx8ruBuL/0ZL+wqcu+ffZZvN6l+jQ8JlGf4"
    "TRnYx9zy5Iekq7hn47hnQzKqx9yBmd8SSVdladWySKWHZNzRjVh6L0eObTYlVjjV+i5YAq"
    "tzx8dx7jgxXD65siSenJi6wQmVm5thz+mN8XgoRPjx9NWUepPhbl2Nofd1NIvNCf1AbwYg"
    "19HAG4eU7PBmEPlHJaeQyxNoMkpNhr+x6TP4wSHQC7YI0mU1FVdqHFdKm3nuY88DY1l4Vi"
    "dVSlZTu5K7eAni7njoLZgHnr6EgqZqK9mnF8o95Rv71EG4pwgol7NKdTLrq3D7GCDcxshp"
    "PbXD2mQLq50i9YJAtY9Rxo9i4AvIUcom5cxIPNb+aZHiQgflQoePsB02zLnnwI56LfQThn"
    "Mc5HlLBm6zbiQtp6jOotVHn5MiurBZHDnWbXK3b/W6t8N+R+shjxgf6LubcUd757KGBJDj"
    "fzyg/wuTNik6Nl+1a1Wo/sWcwHqSTSwVXvgKFp8NiXx2sUuMRauA2Ec1lbweJTKNIfZfy3"
    "763lJ/St1+OZEvd/WNmne35PLtFy82mGRBqnSWDeqkI7gwqGogHIl/geg+Pz3dhMKcnpZz"
    "GFEn74JTjmnBrPnL7XhUtge+VpGnS2Jw7T/NIt4xbtNVgCvAqCbvMk+XJj9xgd6ht/E+/Q"
    "+Usir3"
)
