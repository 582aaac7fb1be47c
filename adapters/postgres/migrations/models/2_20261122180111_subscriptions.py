"""Subscriptions, and all that ties users to Stripe. The tier is no column any more: it follows from pro_until."""

from tortoise import BaseDBAsyncClient

RUN_IN_TRANSACTION = True


async def upgrade(db: BaseDBAsyncClient) -> str:
    return """
        CREATE TABLE IF NOT EXISTS "payment_events" (
    "id" VARCHAR(255) NOT NULL PRIMARY KEY,
    "received_at" TIMESTAMPTZ NOT NULL
);
CREATE INDEX IF NOT EXISTS "idx_payment_eve_receive_2e03e6" ON "payment_events" ("received_at");
        CREATE TABLE IF NOT EXISTS "billing_accounts" (
    "customer_id" VARCHAR(255) UNIQUE,
    "customers" INT NOT NULL,
    "checkouts" INT NOT NULL,
    "checkout_busy_until" TIMESTAMPTZ,
    "changes" BIGINT NOT NULL,
    "attempt" INT NOT NULL,
    "failures" INT NOT NULL,
    "due_at" TIMESTAMPTZ,
    "lease_until" TIMESTAMPTZ,
    "rung_at" TIMESTAMPTZ,
    "user_id" UUID NOT NULL PRIMARY KEY REFERENCES "users" ("id") ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS "idx_billing_acc_due_at_d6804b" ON "billing_accounts" ("due_at");
        CREATE TABLE IF NOT EXISTS "checkouts" (
    "id" VARCHAR(255) NOT NULL PRIMARY KEY,
    "url" TEXT,
    "expires_at" TIMESTAMPTZ NOT NULL,
    "payment_intent_id" VARCHAR(255),
    "settled" BOOL NOT NULL,
    "user_id" UUID NOT NULL REFERENCES "users" ("id") ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS "idx_checkouts_payment_64280b" ON "checkouts" ("payment_intent_id");
CREATE INDEX IF NOT EXISTS "idx_checkouts_user_id_f6535e" ON "checkouts" ("user_id");
        CREATE TABLE IF NOT EXISTS "subscriptions" (
    "id" VARCHAR(255) NOT NULL PRIMARY KEY,
    "status" VARCHAR(24) NOT NULL,
    "price_id" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ NOT NULL,
    "current_period_end" TIMESTAMPTZ,
    "cancel_at" TIMESTAMPTZ,
    "past_due_since" TIMESTAMPTZ,
    "user_id" UUID NOT NULL REFERENCES "users" ("id") ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS "idx_subscriptio_user_id_16045d" ON "subscriptions" ("user_id");
        ALTER TABLE "users" ADD "pro_until" TIMESTAMPTZ;
        UPDATE "users" SET "pro_until" = '9999-12-31 00:00:00Z' WHERE "tier" = 'Pro';
        ALTER TABLE "users" DROP COLUMN "tier";"""


async def downgrade(db: BaseDBAsyncClient) -> str:
    return """
        ALTER TABLE "users" ADD "tier" VARCHAR(16) NOT NULL DEFAULT 'Basic';
        ALTER TABLE "users" ALTER COLUMN "tier" DROP DEFAULT;
        UPDATE "users" SET "tier" = 'Pro' WHERE "pro_until" > now();
        ALTER TABLE "users" DROP COLUMN "pro_until";
        DROP TABLE IF EXISTS "subscriptions";
        DROP TABLE IF EXISTS "payment_events";
        DROP TABLE IF EXISTS "checkouts";
        DROP TABLE IF EXISTS "billing_accounts";"""


MODELS_STATE = (
    "eJztXetz2zYS/1c4+nLpjC/jOM7jfDc3I8lKqtaWXFtu08YdDkRCEs8UwJJgFE0u/3sXfI"
    "hP0CKtB2Tjix/ALh+/BRa7i8XyW2tOTWx7L9u2TReIGPiaLlpn2rcWQXMMf5T2H2kt5DhJ"
    "L29gaGwHDCimDJrR2GMuMhj0TJDtYWgysWe4lsMsSjj9bzPENKT5Hna1GfL4H6ZGJxqbYc"
    "1GDHtMM9HySFtwOgv6CSLeArvYPNIQMcP2BTB6mAABSTPOLeIz/JI/iEkNeBKLTHd4T59Y"
    "f/lYZ3SKgcCFO3/+E5otYuKvAE/0r3OvTyxsmxnY+aPplsmvEnTqbOkEHbe3/fMPATl/qb"
    "FuUNufkxyLs2QzSlY8vm+ZLzkj75tigl14VDMlEuLbdiS/uCl8dmhgro9XD20mDSaeIN/m"
    "guXc4cMkbS1dHwxH+k1vpOutgtBjjpRMoiaDEj5gLMI4Pt++h9dNIAhaW/wG3R/b1y9ev/"
    "0heF/qsakbdAYAtb4HjIihkDXAOgEXZFsE9hwwKQc2Is+BClfHzJrjl/yPJsDGDQmyyQzZ"
    "L7Tn7VEvgDAzHksGY58w4VgsG4hw7wNECp4Xfv3z5NXpu9P3r9+evgeS4EFXLe8qwOwPRj"
    "ksLaJPbGs6YzUAzfAoVEtQDfWuPnHpvHxy88laDm6OtWqi8z8OEOwKJEf9y97NqH15xS8/"
    "97y/7FgF8J6ToHWZa30Rql0KK3u46K8uov3WH/2o8X+1P4aDXl45r+hGf7T4MyGfUZ3QhY"
    "7MNCZxc9xUJuiaGinHpaZQqWJyfAbmyj0mXhHajjWtUE9Zzt3Be5zH9vjReP7r5OT163cn"
    "x6/fvn9z+u7dm/fHK2CLXVUId/ofOciZmVJEnfqsKewFVoV7Ne7c3p7cp4xC3jBGxv0Cua"
    "Ze6KEntNSA5KZ2UVJDgkcUfgSy6sMbci+oRCqRS3ULF4m8qUO0yZPW5P4uWqx8mbQ/Ai8P"
    "r4xZ8Prd9k23fQ4GZgb7LNS8a34yz7cggqbB+/In488RQdmxbBseuW0Y1CdM4MIWiY6q/N"
    "hxSK6jkH5NbxbEHzuWixnV8JfAwzQ1RjWTaguLzbQbgNfB/9bgAjRwHP9Hx9z5dDEy4YYa"
    "N0N4u4vPNBPcR8SONBsjDxYvwiwQCGIMzx1WdGt3fXPl38rp3xq+x+hcAHB3htxygHNsOZ"
    "DhsdeANwJPDnRBYXzVbUymbMaNojdvKuD+tX0dIA5UOdt2EHWdhH3ZxTvGrGThFq7aGZ49"
    "rtiSWqHGDBv3YNnUgjTNoyAVQaqPfW8ZavK6PrLgEhvwlfMqQ7nKG3OVjRkiU1zTqUgxPZ"
    "mZtGOXLjKSaiiwFMeTAX1j6muCLNt3y8axEM80iwI0D2ho2dddAhKunWh9Sezwg1P6KXet"
    "roRzrGpxl1nOrs+jE7VncYpNyVc2+ar45JOMT3ZniLmUzgWRyXT3UVVM0ogI1wtGihF7OH"
    "D3OQ0P/PxTGMmrF8TbR/yu9Z+JTwwOihbcif84/W9r9yroESG94HcB5xH+KrB/Y/pGQTzZ"
    "9jmrtHrv0yij0ONo3YvL9qcfMkr9Yjj4GJOnonvdi2GnsA8Kd/eDEVPic4hBz/NtJIL6zL"
    "APlkRmMbtkuHcoBQuVCDzoDGMO+jFwbmvgr1rS6NfVyOuj3hkOLzKod/p5WG8vO73rF68C"
    "EQCRxQRhCsPFHIsGRmSWUyXMSGdI5nL3JNlrk1eoDyzNBbv8IVv7A3WxNSU/4+X2rW05UN"
    "2wvf2Ar7NJ2zzc2BDa5kn3A7Z5agtqR7Z5PatcvPP7iA1fuXy/re34ii1z3y0Js4ltxIhc"
    "mYb1TUP81bFALTcwV7KcylyR2lxx0HKOCdPh3YJftTRZKfOWJtuTUGwJ7h5m4DyVoF3pdq"
    "W49u1zbX8ubdD3Uka5MsqVUS4yyvsmnjsUVLixBGkJTPMiUaWBbiXk+j1ebsFO/9zyDOoE"
    "4wluEFrn6yTDlqmBytMWax5hiQQur7W+w+QcsQG/ktm6JvyKQQXXG1jxfGbUADsiV1A3gH"
    "pMzaU+Q96sTL0Q5C7LIc+w5Y26JQuTqp4O9B0OXBp6QL7TH7Svfy/HPqZPWySd30e9dg59"
    "6KK+a+CaVl6OTVl6+UHdOIV545nLBwTwwUUBwDRnfp2Mz4ShUb6nZLG1TWd8utixS9bdqm"
    "VgxdJwCZAM0T2sAIe1v6rybXeUp7c5N/kSex70CPzjVO9RlWM8D+nWPOE6mmEt4uAFkixj"
    "xiskWczT6IJo1Gdj+vVMC7Xx6rho5hBpUEIpTCbXkIuDY6gwKP2SQk3bvtk6m21x0l0qGe"
    "5IU/lxcuXHBQUo6viVKwblWTbwLA9rZZNGFIewtK1jhPP9tx7x54Uw+noWuVRzrPXLbe+2"
    "d34WrgrmHfnYG/Su26P+4OOZFj0iyPuOdIeXVxe9ESc16NzhkXKg/tDuX/AmfuCM/w+2Yf"
    "dn3jC2qXHPW7rtQbd3ERAZHCc72i6ru+n36u0ae36v8sMl2fLjXYUIhQN3rBX8TPOoJIb6"
    "mnNiEcub6aAFPXjQGsAXGBX6TTK7q0otbbe8lWTQbzrC8EAZqy3XsHri4GLXpS6AZtbS1V"
    "kupS8apJwFCJqYobJw80PIJ3wK+wYnQVQRBVVEQWJATXBkZ3XgTBgUmIWKKXHVeL1mce4C"
    "47Mu022AYz6tncOZ4tphDuee9no2eHwu8ObBI4N39lh91EvY951CWzcJbi+4h4GaBrHHDK"
    "MKPUodeuShr6YuZSmvqvhdpsLiQGaTSH6OV1WTkXk+SVDyS7bJ9JTEq4p+PQ85S1H0S03k"
    "rZZsTWebrJs3kmNTWcPquN2m4aw4bhePviK8tY/c5WqhHSa6Dx67y03X8qN3+fG7AXTVgc"
    "Y9HWi85L86vjnFokIjOYqjyoxN3qSPA+KAcq3vkrh0cRbkP84pPyOv+Q7/MkiYVRk2w1X/"
    "4WkGsm1PQ9GXLIOsSc/hfrQ2oW75V0c2d+lHfFOkTL0/+gzlZlIspQ8JiDMrxxTkYzY8cZ"
    "PjVbandLanJJnsQ+bAym/zZDdROnuepFJDUuboRky9laPeczq2olqDvguSwOq892Gc904E"
    "V0xqFcSTE1FLnMi6vhi2nFYaz4dShB9OG06xywx362IIo+9Ms+nUInfkugd0Zxpo49Ak27"
    "8YeN6X4PS3OHEpwyQz/NKmLakqZU/WVkqLeepjzwNh2XhSJ0Utz6Z2JTfxZdbN2aFXYf24"
    "3hcs/I5onqTSDo3r0WFOXeOEpWV6/LOc3HcOWeFPxLQZ+oLDT3rOsOVqeDLBRsmHQBtdYc"
    "Oet6o2WrqEP7LaqIsNbH1ptF+fY1WHymVbXiRRgTewQgHyAu2X6q1UfF5IJ281ZHUGe+Of"
    "HVaHgp+qaso4OABhEyGn+VSSicwSVpvlqjat2soV2kf+ePXaIiMpR1JtKaWI5TWXlDu3DX"
    "fuWRTY6A/i0hlnmkXitPE7krTrvU9X/WteISPp18NwqHlHRtf99kVQjgPkh+ygGEe7O+r/"
    "CteDaQI+7R25at+M9PNbaHGQx3TTh7bbwVW7D9f0iYMsk9Pc3vB7OAimwKowR1KXo1lZjp"
    "PTdYbJqXiUnBb2T1xLUDVUHLdP88g8GKQN2yvn5VmYtobvujwe62DXoqYOPkltcZdeQTk0"
    "Uks9PGrZYG6nGZWMZZZxvO7rnhXZSnUEXeRW0pZZ2ipEoUIUKkQhClHEwJeEJlIyEYck+G"
    "ttPxShtmv2ul2z/zxIiaI9m0+/C34XwBV78DG98t4beO9gvnkLCmqzbr5jgVFVamuAvkub"
    "nQ/JMCqDW2aDOz6x6OlfwDawymrXVh1hKGV/MmXQdnKiQcUqn8GUkyQHrI1dy5i1SvyHqO"
    "eoyn1ACY00/sNzOVy1tXOgQrUv9hfEqv4wrdodfISbT6oaCEfkTxDdV8fH63hkx8dil4z3"
    "5Y9EBZ+FLyL8081wIDoQtWLJL5eWwbT/a7blHeKZjQpwORjVPkLeHcgtfvwCnX2f6fj+N3"
    "uD5KY="
)
