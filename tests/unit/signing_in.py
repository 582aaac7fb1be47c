"""Shorter words for logging in, in tests of a World."""

from __future__ import annotations

from application.accounts.sessions import Caller, SignedIn
from domain.accounts import Device, OtpPurpose
from domain.errors import TokenInvalid
from tests.unit.conftest import ANN, World

LOGIN, RESET = OtpPurpose.LOGIN, OtpPurpose.RESET
UNKNOWN = "+919876543211"
PHONE = Device("A phone", "203.0.113.0/24")


async def code_for(world: World, purpose: OtpPurpose = LOGIN, mobile: str = ANN) -> str:
    code = (await world.container.send_otp()(mobile=mobile, purpose=purpose)).code
    assert code is not None
    return code


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 1_000_000:06d}"


async def log_in_by_code(world: World) -> SignedIn:
    return await world.container.verify_otp()(mobile=ANN, code=await code_for(world), device=PHONE)


async def caller_of(world: World, signed_in: SignedIn) -> Caller:
    return await world.container.authenticate()(token=signed_in.access.token)


async def is_alive(world: World, signed_in: SignedIn) -> bool:
    try:
        await caller_of(world, signed_in)
    except TokenInvalid:
        return False
    return True
