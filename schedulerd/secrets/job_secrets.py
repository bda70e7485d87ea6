"""All secrets of a job that may occur in the output of its runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from ..core.errors import SecretError, StartError
from ..core.models import Job, Secret
from .env_files import variables_in
from .forms import SHORTEST_MASKED_OF_FILE, as_bytes, forms_of
from .references import resolve_to_mask, secrets_in
from .urls import parts_of, passwords_in


def known_secrets(job: Job | None, sources: Iterable[str | Secret] = ()) -> tuple[bytes, ...]:
    """Return all values to mask in the output of a job: the secrets of its settings, and the passwords in `sources`.

    Values from its environment files count as secrets from SHORTEST_MASKED_OF_FILE bytes on, as do passwords in URLs
    there. Values are resolved now: one that was changed since the run is unknown. Values that cannot be read or are too
    short are omitted. Each value is returned in all its forms, see `secrets/forms.py`.
    """
    values_of_job = [text for secret in (secrets_in([job.env, job.options]) if job else ()) for text in _values(secret)]
    found = [part for text in values_of_job for part in (text, *parts_of(text))]
    for source in sources:
        found += [password for url in _values(source) for password in passwords_in(url)]
    for text in _variables_of(job) if job else ():
        found += [text] if len(as_bytes(text)) >= SHORTEST_MASKED_OF_FILE else []
        found += passwords_in(text)
    return forms_of(found)


def _variables_of(job: Job) -> Iterator[str]:
    for path in job.env_files:
        with suppress(StartError):
            yield from variables_in(path, None).values()


def _values(value: str | Secret) -> Iterator[str]:
    with suppress(SecretError):
        yield resolve_to_mask(value)
