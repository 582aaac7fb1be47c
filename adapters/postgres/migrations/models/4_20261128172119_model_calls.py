"""What a reply costs: thoughts, cached tokens, and each call of the model; where a continued reply begins."""

from tortoise import BaseDBAsyncClient

RUN_IN_TRANSACTION = True


async def upgrade(db: BaseDBAsyncClient) -> str:
    return """
        CREATE TABLE IF NOT EXISTS "model_calls" (
    "id" BIGSERIAL NOT NULL PRIMARY KEY,
    "created_at" TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "user_id" UUID NOT NULL,
    "message_id" UUID NOT NULL,
    "attempt" INT NOT NULL,
    "purpose" VARCHAR(16) NOT NULL,
    "model" TEXT NOT NULL,
    "outcome" VARCHAR(32) NOT NULL,
    "input_tokens" INT,
    "cached_tokens" INT,
    "output_tokens" INT,
    "thought_tokens" INT,
    CONSTRAINT "uid_model_calls_message_3db583" UNIQUE ("message_id", "attempt", "purpose")
);
CREATE INDEX IF NOT EXISTS "idx_model_calls_created_c86f74" ON "model_calls" ("created_at");
CREATE INDEX IF NOT EXISTS "idx_model_calls_user_id_eaf04d" ON "model_calls" ("user_id", "id");
        ALTER TABLE "allowances" ADD "empty_cuts" INT NOT NULL DEFAULT 0;
        ALTER TABLE "messages" ADD "thoughts" TEXT;
        ALTER TABLE "messages" ADD "thinking_seconds" DOUBLE PRECISION;
        ALTER TABLE "messages" ADD "kept_characters" INT NOT NULL DEFAULT 0;
        ALTER TABLE "messages" ADD "cached_tokens" INT;
        ALTER TABLE "messages" ADD "thinking" VARCHAR(16);
        ALTER TABLE "messages" ADD "kept_attempt" INT NOT NULL DEFAULT 0;
        ALTER TABLE "messages" ADD "thought_tokens" INT;"""


async def downgrade(db: BaseDBAsyncClient) -> str:
    return """
        ALTER TABLE "allowances" DROP COLUMN "empty_cuts";
        ALTER TABLE "messages" DROP COLUMN "thoughts";
        ALTER TABLE "messages" DROP COLUMN "thinking_seconds";
        ALTER TABLE "messages" DROP COLUMN "kept_characters";
        ALTER TABLE "messages" DROP COLUMN "cached_tokens";
        ALTER TABLE "messages" DROP COLUMN "thinking";
        ALTER TABLE "messages" DROP COLUMN "kept_attempt";
        ALTER TABLE "messages" DROP COLUMN "thought_tokens";
        DROP TABLE IF EXISTS "model_calls";"""


MODELS_STATE = (
    "eJztXetz4jgS/1dUfNnZKm4qk8k8jru6KpIwM9wmkCNkZ3cnWy5hC/DFSF5bDkPt7f9+LT"
    "/A72CHhyD6wkNS+/GT1Opudbf+bMyYQSz3dduy2BxTnQzYvNFCfzYonhH4kVvfRA1s26ta"
    "UcDxyPIJcNTSL8YjlztY51AzxpZLoMggru6YNjcZFe2/TjFHGHkucdAUu+KHgdgY8SlBFu"
    "bE5cjAiyaai3Ym1FNM3TlxiNFEmBpB+RwIXUKhAY0TzkzqcfJaPIjBdHgSk052eE+Pmn94"
    "RONsQqCBA3f+9jsUm9Qg3wGe8K/9oI1NYhkJ2MWjaaYhruJXanxh+xV3d93LT35z8VIjTW"
    "eWN6MpEnvBp4wuaTzPNF4LQlE3IZQ48KhGrEuoZ1lh/0VFwbNDAXc8snxoY1VgkDH2LNGx"
    "gjp4mFVZQ9N6/aF22xlqWiPT6RFFrE/CIp1RMWBMygU+f/4VXHcFgV/aEDe4+NIevHr7/k"
    "f/fZnLJ45f6QPU+MsnxBwHpD7WK3Chb7PAXgIm+cCGzVOgwtUJN2fktfhRB9ioYIXsaobs"
    "F9rL9rDjQ5gYjzmDsUt54VjMG4hw7wNECp4Xvv52+ubsw9nHt+/PPkIT/0GXJR9KwOz2hi"
    "ksTaqNLXMy5RUATdAoVHNQDfiuNnbYLH9yi8maD26KtGyiix8HCHYJksPuded22L6+EZef"
    "ue4fVsQCRM2pX7pIlb4K2C6DlT1Y9JcXQV+7wy9I/EW/9XudNHNethv+1hDPhD3ONMrmGj"
    "bimETFUVFeR1fkSCkqNYVyGZPtcRBXHgh1s9Cem5MS9pSk3B28J2lsT56N599PT9++/XB6"
    "8vb9x3dnHz68+3iyBDZbVYbwefezADkxU7KoM4/XhT1DqnBfH3cys/lC0z2eA3oh4kkiqe"
    "BuDIhtmcSNFBkQW+FbKCqguCB4ZDQiYwY/odJ00Nh0QFuZM8eA+8HK59O4BLoGVCFfo1kg"
    "DK0p42hiPhKKRlh/yOpSO7vrFpifUL/GDzEdQRSIG86xY2iZGnbKcvUJoXllx1CfkiGDD3"
    "8gdeHZhVKcM2pCDfsOLhIq14eooq1KV/d38Hyp2sbVU3h5eGXC/de/aN9etC9B30hgn4Ra"
    "VM1OZ+kSTPHEf1/xZOI5QijPTcuCR27rOvMoL7BoZBs1y8wao6C5hoP2axo3oPsjO8N8yh"
    "B59A0OBuIMGQzNTT5FtwCvTf6B4ALMnw3/ZSMxmRyCDbjhcpY4pIUMj2iYN5FFsAuyDOUm"
    "dAjmXHCl7Mzc9c2VuUNOc4fuuZzNCgC+mGInH+AUWQpkeOw14A3BkwNdYBjfNYvQCZ+KZe"
    "LduxK4f24PfMShVUrV6YVVp0FdUqaIMKsiUiRo9ihRSKqU6FOiP7BqUlqCRkFaBKk28txF"
    "wMmrmkwKLrEB00maZSjLycYsJ/oU0wmpqGPGiI5mJu1Y0wyFpAoMLEZxNKBvjH2NsWl5Tt"
    "44LsQzTqIATQMaSPZVl4AV1U64viRy+MEx/Zi6VrWHU6RqcZe5nx1PWCcqz+IYmepf2fpX"
    "2SeP0j55McXcYWxWYJmMVzfLbJJ62HA9Y2QxYk8b7r7F4YHP3wstedWMePuw3zX+OfaoLk"
    "BB/p3Ex9m/GrtnQc8w6fnfGZyH5HuB/Bu1r2XEk23bu4yrd34ZJhh6ZK17dd3+5ccEU7/q"
    "9z5HzWPWvYur/nlmWxzu7vkjJkfnKAY9TbcRC+oLw95fErnJrZzhfs4YSKi0QINOEKagHw"
    "Hltgb+siSOflWOvD7q5/3+VQL1824a1rvr887g1Ru/C6CRyQvMFLpDBBY1hMgkpfKfkk6Q"
    "TLlySrLXJm+nPrE0Z+Typ2TtT8wh5oT+RBbbl7blQHXD8vYTus4mZfNgY6NQNl9VPyGbx7"
    "agdiSbV5PKi3d+n7HhK5fut7Ud32LJ3HNyzGzFMmLYXImG1UVD8t02gS3XEFeSlEpckVpc"
    "sfFiRijX4N38r0qcLJd4S5PtKBjbCneXcFCectAuVbtiVPvWubY/lzaoeymhXAnlSigvEs"
    "o/e8R1zz0DZOACuTzVolQ0n4i22shvvKYf73BKkJAFfDd3DI83GxHnBzeK+Z07jE6Qf13i"
    "NqNS39e9hbCL4MUW4hv77vFT7Gaddbdyhxzl4RsgMjIDq9gDjMZAaVjHRzePO5XGBK0ZaB"
    "WOQ3mViB36DBXrFateW1f2WVEchdU/KfK8eb+GxPMmLbeuBB5RlVyB/cmQC28HJmNmhUhA"
    "HdHKDHTjon/ZaSEd+OE9vWnf3n7tDy5byMauK8Jx0gxpP53gs7lcja7tOHiRP9DjRKkesE"
    "z3EAM719Hfhr99+z0bWI41J1j+1nSMi5OomNhNhIVtTurpGmRmM1Bc9QXIqAWCT7ZRqexj"
    "rpprD2SxBevkt4arMzuQL8hCiReHIV4s+2xdw+WSQOY1T1rbpZgZFcAOmyuoa0A9YsZCA4"
    "VomsdeKHYKhIoEWdqUteCBK/nxQH8ugItDD8ifd3vtwa/52Eft43aY81+HnXYKfahinqOT"
    "iratFJmyb6UHde3ArY3Hax0QwAe39wHqJveqxLmsCGoJ85LtKG46zsUhtpWz7pYtA0uSmk"
    "uAZIjuYQU4LK8yFWW0o+iEzanJ18R1oaZAP47VNssU41nQrsJ+QEghsoSa+lSkCTW5i9ic"
    "IubxEfveQgE3XibJSKTO8POIBiF0fsIbkXwDBqWXk6102zdbx8UoCjWIhQA0kYoKkCsqwM"
    "/CVkWvXBIozbKGZnlYK5s0XXEIS9s6Qvh6W0OFErlUc6zxn7vOXeeyFawKxj393Ol1Bu1h"
    "t/e5hcJHhP6+pxf965urzlA01dnMFv4B0PpTu3slikSYvfgPsuHFT6JgZDH9QZRctHsXnS"
    "u/kS5wskInof1vOcFIseGOlYyfcRrlulmdcwJi3mSal9KnGPM4jcK8DuYmfRAZ7IJsiznY"
    "f7IYLgQ/S5zqhLGgPqpuuOzfnV910M2gc9G97fZ7yaXJrxRFK7e+Qad9lc5VYlLTnWqw3r"
    "vwXBWGe4ZQjfk6kZtlmXW3m81YMug3nkMM61OQYCtjm6FT4FZOCb3lfNBHDm4oSFRHN0uo"
    "4M1Jq+04zNGEm1mV5S5Jpda6GuFQPoIG4ThvU/Ap5Fd0CvsaWQpUgj+V4E9iQA2C+bQKnC"
    "sCBWYmm2d0wJ1W8RyxDOGLPlFMn2JnUjm+MEa1w/jCPe3IbzC1i29z1RwC7+zy6qjnkO87"
    "vLOqq/JecA/M6TV2iBKEaoNI6g0isUFRV2PPpVWBGLlqe2CCrrsRF6eXWMdpXHd73ev2VU"
    "scJGvOsHVPr/pfWwhEh3t63bns3l1DFTFMb3ZPv3Q/f2mhqTmZyrGX9kBsroklGuu82iEY"
    "OZRSHa61t2HvA1Ndv0yTKTB9OSbasq7js5GiVdmSZV6TJUhpL9uCfEzdq5Lav4x+liKpvZ"
    "rIWz2SKO5XvK6HcIpMxYepdFKbhrMknVQ0+rLwVk4plcr1f5joPplWKjVd81NLpcfvBtBV"
    "Cbv2lLDrWnyVJuxKtWiWxuaIojBhl99yrXN3HTZv+ZEuMyZyQCLPFiffBvEzQTFc9QcX6d"
    "iyROKsmUk9Tvz4GNcWtjg0Zk7+qbqbu/QzzszNY+/PzpaxztSQIV3GM00CxTE0Iwb9Y9SM"
    "rU7RKtlTOtlTlphF8XUB3KGMO0b1a/BGn9GszxpFc5FncMmr4BfmaI5dZGPTENxJRBrCsB"
    "Rnho+IDk8n2pv8NepyEXJomY8kiEEMIxP9EEPxX6xI+VxzJ3fNT3kYtA4XyrhZ1HNgVJFM"
    "lqLnRTaqtEWibhdpiw4rBG+9/umx+asfXzCLVnrs1swCST64LqJJKgXqYTp/Si+Tx1L+h6"
    "tyBtGSRP8rEpnjbNeHdMs79b78lQW42E18SXAU8O7aQRxkV53lHdlYPKJjJEcBeXJEvz1d"
    "Y0S/PS0c0aJKxfqpWL/DB1fF+qlYv0OCVxILWp/bsHZaYkEpSv2VbtIss6Mxbgv/w6D1Vt"
    "Jix85jKLA6KSOTlEYmdfTGlpWRUn3vac/uA9H9QF2A0Sc8uScmvaeDDrRrIYe4wabm/rtB"
    "RF8XZMou1gsTRDLDL61uqM6xrNUVh2bKDs/uggk8rmIrTJMpg6F0cugtoQa8bbEUGmvwpA"
    "zqBm3rnEsn9lXDg+EEV3aRK3xTOFseJ1dybpygdTwLiCzGHpDABiifOKZuSzd8hk/M/kU1"
    "ic673pSEUHJqjDhUt+JpXTGaF3dYlyQ86yY4FbnzCB8FXCvdpJRvRacsE9G6AucyjSUbCU"
    "gDh5ApfiTwYYgK00FkPCY6z2dFla+wYX+7Yr7yjKOmZeYpGzxqupitOEQn5mMtt44UqUx+"
    "HUoklsgBb0DG8CLToTDvFrDAdJNSFugEjWP24qdZYDtwh8MgNrkulP3gNpHLAg7GKAn9iY"
    "V7nGsLwcp00QMVKf/nU0KRKYQuIYjhCQyOLHvc+NVzjZq+5p/1ngvvqSnXOWmtmtWPRFOn"
    "oT33LBxl6jnadS1xYoBdpBeVd3KcTsUlS93Dq/Ut08fFjpRJKuVIWR5lGaKVBbhyGOBtcK"
    "XjjgRMDi6ZggFj8OeI2cnOKZaww/fbwtZ8YeyHOs9qF57UxxLdIQvHPbjF1MIu11xCaI2O"
    "TtOqrpa6qw9LAVJ2vZrJt8ijqVdK/7+iUC4kNVxIKOFz5jxUQTxGoiCv47UDr1lHMonTKR"
    "1fZi6mYk+3qd2rDD/R4DnMDD+33mj52kWafapJs1S9jzWWV8dX+/3b2O9/ESfsdnvR2bkt"
    "ZNIom/A9XZVrnV9uugNxRO6qXgv0HuOeDgfd9pV/Hi/0H7b803jbF8Puz3A9mCbmI1zrpn"
    "071C7voMQWerHhQdld76bdhWt6VCRZEW3ubsU9bAxTYHky7+pgXlLrXN7Ts3WGyVnxKDnL"
    "BAU4oBHkrr/FQm2cRubBIK1UqyxuL0K01T3HEVuNNnFMZmigk1Tu7twrKIVG6l4PTvGpMb"
    "fjhKqPZe7jaN3XXJPmmeDKOzpLrXpb5t5WJgplolAmiiITRQR8jmki1ifFJgnxWts3RSgf"
    "g736GKiIsa3GlPvfGXBLtqXwEaW82rX2DuKbO2fANqsG8WcIJT4gT170HVYvbXiCUAncMg"
    "vc0UEWrvYIskGud2pZBEsu+dGcsL2TgBZlq3wBU06SIME2cUx92sjRH8KaZpn6gFdtpNEf"
    "Xkps3daOBylk+8X6QjGrP0ypdmsbxLGU2jCpKiAcNj9CdN+cnKyjkZ2cFKtkoi6d54tyQn"
    "NWzX/f9nsFK+aKJL1cmjpH/0PHl7tDgFGuI6TVgdTiJy5wvu+kH3/9H6/VF9s="
)
