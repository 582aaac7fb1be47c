"""Counts of guesses and codes under a digest of the number, and the day's use of deleted accounts.

They are tables of their own: the previous version, which counts under the numbers, goes on running while this one is
rolled out. Its tables are emptied, since SQL has no key for the digests, and a later release drops them.
"""

from tortoise import BaseDBAsyncClient

RUN_IN_TRANSACTION = True


async def upgrade(db: BaseDBAsyncClient) -> str:
    # Kept replies to strangers are scoped by their number from now on.
    return """
        CREATE TABLE IF NOT EXISTS "kept_allowances" (
    "number_digest" VARCHAR(22) NOT NULL PRIMARY KEY,
    "day" DATE NOT NULL,
    "used" INT NOT NULL,
    "minute_from" TIMESTAMPTZ NOT NULL,
    "minute_used" INT NOT NULL,
    "input_tokens" BIGINT NOT NULL,
    "output_tokens" BIGINT NOT NULL,
    "empty_cuts" INT NOT NULL
);
        CREATE TABLE IF NOT EXISTS "wrong_guesses" (
    "id" BIGSERIAL NOT NULL PRIMARY KEY,
    "number_digest" VARCHAR(22) NOT NULL,
    "kind" VARCHAR(16) NOT NULL,
    "wrong_at" timestamptz[] NOT NULL,
    "in_a_row" INT NOT NULL,
    CONSTRAINT "uid_wrong_guess_number__8666ae" UNIQUE ("number_digest", "kind")
);
        CREATE TABLE IF NOT EXISTS "codes_sent" (
    "number_digest" VARCHAR(22) NOT NULL PRIMARY KEY,
    "sent_at" timestamptz[] NOT NULL
);
        DELETE FROM "guess_budgets";
        DELETE FROM "otp_sendings";
        DELETE FROM "idempotency_keys" WHERE "scope" LIKE 'anybody %';
        ALTER TABLE "messages" ADD "request_id" UUID;"""


async def downgrade(db: BaseDBAsyncClient) -> str:
    return """
        ALTER TABLE "messages" DROP COLUMN "request_id";
        DROP TABLE IF EXISTS "codes_sent";
        DROP TABLE IF EXISTS "wrong_guesses";
        DROP TABLE IF EXISTS "kept_allowances";"""


MODELS_STATE = (
    "eJztXetz4jgS/1dUfNnZKm4qk8fMXO7qqkjCzHCbQC4hO7s72XIJW4AuRvLachhqb//3a/"
    "kBfgcTIILoSx6SWrZ/klrdre7Wn40Jt4jtvW3ZNp9iZpIbPm2coj8bDE8I/FFY30QN7DiL"
    "Wlkg8MAOCHDcMijGA0+42BRQM8S2R6DIIp7pUkdQzmT7r2MsEEa+R1w0xp78w0J8iMSYIB"
    "sL4glk4VkTTWU7CvUMM29KXGI1EWZWWD4FQo8waMCShBPKfEHeyhexuAlvQtloi8/0Gf3D"
    "J4bgIwINXHjyt9+hmDKLfAd4on+dB2NIiW2lYJevZlBL9hJUGmLmBBV3d52LT0Fz+VEDw+"
    "S2P2EZEmcmxpzNaXyfWm8loawbEUZceFUrMSTMt+1o/OKi8N2hQLg+mb+0tSiwyBD7thxY"
    "SR2+zKKsYRjdXt+4bfcNo5Eb9JgiMSZRkcmZnDCUCYnPn3+F/S4gCEob8gHnX1o3b47e/x"
    "h8L/fEyA0qA4AafwWEWOCQNMB6AS6MbR7YC8CkGNioeQZU6J0IOiFv5R+rABsXLJBdrJCX"
    "hfai1W8HEKbmY8Fk7DBROheLJiI8eweRgveFX387fHf84fjj0fvjj9AkeNF5yYcKMDvdfg"
    "ZLyoyhTUdjUQPQFI1GtQDVkO8aQ5dPihe3XKzF4GZIqxa6/GMHwa5Ast+5at/2W1fXsvuJ"
    "5/1hxyxA1hwGpbNM6ZuQ7XLY2cNNf94J+trpf0HyX/Rbr9vOMud5u/5vDflO2BfcYHxqYC"
    "uJSVwcFxUNdE2OlKHSS6iQMTm+AHHlgTAvD+0ZHVWwpzTl9uA9yGJ78Gw8/354eHT04fDg"
    "6P3Hk+MPH04+HsyBzVdVIXzW+SxBTq2UPOrcF6vCniPVuC+PO5k4YmaYvigAvRTxNJFScD"
    "duiGNT4sWKDIit8FsqKqC4IHhlNCBDDn9CJXXRkLqgrUy5a8HzYOcLaDwCQwOqUKDRzBCG"
    "1owLNKKPhKEBNh/yutTWnroB5ifVr+FDQkeQBfKBU+xaRq6GH/JCfUJqXvk51GOkz+FHMJ"
    "E68O5SKS6YNZGGfQedRMr1Lqpoi9LF8108nau2SfUUPh4+mYjg889bt+etC9A3UtinoZZV"
    "k8NJtgQzPAq+V76ZfI8IyjNq2/DKLdPkPhMlFo18o2aVWWMQNjdw2H5J4wYMf2xnmI45Io"
    "+BwcFCgiOLoykVY3QL8DrkHwg64MFq+C8fyMXkEmzBA+erxCWnyPKJgUUT2QR7IMswQWFA"
    "sBCSK+VX5rYfrs0dapo7TN8TfFIC8PkYu8UAZ8gyIMNrLwFvBJ4a6ALD+G7YhI3EWG4TJy"
    "cVcP/cugkQh1YZVacbVR2GdWmZIsasjkiRonlBiUJRpcQcE/OB15PSUjQa0jJIjYHvzUJO"
    "XtdkUtLFGkwnWZahLSdrs5yYY8xGpKaOmSDam5W0ZU0zEpJqMLAExd6Avjb2NcTU9t2ieV"
    "yKZ5JEA5oFNJTs624BC6qtcH1F5PCdY/oJda3uCGdI9eau8ji7vrRO1F7FCTI9vqqNr7ZP"
    "7qV98nyMhcv5pMQymaxuVtkkzajhcsbIcsSeNtx9S8IDP38vteTVM+K9hP2u8c+hz0wJCg"
    "qeJH8c/6uxfRb0DJNe8DuHc598L5F/4/YrGfFUO/au4urtX/ophh5b695ctX75McXUL3vd"
    "z3HzhHXv/LJ3ljsWh6f7wYwp0DnKQc/SrcWC+sqwD7ZEQYVdMN3POAcJlZVo0CnCDPQDoN"
    "zUxJ+XJNGvy5GXR/2s17tMoX7WycJ6d3XWvnnzLhgCaERFiZnCdInEYgUhMk2p/aeUEyQz"
    "rpyKnLWpO6hPbM05ufwpWfsTdwkdsZ/IbPPSthqorlnefkLXWadsHh5slMrmi+onZPPEEd"
    "SWZPN6Unn5ye8zDnzV0v02duJbLpn7boGZrVxGjJpr0bC+aEi+OxTY8griSppSiytKiysO"
    "nk0IEwZ8W/CrFicrJN7QYtsLxrbA3SMClKcCtCvVrgTVS+tcm19La9S9tFCuhXItlJcJ5Z"
    "994nlnvgUycIlcnmlRKZpPXc5GxkhSLBuk3B8TJGWBwM0dw+tNBsT9wYtjfoMeUdRjMy4N"
    "fN1PEfYQfNhM/saBe/wYe3ln3bU/4Z7ds45AoILY9BG6ld69814jL+Ym8jiiIoiBTtU/kB"
    "mxkEVH8JQmimtBikViyqH5Y2mA87dG2IkREstWDzDpQ91kGVfgIiZYGXq0ZDxXNN3V1VW2"
    "6JpUcbCQHbxlJa0c4V4cNWTkrMNlxKzDcinrMCtkBUujEOU2AJrbllKIx7QqA9047120T5"
    "EJTPieXbdub7/2bi5OkYM9T8YAZbngMoPw7v0Sg/Auq7EsBkFWpQch3A+K1MiW6+JZ8XxP"
    "EmVGwKbeLkaTLqM09n/79ns+mh0bbrjnLumNlyTRgbjriEVbn6jVscjE4aAtmzMQjEukrX"
    "yjSoGLLpobIFlswCT6reGZ3Al4JDxACxu7IWzMx2xZa+mcQOU9T1mDqVwZNcCOmmuoV4B6"
    "wK2ZAVrVuIi9MOyWCBUpsqz9bCZCbXV/oD+TwCWhB+TPOt3Wza/F2Mftk8afs1/77VYGfa"
    "jivmuSmga1DJk2qmUn9crRYmsPEtshgHfuwAXUTeHXCa5ZEKwkzCt2jLnu4BqXOHbBvlu1"
    "DcxJVtwCFEP0BXaA3XJl06FNWwqJWJ+a/BNxxFM5U3NtmlVK8gO0NuomT+2HGXd+CFKYBi"
    "cHLLbtR1l4sIfCYxwLWb6cGXGWntOFTZ8zEqfvCc24aEBGlHlhjhBakFpki899RlYR1YzZ"
    "KvlCrcmUrZOs6iSrSopdOh3oHgsBOh3oNpbQLqYD3ROb+a5nB927YdipZKGK8xhFVLgr4n"
    "lQU6K8JWqbVWrbJGxXQ1+LKOTtEtQcy+slqPAQnzLpqzXg309RaFCbJ1dMpVwM7p8IU68E"
    "iVKl8gQzwy+45WLTD1smNCUOUU+EjjeRjiZXK5o82K7rHA3OCfTh4AqHg7tlnFRmKHZNMS"
    "k7R1nOu6/0UEWpNdb4z137rn1xGu4K1j373O62b1r9TvfzKYpeEcb7np33rq4v233Z1OQT"
    "JzAM3rNPrc6lLJLp2eT/Z5e9859kwcDm5oMsOW91z9uXQSNT4mRHwSUv7zUIM8WBJ9byX0"
    "nS6JC/+pwTEPNH4yIZvBzzJI3GfBXMKXuQmc/DLP0F2H+yOS4FP0+cGYShpN6rYbjo3Z1d"
    "ttH1Tfu8c9vpddNbU1ApixbhYDft1mU2xyVl1BsbsN978F41pnuOUM/5VTL+VNlcNmv2Ug"
    "z6teeexuYYJNja2OboNLi1jYUbthTuObiRIFEf3TyhhrfAwuq63DVkpFCd7S5Npfe6FdJo"
    "BAhaROAiv86nkF/QaexXyG6nE8PrxPAKA2oRLMZ14FwQaDBzt0DEvn1GTdeoHOGrdpIyx9"
    "gd1c5Lk6DaYl6aF3KqXmNK0MDmargEvtkT9VEvIH/ptEDFJ7OK4R6a01c4IUoR6gMipQ+I"
    "5AHFqhp7Ia32MClU20MT9KoHcUl6hXWcxlWn27lqXZ6iCWV0gu17dtn7eopAdLhnV+2Lzt"
    "0VVBGL+pN79qXz+cspGtPRWI2ztCD2QW7R2BT1Lk8soFTqUuYXm/ZhOElt/TJLpsGUJZEA"
    "UzueOEn1DLek3bGS1IgmnrsBrOIHk6HVNxepLOcocL2cakLOPg2vvmDudYyzEhfM6YW80e"
    "uBk77ay4o5GTKdNkWndl43nLmIkfykzcNbO71z5t693UT3yRTPmeVanOY5O3/XgK5Onv1C"
    "ybOv5K/K5NmZFs3KeCdZZAyCxkHLJ2Oeeowgl0/DvA8TLu9jQL6DBI9iksJi6PUHD5nYtm"
    "US6zA8N4g58hxp30RD7uYjnNbb9TMyTRSx92cnkVxmaaiQRfKZZpbyuKQBh/GxVkw5lqHV"
    "sqdysqcqcaDy1zlwhyruGNcvwRsDRrM8a5TN4yw4QQeLBDoOppbkTjJ6E6blY5Agx4S3k+"
    "2peIuS+f1lXGcU7RmEbcr/5Y5UzDW38tTCRL1R62ijTJqafRdmFckl731etKjO5ivrtpHN"
    "d7fCGpcbny6fvvnxFbNorcduzCyQ5oPLIpqm0qDupkOt8jJ54vq9aFfOIVpx6d6CROXY5e"
    "Uh3bD3QyB/5QEud72fE+wFvNt2ugfZ1eSTWjM6QbIXkKdn9NEyuSCPynNBHuWuNdLxkzp+"
    "chfB1fGTOn5yl+BVxILWEw7snbbcUMrSqWWbNKvsaFw40qczbL2R26ImfEBtUmV10kYmJY"
    "1Mi4FbVnZLDPX+iW7rV0Yq9b2nveV3RPcDdQFmn/SOH1F2z27a0O4UucQLDzVffhhkRHvJ"
    "BVLlemGKSGX4ldUNyXeHwixYwYadptSnjUqbsqN7tGEBD+vYCrNk2mConBx6S5gFX1suhS"
    "YaVMqgkpd6hkfYkl4uqfvb5alqdEV70A+S/Ui3lPhi94ob3CWt69tAZHP+gCQyQPnEhfEb"
    "eqC+e2U3716Ro1/3QusEzau7z1oR/nWNZ9KFrf0IP0o4WLZJJQ9zwsYGka1rZCin1pyphK"
    "Shc8gYPxL4YckK6iIyHBKz5G6o2j2s2feunL0UquN7wFNOTpZhKicn5VxF1lWzFZeYhD6u"
    "5OKRIVXJx0OLxwo5492QIXzIuC9NvSUsMNukkgW6YeOE7fhpFtgKXeMwCFGeB2U/eE3k8Z"
    "CDySvrQt9i6SrnOVLMoh56YPJKhemYMESlCCbFMjyCyZFnj2vvvdDAGVgB8p500TMN7Uan"
    "rIWz/q3h+sLw514Xq80+e7uvpW5kcMr0oupBTtLpGGWlR3ixv+XGuNypMk2lnSqrIy4jtP"
    "IA1w4JvA172u+owPTkUikwMAF/gZidHpxyCTv6vg0c05fGgej7wrbhVb0vkR6qcNyd20xt"
    "7AnDI4StMNBZWj3USg/1bilA2q63YiIu8kjNWtcrLCi0O8kK7iSMiCl3H+ogniDRkK/iwQ"
    "OfuYpkkqTTOr7KXEzHoW5Su9fZfuLJs5vZfm79wfyzyzT7TJNmpXqfaKyujq/P+zdx3v8q"
    "bjDudOO7iU8RZXFm4Xu2KDfav1x3buQVxIt6I9R7rHvWv+m0LoP7jmH8sB3cdtw673d+hv"
    "5gmdBH6Ou6dds3Lu6gxJF6seVD2V33utWBPn0mE67INne38hkOhiUwv/l4cfExWene48Pj"
    "ZabJcfksOc4FCLigERTuv+VCbZJG5cmgrFSrLW6vQrQ1fdeVR40OcSm3DNBJag93YQ9aoV"
    "F61MNbklZY20lCPcYqj3G87xseZUUmuOqBzlPr0VZ5tLWJQpsotImizEQRA19gmkiMSblJ"
    "Qn7W5k0R2sfgRX0MXj7QXyFrz/rjy4PfOXArjqXwHqW/2rb2DuKbN+XANusG9OcIFb6AUF"
    "30Xb5aCvEUoRa4VRa440stPOMRZINC79SqCJZC8r25wXwrAS3aVvkKlpwiQYIt4lJz3CjQ"
    "H6KaZpX6gBdtlNEfXkts3cauCill++X6Qjmr302pdmMHxIn02rCoaiAcNd9DdN8dHCyjkR"
    "0clKtksi6b84uJKN9MGuF/3/a6JTvmgiS7XVJToP+h/cvdIcGo1hGy6kBm85MdnL100o+/"
    "/g+YahxI"
)
