"""Sessions that are refreshed, and budgets for guessing at and sending one-time codes."""

from tortoise import BaseDBAsyncClient

RUN_IN_TRANSACTION = True


async def upgrade(db: BaseDBAsyncClient) -> str:
    return """
        CREATE TABLE IF NOT EXISTS "guess_budgets" (
    "id" BIGSERIAL NOT NULL PRIMARY KEY,
    "mobile" VARCHAR(16) NOT NULL,
    "kind" VARCHAR(16) NOT NULL,
    "wrong_at" TIMESTAMPTZ[] NOT NULL,
    "in_a_row" INT NOT NULL,
    CONSTRAINT "uid_guess_budge_mobile_fe1e2b" UNIQUE ("mobile", "kind")
);
        CREATE TABLE IF NOT EXISTS "otp_sendings" (
    "mobile" VARCHAR(16) NOT NULL PRIMARY KEY,
    "sent_at" TIMESTAMPTZ[] NOT NULL
);
        CREATE TABLE IF NOT EXISTS "refresh_tokens" (
    "id" BIGSERIAL NOT NULL PRIMARY KEY,
    "hash" BYTEA NOT NULL,
    "expires_at" TIMESTAMPTZ NOT NULL,
    "spent_at" TIMESTAMPTZ,
    "session_id" UUID NOT NULL REFERENCES "sessions" ("id") ON DELETE CASCADE,
    CONSTRAINT "uid_refresh_tok_hash_a77c98" UNIQUE ("hash")
);
CREATE INDEX IF NOT EXISTS "idx_refresh_tok_session_11127b" ON "refresh_tokens" ("session_id");
        ALTER TABLE "sessions" ADD "network" TEXT NOT NULL DEFAULT '';
        ALTER TABLE "sessions" ADD "device" TEXT NOT NULL DEFAULT '';
        ALTER TABLE "sessions" ADD "last_seen_at" TIMESTAMPTZ;
        ALTER TABLE "sessions" ADD "expires_at" TIMESTAMPTZ;
        UPDATE "sessions" SET "last_seen_at" = "created_at", "expires_at" = "created_at" + interval '30 days';
        ALTER TABLE "sessions" ALTER COLUMN "network" DROP DEFAULT;
        ALTER TABLE "sessions" ALTER COLUMN "device" DROP DEFAULT;
        ALTER TABLE "sessions" ALTER COLUMN "last_seen_at" SET NOT NULL;
        ALTER TABLE "sessions" ALTER COLUMN "expires_at" SET NOT NULL;
        CREATE INDEX IF NOT EXISTS "idx_sessions_expires_6bcc94" ON "sessions" ("expires_at");
        CREATE INDEX "idempotency_keys_scope" ON "idempotency_keys" ("scope" text_pattern_ops);"""


async def downgrade(db: BaseDBAsyncClient) -> str:
    return """
        DROP INDEX "idempotency_keys_scope";
        DROP INDEX IF EXISTS "idx_sessions_expires_6bcc94";
        ALTER TABLE "sessions" DROP COLUMN "device";
        ALTER TABLE "sessions" DROP COLUMN "last_seen_at";
        ALTER TABLE "sessions" DROP COLUMN "expires_at";
        ALTER TABLE "sessions" DROP COLUMN "network";
        DROP TABLE IF EXISTS "refresh_tokens";
        DROP TABLE IF EXISTS "guess_budgets";
        DROP TABLE IF EXISTS "otp_sendings";"""


MODELS_STATE = (
    "eJztXVlz2zgS/isovUymSptyHOdY79ZWSbaS0Y5tZW15kslRLIiEJK4pgEOCVlTZ/Pdt8B"
    "BvSqQlC5Lx4gPo5vE10OhuNJo/WjNmEMt93rEsNsdUJ9ds3jpFP1oUzwj8UdjfRi1s23Gv"
    "aOB4ZPkMOKL0m/HI5Q7WOfSMseUSaDKIqzumzU1GBf3HKeYII88lDppiV/xhIDZGfEqQhT"
    "lxOTLwoo3mgs6EfoqpOycOMdoIUyNonwOjSygQ0CTjzKQeJ8/FgxhMhycx6eQR7+lR8y+P"
    "aJxNCBA4cOcv36DZpAb5DvCE/9p32tgklpGCXTyaZhriKn6nxhe233F72z9/55OLlxppOr"
    "O8Gc2w2As+ZXTJ43mm8Vwwir4JocSBRzUSIqGeZYXyi5qCZ4cG7nhk+dBG3GCQMfYsIVjB"
    "HTxM3NbStKvBULvpDTWtlRN6xJGQSdikMyoGjEm5wOfHz+C6MQR+a0vc4Oy3zvWzl69/9d"
    "+XuXzi+J0+QK2fPiPmOGD1sY7BBdnmgT0HTIqBDckzoMLVCTdn5Ln4owmwUUOMbDxDdgvt"
    "eWfY8yFMjceCwdinvHQsFg1EuPceIgXPC7/+dvzi5M3J25evT94Cif+gy5Y3FWD2r4YZLE"
    "2qjS1zMuU1AE3xKFQLUA30rjZ22Kx4covJWgxuhrVqoos/9hDsCiSH/cvezbBz+UFcfua6"
    "f1mRChA9x37rItP6LFC7DFb2YNFfXgR97A9/Q+Jf9Hlw1csq5yXd8HNLPBP2ONMom2vYSG"
    "ISNUdNRYKuqZEyXGoKFSom2+NgrtwR6uah7ZqTCvWU5nw8eI+y2B49GM+/Hx+/fPnm+Ojl"
    "67evTt68efX2aAlsvqsK4W7/vQA5NVPyqDOPN4U9x6pwr8Zd2Nvju4RRKBpGWL+bY8fQcj"
    "3smBUakMLUzktqQMmQwQ9fVn14Q+EFFUgldKlu4SKhN7WPNnncGt/fwfOlL5P0R+Dl4ZUJ"
    "91//rHNz1jkHAzOFfRpq0TU7nmVbMMUT/33Fk4nnCKHsmpYFj9zRdeZRXuLC5onaVX7sKC"
    "DXcEC/pjcL4o8cy/mUIXLve5gG4gwZDM1NPkU3AK9N/oHgAsx3HP/LRsL5dAg24IZImCGi"
    "3SGnyAD3EfM2sgh2YfGi3ASBYM7JzOZ5t/axb678Wzn9W91zOZuVAHw2xU4xwBm2DMjw2G"
    "vAG4InB7qgML5rFqETPhVG0atXFXD/0bn2EQeqjG17FXYdB33pxTvCrGDhLl21Uzw7XLEl"
    "tUL1KdHvwLKpBWmSR0FaBqk28txFoMnr+sgll9iAr5xVGcpV3pirrE8xnZCaTkWC6WBm0i"
    "O7dKGRVEOBJTgOBvSNqa8xNi3PKRrHpXgmWRSgWUADy77uEhBzPYrWl8QO3zuln3DX6ko4"
    "w6oWd5nl7HgiOlF7FifYlHxlk6+KTx5kfPJsirnD2KwkMpnsblfFJPWQcL1gZDliqwN3X5"
    "LwwM9vpZG8ekG8XcTvWv8ce1QXoCD/TuLHyb9aj6+CHhDS83/ncB6S7yX2b0TfKIgn2z5n"
    "lVbvfRqmFHoUrXt22fn0a0qpXwyu3kfkieje2cWgm9sHhbt7/ogp8DnKQc/ybSSC+sSw95"
    "dEbnKrYLh3GQMLlZZ40CnGDPQj4NzWwF+2JNGvq5HXR707GFykUO/2s7DeXnZ7189e+CIA"
    "IpOXhCl0hwgsGhiRaU6VMCOdIZnJ3ZNkr01eoa5YmnN2+Spb+x1ziDmhv5PF9q1tOVDdsL"
    "29wtfZpG0ebGyU2uZx9wrbPLEF9Ui2eT2rvHzn9wEbvnL5flvb8S23zD2nIMxWbiOG5Mo0"
    "rG8aku+2CWq5gbmS5lTmitTmio0XM0K5Bu/m/6qlyQqZtzTZDkKxxbi7hIPzVIB2pduV4N"
    "q1z7X9ubRB30sZ5cooV0Z5mVH+3iOu2/UMsIFL7PIMRaVpPhG02sgnXjOPdzglSNgCrkiO"
    "xfB4sxFxfnGjQ55zh9EJ8q9L3HbUOjYdl58i7CJ4sYX4jcU5UnHENJ+su5U7FDgPXwCRkR"
    "lExe5gNAZOwzo5ukXaqfIQyJona8JxKK8T8Yg5Q+V+RSy1dW2fmOMgov5pk+fF6zUsnhdZ"
    "uzU2eERXegX2J0MhvD2YjLkVIgV1xCsz0K2zwXnvFOmgD7/SD52bm4+D6/NTZGPXnTPHyC"
    "qk3QjBV3OFHl3HcfCieKAnmTISsEx3H0/yreO/DT9/+ZY/SYw1J1j+1kyMS7KoQ5CbOBa2"
    "Oaunb5CZzcBx1Rdgo5YYPnmiStvHjMm1O7LYQnTyS8vVmR3YF2ShzIv9MC+WMls3cLlkkH"
    "nNkzZ2KWZGDbBDcgV1A6hHzFho4BBNi9QLxU6JUZFiy4ayFjxIJT8c6LsCuCT0gHy3f9W5"
    "/rMY+4g+GYfp/jnsdTLoQxfzHJ3UjG1l2FR8KzuoGx/c2vh5rT0CeO/2PsDd5F6dcy4xQy"
    "NjXrIdxU2fc3GIbRWsu1XLwJKl4RIgGaI7WAH2K6tMnTJ6pNMJm3OTL4nrQk+Jf5zobVc5"
    "xrOArsZ+QMghykKa+lTUhTS5i9icIubxEft+igJtvCySkSqd4ReODI7QIewQv/gGDEqvoD"
    "zltm+2TopRdNQgcQSgjdSpALlOBfhlt+r4lUsG5Vk28Cz3a2WTRhT7sLStY4SvtzVUapFL"
    "Ncda/7nt3fbOT4NVwfhK3/euetedYf/q/SkKHxHk/ZWeDS4/XPSGglRnM1vkBwD1u07/Qj"
    "SJY/bif7ANz34XDSOL6Xei5axzdda78Il0gZMVJgntfssJRooNd6wV/EzyqNTN+ppzbFLT"
    "nWqgBV140BrA5xgV+k3Os1UVmNxuUU/JoN90hGFF8c4tV+48cHCJ4zBHEwkMdVRGmkvpiw"
    "aJ9j6CBuG4KNy8CvmYT2Hf4PyrKh2lSkdJDKgBjuy0DpwxgwIzVycu+laOVvOTJDnGJ/1x"
    "Eh0c80ntkysJrkc8ubKjvZ4NFg3wvXnwyOCdXV4f9QL2XR8cqpsEtxPcg0BNg9hjilGFHq"
    "UOPYrQV1OXspBXpfgWqbAokNkkkp/hVTX0ZJ5PEhQ6lW0yHZJ4VanTpyFnKUqdqom81UL1"
    "yWyTdfNGMmwqa1gVGdg0nBVFBqLRl4e3dqGBTAXY/UR3ZbGBzHQtLjiQHb8bQFeVcdhRGY"
    "dL8auyjEOGol2ZsSmawjIOPuVaX2Nz2PzUz3+cMVEZCHm2+B5akFUZNMNVf3GRji1LlFMI"
    "PhTqZ026tvCj0Zg5xd9a29ylH/AltSL1/uAzlJtJsZQ+JFCeWTliIB+j4YmbDK+yPaWzPS"
    "XJZB9wG1Z+SyS7laWzZ0kqNSTjtqZH1Fs56p2oMeI5IAmiznvvx3lvVU5my2ml0XwoRHh1"
    "2nCCXWa4WxcDGH2nyGITk36l1z2gO0WgjQOTbPdiEHlfJae/yxOXUkwywy9t2pKqzXqwtl"
    "JSzGE9OpjA4zopalk2tSspV+EhMDJvCBUfAC+3QhMEK21QN6BtUmtR+M1hsUOhlV3kCs8a"
    "3OqoRGJFLUTB63gWMFnggiGBDXCuKL24pRs+wKPfvakmUQ33TVkIFZWQRKHomhXoEjxPrg"
    "CdJDrrQ1Dpu3cPP0q0VpakUm9FlcOJoK6huUxjqUYCVvgTczTF9wR+GKLDdBAZj4nOi1VR"
    "7StsOFqovgtRqFQe+F0Ih+jEvG+UY5RhVYUwZDOJJVGB12QMLzIdiq2EEhWYJalUgU5AnE"
    "gfXK0CO5YVFLAG+96Ftl/cNnJZoMEYJeFuyByMJdcWhpXpojsqyljMp4QiUxhdwhDDExgc"
    "efW48asXBjV9zz8bx/zSCu9Z/0M7Kqr5WFHN+mX+VIW/h9Z3UqGeg13XUlUw7DK/qFrIST"
    "6VVSm1hOP1LSfj8gSxNJfKEavOEQvRygNcO4npJrjSYecxpQeXTKlMCfgLzOy0cMot7PD9"
    "5P1GpKrRtukabapo2JNYTC3scs0lhDYQdJZXiVpqUe+XA6Tieg2PDpJ7U69VeCjmUCkkDV"
    "JIKOFz5tzVQTzBoiBvkrUDr9nEMknyKR9fZi2mToCpz8xK4NdLej7pxhstX7vMs8+QtCvd"
    "+wSxvD6+2u/fxn7/k6ga3b+K6kGfIpNGtVC+0rhd63360L8WZZ/jfi3we4yvdHjd71z4Na"
    "ZBftjyK0x3zob9P+B6ME3M++BTpUPt/Lbnf6qUa4YHbbdXHzp9uKZHbWwagub2pud/zBSm"
    "wLLadFxsulmt6eOTdYbJSfkoOckdCnDMkk9hlRu1SR6ZB4O0Vq2KuD0J01b3HEdsNdrEMZ"
    "mhkaKvOa8Qd+EVlEMjtdSD+oEN5naSUclYZhlH677mmrQoBFct6Dy3krbM0lYhChWiUCGK"
    "shBFBHxBaCIhk/KQhHit7YciVI7BTnMM1ImxrZ4p93/nwK3YlgrplffewHsH882dM1CbdQ"
    "/x5xjV50caoO+wZkWPUozK4JbZ4I7K8LnaPdgGhdmpVSdYCtkP5tsej3KgRcUqn8CUk+SQ"
    "YIc4pj5tFfgPYU+7yn3AMY00/sNTOVu3teKGpWq/3F8oV/X7adVubYM48XEnmFQ1EA7JDx"
    "DdF0dH63hkR0flLpnoy9b5opzQglXz3zeDq5IVM2bJLpemztH/0OHV7hBgVPsIWXcgs/iJ"
    "C3R3XfTj5/8BsAkdRg=="
)
