"""Choose the instance type of a job, from what is known of its model before anything runs."""

from __future__ import annotations

from cloudft import catalogue
from cloudft.backends.trained_model import count_parameters, trained_model
from cloudft.catalogue import Instance
from cloudft.catalogue.instances import GIB, HourlyPrice
from cloudft.spec.load import LoadedJob

BYTES_PER_PARAMETER = {"lora": 2.2, "qlora": 0.9, "full": 16.0}
"""Frozen weights in 16 or 4 bits with gradients and moments of adapters; or all in 32 bits: the
weights, their gradients and the two moments of AdamW."""
OVERHEAD_BYTES = 5 * GIB
"""CUDA's own, and activations; the trainer takes fewer records at once where less is free."""
UNSHARDED_SHARE = 0.15
"""Share of a sharded model, with its gradients, that is whole on each GPU at a time: embeddings,
output layer, the current block. Calculated for a Llama of 8 B."""
PRICE_REGION = "us-west-2"
"""Region by whose prices the cheapest instance type is chosen."""
DISK_GB, DISK_COPIES = 30, 3
"""Disk beside the weights, and the copies of these: downloaded, checkpoint, output."""


def required_gpu_bytes(job: LoadedJob, gpus: int = 1) -> int | None:
    """Return roughly how many bytes each GPU needs when the model is sharded over `gpus`.

    None when the model's size is unknown. 4-bit weights are not sharded.
    """
    model = trained_model(job)
    count = count_parameters(model) if model else None
    if count is None:
        return None
    method = job.spec.local.method
    whole = gpus == 1 or method == "qlora"
    share = 1.0 if whole else min(1.0, 1 / gpus + UNSHARDED_SHARE)
    return round(count * BYTES_PER_PARAMETER[method] * share) + OVERHEAD_BYTES


def choose_instance_type(job: LoadedJob) -> str | None:
    """Return the named type, or the cheapest with one GPU that fits; None when none is known.

    Types of the same price come in the catalogue's order; those without a price come last. With
    `local.fsdp: true` it is the cheapest whose GPUs fit the model together.
    """
    named: str | None = job.spec.sagemaker.instance_type
    if named is not None:
        return named
    needed = required_gpu_bytes(job)
    if needed is None:
        return None
    if job.spec.local.fsdp is True:
        fitting = [i for i in _all_instances() if _fits_when_sharded(job, i)]
    else:
        fitting = [i for i in _all_instances() if i.gpus == 1 and i.gpu_bytes >= needed]
        fitting = fitting or [i for i in _all_instances() if i.gpus > 1 and i.gpu_bytes >= needed]
    return min(fitting, key=_price_key).name if fitting else None


def count_processes(job: LoadedJob) -> int:
    """Return the number of trainer processes: one a GPU, or one an instance without GPUs."""
    machine = find_instance(choose_instance_type(job))
    return max(1, machine.gpus if machine else 1) * job.spec.sagemaker.instance_count


def _fits_when_sharded(job: LoadedJob, instance: Instance) -> bool:
    gpus = instance.gpus * job.spec.sagemaker.instance_count
    return gpus > 1 and instance.gpu_bytes >= (required_gpu_bytes(job, gpus) or 0)


def _all_instances() -> list[Instance]:
    """Return the types to choose from: others train in float32, which takes more of all."""
    return [row for row in catalogue.load_instances().by_name.values() if row.bfloat16]


def _price_key(instance: Instance) -> float:
    """Return the price in one Region, the same for every job; elsewhere it is about the same."""
    price = catalogue.load_instances().hourly_price(instance.name, PRICE_REGION)
    return price.usd if price is not None else float("inf")


def region_of(job: LoadedJob) -> str | None:
    """Return the Region of the job file; None where the AWS configuration has it."""
    region: str | None = job.spec.sagemaker.region or job.spec.bedrock.region
    return region


def get_hourly_price(job: LoadedJob) -> HourlyPrice | None:
    """Return the price of an hour of one instance; the job file's price is first."""
    own = job.spec.prices
    if own is not None and own.instance_hour is not None:
        return HourlyPrice(own.instance_hour, own.price_source)
    return catalogue.hourly_price(choose_instance_type(job), region_of(job))


def find_instance(name: str | None) -> Instance | None:
    """Return the catalogue's entry of an instance type, or None."""
    return catalogue.load_instances().by_name.get(name or "")


def choose_volume_gb(job: LoadedJob) -> int:
    """Return the disk size: the job file's, or room for three copies of the weights."""
    if job.spec.sagemaker.volume_gb is not None:
        return job.spec.sagemaker.volume_gb
    model = trained_model(job)
    count = count_parameters(model) if model else None
    return DISK_GB + DISK_COPIES * 4 * (count or 8 * 10**9) // 10**9
