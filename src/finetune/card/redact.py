"""Keep secrets and private folders out of everything that is published."""

import re

REDACTED = "[redacted]"

# How a name ends whose value is secret.  Plain *_token is no such name: eos_token and pad_token are data.
_CREDENTIAL = (
    r"(?:api[_-]?key|private[_-]?key|access[_-]?key|secret(?:[_-]?key)?|password|passwd|passphrase"
    r"|(?:hub|hf|hugging_?face|auth|access|api|bearer|refresh|session|github|gitlab|wandb)[_-]?token)"
)
_SIGNED_QUERY = (
    r"X-Amz-(?:Signature|Credential|Security-Token)|X-Goog-(?:Signature|Credential)|AWSAccessKeyId|Key-Pair-Id"
    r"|sig|signature|policy|(?:\w+[_-])?token|(?:\w+[_-])?key|auth|password|secret"
)
_VALUE = r"(?!null\b|true\b|false\b)(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s,#}&]+)"

# What stands before the secret is kept: it is the first group.
_SECRETS_BY_CONTEXT = (
    # user:password@ and token@ in a URL; the greedy run takes in a password that holds an @ itself
    r"(://)[^\s/\"'`<>]+(?=@)",
    rf"(?i)([?&](?:amp;)?(?:{_SIGNED_QUERY})=)(?!\[redacted)[^&\s\"'`<>)\]]+",
    rf"(?i)({_CREDENTIAL}[\"']?[ \t]*[:=][ \t]*){_VALUE}",
    # 40 hex digits are a W&B key or a git commit: only the word before them tells
    r"(?i)((?:wandb|\bkey|_key|\btoken|_token|secret|login)\b[^\n]{0,20}?)\b[0-9a-f]{40}\b",
    r"(?i)\b(Bearer\s+)[\w.~+/-]{16,}=*",
)
_SECRETS_BY_SHAPE = (
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    r"\bwandb_v1_\w{16,}",
    r"\bhf_(?:oauth_|jwt_)?[A-Za-z0-9]{16,}(?:[._-][A-Za-z0-9._-]+)?",
    r"\bapi_org_[A-Za-z0-9]{16,}",
    r"\bgh[pousr]_[A-Za-z0-9]{16,}",
    r"\bgithub_pat_\w{20,}",
    r"\bglpat-[\w-]{16,}",
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    r"(?<![\w-])sk-[\w-]{16,}",
    r"\bxox[abeprs]-[\w-]{10,}",
    r"\bAIza[\w-]{30,}",
    r"(?<![\w-])eyJ[\w-]{10,}\.[\w-]{10,}(?:\.[\w-]*)?",
)
_HOME_FOLDERS = (
    r"(?:(?<=file://)|(?<![\w/.~-]))/(?:home|Users)/[^/\s\"'`:,;)\]}<>]+",
    r"(?:(?<=file://)|(?<![\w/.~-]))/root(?![\w-])",
    r"\b[A-Za-z]:\\Users\\[^\\\s\"'`]+",
)

_RULES = (
    *((re.compile(pattern), rf"\1{REDACTED}") for pattern in _SECRETS_BY_CONTEXT),
    *((re.compile(pattern), REDACTED) for pattern in _SECRETS_BY_SHAPE),
    *((re.compile(pattern), "~") for pattern in _HOME_FOLDERS),
)


def redact(text: str) -> str:
    """Return ``text`` with each secret replaced by ``[redacted]`` and each home folder by ``~``.

    Known are the tokens of Hugging Face, W&B, GitHub, GitLab, AWS, OpenAI-like services, Slack and Google,
    private keys, bearer tokens, user and password in URLs, the secret parts of signed URLs, and values under
    a name such as ``api_key`` or ``password``.  Redacting twice changes nothing more.
    """
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text
