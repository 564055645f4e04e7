"""Chat templates: find one by name, compile it once, render conversations with it.

The environment is the one that transformers gives to chat templates (sandboxed Jinja with
``raise_exception``, ``tojson`` without HTML escapes, ``strftime_now``, ``{% generation %}``), so the text is
the same as that of ``tokenizer.apply_chat_template(..., tokenize=False)``; no torch is imported.
"""

import json
import signal
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from finetune.config.names import FALLBACK_PREFIX, JINJA, TOKENIZER_DEFAULT
from finetune.config.secrets import find_secret
from finetune.data.literals import CLOSE, OPEN
from finetune.data.named_templates import TEMPLATES
from finetune.data.segments import RowError
from finetune.data.tokenize import Tokenizer
from finetune.errors import ConfigError

REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
"""Names of a message's reasoning; transformers gives it to the template under the first two."""

_REASONING = frozenset(REASONING_KEYS)

Message = Mapping[str, Any]


LIMIT_S = 3
"""Seconds after which a template is taken for an endless one."""


MAX_BITS = 10_000
"""Size of the largest power that a template may compute."""


class _EndlessError(Exception):
    """The time is up."""


class ChatRenderer:
    """A compiled chat template."""

    def __init__(self, template: str, special_tokens: Mapping[str, Any], marks_generation: bool = False) -> None:
        """Compile ``template``; ``special_tokens`` (bos_token …) are variables in it.  Raises ConfigError.

        ``marks_generation`` puts the marks of data/literals.py around what ``{% generation %}`` blocks write.
        """
        self.source = template
        self._special_tokens = dict(special_tokens)
        try:
            self._template = _environment(marks_generation).from_string(template)
            # Jinja copies the globals for each rendering; its own chain of maps is slow to copy.
            self._template.globals = dict(self._template.globals)
        except TemplateSyntaxError as error:
            raise ConfigError(f"the chat template is not valid Jinja: line {error.lineno}: {error.message}") from None
        if threading.current_thread() is threading.main_thread():  # signals are for it alone
            self._refuse_endless()

    def _refuse_endless(self) -> None:
        """Render two short turns, which takes a millisecond, and give up on a template that goes on for seconds."""

        def stop(*_: object) -> NoReturn:
            raise _EndlessError

        previous = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
        try:
            self([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
        except RowError:
            pass  # it wants other turns, and says so of each row
        except _EndlessError:
            raise ConfigError(
                f"the chat template has not come to an end of two short turns after {LIMIT_S} s; is there a loop in "
                "it? Its first line: " + self.source.strip().partition("\n")[0][:80]
            ) from None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)

    def __call__(
        self, messages: Sequence[Message], tools: Sequence[Message] | None = None, add_generation_prompt: bool = False
    ) -> str:
        """Return the conversation as text.  Raises RowError where the template does."""
        try:
            return self._template.render(
                **self._special_tokens,
                messages=[_with_reasoning_names(message) for message in messages],
                tools=tools or None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
            )
        except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
            raise RowError(f"the chat template refuses this conversation: {error}") from None


def parse_template(source: str) -> nodes.Template:
    """Return the syntax tree of a template that ChatRenderer accepts."""
    return _environment().parse(source)


def load_chat_template(name: str | None, jinja: str | None, tokenizer: Tokenizer) -> str:
    """Return the text of a chat template.

    ``name`` is a key of TEMPLATES, ``tokenizer_default`` (what None means, unless ``jinja`` is given),
    ``tokenizer_default_fallback_<key>``, or ``jinja`` with the template's text or file in ``jinja``.
    Raises ConfigError for a missing file, or a tokenizer that has no template.  That the name is known was checked
    when the configuration was read.
    """
    if name == JINJA or (name is None and jinja is not None):
        return _jinja_text(jinja)
    if name is None or name == TOKENIZER_DEFAULT:
        return _tokenizer_template(tokenizer) or _no_default()
    if name.startswith(FALLBACK_PREFIX):
        own = _tokenizer_template(tokenizer)
        return own if own is not None else _named(name.removeprefix(FALLBACK_PREFIX))
    return _named(name)


def _named(name: str) -> str:
    return TEMPLATES[name].read()


def _no_default() -> NoReturn:
    raise ConfigError(
        f"chat_template is {TOKENIZER_DEFAULT}, but the tokenizer has no chat template; "
        f"write one of {', '.join(TEMPLATES)}, or {JINJA} with chat_template_jinja"
    )


def _tokenizer_template(tokenizer: Tokenizer) -> str | None:
    template = tokenizer.chat_template
    if isinstance(template, dict):
        return template.get("default")
    return template or None


def template_file(jinja: str) -> Path | None:
    """Return the file that ``chat_template_jinja`` names; None where it is the template's text itself."""
    return None if "{" in jinja or "\n" in jinja else Path(jinja).expanduser()


def _jinja_text(jinja: str | None) -> str:
    """Return template text that is given as such or as the path of a file."""
    if not jinja:
        raise ConfigError("chat_template: jinja needs chat_template_jinja, the template's text or its file")
    path = template_file(jinja)
    if path is None:
        return jinja
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"chat_template_jinja: {jinja}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"chat_template_jinja: {jinja} is not UTF-8 text") from None
    if secret := find_secret(text):  # it would be saved with the tokenizer
        raise ConfigError(f"chat_template_jinja: {jinja} {secret}")
    return text


def _with_reasoning_names(message: Message) -> Message:
    if _REASONING.isdisjoint(message):
        return message
    reasoning = next((message[key] for key in REASONING_KEYS if message.get(key) is not None), None)
    if reasoning is None:
        return message
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


class _Generation(Extension):
    """Accept ``{% generation %}``, with which templates mark the assistant's text; the body is kept."""

    tags = {"generation"}  # noqa: RUF012 - the name and type that Jinja asks for

    def parse(self, parser: Parser) -> nodes.Node:
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(lineno)


class _MarkedGeneration(_Generation):
    """The same with marks around the text of each block."""

    def parse(self, parser: Parser) -> list[nodes.Node]:  # type: ignore[override]
        lineno = parser.stream.current.lineno
        inner = super().parse(parser)
        marks = [nodes.Output([nodes.TemplateData(mark)]).set_lineno(lineno) for mark in (OPEN, CLOSE)]
        return [marks[0], inner, marks[1]]


class _Sandbox(ImmutableSandboxedEnvironment):
    """The sandbox without large powers, which no signal can interrupt."""

    intercepted_binops = frozenset(["**"])

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > MAX_BITS:
            raise SecurityError(f"a number of more than {MAX_BITS:,} bits is not for a chat template")
        return super().call_binop(context, operator, left, right)


def _environment(marks_generation: bool = False) -> ImmutableSandboxedEnvironment:
    generation = _MarkedGeneration if marks_generation else _Generation
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[generation, loopcontrols])
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().astimezone().strftime(pattern)
