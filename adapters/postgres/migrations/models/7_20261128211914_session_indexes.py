"""What the removal of sessions looks for: those that have ended, and those that were not used for long."""

from tortoise import BaseDBAsyncClient

RUN_IN_TRANSACTION = False  # CONCURRENTLY, so that people log in meanwhile, has transactions of its own

INDEXES = {
    "sessions_ended": """("ended_at") WHERE "ended_at" IS NOT NULL""",
    "idx_sessions_last_se_94574f": """("last_seen_at")""",
}


async def upgrade(db: BaseDBAsyncClient) -> str:
    for name, columns in INDEXES.items():
        # One that was interrupted leaves an index that is not valid.
        await db.execute_script(f'DROP INDEX CONCURRENTLY IF EXISTS "{name}"')
        await db.execute_script(f'CREATE INDEX CONCURRENTLY "{name}" ON "sessions" {columns}')
    return 'ANALYZE "sessions"'


async def downgrade(db: BaseDBAsyncClient) -> str:
    return "".join(f'DROP INDEX IF EXISTS "{name}";' for name in INDEXES)


MODELS_STATE = (
    "eJztXetz4jgS/1dUfNnZKm4qk8zrsldXBYSZ4TaBXEJ2dmYy5RK2AG+M5LXlMNTe/u/X8g"
    "P8jk2ACKIveUjdsv2T1OpuqVt/NWbMIJb7smVZbI6pTq7YvHGK/mpQPCPwR259EzWwba9q"
    "RQHHI8tnwBGlX4xHLnewzqFmjC2XQJFBXN0xbW4yKug/TzFHGHkucdAUu+IPA7Ex4lOCLM"
    "yJy5GBF000F3Qm1FNM3TlxiNFEmBpB+RwYXUKBgMYZZyb1OHkpXsRgOryJSSc7fKZHzT89"
    "onE2IUDgwJO/fYdikxrkB8AT/mvfaWOTWEYCdvFqmmmIVvxKjS9sv+Lmpnf2wScXHzXSdG"
    "Z5M5pisRd8yuiSx/NM46VgFHUTQokDr2rEuoR6lhX2X1QUvDsUcMcjy5c2VgUGGWPPEh0r"
    "uIOXWZU1NK0/GGrX3aGmNTKdHnHE+iQs0hkVA8akXODz199BuysI/NKGeEDnU+vqxcnbn/"
    "3vZS6fOH6lD1Djb58Rcxyw+livwIW+zQJ7BpjkAxuSp0CF1gk3Z+Sl+GMdYKOCFbKrGfK0"
    "0J61hl0fwsR4zBmMPcoLx2LeQIRn7yFS8L7w6x/Hr16/e/3+5O3r90Div+iy5F0JmL3+MI"
    "WlSbWxZU6mvAagCR6Fag6qgdzVxg6b5U9uMVnzwU2xlk108ccegl2C5LB30b0eti4uRfMz"
    "1/3TikSAqDn2Sxep0heB2GWwsgeL/rIR9Lk3/ITEv+jroN9NC+cl3fBrQ7wT9jjTKJtr2I"
    "hjEhVHRXkdXVMipbjUFMoVTLbHQV25I9TNQts2JyXiKcm5O3iP0tgePRrPfx4fn5y8Oz46"
    "efv+zet37968P1oCm60qQ7jd+yhATsyULOrM4+vCnmFVuFfHncxsvtB0j+eAXoh4kkkquB"
    "tXxLZM4kaGDKit8FsYKmC4IHhlNCJjBn9CpemgsemAtTJnjgHPg5XP53EJdA2YQr5Fs0AY"
    "qCnjaGLeE4pGWL/L2lI7e+oWhJ8wv8Z3MRtBFIgHzrFjaJkadsxy7QlheWXH0ICSIYMf/k"
    "DqwbsLozhn1IQW9g00EhrX+2iirUpXz3fwfGnaxs1T+Hj4ZML9z++0rjutM7A3EtgnoRZV"
    "s+NZugRTPPG/V7yZeI8QyrZpWfDKLV1nHuUFHo0sUbPMrTEKyDUc0Fd0bkD3R36G+ZQhcu"
    "87HAzEGTIYmpt8iq4BXpv8gqAB5s+GP9hITCaHYAMeuJwlDjlFhkc0zJvIItgFXYZyEzoE"
    "cy6kUnZm7vrhyt0hp7tD91zOZgUAd6bYyQc4xZYCGV67ArwheHKgCwLjh2YROuFTsUy8eV"
    "MC92+tKx9xoEqZOv2w6jioS+oUEWZ1VIoEzxNqFJIaJfqU6HesnpaW4FGQFkGqjTx3EUjy"
    "ui6TgiY24DpJiwzlOdmY50SfYjohNW3MGNPBzKQdW5qhklRDgMU4Dgb0jYmvMTYtz8kbx4"
    "V4xlkUoGlAA82+7hKw4tqJ1JdED987oR8z1+r2cIpVLe4y97PjCe9E7VkcY1P9K1v/Kv/k"
    "QfonO1PMHcZmBZ7JeHWzzCeph4TVnJHFiD3suPsWhwd+fi/05NVz4j2F/67xr7FHdQEK8p"
    "8kfrz+d2P3IugRLj3/dwbnIflRoP9G9Gs58WTb9i6T6t3fhwmBHnnrXly0fv85IdTPB/2P"
    "EXnMu9c5H7Qz2+LwdM8fMTk2RzHoab6NeFCfGfb+kshNbuUM9zZjoKHSAgs6wZiCfgSc2x"
    "r4y5I4+nUlcnXU24PBeQL1di8N681Fu3v14pXfBUBk8gI3he4QgcUaSmSSU52fkk6RTB3l"
    "lGSvTd5OfWBpzujlD+naH5hDzAn9lSy2r23LgeqG9e0HbJ1N6ubBxkahbr6qfkA3j21B7U"
    "g3r6eVF+/8PmLDVy7bb2s7vsWauefkuNmKdcSQXKmG9VVD8sM2QSyvoa4kOZW6IrW6YuPF"
    "jFCuwbf5v2pJslzmLU22gxBsK9xdwsF4ykG71OyKcT21zbX9ubRB20sp5UopV0p5kVL+0S"
    "Ou2/YM0IEL9PIURalqPncYnWgTwVE1SHk4JUjoAv4xdwyvNxsR5yc3ivn1W0Rhi82o1D/r"
    "foqwi+DDFuI39o/HT7GbPay78Sfc0lva4whMEMu8h2bF6d5lq+Ep5iZyGTK5HwOdqL8jC2"
    "Igw5zAU5ooqgUtFvE5A/L7wgDnb42gES1gFlR3MOgD26TKUeA8IVgaelQxnisc7vLaKjs8"
    "mlSysZDuvKqaVobxILYaUnrWcRU167hYyzpOK1n+1MhFuQuAZpalBOIRr8xANzqDs+4p0k"
    "EI39LL1vX158HV2SmyseuKGKC0FKzSCa/eVuiEV2mLZdUJoirZCcF6kGdGthwHL/LHe5wp"
    "1QOW6e5jNGkVo3H49dv3bDQ71pxgza14Gi/OogJxNxGLtjlVq2eQmc3AWtYXoBgXaFtZol"
    "KFy1yRa6BZbMEl+q3h6sz2ZSQ8QCkb+6FsLPusqrd0ySDzmietw1TMjBpgh+QK6jWgHjFj"
    "oYFVNc0TLxQ7BUpFgi3tP1vwwFo9HOjbArg49IB8u9dvXX3Jxz6ijzt/2l+G3VYKfahinq"
    "OTmg61FJtyqqUH9drRYhsPEtsjgPduwwXMTe7VCa5ZMaylzEu2jbnp4BqH2FbOulu2DCxZ"
    "1lwCJEP0CVaA/TrKpkKbdhQSsTkz+Vdi84dypmZommVG8h1Qa3WTpw6DjDs/+SlM/Z0DGv"
    "n2wyw82EXBNo6BDE+MjChLz+nKp88oidL3BG5cNCITk7pBjhAzJ7XIDp/7iKwisjmzZToL"
    "tSFXtkqyqpKsSql2qXSgB6wEqHSgu5hC+5gO9EB85vueHfTgumGvkoVKLmMkMeEuiOtCTY"
    "HxFqttlplts4Cuhr0WcojbJUx9Kq6XMLmL2JyKs1oj9uMUBQ61ZXLFRMpF//6JIPWKnyhV"
    "GE8wMrycWy62/bAqoSlRiHosdLyJVDS5XNHk/nJdZ2twyaA2B9fYHNwv56Q0XbFvhknRPk"
    "q1032FmypSzbHGf2+6N92z02BVMG7px26/e9Ua9vofT1H4itDft7QzuLg87w4Fqc5mtu8Y"
    "vKUfWr1zUSTSs4n/2+eDzq+iYGQx/U6UdFr9TvfcJ9IFTlYYXPL0pwZhpNjwxFrnV+I8Ku"
    "SvvuQExLzJNE8HL8Y8zqMwXwdzk96JzOdBlv4c7D9YDBeCn2VOdcJYcB9UN5wNbtrnXXR5"
    "1e30rnuDfnJp8itF0Soc7KrbOk/nuDSp6U41WO9deK8awz3DqMb8Ohl/ynwu23V7SQb9xn"
    "NPY30KGmxtbDN8CtzazsItewoPHNxQkaiPbpZRwZvjYXUc5mgiUqjOcpfkUmvdGmk0fAQN"
    "wnHeuc6HkF/xKezXyG6nEsOrxPASA2oQzKd14FwxKDAzt0BEZ/u0mkejMozP+pCUPsXOpH"
    "ZemhjXDvPSPNGh6g2mBPV9rppD4JtdXh/1HPanTguUvzMrGe6BO32NHaIEo9ogknqDSGxQ"
    "rGux5/KqEya5Znvggl53Iy7OL7GN07jo9XsXrfNTNDOpOcPWLT0ffD5FoDrc0ovuWe/mAq"
    "qIYXqzW/qp9/HTKZqak6kce2l+7INYorHO612emMMp1aXMTzbsg3CS2vZlmk2BKUpCBaZ2"
    "PHGc6xHHkvbHS1IjmngObw/rZf4B/WJQU2wK1bTCbtVP2rliUsp5FaMoOsCyzgmuFK+6c0"
    "tmDV2CixFlU88PqXvV1YjPo5+luBpRTeStXmwdjzKoqkum2FTCH5WUfNNwZmKdsoM2C2/t"
    "xOSpGyP3E90Hk5Onpmt+gvL0+N0Auirt+xOlfb8Qv0rTvqcomqWReqJIG/nEPuWD0XoDSp"
    "DD5kHGkhkTN4kgz0achdF0QTG0+pOLhA0t0q8HgeV+tJxrC888GjMnG5u32aYfkSMlT7w/"
    "Ov1plakhQ/7TRzoIiyPqRgz6x1gzWV6KV+me0umeskQwi18dkA5l0jGqryAbfUFTXTQK8i"
    "h/k9/AKvWTjU1DSCcRdwzD8t5P7aTD2wl6k79E8ZspRERyGKfsBxyL/8WKlC81d/LU3BTT"
    "IXW4UMY3STwHRhXJpJ1+XJyzykMt6naRh3q/AnKr9U+fzV/8/IxFtLJjt+YWSMrBqogmuR"
    "So+3kUXHqdPHZxZLgqZxAtuS5yxSJz1H11SLd8bsfXv7IAFweNLBkOAt5dh4uA7qqzWa0R"
    "HWM5CMiTI/qkShbTk+IspieZC7lU5K+K/N1HcFXkr4r83Sd4ZfKgXRPu2WUutCVB82Efmi"
    "toa24vzKcL9JGxiUWQwYiLKOMimzqxeZA0ndgW8+8xD25mRcxBtsP+IDr/BfVvzs+RKdxb"
    "Pm/JTsOmn6I2HSTbdHDIWOQz1sYsZ9ezLClVgk3iGAdpFXOXELqG9zDGpjZ5pPMgSrJEDb"
    "gN5p0lbJ6iXLVpktJlinFbBMwE1Fu5inPGRqZFyjZG1D6IlPsgq46r6l6IdfXheRc27y8r"
    "dUk+HIq4J+5JWDhh9InQw4lJb+lVF+hOEUjj4NzN03eDSBdUcDtnsZqUYJIZfmm1JPLDNm"
    "EUrKEoJTmVriSdrhTv5olHXBc6yyLjOttZaTa1pyWXqwSUzGtCDfjaYi00RlCqgwpZ6mou"
    "oRUPYoqbDMTMdqODPxYMAZcjvx0k2hEnJzEK7m1rRtVj03H5KcIugq9aiN+C1/EsYLIYu0"
    "MCGeDMvzph2w9UF9vt58V2ovdz17CW4+CCG11jPCnELdPdR8FWZcEafv32XR75dYl952b3"
    "Hn4USLA0SakMswNijQjqGte/mMZSqASswfnFKb4n8MMQFaaDyHhM9IKLN2u3sGFPbbF4yT"
    "XHD0CmvHlTRai8eVMsVUTdQ95bnZj3a51CTLHKdAxRqccSuRKvyBg+ZDoUu5EFIjBNUioC"
    "nYA4tr35sAhsBae3MShRrgtlP7lN5LJAgon7gIPwF3Ga27WFmmW66I6K+6rmU0LF/pM4zu"
    "IiPIHBkRWPG28918HpewGyh73DZ2rqpLe0Hs58p0/bpNgp0NwKPD6jBQ+c54ejt7WFxyYu"
    "RGH1avf6rasv+U6fiD4uINtfht2Wcvs8l3UtsQdqF9lFD2yC2oW2kUqjIVcPr9a3TB8Xn/"
    "tPcqlz/+VJAUK0sgDXjlq/Dlo67MD15OCSKXY9Bn+Omp3snGINO/y+LWzTF4YqqstYdxH4"
    "cyjBiLJI3L1bTC3scm3Nc2NpXuXwkbmn98v+Ub28ZqpIcm/qta6uWnGo0yRrnCahhM+Zc1"
    "cH8RiLgnydAzzwmesoJnE+ZeLLLMVUpoRtGvcqH100ePYzH921N1p+dpFhnyJpllr3MWJ5"
    "TXy13b+N7X6Y5NzLiSWtdhJ8xS2zItPo9TuDi8vz7rB7ikwa5b6/patyrfv7Ze+qexav1w"
    "K7x7ilw6te67zX/yhGg4kt6MJb2uoMe79BezBNzHto67J1PdTObqDEFmax4UHZTf+y1YM2"
    "PSpSggmam2vxDBuLSLdb2mn1O91zURLcUBZcflB7nLyuMkxeF4+S15n4AAcsgtz1t1ipjf"
    "PIPBik1WqVw+1ZqLa65zhip9EmjskMDWyS2t2d24IyaKTu9eAGyjXmdpxR9bHMfRyt+5pr"
    "0jwXXHlHZ7lVb8vc28pFoVwUykVR5KKIgM9xTcT6pNglIT5r+64IdcTgSY8YPH2cv0Tens"
    "2Hl/u/M+CWbEvhA0rQuGvrHdQ3d85AbNaN588wqsRHa6DvsPUuuUgwKoVbZoU7unbJ1e5B"
    "N8g9nFoWwJLL/oTXSu9hPIvyVT6DKSdJjGCLOKY+beTYD2FNs8x8wCsaaeyH5xJat7W8ko"
    "Viv9heKBb1+6nVbm2DOHYBhG3XQTgkP0B0Xx0dVbHIjo6KTTJRl075RXmYbiaJ8H+uB/2C"
    "FXPFkl4uTZ2j/6HDS90hwCi3EdLmQGrxEw20nzrnx9//BzPEHdQ="
)
