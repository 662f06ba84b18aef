"""Change moto's AWS RAM so that custom models can be shared once, and found by their tags.

Found in moto 5.2.5 (`ram/models.py`): custom models of Bedrock are no resource that can be shared,
a `clientToken` is ignored, so that a repeated request makes a second share, and a share's tags are
neither kept nor returned. RAM's API reference has all three.
"""

from __future__ import annotations

import functools
from typing import Any

CUSTOM_MODEL = "custom-model"
"""Type in the ARN of a custom model. Source: Bedrock user guide, "Share a model"."""


@functools.cache
def patch_resource_shares() -> None:
    """Change moto's classes, once."""
    from moto.ram.models import ResourceAccessManagerBackend, ResourceShare

    describe = ResourceShare.describe
    initialize = ResourceShare.__init__
    create = ResourceAccessManagerBackend.create_resource_share

    def initialize_with_tags(
        self: ResourceShare, account_id: str, region: str, **options: Any
    ) -> None:
        initialize(self, account_id, region, **options)
        self.cloudft_tags = options.get("tags", [])
        self.cloudft_token = options.get("clientToken")

    def describe_with_tags(self: ResourceShare) -> dict[str, Any]:
        return {**describe(self), "tags": self.cloudft_tags}

    def create_once(self: ResourceAccessManagerBackend, **options: Any) -> dict[str, Any]:
        token = options.get("clientToken")
        for share in self.resource_shares:
            if token is not None and share.cloudft_token == token:
                known = share.describe()
                return {"resourceShare": {k: v for k, v in known.items() if k != "featureSet"}}
        response: dict[str, Any] = create(self, **options)
        return response

    ResourceShare.SHAREABLE_RESOURCES.append(CUSTOM_MODEL)
    ResourceShare.__init__ = initialize_with_tags
    ResourceShare.describe = describe_with_tags
    ResourceAccessManagerBackend.create_resource_share = create_once
