#!/bin/sh
# On the client's host: a Redis client that is linked to the local ambassador. Prints PONG.
set -eux
docker run -i --rm --link redis_ambassador:redis "${REDIS_IMAGE:-redis}" redis-cli -h redis ping
