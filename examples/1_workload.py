"""Stage 1: how often requests of which size arrive."""

import melange

# Three services: short chats, long documents, and eight parts of one to two of the other.
for name in ("arena", "arxiv-summarization", {"arena": 0.8, "arxiv-summarization": 0.2}):
    workload = melange.dataset(name, request_rate=4.0)
    print(name)
    print(f"  {workload.total_rate:.1f} requests/s")
    print(f"  {workload.input_token_rate:,.0f} prompt tokens/s, {workload.output_token_rate:,.0f} generated tokens/s")
    busiest = divmod(int(workload.request_rate.argmax()), workload.buckets.shape[1])
    share = workload.request_rate.max() / workload.total_rate
    print(f"  most common size: {workload.buckets.label(*busiest)} ({share:.1%} of requests)")
