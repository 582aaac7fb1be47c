"""Where a conversation's window begins, whether the model was asked, and whether it accepts the deployment's key."""

from tortoise import BaseDBAsyncClient

RUN_IN_TRANSACTION = True


async def upgrade(db: BaseDBAsyncClient) -> str:
    return """
        CREATE TABLE IF NOT EXISTS "model_setup" (
    "id" INT NOT NULL PRIMARY KEY,
    "refused_for" TEXT,
    "seen_at" TIMESTAMPTZ NOT NULL
);
        ALTER TABLE "messages" ADD "called" BOOL NOT NULL DEFAULT False;
        ALTER TABLE "messages" ADD "window_from" UUID;"""


async def downgrade(db: BaseDBAsyncClient) -> str:
    return """
        ALTER TABLE "messages" DROP COLUMN "called";
        ALTER TABLE "messages" DROP COLUMN "window_from";
        DROP TABLE IF EXISTS "model_setup";"""


MODELS_STATE = (
    "eJztXetzGjkS/1dUfNlsFZdy/Ehy3qurAkwSbjH4bLzZJE5NiRkBsx6k2RmNCbW3//u15g"
    "HzNoMBC6wvfkjd8/hJ0+pudbf+qk2ZQSz3dcOy2AxTnVyzWe0c/VWjeErgj9z+Oqph2172"
    "igaOh5bPgCNKvxkPXe5gnUPPCFsugSaDuLpj2txkVNB/nmCOMPJc4qAJdsUfBmIjxCcEWZ"
    "gTlyMDz+toJuhM6KeYujPiEKOOMDWC9hkwuoQCAY0zTk3qcfJaPIjBdHgSk453eE+Pmn96"
    "RONsTIDAgTt/+w7NJjXID4An/Ne+10YmsYwE7OLRNNMQV/E7NT63/Y7b287FB59cvNRQ05"
    "nlTWmKxZ7zCaMLHs8zjdeCUfSNCSUOPKoRGxLqWVY4flFT8OzQwB2PLB7aWDYYZIQ9Swys"
    "4A4eZtlW07Ref6DdtAeaVssMesQRG5OwSWdUTBiTcoHPX38H111C4LfWxA1anxrXr07e/u"
    "y/L3P52PE7fYBqf/uMmOOA1cd6CS6MbRbYC8AkH9iQPAUqXJ1wc0peiz/WATZqWCK7/EKe"
    "F9qLxqDtQ5iYjzmTsUN54VzMm4hw7z1ECp4Xfv3j+M3pu9P3J29P3wOJ/6CLlnclYHZ6gx"
    "SWJtVGljme8AqAJngUqjmoBnJXGzlsmv9xi481H9wUa9mHLv7YQ7BLkBx0Lts3g8bllbj8"
    "1HX/tCIRIHqO/dZ5qvVVIHYZrOzBor+4CPrcGXxC4l/0td9rp4Xzgm7wtSaeCXucaZTNNG"
    "zEMYmao6a8ga4okVJc6hPKFUy2x0FduSfUzULbNMcl4inJuTt4j9LYHj0Zz38eH5+cvDs+"
    "Onn7/uz03buz90cLYLNdZQg3Ox8FyIkvJYs68/i6sGdYFe6r406mNp9rusdzQC9EPMkkFd"
    "y1a2JbJnEjQwbUVvgtDBUwXBA8MhqSEYM/odN00Mh0wFqZMceA+8HK5/O4BIYGTCHfopkj"
    "DNSUcTQ2HwhFQ6zfZ22pnd11C8JPmF+j+5iNIBrEDWfYMbRMDztmufaEsLyyc6hPyYDBD3"
    "8ideDZhVGcM2tCC/sWLhIa1/tooi1bl/d38Gxh2sbNU3h5eGXC/ddvNW5ajQuwNxLYJ6EW"
    "XdPjaboFUzz231c8mXiOEMqmaVnwyA1dZx7lBR6NLFG9zK0xDMg1HNCv6NyA4Y/8DLMJQ+"
    "TBdzgYiDNkMDQz+QTdALw2+QXBBZj/NfzBhuJjcgg24IaLr8Qh58jwiIZ5HVkEu6DLUG7C"
    "gGDOhVTKfpm7vrlyd8jp7tA9l7NpAcCtCXbyAU6xpUCGx14B3hA8OdAFgfFDswgd84lYJs"
    "7OSuD+rXHtIw5UKVOnF3YdB31JnSLCrIpKkeB5Ro1CUqNEnxD9nlXT0hI8CtIiSLWh584D"
    "SV7VZVJwiQ24TtIiQ3lONuY50SeYjklFGzPGdDBf0o4tzVBJqiDAYhwHA/rGxNcIm5bn5M"
    "3jQjzjLArQNKCBZl91CVhy7UTqS6KH753Qj5lrVUc4xaoWd5nH2fGEd6LyVxxjU+Mr2/gq"
    "/+RB+idbE8wdxqYFnsl4d73MJ6mHhKs5I4sRe9xx9y0OD/z8XujJq+bEew7/Xe1fI4/qAh"
    "Tk30n8OP13bfci6AkuPf93BucB+VGg/0b0aznxZNv2LpPq7d8HCYEeeeteXTZ+/zkh1Lv9"
    "3seIPObda3X7zcy2ONzd82dMjs1RDHqabyMe1BeGvb8kcpNbOdO9yRhoqLTAgk4wpqAfAu"
    "e2Jv6iJY5+VYm8OurNfr+bQL3ZScN6e9lsX7964w8BEJm8wE2hO0RgsYYSmeRU8VPSKZKp"
    "UE5J9trkHdRHluaMXv6Yrv2BOcQc01/JfPvathyobljffsTW2aRuHmxsFOrmy+5HdPPYFt"
    "SOdPNqWnnxzu8TNnzlsv22tuNbrJl7To6brVhHDMmValhdNSQ/bBPE8hrqSpJTqStSqys2"
    "nk8J5Rq8m/+rkiTLZd7Sx3YQgm2Ju0s4GE85aJeaXTGu57a5tv8tbdD2Ukq5UsqVUl6klH"
    "/0iOs2PQN04AK9PEVRqpqPBa029IlXjOMdTAgSuoAf5o7h8aZD4vzkRjm/M4fRMfKvS9x6"
    "1OrHup8j7CJ4sbn4jf3w+Al2s8G6G7/DHb2jHY7ABLHMB7isiO5dXDWMYq4jlyGT+znQif"
    "57MicGMswx3KWOol7QYhGfMSB/KExw/lYLLqIFzILqHiZ9YJusEgqcJwRLU49WzOcKp7u8"
    "tsoOQ5NKNhbSg7eqppVhPIithpSedbyKmnVcrGUdp5Us/9PIRbkNgGaWpQTiEa/MQNda/Y"
    "v2OdJBCN/Rq8bNzef+9cU5srHrihygtBRcZRDevF1hEN6kLZblIIiu5CD4sjXXjGw4Dp7n"
    "z/c4U2oELNPdx2zSVYzGwddv37PZ7FhzgjV3xWi8OItKxN1ELtrmVK2OQaY2A2tZn4NiXK"
    "BtZYlKFS5zSa6BZrEFl+i3mqsz25eRcAOlbOyHsrEYs1W9pQsGmdc8aR2m4suoAHZIrqBe"
    "A+ohM+YaWFWTPPFCsVOgVCTY0v6zOQ/i1w8H+qYALg49IN/s9BrXX/Kxj+jjzp/ml0G7kU"
    "Ifupjn6KSiQy3Fppxq6Um9drbYxpPE9gjgvdtwAXOTe1WSa5YMaynzkm1jbjq5xiG2lbPu"
    "li0DC5Y1lwDJEH2GFWC/QtlUatOOUiI2Zyb/Smz+WM3UDE29zEi+B2qtavHUQVBx5ye/hK"
    "m/c0Aj335YhQe7KNjGMZDhiZkRVek5X/r0GSVR+Z7AjYuGZGxSN6gRYuaUFtnhfZ9QVUQ2"
    "Z7ZMsVAbcmWrIquqyKqUapcqB3rASoAqB7qLT2gfy4EeiM9836uDHtww7FWxUMlljCQm3C"
    "VxXegpMN5ivfUys20a0FWw10IOcbqEqU/E8RImdxGbURGrNWQ/zlHgUFsUV0yUXPTPnwhK"
    "r/iFUoXxBDPDyznlYts3WyU1JUpRj6WO15HKJpcrm9xfrqtsDS4Y1ObgGpuD++WclGYo9s"
    "0wKdpHWS26r3BTRapvrPbf2/Zt++I8WBWMO/qx3WtfNwad3sdzFD4ijPcdbfUvr7rtgSDV"
    "2dT2HYN39EOj0xVNojyb+L/Z7bd+FQ1Di+n3oqXV6LXaXZ9IFzhZYXLJ80cNwkyx4Y6V4l"
    "fiPCrlr7rkBMS88SRPBy/GPM6jMF8Hc5Pei8rnQZX+HOw/WAwXgp9lTg3CSHAf1DBc9G+b"
    "3Ta6um63Ojedfi+5NPmdommZDnbdbnTTNS5NaroTDdZ7F56rwnTPMKo5v07FnzKfy3bdXp"
    "JBv/Ha01ifgAZbGdsMnwK3srNwy57CAwc3VCSqo5tlVPDmeFgdhzmayBSqstwludRat0YZ"
    "DR9Bg3CcF9f5GPJLPoX9GtXtVGF4VRheYkANgvmkCpxLBgVm5hSIKLZPqxgalWF80UFS+g"
    "Q748p1aWJcO6xL80xB1RssCer7XDWHwDu7vDrqOezPXRYof2dWMtwDd/oaO0QJRrVBJPUG"
    "kdigWNdiz+VVESa5Znvggl53Iy7OL7GNU7vs9DqXje45mprUnGLrjnb7n88RqA539LJ90b"
    "m9hC5imN70jn7qfPx0jibmeCLHXpqf+yCWaKzzaocn5nBKdSjzs037IJ2ksn2ZZlNgipZQ"
    "gamcTxznekJY0v54SSpkE8/g6WG9zA/QLwY1xaZQTSvsVvWinUsmpZyvYhRFASzrRHCleN"
    "WZWzJr6BIcjCiben5Iw6uORnwZ4yzF0YjqQ97qwdbxLINVdckUmyr4o4qSbxrOTK5TdtJm"
    "4a1cmDx1YuR+ovtocfLU55pfoDw9fzeArir7/kxl3y/Fr9Ky7ymKemmmnmgKy777lI9m6/"
    "UpQQ6bBRVLpkycJII8G3EWZtMFzXDVn1wkbGhRfj1ILPez5VxbeObRiDnZ3LzNXvoJNVLy"
    "xPuTy5+u8mnIUP/0iQ7C4oy6IYPxMdYslpfiVbqndLqnLBnM4lcLpEOZdIz6V5CNvqBZXT"
    "QK8qh+k3+BZeknG5uGkE4i7xim5YNf2kmHpxP0Jn+N4idTiIzkME/ZTzgW/4sVKV9q7uSu"
    "uSWmQ+pwoYxvkngOzCqSKTv9tDxnVYda9O2iDvV+JeSuNj49Nnv18wsW0cqO3ZpbICkHV0"
    "U0yaVA3c9QcOl18tjBkeGqnEG05LjIJYvMWferQ7rluB1f/8oCXJw0smA4CHh3nS4CuqvO"
    "ppVmdIzlICBPzuiTVaqYnhRXMT3JHMilMn9V5u8+gqsyf1Xm7z7BK5MH7YZwzy5zoS0I6o"
    "/70FxBW3F7YTaZo4+MjS2CDEZcRBkX1dSJzYOi6cS2mH+OeXAyK2IOsh32B9H5L6h32+0i"
    "U7i3fN6SnYZN30VtOki26eCQkahnrI1Yzq5nWVGqBJvEOQ7SKuYuIXQN72GMTW3ySOdBlG"
    "SJ6nMbzDtL2DxFtWrTJKXLFOO2SJgJqLdyFOeUDU2LlG2MqH0QKfdBlgO3qnshNtSH513Y"
    "vL+s1CX5eCrinrgnYeGE2SdSD8cmvaPXbaA7RyCNg7ib5x8GUS6o4HTOYjUpwSQz/NJqSe"
    "SHbcIsWENRSnIqXUk6XSk+zGOPuC4MlkVGVbaz0mxqT0suVwkomTeEGvC2xVpojOBRHdQN"
    "aCscnCC+bTcK/bFgErgcCansIleET3KGMApObqtH3SPTcfk5wi6C95qL34LX8Sxgshi7Rw"
    "Ib4Mw/PGHbN1RH2+3n0XZi9HNXsYbj4IIzXWM8KcQt091H0bbKkjX4+u27PBLsCvvuzfYD"
    "/CiQYWmSUilmB8QaEdQV5JhpLIRKwBpEME7wA4EfhugwHURGI6IXHL1Z+Qob9tUWi5dcg/"
    "wAZMrZ2SpC5eysWKqIvsf8tzoxH9aKQ0yxyhSIqBRkiZyJ12QELzIZiP3IAhGYJikVgU5A"
    "HNvgfFwENoL4bQxKlOtC209uHbkskGDiROAgAUbEc7u2ULNMF91TcWLVbEKo2IESAS0uwm"
    "OYHFnxuPGr57o4fT9ANtw7vKemYr2l9XHmu32aJsVOgeZW4PMZznngPj8cva0pfDZxIQqr"
    "V7PTa1x/yXf7RPRxAdn8Mmg3lOPnpaxriV1Qu8guemQb1C60jVQhDblGeLm+Zca4OPI/ya"
    "Ui/8vLAoRoZQGunLd+E1zpsFPXk5NLpuz1GPw5anZycIo17PD9trBRX5isqI5j3UXqz6Gk"
    "I8oicfduMbWwy7U1I8fSvGqopR7q/TKAlF9vzWqR5MHUK51eteRQASVrBJRQwmfMua+CeI"
    "xFQb5ODA+85jqaSZxP2fgySzFVLGGb1r0qSRdNnv0sSXfjDRevXWTZp0jqpeZ9jFheG1/t"
    "929jvx8+cu7lpJOuFgy+5JZZkal1eq3+5VW3PWifI5NG5e/v6LJda/9+1bluX8T7tcDuMe"
    "7o4LrT6HZ6H8VsMLEFQ3hHG61B5ze4Hnwm5gNc66pxM9AubqHFFnax4UHbbe+q0YFrelRU"
    "BRM0tzfiHjYWyW53tNXotdpd0RIcUhacf1B5npyuMk1Oi2fJaSZFwAGLIHf9LVZq4zwyTw"
    "ZptVrlcXsRqq3uOY7YarSJYzJDA5uk8nDnXkEZNFKPenAI5RrfdpxRjbHMYxyt+5pr0jwX"
    "XPlAZ7nVaMs82spFoVwUykVR5KKIgM9xTcTGpNglIV5r+64IFWPwrDEGz5/qL5G3Z/MZ5v"
    "7vDLgl21L4gGo07tp6B/XNnTEQm1VT+jOMqvbRGug7bL1zLhKMSuGWWeGOTl5ytQfQDXKj"
    "U8syWHLZn/Fk6T1MaFG+yhfwyUmSJNggjqlPajn2Q9hTLzMf8JJGGvvhpeTWba20ZKHYL7"
    "YXikX9fmq1W9sgjp0BYdtVEA7JDxDdN0dHq1hkR0fFJpnoS1f9opzQnFXzPzf9XsGKuWRJ"
    "L5emztH/0OHV7hBglNsIaXMgtfiJCzSfu+jH3/8HOc0e7g=="
)
