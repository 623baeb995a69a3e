#!/bin/sh
# The same on the client's host without links: a user-defined network, a name on it, and the route in one line.
# usage: today.sh ADDRESS-OF-BIG-SERVER
set -eux
docker network create app
docker run -d --name app_redis --network app --network-alias redis "${AMBASSADOR_IMAGE:-ambassador}" "6379=$1"
docker run -i --rm --network app "${REDIS_IMAGE:-redis}" redis-cli -h redis ping
