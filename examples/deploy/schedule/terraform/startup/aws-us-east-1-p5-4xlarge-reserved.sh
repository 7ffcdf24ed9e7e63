# Starts the replicas of one instance. HF_SECRET is set before this: the name of a secret, or nothing.
set -eu
export HF_TOKEN=""
if [ -n "$HF_SECRET" ]; then
  HF_TOKEN=$(aws secretsmanager get-secret-value --region "$HF_REGION" --secret-id "$HF_SECRET" --query SecretString --output text)
fi
start() { # number of the replica, numbers of its accelerators
  docker rm -f "replica-$1" > /dev/null 2>&1 || true
  docker run --detach --name "replica-$1" --restart unless-stopped --stop-timeout 630 \
    --gpus "\"device=$2\"" --ipc host --publish "$((8000 + $1)):8000" \
    --env HF_TOKEN --volume /var/lib/melange/weights:/root/.cache/huggingface \
    --entrypoint vllm vllm/vllm-openai:v0.32.0 \
    serve meta-llama/Llama-3.1-8B-Instruct --served-model-name meta-llama/Llama-3.1-8B-Instruct --host 0.0.0.0 --port 8000 --tensor-parallel-size 1 --pipeline-parallel-size 1 --max-num-seqs 1024 --max-num-batched-tokens 8192 --max-model-len 131072 --gpu-memory-utilization 0.9 --kv-cache-dtype auto --shutdown-timeout 600 --enable-chunked-prefill --no-enable-prefix-caching
}
start 0 0
