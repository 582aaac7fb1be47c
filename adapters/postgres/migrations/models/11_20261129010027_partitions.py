"""The history of messages in partitions by month.

The table becomes the partition of all that was sent before, without being copied: a CHECK is validated first, while
messages are sent and answered, so that attaching it takes a moment. Messages lose their foreign keys: deleting a room
notes it in `deleted_chatrooms`, by a trigger, and its messages are erased in batches.

The next release drops the index on user_id and the previous release's triggers.
"""

from datetime import UTC, datetime, timedelta
from itertools import islice

from tortoise import BaseDBAsyncClient

from adapters.postgres.history import LATER, MONTHS_AHEAD, PAST, make_month, months
from adapters.postgres.steps import locked
from domain.chat.history import first_id, month_of, next_month

RUN_IN_TRANSACTION = False  # the CHECK is validated while messages are sent

# lint: allow ban-drop-constraint - the foreign keys are replaced by the trigger, the CHECK by the partition's range
# lint: allow renaming-table - another table has the name when the transaction ends
# lint: allow renaming-object - likewise
# lint: allow require-concurrent-index-creation - the new table is empty, and attaching takes over the old one's indexes
# lint: allow rows-in-one-go - only ids that are not time-ordered, of which the product makes none

_IS_PARTITIONED = "SELECT FROM pg_partitioned_table WHERE partrelid = 'messages'::regclass"
INDEXES = {
    "messages_pkey": "messages_past_pkey",
    "idx_messages_chatroo_b46e6c": "messages_past_chatroom_id_id_idx",
    "idx_messages_user_id_683af4": "messages_past_user_id_id_idx",
    "messages_unanswered": "messages_past_status_id_idx",
}
TRIGGERS = """
    CREATE TRIGGER previous_release_accepts AFTER INSERT ON "messages" FOR EACH ROW
        WHEN (NEW.status = 'queued' AND NEW.rung_at IS NOT NULL) EXECUTE FUNCTION previous_release_queues();
    CREATE TRIGGER previous_release_queues_again AFTER UPDATE ON "messages" FOR EACH ROW
        WHEN (OLD.status <> 'queued' AND NEW.status = 'queued' AND NEW.rung_at IS DISTINCT FROM OLD.rung_at)
        EXECUTE FUNCTION previous_release_queues();
    CREATE TRIGGER previous_release_cancels BEFORE UPDATE ON "messages" FOR EACH ROW
        WHEN (OLD.status = 'queued' AND NEW.status <> 'queued' AND NEW.cancel_requested AND NOT OLD.cancel_requested
            AND NEW.attempt = OLD.attempt)
        EXECUTE FUNCTION previous_release_cancels();
    CREATE TRIGGER previous_release_claims BEFORE UPDATE ON "messages" FOR EACH ROW
        WHEN (NEW.status = 'generating') EXECUTE FUNCTION previous_release_claims();"""
NO_TRIGGERS = """
    DROP TRIGGER "previous_release_accepts" ON "messages";
    DROP TRIGGER "previous_release_queues_again" ON "messages";
    DROP TRIGGER "previous_release_cancels" ON "messages";
    DROP TRIGGER "previous_release_claims" ON "messages";"""
DELETED = """
    CREATE TABLE "deleted_chatrooms" ("id" UUID NOT NULL PRIMARY KEY);
    CREATE FUNCTION chatrooms_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO deleted_chatrooms (id) SELECT id FROM gone ON CONFLICT DO NOTHING;
        RETURN NULL;
    END $$;
    CREATE TRIGGER chatrooms_deleted AFTER DELETE ON "chatrooms" REFERENCING OLD TABLE AS gone
        FOR EACH STATEMENT EXECUTE FUNCTION chatrooms_deleted();"""


def renamed(names: dict[str, str]) -> str:
    return "".join(f'ALTER INDEX "{old}" RENAME TO "{new}";' for old, new in names.items())


def switch(bound: datetime) -> str:
    """All ids that are not time-ordered go to the last partition."""
    *ahead, last = islice(months(bound), 2 * MONTHS_AHEAD + 1)
    return f"""
    LOCK TABLE "messages", "chatrooms";
    {NO_TRIGGERS}
    ALTER TABLE "messages" DROP CONSTRAINT "messages_chatroom_id_fkey", DROP CONSTRAINT "messages_user_id_fkey";
    ALTER TABLE "messages" RENAME TO {PAST};
    {renamed(INDEXES)}
    CREATE TABLE "messages_by_month" (LIKE {PAST} INCLUDING DEFAULTS, CONSTRAINT "messages_pkey" PRIMARY KEY ("id"))
        PARTITION BY RANGE ("id");
    ALTER TABLE "messages_by_month" RENAME TO "messages";
    CREATE INDEX "idx_messages_chatroo_b46e6c" ON "messages" ("chatroom_id", "id");
    CREATE INDEX "messages_unanswered" ON "messages" ("status", "id")
        WHERE "status" IN ('failed', 'blocked', 'cancelled');
    {"; ".join(map(make_month, ahead))};
    CREATE TABLE {LATER} PARTITION OF "messages" FOR VALUES FROM ('{first_id(last)}') TO (MAXVALUE);
    WITH moved AS (DELETE FROM {PAST} WHERE "id" >= '{first_id(bound)}' RETURNING *)
        INSERT INTO "messages" SELECT * FROM moved;
    ALTER TABLE "messages" ATTACH PARTITION {PAST} FOR VALUES FROM (MINVALUE) TO ('{first_id(bound)}');
    ALTER TABLE {PAST} DROP CONSTRAINT IF EXISTS "messages_past_ids";
    {TRIGGERS}
    {DELETED}"""  # noqa: S608 - names and ids of our own making


async def upgrade(db: BaseDBAsyncClient) -> str:
    if await db.execute_query_dict(_IS_PARTITIONED):
        return ""  # interrupted just before this was noted
    # The next month, unless it begins before this has ended.
    bound = next_month(month_of(datetime.now(UTC) + timedelta(days=7)))
    is_checked = not await db.execute_query_dict(f"SELECT FROM messages WHERE id >= '{first_id(bound)}' LIMIT 1")
    if is_checked:
        await locked(
            db,
            f"""
            ALTER TABLE "messages" DROP CONSTRAINT IF EXISTS "messages_past_ids";
            ALTER TABLE "messages" ADD CONSTRAINT "messages_past_ids" CHECK ("id" < '{first_id(bound)}') NOT VALID""",
        )
        await locked(db, 'ALTER TABLE "messages" VALIDATE CONSTRAINT "messages_past_ids"')
    await locked(db, switch(bound))
    return ""


async def downgrade(db: BaseDBAsyncClient) -> str:
    """Copies what was sent since."""
    return f"""
    LOCK TABLE "messages", "chatrooms";
    DROP TRIGGER "chatrooms_deleted" ON "chatrooms";
    DROP FUNCTION chatrooms_deleted();
    DELETE FROM "messages" USING "deleted_chatrooms" WHERE "chatroom_id" = "deleted_chatrooms"."id";
    DROP TABLE "deleted_chatrooms";
    ALTER TABLE "messages" DETACH PARTITION {PAST};
    INSERT INTO {PAST} SELECT * FROM "messages";
    DROP TABLE "messages";
    ALTER TABLE {PAST} RENAME TO "messages";
    {renamed({new: old for old, new in INDEXES.items()})}
    ALTER TABLE "messages"
        ADD CONSTRAINT "messages_chatroom_id_fkey" FOREIGN KEY ("chatroom_id") REFERENCES "chatrooms" ("id")
            ON DELETE CASCADE,
        ADD CONSTRAINT "messages_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users" ("id") ON DELETE CASCADE;
    {TRIGGERS}"""  # noqa: S608 - names of our own


MODELS_STATE = (
    "eJztXW1z4ji2/isqvkxPFTeVTndPz81u3SpCmG7uJJBNyPbsdKZcwlbAGyN5bTk0NXf++z"
    "2SbfB7sAOJTOtLCLaObB5JR+ddf3YWzCKOf9RzHLbE1CTXbNk5RX92KF4Q+Kfwfhd1sOtu"
    "7ooLHE8dSYDjlvIynvrcwyaHO/fY8QlcsohverbLbUZF+x4KfOL94MMHnhHE7hGfE+RgTn"
    "yOLLzqooBi6i+JRyy0IL5o5XcRpptvGaKFTQNOjsTjLWbC82062/uTAmr/JyAGZzMCDTx4"
    "3tc/4LJNLfINoIi+ug/GvU0cKwWxeCvDtkQv8qbBV668cXs7PP9FNhc/ZWqYzAkWNEPirv"
    "ic0TVNENjWkSAU92aEEg9e1UrATwPHicYqvhS+O1zgXkDWL21tLljkHgeOGERBHb7M5lrH"
    "MEbjiXEzmBhGJzfAMUViJKJLJqNictiUC3z+/CvsdwOBvNoRD+h/7l2/effTj/L3Mp/PPH"
    "lTAtT5SxJijkNSifUGXBjXPLDngEkxsFHzDKjQO+H2ghyJf5oAG1/YILtZDa8L7XlvMpAQ"
    "puZjwWQcUl46F4smIjy7hUjB+8LHf528ff/x/c/vfnr/MzSRL7q+8rECzOFoksHSpsa9Y8"
    "/mvAagKRqNagGqId817j22KF7cYrEWg5shrVro4p8Wgl2B5GR4ObiZ9C6vRPcL3/+PE7MA"
    "cedEXl1lrr4J2S6DXTzc4NedoC/DyWckvqLfx6NBljmv201+74h3wgFnBmVLA1tJTOLL8a"
    "Wiga7JkTJUegkVMiY34CCuPBDq56E9s2cV7ClN+XLwHmexPX42nv99cvLu3ceT43c//fzh"
    "/cePH34+XgObv1WF8NnwkwA5tVLyqLOAN4U9R6px3x53snD5yjADXgB6KeJpIqXg7lwT17"
    "E3+giIrfCJORLKC4JXRlNyz+BfuGl76N72QFtZMs+C58HOJ2l8AkNjIUbFtxXC0Joyjmb2"
    "I6Fois2HvAb1Yk/dA/MT6tf9Q0JHEBfEA5fYs4zcHXbCCvUJoXnl59CYkgmDP3IiDeHdhQ"
    "JcMGsibfoWOokU6TaqaJurm+d7eLlWbZPqKfx4+MmEy5/f7930e+egb6SwT0Mtbi1OFtkr"
    "mIL+bUVvJt4jgvLMdhx45Z5psoDyEutFvlG3yoQxDZsbOGy/pSEDhh/B7EcEm3NpaUAPIN"
    "bAPGfoBmB1SWhKEIvg32waLhx/RU0f2Xy9PjxyiqyAGJh3kUOwD1IM5TYMBeZc8KP8mny5"
    "x2oTh5omDjPwOVuUANyfY68Y4AxZBmR47S3gjcBTA11gEt8Mh9AZn4ut4cOHCrj/2buWiE"
    "OrjHozim6dhPfSckSMWR0xIkXzilKEooqIOSfmA6snmaVoNKRlkBrTwF+FnLyumaSkix2Y"
    "S7IsQ1tLdmYtMeeYzkhNvTJBdDAr6YW1y0hIqsHAEhQHA/rO2Nc9tp3AK5rHpXgmSTSgWU"
    "BDyb7uFrChehGur4gc3jqmn1DX6o5whlRv7iqPsxcIi0TtVZwg0+Or2vhqm+RB2iT7c8w9"
    "xhYl1sjk7W6VHdKMGm5ngCxH7GnD3dckPPD3j1JLXj0j3mvY7zp/vw+oKUBB8kniz/v/6b"
    "w8C3qGSU9+5nCekG8l8m/cvpERTzVXdxVXH/w2STH02Fr35rL3248ppn4xHn2Kmyese/2L"
    "8VnOFQ5PD+SMKdA5ykHP0u3EgvqdYS+3RG5zp2C6nzEGEiot0aBThBnop0C5r4m/vpJEvy"
    "5H3h71s/H4IoX62TAL6+3l2eD6zVs5BNDI5iVmCtMjAosGQmSaUsdMKSdIZsI3FfG1qTuo"
    "T2zNObn8KVn7F+YRe0Z/Jav9S9tqoLpjefsJXWeXsnno2CiVzTe3n5DNEy6oF5LN60nl5Z"
    "7fZzh81dL99ubxLZfMA6/AzFYuI0bNtWhYXzQk31wb2HIDcSVNqcUVpcUVF68WhHIDfpv8"
    "qMXJCon3tNgOgrFtcPcJB+WpAO1KtStB9do61/7X0g51Ly2Ua6FcC+WlQjl8+BPGsVMmlq"
    "caVAvmoinI09B2K9G8M5kTJImQD3uIiEzHYWQ7Q9hx4FUXU+L5KJbQ8xG4TTp4RiytGhmt"
    "Kvh8ipjIOp+1XIQXo5RHsDS2JG6u08h2kUmxO6ZxLrmX9YSzraBVJfsIeaJl1PO9dXooIk"
    "SCqIuYB3xA1hjA6zuC+XbRcs58sikoECfAwCTyoc2K8CPUg8Vkz2bEQ0sPJAoRqV9UzeAF"
    "nvgMNqUdhftzFCqyAj8FMKfOAgsmR8nqy7SoXHlLj9GZMRMU29YO+TInNFmPQ3aBoi4Q5r"
    "AUwt03zFBbYAs6oWQp2srstC4KXLFPh9lstrNCjr0oWm17e9IdvaNDEBoC7tiP0JW4H/b0"
    "A/QbJiB1kc9Ets4cwyX0QFawbC17JvqOMvFCipAJJK/I1J+ILdjcD1OD7mBJPNom8Y+QEF"
    "0o+cYRXzLo/pGknl/GAr52whZG+BKi1QOss9A+2ZQ3VKYcb5nHHS1xZeWWlwxPrgguyA7e"
    "ttaWHOFBhBtkbC0n25haTsotLSdZQ4tcGoUoDwDQnGqaQjymVRnoTn98PjiVGtAdverd3H"
    "wZX5+fIhf7vsj9zbLSbQbh7U9bDMLbrNVyMwjiVnoQws2lyJTc8zy8Kp7vSaLMCDi230bx"
    "fxvD8eT3r3/kq9hgwws38C21piSJ1pzU0pyGFlm4jBNqrn4lqxLRLd+oUnqzN80NkFD24B"
    "b92vFN5koeCQ/QwkY7hI31mG3rMV0TqLznKes0FSujBthRcw11A6inzFoZoJLNi9gLxV6J"
    "UJEiy/rQVjxUfQ8H+jMBXBJ6QP5sOOpd/6sY+7h90g5y9q/JoJdBH26xwDNJTadahkw71r"
    "KTunHG+M4TxVsEcOuCLkDd5EGdBNsNQSNhXrFQpl0n2HrEdQr23aptYE3ScAtQDNFX2AHa"
    "Fc6uiHu0FZxKETX5V+Lyp+qi59p0q5TkB2ht1C2QLmz064rlmMZOgajyHvbX3j7OLLyKbP"
    "qxB0Ea92OKKZnZ1EdLm88LXYp7fdIzXImqGaxVinnekblaF1DXBdSVFK10qe8D3uh1qe+X"
    "WEJtLPV9IHbxtlf+PrhhaFUhcMV5jCpqmohpOpcRTWVKWrpFt1JFE22NKEBqOwVNRGKK5q"
    "GeJIK0HDaDV0U2DWsvi8irKG7MJ74PZCIo0zbnaIFXoCuhGaOF51XtrN9Cd6p0QmTdqE2z"
    "TbVH9aU8qvVdTtrb9FxbY7S8ajqb0lTa15QDldAG1tsEmTbdqqzR6ZxHnfO4f1TbmvN4Ge"
    "bjlIisibuV4mqc1bOtpBq178o8H04oyIvwx+bI9hGMagDSpZAs46tC6CQwvNYRGlKQKPkS"
    "mG9XCp7CI0wEmZROo/wC2QVQcG9VJM++4NNFXsUV9rgtfjv0O12hBaN8HudHADdBX2xYEQ"
    "EXx6eIRSMyK/zTRPqUSKz6wU9nTkVZU0Ls9uBVxJlF3JyT0lyJnHgdJ5bpYouqFFvMjMi2"
    "cGfI9H6lSx7sE05pi82DWVWeMiLQ0Z0NojvbFV2izFC0TUcpC4TbLj2rNCpOqTXW+cft4H"
    "ZwfhqJWHf002A0uO5NhqNPpyh6RRjvO9ofX15dDCaiqckWrhSC7ugvveGFuCTO2BDfzy7G"
    "/V/FhanDzAdxpd8b9QcXspEpcHKiCkGvn/YFM8WFJ9ZKQEjS6Lpt9TmnkKln8yIHSznmSR"
    "qNeRPMbfogjqwMj1ctwP4Xh+FS8PPEmUG4F9QHNQzn49uziwG6uh70hzfD8Si9Ncmb4tKm"
    "ptf1oHeRPajIprY/N2C/9+G9akz3HKGe803Ktlc51Pcb06AY9Ds/QBCbc5Bga2Obo9Pg1o"
    "4E2XMYyIGDGwkS9dHNE2p4C8JnPI95hij1UGe7S1Ppva5BLWSJoEU4LkrMewr5DZ3GvsER"
    "Jfp0T326p8KAWgTzeR04NwQazNxRvnFyllEz7yVH+F1nwJhz7M1qFxdPUL1gcfFXilTb4b"
    "lO0uZqeAR+s8/ro15A/tq13YvjFxTDPTSnN/AQpQi1g0hpB5FwUDTV2AtpdfpAodoemqCb"
    "OuKS9ArrOJ3L4Wh42bs4RQub2gvs3NGL8ZdTBKLDHb0cnA9vL+EWsexgcUc/Dz99PkVzez"
    "ZXw5cmk9fFFo1NTrw666CA8hUlz2N1pn1YD6C2fpkl02CKK5EAU7sgVJLqGVFH7bGS1Ag6"
    "WsLbw35ZnH1dDmqGTKOaEdjj4Iom0UUZ2h2Ij+3BuBXSoyJpkZfio7I4f6ZFtzLOXFwypr"
    "KxbPlkrPmYEuSx5amMthYzMSqAHyYomthx/DgWW3Yuo6tB0XwgVj50/Lmd7fgci2dnOu4m"
    "+Fp5Ab885jocm4aVBjO0WoPWPLCCB/aBO1RxwPj+FvxPMprt2F8PTW0RBymZU4o3iRxtmI"
    "mPxJNJKyzgsKeTI5Q8BUTciNJO1pneIji+KKlmb88pTBqPWkfyclIJCTyYOaQiobzbINtF"
    "p5WLey+RVt6ugPftxmfElm9+/I7ZsE7H2ZsOl+aD2yKaptKgtjPUQnm5O3G6drQr5xCtOF"
    "N7Q6JyVsv2kO7ZLi6FrTzA5UFZa4KDgPelw7EiObbOjE6QHATk6Rn9bpsSsO/KS8C+y51Y"
    "piPrdWR9G8HVkfU6sr5N8KpkJbshPHCrzGTrBt2n7WS+aFvTTbCcr9AnxmYOfCf3gR+dhW"
    "sR12GrBaH8B18UaBFH3Loe+zcx+d/Q6PbiAtmi+AuyGBBQVlDVfi9P0A4FxRwK4YjCqmEF"
    "VbGqkr1TZArHDikrkLeljJ8yg9AGy6EiWxPw7glMgD58K9mbMi0qNydGgWNDY5mKtpcTSs"
    "05doRiRoyS4roLNrUdkvOXaH+Icv6QzUhta2ZIjO3hWRl2bzerNE0+HfLbEjMlbKQw+0SI"
    "78ymd/R6AO1OQf70wzia1x+GDMsq4DjlhaXztLrEdFaI2vo4O9iTSoagXHxNEam8DJSVXs"
    "k314ZRaSDApilVcntrETbr/J4FxAd9H/jofR3vYpZMuxgLDIMBnbKAWnWxzZJpbNWyCo65"
    "e0OoBb+2TPNKNehWKV5S3zJ8QreMHf4iCkAL21x0uomkR0viESQ6EZG/GIWHO3YRJUvR5t"
    "72fN5F2IdOPfEh6L3AIeLYFPaABCp54+Ben6SPvGznkZdi5AsFgp7n4RJROEGTQdyx/Tay"
    "sm22/8nvX//IprTJ85NqgpckaoZei2ywGfAUYfdXWLpABo/wp4ThZ5tUsnw3bGwQ0XrLmO"
    "mhtc7iCMmik4cFN3Y9ZgphrCA5ZHuyHXttyrlwoSnuAFjvhw/b8N4PH8qZr7j3lCfHJPZj"
    "o0jkDKnWyVTTyRRhdv8QBTgG4pyQElaXblDJ6GQxD0McOmLXPoYlZFSbw0+Yh6YExh+tZ+"
    "URGjFK4gNOAj/ADjLnmIrjSIAumoVd5LOwL2BrK5n89nk8qTiB5QUeXPcslHI/iGqh1t/H"
    "qSgticVWuSJBe0vdKQRiO8vbKQSgSAxsUBQsJlKzFFhnsk71FqeETQmhKHxn5NtUnplL1p"
    "vdEscbXX5LfEY/utjbPkd4J746XexNqyQ13EQWCKz1R3hDpYdX6eGljNvwQ5qs4gypHmil"
    "B3rJvIfa2c4pIuVLVknBJXzlUAEX4ovNhdrOEU4eaXoaNfPRjIVHq0pd3QUhwSfFAtGO+t"
    "1P8Sx9WucLnC4dw5WHuPYJ0/2oq8M+ZTozv1Q6afqa3MO4zyci/6rE3plt0q2yeHph40RC"
    "19MmzxtXeNMZFTk3jKXMhsgjgS8tjRjJLoV90QLoTF6ksD2rp8Kg7ZJQbR+0Pnj7atukjt"
    "F+zRjt+hGrOk71uXGq7QqYVGU0WidC+25ZEMwTaV1uaSCMrk2q1ghv9rcacnSaSovR1WJ0"
    "hNYOpOibsKfDFqLTk0slGToBf4H4nB6ccsk5+n17SD3MSa9x7bZ6omv5utdu9GZu9HaVVV"
    "SF47ZuM3Wwz42GmfBZWh22pvJIt0v/0aPc0BNIHm2z1iG3Gwqdh9kgD5MSLtwJdRBPkGjI"
    "m6S+ws9sIpgk6bSKrzIX0zWf96ncC6h2oNnfQjeHrdYn5pRSOn0wXf/sMsU+06Rbqd0nGq"
    "ur4uukpX0kLcEi50FBlPJ2tWw21CoLMp3hqD++vLoYTAanyKbxSWR3dHPdGPx2NbwenCfv"
    "G6HeY93RyfWwdzEcfRKzwcYODOEd7fUnw39Cf7BM7Efo66p3MzHOb+GKK9RiK4Brt6Or3h"
    "D6DKiLbUu0ub0Rz3CxqN13R/u9UX9wIa6E4a1hWGvtefJ+m2nyvnyWvM9VOPJAIyjcf8uF"
    "2iSNypNBWalWG9y+C9HWDDxPeBpd4tnMMkAnqT3chT1ohUbpUQ/TFxqs7SShHmOVxzje9w"
    "2ZgFN3oPPUerRVHm1totAmCm2iKDNRxMAXmCYSY1JukhA/a/+mCB1i8KohBq9fqVgha8/u"
    "C+TKzxy4FW4pfEBHTb209g7im79kwDbrVsLNEeqjHBqg77FmR3KnCLXArbLAHScq+cYjyA"
    "aFwalVCSyF5K9YaKOF+SzaVvkdLLmcUvY6CsQXmaJbokJsbnarlIgozXcrNUKmD8sM4DAN"
    "L8okjsowFmcbVzfX6ofi6occvmZiQ4ZUszHNxorZWI94tjkv4mHRnUoGhjdtlDGDfC8Zwn"
    "s78K9Uei03e5RLrO1UzvcW55KoAum6dRCOmh8gum+Pj7cxLB0fl1uWxL3smT+UR4cipBH+"
    "35vxqETw35Bkt0vb5Oj/0OGVmxdgVJs6slaNzOYnOjh77VLrf/0/F8qYnQ=="
)
