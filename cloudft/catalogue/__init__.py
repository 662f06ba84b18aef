"""The models that cloudft knows, as data: one YAML file a family, each fact with source and date.

`find` is the way in: an alias, a Bedrock id, an ARN, a folder or a hub id gives one `Model`.
"""

from cloudft.catalogue.find import find, is_hub_id, known
from cloudft.catalogue.importing import (
    Architecture,
    ImportRules,
    UnitPrices,
    import_rules,
    unit_prices,
)
from cloudft.catalogue.instances import Instance, hourly, instances
from cloudft.catalogue.load import local_hyperparameters, models
from cloudft.catalogue.model import (
    Hyperparameter,
    Lifecycle,
    Limits,
    Model,
    Prices,
    Source,
    Weights,
)
from cloudft.catalogue.stated import STATED, with_prices
from cloudft.catalogue.where import where

__all__ = [
    "STATED",
    "Architecture",
    "Hyperparameter",
    "ImportRules",
    "Instance",
    "Lifecycle",
    "Limits",
    "Model",
    "Prices",
    "Source",
    "UnitPrices",
    "Weights",
    "find",
    "hourly",
    "import_rules",
    "instances",
    "is_hub_id",
    "known",
    "local_hyperparameters",
    "models",
    "unit_prices",
    "where",
    "with_prices",
]
