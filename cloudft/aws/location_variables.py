"""The environment variables that say where AWS calls go."""

from __future__ import annotations

import os

AWS_LOCATION_VARIABLES = {
    "profile": "AWS_PROFILE",
    "region": "AWS_REGION",
    "endpoint_url": "AWS_ENDPOINT_URL",
}


def location_from_environ() -> dict[str, str | None]:
    """Return profile, region and endpoint URL from the environment, for `Backend.bind`.

    The profile is left to AWS_PROFILE: passed by name it would win over keys in the environment,
    while AWS's own order, and so every other call, is the other way round.
    """
    location = {name: os.environ.get(var) for name, var in AWS_LOCATION_VARIABLES.items()}
    return location | {"profile": None}
