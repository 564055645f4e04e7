"""What every section of the configuration shares: a frozen, strict pydantic model with documented keys."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Affects = Literal["tokens", "training", "nothing"]


class Section(BaseModel):
    """A group of keys of the flat YAML file.  Frozen, typed strictly, closed to unknown keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )

    def changed_keys(self) -> list[str]:
        """Return the keys whose value is not their default.

        A key that says its default asks for nothing: Axolotl files carry such keys, and a resolved configuration
        has them all.
        """
        fields = type(self).model_fields
        return [
            name
            for name, value in self
            if value != fields[name].get_default(call_default_factory=True, validated_data={})
        ]


def key(default: Any = ..., *, affects: Affects, unit: str | None = None, **bounds: Any) -> Any:
    """Declare one YAML key.

    ``affects`` says what a change of the key changes: the ``tokens`` that the model sees, the
    ``training`` that it gets from them, or ``nothing`` in the result.  The cache of prepared data is
    keyed by the first kind.  ``bounds`` go to :func:`pydantic.Field` (``ge``, ``le``, ``min_length`` …).
    A mutable default is given as a factory, such as ``list``.
    """
    extra: dict[str, Any] = {"affects": affects}
    if unit is not None:
        extra["unit"] = unit
    if callable(default):
        return Field(default_factory=default, json_schema_extra=extra, **bounds)
    return Field(default, json_schema_extra=extra, **bounds)
