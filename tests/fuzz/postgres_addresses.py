"""The address of a Postgres, as people paste it: understood, or refused with what to write, never with its password."""

from __future__ import annotations

from pilotlight.postgres_address import BadAddress, understood

PASSWORD = "sesam-oeffne-dich"  # the one that must not be told
SEEDS = (
    b"postgres://u:PASSWORD@h:5432/db?sslmode=verify-full&connect_timeout=3",
    b"postgresql+asyncpg://u:PASSWORD@[::1]:5432,h2/db?channel_binding=require&options=-c%20x%3Dy",
    b"jdbc:postgresql://h/db?user=u&password=PASSWORD&ssl=true",
    b"postgresql:///db?host=/run/postgresql&port=5432&sslkey=/no&application_name=%00",
    b"mysql://u:PASSWORD@h/db",
)


def target(data: bytes) -> None:
    """PASSWORD stands for it, where addresses have it."""
    url = data.decode("utf-8", "surrogateescape")
    for place in ("PASSWORD@", "password=PASSWORD"):
        url = url.replace(place, place.replace("PASSWORD", PASSWORD))
    try:
        address = understood(url)
    except BadAddress as error:
        assert PASSWORD not in str(error) and len(str(error)) < 2000, str(error)
        return
    assert f":{PASSWORD}@" not in address.place and f"password={PASSWORD}" not in address.place, address.place
