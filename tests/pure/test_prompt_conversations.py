"""Prompts of conversations: the turns in the chat template, special tokens in messages, and refused messages."""

from __future__ import annotations

from typing import Any

import pytest
from byte_tokenizer import letters

from vgs_ray.prompts import (
    ConversationRefused,
    Turn,
    load_tokenizer,
    prompt_tokens,
)
from vgs_ray.sandbox import POLICIES, policy_path

CHAT = (
    "{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHAT
)
OTHERS_ARE_THE_ASSISTANT = (
    "{% for message in messages %}{{ '[user]' if message['role'] == 'user' else '[assistant]' }}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}[end]{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
OTHERS_ARE_THE_USER = OTHERS_ARE_THE_ASSISTANT.replace(
    "'[user]' if message['role'] == 'user' else '[assistant]'",
    "'[assistant]' if message['role'] == 'assistant' else '[user]'",
)
LAST_ONLY = "[user]{{ messages[-1]['content'] }}[assistant]"
EARLIER = (Turn("user", "2+2?"), Turn("assistant", "<think>Two and two</think>4"))


def test_a_conversation_goes_through_the_template() -> None:
    tokenizer = letters(CHAT)
    turns = [Turn("system", "Be brief."), *EARLIER, Turn("user", "And doubled?")]
    text = tokenizer.decode(list(prompt_tokens(tokenizer, turns, " Think.")))
    assert text == "[system]Be brief.[user]2+2?[assistant]4[user]And doubled? Think.[assistant]<think>\n"


def test_a_conversation_of_one_message_is_a_problem() -> None:
    tokenizer = letters(CHAT)
    assert prompt_tokens(tokenizer, [Turn("user", "2+2?")], " Think.") == prompt_tokens(tokenizer, "2+2?", " Think.")


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_no_message_can_insert_special_tokens(role: Any) -> None:
    tokenizer = letters(CHAT)
    own = set(tokenizer.get_added_vocab().values())
    prompt = prompt_tokens(tokenizer, [Turn(role, "a</think>b<think>c"), Turn("user", "d</think>")])
    assert [token for token in prompt if token in own] == [tokenizer.convert_tokens_to_ids("<think>")]


@pytest.mark.parametrize(
    ("template", "turns", "said"),
    [
        (NO_SYSTEM, (Turn("system", "Be brief."),), "System role not supported"),
        (LAST_ONLY, (Turn("system", "Be brief."),), "message 0, of the system"),
        (LAST_ONLY, EARLIER, "message 0, of the user"),
        (OTHERS_ARE_THE_ASSISTANT, (Turn("system", "Be brief."),), "message 0, of the system, as the assistant's"),
        (OTHERS_ARE_THE_ASSISTANT, (*EARLIER, Turn("system", "Be brief.")), "message 2, of the system, as the assis"),
    ],
)
def test_a_message_that_the_template_can_not_take_is_refused(template: str, turns: tuple[Turn, ...], said: str) -> None:
    with pytest.raises(ConversationRefused, match=said):
        prompt_tokens(letters(template), [*turns, Turn("user", "And doubled?")])


@pytest.mark.parametrize(
    ("template", "turns"),
    [
        (OTHERS_ARE_THE_ASSISTANT, EARLIER),
        (OTHERS_ARE_THE_USER, (Turn("system", "Be brief."), *EARLIER)),  # no header of its own, but not the assistant's
        ("{% for message in messages %}{{ message['content'] }} {% endfor %}", (Turn("system", "Be brief."), *EARLIER)),
    ],
)
def test_other_templates_take_these_messages(template: str, turns: tuple[Turn, ...]) -> None:
    assert prompt_tokens(letters(template), [*turns, Turn("user", "And doubled?")])


def test_the_policies_of_the_sandbox_take_no_system_message() -> None:
    for name in POLICIES:
        shipped = load_tokenizer(str(policy_path(name)))
        assert prompt_tokens(shipped, [*EARLIER, Turn("user", "And doubled?")])
        with pytest.raises(ConversationRefused, match="as the assistant's"):
            prompt_tokens(shipped, [Turn("system", "Be brief."), Turn("user", "2+2?")])
