"""What is queued or being generated gets a separate table, and each worker process one lease.

The API of the previous release goes on writing to `messages` while it is replaced: triggers pass on what it queues and
cancels. Its workers find nothing to claim any more. The next release drops the triggers and the columns that only they
read: due_at, rung_at, lease_until and called, with the indexes on them.
"""

from tortoise import BaseDBAsyncClient

RUN_IN_TRANSACTION = True

TABLES = """
    CREATE TABLE "workers" (
        "id" UUID NOT NULL PRIMARY KEY,
        "lease_until" TIMESTAMPTZ NOT NULL
    ) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
    -- Half of each page is left free, so that rows change in place. The table is small however long the history is, and
    -- all of its rows die: vacuum comes by the number of dead rows, at full speed, and gives no page back to the
    -- system, for which it would lock the table.
    CREATE TABLE "queue_entries" (
        "message_id" UUID NOT NULL PRIMARY KEY,
        "attempt" INT NOT NULL DEFAULT 0,
        "failures" INT NOT NULL DEFAULT 0,
        "deaths" INT NOT NULL DEFAULT 0,
        "called" BOOL NOT NULL DEFAULT False,
        "cancel_requested" BOOL NOT NULL DEFAULT False,
        "queued_at" TIMESTAMPTZ NOT NULL,
        "due_at" TIMESTAMPTZ NOT NULL,
        "notified_at" TIMESTAMPTZ NOT NULL,
        "worker_id" UUID,
        "chatroom_id" UUID NOT NULL REFERENCES "chatrooms" ("id") ON DELETE CASCADE
    ) WITH (fillfactor = 50, vacuum_truncate = off, autovacuum_vacuum_cost_delay = 0,
        autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 10000);
    CREATE INDEX "idx_queue_entri_chatroo_6f2b7c" ON "queue_entries" ("chatroom_id");
    -- Workers look four times a second, and hardly ever is anything in it.
    CREATE INDEX "queue_entries_cancel_requested" ON "queue_entries" ("message_id") WHERE "cancel_requested";"""

#: The lease of a message that is being generated goes on until it would have expired, as if one worker had only that.
ROWS = """
    INSERT INTO "workers" ("id", "lease_until")
        SELECT "id", coalesce("lease_until", now()) FROM "messages" WHERE "status" = 'generating';
    INSERT INTO "queue_entries" ("message_id", "chatroom_id", "attempt", "failures", "deaths", "called",
            "cancel_requested", "queued_at", "due_at", "notified_at", "worker_id")
        SELECT "id", "chatroom_id", "attempt", "failures", "deaths", "called", "cancel_requested", "queued_at",
            "due_at", "rung_at", CASE "status" WHEN 'generating' THEN "id" END
        FROM "messages" WHERE "status" IN ('queued', 'generating');
    UPDATE "messages" SET "status" = 'queued' WHERE "status" = 'generating';
    ALTER TABLE "messages" ALTER "due_at" DROP NOT NULL, ALTER "rung_at" DROP NOT NULL, ALTER "called" DROP NOT NULL;"""

#: This release does not write rung_at, nor the status `generating`.
TRIGGERS = """
    CREATE FUNCTION previous_release_queues() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO queue_entries (message_id, chatroom_id, attempt, queued_at, due_at, notified_at)
        VALUES (NEW.id, NEW.chatroom_id, NEW.attempt, NEW.queued_at, NEW.due_at, NEW.rung_at);
        RETURN NULL;
    END $$;
    CREATE TRIGGER previous_release_accepts AFTER INSERT ON "messages" FOR EACH ROW
        WHEN (NEW.status = 'queued' AND NEW.rung_at IS NOT NULL) EXECUTE FUNCTION previous_release_queues();
    CREATE TRIGGER previous_release_queues_again AFTER UPDATE ON "messages" FOR EACH ROW
        WHEN (OLD.status <> 'queued' AND NEW.status = 'queued' AND NEW.rung_at IS DISTINCT FROM OLD.rung_at)
        EXECUTE FUNCTION previous_release_queues();

    -- The attempt is kept, so that a worker that has the message finds its attempt void.
    CREATE FUNCTION previous_release_cancels() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        last_attempt INT;
    BEGIN
        DELETE FROM queue_entries WHERE message_id = OLD.id RETURNING attempt INTO last_attempt;
        NEW.attempt := coalesce(last_attempt, NEW.attempt);
        RETURN NEW;
    END $$;
    CREATE TRIGGER previous_release_cancels BEFORE UPDATE ON "messages" FOR EACH ROW
        WHEN (OLD.status = 'queued' AND NEW.status <> 'queued' AND NEW.cancel_requested AND NOT OLD.cancel_requested
            AND NEW.attempt = OLD.attempt)
        EXECUTE FUNCTION previous_release_cancels();

    CREATE FUNCTION previous_release_claims() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RETURN NULL;
    END $$;
    CREATE TRIGGER previous_release_claims BEFORE UPDATE ON "messages" FOR EACH ROW
        WHEN (NEW.status = 'generating') EXECUTE FUNCTION previous_release_claims();"""

BACK = """
    DROP TRIGGER "previous_release_accepts" ON "messages";
    DROP TRIGGER "previous_release_queues_again" ON "messages";
    DROP TRIGGER "previous_release_cancels" ON "messages";
    DROP TRIGGER "previous_release_claims" ON "messages";
    DROP FUNCTION previous_release_queues(), previous_release_cancels(), previous_release_claims();
    UPDATE "messages" SET "status" = CASE WHEN entry."worker_id" IS NULL THEN 'queued' ELSE 'generating' END,
            "attempt" = entry."attempt", "failures" = entry."failures", "deaths" = entry."deaths",
            "called" = entry."called", "cancel_requested" = entry."cancel_requested", "due_at" = entry."due_at",
            "rung_at" = entry."notified_at",
            "lease_until" = CASE WHEN entry."worker_id" IS NOT NULL THEN coalesce("workers"."lease_until", now())
                ELSE "messages"."lease_until" END
        FROM "queue_entries" entry LEFT JOIN "workers" ON "workers"."id" = entry."worker_id"
        WHERE "messages"."id" = entry."message_id";
    UPDATE "messages" SET "due_at" = "queued_at", "rung_at" = "queued_at" WHERE "due_at" IS NULL OR "rung_at" IS NULL;
    ALTER TABLE "messages" ALTER "due_at" SET NOT NULL, ALTER "rung_at" SET NOT NULL, ALTER "called" SET NOT NULL;
    DROP TABLE "queue_entries";
    DROP TABLE "workers";"""


async def upgrade(db: BaseDBAsyncClient) -> str:
    return f'{TABLES}\n    LOCK TABLE "messages";{ROWS}{TRIGGERS}'


async def downgrade(db: BaseDBAsyncClient) -> str:
    return BACK


MODELS_STATE = (
    "eJztXW1v2zi2/iuEv0wH8C3atJ3OzS4u4Die1ncSO5s429lpBgItMbY2MqmVqLjG3Pnv95"
    "CSbb1HUuyYcgkUcS3xUPJD8vC888/OglnE8V/3HIctMTXJNVt2TtGfHYoXBP6Te7+LOth1"
    "t3fFBY6njiTA65byMp763MMmhzv32PEJXLKIb3q2y21GRfseCnzi/eDDB54RxO4RnxPkYE"
    "58jiy86qKAYuoviUcstCC+aOV3EabbbymihU0DTl6Lx1vMhOfbdLb3JwXU/k9ADM5mBBp4"
    "8Lyvf8Blm1rkG0ARfXUfjHubOFYCYvFWhm2JXuRNg69ceeP2dnj+i2wufsrUMJkTLGiKxF"
    "3xOaMbmiCwrdeCUNybEUo8eFUrBj8NHCcaq/Wl8N3hAvcCsnlpa3vBIvc4cMQgCurwZbbX"
    "OoYxGk+Mm8HEMDqZAV5TxEYiumQyKiaHTbnA58+/wn63EMirHfGA/ufe9at3P/0ofy/z+c"
    "yTNyVAnb8kIeY4JJVYb8GFcc0Cew6Y5AMbNU+BCr0Tbi/Ia/GfJsCuL2yR3a6Gw0J73psM"
    "JISJ+ZgzGYeUF87FvIkIz24hUvC+8PFfJ2/ff3z/87uf3v8MTeSLbq58LAFzOJqksLSpce"
    "/YszmvAWiCRqOag2rId417jy3yF7dYrPngpkjLFrr4TwvBLkFyMrwc3Ex6l1ei+4Xv/8dZ"
    "swBx50ReXaWuvgrZLoNdPNzgN52gL8PJZyS+ot/Ho0GaOW/aTX7viHfCAWcGZUsDW3FM1p"
    "fXl/IGuiZHSlHpJZTLmNyAg7jyQKifhfbMnpWwpyTly8H7Jo3tm2fj+d8nJ+/efTx58+6n"
    "nz+8//jxw89vNsBmb5UhfDb8JEBOrJQs6izgTWHPkGrcq+NOFi5fGWbAc0AvRDxJpBTcnW"
    "viOvZWHwGxFT4xR0J5QfDKaEruGfwXbtoeurc90FaWzLPgebDzSRqfwNBYiFHxbYUwtKaM"
    "o5n9SCiaYvMhq0G92FP3wPyE+nX/ENMRxAXxwCX2LCNzh52wXH1CaF7ZOTSmZMLgj5xIQ3"
    "h3oQDnzJpIm76FTiJFuo0q2vbq9vkeXm5U27h6Cj8efjLh8uf3ezf93jnoGwnsk1CLW4uT"
    "RfoKpqB/W9GbifeIoDyzHQdeuWeaLKC8wHqRbdQtM2FMw+YGDttXNGTA8COY/Yhgcy4tDe"
    "gBxBqY5wzdAKwuCU0JYhH8m03DheOvqOkjm2/Wh0dOkRUQA/Mucgj2QYqh3IahwJwLfpRd"
    "ky/3WG3iUNPEYQY+Z4sCgPtz7OUDnCJLgQyvXQHeCDw10AUm8c1wCJ3xudgaPnwogfufvW"
    "uJOLRKqTej6NZJeC8pR6wxqyNGJGgOKEUoqoiYc2I+sHqSWYJGQ1oEqTEN/FXIyeuaSQq6"
    "2IG5JM0ytLVkZ9YSc47pjNTUK2NER7OSXli7jISkGgwsRnE0oO+Mfd1j2wm8vHlciGecRA"
    "OaBjSU7OtuAVuqF+H6isjhrWP6MXWt7ginSPXmrvI4e4GwSNRexTEyPb6qja+2SR6lTbI/"
    "x9xjbFFgjYzf7pbZIc2oYTUDZDFiTxvuvsbhgb9/FFry6hnxDmG/6/z9PqCmAAXJJ4k/7/"
    "+n8/Is6BkmPfmZwXlCvhXIv+v2jYx4qrm6y7j64LdJgqGvrXWvLnu//Zhg6hfj0ad185h1"
    "r38xPsu4wuHpgZwxOTpHMehpup1YUL8z7OWWyG3u5Ez3M8ZAQqUFGnSCMAX9FCj3NfE3V+"
    "Lo1+XI1VE/G48vEqifDdOw3l6eDa5fvZVDAI1sXmCmMD0isGggRCYpdcyUcoJkKnxTEV+b"
    "uoP6xNackcufkrV/YR6xZ/RXstq/tK0GqjuWt5/QdXYpm4eOjULZfHv7Cdk85oJ6Idm8nl"
    "Re7Pl9hsNXLd1vbx7fYsk88HLMbMUyYtRci4b1RUPyzbWBLTcQV5KUWlxRWlxx8WpBKDfg"
    "t8mPWpwsl3hPi+0oGNsWd59wUJ5y0C5Vu2JUh9a59r+Wdqh7aaFcC+VaKC8UyuHDnzCOnS"
    "KxPNGgXDAXTUGehraVRPPOZE6QJEI+7CEiMh2Hke0MYceBV11MieejtYSejcBt0sEzYmnV"
    "yGhVweeTx0Q2+azFIrwYpSyChbEl6+Y6jWwXmRS7YxqfAuL7Z4EFK6iAa6RalLKNpcfozJ"
    "gJiqqVC77MCY1XA5BdoKgLhDmwgXDth/kxC2xBJ5QsRVuZG9NFgSu4RJhLYzsr5NgLOyfG"
    "f29PuqN3dAgsK+CO/QhdifthTz9Av2H6Qxf5TOQKzDFcQg9kRSxk2TPRd5QHFFJ0EfOSV2"
    "TiAaOy1ILN/TAx4Q4m/qNtEv81EoyTguqM+JJB948k8fwiPvm1E7YwwpcQrR5gNYXWkSoM"
    "NE8MK014rJhFGnFAZbnmSwZHlrg204NXVdfLEB6FszOl6Z1UUfROivW8k7SaJ5dGLsoDAD"
    "QjGCcQX9OqDHSnPz4fnEr5645e9W5uvoyvz0+Ri31fZB6mWWmVQXj7U4VBeJu2mWwHQdxK"
    "DkK4ueQZsnqeh1f58z1OlBoBx/bbKHxUMVtNfv/6R7aGBja8cAOvKLPFSbTcppbcNrTIwm"
    "WcUHMFqnmB6JZtVCq92dvmBkgoe3DKfO34JnMlj4QHaGGjHcLGZsyq+ms2BCrvecq6bMTK"
    "qAF21FxD3QDqKbNWBqhk8zz2QrFXIFQkyNIW/BUPVd/jgf5MABeHHpA/G4561//Kx37dPm"
    "5+PvvXZNBLoQ+3WOCZpKZJP0WmzfrpSd04X3XnaaotArh1Ll9QN3lQJ71vS9BImFcskGLX"
    "6X0ecZ2cfbdsG9iQNNwCFEP0ADtAu4JpFXHOtIJTKaIm/0pc/lRV5kybbpmS/ACtjbrlmY"
    "WNflMvGdO1UyCq+4V9FDqRLcSZhVeRTX/tQZDG/TXFlMxs6qOlzecoz8mx1yc9w9+qmsFa"
    "pYjLHZmrdflmXb5ZSdFKFxo+4o1eFxp+iSXUxkLDR2IXb3vd4aMbhlaVIVacx6iipomYpn"
    "MZ0VSkpCVbdEtVNNHWiAKkqiloPRQ2D/UkEaTlsBm8KrJpWPlVRF5FcWM+8X0g66Ll3Dbn"
    "aIFXoCuhGaO5p+XsrN9cd6p0QqTdqE1z3bRH9aU8qvVdTtrb9FxbY7S8ajqbklTa15QBld"
    "AG1tsYmTbdqqzR6YwrnXGlM66KxNbL8EDDApE1drdUXF0fi1hVUo3ag5zo2ZwTCvIi/LE5"
    "sn0EoxqAdCkky/VVIXQSGF7rNRpSkCj5EphvVwqewiNMBJmUTqP8AtkFUHBvlSfPvvDTq1"
    "R2WFd4i1Ve6yJdjE2tYmzSDpUFuqwwWESgI9saRLa1y7OuzFC0TT4rCgKqlppSGBGk1Brr"
    "/ON2cDs4P422lzv6aTAaXPcmw9GnUxS9Ioz3He2PL68uBhPR1GQLV/q57+gvveGFuCSqm4"
    "vvoC/2fxUXpg4zH8SVfm/UH1zIRqbAyYlqMxw+5QVmigtPrBV8HafRFXPqc05ALJjN84zL"
    "xZjHaTTmTTC36YM4LCw82C4H+18chgvBzxKnBuFeUB/VMJyPb88uBujqetAf3gzHo+TWJG"
    "+KS9tqKteD3kX6iAib2v7cgP3eh/eqMd0zhHrONymYW+ZM3K8/VzHod350EzbnIMHWxjZD"
    "p8Gt7QXfswv8yMGNBIn66GYJNbw5oQOexzxDpLnX2e6SVHqva1CFUiJoEY7zkpKeQn5Lp7"
    "FvUBxen6umz1VTGFCLYD6vA+eWQIOZOURxnZhi1Iz5zxB+19H/5hx7s9plXWNUL1jW9UBR"
    "Ojs8UUPaXA2PwG/2eX3Uc8gPXVU333erGO6hOb2BhyhBqB1ESjuIhIOiqcaeS6tDp3PV9t"
    "AE3dQRF6dXWMfpXA5Hw8vexSla2NReYOeOXoy/nCIQHe7o5eB8eHsJt4hlB4s7+nn46fMp"
    "mtuzuRq+NJm4K7ZobHLi1VkHOZQHlDzfqDPtw1zo2vplmkyDKa5EAkztYjhxqmeEJbXHSl"
    "IjPHkJbw/7ZX7maTGoKTKNakpgXwdXNIkuStHq45RVlh5TkZVV10+KTIeB63NMXjCqfj37"
    "svDWjqxPHTLdTnSfjK5PLdf8CPv0/N0Bujpv4VB5C+Kj9NCHVItuaf6CuGRMZWPZ8skchj"
    "ElyGPLU3lSgdjlo4MVwsRXEzuOvz4DQXaOsEfQlLEHYmVTEp7b2TOKGuWx8Gdn0O4mZUB5"
    "40lxpkA4Ng0rWKZotXVSOflSkZIDksP1gTuUccD1/Qr8TzKaauyvh6a2iDGXzCnBm0TuP8"
    "zER+LJZCgWcNCXyGsUP11G3IiSsDYVBMQ+k5estbfn5BYjiFpHG17cwBN4MHNISaGCboMc"
    "LV2uQNx7iXIF7UomqjY+I7Z89eN3zIa1Pro39T7JB6simqTSoLYzjE15uTt2ZnS0K2cQLT"
    "kpekuicsZgdUj37HOUwlYW4OKA1w3BUcD70qGukRxbZ0bHSI4C8uSMfleltPC74tLC7zIn"
    "4emsJZ211EZwddaSzlpqE7wqWcluCA/cMjPZpkH3aTuZL9rWdBMs5yv0ibGZA9/JfeBHZy"
    "xbxHXYakEo/8EXRyqLo5Ndj/2bmPxvaHR7cYFsUVQIWQwIKMs5LWEvT9AOBcUcCuGIwqph"
    "OV7LskIaCTKF4zKVFcjbUh5SmUFog+VQka0JePcEJkAfvhXsTakWpZsTo8CxobFM893Lyb"
    "fmHDtCMSNGQdHmBZvaDsn4S7Q/RDl/yHakqpoZYmN7fFaG3dvNSk2TT6dTtMRMCRspzD6R"
    "PjGz6R29HkC7U5A//TCO5vDDkGJZORynuGB5llaXLk8LUZWPSYQ9qWAIisXXBJHKy0BZ6Z"
    "V8c20YlQYCbJJSJbe3FmHTzu9ZQHzQ94GP3tfxLqbJtIsxxzAY0CkLqFUX2zSZxlYtq+CY"
    "uzeEWvBrizSvRINumeIl9S3DJ7Ri7PAXUVhc2OaiU3MkPVoSjyDRiYj8xSg8NLSLKFmKNv"
    "e25/Muwj506okPQe8FDhHH8bAHJFDJGgf3+iR9lGo7j1IVI58rEPQ8DxeIwjGaFOKO7beR"
    "lVXZ/ie/f/0jnS4sz+WqCV6cqBl6LbLBpsBThN1fYekCGTzCnwKGn25SyvLdsLFBROuKMd"
    "NDa5PFEZJFJ1oLbux6zBTCWE5ySHWyHXttirlwrinuCFjvhw9VeO+HD8XMV9x7ypNjEvux"
    "USRyilTrZKrpZIowu3+I4kYDcf5MAatLNihldLJQkiEOs7FrH+8TMqrtoTrMQ1MC4482s/"
    "I1GjFK1gfnBH6AHWTOMZ2J5A34F87CLvJZ2BewtZVMfvs8npSc7PMCD657qE+xH0S1UOvv"
    "4yyflsRiq1ztpb1lRBUCsZ2lQxUCUCQGNii4uCZSs8xiZ7JJ9Ranz00JoSh8Z+TbVJ7FTD"
    "ab3RKvN7rslviMfnQhzX2O8E58dbqQplZJariJLBBY64/wlkoPr9LDSxm34Yc0WcUpUj3Q"
    "Sg/0knkPtbOdE0TKlwOUgkv4yqECLsQXmwu1nSOM7sM6TSKe/TRq5qMZC4/slbq6C0KCT/"
    "IFoh31u5/ChLpcna6v9uLo7qa+2mGsndfkHsZ9PhH5VwX2znSTbpnF0wsbxxK6njZ53rjC"
    "m86oyLlhLGE2RB4JfGlpxEh2KeyLFkBn8jyF7Vk95QZtF4Rq+6D1wduX2yZ1jPYhY7TrR6"
    "zqONXnxqm2K2BSldFonQjtu0VBME+kdbmFgTC67rNaI7zd32rI0UkqLUaXi9ERWjuQom/C"
    "no5biE5OLpVk6Bj8OeJzcnCKJefo9+0h9TAjva5rt9UTXYvXvXajN3Ojt6usoioct3WbqY"
    "N9bjTMhE/T6rA1lUe6XfqPHuWGnkDyaJu1DhDfUug8zAZ5mJRw4U6og3iMREPeJPUVfmYT"
    "wSROp1V8lbmYrvm8T+Ven5CznjztPCHnJphufnaRYp9q0i3V7mON1VXxddLSPpKWYJHzIC"
    "dKuVotmy21yoJMZzjqjy+vLgaTwSmy6fqUxzu6vW4MfrsaXg/O4/eNUO+x7ujketi7GI4+"
    "idlgYweG8I72+pPhP6E/WCb2I/R11buZGOe3cMUVarEVwLXb0VVvCH0G1MW2Jdrc3ohnuF"
    "jU7ruj/d6oP7gQV8Lw1jCstfY8eV9lmrwvniXvMxWOPNAIcvffYqE2TqPyZFBWqtUGt+9C"
    "tDUDzxOeRpd4NrMM0ElqD3duD1qhUXrUw/SFBms7TqjHWOUxXu/7hkzAqTvQWWo92iqPtj"
    "ZRaBOFNlEUmSjWwOeYJmJjUmySED9r/6YIHWJw0BCDw1cqVsjas/sCufIzA26JWwof0VFT"
    "L629g/jmLxmwzbqVcDOE+iiHBuh7rNmR3AlCLXCrLHCvE5V84xFkg9zg1LIEllzyAxbaaG"
    "E+i7ZVfgdLLqOUHUaB+CJTdAtUiO3NbpkSEaX5VlIjZPqwzAAO0/CiTOKoDGN+tnF5c61+"
    "KK5+yOFrJjakSDUb02wsn431iGeb8zweFt0pZWB420YZM8j3kiG8twP/CqXXYrNHscTaTu"
    "V8b3EusSqQrlsH4aj5EaL79s2bKoalN2+KLUviXvrMH8qjQxGSCP/vzXhUIPhvSdLbpW1y"
    "9H/o+MrNCzDKTR1pq0Zq8xMdnB261Ppf/w93oTQi"
)
