# Written by melange deploy on 2026-11-26 from the plan with fingerprint f4d9a8f50222d9b3.
#
# Model meta-llama/Llama-3.1-8B-Instruct; SLO TTFT <= 2,000 ms and TPOT <= 80 ms for 99% of requests; 32 requests/s;
# 11.97 USD/h (closed form) for 1 x aws/us-east-1/g6.xlarge, 6 x aws/us-east-1/g6e.xlarge.
#
# A replica of aws/us-east-1/g6.xlarge: meta-llama/Llama-3.1-8B-Instruct, vllm, tensor parallel 1, max_num_seqs 256, max_num_batched_tokens 2048, max_model_len 32578, block_size 16, gpu_memory_utilization 0.9, enable_chunked_prefill true, enable_prefix_caching false
# A replica of aws/us-east-1/g6e.xlarge: meta-llama/Llama-3.1-8B-Instruct, vllm, tensor parallel 1, max_num_seqs 256, max_num_batched_tokens 2048, max_model_len 131072, block_size 16, gpu_memory_utilization 0.9, enable_chunked_prefill true, enable_prefix_caching false
#
# CAUTION: routing: cloud load balancers cannot route by request size: put a gateway in front of the types' addresses
# (melange deploy --to haproxy)
#
# terraform init && terraform apply (or tofu). The Hugging Face token must already exist as a secret: -var
# hf_secret=NAME, in AWS Secrets Manager or Google Secret Manager.
#
# Each replica type is a group of as many instances as planned; every instance runs its replicas in containers, on
# consecutive ports, and is replaced when they fail. Each type has an address within the network. In front of them a
# gateway routes requests by size, on a machine of that network: eval "melange deploy plan.json --to haproxy
# $(terraform output -raw replica_flags)".

terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80"
    }
  }
}

provider "aws" {
  alias  = "us-east-1"
  region = "us-east-1"
}
