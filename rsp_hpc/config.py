"""Configuration: frozen models, each beside its algorithm, built from YAML with errors that name the cure.

    class DetrendConfig(Config):
        '''How a raw exposure becomes a detrended one.'''
        min_flat: float = parameter(0.1, "pixels with a lower flat are masked", low=0.0, high=1.0)

    build(DetrendConfig, {"min_flt": 0.2}, "detrend")   # ConfigError: detrend.min_flt: unknown; did you mean min_flat?
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Iterable, TypeVar

import pydantic
import yaml

from .errors import ConfigError

__all__ = ["Config", "build", "changed", "documentation", "effective", "load_yaml", "parameter"]


class Config(pydantic.BaseModel):
    """Base of all configuration sections: frozen, unknown keys refused, defaults checked."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())


Model = TypeVar("Model", bound=pydantic.BaseModel)


def parameter(default: Any, doc: str, *, unit: str = "", low=None, high=None, above=None, neutral: bool = False) -> Any:
    """One configuration field: default, one-line meaning, unit, limits (low <= value <= high, value > above).

    Pass `...` as default for a value that has to be given. `neutral` values change memory or speed, never a result:
    products made with others are not stale.
    """
    limits = {name: value for name, value in (("ge", low), ("le", high), ("gt", above)) if value is not None}
    return pydantic.Field(default, description=doc, json_schema_extra={"unit": unit, "neutral": neutral}, **limits)


def build(model: type[Model], values: dict | None, where: str = "") -> Model:
    """Build a configuration model from plain values.

    Raises
    ------
    ConfigError
        With one line per mistake: the dotted path, what is wrong, and the nearest known name for an unknown key.
    """
    try:
        return model.model_validate(values or {})
    except pydantic.ValidationError as error:
        raise ConfigError("; ".join(_explain(model, item, where) for item in error.errors())) from None


def effective(section: Config) -> dict[str, Any]:
    """The values of a section that a result depends on, plain: all but the neutral ones."""
    plain = section.model_dump(mode="json")
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Config):
            plain[name] = effective(value)
        elif isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("neutral"):
            del plain[name]
    return plain


def _explain(model: type, item: dict, where: str) -> str:
    path = ".".join(str(part) for part in ((where,) if where else ()) + tuple(item["loc"]))
    if item["type"] != "extra_forbidden":
        given = "" if item["type"] == "missing" else f" (got {item['input']!r:.60})"
        return f"{path}: {item['msg'][0].lower()}{item['msg'][1:]}{given}"
    known = _fields_at(model, item["loc"][:-1])
    near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1, cutoff=0.5)
    return f"{path}: unknown; " + (f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}")


def _fields_at(model: Any, path: tuple) -> list[str]:
    """Names of the fields of the model that a validation path leads to."""
    for part in path:
        if not hasattr(model, "model_fields"):
            break
        if part in model.model_fields:
            model = _model_within(model.model_fields[part].annotation)
    return list(getattr(model, "model_fields", ()))


def _model_within(annotation: Any) -> Any:
    """The configuration model inside an annotation such as tuple[Model, ...] or Model | None."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return annotation
    return next((found for part in getattr(annotation, "__args__", ()) if (found := _model_within(part))), None)


def load_yaml(path: str | Path) -> dict:
    """Read a YAML mapping with the safe loader.

    Raises
    ------
    ConfigError
        The file is missing, is not YAML, or is not a mapping.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}:{place} is not valid YAML ({getattr(error, 'problem', error)})") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must hold a mapping of sections, has {type(values).__name__}")
    return values


def changed(values: dict, changes: Iterable[str]) -> dict:
    """Plain values with changes of the form `coadds.coadd.clip=4` applied, in place.

    Raises
    ------
    ConfigError
        A change is not of that form.
    """
    for change in changes:
        key, sign, text = change.partition("=")
        if not sign or not key:
            raise ConfigError(f"--set {change}: write section.key=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"--set {change}: the value is not YAML") from None
        *sections, last = key.split(".")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ConfigError(f"--set {change}: {section} is not a section")
        place[last] = value
    return values


def documentation(model: type[pydantic.BaseModel], indent: int = 0) -> str:
    """The model as commented YAML: every key with its default, unit, limits and meaning."""
    lines = []
    for name, field in model.model_fields.items():
        inner = _model_within(field.annotation)
        pad = " " * indent
        if inner is not None and isinstance(field.annotation, type):
            lines.append(f"{pad}{name}:  # {(inner.__doc__ or '').strip().splitlines()[0]}")
            lines.append(documentation(inner, indent + 2))
            continue
        default = "REQUIRED" if field.is_required() else yaml.safe_dump(_plain(field.get_default(call_default_factory=True)),
                                                                       default_flow_style=True).replace("\n...", "").strip()
        extra = (field.json_schema_extra or {}).get("unit", "")
        limits = "".join(f", {item}" for item in map(_limit, field.metadata) if item)
        lines.append(f"{pad}{name}: {default}  # {field.description or ''}{f' [{extra}]' if extra else ''}{limits}")
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    if isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _limit(metadata: Any) -> str:
    for name, sign in (("ge", ">="), ("gt", ">"), ("le", "<=")):
        if hasattr(metadata, name):
            return f"{sign} {getattr(metadata, name)}"
    return ""
