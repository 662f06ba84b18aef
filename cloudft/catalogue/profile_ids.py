"""Ids and ARNs of inference profiles.

A profile that Bedrock defines is named after its area and its model: `us.amazon.nova-lite-v1:0`. An
application profile, which an account creates, has a name that says nothing about its model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

AREAS = ("us", "eu", "apac", "jp", "au", "ca", "us-gov", "global")
"""Areas of the profiles that Bedrock defines: the first parts of their ids."""
GLOBAL = "global"
"""The area that sends requests to any commercial Region."""
IN_REGION = "in-region"
"""What a job file writes for a call by the model's own id, without a profile."""
SYSTEM, APPLICATION = "inference-profile", "application-inference-profile"
"""Resource types in the ARNs of profiles: those that Bedrock defines, those of an account."""
_ARN = re.compile(
    r"arn:aws[a-z-]*:bedrock:(?P<region>[a-z0-9-]+):[0-9]{12}"
    rf":(?P<kind>{SYSTEM}|{APPLICATION})/(?P<id>[A-Za-z0-9.:-]+)"
)
_ID = re.compile(rf"(?P<area>{'|'.join(AREAS)})\.(?P<model>[a-z0-9-]+\.[A-Za-z0-9.:-]+)")


@dataclass(frozen=True)
class ProfileName:
    """What the id or ARN of a profile says.

    `area` and `model` (the model's id) are empty for an application profile, `region` for an id.
    """

    identifier: str
    area: str = ""
    model: str = ""
    region: str = ""

    @property
    def is_application(self) -> bool:
        """Return whether an account created the profile, so that its name lacks the model."""
        return not self.area

    @property
    def id(self) -> str:
        """Return the part of an ARN after the resource type; an id as it is."""
        return self.identifier.rpartition("/")[2]


def parse_profile(identifier: str) -> ProfileName | None:
    """Return what an id or ARN says; None for one that is not an inference profile's."""
    arn = _ARN.fullmatch(identifier)
    if arn is not None and arn["kind"] == APPLICATION:
        return ProfileName(identifier, region=arn["region"])
    found = _ID.fullmatch(arn["id"] if arn else identifier)
    if found is None:
        return None
    return ProfileName(identifier, found["area"], found["model"], arn["region"] if arn else "")


def on_demand_id(identifier: str) -> str:
    """Return a base model's id on demand: its id or ARN without customization's context suffix."""
    name = identifier.rpartition("/")[2]
    head, _, suffix = name.rpartition(":")
    return head if suffix.endswith("k") else name


def profile_id(area: str, identifier: str) -> str:
    """Return the id of the profile that Bedrock defines for a base model in an area."""
    return f"{area}.{on_demand_id(identifier)}"
