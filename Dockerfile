# For those who have a registry. `cargo xtask image` makes the same image without one.
FROM rust:1.95 AS build
WORKDIR /src
COPY . .
RUN RUSTFLAGS='-C target-feature=+crt-static' \
    cargo build --locked --bin ambassador --profile dist --target "$(uname -m)-unknown-linux-gnu" \
    && cp "target/$(uname -m)-unknown-linux-gnu/dist/ambassador" /ambassador

FROM scratch
COPY --from=build /ambassador /ambassador
# The one directory that a container can write to even with --read-only and --user.
ENV XDG_RUNTIME_DIR=/dev/shm
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s CMD ["/ambassador", "health"]
# As root, as its ancestors: Docker's socket is root's. `--user` works for all else.
ENTRYPOINT ["/ambassador"]
