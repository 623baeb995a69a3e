#!/bin/sh
# Two networks, the consumers' and the service's, and an ambassador on both: on the first it is called `redis`.
# usage: up.sh 6379=store | up.sh 6379=docker://store | up.sh --docker
set -eux
case "$1" in
*docker*) socket="-v /var/run/docker.sock:/var/run/docker.sock:ro" ;;
*) socket= ;; # names need none
esac
docker network create app
docker network create data
./service.sh data
docker create --name app_redis --network app --network-alias redis $socket "${AMBASSADOR_IMAGE:-ambassador}" "$@"
docker network connect data app_redis
docker start app_redis
