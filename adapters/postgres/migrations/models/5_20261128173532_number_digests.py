"""Counts of guesses and codes under a digest of the number, and the day's use of deleted accounts."""

from tortoise import BaseDBAsyncClient

RUN_IN_TRANSACTION = True


async def upgrade(db: BaseDBAsyncClient) -> str:
    # SQL has no key for the digests, so what is counted under numbers begins anew, and goes; and so do kept replies to
    # strangers, whose scope is the number from now on.
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
        DELETE FROM "guess_budgets";
        ALTER TABLE "guess_budgets" DROP CONSTRAINT IF EXISTS "uid_guess_budge_mobile_fe1e2b";
        ALTER TABLE "guess_budgets" RENAME COLUMN "mobile" TO "number_digest";
        ALTER TABLE "guess_budgets" ALTER COLUMN "number_digest" TYPE VARCHAR(22);
        ALTER TABLE "guess_budgets" ADD CONSTRAINT "uid_guess_budge_number__daa890" UNIQUE ("number_digest", "kind");
        DELETE FROM "otp_sendings";
        ALTER TABLE "otp_sendings" RENAME COLUMN "mobile" TO "number_digest";
        ALTER TABLE "otp_sendings" ALTER COLUMN "number_digest" TYPE VARCHAR(22);
        DELETE FROM "idempotency_keys" WHERE "scope" LIKE 'anybody %';
        ALTER TABLE "messages" ADD "request_id" UUID;"""


async def downgrade(db: BaseDBAsyncClient) -> str:
    return """
        ALTER TABLE "messages" DROP COLUMN "request_id";
        DELETE FROM "otp_sendings";
        ALTER TABLE "otp_sendings" RENAME COLUMN "number_digest" TO "mobile";
        ALTER TABLE "otp_sendings" ALTER COLUMN "mobile" TYPE VARCHAR(16);
        DELETE FROM "guess_budgets";
        ALTER TABLE "guess_budgets" DROP CONSTRAINT IF EXISTS "uid_guess_budge_number__daa890";
        ALTER TABLE "guess_budgets" RENAME COLUMN "number_digest" TO "mobile";
        ALTER TABLE "guess_budgets" ALTER COLUMN "mobile" TYPE VARCHAR(16);
        ALTER TABLE "guess_budgets" ADD CONSTRAINT "uid_guess_budge_mobile_fe1e2b" UNIQUE ("mobile", "kind");
        DROP TABLE IF EXISTS "kept_allowances";"""


MODELS_STATE = (
    "eJztXetz4jgS/1dUfNnZKm4qk8fMXO7qqkjCzHCbQC4hO7s72XIJW4AuRvLachhqb//3a/"
    "kBfgcTIILoSx5Stx8/ya3uVnfrz8aEW8T23rZsm08xM8kNnzZO0Z8NhicE/ijsb6IGdpxF"
    "r2wQeGAHDDimDJrxwBMuNgX0DLHtEWiyiGe61BGUM0n/dYwFwsj3iIvG2JN/WIgPkRgTZG"
    "NBPIEsPGuiqaSj0M8w86bEJVYTYWaF7VNg9AgDApZknFDmC/JWPojFTXgSykZbvKfP6B8+"
    "MQQfESBw4c7ffodmyizyHeCJ/nUejCEltpWCXT6aQS15laDTEDMn6Li761x8CsjlSw0Mk9"
    "v+hGVYnJkYczbn8X1qvZWMsm9EGHHhUa3EkDDftqPxi5vCZ4cG4fpk/tDWosEiQ+zbcmAl"
    "d/gwi7aGYXR7feO23TeMRm7QY47EmERNJmdywlAmJD5//hVedwFB0NqQNzj/0rp5c/T+x+"
    "B9uSdGbtAZANT4K2DEAoesAdYLcGFs88BeACbFwEbkGVDh6kTQCXkr/1gF2LhhgeziC3lZ"
    "aC9a/XYAYWo+FkzGDhOlc7FoIsK9dxApeF749bfDd8cfjj8evT/+CCTBg85bPlSA2en2M1"
    "hSZgxtOhqLGoCmeDSqBaiGctcYunxS/HHLj7UY3Axr1Ycu/9hBsCuQ7Heu2rf91tW1vPzE"
    "8/6wYxEgew6D1lmm9U0odjms7OGiP78I+trpf0HyX/Rbr9vOCuc5Xf+3hnwm7AtuMD41sJ"
    "XEJG6Om4oGuqZEynDpT6hQMDm+AHXlgTAvD+0ZHVWIpzTn9uA9yGJ78Gw8/354eHT04fDg"
    "6P3Hk+MPH04+HsyBzXdVIXzW+SxBTn0pedS5L1aFPceqcV8edzJxxMwwfVEAeiniaSal4G"
    "7cEMemxIsNGVBb4bc0VMBwQfDIaECGHP6ETuqiIXXBWply14L7wcoX8HgEhgZMocCimSEM"
    "1IwLNKKPhKEBNh/yttTW7roB4SfNr+FDwkaQDfKGU+xaRq6HH/JCe0JaXvk51GOkz+FHMJ"
    "E68OzSKC6YNZGFfQcXiYzrXTTRFq2L+7t4Ojdtk+YpvDy8MhHB65+3bs9bF2BvpLBPQy27"
    "JoeTbAtmeBS8r3wy+RwRlGfUtuGRW6bJfSZKPBp5omaVW2MQkhs4pF/SuQHDH/sZpmOOyG"
    "PgcLCQ4MjiaErFGN0CvA75B4IL8OBr+C8fyI/JJdiCG86/EpecIssnBhZNZBPsgS7DBIUB"
    "wUJIqZT/Mrd9c+3uUNPdYfqe4JMSgM/H2C0GOMOWARkeewl4I/DUQBcExnfDJmwkxnKZOD"
    "mpgPvn1k2AOFBlTJ1u1HUY9qV1ihizOipFiucFNQpFjRJzTMwHXk9LS/FoSMsgNQa+Nwsl"
    "eV2XSckl1uA6yYoM7TlZm+fEHGM2IjVtzATT3nxJW7Y0IyWphgBLcOwN6GsTX0NMbd8tms"
    "eleCZZNKBZQEPNvu4SsODaitRXRA/fOaGfMNfqjnCGVS/uKo+z60vvRO2vOMGmx1e18dX+"
    "yb30T56PsXA5n5R4JpPdzSqfpBkRLueMLEfsacfdtyQ88PP3Uk9ePSfeS/jvGv8c+syUoK"
    "DgTvLH8b8a2xdBz3DpBb9zOPfJ9xL9N6ZfyYmn2rZ3lVRv/9JPCfTYW/fmqvXLjymhftnr"
    "fo7JE96988veWW5bHO7uBzOmwOYoBz3LtxYP6ivDPlgSBRV2wXQ/4xw0VFZiQacYM9APgH"
    "NTE3/ekkS/rkReHvWzXu8yhfpZJwvr3dVZ++bNu2AIgIiKEjeF6RKJxQpKZJpTx08pp0hm"
    "QjkV2WtTd1CfWJpzevlTuvYn7hI6Yj+R2ea1bTVQXbO+/YSts07dPNzYKNXNF91P6OaJLa"
    "gt6eb1tPLynd9nbPiqZfttbMe3XDP33QI3W7mOGJFr1bC+aki+OxTE8grqSppTqytKqysO"
    "nk0IEwa8W/CrliQrZN7Qx7YXgm2Bu0cEGE8FaFeaXQmul7a5Nv8trdH20kq5Vsq1Ul6mlH"
    "/2ieed+RbowCV6eYaiUjUfSVpjEBAvGcfbHxMkdYEgzB3D400GxP3Bi3N+py5nIxRcl3jN"
    "uDWIdT9F2EPwYjP5Gwfh8WPs5YN1136He3bPOgKBCWLTR7isjO6dXzWKYm4ijyMqghzoVP"
    "8DmRELWXQEd2miuBe0WCSmHMgfSxOcvzXCixghs6R6gEkf2ibLhAIXCcHK1KMl87mi6a6u"
    "rbLF0KSKjYXs4C2raeUY92KrIaNnHS6jZh2Wa1mHWSUr+DQKUW4DoLllKYV4zKsy0I3z3k"
    "X7FJkghO/Zdev29mvv5uIUOdjzZA5QVgouMwjv3i8xCO+yFstiEGRXehAC2VpoRrZcF8+K"
    "53uSKTMCNvV2MZt0GaOx/9u33/PZ7NhwwzV3yWi8JItOxF1HLtr6VK2ORSYOB2vZnIFiXK"
    "Jt5YkqFS66IDdAs9iAS/RbwzO5E8hIuIFWNnZD2ZiP2bLe0jmDymuesg5T+WXUADsi11Cv"
    "APWAWzMDrKpxkXhh2C1RKlJsWf/ZTITx6/sD/ZkELgk9IH/W6bZufi3GPqZPOn/Ofu23Wx"
    "n0oYv7rklqOtQybNqplp3UK2eLrT1JbIcA3rkNFzA3hV8nuWbBsJIyr9g25rqTa1zi2AXr"
    "btUyMGdZcQlQDNEXWAF2K5RNpzZtKSVifWbyT8QRT9VMzdE0q4zkB6A26hZP7YcVd34ISp"
    "gGOwcs9u1HVXiwh8JtHAtZvpwZcZWe04VPnzMSl+8J3bhoQEaUeWGNEFpQWmSL931GVRHV"
    "nNkqxUKtyZWti6zqIqtKql26HOgeKwG6HOg2PqFdLAe6Jz7zXa8OunfDsFPFQhWXMYqYcF"
    "fE86CnxHhL9DarzLZJSFfDXos45OkS1BzL4yWo8BCfMhmrNeDfT1HoUJsXV0yVXAzOnwhL"
    "rwSFUqXxBDPDLzjlYtM3WyY1JU5RT6SON5HOJlcrmzxYrutsDc4Z9ObgCpuDu+WcVGYods"
    "0wKdtHWS66r3RTRalvrPGfu/Zd++I0XBWse/a53W3ftPqd7udTFD0ijPc9O+9dXV+2+5LU"
    "5BMncAzes0+tzqVskuXZ5P9nl73zn2TDwObmg2w5b3XP25cBkSlxsqPkkpePGoSZ4sAda8"
    "WvJHl0yl99yQmI+aNxkQ5ejnmSR2O+CuaUPcjK52GV/gLsP9kcl4KfZ84MwlBy79UwXPTu"
    "zi7b6Pqmfd657fS66aUp6JRNi3Swm3brMlvjkjLqjQ1Y7z14rhrTPceo5/wqFX+qfC6bdX"
    "spBv3aa09jcwwabG1sc3wa3NrOwg17Cvcc3EiRqI9unlHDW+BhdV3uGjJTqM5yl+bSa90K"
    "ZTQCBC0icFFc51PIL/g09itUt9OF4XVheIUBtQgW4zpwLhg0mLlTIOLYPqNmaFSO8VUHSZ"
    "lj7I5q16VJcG2xLs0LBVWvsSRo4HM1XALv7In6qBewv3RZoOKdWcVwD93pK+wQpRj1BpHS"
    "G0Ryg2JVi72QV0eYFJrtoQt61Y24JL/CNk7jqtPtXLUuT9GEMjrB9j277H09RaA63LOr9k"
    "Xn7gq6iEX9yT370vn85RSN6Wisxl5akPsgl2hsinqHJxZwKnUo84tN+zCdpLZ9mWXTYMqW"
    "SIGpnU+c5HpGWNLueElqZBPPwwBWiYPJ8OqTi1TWcxQ4Xk41JWefhlcfMPc6xlmJA+b0h7"
    "zR44GTsdrLqjkZNl02RZd2XjecuYyR/KTNw1u7vHPm3L3dRPfJEs+Zz7W4zHN2/q4BXV08"
    "+4WKZ1/JX5XFszMUzcp8J9kUFc8OKJ/Meeoxglw+Des+TLg8jwH5DhI8ykkKm+GqP3jIxL"
    "Yti1iH6blBzpHnSP8mGnI3n+G03ks/o9JEkXh/dhHJZT4NFapIPtPNUp6XNOAwPtaKJccy"
    "vFr3VE73VCUPVP46B+lQJR3j/iVkYyBolheNkjyughNcYFFAx8HUktJJZm/CtHwMCuSY8H"
    "SSnoq3KFnfX+Z1RtmeQdqm/F+uSMVScyt3LSzUG1FHC2XS1ey7MKtIrnjv87JFdTVf2beN"
    "ar67lda43Ph0+fTNj69YRGs7dmNugbQcXBbRNJcGdTcDapXXyRPH70Wrcg7RikP3Fiwq5y"
    "4vD+mGox8C/SsPcHno/ZxhL+DddtA96K4mn9Sa0QmWvYA8PaOPlqkFeVReC/Iod6yRzp/U"
    "+ZO7CK7On9T5k7sEryIetJ5wYO205YJSVk4tS9Ks8qNx4ciYzpB6I6dFTfiA2qTK66SdTE"
    "o6mRYDt6zulhjq/VPd1m+MVNp7T0fL74jtB+YCzD4ZHT+i7J7dtIHuFLnECzc1X34YZEZ7"
    "yQFS5XZhikll+JW1Dcl3h8IsWMGHnebUu41Ku7Kjc7ThAx7W8RVm2bTDUDk99JYwC962XA"
    "tNEDypg3oh7SpnxMt91eiQdimVPeTJ2BTB50e7V5zhLnld3wYmm/MHJLEBzieOjN/QDfXp"
    "K7t5+ooc/bpHWid4Xt2J1opIsGs8k0Fs7Uf4USLDsiSVUswJiQ0iqWvIMWrNhUrIGoaHjP"
    "EjgR+W7KAuIsMhMUtOh6p9hTVH35WLl0KDfA9kysnJMkLl5KRcqsi+arHiEpPQx5WCPDKs"
    "KkV5aAVZoXC8GzKEFxn3pbO3RARmSSpFoBsSJ7zHT4vAVhgch0GJ8jxo+8FrIo+HEkweWh"
    "dGF8tgOc+Rahb10AOThypMx4QhKlUwqZbhEUyOvHhc+9ULXZyBHyAfSxfd09CBdMr6OOuf"
    "G66PDH/ugbHa8bO361rqTAanzC6qHuQkn85SVnqEF+tbbozLwyrTXDqssjrnMkIrD3DtpM"
    "Db8Er7nReYnlwqpQYm4C9Qs9ODU65hR++3gY360kwQfWLYNuKq9yXXQxWJu3OLqY09YXiE"
    "sBUGOsurh1rpod4tA0j79VYsxUUeqVnrgIUFhw4oWSGghBEx5e5DHcQTLBryVWJ44DVX0U"
    "ySfNrGV1mK6UzUTVr3ut5PPHl2s97PrT+Yv3aZZZ8haVaa9wlidW18vd+/if3+V3GGcacb"
    "n058iiiLawvfs0W70f7lunMjDyFe9Buh3WPds/5Np3UZnHgM44ft4Lzj1nm/8zNcDz4T+g"
    "jXum7d9o2LO2hxpF1s+dB2171udeCaPpMlVyTN3a28h4PhE5iffbw4+pisdPLx4fEy0+S4"
    "fJYc51IEXLAICtffcqU2yaPyZFBWq9Uet1eh2pq+68qtRoe4lFsG2CS1h7vwCtqgUXrUw3"
    "OSVvi2k4x6jFUe43jdNzzKilxw1QOd59ajrfJoaxeFdlFoF0WZiyIGvsA1kRiTcpeEfK3N"
    "uyJ0jMGLxhi8fKq/Qt6e9WeYB79z4FZsS+E9KoC1besd1DdvykFs1k3pzzEqfAShuui7fL"
    "Ui4ilGrXCrrHDHx1p4xiPoBoXRqVUZLIXse3OG+VYSWrSv8hV8cookCbaIS81xo8B+iHqa"
    "VeYDXtAoYz+8lty6jR0WUir2y+2FclG/m1rtxjaIEwW24aOqgXBEvofovjs4WMYiOzgoN8"
    "lkX7bqFxOEFaya/77tdUtWzAVLdrmkpkD/Q/tXu0OCUW0jZM2BzOInL3D20kU//vo/kBId"
    "Fw=="
)
