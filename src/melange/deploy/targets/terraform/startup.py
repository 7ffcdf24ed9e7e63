"""The startup script of an instance: it starts the replicas, each in a container with its own accelerators."""

from __future__ import annotations

import shlex

from melange.deploy.group import Group

_SCRIPT = """\
# Starts the replicas of one instance. HF_SECRET is set before this: the name of a secret, or nothing.
set -eu
export HF_TOKEN=""
if [ -n "$HF_SECRET" ]; then
  HF_TOKEN=$({fetch})
fi
start() {{ # number of the replica, numbers of its accelerators
  docker rm -f "replica-$1" > /dev/null 2>&1 || true
  docker run --detach --name "replica-$1" --restart unless-stopped --stop-timeout {drain} \\
    --gpus "\\"device=$2\\"" --ipc host --publish "$(({port} + $1)):{port}" \\
    --env HF_TOKEN --volume /var/lib/melange/weights:/root/.cache/huggingface \\
    --entrypoint {program} {image} \\
    {arguments}
}}
{starts}
"""
_FETCH = {
    "aws": 'aws secretsmanager get-secret-value --region "$HF_REGION" --secret-id "$HF_SECRET" '
    "--query SecretString --output text",
    "gcp": 'gcloud secrets versions access latest --secret="$HF_SECRET"',
}


def startup_script(group: Group) -> str:
    """A script for a POSIX shell; containers get the token by name, so it is in no command line."""
    launch, per_replica = group.launch, group.server.layout.accelerators
    starts = [
        f"start {k} {','.join(str(number) for number in range(k * per_replica, (k + 1) * per_replica))}"
        for k in range(group.replicas_per_node)
    ]
    return _SCRIPT.format(
        fetch=_FETCH[group.node.provider],
        drain=launch.drain_s + 30,
        port=launch.port,
        program=shlex.quote(launch.command[0]),
        image=shlex.quote(launch.image),
        arguments=shlex.join(launch.command[1:]),
        starts="\n".join(starts),
    )
