#!/bin/sh
# The service moves to another network, and the ambassador with it; the consumers stay where they are.
# usage: move.sh NEW-NETWORK
set -eux
docker network create "$1"
docker network connect "$1" app_redis
docker rm -f store
./service.sh "$1"
