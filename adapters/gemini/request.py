"""The body of a request to Gemini, as its REST reference defines it. Unset fields are not sent."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from domain.chat.conversation import Conversation


class _Sent(Struct, rename="camel", omit_defaults=True, gc=False):
    pass


class Part(_Sent):
    text: str


class Content(_Sent):
    parts: list[Part]
    role: str | UnsetType = UNSET


class ThinkingConfig(_Sent):
    """A level, or a budget in tokens. Without either, the model decides."""

    thinking_level: str | UnsetType = UNSET
    thinking_budget: int | UnsetType = UNSET
    include_thoughts: bool = False


class GenerationConfig(_Sent):
    """Without temperature, topP and topK, which the newest models refuse."""

    max_output_tokens: int
    thinking_config: ThinkingConfig | UnsetType = UNSET


class GenerateContent(_Sent):
    contents: list[Content]
    generation_config: GenerationConfig
    system_instruction: Content | UnsetType = UNSET


def request_of(conversation: Conversation, thinking: ThinkingConfig | None) -> GenerateContent:
    """Thoughts count towards `maxOutputTokens`, so their budget is added to the reply's."""
    instructions = conversation.instructions
    return GenerateContent(
        contents=[Content([Part(turn.text)], turn.role.value) for turn in conversation.turns],
        generation_config=GenerationConfig(
            max_output_tokens=conversation.max_output_tokens + conversation.thought_tokens,
            thinking_config=thinking or UNSET,
        ),
        system_instruction=Content([Part(instructions)]) if instructions else UNSET,
    )
