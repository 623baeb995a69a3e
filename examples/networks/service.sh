#!/bin/sh
# The service, a new container of it. The label is for `up.sh --docker`. usage: service.sh NETWORK
set -eux
docker run -d --name store --network "$1" --label ambassador.listen.6379=6379 "${REDIS_IMAGE:-redis}"
