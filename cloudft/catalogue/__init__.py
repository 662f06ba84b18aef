"""Catalogue of base models as data: one YAML file per family, each fact with source and date.

`find_model` is the entry point: it returns the `Model` of an alias, a Bedrock id, an ARN, a folder
or a hub id.
"""

from cloudft.catalogue.copy_rules import CopyRules, load_copy_rules
from cloudft.catalogue.customization_types import (
    CUSTOMIZATION_TYPES,
    DEFAULT_CUSTOMIZATION_TYPE,
    CustomizationType,
    is_labeled,
    is_preference,
    is_text_only,
    trains_on,
)
from cloudft.catalogue.find import (
    find_catalogue_model,
    find_model,
    is_hub_id,
    living_teachers,
    resolve_job,
)
from cloudft.catalogue.import_rules import (
    Architecture,
    ImportRules,
    UnitPrices,
    get_unit_prices,
    load_import_rules,
)
from cloudft.catalogue.inference_profiles import (
    answers_in_region,
    callable_areas,
    inference_id,
    profile_areas,
)
from cloudft.catalogue.instances import Instance, hourly_price, load_instances
from cloudft.catalogue.load import load_local_hyperparameters, load_models
from cloudft.catalogue.model import (
    CustomizationApi,
    Hyperparameter,
    Lifecycle,
    Limits,
    Model,
    Weights,
)
from cloudft.catalogue.prices import Price, Prices
from cloudft.catalogue.profile_ids import ProfileName, on_demand_id, parse_profile, profile_id
from cloudft.catalogue.serverless import (
    ServerlessModel,
    describe_offer,
    find_serverless_model,
    load_serverless,
    offer_fix,
    owned_weights_route,
    techniques_for,
)
from cloudft.catalogue.source import Source
from cloudft.catalogue.stated_prices import STATED_SOURCE, with_prices
from cloudft.catalogue.weight_locations import WeightLocation, find_weights

__all__ = [
    "CUSTOMIZATION_TYPES",
    "DEFAULT_CUSTOMIZATION_TYPE",
    "STATED_SOURCE",
    "Architecture",
    "CopyRules",
    "CustomizationApi",
    "CustomizationType",
    "Hyperparameter",
    "ImportRules",
    "Instance",
    "Lifecycle",
    "Limits",
    "Model",
    "Price",
    "Prices",
    "ProfileName",
    "ServerlessModel",
    "Source",
    "UnitPrices",
    "WeightLocation",
    "Weights",
    "answers_in_region",
    "callable_areas",
    "describe_offer",
    "find_catalogue_model",
    "find_model",
    "find_serverless_model",
    "find_weights",
    "get_unit_prices",
    "hourly_price",
    "inference_id",
    "is_hub_id",
    "is_labeled",
    "is_preference",
    "is_text_only",
    "living_teachers",
    "load_copy_rules",
    "load_import_rules",
    "load_instances",
    "load_local_hyperparameters",
    "load_models",
    "load_serverless",
    "offer_fix",
    "on_demand_id",
    "owned_weights_route",
    "parse_profile",
    "profile_areas",
    "profile_id",
    "resolve_job",
    "techniques_for",
    "trains_on",
    "with_prices",
]
