"""What conversations remember and how a reply is stopped: instructions, titles, cancelling, tokens a day."""

from tortoise import BaseDBAsyncClient

RUN_IN_TRANSACTION = True


async def upgrade(db: BaseDBAsyncClient) -> str:
    return """
        ALTER TABLE "allowances" ADD "input_tokens" BIGINT NOT NULL DEFAULT 0;
        ALTER TABLE "allowances" ADD "output_tokens" BIGINT NOT NULL DEFAULT 0;
        ALTER TABLE "chatrooms" ADD "auto_title" BOOL NOT NULL DEFAULT False;
        ALTER TABLE "chatrooms" ADD "instructions" TEXT;
        ALTER TABLE "messages" ADD "cancel_requested" BOOL NOT NULL DEFAULT False;
        CREATE INDEX "messages_cancel_requested" ON "messages" ("id")
            WHERE "cancel_requested" AND "status" = 'generating';"""


async def downgrade(db: BaseDBAsyncClient) -> str:
    return """
        DROP INDEX "messages_cancel_requested";
        ALTER TABLE "allowances" DROP COLUMN "input_tokens";
        ALTER TABLE "allowances" DROP COLUMN "output_tokens";
        ALTER TABLE "chatrooms" DROP COLUMN "auto_title";
        ALTER TABLE "chatrooms" DROP COLUMN "instructions";
        ALTER TABLE "messages" DROP COLUMN "cancel_requested";"""


MODELS_STATE = (
    "eJztXW1z4jgS/isuvtxsFTeVkMxkjtq6KiDMLLcJzCVk32a2XMIW4IoteW15CTU3//1afs"
    "FvssEOBDOjLwEktS0/LbWebrWcLy2L6th0X/dMk64Q0fAdXbW6ypcWQRaGL8L6ttJCth3X"
    "8gKGZqYvgKKWfjGaucxBGoOaOTJdDEU6djXHsJlBCW//6xIxBSmeix1liVz+RVfoXGFLrJ"
    "iIYZcpOlq3lRVvZ0A9QcRdYQfrbQURPShfgaCLCTQgSUHLIB7Dr3lHdKpBTwyyeMF7esT4"
    "y8MqowsMDRy486c/odggOn4CeMKf9qM6N7Cpp2DnXVMNnV/Fr1TZ2vYrHh5G1+/95vyhZq"
    "pGTc8iGRF7zZaUbGQ8z9Bfc0Fet8AEO9BVPaES4plmqL+oKOg7FDDHw5tO63GBjufIM7li"
    "uXTQmbisparjyVS9H05VtZVTeiSR0ElYpFHCB4xBGMfny9fgujEEfmmL32DwU+/u1cXbH/"
    "znpS5bOH6lD1Drqy+IGApEfaxjcEG3eWCvARMxsGHzDKhwdcwMC7/mX+oAGxXEyMYz5LjQ"
    "XvemQx/C1HgUDMYRYYVjUTQQ4d4niBT0Fz7+2Tm/vLp8d/H28h008Tu6KbkqAXM0nmawNI"
    "g6N43FklUANCUjURWgGthdde5QSzy5+WQVg5sRLZvo/MsJgl2C5HR0O7yf9m4/8stbrvuX"
    "GZkAXtPxS9eZ0leB2aWwsgeL/uYiyq+j6U8K/6n8MRkPs8Z50276R4v3CXmMqoSuVKQnMY"
    "mKoyKRoitapIyUnEJCw2R7DOjKIyZuHtq+sSgxT2nJl4P3LIvt2bPx/Fenc3Fx1Tm7ePvu"
    "zeXV1Zt3Zxtg81VlCPdHHzjIqZmSR516rC7sOVGJeznunG/PHxOkkBfMkPa4Qo6u5mpohw"
    "oJJKfaeU1NCJ5S+OPragRPyL0ggVZCl+oBLhJ6U6fIyePS+P4OWm18maQ/Ag8Pj4yZ//iD"
    "3v2gdw0EM4V9GmpeZXWsbAkiaOE/L+8Z70cI5QD8MYdSq8B5TVa3y3xXLWy4m+tajNh2x+"
    "9TEh74+2ehJ1jNCTyG/9f6ce4RjYOi+Hfify7/3Xp5KvMMl9D/zOE8xU8Fljdqn0EaOnqC"
    "PKKMHQ5/m6aI4fiX3p2P823vtx9S5PBmMv4QNY/t7nhwM+nneAbc3fNHjGDBKwY9K1cL/H"
    "D4fq/Y+9SaGcwUDPc+pSZGRAx+WjAD/QwkDzXwNyVJ9Kta5N1R708mNynU+6MsrA+3/eHd"
    "q3NfBdDIYAXMTnMwx0JFAk+/3CNNS0qHtNEOaXNitc1V6palOcfLt3Ht99TBxoL8jNeHZ9"
    "vNQHXPfHuLr7M/bj7SsWVThom2Bm0VMPR8o1KebsTN1Ue8PgBd/9RyNWr74wluENDzXfZt"
    "RGagNHCyYzQqVHhjncKXDJ0Us/iNznZllBsByeNrcEk+MyqAHTaXUNeAekb1tbpE7lJkXg"
    "hy1mLIU2JZzr5mwR79twN9nwOXhB6Q74/GvbvfxdhH7ZOMpP/7dNjLoA9V1HM0XJHlZcQk"
    "08sOas9dqx5hhlnVP0pLSv+o0f4RUHPmCQI9haQoFqi1n9GwCM++d+kcbJuCdbdsGdiI1F"
    "wCGoboEVaA0wrlNCRF6yQs1bO2BPfnJt9i14WaAv84Udsuc4ytoN2OqZfTJVZCCZ7raGhL"
    "nuxoMFehK6JQj83oU1cJrHFbQYyB183aiomRi4PV18+G1MF35vmUDvbzIGFQeoKcy0PfbJ"
    "c9t2h/L7Hv1lbkVlyztuL8XJJq20KhgPQsa3iWp7WyNUYVp7C07ULCB0vkDIln5cLouzHy"
    "Rs2x1n8fhg/D626wKuifyYfheHjXm47GH7pK2EXQ92cymNx+vBlOeVONWjaPlEPr973RDS"
    "+aI8Pkv4EbDn7mBTOTao+8ZNAbD4Y3fiON42SaQTbhDk6AhZ5UE5MFW8LP87clQyua0+fZ"
    "4RLN9o5flYtQ2HDHSsHPpIzcSq9uOecGMdylClbQhY5WAD4nKNGvk0RSljV52EzVhkG/7w"
    "jDlozUA6ejfuPgYsehDoCmV7LVaSlpL6rbiwBBHTMkCjdvQz6Wk9jXSDoLvPkKpiQhccSc"
    "9oaaEE5QPQdXMc1JEQloFlAdHNllFThjAQlmFszNAXC14jnbnOB3feJWA8d8ITriVpqlm5"
    "B6wRTdI+317DFT1/fmwSODZ3ZZddQF4jJDegfcg0BNjdhjSlCGHhsdeuShr7oupVBWHt4V"
    "mbAokFknkp+R3cOEOiGP59TmU7AFWlXHsZQ0l41Wb2LHu6qOM6JyGjdZz45HFjXmcUJMTu"
    "RGKziTbbJr3khGTGYN519FJY/bPQ/OkuN20ejLw1v5yF3mtQunie7WY3eZ6So+epcdv3tA"
    "Vx5oPNKBxlv+0ff0BWZF2ZrpFu3SjE1epM78xn7LrVmbE4IVh666fv6jRS3+CkrPVhgNsy"
    "qDYrjqP1xFQ6bpKih8KaWfNena3I9W5tTJ52ju99LPeP2lyLw/+wzlflIsGx8SKM6snFHQ"
    "j17zxE1GVnLPxnHPhmSyT5gNK7/Jk92K0tmzTUotJGW2qkWtD3LU26IzI3ytieeAJrA873"
    "0a571jxeWTWgviybGqG5zIursaDpxWGs0HIcLb04YT4k2Gu3UzgdHXVUy6MMhncjeEdl0F"
    "rHFAyY6vBp73VXD6uzhxKSXUZPgbm7aEn2wDRkGNIF1aUnKlxnGlpJoXHnZdUJaJ51VS1L"
    "JicldyHy9Z3R8PvQf1wNMXUNBEbSn7dIN2L/lGUHkA8SUCysWsUp6I+y7MPgYI6yg5KSd3"
    "WJusYblTJF/MKPcxivhRBLyAHCV0UsyM+GMdnhZJLnRULnT8CNtxw5wHDuzI186/YDjHRq"
    "67omA2q0bScoLyDGB19Jkhogu7xZEj2SYP+1a/dz8adJU+cg3tM/l4N+kqHx3akABy9I9N"
    "1L9h0TZEryso27USin8zJ99e+P89yfBCLZt0Cs5nQyKfPewY2rIlIPZhTSmvR3GbxhD772"
    "U//WCpP4Vmv5jIF5v6Rq27Nbl8582bHRZZaFW4yvp1maPPMKkqIBw2/wbRPT8724XCnJ0V"
    "cxhel90FJwwTwar5n/vJuGgPfCOSXS4NjSn/U0zDPcVtuhJwORjl5D3L0zOLH79A/9jbeF"
    "//D7i0emo="
)
