#!/bin/sh
# A consumer: it is on `app` alone, and asks for `redis`. Prints PONG.
set -eux
docker run -i --rm --network app "${REDIS_IMAGE:-redis}" redis-cli -h redis ping
