# Written by melange deploy on 2026-11-26 from a schedule over a day.
#
# Model meta-llama/Llama-3.1-8B-Instruct; SLO TTFT <= 2,000 ms and TPOT <= 60 ms for 99% of requests; 1,139 USD/week;
# start-up 300 s; traffic: rates.csv: 336 windows of 30 min.
#
# CAUTION: spot: llama-3-1-8b-aws-us-east-1-g5-xlarge-spot, llama-3-1-8b-aws-us-east-1-p5-4xlarge-spot,
# llama-3-1-8b-aws-us-east-1-g6e-xlarge-spot: spot instances are started again where they are available, and no
# on-demand ones in their place
#
# CAUTION: routing: cloud load balancers cannot route by request size: put a gateway in front of the types' addresses
# (melange deploy --to haproxy)
#
# A replica of aws/us-east-1/g5.xlarge: meta-llama/Llama-3.1-8B-Instruct, vllm, tensor parallel 1, max_num_seqs 256, max_num_batched_tokens 2048, max_model_len 32539, block_size 16, gpu_memory_utilization 0.9, enable_chunked_prefill true, enable_prefix_caching false
# A replica of aws/us-east-1/p5.4xlarge: meta-llama/Llama-3.1-8B-Instruct, vllm, tensor parallel 1, max_num_seqs 1024, max_num_batched_tokens 8192, max_model_len 131072, block_size 16, gpu_memory_utilization 0.9, enable_chunked_prefill true, enable_prefix_caching false
# A replica of aws/us-east-1/g6e.xlarge: meta-llama/Llama-3.1-8B-Instruct, vllm, tensor parallel 1, max_num_seqs 256, max_num_batched_tokens 2048, max_model_len 131072, block_size 16, gpu_memory_utilization 0.9, enable_chunked_prefill true, enable_prefix_caching false
#
# A fleet for each hour of the day in Europe/Berlin time, whatever the traffic is. Each replica type has a group in
# each market, on AWS with scheduled actions, on Google Cloud with scaling schedules. They order instances 5 min
# before their hours, for the start-up. A new group on AWS has the instances of its busiest hour until its first
# action.
#
# terraform init && terraform apply (or tofu). The Hugging Face token must already exist as a secret: -var
# hf_secret=NAME, in AWS Secrets Manager or Google Secret Manager.
#
# The groups of a type have one address within the network, which does not change with the number of instances. In
# front of the types a gateway routes requests by size, on a machine of that network: eval "melange deploy plan.json
# --to haproxy $(terraform output -raw replica_flags)", with a plan of the same types.

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
