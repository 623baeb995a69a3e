# Builds the image where the base image `rust` can be pulled: `docker build -t ambassador .`
# `cargo xtask image` builds the same image without a registry.
FROM rust:1.95 AS build
WORKDIR /src
COPY . .
RUN RUSTFLAGS='-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs' \
    cargo build --locked --bin ambassador --profile dist --target "$(uname -m)-unknown-linux-gnu" \
    && cp "target/$(uname -m)-unknown-linux-gnu/dist/ambassador" /ambassador

FROM scratch
COPY --from=build /ambassador /ambassador
# The one directory that a container can write to even with --read-only and --user.
ENV XDG_RUNTIME_DIR=/dev/shm
# For `docker exec CONTAINER ambassador status`.
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/
# Docker 25 and later: add `--start-interval=1s`, and a container is healthy after a second instead of five. Older
# versions refuse the flag; `cargo xtask image` sets it where the engine supports it.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s CMD ["/ambassador", "health"]
# Runs as root because Docker's socket belongs to root. Nothing else needs it: `--user` works.
ENTRYPOINT ["/ambassador"]
