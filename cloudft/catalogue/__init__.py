"""The models that cloudft knows, as data: one YAML file a family, each fact with source and date.

`find` is the way in: an alias, a Bedrock id, an ARN, a folder or a hub id gives one `Model`.
"""

from cloudft.catalogue.find import find_catalogue_model, find_model, is_hub_id
from cloudft.catalogue.import_rules import (
    Architecture,
    ImportRules,
    UnitPrices,
    get_unit_prices,
    load_import_rules,
)
from cloudft.catalogue.instances import Instance, hourly_price, load_instances
from cloudft.catalogue.load import load_local_hyperparameters, load_models
from cloudft.catalogue.model import (
    Hyperparameter,
    Lifecycle,
    Limits,
    Model,
    Prices,
    Source,
    Weights,
)
from cloudft.catalogue.stated_prices import STATED_SOURCE, with_prices
from cloudft.catalogue.weight_locations import find_weights

__all__ = [
    "STATED_SOURCE",
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
    "find_catalogue_model",
    "find_model",
    "find_weights",
    "get_unit_prices",
    "hourly_price",
    "is_hub_id",
    "load_import_rules",
    "load_instances",
    "load_local_hyperparameters",
    "load_models",
    "with_prices",
]
