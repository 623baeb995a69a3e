#!/bin/sh
# On the host that Redis runs on: Redis, and an ambassador that is linked to it and published.
set -eux
docker run -d --name redis "${REDIS_IMAGE:-redis}"
docker run -d --link redis:redis --name redis_ambassador -p 6379:6379 "${AMBASSADOR_IMAGE:-ambassador}"
