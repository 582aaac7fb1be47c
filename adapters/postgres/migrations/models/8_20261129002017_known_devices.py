"""Devices that have logged in, codes that are bound to their request, and the codes of a day in all.

Codes have a new table: the previous version, which keeps one for each number, goes on running while this one is rolled
out. A later release drops its table.
"""

from tortoise import BaseDBAsyncClient

RUN_IN_TRANSACTION = True


async def upgrade(db: BaseDBAsyncClient) -> str:
    return """
        CREATE TABLE IF NOT EXISTS "codes_total" (
    "day" DATE NOT NULL PRIMARY KEY,
    "sent" INT NOT NULL
);
        CREATE TABLE IF NOT EXISTS "one_time_codes" (
    "id" BIGSERIAL NOT NULL PRIMARY KEY,
    "mobile" VARCHAR(16) NOT NULL,
    "purpose" VARCHAR(16) NOT NULL,
    "challenge_hash" BYTEA NOT NULL,
    "code_hash" TEXT NOT NULL,
    "expires_at" TIMESTAMPTZ NOT NULL,
    "guesses_left" INT NOT NULL,
    "unbound_left" INT NOT NULL,
    CONSTRAINT "uid_one_time_co_challen_b52d23" UNIQUE ("challenge_hash")
);
CREATE INDEX IF NOT EXISTS "idx_one_time_co_expires_21b453" ON "one_time_codes" ("expires_at");
CREATE INDEX IF NOT EXISTS "idx_one_time_co_mobile_750d77" ON "one_time_codes" ("mobile", "purpose");
        CREATE TABLE IF NOT EXISTS "known_devices" (
    "id" BIGSERIAL NOT NULL PRIMARY KEY,
    "hash" BYTEA NOT NULL,
    "session_id" UUID NOT NULL,
    "seen_at" TIMESTAMPTZ NOT NULL,
    "user_id" UUID NOT NULL REFERENCES "users" ("id") ON DELETE CASCADE,
    CONSTRAINT "uid_known_devic_hash_f3b1dd" UNIQUE ("hash")
);
CREATE INDEX IF NOT EXISTS "idx_known_devic_seen_at_07d05e" ON "known_devices" ("seen_at");
CREATE INDEX IF NOT EXISTS "idx_known_devic_user_id_b8614b" ON "known_devices" ("user_id");
        ALTER TABLE "codes_sent" ADD "known_at" TIMESTAMPTZ[];
        DELETE FROM "otp_challenges";"""


async def downgrade(db: BaseDBAsyncClient) -> str:
    return """
        ALTER TABLE "codes_sent" DROP COLUMN "known_at";
        DROP TABLE IF EXISTS "codes_total";
        DROP TABLE IF EXISTS "one_time_codes";
        DROP TABLE IF EXISTS "known_devices";"""


MODELS_STATE = (
    "eJztXW1z4jgS/isqvuxsFTeVybxe7uqqCGFnuE0gl5Cd3ZlsuYwtwBcjeW05DLW3//1asg"
    "1+j+1AIjP6EoLcbZtHUqtf1K0/O0tqYtt72bNtutKJga/oqnOC/uwQfYnhn9zrXdTRHWd7"
    "lTcwfWoLBj2iFM361GOubjC4MtNtD0OTiT3DtRxmUcLpe8j3sPuDBx/6HCM6Q2yBka0z7D"
    "Fk6usu8olOvBV2sYmW2ONUXhfpZPstxbS0iM/wS/54kxrwfIvM9/4kn1h/+FhjdI6BwIXn"
    "ff0dmi1i4m8ARfjVudNmFrbNBMT8rTTL5HcRFzW2dsSFm5vh2U+CnP+UqWZQ21+SFIuzZg"
    "tKNjy+b5kvOSO/NscEu/CqZgx+4tt22FdRU/Du0MBcH29e2tw2mHim+zbvRM4dvMy2raNp"
    "o/FEux5MNK2T6eCII9YTYZNBCR8cFmEcnz//Cu67hUC0dvgD+p96Vy9ev/tR/F7qsbkrLg"
    "qAOn8JRp3pAavAegsu9GsW2DPAJB/YkDwFKtwdM2uJX/J/mgAbNWyR3c6G54X2rDcZCAgT"
    "4zFnMA4JKxyLeQMRnt1CpOB94eNvx6/evH/z4fW7Nx+ARLzopuV9CZjD0SSFpUW0mW3NF6"
    "wGoAkehWoOqoHc1WYuXeZPbj5Z88FNsZZNdP5PC8EuQXIyvBhcT3oXl/z2S8/7w45EAL9y"
    "LFrXqdYXgdilsIoHC/zmJujzcPIJ8a/oy3g0SAvnDd3kS4e/k+4zqhG60nQzjknUHDXldX"
    "RNiZTiUlMoVzA5PgN15Q4TLwvtqTUvEU9JzqeD9yiN7dGj8fz78fHr1++Pj16/+/D2zfv3"
    "bz8cbYDNXipD+HT4kYOcmClZ1KnPmsKeYVW4V8cdLx221gyf5YBeiHiSSSq4O1fYsa2tPQ"
    "JqK3zqDHHjBcEroymeUfgXLloumlkuWCsr6prwPFj5BI+HoWtMRAn/tkY6UBPK0Ny6xwRN"
    "deMua0E92VP3IPy4+TW7i9kIvIE/cKW7ppa5Qo9prj3BLa/sGBoTPKHwRwykIbw7N4BzRk"
    "1oTd/ATUJDuo0m2rZ1+3xXX21M27h5Cj8efjJm4uf3e9f93hnYGwnsk1DzS8vjZbpFJ2B/"
    "m+Gb8fcIoTy1bBteuWcY1CeswHuRJeqWuTCmAbmmB/QVHRnQ/QhGP8K6sRCeBnQHag2Mc4"
    "quAVYHB64EPgn+S6fBxPHWxPCQxTbzw8UnyPSxprMusrHugRZDmAVdoTPG5VF2Tj7dY5WL"
    "Q04Xh+F7jC4LAO4vdDcf4BRbCmR47QrwhuDJgS4IiW+ajcmcLfjS8PZtCdy/9K4E4kCVMm"
    "9G4aXj4FpSj4gwq6NGJHieUYuQ1BAxFti4o/U0swSPgrQIUm3qe+tAktd1kxTcYgfukrTI"
    "UN6SnXlLjIVO5rimXRljOpiZ9MTWZagk1RBgMY6DAX1n4mumW7bv5o3jQjzjLArQNKCBZl"
    "93CdhyPYnUl0QPb53Qj5lrdXs4xaoWd5n72fW5R6L2LI6xqf6VrX+VT/IgfZL9hc5cSpcF"
    "3sj45W6ZH9IICas5IIsRe9hx9zUOD/z9vdCTV8+J9xz+u84/Zz4xOChIPIn/efOvztOLoE"
    "e49MRnBucJ/lag/0b0jZx4soW6y6T64NdJQqBH3roXF71ff0wI9fPx6GNEHvPu9c/Hp5lQ"
    "ODzdFyMmx+YoBj3NtxMP6neGvVgSmcXsnOF+SiloqKTAgk4wpqCfAue+Bv6mJY5+XYlcHf"
    "XT8fg8gfrpMA3rzcXp4OrFK9EFQGSxAjeF4WKORQMlMsmp9kxJp0imtm9KEmuTt1MfWJoz"
    "evlDuvZP1MXWnPyM1/vXtuVAdcf69gO2zi518yCwUaibby8/oJvHQlBPpJvX08qLI7+PCP"
    "jKZfvtLeJbrJn7bo6brVhHDMmValhfNcTfHAvEcgN1Jcmp1BWp1RVHXy8xYRr8NvFRS5Ll"
    "Mu9psh2EYNvi7mEGxlMO2qVmV4zruW2u/c+lHdpeSilXSrlSyguVcvjwJpTpdpFaniAoV8"
    "w5KejTQFtJNe9MFhgJJuTBGsJ3puvBznaKdNuGV11OseuhSEPP7sBtcoNH7KWVI6NVhphP"
    "nhDZ5LMWq/C8l7IIFu4tichVGtkuMil2JzQ++tjzTn0TZlCB1EhRlIqNlUvJXJtzjqqVCz"
    "4vMIlXAxC3QOEtkM5ADARzP8iPWeom3ITgFacVuTFd5DtcSgS5NJa9Rra1tHL2+O/tSbfk"
    "lgxBZPnMtu7hVvx6cKcf4L5B+kMXeZTnCix0aEJ3eI1NZFpzfu8wDyjg6CLqJltE4gElot"
    "SCxbwgMeEWBv69ZWDvJeKCk4DpjNiKwu3vceL5RXLyayeg0IKX4FR3MJsC70gVAZqnhpUm"
    "PFbMIg0loLRS8yk3R5aENtOdV9XWyzAeRLAzZekdVzH0jovtvOO0mSemRi7KAwA0oxgnEI"
    "94ZQa60x+fDU6E/nVLLnvX15/HV2cnyNE9j2cepkVplU549a5CJ7xK+0y2ncAvJTshWFzy"
    "HFk919XX+eM9zpTqAdvy2qh8VHFbTb58/T1bQ0PX3GABr6izxVmU3iaX3jY08dKhDBNjDa"
    "Z5geqWJSrV3qwtuQYayh6CMl87nkEdISPhAUrZaIeysemzqvGaDYPMa560IRs+M2qAHZIr"
    "qBtAPaXmWgOTbJEnXojuFigVCba0B3/NAtP3cKA/5cDFoQfkT4ej3tVv+dhH9HH38+lvk0"
    "EvhT5cor5r4Jou/RSbcuunB3XjfNWdp6m2CODWhXzB3GR+nfS+LUMjZV6yjRS7Tu9zsWPn"
    "rLtly8CGpeESIBmiz7ACtGszrSTBmVZIKknM5J+xwx6qypyh6ZYZyXdArdUtz8x99Jt6yT"
    "qJggJh3S/dQ0EQ2USMmvo69OlHEQTh3I84pnhuEQ+tLLZAeUGOvT7pEfFW2RzWMu243JG7"
    "WpVvVuWbpVStVKHhA17oVaHhp5hCbSw0fCB+8bbXHT64bmhVGWLJZYwsZhrf03QmdjQVGW"
    "lJim6picZptXCDVDUDrYcC8sBO4pu0bDqHV0UWCSq/8p1X4b4xD3sesHXRamEZC7TU12Ar"
    "oTkluafl7Oy+ueFUEYRIh1Gb5rqpiOpTRVTrh5xUtOmxvsZwetUMNiW5VKwpAyomDby3MT"
    "blupXZolMZVyrjSmVcFamtF8GBhgUqa+xqqboaHYtYVVMN6SM90fIQUFKhSYKZOaXfTlAQ"
    "6t0cPJA4jkConUFZUnFwCM8WgMHg52qve31WlaoNUfW2WFW1LlKF1uQqtCZ8TFmgy4p+hQ"
    "xq11qDXWvtippL0xVt072KNvhUSzsp3O0j1Rzr/OdmcDM4OwlWBfOWfByMBle9yXD08QSF"
    "rwj9fUv644vL88GEkxp06YgY9i35qTc85028cjn/DrZg/2feMLWpccdb+r1Rf3AuiAyOkx"
    "3WXXj+dBYYKQ48sdbG6jiPqoZTX3ICYv58kec4LsY8zqMwb4K5Re74QWDBoXU52P9kU70Q"
    "/CxzqhNmnPuguuFsfHN6PkCXV4P+8Ho4HiWXJnGRN20rpVwNeufp4x8sYnkLDdZ7D96rxn"
    "DPMKox36QYblmgcL+xWsmg3/mxTLqxAA22NrYZPgVu7Qj3nsPbBw5uqEjURzfLqODN2Rbg"
    "utTVeAp7neUuyaXWugYVJgWCJmZ6XsLRQ8hv+RT2DQq/qzPT1JlpEgNqYp0t6sC5ZVBgZg"
    "5IjJJOtJr7+TOM3/XOfmOhu/PaJVtjXE9YsvWZduDs8LQM4XPVXAy/2WP1Uc9hf+6Kuflx"
    "WclwD9zpDSJECUYVIJI6QMQDFE0t9lxetS0612wPXNBNA3FxfoltnM7FcDS86J2foKVFrK"
    "Vu35Lz8ecTBKrDLbkYnA1vLuASNi1/eUs+DT9+OkELa76QI5YmknL5Eq0bDLt15kEO5zNq"
    "nkfyDPsgz7m2fZlmU2DyllCBqV3oJs71iG1J7fGS1Nh6vIK3h/UyP6u0GNQUm0I1rbDb9c"
    "+z2DIp5byKURRtYGmygyvFq46jlllDD7a+1u3jLZcywKTu3thO57p9nGJV01jmfnb9gsLT"
    "5X0cY1MTWeoOTmUZVNUlU2wq3Umd17VrOEuyx6LRl4W3dgZZP7zVYWeRpaZrfiZZevzuAF"
    "2Vn/dc+Xn8o/RwoxRFtzRPjzdpU0EsKB/M1RsTjFy6OhF5b3yZDw8QCpLpuNXsRWf9iJuL"
    "HDmwme+wmU3Ge+zNHlG8L0+EP7pSRJXhL0OpiEc6AYuz5oK+aVipOcWr9Evp9EtJSusICd"
    "cH6VAmAaPrFeSfEDTVxF8PTS3uGBTCKSGbeD4xjMR77EapxAaF0Yrip6jxC2H68aZSDl9n"
    "8tKU9/ac3KI7IXW44MWDHb4LIweXFOTpNshXVmV5+LWnKMvTrsTaav0zoqsXP37HYljZo3"
    "sz75NysCqiSS4Faju3dEuvd28RjVblDKLFRcdjLDJnz1eHdM/7b4SylQW4OPljw3AQ8D51"
    "2keox9YZ0TGWg4A8OaJfVymh/7q4hP7rzImvKoNXZfC2EVyVwasyeNsEr0xesmvMfKfMTb"
    "Yh6D7sJ/M4bc0wwWqxRh8pndvwHc/A9PSEK8vEjk3XS0zYDx66w2tEXeS49L/YYP9Ao5vz"
    "c2TNkMWQSYGB0JxTgfbyBBVQkCygEPQozBqaE7UsKyqVYJM4R0FahbwtZZCl6YQ2eA4lWZ"
    "pAdk9gAPThW8HalKIoXZwoAYkNxKLkxV5OeDcWfDc4mWOt4HCCJZ1aNs7ES1Q8RLp4yLan"
    "qroZYn17eF6G3fvNSl2TD6cWtsRNCQspjD6eSji3yC25GgDdCeifXrCP5vm7ISWyciRO8c"
    "EcWV51REdaiap8HDCsSQVdUKy+JphkngbSaq/4m2NBrzRQYJOcMoW9lQqbDn7PfeyBvQ9y"
    "dFYnuphmUyHGHMegT6bUJ2ZdbNNsClu5vIJj5lxjYsKvLbK8EgTdMsNL2Fuah0nFvcOfF5"
    "gI31x4OpzgRyvsYsRvwnf+6ig4HLuLCF5xmpnleqyLdA9u6vIPzu/6NubHztE7xFHJOgf3"
    "+iR1ZHg7jwznPZ+rEPRcVy9QhWM8KcRty2ujKKuy/E++fP09XTpDnD9ZE7w4UzP0WuSDTY"
    "Enibi/1EUIZHAPfwoEfpqkVOQ7AbGGOXXFPdNDc5PFEbAFJ4cKaey41ODKWE5ySHW2HUdt"
    "iqVwrivuAETv27dVZO/bt8XCl197KJJjYOu+0U7kFKuyyWSzySQRdld4Bj9kMeE7EgqEXZ"
    "qkVNi5AXFsi8PDwu7a4folJTwKTWkXeTQQW0KZxL6HuUzTkbglP3vOxAwbLE/+PepOdU5W"
    "jp0Hq6IWckYt1OHKJYjuyXPbLheiLL3RivUqsc/BKTILH9jo4BSahqrUjVw9rE5J33vhjh"
    "CtLMC1K0tcB3c67OISycElU32JGPw56nOyc4o15/D37WEzTmEasjowef8CoExFbVeisSwS"
    "t3WLqa17TGu4NzTNqxw5Mvd0u+wf1csNy7nie8uodbzclkPtTGqwM4lgtqLuXR3EYywK8i"
    "abweBnNlFM4nzKxJdZiqkqKPs07lXNyGjwtLNm5LU/3fzsIsM+RdItte5jxPKa+CqMv48w"
    "Pkxy5ufkiVfL7thyy6zIdIaj/vji8nwwGZwgi0TnU9ySbbs2+PVyeDU4i1/XArvHvCWTq2"
    "HvfDj6yEeDpdvQhbek158Mf4H7wTSx7uFel73riXZ2Ay0ON4tNH9puRpe9IdzTJ45umZzm"
    "5po/w9F5Nust6fdG/cE5bwlOEQwOKKk9Tt5UGSZvikfJm0zOjwsWQe76W6zUxnlkHgzSar"
    "XK4fZdqLaG77o80uhg16KmBjZJ7e7OvYMyaKTu9eCU2AZzO86o+ljmPo7Wfc2zSJ4Lrryj"
    "s9yqt2XubeWiUC4K5aIoclFEwOe4JmJ9UuyS4D9r/64ItcXgWbcYPH/tDom8PbsvGSE+M+"
    "CWhKX0Ayq++tTWO6hv3oqC2KxbGyLDqIqbNUDfpc0OqUkwKoVbZoU7OhrN0+5BN8jdnFqW"
    "wJLL/oxHv7cwn0X5Kr+DKSdJ7l8Pu5ax6OTYD+GVbpn5oG9ppLEfvpfUur3Vji0U+8X2Qr"
    "Gob6dWu7cAcexwF8epg3BIfoDovjo6qmKRHR0Vm2T8Wrp8HGFhfZ0kwv++Ho8KVswtS3q5"
    "tAyG/ocOr3IJB6PcRkibA6nFj9/g9Lmrdvz1fzI1HKo="
)
