#!/bin/sh
# Takes away what the other scripts started. usage: clean.sh [NEW-NETWORK]
docker rm -f -v store app_redis
docker network rm app data "$@"
