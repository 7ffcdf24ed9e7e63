"""Curation rules of bench/catalog.py: the collected data that the bundled tables include or leave out, with reasons."""

# Date when the accelerators were last compared with their sources.
CHECKED = "2026-11-23"

# ---- Accelerators ---------------------------------------------------------------------------------------------------

LEFT_OUT = {
    "RTXPRO4500": "no compute figures in the source",
    "MI250X": "two devices of 64 GB to every engine, one in the source",
}
# Memory as reported by nvidia-smi, without error correction [MiB]; for other accelerators: nominal GiB.
REPORTED_MIB = {
    "T4": 15360, "A10": 23028, "A10G": 23028, "A30": 24576, "A40": 46068, "RTXA6000": 49140, "RTX3090": 24576,
    "A100-40GB": 40960, "A100-80GB": 81920, "A100-PCIe-80GB": 81920, "L4": 23034, "L40": 46068, "L40S": 46068,
    "RTX6000Ada": 49140, "RTX4090": 24564, "RTX5090": 32607, "RTXPRO6000": 97887, "H100-80GB": 81559,
    "H100-PCIe-80GB": 81559, "H100-NVL-94GB": 95830, "GH200-96GB": 97871, "H200": 143771, "H200-NVL": 143771,
    "B200": 183359, "B300": 275040, "GB200": 189471, "GB300": 284208,
}  # fmt: skip
# Replacements for figures of the source, with reasons below; None: left out.
CORRECTIONS: dict[str, dict[str, float | None]] = {
    "RTXPRO6000": {"memory_bandwidth_gb_s": 1597},
    "B300": {"fp4_dense_tflops": 13125, "int8_dense_tops": None},
    "GB300": {"int8_dense_tops": None},
    "Gaudi3": {"fp16_dense_tflops": None},
}
REASONS = {
    "RTXPRO6000": "clouds rent the Server Edition: 1597 GB/s (NVIDIA datasheet), not the workstation card's 1792",
    "B300": "dense FP4: sources give 13.1 to 14 PFLOPS, the lowest is used; INT8: sources disagree, left out",
    "GB300": "INT8: sources disagree, left out",
    "Gaudi3": "FP16 rate differs from BF16 and was not found, left out",
}
# Rows that the source calls partly verified and that were checked later, with dense rates from the makers' datasheets.
CONFIRMED = {
    "A40": "NVIDIA A40 datasheet (compute)",
    "L40": "NVIDIA L40 datasheet (compute; half the L40S figure on the same die)",
    "RTX6000Ada": "NVIDIA Ada professional whitepaper (compute: 364.2 dense BF16)",
    "RTX5090": "NVIDIA RTX Blackwell whitepaper (compute, FP32 accumulation)",
    "H100-NVL-94GB": "NVIDIA H100 product page (compute: half of the sparse 1671 and 3341)",
    "MI325X": "AMD (compute as MI300X)",
    "MI355X": "AMD (compute: 2.5 PFLOPS BF16, rounded)",
}
UNCHECKED_LINK = {"Inferentia2", "Trainium1", "Trainium2", "TPUv5p", "TPU7x", "Gaudi2", "Gaudi3"}
ALIASES = {
    "V100-16GB": "V100;V100-SXM2;V100-SXM2-16GB",
    "V100-32GB": "V100;V100-SXM2-32GB",
    "A100-40GB": "A100;A100-SXM4-40GB;A100-SXM-40GB",
    "A100-80GB": "A100;A100-SXM4-80GB;A100-SXM-80GB;A100-80GB-SXM;A100-80GB-NVLink;A100-80G-SXM4",
    "A100-PCIe-40GB": "A100-40GB-PCIe",
    "A100-PCIe-80GB": "A100-80GB-PCIe;A100-80G-PCIe;A100-80G-PCIe-NVLink",
    "RTXA6000": "A6000",
    "RTX6000Ada": "RTX6000-Ada;6000Ada",
    "RTXPRO6000": "RTXPRO6000-Blackwell;RTXPRO6000-Server;RTXPRO6000-Blackwell-Server-Edition",
    "H100-80GB": "H100;H100-SXM;H100-SXM5;H100-SXM-80GB;H100-80GB-HBM3;H100-80G-SXM5;H100-HGX;H100-MEGA;H100-MEGA-80GB",
    "H100-PCIe-80GB": "H100-PCIe;H100-80G-PCIe;H100-80G-PCIe-NVLink;H100-80GB-PCIe",
    "H100-NVL-94GB": "H100-NVL",
    "GH200-96GB": "GH200;GH200-480GB",
    "H200": "H200-SXM;H200-SXM5;H200-141GB;H200-SXM-141GB",
    "B200": "B200-SXM;B200-SXM6;B200-180GB",
    "B300": "B300-SXM;B300-SXM6",
    "MI300X": "MI300X-OAM",
    "Gaudi2": "Gaudi-HL-225H",
    "TPUv5e": "tpu-v5-lite;v5litepod;tpu-v5e",
    "TPUv5p": "tpu-v5p",
    "TPUv6e": "tpu-v6e",
}
# One accelerator that occurs in offers but is missing in the source.
ADDED = {
    "gpu": "A100-PCIe-40GB", "vendor": "nvidia", "architecture": "Ampere", "memory_gib": "40",
    "memory_bandwidth_gb_s": "1555", "bf16_dense_tflops": "312", "fp16_dense_tflops": "312", "int8_dense_tops": "624",
    "scaleup_link": "PCIe (NVLink bridge optional)", "scaleup_bandwidth_gb_s_per_direction": "32",
    "pcie_bandwidth_gb_s_per_direction": "32", "tdp_w": "250",
    "source": "NVIDIA A100 datasheet (PCIe 40 GB card)",
}  # fmt: skip

# ---- Offers ---------------------------------------------------------------------------------------------------------

REGIONS = {
    "aws": ("us-east-1", "us-west-2", "eu-central-1", "ap-northeast-1"),
    "gcp": ("us-central1", "europe-west4", ""),
    "azure": ("eastus", "eastus2", "westeurope", ""),
}
# Instances that are rented as a whole although their price is per accelerator; these prices have no region.
WHOLE = {
    ("gcp", "h200"): ("a3-ultragpu-8g", 8),
    ("gcp", "b200"): ("a4-highgpu-8g", 8),
    ("azure", "a100-sxm-40"): ("Standard_ND96asr_v4", 8),
    ("azure", "a100-sxm-80"): ("Standard_ND96amsr_A100_v4", 8),
    ("azure", "a100-pcie-80"): ("Standard_NC24ads_A100_v4", 1),
    ("azure", "h100-sxm"): ("Standard_ND96isr_H100_v5", 8),
    ("azure", "h100-nvl"): ("Standard_NC40ads_H100_v5", 1),
}
# Accelerator counts for rent at providers with prices per accelerator, by the provider's name of the accelerator. Those
# of Lambda, Nebius, Hyperstack and Verda agree with SkyPilot's catalogs (July 2026 and before); the others are assumed:
# a count that is not for rent is the most likely error here.
BY_ONE = (1, 2, 4, 8)
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "lambda": {
        "a10": (1,), "a100-sxm-80": (8,), "a100-pcie-40": (1,), "b200": (8,), "gh200": (1,), "h100-sxm": (8,),
        "h100-pcie": (1,), "rtx-a6000": (1, 2, 4), "v100": (8,), "NVIDIA H100 SXM": (1,), "NVIDIA B200 SXM6": (1,),
        "NVIDIA A100 SXM 40": (8,),
    },
    "runpod": dict.fromkeys(
        ("a100-sxm-80", "a100-pcie-80", "b200", "b300", "h100-sxm", "h100-nvl", "h100-pcie", "h200", "l4", "l40",
         "l40s", "mi300x", "rtx-6000-ada", "rtx-a6000", "rtx-pro-6000-server"), BY_ONE)
    | dict.fromkeys(("a40", "rtx-3090", "rtx-4090", "rtx-5090"), (1, 2)),
    "coreweave": {
        **dict.fromkeys(("a100", "b200", "h100", "h200", "l40", "l40s", "rtx-pro-6000-server"), (8,)), "gh200": (1,),
    },
    "crusoe": {"a100-sxm-80": BY_ONE, "a100-pcie-80": BY_ONE, "l40s": BY_ONE, "h100": (8,), "h200": (8,),
               "mi300x": (8,)},
    "nebius": {"h100": (1, 8), "h200": (1, 8), "b200": (8,), "b300": (8,), "l40s": (1, 2, 4), "rtx-pro-6000": (1,)},
    "verda": dict.fromkeys(
        ("a100-sxm-40", "a100-sxm-80", "b200", "b300", "h100-sxm", "h200", "l40s", "rtx-6000-ada", "rtx-a6000",
         "rtx-pro-6000", "NVIDIA A100 SXM4", "NVIDIA A100 SXM4 80GB", "B200 SXM6", "B300 SXM6",
         "NVIDIA H100 SXM5", "NVIDIA H200 SXM5", "NVIDIA L40S", "RTX 6000 Ada", "NVIDIA RTX A6000",
         "RTX PRO 6000"), BY_ONE),
    "vultr": {"a100": (1,), "a40": (1,), "l40s": (1,), "b200": (8,), "h100": (8,), "mi325x": (8,), "mi355x": (8,),
              "NVIDIA GH200": (1,)},
    "hyperstack": {"a100": BY_ONE, "a100-sxm-80": (8,), "h100": BY_ONE, "h100-sxm": (8,), "h200": (8,), "b200": (8,),
                   "b300": (8,), "l40": BY_ONE, "rtx-a6000": BY_ONE, "rtx-pro-6000": BY_ONE},
    "digitalocean": {"h100": (1, 8), "h200": (1, 8), "mi300x": (1, 8), "mi325x": (8,), "mi350x": (8,), "b300": (8,),
                     "l40s": (1,), "rtx-6000-ada": (1,)},
    "scaleway": {"h100": (1, 2), "h100-sxm": (2, 4, 8), "l4": BY_ONE, "l40s": BY_ONE, "b300": (8,)},
    "ovh": {"l4": (1, 2, 4), "l40s": (1, 2, 4), "h100": (1, 2, 4), "a100": (1, 2, 4), "a10": (1, 2, 4), "h200": (8,)},
    "together": {"h100": (8,), "h200": (8,), "b200": (8,)},
    "massedcompute": {"a100-sxm-80": (8,), "h100-sxm": (8,), "h100-nvl": (2,), "l40": BY_ONE, "l40s": BY_ONE,
                      "rtx-6000-ada": BY_ONE, "rtx-a6000": BY_ONE},
    "gmicloud": {"h100": (8,), "h200": (8,), "b200": (8,)},
}  # fmt: skip
# The source uses the name of a family here; the provider's listing shows the exact accelerator.
PARTS = {
    ("hyperstack", "a100"): "A100-PCIe-80GB",
    ("hyperstack", "h100"): "H100-PCIe-80GB",
    ("vultr", "a100"): "A100-PCIe-80GB",
    ("scaleway", "h100"): "H100-PCIe-80GB",
    ("ovh", "a100"): "A100-PCIe-80GB",
    ("ovh", "h100"): "H100-PCIe-80GB",
}
RETIRED = ("Standard_NC6s_v3", "Standard_NC12s_v3", "Standard_NC24s_v3", "Standard_ND40rs_v2", "Standard_NCC")
SPOT_ONLY = ("a3-highgpu-1g", "a3-highgpu-2g", "a3-highgpu-4g")
# Accelerators whose engines the performance model does not cover; their facts are bundled, their offers are not.
OTHER_ENGINES = ("Inferentia", "Trainium", "TPU", "Gaudi")
# A price that differs from the median of its accelerator and market by more than this factor is an error.
BAND = 6.0
