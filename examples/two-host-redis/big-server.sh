#!/bin/sh
# On the host that Redis runs on: Redis, and an ambassador that is linked to it and published. It reads its links from
# Docker's socket, since Docker 29 sets no link variables.
set -eux
docker run -d --name redis "${REDIS_IMAGE:-redis}"
docker run -d --link redis:redis --name redis_ambassador -p 6379:6379 \
    -v /var/run/docker.sock:/var/run/docker.sock:ro "${AMBASSADOR_IMAGE:-ambassador}"
