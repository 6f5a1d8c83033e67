"""Secrets are hidden by their kind, and what only looks a little like one is not."""

import pytest

from ladder_model_cards.secrets import hide_in_values, hide_secrets, holds_secret, is_secret_name

SECRETS = [
    ("hub_token: abc123", "abc123"),
    ("hub-token: 'abc 123'", "abc 123"),
    ('"wandb_api_key": "0123456789abcdef0123456789abcdef01234567"', "0123456789abcdef"),
    ("WANDB_API_KEY=0123456789abcdef0123456789abcdef01234567", "0123456789abcdef"),
    ("wandb login 0123456789abcdef0123456789abcdef01234567", "0123456789abcdef"),
    ("cannot read https://me:pa$$w0rd@host.org/x.tar now", "pa$$w0rd"),
    ("s3://AKIAIOSFODNN7EXAMPLE:abcdef@bucket/x", "abcdef"),
    ("https://x.blob.core.windows.net/c?sv=1&sig=abc%2Bdef%3D&se=2", "abc%2Bdef"),
    ("https://b.s3.amazonaws.com/k?X-Amz-Signature=0123abcd&X-Amz-Date=1", "0123abcd"),
    ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "wJalr"),
    ("AKIAIOSFODNN7EXAMPLE is refused", "AKIAIOSFODNN7EXAMPLE"),
    ("Authorization: Bearer abcdefghijkl", "abcdefghijkl"),
    ("ghp_0123456789012345678901234567890123456", "ghp_01"),
    ("hf_abcdefghijklmnop", "hf_abc"),
    ("neptune: password: x1", "x1"),
    ("comet_api_key=abc", "abc"),
    ("ladder pretrain --wandb-api-key 0123456789abcdef --max_steps 4", "0123456789abcdef"),
    ("https://host.org/x?a=1&key=abc123", "abc123"),
    ("pwd=abc123", "abc123"),
    ("Set-Cookie: session=abc123; Path=/", "abc123"),
    ("sk_live_abcdefghijklmnop1234", "abcdefghijklmnop"),
    ("SG.abcdefghijklmnopqrst.uvwxyzabcdefghij", "uvwxyz"),
    ("dckr_pat_abcdefghijklmnopqrst", "abcdefghijklmnop"),
    ("password hunter2", "hunter2"),
    ("it asked for a login: the Password is Tr0ub4dor&3", "Tr0ub4dor"),
    ("db_passwd correct-horse in the log", "correct-horse"),
    ("pypi-AgEIcHlwaS5vcmcabcdefgh", "AgEIcHlw"),
]
HARMLESS = [
    "revision: 0123456789abcdef0123456789abcdef01234567",
    "git commit 0123456789abcdef0123456789abcdef01234567+",
    "hub_token: null",
    "user/name@main",
    "https://host.org/a@b/c",
    "tokenizer: x, max_tokens: 5, keys: 3",
    "image_key: photo, monkey: 4, key = value",
    "someone@example.org",
    "the access token is refused: create a new one",
    "--hub_token *** --max_steps 4",
    "--signature --max_steps 4",
    "cookies: 4",
    "the password is wrong",
    "a password-protected archive; no password was given",
    "password required",
    "no password, no download",
]


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_a_secret_is_hidden(text: str, secret: str) -> None:
    assert secret in text
    hidden = hide_secrets(text)
    assert secret not in hidden and "***" in hidden
    assert hide_secrets(hidden) == hidden


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text: str) -> None:
    assert hide_secrets(text) == text
    assert not holds_secret(text)


def test_values_are_hidden_by_their_name_and_by_their_kind() -> None:
    values = {
        "hub_token": "abc",
        "dataset": ["https://me:secret@host/x", "digits"],
        "nested": {"client_secret": 5, "api_key": None, "revision": "a" * 40},
        "max_steps": 4,
        "license": "mit",
    }
    assert hide_in_values(values) == {
        "hub_token": "***",
        "dataset": ["https://***@host/x", "digits"],
        "nested": {"client_secret": "***", "api_key": None, "revision": "a" * 40},
        "max_steps": 4,
        "license": "mit",
    }


def test_names_of_our_own_options_but_the_token_hold_no_secret() -> None:
    from ladder_training.config.recipe import all_fields

    assert [name for name in all_fields() if is_secret_name(name)] == ["hub_token"]
